//! The books of the blocks: what each is, who holds it, and in which order they are taken.
//!
//! One owner, plain data; no memory is touched here. A block is in exactly one state:
//!
//! ```text
//!            commit                 take                   release, without a key
//!  Vacant ──────────► Free ────────────────────► Used ───────────────────────────► Free
//!     ▲                │  ▲                       ▲ │
//!     └── vacate ──────┘  │ unkey            hold │ │ release, with a key
//!                         └────── Cached ◄────────┴─┘
//! ```
//!
//! - *Vacant*: its slab is not committed.
//! - *Free*: in the list of its slab. Slabs are drawn from lowest first, so that the highest drain.
//! - *Cached*: nobody holds it, but what it stores is known by a key; in the list of cached blocks,
//!   least recently used first.
//! - *Used*: held by at least one.
//!
//! Lists are doubly linked through one array, so that taking one, returning one and taking a
//! particular one out of the middle are O(1).

use crate::bits::Bits;
use crate::histogram::Histogram;
use crate::list::{Link, Links, List, NONE};
use crate::slabs::Slabs;

/// A block, by its place in the slab space.
pub type BlockId = u32;

/// What a block is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum State {
    /// Its slab is not committed.
    Vacant,
    /// To be taken.
    Free,
    /// Held by nobody, and kept for what it stores.
    Cached,
    /// Held.
    Used,
}

#[derive(Copy, Clone, Debug)]
struct Entry {
    link: Link,
    /// How many hold it.
    references: u32,
    state: State,
    /// The index knows what it stores.
    keyed: bool,
    /// When it was taken.
    taken_ms: u64,
    /// When it was last taken, held or let go.
    touched_ms: u64,
}

impl Links for Box<[Entry]> {
    fn link(&self, node: u32) -> Link {
        self[node as usize].link
    }
    fn link_mut(&mut self, node: u32) -> &mut Link {
        &mut self[node as usize].link
    }
}

/// Counts since the start.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockStats {
    /// Times that a block came into use: taken, or held again while cached.
    pub allocations: u64,
    /// Times that the last holder of a block let go of it.
    pub deallocations: u64,
    /// The most blocks in use at once.
    pub peak: usize,
    /// Time from a block's taking to the end of what it stored.
    pub age: Histogram,
    /// Time from the last use of a block to the end of what it stored.
    pub idle: Histogram,
    /// Time between two uses of what a block stored; 0 where it was in use all the while.
    pub reuse_gap: Histogram,
}

/// States, lists, reference counts and slabs.
#[derive(Debug)]
pub(crate) struct Blocks {
    entries: Box<[Entry]>,
    pub(crate) slabs: Slabs,
    /// Free and vacant blocks: where runs of neighbours are found.
    takeable: Bits,
    /// Least recently used first.
    cached: List,
    free: usize,
    vacant: usize,
    reserved: usize,
    /// Blocks that count as not being there: fewer may be used than there are.
    pub(crate) withheld: usize,
    /// The sum of all references.
    logical: usize,
    /// Blocks with more than one reference.
    shared: usize,
    now_ms: u64,
    pub(crate) stats: BlockStats,
}

impl Blocks {
    /// `count` vacant blocks.
    ///
    /// # Panics
    /// When `count` is `u32::MAX`, which no plan allows.
    pub(crate) fn new(count: u32, per_slab: u32) -> Self {
        assert!(count < NONE, "{count} blocks");
        let entry = Entry {
            link: Link::ALONE,
            references: 0,
            state: State::Vacant,
            keyed: false,
            taken_ms: 0,
            touched_ms: 0,
        };
        let mut takeable = Bits::new(count);
        (0..count).for_each(|block| takeable.insert(block));
        Self {
            entries: vec![entry; count as usize].into(),
            slabs: Slabs::new(count, per_slab),
            takeable,
            cached: List::EMPTY,
            free: 0,
            vacant: count as usize,
            reserved: 0,
            withheld: 0,
            logical: 0,
            shared: 0,
            now_ms: 0,
            stats: BlockStats::default(),
        }
    }

    /// Bytes on the heap.
    pub(crate) const fn bytes(count: u32, per_slab: u32) -> usize {
        count as usize * size_of::<Entry>() + Bits::bytes(count) + Slabs::bytes(count, per_slab)
    }

