//! The heap against a naive oracle that keeps the used ranges in a sorted map.
//!
//! What must hold, whatever happens:
//! 1. Blocks never overlap, lie within the heap and start where they were asked to.
//! 2. Every byte is in a block or in exactly one free range; neighbouring free ranges are one.
//! 3. An ask is refused only where no free range is sure to hold it, and a range that fits exactly is
//!    used if it is among the few that are looked at.
//! 4. The figures are what counting by hand gives.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::collections::BTreeMap;
use std::ops::Range;

use bursar_memory::heap::{Block, Heap, HeapError};
use proptest::prelude::*;

#[test]
fn a_heap_can_be_used_whole_and_comes_back_whole() {
    // Not a length of a class: the last resort must find it.
    let mut heap = Heap::new(1_000_003, 1).unwrap();
    let all = heap.take(1_000_003, 1).unwrap();
    assert_eq!(
        (heap.stats().free, heap.stats().fragmentation_ratio()),
        (0, 0.0)
    );
    let refused = heap.take(1, 1).unwrap_err();
    assert_eq!((refused.asked, refused.free), (1, 0));
    heap.free(all);
    assert_eq!(heap.stats().largest_free, 1_000_003);
    assert_eq!(
        (heap.stats().blocks_free, heap.stats().used_peak),
        (1, 1_000_003)
    );
}

#[test]
fn alignment_beyond_the_granule_leaves_no_hole_in_the_books() {
    let mut heap = Heap::new(1 << 20, 256).unwrap();
    let first = heap.take(300, 1).unwrap();
    let aligned = heap.take(5000, 1 << 16).unwrap();
    assert_eq!((first.range(), aligned.offset()), (0..300, 1 << 16));
    // 300 bytes take two granules, 5000 take twenty.
    assert_eq!(heap.stats().used, 512 + 5120);
    let free: Vec<Range<u64>> = heap.free_ranges().collect();
    assert_eq!(free, [(1 << 16) + 5120..1 << 20, 512..1 << 16]);
    let units: Vec<Range<u64>> = heap.trim_list(4096).collect();
    assert_eq!(units, [(1 << 16) + 8192..1 << 20, 4096..1 << 16]);
    heap.free(first);
    heap.free(aligned);
    assert_eq!(
        heap.free_ranges().collect::<Vec<_>>(),
        std::slice::from_ref(&(0..1 << 20))
    );
}

#[test]
fn odd_asks_are_refused_and_odd_heaps_too() {
    let mut heap = Heap::new(4096, 64).unwrap();
    assert!(heap.take(u64::MAX, 1).is_err());
    assert!(heap.take(64, 3 * 64).is_err(), "no power of two");
    assert!(heap.take(64, 1 << 40).is_err());
    assert_eq!(heap.take(0, 0).map(|block| block.range()), Ok(0..0));
    assert_eq!(Heap::new(10, 48).unwrap_err(), HeapError::Granule(48));
    assert!(Heap::new(1 << 40, 256).is_err());
    assert!(Heap::new(1 << 38, 256).is_ok());
    assert!(Heap::new(0, 256).unwrap().take(1, 1).is_err());
}

#[test]
#[should_panic(expected = "was not taken from this heap")]
fn a_block_of_another_heap_is_not_taken_back() {
    let mut one = Heap::new(4096, 64).unwrap();
    let _kept = one.take(64, 1).unwrap();
    let block = one.take(64, 1).unwrap();
    Heap::new(4096, 64).unwrap().free(block);
}

#[test]
fn with_books_reserved_taking_and_freeing_allocates_nothing() {
    let mut heap = Heap::new(1 << 20, 64).unwrap();
    heap.reserve_books(100);
    let metadata = heap.stats().metadata;
    let mut blocks: Vec<Block> = (0..100)
        .map(|n| heap.take(64 + n * 100, 64).unwrap())
        .collect();
    // Every second one back: holes between all.
    let kept: Vec<Block> = blocks.drain(..).step_by(2).collect();
    assert_eq!(heap.stats().metadata, metadata);
    drop(kept);
}

// ---- against the oracle ----

