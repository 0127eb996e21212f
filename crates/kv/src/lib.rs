//! The paged KV cache: layout, blocks, tables.
//!
//! - [`plan`]: how many blocks, and every byte of them, before anything is allocated.
//! - [`preset`]: sizes by name.
//! - [`blocks`]: the books: which block is free, which is held, and by how many.
//! - [`table`]: a sequence's blocks in order.
//! - [`cache`]: blocks, tables and the memory they stand for.
//!
//! What a block looks like inside is `bursar_kernels::kv_view`'s business: nothing here touches a key
//! or a value.

#![forbid(unsafe_code)]

pub mod blocks;
pub mod cache;
mod error;
pub mod plan;
pub mod preset;
pub mod table;

pub use blocks::{BlockId, Blocks};
pub use cache::{KvCache, KvReport};
pub use error::KvError;
pub use plan::KvPlan;
pub use preset::Preset;
pub use table::BlockTable;
