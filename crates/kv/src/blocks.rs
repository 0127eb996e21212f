//! The books of the blocks: which are free, and how many hold each of the others.
//!
//! One owner, plain data. Free blocks form a doubly-linked list through one array, so that taking
//! one, returning one and taking a particular one out of the middle are all O(1).
//!
//! Invariants (tested against a naive oracle): a block is either in the free list, once, or held with
//! a count of at least one; free + held = all; reserved <= free.

use crate::KvError;

/// A block, by its place in the slab space.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub u32);

/// No block: the end of the list.
const NONE: u32 = u32::MAX;

#[derive(Copy, Clone, Debug)]
struct Entry {
    /// Neighbours in the free list; meaningless while held.
    previous: u32,
    next: u32,
    /// How many hold it; zero while free.
    references: u32,
}

/// Free list and reference counts.
#[derive(Debug)]
pub struct Blocks {
    entries: Box<[Entry]>,
    first: u32,
    last: u32,
    free: usize,
    reserved: usize,
}

impl Blocks {
    /// Bytes of the books for each block.
    pub const BYTES_PER_BLOCK: usize = size_of::<Entry>();

    /// `count` free blocks, taken in ascending order at first.
    ///
    /// # Panics
    /// When `count` is `u32::MAX`, which no plan allows.
    pub fn new(count: u32) -> Self {
        assert!(count < NONE, "{count} blocks");
        let entry = |i: u32| Entry {
            previous: i.checked_sub(1).unwrap_or(NONE),
            next: if i + 1 < count { i + 1 } else { NONE },
            references: 0,
        };
        Self {
            entries: (0..count).map(entry).collect(),
            first: if count > 0 { 0 } else { NONE },
            last: count.checked_sub(1).unwrap_or(NONE),
            free: count as usize,
            reserved: 0,
        }
    }

    /// Blocks in all.
    pub fn total(&self) -> usize {
        self.entries.len()
    }

    /// Blocks that nobody holds.
    pub fn free(&self) -> usize {
        self.free
    }

    /// Blocks that somebody holds.
    pub fn used(&self) -> usize {
        self.total() - self.free
    }

    /// Free blocks that are not promised.
    pub fn available(&self) -> usize {
        self.free - self.reserved
    }

    /// Promises `count` blocks: as many [`Blocks::acquire`]s will then succeed.
    ///
    /// # Errors
    /// When so many are not available; nothing is promised then.
    pub fn reserve(&mut self, count: usize) -> Result<(), KvError> {
        if count > self.available() {
            let (free, total) = (self.available(), self.total());
            return Err(KvError::Exhausted {
                asked: count,
                free,
                total,
            });
        }
        self.reserved += count;
        Ok(())
    }

    /// Takes back a promise of `count` blocks.
    ///
    /// # Panics
    /// When so many are not promised.
    pub fn unreserve(&mut self, count: usize) {
        assert!(
            count <= self.reserved,
            "{count} of {} promises taken back",
            self.reserved
        );
        self.reserved -= count;
    }

    /// Takes a promised block, held once.
    ///
    /// # Panics
    /// When none is promised.
    pub fn acquire(&mut self) -> BlockId {
        assert!(self.reserved > 0, "a block acquired without a promise");
        self.reserved -= 1;
        let block = self.first;
        self.unlink(block);
        self.entries[block as usize].references = 1;
        BlockId(block)
    }

    /// Holds a held block once more.
    ///
    /// # Panics
    /// When it is free, or the count would overflow.
    pub fn share(&mut self, BlockId(block): BlockId) {
        let entry = &mut self.entries[block as usize];
        assert!(entry.references > 0, "block {block} is free");
        entry.references = entry
            .references
            .checked_add(1)
            .expect("fewer holders than u32::MAX");
    }

    /// Lets go of a block once; the last holder frees it.
    ///
    /// # Panics
    /// When it is free already.
    pub fn release(&mut self, BlockId(block): BlockId) {
        let entry = &mut self.entries[block as usize];
        assert!(entry.references > 0, "block {block} is free already");
        entry.references -= 1;
        if entry.references == 0 {
            self.link_first(block);
        }
    }

