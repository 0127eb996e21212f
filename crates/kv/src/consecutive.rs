//! Many blocks at once: neighbours in memory where there is such a run, all or nothing.
//!
//! A run is found a word of 64 blocks at a time and leaves the lists in one piece per slab, so that a
//! block of many costs a fraction of one alone.

use crate::KvError;
use crate::blocks::BlockId;
use crate::cache::KvCache;
use crate::table::BlockTable;

/// Blocks that were taken together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consecutive {
    /// The blocks, each held once.
    pub blocks: Vec<BlockId>,
    /// Each lies right behind the one before.
    pub contiguous: bool,
}

impl KvCache {
    /// Takes `count` blocks, all or nothing.
    pub fn allocate_consecutive(&mut self, count: usize) -> Option<Consecutive> {
        if count > self.available() {
            return None;
        }
        let mut blocks = Vec::with_capacity(count);
        let contiguous = self.take_consecutive(count, &mut blocks).ok()?;
        Some(Consecutive { blocks, contiguous })
    }

    /// As [`KvCache::append`], with the new blocks side by side where there is such a run. True if they
    /// are neighbours among themselves.
    ///
    /// # Errors
    /// When there are not enough blocks; the table is as it was then.
    pub fn append_consecutive(
        &mut self,
        table: &mut BlockTable,
        tokens: usize,
    ) -> Result<bool, KvError> {
        let more = self.blocks_to_append(table, tokens);
        self.reserve(more)?;
        let fresh = more - self.own_partial(table, tokens);
        // They are there, as single blocks at least.
        self.unreserve(fresh);
        let contiguous = self.take_consecutive(fresh, table.blocks_mut())?;
        table.grow(tokens);
        Ok(contiguous)
    }

    /// Lets go of blocks once each, from the last on.
    ///
    /// # Panics
    /// When nobody holds one of them.
    pub fn release_all(&mut self, blocks: &[BlockId]) {
        for &block in blocks.iter().rev() {
            self.release(block);
        }
    }

    /// Takes `count` blocks and pushes them to `to`; true if they are neighbours.
    fn take_consecutive(&mut self, count: usize, to: &mut Vec<BlockId>) -> Result<bool, KvError> {
        if let Some((first, count)) = self.take_run(count) {
            to.extend(first..first + count);
            let slabs = &self.blocks.slabs;
            let one_slab = slabs.of(first) == slabs.of(first + count - 1);
            return Ok(one_slab || self.plan.slabs_adjoin());
        }
        self.reserve(count)?;
        let start = to.len();
        for _ in 0..count {
            let block = self.acquire();
            to.push(block);
        }
        let layout = self.layout();
        let end = |block| layout.block_offset(block) + layout.block_bytes();
        let mut pairs = to[start..].windows(2);
        Ok(pairs.all(|pair| layout.block_offset(pair[1]) == end(pair[0])))
    }

    /// Takes neighbours if there are so many: within one slab if slabs are padded and hold so many.
    fn take_run(&mut self, wanted: usize) -> Option<(BlockId, u32)> {
        if wanted == 0 || wanted > self.available() {
            return None;
        }
        let count = u32::try_from(wanted).ok()?;
        let per_slab = self.layout().blocks_per_slab();
        let edge = match self.plan.slabs_adjoin() || count > per_slab {
            true => u32::MAX,
            false => per_slab,
        };
        let first = self.blocks.find_run(count, edge)?;
        let slabs = &self.blocks.slabs;
        for slab in slabs.of(first)..=slabs.of(first + count - 1) {
            if !self.blocks.slabs.get(slab).committed && !self.commit(slab) {
                return None;
            }
        }
        // The run may be made of just the blocks that were promised to others.
        if !self.blocks.reserve(wanted) {
            return None;
        }
        self.blocks.unreserve(wanted);
        self.blocks.take_run(first, count);
        Some((first, count))
    }
}
