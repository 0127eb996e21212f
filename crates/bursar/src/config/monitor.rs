//! The settings of the monitor: how often it looks, and from which shares on memory is short.

use std::time::Duration;

use bursar_engine::MonitorOptions;
use bursar_memory::pressure::{Level, Thresholds, ThresholdsError};

use super::resolve::Settings;
use super::table;
use super::value::Value;

/// Looks that come faster than this would be work of their own.
const INTERVAL_LEAST: Duration = Duration::from_millis(10);

impl Settings {
    /// How the monitor looks.
    ///
    /// # Errors
    /// Where the levels do not ascend.
    pub(crate) fn monitor_options(&self) -> Result<MonitorOptions, ThresholdsError> {
        let usual = MonitorOptions::default();
        let share = |setting, level| match self.value(setting) {
            Some(Value::Share(share)) => *share,
            _ => usual.thresholds.of(level),
        };
        let thresholds = Thresholds::new(
            share(&table::MONITOR_ELEVATED, Level::Elevated),
            share(&table::MONITOR_HIGH, Level::High),
            share(&table::MONITOR_CRITICAL, Level::Critical),
        )?;
        let interval = match self.value(&table::MONITOR_INTERVAL) {
            Some(Value::Time(time)) => (*time).max(INTERVAL_LEAST),
            _ => usual.interval,
        };
        Ok(MonitorOptions {
            interval,
            thresholds,
            ..usual
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_set_is_as_usual() {
        let usual = Settings::given(&[]).monitor_options().expect("they ascend");
        assert_eq!(usual.thresholds, Thresholds::default());
        assert_eq!(usual.interval, Duration::from_secs(1));
        let set = Settings::given(&[
            (&table::MONITOR_ELEVATED, "50%"),
            (&table::MONITOR_INTERVAL, "250ms"),
        ]);
        let options = set.monitor_options().expect("they ascend");
        assert_eq!(options.thresholds.of(Level::Elevated), 0.5);
        assert_eq!(options.thresholds.of(Level::High), 0.85);
        assert_eq!(options.interval, Duration::from_millis(250));
        let crossed = Settings::given(&[(&table::MONITOR_HIGH, "60%")]);
        assert!(crossed.monitor_options().is_err());
    }
}
