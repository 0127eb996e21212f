//! Builders: a tokenizer from each file format that describes one.

pub(crate) mod alphabet;
pub(crate) mod gguf;
pub(crate) mod json;
mod json_model;
mod json_parts;
