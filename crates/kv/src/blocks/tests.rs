//! The books against themselves, and the ways of a block.

use super::*;

impl Blocks {
    /// Every invariant that the books keep among themselves.
    pub(crate) fn check(&self) {
        let mut counts = [0usize; 4];
        let mut logical = 0;
        for (i, entry) in (0u32..).zip(&self.entries) {
            counts[entry.state as usize] += 1;
            logical += entry.references as usize;
            assert_eq!(
                entry.references > 0,
                entry.state == State::Used,
                "block {i}"
            );
            assert!(!entry.keyed || matches!(entry.state, State::Used | State::Cached));
            assert!(entry.state != State::Cached || entry.keyed, "block {i}");
            let takeable = matches!(entry.state, State::Free | State::Vacant);
            assert_eq!(self.takeable.contains(i), takeable, "block {i}");
        }
        let own = [self.vacant, self.free, self.cached(), self.used()];
        assert_eq!(counts, own);
        assert_eq!((self.logical, self.total()), (logical, counts.iter().sum()));
        let shared = self.entries.iter().filter(|e| e.references > 1).count();
        assert_eq!(self.shared, shared);
        self.check_list(&self.cached, State::Cached);
        let mut committed = 0;
        for slab in 0..self.slabs.count() {
            let record = self.slabs.get(slab);
            let count = |state| {
                let mut blocks = self.slabs.blocks(slab);
                let of = blocks.by_ref().filter(|&block| self.state(block) == state);
                of.count() as u32
            };
            committed += u32::from(record.committed);
            assert_eq!(record.committed, count(State::Vacant) == 0);
            let counted = (count(State::Free), count(State::Cached), count(State::Used));
            assert_eq!((record.free.len, record.cached, record.used), counted);
            assert_eq!(self.slabs.vacant.contains(slab), !record.committed);
            assert_eq!(self.slabs.open.contains(slab), record.free.len > 0);
            let free = self.check_list(&record.free, State::Free);
            assert!(free.iter().all(|&block| self.slabs.of(block) == slab));
        }
        assert_eq!(self.slabs.committed, committed);
        let current = self.stats.allocations - self.stats.deallocations;
        assert_eq!(current, self.used() as u64);
        assert!(self.stats.peak >= self.used());
        assert!(self.reserved <= self.free + self.cached());
        assert!(self.used() + self.reserved + self.withheld <= self.total());
    }

    /// A list from both ends, each block once.
    fn check_list(&self, list: &List, state: State) -> Vec<u32> {
        let walk = |from: u32, next: fn(Link) -> u32| -> Vec<u32> {
            let known = |block: u32| (block != NONE).then_some(block);
            let step = |&block: &u32| known(next(self.entries[block as usize].link));
            std::iter::successors(known(from), step)
                .take(self.total() + 1)
                .collect()
        };
        let forward = walk(list.first, |link| link.next);
        let mut backward = walk(list.last, |link| link.previous);
        backward.reverse();
        assert_eq!(forward, backward);
        assert_eq!(forward.len(), list.len as usize);
        assert!(forward.iter().all(|&block| self.state(block) == state));
        forward
    }
}

#[test]
fn blocks_go_round_through_their_states() {
    // The last slab is a short one.
    let mut blocks = Blocks::new(7, 3);
    assert_eq!(blocks.take_free(), None);
    blocks.commit(2);
    blocks.commit(0);
    blocks.check();
    let taken: Vec<_> = std::iter::from_fn(|| blocks.take_free()).collect();
    assert_eq!(taken, [0, 1, 2, 6], "lowest slab first");
    blocks.key(1);
    blocks.key(2);
    for block in [2, 0, 1] {
        blocks.release(block);
        blocks.check();
    }
    assert_eq!(blocks.oldest_cached(), Some(2));
    assert_eq!(blocks.cached_newest_first().collect::<Vec<_>>(), [1, 2]);
    blocks.hold(2);
    blocks.unkey(1);
    blocks.check();
    blocks.relocate(2, 0);
    assert_eq!((blocks.references(0), blocks.is_keyed(0)), (1, true));
    blocks.check();
    blocks.release(6);
    assert!(blocks.slabs.is_idle(2) && !blocks.slabs.is_idle(0));
    blocks.vacate(2);
    blocks.check();
    assert_eq!((blocks.free(), blocks.vacant(), blocks.used()), (2, 4, 1));
}

#[test]
fn a_run_leaves_its_lists_in_any_order() {
    let mut blocks = Blocks::new(8, 4);
    blocks.commit(0);
    blocks.commit(1);
    let held: Vec<_> = std::iter::from_fn(|| blocks.take_free()).collect();
    for block in [3, 0, 2, 1, 5, 4] {
        blocks.release(block);
    }
    assert_eq!(blocks.find_run(6, u32::MAX), Some(0));
    blocks.take_run(1, 4);
    blocks.check();
    assert_eq!(held.len(), 8);
    assert_eq!((blocks.free(), blocks.find_run(2, u32::MAX)), (2, None));
}

#[test]
#[should_panic(expected = "is held by nobody")]
fn a_double_release_is_caught() {
    let mut blocks = Blocks::new(2, 2);
    blocks.commit(0);
    let block = blocks.take_free().expect("free");
    blocks.release(block);
    blocks.release(block);
}
