//! The keys of a sequence's blocks: what each holds, in 32 bytes that follow from all tokens up to its
//! end, from whose they are, and from what computes them.
//!
//! A full block has a key. So has the rest of the prompt, short of its last token, which always has
//! to be run: requests with the same prompt, such as the choices of one, have the same.

use bursar_kv::{BlockKey, PrefixHasher};

/// The keys of one sequence, as far as its tokens are known.
#[derive(Debug)]
pub(crate) struct Chain {
    hasher: PrefixHasher,
    keys: Vec<BlockKey>,
    /// Of the prompt's tokens after its last full block, bar the last token; `None` without any.
    rest: Option<BlockKey>,
}

impl Chain {
    /// The keys of a prompt, with room for those of `longest` tokens after it.
    pub(crate) fn new(
        hasher: PrefixHasher,
        prompt: &[u32],
        longest: usize,
        block_tokens: usize,
    ) -> Self {
        let mut chain = Self {
            hasher,
            keys: Vec::with_capacity((prompt.len() + longest) / block_tokens),
            rest: None,
        };
        chain.extend(prompt, block_tokens);
        // The last token may end a block: that block is not found stored, but run.
        let most = prompt.len() - 1;
        let whole = most / block_tokens;
        let rest = &prompt[whole * block_tokens..most];
        if !rest.is_empty() {
            chain.rest = Some(chain.after(whole, rest));
        }
        chain
    }

    /// Adds the keys of blocks that `tokens`, all there are, have filled since.
    pub(crate) fn extend(&mut self, tokens: &[u32], block_tokens: usize) {
        let rest = &tokens[self.keys.len() * block_tokens..];
        for block in rest.chunks_exact(block_tokens) {
            let key = self.after(self.keys.len(), block);
            self.keys.push(key);
        }
    }

    /// The key of tokens that follow the first `blocks` blocks.
    fn after(&self, blocks: usize, tokens: &[u32]) -> BlockKey {
        match blocks.checked_sub(1) {
            Some(last) => self.hasher.next(&self.keys[last], tokens),
            None => self.hasher.first(tokens),
        }
    }

    /// The keys of all full blocks.
    pub(crate) fn keys(&self) -> &[BlockKey] {
        &self.keys
    }

    /// The key of the prompt's rest.
    pub(crate) fn rest(&self) -> Option<&BlockKey> {
        self.rest.as_ref()
    }
}
