//! The heap pool against a naive twin, and what it promises in words.

use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bursar_memory::heap_pool::{CompactionOptions, HeapPoolOptions, Strategy};
use bursar_memory::source::{FaultySource, HostSource, RefusedAsks};
use bursar_memory::{Bytes, HeapPool, Ledger, MovableSpan, PoolError, Span};
use proptest::prelude::{
    Just, ProptestConfig, Strategy as _, any, prop_assert, prop_assert_eq, prop_oneof, proptest,
};

const HEAP: u64 = 64 << 10;

fn options() -> HeapPoolOptions {
    HeapPoolOptions {
        heaps: 2,
        heap_size: Bytes(HEAP),
        max_heaps: 3,
        growth_trigger: 1.0,
        ..HeapPoolOptions::default()
    }
}

fn start(options: HeapPoolOptions, budget: u64) -> (Ledger, HeapPool) {
    let ledger = Ledger::new(Bytes(budget));
    let pool = HeapPool::start(options, &ledger.root()).expect("a budget with room");
    (ledger, pool)
}

/// P1, P2
#[test]
fn heaps_then_growth_then_a_mapping_of_its_own() {
    let (ledger, pool) = start(options(), 1 << 20);
    assert_eq!(
        ledger.granted(),
        Bytes(2 * HEAP),
        "charged from the start, and no more"
    );
    let mut spans: Vec<Span> = (0..3).map(|_| pool.take(HEAP as usize).unwrap()).collect();
    assert_eq!(ledger.granted(), Bytes(3 * HEAP));
    let now = Instant::now();
    assert_eq!(pool.warning(now), None);
    spans.push(pool.take(5000).unwrap());
    assert_eq!(ledger.granted(), Bytes(3 * HEAP + 8192));

    let report = pool.report();
    assert_eq!((report.heaps_total, report.heaps_active), (3, 3));
    assert_eq!((report.allocations_total, report.fallback_total), (4, 1));
    assert_eq!((report.active, report.released_total), (4, 0));
    assert_eq!(report.hit_ratio, Some(0.75));
    assert_eq!(report.utilisation_ratio, 1.0);
    assert_eq!(report.capacity_bytes, 3 * HEAP + 8192);
    assert_eq!(
        (report.largest_bytes, report.average_bytes),
        (HEAP, (3 * HEAP + 5000) / 4)
    );

    // Said once, with what to change, and not again for a minute.
    let warning = pool.warning(now).unwrap();
    assert_eq!((warning.blocks, warning.longest), (1, Bytes(5000)));
    assert!(
        warning
            .to_string()
            .ends_with("raise pool.max_heaps above 3"),
        "{warning}"
    );
    drop(pool.take(HEAP as usize + 1).unwrap());
    assert_eq!(pool.warning(now + Duration::from_secs(59)), None);
    let warning = pool.warning(now + Duration::from_secs(60)).unwrap();
    assert!(
        warning.to_string().contains("raise pool.heap_size from"),
        "{warning}"
    );

    // A reset starts the totals again, and loses nobody who is alive.
    pool.reset_statistics();
    spans.truncate(1);
    let report = pool.report();
    assert_eq!((report.allocations_total, report.fallback_total), (0, 0));
    assert_eq!(
        (report.acquired_total, report.released_total, report.active),
        (5, 4, 1)
    );

    // The heap that was added goes when it is empty and memory is wanted; those of the start stay.
    pool.trim();
    assert_eq!(
        (ledger.granted(), pool.report().heaps_total),
        (Bytes(2 * HEAP), 2)
    );
    drop(pool);
    assert_eq!(
        ledger.granted(),
        Bytes(HEAP),
        "of the heap in which a span lives"
    );
    drop(spans);
    assert_eq!(ledger.granted(), Bytes::ZERO);
}

/// P2
#[test]
fn nothing_is_counted_where_nobody_wants_it() {
    let quiet = HeapPoolOptions {
        track_statistics: false,
        log_exhaustion: false,
        ..options()
    };
    let (_ledger, pool) = start(quiet, 1 << 20);
    let spans: Vec<Span> = (0..4).map(|_| pool.take(HEAP as usize).unwrap()).collect();
    let report = pool.report();
    assert_eq!((report.allocations_total, report.hit_ratio), (0, None));
    assert_eq!(report.active, 4, "the books know without counting");
    assert_eq!(pool.warning(Instant::now()), None);
    drop(spans);
    assert_eq!(pool.report().active, 0);
}

