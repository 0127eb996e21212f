//! Changes as lines of a configuration file, in either of its two languages.

use std::collections::BTreeMap;
use std::fmt::Write;

use bursar_memory::Bytes;
use bursar_memory::advisor::Change;
use serde_json::Value;

use crate::config::table::{self, Setting};

/// Settings with their values, in the order in which they are told.
#[derive(Debug, Default)]
pub(super) struct Lines(Vec<(&'static Setting, String)>);

impl Lines {
    /// Of the changes that an advisor has.
    pub(super) fn of(changes: &[Change]) -> Lines {
        let mut lines = Lines::default();
        for change in changes {
            match change {
                Change::Heaps(count) => lines.set(&table::POOL_HEAPS, count.to_string()),
                Change::HeapsMax(count) => lines.set(&table::POOL_MAX_HEAPS, count.to_string()),
                Change::HeapSize(bytes) => lines.set(&table::POOL_HEAP_SIZE, size(*bytes)),
                Change::WarmUpSizes(sizes) => {
                    let sizes: Vec<String> = sizes.iter().map(|bytes| size(*bytes)).collect();
                    lines.set(&table::POOL_WARMUP_SIZES, sizes.join(","));
                }
                Change::CleanUpInterval(time) => {
                    lines.set(
                        &table::POOL_CLEANUP_INTERVAL,
                        format!("{}s", time.as_secs()),
                    );
                }
                Change::Compaction { threshold } => {
                    lines.set(&table::POOL_COMPACTION_ENABLED, "true".to_owned());
                    let percent = format!("{:.0}%", 100.0 * threshold);
                    lines.set(&table::POOL_COMPACTION_THRESHOLD, percent);
                }
            }
        }
        lines
    }

    /// Adds one.
    pub(super) fn set(&mut self, setting: &'static Setting, value: String) {
        self.0.push((setting, value));
    }

    /// Whether there is nothing to paste.
    pub(super) fn are_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Keys with values.
    pub(super) fn as_json(&self) -> Value {
        let pairs = self.0.iter();
        pairs
            .map(|(setting, value)| (setting.key.to_owned(), Value::from(value.as_str())))
            .collect::<serde_json::Map<_, _>>()
            .into()
    }

    /// By the group that keys are in: all but their last name.
    fn groups(&self) -> BTreeMap<&'static str, Vec<(&'static str, &str)>> {
        let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for (setting, value) in &self.0 {
            let (group, name) = setting.key.rsplit_once('.').unwrap_or(("", setting.key));
            groups
                .entry(group)
                .or_default()
                .push((name, value.as_str()));
        }
        groups
    }

    /// As TOML: tables, to be put at the end of a file.
    pub(super) fn toml(&self) -> String {
        let mut text = String::new();
        for (group, values) in self.groups() {
            // Writing to a String cannot fail.
            let _ = writeln!(text, "[{group}]");
            for (name, value) in values {
                let _ = match bare(value) {
                    true => writeln!(text, "{name} = {value}"),
                    false => writeln!(text, "{name} = \"{value}\""),
                };
            }
        }
        text
    }

    /// As YAML: mappings, one key of a group for each line.
    pub(super) fn yaml(&self) -> String {
        let mut text = String::new();
        for (group, values) in self.groups() {
            let _ = writeln!(text, "{group}:");
            for (name, value) in values {
                let _ = match bare(value) {
                    true => writeln!(text, "  {name}: {value}"),
                    false => writeln!(text, "  {name}: \"{value}\""),
                };
            }
        }
        text
    }
}

/// Whether a value stands without quotes in both languages: a number, or a truth.
fn bare(value: &str) -> bool {
    value.parse::<u64>().is_ok() || matches!(value, "true" | "false")
}

/// A size to the byte, in the largest unit that divides it.
fn size(bytes: Bytes) -> String {
    let units = [("GiB", 30), ("MiB", 20), ("KiB", 10)];
    let whole = units
        .into_iter()
        .find(|(_, shift)| bytes.0 > 0 && bytes.0.trailing_zeros() >= *shift);
    match whole {
        Some((unit, shift)) => format!("{}{unit}", bytes.0 >> shift),
        None => bytes.0.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::{Settings, Surroundings};

    fn all() -> Lines {
        let mut lines = Lines::of(&[
            Change::HeapSize(Bytes::mib(4)),
            Change::Heaps(3),
            Change::HeapsMax(6),
            Change::WarmUpSizes(vec![Bytes::kib(64), Bytes::mib(1), Bytes(123_456)]),
            Change::CleanUpInterval(Duration::from_secs(900)),
            Change::Compaction { threshold: 0.2 },
        ]);
        lines.set(&table::PARAMS_POOL_CAPACITY, "4096".to_owned());
        lines
    }

    /// P4: what is printed is a file that is accepted, in either language, and says what was meant.
    #[test]
    fn what_is_to_be_pasted_can_be_pasted() {
        let lines = all();
        for (name, text) in [("bursar.toml", lines.toml()), ("bursar.yaml", lines.yaml())] {
            let folder = tempfile::tempdir().expect("a temporary folder");
            std::fs::write(folder.path().join(name), &text).expect("a file is written");
            let surroundings = Surroundings {
                folder: folder.path().to_owned(),
                ..Surroundings::default()
            };
            let settings = Settings::resolve(&[], None, &surroundings)
                .unwrap_or_else(|error| panic!("{error}:\n{text}"));
            let pools = settings
                .pools_options(Bytes::gib(1))
                .unwrap_or_else(|error| panic!("{error}:\n{text}"));
            assert_eq!(pools.heap_size, Bytes::mib(4));
            assert_eq!((pools.heaps, pools.max_heaps), (3, 6));
            let sizes = [Bytes::kib(64), Bytes::mib(1), Bytes(123_456)];
            assert_eq!(pools.warmup_sizes, sizes);
            assert_eq!(pools.cleanup_interval, Duration::from_secs(900));
            assert!(pools.compaction.enabled && pools.compaction.threshold == 0.2);
            assert_eq!(settings.params_pool().capacity, 4096);
        }
    }

    #[test]
    fn sizes_are_exact() {
        let check = |bytes, expected: &str| assert_eq!(size(Bytes(bytes)), expected);
        check(0, "0");
        check(1000, "1000");
        check(1 << 16, "64KiB");
        check(3 << 20, "3MiB");
        check(1 << 31, "2GiB");
    }
}
