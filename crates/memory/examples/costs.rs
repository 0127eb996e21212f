//! What the books cost: nanoseconds for a reservation, a snapshot, a block of a heap.
//!
//! `cargo run --release -p bursar-memory --example costs`

use std::hint::black_box;
use std::time::Instant;

use bursar_memory::{Bytes, Heap, Ledger, Lifetime};

const ROUNDS: usize = 9;

/// The median of some rounds of `calls` calls, in nanoseconds per call.
fn median_ns(calls: u32, mut call: impl FnMut(u32)) -> f64 {
    let mut rounds: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let began = Instant::now();
            (0..calls).for_each(&mut call);
            began.elapsed().as_secs_f64() * 1e9 / f64::from(calls)
        })
        .collect();
    rounds.sort_by(f64::total_cmp);
    rounds[ROUNDS / 2]
}

fn main() {
    let ledger = Ledger::new(Bytes::gib(1));
    let model = ledger.root().child("model", Lifetime::Semantic);
    let leaf = model.child("kv", Lifetime::Episodic);
    let reserve = median_ns(200_000, |n| {
        drop(black_box(leaf.reserve(Bytes(u64::from(n)))).expect("it fits"));
    });
    println!("reserve and release, three accounts deep   {reserve:6.1} ns");
    let snapshot = median_ns(20_000, |_| {
        black_box(ledger.snapshot());
    });
    println!("snapshot of three accounts                 {snapshot:6.1} ns");

    let mut heap = Heap::new(1 << 30, 256).expect("a valid heap");
    heap.reserve_books(10_000);
    let mut blocks: Vec<_> = (0..5_000_u64)
        .map(|n| heap.take(256 + n * 7919 % 60_000, 64).expect("it fits"))
        .collect();
    let mut turn = 0;
    let block = median_ns(200_000, |n| {
        turn = (turn * 5 + 1) % blocks.len();
        let fresh = heap
            .take(256 + u64::from(n) * 7919 % 60_000, 64)
            .expect("it fits");
        heap.free(std::mem::replace(&mut blocks[turn], fresh));
    });
    println!(
        "take a block and free another, of 5000     {block:6.1} ns  {:?}",
        heap.stats()
    );
}
