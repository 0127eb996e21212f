//! The buffer pool against a naive twin, and what it promises in words.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bursar_memory::buffer_pool::{BufferPool, BufferPoolOptions};
use bursar_memory::heap_pool::HeapPoolOptions;
use bursar_memory::{Account, Buffer, Bytes, HeapPool, Ledger, Lifetime, Pools, PoolsOptions};
use proptest::prelude::*;

fn pool(account: &Account) -> (HeapPool, BufferPool) {
    let options = HeapPoolOptions {
        heap_size: Bytes::mib(1),
        ..HeapPoolOptions::default()
    };
    let heaps = HeapPool::start(options, account).expect("a budget with room");
    let buffers = BufferPool::new(Arc::new(heaps.clone()), BufferPoolOptions::default());
    (heaps, buffers)
}

/// A1, M5
#[test]
fn buffers_are_reused_where_less_than_twice_as_long() {
    let ledger = Ledger::new(Bytes::mib(64));
    let (_heaps, pool) = pool(&ledger.root());
    let first = pool.acquire(1000, Lifetime::Episodic).unwrap();
    let at = first.as_ptr();
    assert_eq!((first.len(), first.capacity()), (1000, 1024));
    drop(first);
    let again = pool.acquire(600, Lifetime::Episodic).unwrap();
    assert_eq!((again.as_ptr(), again.len()), (at, 600));
    drop(again);
    let other = pool.acquire(512, Lifetime::Episodic).unwrap();
    assert_ne!(other.as_ptr(), at, "1024 bytes are twice 512");
    // Another dtype takes it before a new block is cut, even from another thread.
    let typed = std::thread::scope(|scope| {
        let pool = &pool;
        scope
            .spawn(move || pool.acquire_typed::<f32>([2, 128], Lifetime::Episodic))
            .join()
    });
    let mut typed = typed.unwrap().unwrap();
    assert_eq!((typed.shape(), typed.len()), (&[2, 128][..], 256));
    typed.fill(1.5);
    let report = pool.report();
    assert_eq!((report.acquired_total, report.active), (4, 2));
    assert_eq!(report.largest_bytes, 1024);
    assert!(
        pool.acquire_typed::<u32>([usize::MAX, 2], Lifetime::Episodic)
            .is_err()
    );
}

#[test]
fn a_buffer_grows_like_a_vec() {
    let ledger = Ledger::new(Bytes::mib(64));
    let (heaps, pool) = pool(&ledger.root());
    let mut buffer = pool.acquire_empty(10, Lifetime::Episodic).unwrap();
    let mut twin = Vec::new();
    for step in 0..2000_u32 {
        buffer.extend_from_slice(&step.to_le_bytes()).unwrap();
        twin.extend_from_slice(&step.to_le_bytes());
    }
    buffer.resize(9000, 7).unwrap();
    twin.resize(9000, 7);
    assert_eq!(*buffer, *twin);
    buffer.truncate(5);
    buffer.resize(8, 0).unwrap();
    assert_eq!(*buffer, [0, 0, 0, 0, 1, 0, 0, 0]);
    assert!(
        pool.acquire_zeroed(5000, Lifetime::Episodic)
            .unwrap()
            .iter()
            .all(|byte| *byte == 0)
    );
    // It outlives its pool, but grows no more.
    drop((heaps, pool));
    assert!(ledger.granted() > Bytes::ZERO);
    assert!(buffer.reserve(1 << 20).is_err());
    assert_eq!(buffer.len(), 8);
    drop(buffer);
    assert_eq!(ledger.granted(), Bytes::ZERO);
}

/// P5
#[test]
fn a_planted_leak_is_reported_with_its_place() {
    let ledger = Ledger::new(Bytes::mib(64));
    let (heaps, pool) = pool(&ledger.root());
    let kept = pool.acquire(100, Lifetime::Semantic).unwrap();
    // Kept here, so that the sanitizer has no leak to report of the test itself.
    let mut lost = Vec::new();
    for _ in 0..3 {
        lost.push(pool.acquire(5000, Lifetime::Episodic).unwrap());
    }
    let line = line!() - 2;
    drop(pool.acquire(5000, Lifetime::Episodic).unwrap());
    let out = pool.out();
    assert_eq!(out.len(), 2);
    assert_eq!(
        (out[0].file, out[0].line, out[0].buffers),
        (file!(), line, 3)
    );
    assert!(
        out[0]
            .to_string()
            .ends_with(&format!("acquired at {}:{line}", file!()))
    );
    // While serving: what belongs to requests and has been out for a hundred clean-ups.
    assert_eq!(pool.report().leaked, 0);
    for _ in 0..101 {
        pool.clean_up();
    }
    pool.reset_statistics();
    let report = pool.report();
    assert_eq!((report.leaked, report.active), (3, 4));
    assert_eq!((report.allocations_total, report.acquired_total), (0, 5));
    drop(kept);
    assert_eq!(pool.out().len(), 1);
    drop((lost, heaps, pool));
}

