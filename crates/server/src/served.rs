//! A model as the server sees it: the way into its engine, and what its file says of sampling.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use bursar_engine::{EngineController, EngineHandle, Purpose, TextEncoder, Vocabulary};
use bursar_files::GenerationDefaults;

use crate::error::ApiError;
use crate::timings::Timings;

/// A model that can be asked for by the name of its engine.
#[derive(Clone)]
pub struct Served {
    pub(crate) engine: EngineHandle,
    pub(crate) controller: EngineController,
    pub(crate) defaults: GenerationDefaults,
    pub(crate) timings: Arc<Timings>,
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
            timings: Arc::new(Timings::new()),
        }
    }

    /// The way to it.
    pub fn engine(&self) -> &EngineHandle {
        &self.engine
    }

    pub(crate) fn id(&self) -> &str {
        self.engine.name()
    }

    pub(crate) fn vocabulary(&self) -> &Arc<Vocabulary> {
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
    pub(crate) fn embeds(&self) -> Result<&Arc<TextEncoder>, ApiError> {
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