/// P1
#[test]
fn warmed_up_sizes_wait_for_whoever_wants_them() {
    let warm = HeapPoolOptions {
        warmup_sizes: vec![Bytes(4096), Bytes(40 << 10), Bytes(40 << 10)],
        ..options()
    };
    let (_ledger, pool) = start(warm.clone(), 1 << 20);
    assert_eq!(pool.report().active, 0);
    let held = pool.fill().used;
    assert_eq!(held, 84 << 10);
    let first = pool.take(30 << 10).unwrap();
    assert_eq!(
        (first.len(), pool.fill().used),
        (30 << 10, held),
        "was ready"
    );
    let second = pool.take(2048).unwrap();
    assert_eq!(
        pool.fill().used,
        held + 2048,
        "4096 is not less than twice 2048"
    );
    drop(first);
    assert_eq!(
        pool.fill().used,
        held + 2048 - (40 << 10),
        "it goes back like any other"
    );
    assert_eq!(pool.report().active, 1);
    drop(second);

    let refused = |sizes: &[u64]| {
        let ledger = Ledger::new(Bytes::mib(1));
        let warm = HeapPoolOptions {
            warmup_sizes: sizes.iter().copied().map(Bytes).collect(),
            ..options()
        };
        let error = HeapPool::start(warm, &ledger.root()).unwrap_err();
        assert_eq!(ledger.granted(), Bytes::ZERO);
        error.to_string()
    };
    assert!(refused(&[HEAP + 1]).contains("is longer than a heap of 64.0 KiB (pool.heap_size)"));
    assert!(refused(&[HEAP, HEAP, 64]).contains("which 2 heaps of 64.0 KiB have no room for"));
}

/// P3
#[test]
fn settings_outside_their_range_are_named() {
    let check = |change: fn(&mut HeapPoolOptions), key: &str| {
        let mut options = options();
        change(&mut options);
        let error = options.check().unwrap_err().to_string();
        assert!(error.starts_with(key), "{error}");
    };
    check(|options| options.heaps = 0, "pool.heaps is 0");
    check(|options| options.max_heaps = 1, "pool.max_heaps is 1");
    check(|options| options.max_heaps = 65, "pool.max_heaps is 65");
    check(
        |options| options.heap_size = Bytes(100),
        "pool.heap_size is 100",
    );
    check(
        |options| options.growth_trigger = 1.5,
        "pool.growth_trigger is 1.5",
    );
    check(
        |options| options.compaction.threshold = f64::NAN,
        "pool.compaction.threshold",
    );
    options().check().unwrap();
}

/// P6
#[test]
fn another_heap_is_opened_before_the_last_byte_is_taken() {
    let growing = HeapPoolOptions {
        growth_trigger: 0.9,
        ..options()
    };
    let (ledger, pool) = start(growing, 3 * HEAP);
    let _spans = [52 << 10, 52 << 10, 8 << 10].map(|len| pool.take(len).unwrap());
    assert_eq!(pool.report().heaps_total, 2);
    let _last = pool.take(8 << 10).unwrap();
    assert_eq!(pool.report().heaps_total, 3);
    assert_eq!(ledger.free(), Bytes::ZERO);
}

/// P6
#[test]
fn sparse_heaps_are_emptied_by_moving() {
    let (ledger, pool) = start(options(), 1 << 20);
    // Three heaps, full; then one span is left in the third, which may be moved.
    let fill = |count: usize| -> Vec<MovableSpan> {
        (0..count)
            .map(|_| pool.take_movable(8 << 10).unwrap())
            .collect()
    };
    let mut spans = fill(24);
    for (at, span) in spans.iter_mut().enumerate() {
        span.write(|bytes| bytes.fill(at as u8));
    }
    assert_eq!(pool.report().heaps_total, 3);
    let mut kept: Vec<_> = spans.drain(16..17).collect();
    spans.truncate(14);
    kept.append(&mut spans);
    let done = pool.compact();
    assert_eq!(
        (done.moved, done.moved_bytes, done.heaps_closed),
        (1, Bytes(8 << 10), 1)
    );
    assert!(done.returned >= Bytes(8 << 10), "{done:?}");
    assert_eq!(ledger.granted(), Bytes(2 * HEAP));
    assert!(kept[0].read(|bytes| bytes.iter().all(|byte| *byte == 16)));
    for (at, span) in kept[1..].iter().enumerate() {
        assert!(span.read(|bytes| bytes.iter().all(|byte| *byte == at as u8)));
    }
    assert_eq!(pool.compact().moved, 0);

    // What somebody looks at stays; what cannot be moved stays, too.
    drop(kept);
    let (_ledger, pool) = start(
        HeapPoolOptions {
            strategy: Strategy::LeastUsed,
            ..options()
        },
        1 << 20,
    );
    let looked_at = pool.take_movable(1024).unwrap();
    let _fixed = pool.take(2048).unwrap();
    looked_at.read(|_| assert_eq!(pool.compact().moved, 0));
    assert_eq!(pool.compact().moved, 1);
}

/// P6
#[test]
fn compaction_keeps_its_interval() {
    let (_ledger, pool) = start(options(), 1 << 20);
    let now = Instant::now();
    assert!(pool.compact_if_due(now).is_some());
    assert!(pool.compact_if_due(now + Duration::from_secs(59)).is_none());
    assert!(pool.compact_if_due(now + Duration::from_secs(60)).is_some());
    let off = HeapPoolOptions {
        compaction: CompactionOptions {
            enabled: false,
            ..CompactionOptions::default()
        },
        ..options()
    };
    assert!(start(off, 1 << 20).1.compact_if_due(now).is_none());
}

