//! Prompts that begin alike: what clients are told of it, who shares with whom, and what those see who
//! watch over the server.

#![allow(clippy::unwrap_used, reason = "a test may")]

#[allow(dead_code, reason = "each test takes what it needs")]
mod common;

use std::net::SocketAddr;

use bursar_server::Keys;
use common::Setup;
use common::client::{get, head, post, read, send};
use serde_json::{Value, json};

const COMPLETION: &str = "/v1/completions";

/// A prompt of 60 tokens: three blocks of 16 are full, and a fourth is not.
fn body(first: u32) -> Vec<u32> {
    (0..60).map(|token| first + token * 3 % 97).collect()
}

fn request(prompt: &[u32], more: Value) -> Vec<u8> {
    let mut body = json!({
        "model": "llama",
        "prompt": prompt,
        "temperature": 0,
        "max_tokens": 8,
        "ignore_eos": true,
    });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body.to_string().into_bytes()
}

fn cached(answer: &Value) -> u64 {
    let details = &answer["usage"]["prompt_tokens_details"];
    details["cached_tokens"].as_u64().unwrap()
}

#[test]
fn usage_tells_what_did_not_have_to_be_computed() {
    let server = Setup::new().start();
    let ask = |prompt: &[u32], more| post(server.address, COMPLETION, request(prompt, more)).json();
    let prompt = body(5);
    let first = ask(&prompt, json!({}));
    assert_eq!(cached(&first), 0);
    let again = ask(&prompt, json!({}));
    assert_eq!(cached(&again), 48);
    assert_eq!(again["choices"][0]["text"], first["choices"][0]["text"]);
    assert_eq!(again["usage"]["prompt_tokens"], 60);
    // Equal up to the middle of the third block: two blocks are of use.
    let mut other = prompt.clone();
    other[40] += 1;
    assert_eq!(cached(&ask(&other, json!({}))), 32);
    // The last token is always computed, and so the block that it ends.
    assert_eq!(cached(&ask(&prompt[..48], json!({}))), 32);
    // A stream's usage says the same.
    let stream = json!({ "stream": true, "stream_options": { "include_usage": true } });
    let events = post(server.address, COMPLETION, request(&prompt, stream)).events();
    assert_eq!(cached(events.last().unwrap()), 48);
    server.stop();
}

#[test]
fn tenants_share_with_themselves_only() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tenants");
    let text = "red sk-red-0123456789\nred sk-red-9876543210\nblue sk-blue-012345678\n";
    std::fs::write(&path, text).unwrap();
    let setup = Setup {
        keys: Some(Keys::with_tenants(None, &path).unwrap()),
        ..Setup::new()
    };
    let server = setup.start();
    let ask = |key: &str| {
        let body = request(&body(7), json!({}));
        let key = format!("Authorization: Bearer {key}\r\n");
        let head = head(COMPLETION, &key, body.len());
        read(send(server.address, &head, &body)).json()
    };
    let red = ask("sk-red-0123456789");
    assert_eq!(cached(&red), 0);
    assert_eq!(cached(&ask("sk-red-9876543210")), 48);
    let blue = ask("sk-blue-012345678");
    assert_eq!(cached(&blue), 0, "another tenant's prefix is of no use");
    assert_eq!(cached(&ask("sk-blue-012345678")), 48);
    assert_eq!(red["choices"][0]["text"], blue["choices"][0]["text"]);
    server.stop();
}

#[test]
fn the_report_has_every_figure() {
    let server = Setup::new().start();
    let address: SocketAddr = server.address;
    for _ in 0..2 {
        post(address, COMPLETION, request(&body(9), json!({ "n": 2 }))).json();
    }
    // The figures are published after the step in which the last answer ended.
    let memory = loop {
        let memory = get(address, "/memory", "").json();
        if memory["kv"][0]["allocations_current"] == 0 && memory["kv"][0]["blocks_cached"] != 0 {
            break memory;
        }
        std::thread::yield_now();
    };
    let kv = &memory["kv"][0];
    let number = |name: &str| {
        let value = kv[name].as_f64();
        value.unwrap_or_else(|| panic!("{name} is {}", kv[name]))
    };
    assert_eq!(kv["model"], "llama");
    assert_eq!(number("block_tokens"), 16.0);
    for name in [
        "bytes_per_token",
        "metadata_bytes",
        "slabs",
        "allocations_total",
        "deallocations_total",
        "allocations_peak",
        "blocks_cached",
    ] {
        assert!(number(name) > 0.0, "{name}");
    }
    for name in ["blocks_used", "logical_blocks", "shared_blocks"] {
        assert_eq!(number(name), 0.0, "{name}");
    }
    assert_eq!(number("allocations_current"), 0.0);
    for name in ["fragmentation_ratio", "efficiency_ratio"] {
        assert!((0.0..=1.0).contains(&number(name)), "{name}");
    }
    assert!(number("compactions_total") >= 0.0);
    for name in ["compaction_last_unix_ms", "compaction_last_duration_ms"] {
        assert!(kv.get(name).is_some(), "{name}");
    }
    let states = number("blocks_used") + number("blocks_cached") + number("blocks_free");
    assert_eq!(states, number("blocks_total"));
    assert!(number("prefix_hit_tokens_total") >= 48.0);

    let metrics = get(address, "/metrics", "");
    let text = String::from_utf8_lossy(&metrics.body).into_owned();
    for line in [
        "bursar_kv_blocks{model=\"llama\",state=\"cached\"} ",
        "bursar_kv_usage_ratio{model=\"llama\"} 0\n",
        "bursar_kv_block_reuse_gap_seconds_bucket{model=\"llama\",le=\"+Inf\"} ",
        "bursar_kv_block_age_seconds_count{model=\"llama\"} ",
        "bursar_kv_block_idle_seconds_sum{model=\"llama\"} ",
        "bursar_prefix_hit_tokens_total{model=\"llama\"} ",
        "# TYPE bursar_kv_block_age_seconds histogram",
    ] {
        assert!(text.contains(line), "{line} is missing from\n{text}");
    }
    server.stop();
}
