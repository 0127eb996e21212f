//! How much of its plan a cache may fill, and giving back what it holds beyond that.
//!
//! The address space and the books are made for the whole plan. What is *promised* to the cache, as the
//! floor of its account, may be less: so many slabs, and with them so many blocks. The blocks beyond are
//! withheld; they count as not being there. Capacity is counted as if the shortest slab were among those
//! that are committed, so that whichever are, they hold that many blocks.
//!
//! Blocks in use are never taken away: capacity is at least what is in use and promised to sequences.
//! Slabs committed beyond it, because blocks in use lie scattered or others are cached, stay charged
//! until [`KvCache::settle`] has given them back.

use bursar_memory::Bytes;

use crate::cache::KvCache;
use crate::compact::{Compaction, Triggers};
use crate::table::BlockTable;

/// What was given up, and what the operating system got back for it.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Returned {
    /// Cached blocks that were forgotten.
    pub dropped_blocks: usize,
    /// Bytes of blocks moved.
    pub moved_bytes: Bytes,
    /// Slabs that are vacant now.
    pub slabs: usize,
    /// Bytes that the operating system got back, as it counts them.
    pub bytes: Bytes,
}

impl Returned {
    fn add_slabs(&mut self, (slabs, bytes): (usize, Bytes)) {
        self.slabs += slabs;
        self.bytes = self.bytes.saturating_add(bytes);
    }

    fn add(&mut self, compaction: Compaction) {
        self.moved_bytes = self.moved_bytes.saturating_add(compaction.moved_bytes);
        self.add_slabs((compaction.slabs_returned, compaction.bytes_returned));
    }
}

impl KvCache {
    /// Blocks that may be used at once; the plan's, unless [`KvCache::set_capacity`] lowered it.
    pub fn capacity(&self) -> usize {
        self.blocks.total() - self.blocks.withheld
    }

    /// Bytes that are promised to it: as many are never refused.
    pub fn promised(&self) -> Bytes {
        self.account().floor()
    }

    /// Whether slabs are committed beyond the capacity.
    pub fn is_over(&self) -> bool {
        self.blocks.slabs.committed > self.blocks.slabs.most
    }

    /// Lets it use so many blocks at once, rounded up to whole slabs, and promises it their bytes. At
    /// least those in use and promised stay; more than the plan's there are not; more than now only as
    /// far as the budget has room. Gives the capacity. Takes nothing away by itself: see
    /// [`KvCache::settle`].
    pub fn set_capacity(&mut self, blocks: usize) -> usize {
        let busy = self.blocks.used() + self.blocks.reserved();
        let wanted = self.slabs_for(blocks.max(busy));
        let now = self.blocks.slabs.most;
        let slabs = match wanted > now {
            true => self.affordable(now, wanted),
            false => wanted,
        };
        // A promise that others were quicker to get is not made; less is never refused.
        if slabs != now && self.account().set_floor(self.promise_of(slabs)).is_ok() {
            self.blocks.slabs.most = slabs;
            let withheld = self.blocks.slabs.count() - slabs;
            self.blocks.withheld = (withheld * self.layout().blocks_per_slab()) as usize;
        }
        self.capacity()
    }

    /// Gives back what is committed beyond the capacity, as far as that goes: idle slabs, then those
    /// that come free when the least recently used cached blocks are forgotten and the rest is moved
    /// together. At most `budget` bytes of blocks of these tables are moved, none if it is `None`.
    pub fn settle<T: AsMut<BlockTable>>(
        &mut self,
        tables: &mut [T],
        budget: Option<Bytes>,
    ) -> Returned {
        let mut returned = Returned::default();
        if !self.is_over() {
            return returned;
        }
        returned.add_slabs(self.trim());
        if !self.is_over() {
            return returned;
        }
        let stored = self.blocks.used() + self.blocks.cached();
        returned.dropped_blocks = self.drop_cached(stored.saturating_sub(self.capacity()));
        match budget {
            Some(budget) => returned.add(self.compact(tables, budget, &Triggers::ALWAYS)),
            None => returned.add_slabs(self.trim()),
        }
        returned
    }

    /// Gives idle slabs back, and forgets cached blocks, least recently used first, until slabs of
    /// `bytes` have come free in all or none is left.
    pub fn return_cached(&mut self, bytes: Bytes) -> Returned {
        let mut returned = Returned::default();
        returned.add_slabs(self.trim());
        let slab_bytes = self.layout().slab_bytes() as u64;
        let wanted = usize::try_from(bytes.0.div_ceil(slab_bytes)).unwrap_or(usize::MAX);
        let mut idle = returned.slabs;
        while idle < wanted
            && let Some(block) = self.blocks.oldest_cached()
        {
            self.drop_cached(1);
            returned.dropped_blocks += 1;
            idle += usize::from(self.blocks.slabs.is_idle(self.blocks.slabs.of(block)));
        }
        returned.add_slabs(self.trim());
        returned
    }

    /// The fewest slabs with that many blocks, whichever they are.
    fn slabs_for(&self, blocks: usize) -> u32 {
        let spare = self.blocks.total().saturating_sub(blocks);
        let per_slab = self.layout().blocks_per_slab() as usize;
        // No more than there are slabs, which are counted in u32; and one at least.
        let withheld = (spare / per_slab) as u32;
        (self.blocks.slabs.count() - withheld.min(self.blocks.slabs.count())).max(1)
    }

    /// What is promised with so many slabs.
    fn promise_of(&self, slabs: u32) -> Bytes {
        let slab = self.layout().slab_bytes() as u64;
        let bytes = self.plan.books_bytes().0 + u64::from(slabs) * slab;
        match slabs == self.blocks.slabs.count() {
            true => self.plan.bytes(),
            false => Bytes(bytes).min(self.plan.bytes()),
        }
    }

    /// How many slabs of those wanted can be promised now; never fewer than are.
    fn affordable(&self, now: u32, wanted: u32) -> u32 {
        let account = self.account();
        let most = account.granted().saturating_add(account.free());
        if self.promise_of(wanted) <= most {
            return wanted;
        }
        let slab = self.layout().slab_bytes() as u64;
        let slabs = most.saturating_sub(self.plan.books_bytes()).0 / slab;
        u32::try_from(slabs).map_or(wanted, |slabs| slabs.clamp(now, wanted))
    }
}
