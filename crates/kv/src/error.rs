//! What can go wrong with the KV cache.

use std::path::PathBuf;

use bursar_memory::region::RegionError;
use bursar_memory::{Bytes, Refusal};

/// A cache that cannot be planned or made, blocks that are not there, or a spill file that fails.
#[derive(Debug, thiserror::Error)]
pub enum KvError {
    /// The budget does not hold it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The operating system refused memory that the budget allows.
    #[error(transparent)]
    Region(RegionError),
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
        /// Blocks that can be taken, cached ones among them.
        free: usize,
        /// Blocks in all.
        total: usize,
    },
    /// The spill file cannot be made, written or read.
    #[error("{what} of the spill file in {} failed: {source}; give another folder with --kv-spill, or none", dir.display())]
    Spill {
        /// The step that failed.
        what: &'static str,
        /// The folder it is in.
        dir: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// What was read from the spill file is not what was written.
    #[error(
        "{bytes} at {offset} of the spill file in {} are not what was written there; \
         they are computed again, but check the disk", dir.display()
    )]
    SpillDamaged {
        /// The folder it is in.
        dir: PathBuf,
        /// Where in the file, in bytes.
        offset: u64,
        /// How many bytes.
        bytes: Bytes,
    },
}

/// A refusal is one wherever it was noticed.
impl From<RegionError> for KvError {
    fn from(error: RegionError) -> Self {
        match error {
            RegionError::Refused(refusal) => KvError::Refused(refusal),
            error => KvError::Region(error),
        }
    }
}