    /// How many hold a block.
    pub fn references(&self, BlockId(block): BlockId) -> u32 {
        self.entries[block as usize].references
    }

    /// Free blocks go to the front: what was used last is warm in the caches, and what was never
    /// used stays untouched and costs no memory.
    fn link_first(&mut self, block: u32) {
        let next = self.first;
        let entry = &mut self.entries[block as usize];
        entry.previous = NONE;
        entry.next = next;
        match next {
            NONE => self.last = block,
            _ => self.entries[next as usize].previous = block,
        }
        self.first = block;
        self.free += 1;
    }

    fn unlink(&mut self, block: u32) {
        let Entry { previous, next, .. } = self.entries[block as usize];
        match previous {
            NONE => self.first = next,
            _ => self.entries[previous as usize].next = next,
        }
        match next {
            NONE => self.last = previous,
            _ => self.entries[next as usize].previous = previous,
        }
        self.free -= 1;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Reserve(usize),
        Unreserve,
        Acquire,
        Share(usize),
        Release(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0..5usize).prop_map(Step::Reserve),
            Just(Step::Unreserve),
            Just(Step::Acquire),
            any::<usize>().prop_map(Step::Share),
            any::<usize>().prop_map(Step::Release),
        ];
        proptest::collection::vec(step, 0..200)
    }

    /// The free list from both ends, each block once.
    fn free_list(blocks: &Blocks) -> Vec<u32> {
        let mut forward = Vec::new();
        let mut at = blocks.first;
        while at != NONE {
            forward.push(at);
            at = blocks.entries[at as usize].next;
            assert!(forward.len() <= blocks.total(), "a cycle");
        }
        let mut backward = Vec::new();
        let mut at = blocks.last;
        while at != NONE {
            backward.push(at);
            at = blocks.entries[at as usize].previous;
            assert!(backward.len() <= blocks.total(), "a cycle");
        }
        backward.reverse();
        assert_eq!(forward, backward);
        forward
    }

    proptest! {
        /// R1: the books agree with a map of counts after every step.
        #[test]
        fn the_books_agree_with_a_naive_oracle(count in 0..20u32, steps in steps()) {
            let mut blocks = Blocks::new(count);
            let mut held: BTreeMap<BlockId, u32> = BTreeMap::new();
            let mut reserved = 0usize;
            for step in steps {
                let free = count as usize - held.len();
                let pick = |n: usize| held.keys().nth(n % held.len().max(1)).copied();
                match step {
                    Step::Reserve(n) => {
                        let fits = n <= free - reserved;
                        prop_assert_eq!(blocks.reserve(n).is_ok(), fits);
                        reserved += if fits { n } else { 0 };
                    }
                    Step::Unreserve if reserved > 0 => {
                        blocks.unreserve(1);
                        reserved -= 1;
                    }
                    Step::Acquire if reserved > 0 => {
                        let block = blocks.acquire();
                        reserved -= 1;
                        prop_assert!(held.insert(block, 1).is_none(), "{:?} was held", block);
                    }
                    Step::Share(n) => if let Some(block) = pick(n) {
                        blocks.share(block);
                        *held.get_mut(&block).expect("held") += 1;
                    },
                    Step::Release(n) => if let Some(block) = pick(n) {
                        blocks.release(block);
                        let references = held.get_mut(&block).expect("held");
                        *references -= 1;
                        if *references == 0 {
                            held.remove(&block);
                        }
                    },
                    Step::Unreserve | Step::Acquire => {}
                }
                let free: Vec<u32> = free_list(&blocks);
                prop_assert_eq!(free.len(), blocks.free());
                prop_assert_eq!(blocks.used(), held.len());
                prop_assert_eq!(blocks.available() + reserved, free.len());
                for block in (0..count).map(BlockId) {
                    let want = held.get(&block).copied().unwrap_or(0);
                    prop_assert_eq!(blocks.references(block), want);
                    prop_assert_eq!(free.contains(&block.0), want == 0);
                }
            }
        }
    }

    #[test]
    #[should_panic(expected = "is free already")]
    fn a_double_release_is_caught() {
        let mut blocks = Blocks::new(2);
        blocks.reserve(1).expect("one is free");
        let block = blocks.acquire();
        blocks.release(block);
        blocks.release(block);
    }
}
