//! A model as the server sees it: the way into its engine, and what its file says of sampling.

use std::time::{SystemTime, UNIX_EPOCH};

use bursar_engine::{EngineController, EngineHandle, Purpose, TextEncoder, Vocabulary};
use bursar_files::GenerationDefaults;

use crate::error::ApiError;

/// A model that can be asked for by the name of its engine.
#[derive(Clone)]
pub struct Served {
    pub(crate) engine: EngineHandle,
    pub(crate) controller: EngineController,
    pub(crate) defaults: GenerationDefaults,
}

impl Served {
    /// A model on the engine that `controller` is of, sampled by `defaults` where a request says nothing.
    pub fn new(
        engine: EngineHandle,
        controller: EngineController,
        defaults: GenerationDefaults,
    ) -> Served {
        Served {
            engine,
            controller,
            defaults,
        }
    }

    /// The way to it.
    pub fn engine(&self) -> &EngineHandle {
        &self.engine
    }

    pub(crate) fn id(&self) -> &str {
        self.engine.name()
    }

    pub(crate) fn vocabulary(&self) -> &std::sync::Arc<Vocabulary> {
        self.engine.vocabulary()
    }

    /// Nothing, if it writes text.
    pub(crate) fn generates(&self) -> Result<(), ApiError> {
        match self.engine.purpose() {
            Purpose::Generate => Ok(()),
            Purpose::Embed => Err(ApiError::invalid(
                "model",
                format!("{} only makes vectors; ask /v1/embeddings", self.id()),
            )),
        }
    }

    /// How its texts become tokens, if it makes vectors.
    pub(crate) fn embeds(&self) -> Result<&std::sync::Arc<TextEncoder>, ApiError> {
        self.engine.encoder().ok_or_else(|| {
            ApiError::invalid(
                "model",
                format!(
                    "{} is loaded to write text, not to make vectors; name a model that embeds",
                    self.id()
                ),
            )
        })
    }
}

/// Seconds since 1970.
pub(crate) fn now() -> u64 {
    unix_ms() / 1000
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
