//! The settings of pools: what they come to, and what they must not be together.

use std::time::Duration;

use bursar_engine::ParamsPoolOptions;

use super::resolve::Settings;
use super::table::{self, Setting};
use super::value::Value;

impl Settings {
    fn time(&self, setting: &'static Setting) -> Option<Duration> {
        match self.value(setting)? {
            Value::Time(time) => Some(*time),
            _ => None,
        }
    }

    /// How sampling parameters are shared.
    pub(crate) fn params_pool(&self) -> ParamsPoolOptions {
        let usual = ParamsPoolOptions::default();
        let (age, interval) = (
            &table::PARAMS_POOL_MAX_AGE,
            &table::PARAMS_POOL_CLEANUP_INTERVAL,
        );
        ParamsPoolOptions {
            capacity: self
                .count(&table::PARAMS_POOL_CAPACITY)
                .unwrap_or(usual.capacity),
            max_age: self.time(age).unwrap_or(usual.max_age),
            cleanup_interval: self.time(interval).unwrap_or(usual.cleanup_interval),
        }
    }
}
