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

    /// Takes all blocks that a sequence needs to become `tokens` long, before it does, side by side where
    /// there is such a run: what engines without pages do. True if they are neighbours.
    ///
    /// # Errors
    /// When there are not enough blocks; the table is as it was then.
    ///
    /// # Panics
    /// When the sequence has blocks already.
    pub fn take_ahead(&mut self, table: &mut BlockTable, tokens: usize) -> Result<bool, KvError> {
        assert!(table.blocks().is_empty(), "a sequence that has begun");
        let count = table.blocks_for(tokens, self.layout().block_tokens());
        self.take_consecutive(count, table.blocks_mut())
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
            if !self.blocks.slabs.get(slab).committed && self.commit(slab) != Ok(true) {
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

#[cfg(test)]
mod tests {
    use bursar_kernels::kv_view::{KvDtype, KvLayout, KvShape};
    use bursar_memory::Ledger;

    use super::*;
    use crate::{KvOptions, KvPlan};

    fn cache(shape: KvShape, blocks: usize) -> KvCache {
        let layout = KvLayout::in_slabs(shape).expect("a layout");
        let plan = KvPlan::for_context(layout, blocks * shape.block_tokens, 1).expect("a plan");
        let ledger = Ledger::new(plan.bytes());
        KvCache::new(plan, &ledger.root(), KvOptions::default()).expect("fits")
    }

    const SHAPE: KvShape = KvShape {
        layers: 28,
        kv_heads: 8,
        head_dim: 128,
        block_tokens: 16,
        dtype_k: KvDtype::F16,
        dtype_v: KvDtype::F16,
    };

    /// R2
    #[test]
    fn neighbours_are_taken_where_there_are_such() {
        let mut cache = cache(SHAPE, 40);
        let all = cache.allocate_consecutive(40).expect("room");
        assert!(all.contiguous && all.blocks.is_sorted());
        assert_eq!(cache.allocate_consecutive(1), None);
        for block in [3, 4, 7, 8, 9, 20] {
            cache.release(block);
        }
        let three = cache
            .allocate_consecutive(3)
            .expect("a run across two slabs");
        assert_eq!((three.blocks, three.contiguous), (vec![7, 8, 9], true));
        let three = cache.allocate_consecutive(3).expect("blocks, but no run");
        assert!(!three.contiguous);
        assert_eq!(cache.available(), 0);
        let none = cache.allocate_consecutive(0).expect("nothing");
        assert!(none.blocks.is_empty() && none.contiguous);
    }

    #[test]
    fn padding_between_slabs_is_told() {
        let shape = KvShape {
            layers: 41,
            block_tokens: 64,
            dtype_k: KvDtype::F32,
            dtype_v: KvDtype::F32,
            ..SHAPE
        };
        let mut cache = cache(shape, 3);
        let layout = *cache.layout();
        assert!(layout.blocks_per_slab() == 1 && layout.slab_bytes() > layout.block_bytes());
        let two = cache.allocate_consecutive(2).expect("room");
        assert_eq!((two.blocks, two.contiguous), (vec![0, 1], false));
        assert!(cache.allocate_consecutive(1).expect("room").contiguous);
    }

    #[test]
    fn what_is_promised_is_left() {
        let mut cache = cache(SHAPE, 8);
        cache.reserve(3).expect("room");
        assert_eq!(cache.allocate_consecutive(6), None);
        let five = cache.allocate_consecutive(5).expect("room");
        assert!(five.contiguous);
        let rest: Vec<_> = (0..3).map(|_| cache.acquire()).collect();
        assert!(rest.iter().all(|block| !five.blocks.contains(block)));
        cache.release_all(&rest);
        cache.release_all(&five.blocks);
        assert_eq!(cache.available(), 8);
    }
}
