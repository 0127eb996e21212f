//! The paged KV cache: blocks, tables, shared prefixes, compaction.
//!
//! | module | what lives there |
//! |---|---|
//! | [`preset`] | sizes by name |
//! | [`plan`] | how many blocks, and every byte of them, before anything is allocated |
//! | [`blocks`] | the books: what each block is, who holds it, in which order they are taken |
//! | `slabs` | which pieces of memory are committed |
//! | [`table`] | a sequence's blocks in order |
//! | [`prefix`] | what a block stores, as a key, and the index that finds it |
//! | [`cache`] | the owner: blocks, tables, index, and the memory they stand for |
//! | [`capacity`] | how much of its plan a cache may fill, and giving back the rest |
//! | [`consecutive`] | many blocks at once, neighbours where there are such |
//! | [`compact`] | moving blocks together, so that memory goes back to the operating system |
//! | [`map`] | its blocks as a row of cells to be looked at |
//! | [`report`] | what a cache holds, and has done |
//! | [`histogram`] | how long blocks lived, idled, and waited to be of use again |
//! | [`spill`] | blocks on disk, for as long as the process runs |
//! | [`keep`] | cached blocks on disk, from one run to the next |
//! | `list`, `bits` | linked lists through one array, sets of small numbers |
//!
//! What a block looks like inside is `bursar_kernels::kv_view`'s business: nothing here reads or
//! writes a key or a value, other than copying whole blocks. Nothing here reads a clock.

#![forbid(unsafe_code)]

mod bits;
pub mod blocks;
pub mod cache;
pub mod capacity;
pub mod compact;
pub mod consecutive;
mod error;
pub mod histogram;
pub mod keep;

mod list;
pub mod map;
#[cfg(test)]
mod oracle;
pub mod plan;
pub mod prefix;
pub mod preset;
pub mod report;
mod slabs;
pub mod spill;

pub mod table;

pub use blocks::{BlockId, BlockStats, State};
pub use cache::{Found, KvCache, KvOptions};
pub use capacity::Returned;
pub use compact::{Compaction, CompactionStats, Triggers};
pub use consecutive::Consecutive;
pub use error::KvError;
pub use histogram::Histogram;
pub use keep::{KeepError, Kept};

pub use map::{Cell, MapShape};
pub use plan::KvPlan;
pub use prefix::{BlockKey, PrefixHasher};
pub use preset::Preset;
pub use report::KvReport;
pub use spill::{Slot, SpillFile};

pub use table::BlockTable;
