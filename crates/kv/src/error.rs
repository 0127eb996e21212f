//! What can go wrong with the KV cache.

use bursar_memory::region::RegionError;
use bursar_memory::{Bytes, Refusal};

/// A cache that cannot be planned or made, or blocks that are not there.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    /// The budget does not hold it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The operating system refused memory that the budget allows.
    #[error(transparent)]
    Region(#[from] RegionError),
    /// A size beyond what can be addressed or counted.
    #[error(
        "the KV cache for {tokens} tokens overflows the address space; lower --context or --parallel"
    )]
    TooLarge {
        /// Tokens asked for.
        tokens: usize,
    },
    /// Less memory than one block takes.
    #[error("{given} of KV memory hold no block of {block}; give at least that, or smaller blocks")]
    TooSmall {
        /// Bytes given.
        given: Bytes,
        /// Bytes of one block with its books.
        block: Bytes,
    },
    /// Not enough free blocks.
    #[error(
        "{asked} KV blocks asked, {free} of {total} free; wait for a sequence to end, or raise --kv-memory"
    )]
    Exhausted {
        /// Blocks asked for.
        asked: usize,
        /// Blocks free.
        free: usize,
        /// Blocks in all.
        total: usize,
    },
}
