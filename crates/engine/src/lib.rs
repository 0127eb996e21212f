//! Generation and embedding over models, inside the ledger.
//!
//! - `plan`: every byte of the process before anything is loaded.
//! - `process`: what the process itself takes: code, stacks, small heap.
//! - `vocabulary`: a model's tokenizer, chat template and end tokens.
//! - `generate`: one sequence, from prompt to text.
//! - `sample`, `stop`: which token comes next, and where the text ends.
//! - `embed`: texts to vectors in ragged batches.

#![forbid(unsafe_code)]

mod embed;
mod error;
mod generate;
mod plan;
mod process;
mod sample;
mod stop;
mod vocabulary;

pub use bursar_model::Purpose;
pub use embed::{EmbedOptions, EmbedStats, Embedder};
pub use error::EngineError;
pub use generate::{FinishReason, Generated, Generator, LoadOptions};
pub use plan::{MemoryPlan, PlanPart, PlanRequest};
pub use process::ProcessBase;
pub use sample::{Sampler, SamplingError, SamplingParams, argmax};
pub use stop::{StopMatcher, StopRules};
pub use vocabulary::Vocabulary;
