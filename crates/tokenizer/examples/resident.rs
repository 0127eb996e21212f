//! What a tokenizer of a large model's size holds and how fast it is, beside the `tokenizers` crate.
//!
//! ```text
//! cargo run --release -p bursar-tokenizer --example resident -- [tokenizer.json [text]]
//! ```
//!
//! Without arguments the vocabulary is synthetic, and so the memory is representative but not the
//! speed: its merges are not those of any text. `tools/reference/tokenizers/large.py` trains a
//! vocabulary on real text.

#[path = "../tests/common/synthetic.rs"]
mod synthetic;

use std::error::Error;
use std::hint::black_box;
use std::time::Instant;

use bursar_memory::counting::{Left, ProcessAllocator, left_by, process_allocator};
use bursar_tokenizer::{Special, Tokenizer};

#[global_allocator]
static ALLOCATOR: ProcessAllocator = process_allocator();

const MIB: f64 = 1_048_576.0;
const ROUNDS: usize = 7;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let json = match arguments.next() {
        Some(path) => std::fs::read_to_string(path)?,
        None => synthetic::description(151_643),
    };
    let text = match arguments.next() {
        Some(path) => std::fs::read_to_string(path)?,
        None => include_str!("resident.rs").repeat(200),
    };
    println!(
        "{:.1} MiB of JSON, {:.1} MiB of text",
        size(&json),
        size(&text)
    );

    let before = rss()?;
    let started = Instant::now();
    let (ours, left) = left_by(|| Tokenizer::from_json(json.as_bytes()));
    let ours = ours?;
    report("bursar", &left, started);
    println!("  process: {:.1} MiB, {:.1} before", rss()?, before);
    println!(
        "  it says {} bytes; {} tokens",
        ours.heap_bytes(),
        ours.vocab_len()
    );
    let ids = ours.encode(&text, Special::PARSE);
    println!(
        "  {:.2} bytes a token",
        text.len() as f64 / ids.len() as f64
    );
    speed("encode", &text, || ours.encode(&text, Special::PARSE).len());
    speed("decode", &text, || ours.decode(&ids, false).len());
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    speed("encode line by line", &text, || {
        lines
            .iter()
            .map(|line| ours.encode(line, Special::PARSE).len())
            .sum()
    });
    let run = "a".repeat(1 << 20);
    speed("encode 1 MiB of one letter", &run, || {
        ours.encode(&run, Special::NONE).len()
    });

    let before = rss()?;
    let started = Instant::now();
    let (theirs, left) = left_by(|| json.parse::<tokenizers::Tokenizer>());
    let mut theirs = theirs.map_err(|error| error.to_string())?;
    report("tokenizers", &left, started);
    println!("  process: {:.1} MiB, {:.1} before", rss()?, before);
    // What a file says of lengths is left to the caller here, so it must not count there.
    theirs.with_padding(None);
    theirs
        .with_truncation(None)
        .map_err(|error| error.to_string())?;
    let want = theirs
        .encode_fast(&*text, false)
        .map_err(|error| error.to_string())?;
    println!("  ids equal: {}", want.get_ids() == ids);
    speed("encode", &text, || {
        theirs
            .encode_fast(&*text, false)
            .map_or(0, |found| found.len())
    });
    speed("decode", &text, || {
        theirs.decode(&ids, false).map_or(0, |text| text.len())
    });
    speed("encode line by line", &text, || {
        lines
            .iter()
            .map(|line| {
                theirs
                    .encode_fast(*line, false)
                    .map_or(0, |found| found.len())
            })
            .sum()
    });
    speed("encode 1 MiB of one letter", &run, || {
        theirs
            .encode_fast(&*run, false)
            .map_or(0, |found| found.len())
    });
    println!("  process: {:.1} MiB after", rss()?);
    Ok(())
}

/// Resident memory of this process in MiB.
fn rss() -> Result<f64, Box<dyn Error>> {
    let status = std::fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("VmRSS:"))
        .unwrap_or("0 kB");
    Ok(line.trim().trim_end_matches(" kB").parse::<f64>()? / 1024.0)
}

fn size(text: &str) -> f64 {
    text.len() as f64 / MIB
}

fn report(name: &str, left: &Left, started: Instant) {
    println!(
        "{name}: {:.2} MiB resident in {} blocks, {:.2} MiB at the peak of building, {:.0} ms",
        left.bytes as f64 / MIB,
        left.blocks,
        left.peak.0 as f64 / MIB,
        started.elapsed().as_secs_f64() * 1000.0
    );
}

/// Prints the median speed over some rounds.
fn speed(name: &str, text: &str, work: impl Fn() -> usize) {
    let mut seconds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let started = Instant::now();
            black_box(work());
            started.elapsed().as_secs_f64()
        })
        .collect();
    seconds.sort_by(f64::total_cmp);
    println!(
        "  {name}: {:.1} MB/s",
        text.len() as f64 / 1e6 / seconds[ROUNDS / 2]
    );
}
