//! How often a whole server asks for heap per generated token: engine, HTTP and all.
//!
//! The process allocator counts, so this is a program of its own with one test, whose client takes nothing
//! while it reads. What a request takes once stays out of the figure: two requests are compared that differ in
//! their number of tokens only.

#![allow(clippy::unwrap_used, reason = "a test may")]

#[allow(dead_code, reason = "each test takes what it needs")]
mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};

use bursar_engine::Purpose;
use bursar_memory::counting::{self, ProcessAllocator};
use common::client::{get, head};
use common::{Running, Setup};
use serde_json::{Value, json};

#[global_allocator]
static ALLOCATOR: ProcessAllocator = counting::process_allocator();

const CHAT: &str = "/v1/chat/completions";
/// Tokens of the two answers that are compared.
const SHORT: usize = 32;
const LONG: usize = 288;
/// Most allocations per generated token of all threads together.
const PER_TOKEN_MAX: f64 = 5.0;

fn request(tokens: usize, more: &Value) -> Vec<u8> {
    let mut body = json!({
        "model": "llama",
        "messages": [{ "role": "user", "content": "The miller mended a ledger." }],
        "temperature": 0,
        "max_tokens": tokens,
        "ignore_eos": true,
    });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    let body = body.to_string();
    [head(CHAT, "", body.len()).as_bytes(), body.as_bytes()].concat()
}

/// Asks, reads to the end, and gives what the whole process allocated meanwhile; the answer's bytes are in
/// `answer`, which is large enough.
fn allocated(address: SocketAddr, request: &[u8], answer: &mut [u8]) -> (u64, usize) {
    let before = ALLOCATOR.counts().allocations;
    let mut stream = TcpStream::connect(address).unwrap();
    stream.write_all(request).unwrap();
    let mut length = 0;
    loop {
        match stream.read(&mut answer[length..]).unwrap() {
            0 => break,
            count => length += count,
        }
    }
    (ALLOCATOR.counts().allocations - before, length)
}

/// Allocations per token of answers of a kind.
fn per_token(server: &Running, more: &Value) -> f64 {
    let mut answer = vec![0; 4 << 20];
    let mut figures = [SHORT, LONG].map(|tokens| {
        let request = request(tokens, more);
        // The second time the prompt is stored, and tables and pools are as large as they get; the least of
        // some, because other threads of a server wake up now and then.
        let figures = (0..6).map(|_| {
            let (count, length) = allocated(server.address, &request, &mut answer);
            assert!(answer[..length].starts_with(b"HTTP/1.1 200 OK"));
            count
        });
        figures.skip(1).min().unwrap()
    });
    figures.sort_unstable();
    (figures[1] - figures[0]) as f64 / (LONG - SHORT) as f64
}

/// M1, A1
#[test]
fn a_generated_token_takes_a_few_allocations_at_most() {
    let server = Setup {
        models: &[("llama", "llama-f16.gguf", Purpose::Generate)],
        heap: Some(|| ALLOCATOR.counts()),
        ..Setup::new()
    }
    .start();
    assert!(counting::is_counting());
    for (name, more) in [
        ("plain", json!({})),
        ("streamed", json!({ "stream": true })),
        ("four plain", json!({ "n": 4 })),
        ("four streamed", json!({ "n": 4, "stream": true })),
    ] {
        let answers = more["n"].as_u64().unwrap_or(1) as f64;
        let each = per_token(&server, &more) / answers;
        println!("{name}: {each:.2} allocations per token");
        assert!(
            each <= PER_TOKEN_MAX,
            "{name}: {each:.2} allocations per token"
        );
    }

    // The same counts are there to be read.
    let told = get(server.address, "/memory", "").json()["heap"].clone();
    let metrics = get(server.address, "/metrics", "").body;
    let metrics = String::from_utf8(metrics).unwrap();
    let value = |name: &str| -> u64 {
        let line = metrics
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("{name} is missing"))
            .parse()
            .unwrap()
    };
    let counted = value("bursar_heap_allocations_total");
    assert!(counted > told["allocations_total"].as_u64().unwrap());
    assert!(counted < ALLOCATOR.counts().allocations);
    assert!(value("bursar_heap_allocated_bytes") > 0);
    assert!(value("bursar_heap_allocated_peak_bytes") >= told["allocated_bytes"].as_u64().unwrap());
    assert!(value("bursar_heap_deallocations_total") > 0);
    server.stop();
}