/// P8, M7: every ask of the source refused in turn, once and from then on.
#[test]
fn every_refusal_of_the_source_is_survived() {
    let run = |refused: RefusedAsks| {
        let ledger = Ledger::new(Bytes::mib(1));
        let source = FaultySource::new(HostSource::new(&ledger.root()), refused);
        let asks = source.asks();
        let mut served = 0;
        if let Ok(pool) = HeapPool::with_source(options(), Box::new(source)) {
            let mut spans = Vec::new();
            for round in 0..12_usize {
                match pool.take((round + 1) * 6000) {
                    Ok(mut span) => {
                        span.fill(1);
                        spans.push(span);
                        served += 1;
                    }
                    Err(error) => assert!(matches!(error, PoolError::Region(_)), "{error}"),
                }
                if round % 5 == 4 {
                    spans.clear();
                }
            }
            drop(pool);
        }
        assert_eq!(ledger.granted(), Bytes::ZERO);
        (asks.load(Ordering::Relaxed), served)
    };
    let (asks, served) = run(RefusedAsks::None);
    assert!(asks >= 4 && served == 12, "{asks} asks");
    for n in 1..=asks {
        run(RefusedAsks::Once(n));
        run(RefusedAsks::From(n));
    }
    assert_eq!(run(RefusedAsks::From(1)).1, 0);
}

#[derive(Clone, Debug)]
enum Step {
    Take { len: usize, movable: bool },
    Give { nth: usize },
    Compact,
    Trim,
    Reset,
}

fn step() -> impl proptest::strategy::Strategy<Value = Step> {
    let len = prop_oneof![0..500_usize, 500..30_000_usize, 60_000..70_000_usize];
    prop_oneof![
        6 => (len, any::<bool>()).prop_map(|(len, movable)| Step::Take { len, movable }),
        5 => (0..64_usize).prop_map(|nth| Step::Give { nth }),
        1 => Just(Step::Compact),
        1 => Just(Step::Trim),
        1 => Just(Step::Reset),
    ]
}

/// A span that may move or not, with what was written into it.
enum Held {
    Fixed(Span, u8),
    Movable(MovableSpan, u8),
}

impl Held {
    fn look<T>(&self, look: impl FnOnce(&[u8], u8) -> T) -> T {
        match self {
            Held::Fixed(span, value) => look(span, *value),
            Held::Movable(span, value) => span.read(|bytes| look(bytes, *value)),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    /// Spans are disjoint, aligned and keep what was written, whatever is moved; the charge is what is
    /// held; all goes back.
    #[test]
    fn spans_are_disjoint_and_go_back(
        strategy in proptest::sample::select(&Strategy::ALL),
        steps in proptest::collection::vec(step(), 1..100),
    ) {
        let pool_options = HeapPoolOptions {
            strategy,
            growth_trigger: 0.9,
            warmup_sizes: vec![Bytes(3000)],
            compaction: CompactionOptions { threshold: 0.5, ..CompactionOptions::default() },
            ..options()
        };
        let budget = 8 * HEAP;
        let (ledger, pool) = start(pool_options, budget);
        let mut held: Vec<Held> = Vec::new();
        let mut taken = 0;
        for (at, step) in steps.into_iter().enumerate() {
            let value = at as u8;
            match step {
                Step::Take { len, movable: false } => {
                    if let Ok(mut span) = pool.take(len) {
                        prop_assert_eq!(span.len(), len);
                        span.fill(value);
                        held.push(Held::Fixed(span, value));
                        taken += 1;
                    }
                }
                Step::Take { len, movable: true } => {
                    if let Ok(mut span) = pool.take_movable(len) {
                        span.write(|bytes| bytes.fill(value));
                        held.push(Held::Movable(span, value));
                        taken += 1;
                    }
                }
                Step::Give { nth } => {
                    if !held.is_empty() {
                        held.swap_remove(nth % held.len());
                    }
                }
                Step::Compact => { pool.compact(); }
                Step::Trim => { pool.trim(); }
                Step::Reset => pool.reset_statistics(),
            }
            let mut ranges = Vec::new();
            for one in &held {
                one.look(|bytes, value| {
                    prop_assert!(bytes.iter().all(|byte| *byte == value));
                    let start = bytes.as_ptr() as usize;
                    prop_assert_eq!(start % 64, 0);
                    if !bytes.is_empty() {
                        ranges.push((start, start + bytes.len()));
                    }
                    Ok(())
                })?;
            }
            ranges.sort_unstable();
            prop_assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0));
            let report = pool.report();
            prop_assert_eq!(report.active, held.len() as u64);
            prop_assert_eq!(report.acquired_total, taken);
            prop_assert_eq!(report.released_total, taken - held.len() as u64);
            // No address space beyond the charge, and that is what the report says.
            prop_assert_eq!(ledger.granted(), Bytes(report.capacity_bytes));
            prop_assert!(report.used_bytes <= report.capacity_bytes);
        }
        drop(pool);
        drop(held);
        prop_assert_eq!(ledger.granted(), Bytes::ZERO);
    }
}