#[derive(Clone, Debug)]
enum Step {
    Take { len: u64, align_log2: u32 },
    Free { at: usize },
    Grow { more: u64 },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let len = prop_oneof![4 => 0..2_000_u64, 2 => 0..20_000_u64, 1 => Just(1 << 20)];
    let step = prop_oneof![
        5 => (len, 0..14_u32).prop_map(|(len, align_log2)| Step::Take { len, align_log2 }),
        4 => (0..1000_usize).prop_map(|at| Step::Free { at }),
        1 => (0..5_000_u64).prop_map(|more| Step::Grow { more }),
    ];
    prop::collection::vec(step, 1..200)
}

fn check_against_oracle(len: u64, granule: u64, steps: Vec<Step>) {
    let whole = |len: u64| len / granule * granule;
    let mut heap = Heap::new(len, granule).unwrap();
    let mut len = whole(len);
    let mut peak = 0;
    let mut used: BTreeMap<u64, u64> = BTreeMap::new();
    let mut blocks: Vec<Block> = Vec::new();
    for step in steps {
        match step {
            Step::Take {
                len: asked,
                align_log2,
            } => {
                let align = 1_u64 << align_log2;
                let taken_len = asked.next_multiple_of(granule).max(granule);
                match heap.take(asked, align) {
                    Ok(block) => {
                        assert_eq!((block.offset() % align, block.len()), (0, asked));
                        let overlap = used.range(..block.offset() + taken_len).next_back();
                        assert!(overlap.is_none_or(|(at, end)| at + end <= block.offset()));
                        used.insert(block.offset(), taken_len);
                        blocks.push(block);
                    }
                    Err(full) => {
                        let align = align.max(granule);
                        let sure = (taken_len + align - granule) * 17 / 16 + granule;
                        let longest = free_of(&used, len).iter().map(|r| r.end - r.start).max();
                        assert!(longest.unwrap_or(0) < sure, "{full}");
                        // So few that all are looked at: then it fits nowhere at all.
                        if free_of(&used, len).len() <= 32 {
                            let fits = |range: &Range<u64>| {
                                range.start.next_multiple_of(align) + taken_len <= range.end
                            };
                            assert!(!free_of(&used, len).iter().any(fits), "{full}");
                        }
                    }
                }
            }
            Step::Free { at } if !blocks.is_empty() => {
                let block = blocks.swap_remove(at % blocks.len());
                used.remove(&block.offset());
                heap.free(block);
            }
            Step::Grow { more } => {
                heap.grow(more).unwrap();
                len += whole(more);
            }
            Step::Free { .. } => {}
        }
        let free = free_of(&used, len);
        let stats = heap.stats();
        peak = peak.max(used.values().sum());
        assert_eq!(stats.len, len);
        assert_eq!(stats.used, used.values().sum::<u64>());
        assert_eq!(stats.used_peak, peak);
        assert_eq!(stats.free, len - stats.used);
        assert_eq!(stats.blocks, used.len());
        assert_eq!(stats.blocks_free, free.len());
        assert_eq!(
            stats.largest_free,
            free.iter().map(|r| r.end - r.start).max().unwrap_or(0)
        );
        let mut listed: Vec<Range<u64>> = heap.free_ranges().collect();
        listed.reverse();
        assert_eq!(listed, free);
    }
    blocks.into_iter().for_each(|block| heap.free(block));
    assert_eq!(heap.stats().blocks_free, usize::from(len > 0));
}

/// The gaps between the used ranges.
fn free_of(used: &BTreeMap<u64, u64>, len: u64) -> Vec<Range<u64>> {
    let mut free = Vec::new();
    let mut at = 0;
    for (start, length) in used
        .iter()
        .map(|(start, length)| (*start, *length))
        .chain([(len, 0)])
    {
        if at < start {
            free.push(at..start);
        }
        at = start + length;
    }
    free
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_heap_does_what_the_oracle_does(
        len in 0..100_000_u64,
        granule_log2 in 0..9_u32,
        steps in steps(),
    ) {
        check_against_oracle(len, 1 << granule_log2, steps);
    }
}
