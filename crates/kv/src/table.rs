//! A sequence's blocks in order, and how many of its tokens they hold.

use crate::blocks::BlockId;

/// The blocks of one sequence. Token `t` lies in block `t / block_tokens` of the list.
///
/// Made empty, grown and emptied by [`crate::KvCache`]; dropping one that is not empty would leak its
/// blocks, which `KvCache::report` shows as used.
#[derive(Debug, Default)]
pub struct BlockTable {
    blocks: Vec<u32>,
    len: usize,
}

impl BlockTable {
    /// A sequence without tokens.
    pub fn new() -> Self {
        Self::default()
    }

    /// A sequence without tokens that will grow to `tokens` without allocating.
    pub fn with_capacity(tokens: usize, block_tokens: usize) -> Self {
        Self {
            blocks: Vec::with_capacity(tokens.div_ceil(block_tokens)),
            len: 0,
        }
    }

    /// The blocks, as attention reads them.
    pub fn blocks(&self) -> &[u32] {
        &self.blocks
    }

    /// Tokens.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are no tokens.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The block that holds a position, and the position within it.
    pub fn lookup(&self, position: usize, block_tokens: usize) -> Option<(BlockId, usize)> {
        if position >= self.len {
            return None;
        }
        Some((
            BlockId(self.blocks[position / block_tokens]),
            position % block_tokens,
        ))
    }

    /// Blocks that `tokens` more tokens need beyond those there are.
    pub(crate) fn blocks_for(&self, tokens: usize, block_tokens: usize) -> usize {
        // An absurd sum asks for more blocks than there can be and is refused for that.
        self.len.saturating_add(tokens).div_ceil(block_tokens) - self.blocks.len()
    }

    pub(crate) fn push(&mut self, BlockId(block): BlockId) {
        self.blocks.push(block);
    }

    pub(crate) fn grow(&mut self, tokens: usize) {
        self.len += tokens;
    }

    pub(crate) fn drain(&mut self) -> impl Iterator<Item = BlockId> {
        self.len = 0;
        self.blocks.drain(..).map(BlockId)
    }
}
