//! A model directory as Hugging Face repositories are laid out: safetensors weights, whole or
//! sharded, beside JSON files for configuration, tokenizer and sentence-transformers.

pub(crate) mod config;
pub(crate) mod directory;
pub(crate) mod sentence;
pub(crate) mod settings;
