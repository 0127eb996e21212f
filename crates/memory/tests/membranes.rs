//! Membranes against a naive oracle that keeps every block's address and contents.
//!
//! What must hold, whatever happens:
//! 1. Blocks never overlap and start at a multiple of 64.
//! 2. What was written into a block is read from it, also after it was moved.
//! 3. Every block is counted once: exact, spilled, failed or oversize; bytes in use are those of the
//!    blocks, lifetime by lifetime.
//! 4. The spans of all levels together never exceed the limit.
//! 5. When all blocks are gone, membranes give everything back.

#![allow(clippy::unwrap_used, reason = "a test may")]

use bursar_memory::heap_pool::{CompactionOptions, HeapPool, HeapPoolOptions};
use bursar_memory::membrane::{MembraneOptions, Membranes, Weights};
use bursar_memory::movable::MovableSpan;
use bursar_memory::pools::{Pools, PoolsOptions};
use bursar_memory::span::Span;
use bursar_memory::{Bytes, Ledger, Lifetime};
use proptest::prelude::*;

fn pool(ledger: &Ledger) -> HeapPool {
    let options = HeapPoolOptions {
        heaps: 1,
        heap_size: Bytes::kib(256),
        max_heaps: 8,
        compaction: CompactionOptions {
            enabled: false,
            ..CompactionOptions::default()
        },
        ..HeapPoolOptions::default()
    };
    HeapPool::start(options, &ledger.root()).unwrap()
}

fn membranes(heaps: &HeapPool, limit: Bytes, depth: usize, weights: Weights) -> Membranes {
    let options = MembraneOptions {
        limit,
        depth,
        weights,
    };
    Membranes::new(options, heaps).unwrap()
}

/// A3
#[test]
fn a_block_goes_to_its_level_then_spills_then_fails() {
    let ledger = Ledger::new(Bytes::mib(16));
    let heaps = pool(&ledger);
    // 1, 1, 2, 4 pages a membrane, four of each.
    let membranes = membranes(&heaps, Bytes(8 * 4 * 4096), 4, Weights::RootedTrees);
    let mut spans: Vec<Span> = Vec::new();
    let mut take = |len| {
        let span = membranes.take(len, Lifetime::Emotional);
        let report = membranes.report();
        spans.extend(span);
        let there: Vec<usize> = report.levels.iter().map(|level| level.membranes).collect();
        (
            there,
            report.exact_total,
            report.spilled_total,
            report.failed_total,
        )
    };
    assert_eq!(take(4096), (vec![1, 0, 0, 0], 1, 0, 0));
    for _ in 0..3 {
        take(4096);
    }
    // Level 1 is full: level 2, and when all are full, none.
    assert_eq!(take(4096), (vec![4, 1, 0, 0], 4, 1, 0));
    for _ in 0..27 {
        take(4096);
    }
    assert_eq!(take(4096), (vec![4, 4, 4, 4], 4, 28, 1));
    assert_eq!(take(4 * 4096), (vec![4, 4, 4, 4], 4, 28, 2));
    assert!(membranes.take(4 * 4096 + 1, Lifetime::Emotional).is_none());
    assert_eq!(membranes.report().oversize_total, 1);
    let report = membranes.report();
    assert_eq!(report.taken_bytes, report.limit_bytes);
    assert_eq!(report.levels[3].used_by_lifetime, [0, 0, 0, 4 * 4 * 4096]);
    assert_eq!(report.levels[3].received_total, 16);
    spans.clear();
    assert_eq!(membranes.trim(), Bytes(8 * 4 * 4096));
    assert_eq!(heaps.report().used_bytes, 0);
}

#[test]
fn lifetimes_are_kept_apart_while_there_is_room() {
    let ledger = Ledger::new(Bytes::mib(16));
    let heaps = pool(&ledger);
    let membranes = membranes(&heaps, Bytes(4 * 4096), 1, Weights::Uniform);
    let spans: Vec<Span> = Lifetime::ALL
        .iter()
        .map(|lifetime| membranes.take(100, *lifetime).unwrap())
        .collect();
    assert_eq!(membranes.report().levels[0].membranes, 4);
    // All four are there now: a full one is helped out by another.
    let more: Vec<Span> = (0..2)
        .map(|_| membranes.take(3900, Lifetime::Semantic).unwrap())
        .collect();
    assert_eq!(membranes.report().levels[0].membranes, 4);
    assert_eq!(membranes.report().failed_total, 0);
    drop((spans, more));
    drop(membranes);
    assert_eq!(heaps.report().used_bytes, 0);
}

