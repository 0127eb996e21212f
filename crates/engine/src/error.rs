//! What can go wrong in the engine.

use std::path::PathBuf;
use std::sync::Arc;

use bursar_files::FileError;
use bursar_kv::{KeepError, KvError};
use bursar_memory::{PoolError, Refusal};
use bursar_model::ModelError;
use bursar_tokenizer::TokenizerError;
use bursar_workers::WorkersError;

use crate::sample::SamplingError;

/// An engine error.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// The model file could not be read.
    #[error(transparent)]
    File(#[from] FileError),
    /// The model could not be planned or loaded.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A model's tokenizer could not be built.
    #[error("{}: {source}", path.display())]
    Tokenizer {
        /// The model's file or folder.
        path: PathBuf,
        /// What is wrong with its tokenizer.
        source: TokenizerError,
    },
    /// The key and value cache could not be made.
    #[error(transparent)]
    Kv(#[from] KvError),
    /// Cached prefixes could not be kept.
    #[error(transparent)]
    Keep(#[from] KeepError),
    /// The budget does not hold it.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// A pool has no memory, though the budget does not refuse any.
    #[error(transparent)]
    Pool(PoolError),
    /// Threads could not be started.
    #[error(transparent)]
    Workers(#[from] WorkersError),
    /// A pass could not be finished: weights that are read as they are needed could not be.
    #[error("the request was ended halfway: {0}")]
    Pass(Arc<ModelError>),
    /// A sampling parameter is out of its range.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// A setting is impossible for this model.
    #[error("{name} is {got}; it must be {want}")]
    Setting {
        /// The setting.
        name: &'static str,
        /// What was given.
        got: String,
        /// What is allowed.
        want: String,
    },
    /// The plan is larger than the budget.
    #[error("{model} needs {need}, the budget is {budget}")]
    DoesNotFit {
        /// The model.
        model: String,
        /// All planned bytes.
        need: bursar_memory::Bytes,
        /// The budget.
        budget: bursar_memory::Bytes,
    },
    /// A prompt longer than its context.
    #[error(
        "the prompt has {got} tokens, the context holds {context} with at least one to generate; shorten it or raise --context"
    )]
    PromptTooLong {
        /// Tokens of the prompt.
        got: usize,
        /// Longest one sequence may become.
        context: usize,
    },
    /// A prompt without tokens.
    #[error("the prompt is empty; a model needs at least one token to continue")]
    PromptEmpty,
    /// A token id that the model does not have.
    #[error(
        "token id {got} is not in the vocabulary of {vocab}; the ids come from another tokenizer"
    )]
    TokenUnknown {
        /// The id.
        got: u32,
        /// Ids below this exist.
        vocab: usize,
    },
    /// A prompt name that the model does not have.
    #[error(
        "prompt {got:?} is not among the model's ({known}); give one of them, or put the prefix into the texts"
    )]
    PromptName {
        /// The name.
        got: String,
        /// All names.
        known: String,
    },
    /// A prompt and an answer longer than can ever be held together.
    #[error(
        "the prompt has {prompt} tokens and {max_tokens} are asked for; one sequence can hold {limit}; ask for at most {}, shorten the prompt, or raise --context or --kv-memory", .limit.saturating_sub(*.prompt)
    )]
    RequestTooLong {
        /// Tokens of the prompt.
        prompt: usize,
        /// Tokens asked for.
        max_tokens: usize,
        /// Longest that one sequence may become.
        limit: usize,
    },
    /// A text to embed that is longer than the model takes.
    #[error(
        "text {index} has {got} tokens; at most {limit} can be embedded; shorten it, or have it truncated"
    )]
    TextTooLong {
        /// The text's place in the request.
        index: usize,
        /// Its tokens.
        got: usize,
        /// Most tokens of a text.
        limit: usize,
    },
    /// Something was asked of a model that does the other thing.
    #[error("{model} does not {verb}; ask a model that does")]
    Purpose {
        /// The model.
        model: String,
        /// What it was asked to do.
        verb: &'static str,
    },
    /// A model was to be changed while it works.
    #[error("{model} has {requests} requests inside; ask again when it is idle")]
    Busy {
        /// The model.
        model: String,
        /// Requests inside.
        requests: usize,
    },
    /// The engine has stopped, or its thread has died.
    #[error("the engine has stopped; the request was not finished")]
    Stopped,
    /// The engine's thread could not be started.
    #[error("the engine's thread could not be started: {0}; raise the process limit")]
    Thread(std::io::Error),
    /// The budget could not be probed.
    #[error("cannot read this process's memory from {path}: {remedy}")]
    Probe {
        /// The file.
        path: String,
        /// What to do.
        remedy: &'static str,
    },
}

impl EngineError {
    /// Whether the cause is the budget.
    pub fn does_not_fit(&self) -> bool {
        matches!(self, EngineError::DoesNotFit { .. }) || self.refusal().is_some()
    }

    /// The ledger's refusal, if that is the cause.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            EngineError::Refused(refusal)
            | EngineError::Model(ModelError::Refused(refusal))
            | EngineError::Kv(KvError::Refused(refusal)) => Some(refusal),
            _ => None,
        }
    }
}

impl From<PoolError> for EngineError {
    fn from(error: PoolError) -> EngineError {
        match error {
            PoolError::Refused(refusal) => EngineError::Refused(refusal),
            error => EngineError::Pool(error),
        }
    }
}
