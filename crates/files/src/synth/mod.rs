//! Synthetic models: the architectures and sizes of real ones with seeded random weights, to see
//! what a model would cost and how fast it would run before downloading it.
//!
//! A [`Preset`] is planned from its header alone ([`Preset::model_file`], nothing is written) or
//! written to a GGUF file ([`write()`]). Both go through the same writer and the same reader, so
//! that what is planned is what a file would be.
//!
//! The words such a model makes are noise. Its sizes, types, tensor names and tokenizer are those
//! of the real model; its merges are made up, but tokens are about as long as real ones.
//!
//! | module | what lives there |
//! |---|---|
//! | `preset` | the real models' shapes |
//! | `mix` | which tensor gets which type |
//! | `header` | a preset as GGUF settings and tensors |
//! | `vocabulary` | made-up byte-level BPE and WordPiece vocabularies |
//! | `random`, `weights` | seeded numbers and blocks |
//! | `file` | writing |

mod file;
mod header;
mod mix;
mod preset;
mod random;
mod vocabulary;
mod weights;

pub use file::{Progress, write};
pub use mix::Mix;
pub use preset::Preset;
