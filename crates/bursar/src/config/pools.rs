//! The settings of pools: what they come to, and what they must not be together.

use std::path::Path;
use std::time::Duration;

use bursar_engine::ParamsPoolOptions;
use bursar_memory::heap_pool::CompactionOptions;
use bursar_memory::pools::{MembranesOptions, PoolsOptions};
use bursar_memory::{Bytes, PoolError};

use super::resolve::{Origin, Settings};
use super::table::{self, Setting};
use super::value::Value;

/// Bytes of a heap where nobody says and the budget is large enough. It is to hold, of what requests and
/// models usually want at once:
///
/// ```text
///   512 KiB   bodies being read and answers being built: 8 of 64 KiB
///   608 KiB   a row of logits of a vocabulary of 152,000
///   384 KiB   vectors of 64 texts of 1,536 dimensions
///  1792 KiB   a block of keys and values on its way to disk or back (qwen3-0.6b)
///   512 KiB   a piece of a file on its way into a packed matrix
/// ```
///
/// together 3.7 MiB. More than that makes the heaps grow.
const HEAP_BYTES: Bytes = Bytes::mib(4);
/// The part of the budget that a heap is at most where nobody says.
const BUDGET_PER_HEAP: u64 = 100;
/// Smaller heaps would hold nothing.
const HEAP_BYTES_LEAST: Bytes = Bytes::kib(64);

/// Bytes of a heap within a budget.
fn heap_bytes(budget: Bytes) -> Bytes {
    let most = (budget.0 / BUDGET_PER_HEAP).clamp(HEAP_BYTES_LEAST.0, HEAP_BYTES.0);
    // The largest power of two that is no more.
    Bytes(1 << most.ilog2())
}

impl Settings {
    fn time(&self, setting: &'static Setting) -> Option<Duration> {
        match self.value(setting)? {
            Value::Time(time) => Some(*time),
            _ => None,
        }
    }

    fn share(&self, setting: &'static Setting) -> Option<f64> {
        match self.value(setting)? {
            Value::Share(share) => Some(*share),
            _ => None,
        }
    }

    /// How pools are made, where shares of memory are of `budget`.
    ///
    /// # Errors
    /// Where settings do not go together.
    pub(crate) fn pools_options(&self, budget: Bytes) -> Result<PoolsOptions, PoolError> {
        let usual = PoolsOptions::default();
        let options = PoolsOptions {
            enabled: self.switch(&table::POOL_ENABLED),
            heaps: self.count(&table::POOL_HEAPS).unwrap_or(usual.heaps),
            heap_size: self
                .size(&table::POOL_HEAP_SIZE, budget)
                .unwrap_or_else(|| heap_bytes(budget)),
            max_heaps: self
                .count(&table::POOL_MAX_HEAPS)
                .unwrap_or(usual.max_heaps),
            growth_trigger: self
                .share(&table::POOL_GROWTH_TRIGGER)
                .unwrap_or(usual.growth_trigger),
            strategy: match self.value(&table::POOL_STRATEGY) {
                Some(Value::Strategy(strategy)) => *strategy,
                _ => usual.strategy,
            },
            warmup_sizes: match self.value(&table::POOL_WARMUP_SIZES) {
                Some(Value::Sizes(sizes)) => {
                    sizes.iter().map(|size| size.resolve(budget)).collect()
                }
                _ => usual.warmup_sizes,
            },
            track_statistics: self.switch(&table::POOL_TRACK_STATISTICS),
            log_exhaustion: self.switch(&table::POOL_LOG_EXHAUSTION),
            cleanup_utilisation: self
                .share(&table::POOL_CLEANUP_UTILISATION)
                .unwrap_or(usual.cleanup_utilisation),
            cleanup_interval: self
                .time(&table::POOL_CLEANUP_INTERVAL)
                .unwrap_or(usual.cleanup_interval),
            compaction: CompactionOptions {
                enabled: self.switch(&table::POOL_COMPACTION_ENABLED),
                threshold: self
                    .share(&table::POOL_COMPACTION_THRESHOLD)
                    .unwrap_or(usual.compaction.threshold),
                interval: self
                    .time(&table::POOL_COMPACTION_INTERVAL)
                    .unwrap_or(usual.compaction.interval),
            },
            membranes: MembranesOptions {
                enabled: self.switch(&table::MEMBRANES_ENABLED),
                depth: self
                    .count(&table::MEMBRANES_DEPTH)
                    .unwrap_or(usual.membranes.depth),
                limit: self.size(&table::MEMBRANES_LIMIT, budget),
            },
        };
        options.check()?;
        Ok(options)
    }

    /// The file for a trace of what pools hand out.
    pub(crate) fn pool_record(&self) -> Option<&Path> {
        self.path(&table::POOL_RECORD)
    }

    /// Whether nobody said how many heaps of which size pools should have.
    pub(crate) fn pools_are_as_usual(&self) -> bool {
        let said = [&table::POOL_HEAPS, &table::POOL_HEAP_SIZE];
        let mut origins = self.effective().iter();
        origins.all(|effective| {
            effective.origin == Origin::Default
                || !said
                    .iter()
                    .any(|setting| std::ptr::eq(*setting, effective.setting))
        })
    }

