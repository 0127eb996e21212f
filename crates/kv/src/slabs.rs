//! The books of the slabs: which are committed, and what their blocks do.
//!
//! A slab is the piece of memory that is charged and given back as a whole.

use std::ops::Range;

use crate::bits::Bits;
use crate::list::List;

/// One slab.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Slab {
    /// Its free blocks, to be taken from the front.
    pub(crate) free: List,
    pub(crate) cached: u32,
    pub(crate) used: u32,
    /// Its memory is charged and may be written.
    pub(crate) committed: bool,
}

impl Slab {
    /// Blocks in it that hold something.
    pub(crate) fn live(&self) -> u32 {
        self.cached + self.used
    }
}

/// All slabs.
#[derive(Debug)]
pub(crate) struct Slabs {
    pub(crate) slabs: Box<[Slab]>,
    /// Blocks of each; the last may have fewer.
    per_slab: u32,
    blocks: u32,
    /// Committed ones with a free block.
    pub(crate) open: Bits,
    /// Those not committed.
    pub(crate) vacant: Bits,
    pub(crate) committed: u32,
    /// How many may be committed.
    pub(crate) most: u32,
}

impl Slabs {
    pub(crate) fn new(blocks: u32, per_slab: u32) -> Self {
        let count = blocks.div_ceil(per_slab);
        let slab = Slab {
            free: List::EMPTY,
            cached: 0,
            used: 0,
            committed: false,
        };
        let mut vacant = Bits::new(count);
        (0..count).for_each(|slab| vacant.insert(slab));
        Self {
            slabs: vec![slab; count as usize].into(),
            per_slab,
            blocks,
            open: Bits::new(count),
            vacant,
            committed: 0,
            most: count,
        }
    }

    /// Bytes on the heap.
    pub(crate) const fn bytes(blocks: u32, per_slab: u32) -> usize {
        let count = blocks.div_ceil(per_slab);
        count as usize * size_of::<Slab>() + 2 * Bits::bytes(count)
    }

    pub(crate) fn count(&self) -> u32 {
        self.slabs.len() as u32
    }

    /// The slab of a block.
    pub(crate) fn of(&self, block: u32) -> u32 {
        block / self.per_slab
    }

    pub(crate) fn get(&self, slab: u32) -> &Slab {
        &self.slabs[slab as usize]
    }

    pub(crate) fn get_mut(&mut self, slab: u32) -> &mut Slab {
        &mut self.slabs[slab as usize]
    }

    /// The blocks of a slab.
    pub(crate) fn blocks(&self, slab: u32) -> Range<u32> {
        let first = slab * self.per_slab;
        first..first.saturating_add(self.per_slab).min(self.blocks)
    }

    /// Free blocks of slabs that hold something.
    pub(crate) fn fragmented(&self) -> u32 {
        let partly = self.slabs.iter().filter(|slab| slab.live() > 0);
        partly.map(|slab| slab.free.len).sum()
    }

    /// Whether a slab could be given back: one is idle, or what the one that holds least holds fits into
    /// the gaps of the others.
    pub(crate) fn can_return_one(&self) -> bool {
        let (mut gaps, mut least) = (0, None::<&Slab>);
        for slab in self.slabs.iter().filter(|slab| slab.free.len > 0) {
            if slab.live() == 0 {
                return true;
            }
            gaps += slab.free.len;
            least = least
                .filter(|least| least.live() <= slab.live())
                .or(Some(slab));
        }
        least.is_some_and(|least| least.live() <= gaps - least.free.len)
    }

    /// Whether a slab is committed without any use.
    pub(crate) fn is_idle(&self, slab: u32) -> bool {
        let slab = self.get(slab);
        slab.committed && slab.live() == 0
    }
}
