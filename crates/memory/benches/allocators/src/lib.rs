//! The work that Bursar's small heap does, with what is resident after each step.
//!
//! Weights, caches and scratch are mapped by Bursar itself. What is left to the process allocator is
//! loading (a vocabulary read as JSON, packed, thrown away; some large vectors), then requests of many
//! small strings on several threads. The question is what stays resident that nobody uses.
//!
//! With `ALLOCATORS_TRACE` set, the question is another: what a take or a give of a recorded serving trace
//! costs (`bursar serve --pool-record`), by each allocator and by Bursar's pools.

use std::collections::HashMap;
use std::hint::black_box;
use std::time::Instant;

use bursar_memory::pools::PoolsOptions;
use bursar_memory::trace::{Trace, Way, replay};

const TOKENS: u32 = 151_000;

/// The blocks of a trace as the process allocator serves them.
pub const PROCESS_ALLOCATOR: Way = Way::ProcessAllocator;

/// Replays the trace that `ALLOCATORS_TRACE` names, if it names one, and prints what an event costs.
pub fn traced(name: &str, way: Way) -> bool {
    let Some(path) = std::env::var_os("ALLOCATORS_TRACE") else {
        return false;
    };
    let text = std::fs::read_to_string(&path).expect("the trace can be read");
    let trace = Trace::from_json(&text).expect("a trace of `bursar serve --pool-record`");
    let done = replay(&trace, way, &PoolsOptions::default()).expect("pools of the default sizes");
    let hits = done
        .hit_ratio
        .map_or(String::new(), |ratio| format!(" hits {:.1} %", 100.0 * ratio));
    println!(
        "{name:<22} {:>6.1} ns per event of {}{hits}",
        done.event_ns, done.events
    );
    true
}

/// Runs all steps and prints one line per figure. `purge` gives back what it can.
pub fn run(name: &str, purge: impl Fn()) {
    if traced(name, PROCESS_ALLOCATOR) {
        return;
    }
    let base = resident_kib("RssAnon:");
    let began = Instant::now();
    let (kept, scattered) = load();
    let load_ms = began.elapsed().as_secs_f64() * 1e3;
    let peak = resident_kib("VmHWM:");
    let after_load = resident_kib("RssAnon:");
    let began = Instant::now();
    purge();
    let purge_ms = began.elapsed().as_secs_f64() * 1e3;
    let after_purge = resident_kib("RssAnon:");
    let live: usize = kept.len() + scattered.iter().map(|s| s.capacity() + 24).sum::<usize>();

    let began = Instant::now();
    let pairs = small_pairs();
    let pair_ns = began.elapsed().as_secs_f64() * 1e9 / pairs as f64;

    let began = Instant::now();
    requests_on_threads();
    let requests_ms = began.elapsed().as_secs_f64() * 1e3;
    let after_requests = resident_kib("RssAnon:");
    purge();
    let after_all = resident_kib("RssAnon:");
    println!(
        "{name:<22} live {:>5} base {base:>5} load {load_ms:>4.0} ms peak {peak:>6} after {after_load:>6} \
         purge {purge_ms:>4.1} ms -> {after_purge:>6} | pair {pair_ns:>4.1} ns | requests \
         {requests_ms:>4.0} ms {after_requests:>6} purge -> {after_all:>6}",
        live >> 10,
    );
    black_box((kept, scattered));
}

/// What loading a tokenizer does: a file in memory, a map of strings, a packed table that stays. Of
/// the small strings every 500th stays too, so that pages in the middle are held.
fn load() -> (Vec<u8>, Vec<String>) {
    let mut file = vec![7_u8; 11 << 20];
    file[5] = 1;
    black_box(&file);
    let mut random = 1_u64;
    let mut text = || {
        random = random
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        let len = 3 + (random >> 60) as usize + ((random >> 33) % 40 / 37 * 60) as usize;
        format!("{random:x>len$.len$}", random = (random >> 20) as u32)
    };
    let mut ids: HashMap<String, u32> = HashMap::new();
    let mut merges: Vec<(String, String)> = Vec::new();
    let mut scattered = Vec::new();
    for id in 0..TOKENS {
        ids.insert(format!("{id}{}", text()), id);
        merges.push((text(), text()));
        if id % 500 == 0 {
            scattered.push(text());
        }
    }
    let mut packed = Vec::new();
    for (token, id) in &ids {
        packed.extend_from_slice(token.as_bytes());
        packed.extend_from_slice(&id.to_le_bytes());
    }
    for (left, right) in &merges {
        packed.extend_from_slice(&(left.len() as u32 ^ right.len() as u32).to_le_bytes());
    }
    packed.shrink_to_fit();
    (packed, scattered)
}

/// Takes and returns small blocks, a few alive at a time.
fn small_pairs() -> usize {
    const PAIRS: usize = 4_000_000;
    let mut window: [Vec<u8>; 16] = Default::default();
    for n in 0..PAIRS {
        window[n % 16] = Vec::with_capacity(16 + n * 37 % 240);
        black_box(&window);
    }
    PAIRS
}

/// Requests as strings and vectors on three threads that end.
fn requests_on_threads() {
    std::thread::scope(|scope| {
        for seed in 0..3_usize {
            scope.spawn(move || {
                for request in 0..300 {
                    let body = vec![1_u8; 20_000 + (request + seed) % 7 * 9_000];
                    let mut words: Vec<String> = Vec::new();
                    for word in 0..2_000 {
                        words.push("x".repeat(1 + (word * 31 + request) % 90));
                    }
                    black_box((body, words));
                }
            });
        }
    });
}

fn resident_kib(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux has it");
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix(key))
        .expect("Linux has it");
    line.trim()
        .trim_end_matches(" kB")
        .parse()
        .expect("a number of kB")
}