/// A3
#[test]
fn consolidation_empties_sparse_membranes_and_returns_their_pages() {
    let ledger = Ledger::new(Bytes::mib(16));
    let heaps = pool(&ledger);
    let membranes = membranes(&heaps, Bytes((4 * 128) << 10), 1, Weights::Uniform);
    // 32 KiB is a quarter of a membrane; one each of four lifetimes: four membranes.
    let mut blocks: Vec<MovableSpan> = Lifetime::ALL
        .iter()
        .map(|lifetime| membranes.take_movable(32 << 10, *lifetime).unwrap())
        .collect();
    for (n, block) in blocks.iter_mut().enumerate() {
        block.pin().fill(n as u8 + 1);
    }
    // What somebody looks at pins its membrane.
    let (first, others) = blocks.split_first_mut().unwrap();
    let looking = first.pin();
    let done = membranes.consolidate(0.5, Bytes::MAX);
    assert_eq!(
        (done.membranes, done.moved, done.moved_bytes),
        (3, 3, 3 * (32 << 10))
    );
    assert_eq!(done.span_bytes, 3 * (128 << 10));
    assert!(done.returned_bytes >= 3 * (32 << 10), "{done:?}");
    drop(looking);
    for (n, block) in others.iter_mut().enumerate() {
        assert!(block.pin().iter().all(|byte| *byte == n as u8 + 2));
    }
    assert_eq!(membranes.report().levels[0].used_by_lifetime, [32 << 10; 4]);
    assert_eq!(membranes.report().consolidated, done);

    // A block that cannot be moved keeps its membrane, and nothing is moved for nothing.
    blocks.clear();
    membranes.trim();
    let _fixed = membranes.take(64, Lifetime::Episodic).unwrap();
    let _movable = membranes.take_movable(64, Lifetime::Episodic).unwrap();
    let done = membranes.consolidate(0.5, Bytes::MAX);
    assert_eq!((done.membranes, done.moved), (0, 0));
}

#[test]
fn under_pressure_the_least_important_goes_first_and_no_more_than_wanted() {
    let ledger = Ledger::new(Bytes::mib(16));
    let heaps = pool(&ledger);
    let membranes = membranes(&heaps, Bytes((4 * 128) << 10), 1, Weights::Uniform);
    let lifetimes = [Lifetime::Emotional, Lifetime::Semantic, Lifetime::Episodic];
    let blocks = lifetimes.map(|lifetime| membranes.take_movable(1000, lifetime).unwrap());
    let done = membranes.consolidate(0.5, Bytes(1));
    assert_eq!((done.membranes, done.moved), (1, 1));
    // The episodic one has gone to one of the others.
    assert_eq!(membranes.report().levels[0].membranes, 2);
    drop(blocks);
}

#[test]
fn a_pool_without_room_is_a_failed_take() {
    let ledger = Ledger::new(Bytes::kib(256));
    let heaps = pool(&ledger);
    let membranes = membranes(&heaps, Bytes::mib(1), 1, Weights::Uniform);
    let spans: Vec<Span> = (0..2)
        .map(|_| membranes.take(100 << 10, Lifetime::Episodic).unwrap())
        .collect();
    assert!(membranes.take(100 << 10, Lifetime::Episodic).is_none());
    assert_eq!(membranes.report().failed_total, 1);
    drop(spans);
    assert!(membranes.take(100 << 10, Lifetime::Episodic).is_some());
}

/// A3: what the pools of a server hand out lies in membranes, and goes back when memory is short.
#[test]
fn buffers_are_drawn_from_membranes() {
    let ledger = Ledger::new(Bytes::mib(64));
    let pools = Pools::start(&PoolsOptions::default(), &ledger.root()).unwrap();
    let buffer = pools.buffers().acquire(1000, Lifetime::Semantic).unwrap();
    let mut movable = pools.take_movable(2000, Lifetime::Episodic).unwrap();
    movable.pin().fill(3);
    let report = pools.report().membranes.unwrap();
    let used = [0, 1, 2, 3].map(|lifetime| {
        let levels = report.levels.iter();
        levels
            .map(|level| level.used_by_lifetime[lifetime])
            .sum::<u64>()
    });
    assert_eq!(used, [0, 2048, 1024, 0]);
    assert_eq!((report.exact_total, report.spilled_total), (2, 0));
    // Too long for any membrane of 2 MiB in levels: it comes from the heaps.
    let long = pools
        .buffers()
        .acquire(1 << 20, Lifetime::Episodic)
        .unwrap();
    assert_eq!(pools.report().membranes.unwrap().oversize_total, 1);
    drop((buffer, long));
    // The buffer's membrane goes; the movable block is alone in its own and stays where it is.
    pools.trim();
    let report = pools.report().membranes.unwrap();
    assert_eq!(
        (report.used_bytes, report.consolidated.membranes),
        (2048, 1)
    );
    assert!(movable.pin().iter().all(|byte| *byte == 3));
    drop(movable);
    pools.trim();
    assert_eq!(pools.report().membranes.unwrap().taken_bytes, 0);
    assert_eq!(pools.heaps().unwrap().report().used_bytes, 0);
}

// ---- against the oracle ----

