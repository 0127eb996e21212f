//! The size of a cache before it exists: blocks, tokens, and exact bytes, books included.

use std::ops::Range;

use bursar_kernels::kv_view::KvLayout;
use bursar_memory::Bytes;
use bursar_memory::region::{charge_of, page_len};

use crate::KvError;
use crate::blocks::Blocks;
use crate::compact::Scratch;
use crate::prefix::PrefixIndex;

/// How many blocks of which layout.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct KvPlan {
    layout: KvLayout,
    blocks: u32,
}

impl KvPlan {
    /// As many blocks as `parallel` sequences of `context` tokens need.
    ///
    /// # Errors
    /// When the bytes overflow.
    ///
    /// # Panics
    /// When the layout's slabs are not whole pages: see [`KvLayout::in_slabs`].
    pub fn for_context(layout: KvLayout, context: usize, parallel: usize) -> Result<Self, KvError> {
        let blocks = context
            .div_ceil(layout.block_tokens())
            .checked_mul(parallel);
        let blocks = blocks.and_then(|n| u32::try_from(n).ok());
        let tokens = context.saturating_mul(parallel);
        let blocks = blocks.ok_or(KvError::TooLarge { tokens })?;
        Self::with_blocks(layout, blocks).ok_or(KvError::TooLarge { tokens })
    }

    /// As many blocks as `bytes` hold, their books included.
    ///
    /// # Errors
    /// When they hold none.
    ///
    /// # Panics
    /// As [`KvPlan::for_context`].
    pub fn within(layout: KvLayout, bytes: Bytes) -> Result<Self, KvError> {
        let per_block = layout.block_bytes() as u64 + Self::BOOKS_BYTES_PER_BLOCK as u64;
        let fits = |blocks| Self::with_blocks(layout, blocks).filter(|plan| plan.bytes() <= bytes);
        // Slabs are padded and whole pages charged: fewer may fit, and more never cost less.
        let (mut least, mut most) = (0, u32::try_from(bytes.0 / per_block).unwrap_or(u32::MAX));
        while least < most {
            let middle = most - (most - least) / 2;
            match fits(middle) {
                Some(_) => least = middle,
                None => most = middle - 1,
            }
        }
        fits(least).ok_or(KvError::TooSmall {
            given: bytes,
            block: Bytes(per_block),
        })
    }

    /// The least that the books of a block take; those of slabs, and bits in whole words, come on top.
    pub const BOOKS_BYTES_PER_BLOCK: usize = books_bytes(1 << 16, 1 << 16) >> 16;

    fn with_blocks(layout: KvLayout, blocks: u32) -> Option<Self> {
        let slab = layout.slab_bytes();
        assert!(slab.is_multiple_of(page_len()), "slabs of {slab} bytes");
        let bytes = layout.bytes_for(blocks as usize)?;
        isize::try_from(bytes).ok()?;
        (blocks > 0).then_some(Self { layout, blocks })
    }

    /// Where things lie within a block.
    pub fn layout(&self) -> &KvLayout {
        &self.layout
    }

    /// Blocks.
    pub fn blocks(&self) -> usize {
        self.blocks as usize
    }

    /// Tokens that all blocks hold.
    pub fn tokens(&self) -> usize {
        self.blocks() * self.layout.block_tokens()
    }

    /// Bytes of one token's keys and values in all layers.
    pub fn bytes_per_token(&self) -> Bytes {
        Bytes((self.layout.block_bytes() / self.layout.block_tokens()) as u64)
    }

    /// Bytes of the blocks, as charged.
    pub fn blocks_bytes(&self) -> Bytes {
        charge_of(Bytes(self.address_bytes() as u64))
    }

    /// Address space from the first block's start to the last one's end, in bytes.
    pub(crate) fn address_bytes(&self) -> usize {
        let bytes = self.layout.bytes_for(self.blocks());
        bytes.expect("checked when the plan was made")
    }

