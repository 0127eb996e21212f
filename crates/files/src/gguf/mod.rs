//! GGUF, the single-file format of llama.cpp: a little-endian header of typed settings and tensor
//! descriptions, then aligned tensor data.
//!
//! Written from the format's specification (`docs/gguf.md` in ggml-org/ggml). The reader never
//! trusts a number: each count, length, offset and product is compared with the file's size
//! before anything is allocated or skipped by it.

pub(crate) mod config;
mod cursor;
mod header;
pub(crate) mod read;
pub(crate) mod tokens;
pub(crate) mod value;
pub mod write;

pub use header::Header;
pub use value::{ArrayRef, Value, ValueType};
pub use write::{TensorSpec, Writer};

/// Alignment of tensor data where a file does not say otherwise, in bytes.
pub(crate) const ALIGNMENT_DEFAULT: u64 = 32;

/// The setting that says otherwise.
pub(crate) const ALIGNMENT_KEY: &str = "general.alignment";

/// The four bytes every file starts with.
pub(crate) const MAGIC: [u8; 4] = *b"GGUF";
