//! What engines are asked, and why they refuse.

use std::sync::Arc;

use bursar_memory::{Account, Bytes, PoolError};

use crate::EngineError;
use crate::params::GenerateParams;
use crate::stop::StopRules;

/// What a client asks to be continued.
#[derive(Clone, Debug, Default)]
pub struct GenerateRequest {
    /// Token ids; at least one.
    pub prompt: Vec<u32>,
    /// How tokens are chosen.
    pub params: Arc<GenerateParams>,
    /// What random numbers are made from: the same seed gives the same answer.
    pub seed: u64,
    /// Where the answer ends.
    pub stop: StopRules,
    /// Most tokens to generate, if fewer than `stop` allows. More than fits is refused; `None` leaves
    /// what fits as the bound. With 0 only the prompt is computed.
    pub max_tokens: Option<usize>,
    /// Give the log-probability of each token generated, and of so many alternatives to it.
    pub logprobs: Option<u8>,
    /// Give the log-probabilities of the prompt's tokens too, with as many alternatives.
    pub echo_logprobs: bool,
    /// Higher goes first, and may take the place of lower; 0 for everyone, usually.
    pub priority: i32,
    /// Whose prompt it is: keys and values are shared among requests with the same salt only. Derived
    /// from a secret by the server, never chosen by a client; the engine's own if `None`.
    pub salt: Option<[u8; 32]>,
    /// What the client has not read yet is charged to it, or to the engine's pools where it has any; to
    /// nobody if `None`. The prompt is whoever's who made it, four bytes a token.
    pub account: Option<Account>,
}

/// Texts to embed, as tokens: see [`crate::TextEncoder`].
#[derive(Clone, Debug, Default)]
pub struct EmbedRequest {
    /// The tokens of each text, special ones included.
    pub tokens: Vec<Vec<u32>>,
    /// Leading values to keep of each vector; all if `None`.
    pub dimensions: Option<usize>,
    /// Scale vectors to length 1 though the model would not.
    pub normalize: bool,
}

/// Why a request was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Rejected {
    /// It could never be served as it is.
    #[error(transparent)]
    Never(#[from] EngineError),
    /// As many wait as may.
    #[error(
        "{waiting} requests wait already, as many as may; try again in {} s", .retry_after_ms.div_ceil(1000)
    )]
    QueueFull {
        /// Requests that wait.
        waiting: usize,
        /// How long the next place is likely to take.
        retry_after_ms: u64,
        /// Bytes of keys and values that the request would hold at first.
        asked: Bytes,
        /// Bytes of keys and values that nobody holds.
        free: Bytes,
    },
    /// There is no memory for what comes of it.
    #[error(transparent)]
    NoMemory(#[from] PoolError),
    /// The engine takes no more requests: the server is going down.
    #[error("the server is shutting down and takes no more requests")]
    Draining,
}