    /// Where a slab is in the address space. The last one ends with its last block.
    pub(crate) fn slab_range(&self, slab: u32) -> Range<usize> {
        let start = slab as usize * self.layout.slab_bytes();
        start..(start + self.layout.slab_bytes()).min(self.address_bytes())
    }

    /// Whether the first block of a slab lies right behind the last one of the slab before.
    pub(crate) fn slabs_adjoin(&self) -> bool {
        let blocks = self.layout.blocks_per_slab() as usize * self.layout.block_bytes();
        blocks == self.layout.slab_bytes()
    }

    /// Bytes of the books: states, lists and counts of blocks and slabs, the index, and what
    /// compaction needs to decide.
    pub fn books_bytes(&self) -> Bytes {
        Bytes(books_bytes(self.blocks, self.layout.blocks_per_slab()) as u64)
    }

    /// All bytes.
    pub fn bytes(&self) -> Bytes {
        self.blocks_bytes().saturating_add(self.books_bytes())
    }
}

/// Everything that a cache allocates for its books, all of it when it is made.
const fn books_bytes(blocks: u32, per_slab: u32) -> usize {
    Blocks::bytes(blocks, per_slab)
        + PrefixIndex::BYTES_PER_BLOCK * blocks as usize
        + Scratch::bytes(blocks, per_slab)
}

#[cfg(test)]
mod tests {
    use super::*;
    use bursar_kernels::kv_view::{KvDtype, KvShape};

    fn layout() -> KvLayout {
        let shape = KvShape {
            layers: 28,
            kv_heads: 8,
            head_dim: 128,
            block_tokens: 16,
            dtype_k: KvDtype::F16,
            dtype_v: KvDtype::F16,
        };
        KvLayout::in_slabs(shape).expect("a layout")
    }

    #[test]
    fn padded_slabs_are_filled_and_never_pass() {
        let shape = KvShape {
            layers: 24,
            kv_heads: 2,
            head_dim: 64,
            ..layout().shape()
        };
        let layout = KvLayout::in_slabs(shape).expect("a layout");
        for bytes in (200_000u64..70_000_000).step_by(98_765) {
            let plan = KvPlan::within(layout, Bytes(bytes)).expect("some blocks");
            assert!(plan.bytes().0 <= bytes);
            let more = KvPlan::with_blocks(layout, plan.blocks + 1).expect("one more");
            assert!(more.bytes().0 > bytes);
        }
        let slab = u64::from(layout.blocks_per_slab());
        let plan = KvPlan::with_blocks(layout, 2 * slab as u32).expect("two slabs");
        let bytes = layout.slab_bytes() as u64 + slab * 24 * 8192;
        assert_eq!(plan.blocks_bytes(), charge_of(Bytes(bytes)));
    }

    #[test]
    fn bytes_follow_from_layers_heads_width_and_type() {
        let plan = KvPlan::for_context(layout(), 4096, 1).expect("fits");
        assert_eq!(plan.blocks(), 256);
        assert_eq!(plan.bytes_per_token(), Bytes(28 * 8 * 128 * 2 * 2));
        assert_eq!(plan.blocks_bytes(), Bytes(4096 * 28 * 8 * 128 * 2 * 2));
    }

    #[test]
    fn memory_is_filled_and_never_passed() {
        for bytes in [2_000_000u64, 10_000_000, 123_456_789, 1 << 30] {
            let plan = KvPlan::within(layout(), Bytes(bytes)).expect("some blocks");
            assert!(plan.bytes().0 <= bytes);
            let more = KvPlan::with_blocks(layout(), plan.blocks + 1).expect("one more");
            assert!(more.bytes().0 > bytes);
        }
        let error = KvPlan::within(layout(), Bytes(1000)).expect_err("no block fits");
        assert!(matches!(error, KvError::TooSmall { .. }));
    }

    #[test]
    fn absurd_sizes_are_refused() {
        assert!(KvPlan::for_context(layout(), usize::MAX, 3).is_err());
        assert!(KvPlan::for_context(layout(), 1 << 40, 1 << 10).is_err());
    }
}