/// A1, A6
#[test]
fn what_nobody_wants_is_given_up() {
    let ledger = Ledger::new(Bytes::mib(64));
    let (heaps, pool) = pool(&ledger.root());
    let many = |count: usize| {
        let buffers = (0..count).map(|_| pool.acquire(4096, Lifetime::Episodic).unwrap());
        drop(buffers.collect::<Vec<_>>());
    };
    let blocks = || heaps.report().active;
    many(100);
    assert_eq!(blocks(), 100);
    pool.clean_up();
    assert_eq!(blocks(), 100, "all were wanted at once");
    many(20);
    // Down by halves: 20 + 80 / 2, 20 + 40 / 2, ...
    for expected in [60, 40, 30] {
        pool.clean_up();
        many(20);
        assert_eq!(blocks(), expected);
    }
    let now = Instant::now();
    assert!(pool.clean_up_if_due(now).is_some());
    assert!(
        pool.clean_up_if_due(now + Duration::from_secs(29))
            .is_none()
    );
    assert!(
        pool.clean_up_if_due(now + Duration::from_secs(30))
            .is_some()
    );
    // All at once, where memory is short.
    pool.trim();
    assert_eq!((blocks(), heaps.fill().used), (0, 0));
}

/// A1
#[test]
fn unused_buffers_go_before_a_full_pool_grows() {
    let ledger = Ledger::new(Bytes::mib(64));
    let options = PoolsOptions {
        heap_size: Bytes::mib(1),
        max_heaps: 1,
        ..PoolsOptions::default()
    };
    let pools = Pools::start(&options, &ledger.root()).unwrap();
    let heaps = pools.heaps().unwrap();
    // Too long for a magazine: they lie on the shelves.
    let buffers =
        [500 << 10, 400 << 10].map(|len| pools.buffers().acquire(len, Lifetime::Episodic));
    let buffers = buffers.map(Result::unwrap);
    assert!(heaps.fill().used > 900 << 10);
    drop(buffers);
    let buffer = pools
        .buffers()
        .acquire(1 << 20, Lifetime::Episodic)
        .unwrap();
    assert_eq!(heaps.report().fallback_total, 0);
    assert_eq!(heaps.report().active, 1);
    drop(buffer);
    assert_eq!(ledger.granted(), Bytes::mib(1));
    drop(pools);
}

/// B5, issue row 9: the same interface, nothing kept.
#[test]
fn pools_that_are_off_charge_what_is_out() {
    let ledger = Ledger::new(Bytes(10_000));
    let pools = Pools::off(&ledger.root());
    let mut buffer = pools.buffers().acquire(1000, Lifetime::Episodic).unwrap();
    buffer.fill(1);
    assert_eq!(ledger.granted(), Bytes(1000));
    let refused = pools
        .buffers()
        .acquire(9001, Lifetime::Episodic)
        .unwrap_err();
    assert!(refused.refusal().is_some(), "{refused}");
    drop(buffer);
    assert_eq!(ledger.granted(), Bytes::ZERO);
    let report = pools.report();
    assert_eq!(report.pools.len(), 1);
    assert_eq!(report.pools[0].hit_ratio, Some(0.0));
    assert_eq!(pools.trim(), Bytes::ZERO);
}

#[derive(Clone, Debug)]
enum Step {
    Acquire { len: usize, thread: usize },
    Release { nth: usize, thread: usize },
    CleanUp,
    Trim,
}