    pub(crate) fn total(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn free(&self) -> usize {
        self.free
    }

    pub(crate) fn cached(&self) -> usize {
        self.cached.len as usize
    }

    pub(crate) fn vacant(&self) -> usize {
        self.vacant
    }

    pub(crate) fn used(&self) -> usize {
        self.total() - self.free - self.cached() - self.vacant
    }

    pub(crate) fn reserved(&self) -> usize {
        self.reserved
    }

    /// The sum of all references.
    pub(crate) fn logical(&self) -> usize {
        self.logical
    }

    /// Blocks with more than one reference.
    pub(crate) fn shared(&self) -> usize {
        self.shared
    }

    /// Blocks that can be taken and are neither promised nor withheld, if every slab can be committed
    /// that may be.
    pub(crate) fn available(&self) -> usize {
        let there = self.free + self.cached() + self.vacant - self.reserved;
        there.saturating_sub(self.withheld)
    }

    pub(crate) fn state(&self, block: BlockId) -> State {
        self.entries[block as usize].state
    }

    pub(crate) fn references(&self, block: BlockId) -> u32 {
        self.entries[block as usize].references
    }

    pub(crate) fn is_keyed(&self, block: BlockId) -> bool {
        self.entries[block as usize].keyed
    }

    /// What time it is.
    pub(crate) fn tick(&mut self, now_ms: u64) {
        self.now_ms = self.now_ms.max(now_ms);
    }

    /// The slab to commit next.
    pub(crate) fn vacant_slab(&self) -> Option<u32> {
        self.slabs.vacant.first()
    }

    /// A slab has memory now: its blocks are free.
    pub(crate) fn commit(&mut self, slab: u32) {
        let mut free = List::EMPTY;
        for block in self.slabs.blocks(slab) {
            debug_assert_eq!(self.state(block), State::Vacant);
            self.entries[block as usize].state = State::Free;
            free.push_back(&mut self.entries, block);
        }
        self.vacant -= free.len as usize;
        self.free += free.len as usize;
        let record = self.slabs.get_mut(slab);
        assert!(!record.committed, "slab {slab} is committed already");
        record.free = free;
        record.committed = true;
        self.slabs.committed += 1;
        self.slabs.vacant.remove(slab);
        self.slabs.open.insert(slab);
    }

    /// A slab has no memory any more.
    ///
    /// # Panics
    /// When it is not committed, or one of its blocks is not free.
    pub(crate) fn vacate(&mut self, slab: u32) {
        assert!(self.slabs.is_idle(slab), "slab {slab} is not idle");
        for block in self.slabs.blocks(slab) {
            self.entries[block as usize].state = State::Vacant;
        }
        let record = self.slabs.get_mut(slab);
        let count = record.free.len as usize;
        record.free = List::EMPTY;
        record.committed = false;
        self.free -= count;
        self.vacant += count;
        self.slabs.committed -= 1;
        self.slabs.open.remove(slab);
        self.slabs.vacant.insert(slab);
    }

    /// Promises `count` more of the free and cached blocks, or none of them.
    pub(crate) fn reserve(&mut self, count: usize) -> bool {
        let fits = count <= self.free + self.cached() - self.reserved;
        self.reserved += if fits { count } else { 0 };
        fits
    }

    /// Whether a cached block may be held without breaking a promise.
    pub(crate) fn spares_cached(&self) -> bool {
        self.free + self.cached() > self.reserved && self.available() > 0
    }

    /// Takes back a promise of `count` blocks.
    ///
    /// # Panics
    /// When so many are not promised.
    pub(crate) fn unreserve(&mut self, count: usize) {
        let reserved = self.reserved;
        assert!(
            count <= reserved,
            "{count} of {reserved} promises taken back"
        );
        self.reserved -= count;
    }

    /// Takes a free block of the lowest slab that has one, held once.
    pub(crate) fn take_free(&mut self) -> Option<BlockId> {
        let slab = self.slabs.open.first()?;
        let block = self.slabs.get(slab).free.first;
        self.begin(block, 1);
        self.unlink_free(block);
        self.count_taken(1);
        Some(block)
    }

    /// The least first of `count` blocks, free or vacant, that are neighbours between two multiples of
    /// `edge`.
    pub(crate) fn find_run(&self, count: u32, edge: u32) -> Option<BlockId> {
        self.takeable.find_run(count, edge)
    }

    /// Takes a run of free blocks, each held once.
    ///
    /// # Panics
    /// When one of them is not free.
    pub(crate) fn take_run(&mut self, first: BlockId, count: u32) {
        let end = first + count;
        let mut slab = self.slabs.of(first);
        let mut at = first;
        while at < end {
            let slab_end = self.slabs.blocks(slab).end.min(end);
            let len = self.chained(slab, at, slab_end);
            self.detach(slab, at, len);
            at += len;
            slab += u32::from(at == slab_end);
        }
        self.begin(first, count);
        self.takeable.remove_run(first, count);
        self.free -= count as usize;
        self.count_taken(count as usize);
    }

    /// How many blocks from `first` on, up to `end`, follow one another in the list of their slab as
    /// well: those of freshly committed slabs do, and runs that were let go.
    fn chained(&self, slab: u32, first: BlockId, end: BlockId) -> u32 {
        let list = &self.slabs.get(slab).free;
        if list.len == end - first {
            // All that there are.
            return list.len;
        }
        let piece = &self.entries[first as usize..end as usize];
        let follows = |(entry, after): &(&Entry, u32)| entry.link.next == *after;
        let links = piece.iter().zip(first + 1..end).take_while(follows);
        1 + links.count() as u32
    }

    /// The books of blocks that are being taken.
    fn begin(&mut self, first: BlockId, count: u32) {
        let now_ms = self.now_ms;
        for entry in &mut self.entries[first as usize..][..count as usize] {
            assert!(entry.state == State::Free, "a block that is not free");
            entry.state = State::Used;
            entry.references = 1;
            entry.taken_ms = now_ms;
            entry.touched_ms = now_ms;
        }
    }

    fn count_taken(&mut self, count: usize) {
        self.logical += count;
        self.stats.allocations += count as u64;
        self.stats.peak = self.stats.peak.max(self.used());
    }

    /// Takes blocks that follow one another out of the list of their slab, or all that it has.
    fn detach(&mut self, slab: u32, first: BlockId, count: u32) {
        let record = &mut self.slabs.slabs[slab as usize];
        record.used += count;
        if record.free.len == count {
            record.free = List::EMPTY;
            self.slabs.open.remove(slab);
        } else {
            let entries = &mut self.entries;
            record
                .free
                .remove_chain(entries, first, first + count - 1, count);
        }
    }

    /// Takes a free block out of its list.
    fn unlink_free(&mut self, block: BlockId) {
        self.detach(self.slabs.of(block), block, 1);
        self.takeable.remove(block);
        self.free -= 1;
    }

    /// A block of which what it stored has come to its end.
    fn link_free(&mut self, block: BlockId) {
        let now_ms = self.now_ms;
        let entry = &mut self.entries[block as usize];
        entry.state = State::Free;
        self.stats.age.observe(now_ms - entry.taken_ms);
        self.stats.idle.observe(now_ms - entry.touched_ms);
        self.return_free(block);
    }

    fn return_free(&mut self, block: BlockId) {
        let slab = self.slabs.of(block);
        let record = &mut self.slabs.slabs[slab as usize];
        // To the front: what was used last is warm in the caches of the processor.
        record.free.push_front(&mut self.entries, block);
        if record.free.len == 1 {
            self.slabs.open.insert(slab);
        }
        self.takeable.insert(block);
        self.free += 1;
    }

    /// Holds a used block once more.
    ///
    /// # Panics
    /// When it is not in use, or the count would overflow.
    pub(crate) fn share(&mut self, block: BlockId) {
        let entry = &mut self.entries[block as usize];
        assert!(entry.state == State::Used, "block {block} is not in use");
        entry.references = entry
            .references
            .checked_add(1)
            .expect("fewer holders than u32::MAX");
        self.shared += usize::from(entry.references == 2);
        self.logical += 1;
    }

    /// Holds a block for what it stores, used or cached, and notes that it has been of use again.
    /// A cached one must not be promised to others.
    ///
    /// # Panics
    /// When it is neither.
    pub(crate) fn hold(&mut self, block: BlockId) {
        let now_ms = self.now_ms;
        if self.state(block) == State::Used {
            self.share(block);
            self.stats.reuse_gap.observe(0);
        } else {
            assert!(
                self.state(block) == State::Cached,
                "block {block} is not cached"
            );
            self.cached.remove(&mut self.entries, block);
            let slab = self.slabs.of(block);
            let record = self.slabs.get_mut(slab);
            record.cached -= 1;
            record.used += 1;
            let entry = &mut self.entries[block as usize];
            entry.state = State::Used;
            entry.references = 1;
            self.stats.reuse_gap.observe(now_ms - entry.touched_ms);
            self.count_taken(1);
        }
        self.entries[block as usize].touched_ms = now_ms;
    }

    /// Lets go of a block once. The last holder makes it cached, if it has a key, or free.
    ///
    /// # Panics
    /// When nobody holds it.
    pub(crate) fn release(&mut self, block: BlockId) {
        let now_ms = self.now_ms;
        let entry = &mut self.entries[block as usize];
        assert!(entry.references > 0, "block {block} is held by nobody");
        entry.references -= 1;
        entry.touched_ms = now_ms;
        self.logical -= 1;
        self.shared -= usize::from(entry.references == 1);
        if entry.references > 0 {
            return;
        }
        self.stats.deallocations += 1;
        let keyed = entry.keyed;
        let slab = self.slabs.of(block);
        self.slabs.get_mut(slab).used -= 1;
        if keyed {
            self.slabs.get_mut(slab).cached += 1;
            self.entries[block as usize].state = State::Cached;
            self.cached.push_back(&mut self.entries, block);
        } else {
            self.link_free(block);
        }
    }

    /// The index knows a used block now.
    pub(crate) fn key(&mut self, block: BlockId) {
        let entry = &mut self.entries[block as usize];
        assert!(entry.state == State::Used, "block {block} is not in use");
        entry.keyed = true;
    }

    /// The index forgets a block; a cached one becomes free.
    pub(crate) fn unkey(&mut self, block: BlockId) {
        let entry = &mut self.entries[block as usize];
        entry.keyed = false;
        if entry.state == State::Cached {
            self.cached.remove(&mut self.entries, block);
            let slab = self.slabs.of(block);
            self.slabs.get_mut(slab).cached -= 1;
            self.link_free(block);
        }
    }

    /// A block taken for what is already known by a key becomes cached, as the least recently used.
    pub(crate) fn shelve(&mut self, block: BlockId) {
        self.key(block);
        self.release(block);
        self.cached.remove(&mut self.entries, block);
        self.cached.push_front(&mut self.entries, block);
    }

    /// The least recently used cached block.
    pub(crate) fn oldest_cached(&self) -> Option<BlockId> {
        (self.cached.first != NONE).then_some(self.cached.first)
    }

    /// Cached blocks, most recently used first.
    pub(crate) fn cached_newest_first(&self) -> impl Iterator<Item = BlockId> {
        let known = |block: u32| (block != NONE).then_some(block);
        std::iter::successors(known(self.cached.last), move |&block| {
            known(self.entries[block as usize].link.previous)
        })
    }

    /// All that a used or cached block is becomes a free one's, and the other way round. What holds
    /// the one must be told of the other.
    ///
    /// # Panics
    /// When `from` is neither, or `to` not free.
    pub(crate) fn relocate(&mut self, from: BlockId, to: BlockId) {
        let moved = self.entries[from as usize];
        assert!(self.state(to) == State::Free, "block {to} is not free");
        self.unlink_free(to);
        let cached = match moved.state {
            State::Used => false,
            State::Cached => true,
            other => panic!("block {from} is {other:?}"),
        };
        if cached {
            self.cached.replace(&mut self.entries, from, to);
            let slab = self.slabs.of(to);
            let record = self.slabs.get_mut(slab);
            record.used -= 1;
            record.cached += 1;
        }
        let link = self.entries[to as usize].link;
        self.entries[to as usize] = Entry { link, ..moved };
        let slab = self.slabs.of(from);
        let record = self.slabs.get_mut(slab);
        match cached {
            true => record.cached -= 1,
            false => record.used -= 1,
        }
        let entry = &mut self.entries[from as usize];
        entry.state = State::Free;
        entry.references = 0;
        entry.keyed = false;
        self.return_free(from);
    }
}

#[cfg(test)]
mod tests;
