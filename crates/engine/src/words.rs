//! The tokens of one request, its prompt's and its answer's: in scratch memory that comes with the request,
//! as long as the request may become, and goes when it ends. No step makes it longer.

use std::ops::Deref;

use bursar_memory::scratch::{Part, Scratch};
use bursar_memory::{PoolError, Pools};

use crate::ground::Ground;

/// Tokens, with room for more up to a bound.
#[derive(Debug)]
pub(crate) struct Words {
    scratch: Scratch<Ground>,
    tokens: Part<u32>,
    len: usize,
}

impl Words {
    /// The prompt, and room for `more` tokens; of these pools, if there are any.
    ///
    /// # Errors
    /// Where they have no memory.
    pub(crate) fn new(
        prompt: &[u32],
        more: usize,
        pools: Option<&Pools>,
    ) -> Result<Self, PoolError> {
        let most = prompt.len().saturating_add(more);
        let bytes = most.saturating_mul(size_of::<u32>());
        let mut scratch = match pools {
            Some(pools) => Scratch::counted(Ground::pooled(bytes, pools)?, pools.scratch()),
            None => Scratch::new(Ground::on_heap(bytes)),
        };
        let tokens = scratch
            .take(most)
            .expect("it was made as long as its only part");
        scratch.open().slice_mut(tokens)[..prompt.len()].copy_from_slice(prompt);
        Ok(Self {
            scratch,
            tokens,
            len: prompt.len(),
        })
    }

    /// Adds a token; there is room for as many as were said.
    pub(crate) fn push(&mut self, token: u32) {
        self.scratch.open().slice_mut(self.tokens)[self.len] = token;
        self.len += 1;
    }
}

impl Deref for Words {
    type Target = [u32];

    fn deref(&self) -> &[u32] {
        &self.scratch.slice(self.tokens)[..self.len]
    }
}

impl Drop for Words {
    fn drop(&mut self) {
        self.scratch.reset();
    }
}

#[cfg(test)]
mod tests {
    use bursar_memory::{Bytes, Ledger, Lifetime, PoolsOptions};

    use super::*;

    /// M6
    #[test]
    fn words_go_with_their_request() {
        let ledger = Ledger::new(Bytes::mib(64));
        let account = ledger.root().child("pools", Lifetime::Procedural);
        let pools = Pools::start(&PoolsOptions::default(), &account).expect("room for heaps");
        for pools in [None, Some(&pools)] {
            for (prompt, more) in [(&[][..], 0), (&[7], 0), (&[1, 2, 3], 1000)] {
                let mut words = Words::new(prompt, more, pools).expect("room for all");
                assert_eq!(&*words, prompt);
                for token in 0..more as u32 {
                    words.push(token);
                }
                assert_eq!(words.len(), prompt.len() + more);
                assert_eq!(words[..prompt.len()], *prompt);
                assert!(words[prompt.len()..].iter().copied().eq(0..more as u32));
            }
        }
        let report = pools.report().scratch;
        assert_eq!((report.resets_total, report.refused_total), (3, 0));
        assert_eq!(report.high_water_bytes, 4 * 1003);
        let most = Words::new(&[], 1 << 40, Some(&pools));
        assert!(matches!(most, Err(PoolError::Refused(_))), "{most:?}");
    }
}