    /// How sampling parameters are shared.
    pub(crate) fn params_pool(&self) -> ParamsPoolOptions {
        let usual = ParamsPoolOptions::default();
        let interval = &table::PARAMS_POOL_CLEANUP_INTERVAL;
        ParamsPoolOptions {
            capacity: self
                .count(&table::PARAMS_POOL_CAPACITY)
                .unwrap_or(usual.capacity),
            max_age: self
                .time(&table::PARAMS_POOL_MAX_AGE)
                .unwrap_or(usual.max_age),
            cleanup_interval: self.time(interval).unwrap_or(usual.cleanup_interval),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bursar_memory::heap_pool::Strategy;

    /// P3: what the table says holds by default is what pools take by default.
    #[test]
    fn what_is_not_set_is_as_usual() {
        let options = Settings::given(&[])
            .pools_options(Bytes::gib(1))
            .expect("usual");
        assert_eq!(options, PoolsOptions::default());
        assert_eq!(
            Settings::given(&[]).params_pool(),
            ParamsPoolOptions::default()
        );
    }

    /// P3
    #[test]
    fn what_is_set_holds() {
        let set = Settings::given(&[
            (&table::POOL_ENABLED, "off"),
            (&table::POOL_HEAPS, "3"),
            (&table::POOL_HEAP_SIZE, "1%"),
            (&table::POOL_MAX_HEAPS, "5"),
            (&table::POOL_GROWTH_TRIGGER, "0.8"),
            (&table::POOL_STRATEGY, "least-used"),
            (&table::POOL_WARMUP_SIZES, "4KiB,16KiB"),
            (&table::POOL_TRACK_STATISTICS, "no"),
            (&table::POOL_LOG_EXHAUSTION, "no"),
            (&table::POOL_CLEANUP_UTILISATION, "70%"),
            (&table::POOL_CLEANUP_INTERVAL, "5s"),
            (&table::POOL_COMPACTION_ENABLED, "no"),
            (&table::POOL_COMPACTION_THRESHOLD, "10%"),
            (&table::POOL_COMPACTION_INTERVAL, "7s"),
            (&table::MEMBRANES_ENABLED, "no"),
            (&table::MEMBRANES_DEPTH, "4"),
            (&table::MEMBRANES_LIMIT, "1MiB"),
            (&table::PARAMS_POOL_CAPACITY, "9"),
            (&table::PARAMS_POOL_MAX_AGE, "1m"),
            (&table::PARAMS_POOL_CLEANUP_INTERVAL, "1s"),
        ]);
        let expected = PoolsOptions {
            enabled: false,
            heaps: 3,
            heap_size: Bytes::mib(1),
            max_heaps: 5,
            growth_trigger: 0.8,
            strategy: Strategy::LeastUsed,
            warmup_sizes: vec![Bytes::kib(4), Bytes::kib(16)],
            track_statistics: false,
            log_exhaustion: false,
            cleanup_utilisation: 0.7,
            cleanup_interval: Duration::from_secs(5),
            compaction: CompactionOptions {
                enabled: false,
                threshold: 0.1,
                interval: Duration::from_secs(7),
            },
            membranes: MembranesOptions {
                enabled: false,
                depth: 4,
                limit: Some(Bytes::mib(1)),
            },
        };
        let options = set.pools_options(Bytes::mib(100));
        assert_eq!(options.expect("they go together"), expected);
        let params = ParamsPoolOptions {
            capacity: 9,
            max_age: Duration::from_secs(60),
            cleanup_interval: Duration::from_secs(1),
        };
        assert_eq!(set.params_pool(), params);
    }

    #[test]
    fn small_budgets_have_small_heaps() {
        let check = |budget, heap| assert_eq!(heap_bytes(budget), heap, "{budget}");
        check(Bytes::gib(64), Bytes::mib(4));
        check(Bytes::mib(512), Bytes::mib(4));
        check(Bytes::mib(64), Bytes::kib(512));
        check(Bytes::mib(1), Bytes::kib(64));
    }

    #[test]
    fn settings_that_do_not_go_together_name_the_remedy() {
        let refused = |given: &[(&'static Setting, &str)], says: &[&str]| {
            let error = Settings::given(given).pools_options(Bytes::gib(1));
            let words = error.expect_err("refused").to_string();
            for part in says {
                assert!(words.contains(part), "{words} does not say {part}");
            }
        };
        refused(
            &[
                (&table::POOL_HEAP_SIZE, "1MiB"),
                (&table::POOL_WARMUP_SIZES, "64KiB,2MiB"),
            ],
            &["2.0 MiB", "pool.warmup_sizes", "make heaps longer"],
        );
        refused(
            &[(&table::POOL_HEAPS, "4"), (&table::POOL_MAX_HEAPS, "2")],
            &["pool.max_heaps is 2", "pool.heaps (4)"],
        );
    }
}
