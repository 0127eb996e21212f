//! A sequence's blocks in order, and how many of its tokens they hold.

use crate::blocks::BlockId;

/// The blocks of one sequence. Token `t` lies in block `t / block_tokens` of the list.
///
/// Made empty, grown and emptied by [`crate::KvCache`]; dropping one that is not empty would leak its
/// blocks, which `KvCache::report` shows as used. Blocks may be shared with other tables; the one that
/// is written next never is, because appending makes it the sequence's own.
#[derive(Debug, Default)]
pub struct BlockTable {
    blocks: Vec<BlockId>,
    len: usize,
}

/// Whoever has a table is one, where tables are asked for: so nobody has to gather them in a list.
impl AsMut<BlockTable> for BlockTable {
    fn as_mut(&mut self) -> &mut BlockTable {
        self
    }
}

impl BlockTable {
    /// A sequence without tokens.
    pub fn new() -> Self {
        Self::default()
    }

    /// Bytes on the heap of a table made for `tokens`.
    pub const fn bytes(tokens: usize, block_tokens: usize) -> usize {
        tokens.div_ceil(block_tokens) * size_of::<BlockId>()
    }

    /// A sequence without tokens that will grow to `tokens` without allocating.
    pub fn with_capacity(tokens: usize, block_tokens: usize) -> Self {
        Self {
            blocks: Vec::with_capacity(tokens.div_ceil(block_tokens)),
            len: 0,
        }
    }

    /// The blocks, as attention reads them.
    pub fn blocks(&self) -> &[BlockId] {
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
        let block = self.blocks[position / block_tokens];
        Some((block, position % block_tokens))
    }

    /// Blocks that `tokens` more tokens need beyond those there are.
    pub fn blocks_for(&self, tokens: usize, block_tokens: usize) -> usize {
        // An absurd sum asks for more blocks than there can be and is refused for that; there are more
        // than its tokens need already where they were taken ahead.
        let needed = self.len.saturating_add(tokens).div_ceil(block_tokens);
        needed.saturating_sub(self.blocks.len())
    }

    /// The block that its last token is in, if that is partly filled.
    pub(crate) fn partial(&self, block_tokens: usize) -> Option<BlockId> {
        match self.len % block_tokens {
            0 => None,
            _ => self.blocks.get(self.len / block_tokens).copied(),
        }
    }

    pub(crate) fn push(&mut self, block: BlockId) {
        self.blocks.push(block);
    }

    /// Where blocks are pushed by many.
    pub(crate) fn blocks_mut(&mut self) -> &mut Vec<BlockId> {
        &mut self.blocks
    }

    /// Makes another block take the place of one.
    pub(crate) fn replace(&mut self, index: usize, block: BlockId) {
        self.blocks[index] = block;
    }

    pub(crate) fn grow(&mut self, tokens: usize) {
        self.len += tokens;
    }

    /// Empties it, from its end on: those that come first are let go last.
    pub(crate) fn drain(&mut self) -> impl Iterator<Item = BlockId> {
        self.len = 0;
        self.blocks.drain(..).rev()
    }
}
