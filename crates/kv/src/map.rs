//! A cache's blocks as a row of cells to be looked at, block after block in the order of the slab space:
//! so that people see where slabs lie sparse, and what compaction does about it.

use crate::blocks::{BlockId, State};
use crate::cache::KvCache;

/// Blocks of a cell that are looked at; of a cell of more, these are spread evenly over it.
const SAMPLES: usize = 8;

/// What a cell shows.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cell {
    /// Its slab has no memory.
    Vacant,
    /// Memory that stores nothing.
    Free,
    /// Kept for what it stores, held by nobody.
    Cached,
    /// Held by one.
    Used,
    /// Held by more than one.
    Shared,
}

impl Cell {
    /// All, in ascending order.
    pub const ALL: [Cell; 5] = [
        Cell::Vacant,
        Cell::Free,
        Cell::Cached,
        Cell::Used,
        Cell::Shared,
    ];
}

/// How the cells of a map stand for blocks.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct MapShape {
    /// All blocks.
    pub blocks: usize,
    /// Blocks of a slab; the last may have fewer.
    pub blocks_per_slab: usize,
    /// Blocks that a cell stands for; the last may stand for fewer.
    pub blocks_per_cell: usize,
}

impl KvCache {
    /// Writes the map into `cells`, as many as it has room for at most, and allocates nothing. A cell of
    /// several blocks shows what most of those looked at are.
    pub fn map(&self, cells: &mut Vec<Cell>) -> MapShape {
        cells.clear();
        let blocks = self.plan.blocks();
        let shape = MapShape {
            blocks,
            blocks_per_slab: self.layout().blocks_per_slab() as usize,
            blocks_per_cell: blocks.div_ceil(cells.capacity().max(1)).max(1),
        };
        if cells.capacity() > 0 {
            let firsts = (0..blocks).step_by(shape.blocks_per_cell);
            cells.extend(firsts.map(|first| self.cell(first, shape.blocks_per_cell)));
        }
        shape
    }

    /// What most of the blocks from `first` on are.
    fn cell(&self, first: usize, count: usize) -> Cell {
        let end = (first + count).min(self.plan.blocks());
        let mut counts = [0_u8; Cell::ALL.len()];
        for block in (first..end).step_by(count.div_ceil(SAMPLES)) {
            counts[self.seen(block as BlockId) as usize] += 1;
        }
        // Of those equal in number, the last: what holds something.
        let most = Cell::ALL
            .into_iter()
            .max_by_key(|cell| counts[*cell as usize]);
        most.unwrap_or(Cell::Vacant)
    }

    fn seen(&self, block: BlockId) -> Cell {
        match self.state(block) {
            State::Vacant => Cell::Vacant,
            State::Free => Cell::Free,
            State::Cached => Cell::Cached,
            State::Used if self.references(block) > 1 => Cell::Shared,
            State::Used => Cell::Used,
        }
    }
}

#[cfg(test)]
mod tests {
    use bursar_kernels::kv_view::{KvDtype, KvLayout, KvShape};
    use bursar_memory::{Bytes, Ledger};

    use super::*;
    use crate::{KvOptions, KvPlan};

    fn cache() -> KvCache {
        let layout = KvLayout::new(KvShape {
            layers: 2,
            kv_heads: 2,
            head_dim: 64,
            block_tokens: 16,
            dtype_k: KvDtype::F16,
            dtype_v: KvDtype::F16,
        });
        let plan = KvPlan::for_context(layout.unwrap(), 16 * 40, 1).unwrap();
        let ledger = Ledger::new(Bytes::mib(64));
        KvCache::new(plan, &ledger.root(), KvOptions::default()).unwrap()
    }

    #[test]
    fn every_block_is_where_it_lies() {
        let mut kv = cache();
        let blocks = kv.plan().blocks();
        let taken: Vec<BlockId> = (0..3).map(|_| kv.allocate().unwrap()).collect();
        kv.share(taken[1]);
        let mut cells = Vec::with_capacity(blocks);
        let room = cells.capacity();
        let shape = kv.map(&mut cells);
        assert_eq!((cells.len(), shape.blocks_per_cell), (blocks, 1));
        assert_eq!(cells.capacity(), room, "nothing is allocated");
        let count = |cell| cells.iter().filter(|other| **other == cell).count();
        let report = kv.report();
        assert_eq!(cells[taken[0] as usize], Cell::Used);
        assert_eq!(cells[taken[1] as usize], Cell::Shared);
        assert_eq!(count(Cell::Used) + count(Cell::Shared), report.blocks_used);
        assert_eq!(count(Cell::Free), report.blocks_free);
        assert_eq!(count(Cell::Vacant), report.blocks_vacant);
    }

    #[test]
    fn where_there_is_little_room_a_cell_shows_most_of_its_blocks() {
        let mut kv = cache();
        let blocks = kv.plan().blocks();
        for _ in 0..blocks.div_ceil(4) {
            kv.allocate().unwrap();
        }
        let mut cells = Vec::with_capacity(4);
        let shape = kv.map(&mut cells);
        assert_eq!(shape.blocks_per_cell, blocks.div_ceil(cells.capacity()));
        assert_eq!(cells.len(), blocks.div_ceil(shape.blocks_per_cell));
        assert_eq!(cells[0], Cell::Used);
        assert!(cells[1..].iter().all(|cell| *cell < Cell::Used));
        let mut none = Vec::new();
        kv.map(&mut none);
        assert!(none.is_empty());
    }
}
