//! The counting allocator as this test program's own.

use std::hint::black_box;

use bursar_memory::Bytes;
use bursar_memory::counting::{self, ProcessAllocator, left_by};

#[global_allocator]
static ALLOCATOR: ProcessAllocator = counting::process_allocator();

#[test]
fn what_is_left_is_counted_to_the_block() {
    assert!(counting::is_counting());
    let (kept, left) = left_by(|| {
        let dropped: Vec<String> = (0..100).map(|n| format!("{n:064}")).collect();
        black_box(dropped);
        [vec![1_u8; 1000], vec![2_u8; 24]]
    });
    assert_eq!(left.blocks, 2);
    // What was asked for, and at most a header and the rounding more for each.
    assert!((1024..=1024 + 2 * 32).contains(&left.bytes), "{left}");
    assert_eq!(left.held(), Bytes(left.bytes as u64));
    assert!(left.allocations >= 103, "{left:?}");
    assert!(left.peak >= Bytes(100 * 64), "{left}");

    let ((), freed) = left_by(|| drop(kept));
    assert_eq!((freed.blocks, freed.bytes), (-2, -left.bytes));
    assert_eq!((freed.held(), freed.peak), (Bytes::ZERO, Bytes::ZERO));
}

#[test]
fn growing_shrinking_and_zeroed_blocks_balance() {
    let ((), left) = left_by(|| {
        let mut grown = vec![0_u64; 3];
        for n in 0..100_000 {
            grown.push(n);
        }
        grown.truncate(10);
        grown.shrink_to_fit();
        let aligned: Vec<Box<[u8; 64]>> = (0..9).map(|n| Box::new([n; 64])).collect();
        black_box((grown, aligned));
    });
    assert_eq!((left.bytes, left.blocks), (0, 0));
    assert!(left.peak >= Bytes(100_003 * 8));
}

#[test]
fn work_within_work_is_counted_in_both() {
    let ((inner, kept), outer) = left_by(|| {
        black_box(vec![0_u8; 50_000]);
        let (kept, inner) = left_by(|| vec![0_u8; 10_000]);
        (inner, kept)
    });
    assert_eq!((inner.blocks, outer.blocks), (1, 1));
    assert_eq!(inner.bytes, outer.bytes);
    assert!(inner.peak < Bytes(20_000) && outer.peak >= Bytes(50_000));
    drop(kept);
}

#[test]
fn all_threads_are_counted_together() {
    let before = ALLOCATOR.counts();
    let kept = std::thread::spawn(|| vec![1_u8; 32 << 20]).join().unwrap();
    let after = ALLOCATOR.counts();
    // Other tests of this program run beside this one, but none holds as much.
    assert!(after.live >= before.live.saturating_add(Bytes::mib(24)));
    assert!(after.peak >= after.live.saturating_sub(Bytes::mib(8)));
    assert!(after.allocations > before.allocations);
    drop(kept);
    assert!(ALLOCATOR.counts().deallocations > before.deallocations);
}

#[test]
fn settings_and_purging_do_no_harm() {
    counting::configure();
    let kept: Vec<String> = (0..10_000).map(|n| format!("{n:0100}")).collect();
    let thinned: Vec<String> = kept.into_iter().step_by(100).collect();
    counting::purge();
    assert!(
        thinned
            .iter()
            .enumerate()
            .all(|(n, text)| text.ends_with(&(n * 100).to_string()))
    );
}

/// M2
#[test]
fn bytes_that_growing_copies_are_counted() {
    let before = ALLOCATOR.counts().copied;
    let mut lists = [const { Vec::<u8>::new() }; 4];
    for _ in 0..10_000 {
        // Each lies in the way of another: none can grow where it is.
        for list in &mut lists {
            list.push(1);
        }
    }
    black_box(lists);
    let copied = ALLOCATOR.counts().copied - before;
    assert!(copied >= Bytes(10_000), "{copied}");
}
