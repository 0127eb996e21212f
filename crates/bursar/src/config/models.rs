//! The settings of the cache of models.

use std::time::Duration;

use bursar_engine::{CacheOptions, Eviction};
use bursar_memory::Bytes;

use super::resolve::Settings;
use super::table;
use super::value::Value;

/// How long a model stays that nobody uses and nobody named.
const KEEP_ALIVE: Duration = Duration::from_secs(300);

impl Settings {
    /// How long a model stays that nobody uses, if somebody said; of that, `None` is until its place is
    /// needed.
    pub(crate) fn keep_alive(&self) -> Option<Option<Duration>> {
        match self.value(&table::MODELS_KEEP_ALIVE) {
            Some(Value::KeepAlive(time)) => Some(*time),
            _ => None,
        }
    }

    /// Models that stay.
    pub(crate) fn pinned(&self) -> Vec<String> {
        match self.value(&table::MODELS_PIN) {
            Some(Value::Names(names)) => names.clone(),
            _ => Vec::new(),
        }
    }

    /// How long a request waits for its model.
    pub(crate) fn models_wait(&self) -> Duration {
        match self.value(&table::MODELS_WAIT) {
            Some(Value::Time(time)) => *time,
            _ => Duration::from_secs(60),
        }
    }

    /// How models are kept, as far as settings say.
    pub(crate) fn cache_options(&self) -> CacheOptions {
        CacheOptions {
            min_residency: match self.value(&table::MODELS_MIN_RESIDENCY) {
                Some(Value::Time(time)) => *time,
                _ => Duration::from_secs(5),
            },
            eviction: match self.value(&table::MODELS_EVICTION) {
                Some(Value::Eviction(eviction)) => *eviction,
                _ => Eviction::Cheapest,
            },
            keep_alive: self.keep_alive().unwrap_or(Some(KEEP_ALIVE)),
            pinned: self.pinned(),
            kept: Vec::new(),
            queue: self.limits_queue(),
            room: Bytes::ZERO,
        }
    }
}