fn step() -> impl Strategy<Value = Step> {
    let len = prop_oneof![0..300_usize, 300..20_000_usize, 20_000..400_000_usize];
    prop_oneof![
        6 => (len, 0..3_usize).prop_map(|(len, thread)| Step::Acquire { len, thread }),
        6 => (0..64_usize, 0..3_usize).prop_map(|(nth, thread)| Step::Release { nth, thread }),
        1 => Just(Step::CleanUp),
        1 => Just(Step::Trim),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Buffers never overlap and keep what was written, nothing is lost, and all goes back.
    #[test]
    fn buffers_are_disjoint_and_go_back(steps in proptest::collection::vec(step(), 1..120)) {
        let ledger = Ledger::new(Bytes::mib(16));
        let (heaps, pool) = pool(&ledger.root());
        let mut out: Vec<(Buffer, u8)> = Vec::new();
        let mut acquired = 0;
        for (at, step) in steps.into_iter().enumerate() {
            // Threads one after the other: each has its magazine, and the order is the steps'.
            match step {
                Step::Acquire { len, thread } => {
                    let got = on(thread, || pool.acquire(len, Lifetime::Episodic));
                    if let Ok(mut buffer) = got {
                        prop_assert!(buffer.len() == len && buffer.capacity() >= len);
                        prop_assert!(buffer.capacity() < 2 * len.max(33), "{len}");
                        prop_assert_eq!(buffer.as_ptr().align_offset(64), 0);
                        buffer.fill(at as u8);
                        out.push((buffer, at as u8));
                        acquired += 1;
                    }
                }
                Step::Release { nth, thread } => {
                    if !out.is_empty() {
                        let (buffer, value) = out.swap_remove(nth % out.len());
                        prop_assert!(buffer.iter().all(|byte| *byte == value));
                        on(thread, move || drop(buffer));
                    }
                }
                Step::CleanUp => { pool.clean_up(); }
                Step::Trim => { pool.trim(); }
            }
            let mut ranges: Vec<_> = out.iter().map(|(buffer, _)| {
                let start = buffer.as_ptr() as usize;
                (start, start + buffer.len())
            }).filter(|(start, end)| start < end).collect();
            ranges.sort_unstable();
            prop_assert!(ranges.windows(2).all(|pair| pair[0].1 <= pair[1].0));
            let report = pool.report();
            prop_assert_eq!(report.active, out.len() as u64);
            prop_assert_eq!(report.acquired_total, acquired);
            // What the heaps have out is what the pool has: blocks are whole granules.
            prop_assert_eq!(heaps.report().used_bytes, report.capacity_bytes);
        }
        pool.trim();
        prop_assert_eq!(heaps.report().active, out.len() as u64);
        drop((heaps, pool));
        for (buffer, value) in &out {
            prop_assert!(buffer.iter().all(|byte| byte == value));
        }
        drop(out);
        prop_assert_eq!(ledger.granted(), Bytes::ZERO);
    }
}

/// Runs `work` on a thread of its own, which is over when this returns; 0 is this thread.
fn on<T: Send>(thread: usize, work: impl FnOnce() -> T + Send) -> T {
    if thread == 0 {
        return work();
    }
    std::thread::scope(|scope| scope.spawn(work).join()).expect("a thread that does not panic")
}

#[test]
fn many_threads_share_a_pool() {
    let ledger = Ledger::new(Bytes::mib(64));
    let (heaps, pool) = pool(&ledger.root());
    let (sender, receiver) = std::sync::mpsc::channel::<Buffer>();
    std::thread::scope(|scope| {
        let pool = &pool;
        for seed in 0..3_u8 {
            let sender = sender.clone();
            scope.spawn(move || {
                for round in 0..2000_usize {
                    let len = 64 + round * 37 % 3000;
                    let mut buffer = pool.acquire(len, Lifetime::Episodic).unwrap();
                    buffer.fill(seed);
                    assert!(buffer.iter().all(|byte| *byte == seed));
                    if round % 2 == 0 {
                        sender.send(buffer).unwrap();
                    }
                }
            });
        }
        drop(sender);
        scope.spawn(move || {
            for buffer in receiver {
                let first = buffer[0];
                assert!(buffer.iter().all(|byte| *byte == first));
                if first == 0 {
                    pool.clean_up();
                }
            }
        });
    });
    assert!(pool.out().is_empty());
    assert_eq!(pool.report().acquired_total, 6000);
    pool.trim();
    assert_eq!(heaps.fill().used, 0);
}
