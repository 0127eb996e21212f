//! Compact tokenizers and chat templates.
//!
//! A tokenizer of 151,000 tokens holds a few megabytes here, a hundred in the usual library: the
//! vocabulary is one packed buffer and the merges one table. Token ids are those of the reference
//! implementations, Hugging Face's `tokenizers` and llama.cpp.
//!
//! - [`Tokenizer`]: text to token ids and back, from `tokenizer.json` or from GGUF metadata
//! - [`Detokenizer`]: token ids to text as they come, never half a character
//! - [`chat`]: a conversation as the string that a model continues
//! - [`TokenizerError`]: why a description cannot be used

#![forbid(unsafe_code)]

mod build;
pub mod chat;
mod decode;
mod error;
mod hash;
mod models;
mod text;
mod tokenizer;
mod vocab;

pub use build::gguf::GgufVocab;
pub use decode::Detokenizer;
pub use error::TokenizerError;
pub use tokenizer::{Special, SpecialIds, Tokenizer};