#[derive(Clone, Debug)]
enum Step {
    Take {
        len: usize,
        lifetime: Lifetime,
        movable: bool,
    },
    Free {
        at: usize,
    },
    Trim,
    Consolidate {
        sparse: f64,
        wanted: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let len = prop_oneof![4 => 0..2_000_usize, 3 => 0..20_000_usize, 1 => 0..200_000_usize];
    let lifetime = prop::sample::select(Lifetime::ALL.to_vec());
    let step = prop_oneof![
        10 => (len, lifetime, any::<bool>())
            .prop_map(|(len, lifetime, movable)| Step::Take { len, lifetime, movable }),
        8 => any::<usize>().prop_map(|at| Step::Free { at }),
        1 => Just(Step::Trim),
        1 => (0.0..1.0, prop_oneof![Just(u64::MAX), 0..1_u64 << 20])
            .prop_map(|(sparse, wanted)| Step::Consolidate { sparse, wanted }),
    ];
    prop::collection::vec(step, 1..120)
}

enum Held {
    Fixed(Span),
    Movable(MovableSpan),
}

impl Held {
    fn look<T>(&mut self, look: impl FnOnce(&mut [u8]) -> T) -> T {
        match self {
            Held::Fixed(span) => look(span),
            Held::Movable(span) => look(&mut span.pin()),
        }
    }
}

struct Known {
    held: Held,
    contents: Vec<u8>,
    lifetime: Lifetime,
}

fn check_against_oracle(limit: u64, depth: usize, weights: Weights, steps: Vec<Step>) {
    let ledger = Ledger::new(Bytes::mib(64));
    let heaps = pool(&ledger);
    let membranes = membranes(&heaps, Bytes(limit), depth, weights);
    let mut blocks: Vec<Known> = Vec::new();
    let mut takes = 0;
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Take {
                len,
                lifetime,
                movable,
            } => {
                takes += 1;
                let held = if movable {
                    membranes.take_movable(len, lifetime).map(Held::Movable)
                } else {
                    membranes.take(len, lifetime).map(Held::Fixed)
                };
                let Some(mut held) = held else { continue };
                let contents: Vec<u8> = (0..len).map(|at| (at * 7 + number) as u8).collect();
                held.look(|bytes| bytes.copy_from_slice(&contents));
                blocks.push(Known {
                    held,
                    contents,
                    lifetime,
                });
            }
            Step::Free { at } if !blocks.is_empty() => {
                let at = at % blocks.len();
                drop(blocks.swap_remove(at));
            }
            Step::Free { .. } => {}
            Step::Trim => {
                membranes.trim();
                let report = membranes.report();
                assert!(report.used_bytes > 0 || report.taken_bytes == 0);
            }
            Step::Consolidate { sparse, wanted } => {
                let before = membranes.report();
                let done = membranes.consolidate(sparse, Bytes(wanted));
                let after = membranes.report();
                assert_eq!(before.taken_bytes - after.taken_bytes, done.span_bytes);
                assert_eq!(before.used_bytes, after.used_bytes);
            }
        }
        let mut ranges: Vec<(usize, usize)> = Vec::new();
        let mut used = [0; 4];
        for Known {
            held,
            contents,
            lifetime,
        } in &mut blocks
        {
            held.look(|bytes| {
                assert_eq!(bytes, &contents[..]);
                let start = bytes.as_ptr() as usize;
                assert!(start.is_multiple_of(64));
                ranges.push((start, start + bytes.len()));
            });
            used[*lifetime as usize] += contents.len().max(1).next_multiple_of(64) as u64;
        }
        ranges.retain(|(start, end)| start < end);
        ranges.sort_unstable();
        assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0));

        let report = membranes.report();
        let by_lifetime = [0, 1, 2, 3].map(|lifetime| {
            report
                .levels
                .iter()
                .map(|level| level.used_by_lifetime[lifetime])
                .sum::<u64>()
        });
        assert_eq!(by_lifetime, used);
        assert_eq!(report.used_bytes, used.iter().sum::<u64>());
        assert!(report.used_bytes <= report.taken_bytes);
        assert!(report.taken_bytes <= report.span_bytes && report.span_bytes <= limit);
        let counted = report.exact_total + report.spilled_total + report.failed_total;
        assert_eq!(counted + report.oversize_total, takes);
        assert_eq!(heaps.report().used_bytes, report.taken_bytes);
    }
    blocks.clear();
    membranes.trim();
    assert_eq!(membranes.report().taken_bytes, 0);
    assert_eq!(heaps.report().used_bytes, 0);
    drop((membranes, heaps));
    assert_eq!(ledger.granted(), Bytes::ZERO);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..Default::default() })]

    /// A3
    #[test]
    fn membranes_do_what_the_oracle_does(
        limit in (64..2048_u64).prop_map(|kib| kib << 10),
        depth in 1..=12_usize,
        weights in prop::sample::select(Weights::ALL.to_vec()),
        steps in steps(),
    ) {
        check_against_oracle(limit, depth, weights, steps);
    }
}
