//! A sheet as it lies in a file: figures with medians, and how and where they were measured. Whatever
//! has that form is one, whoever wrote it.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::failure::Failure;

/// Larger files are no sheets.
const BYTES_MAX: u64 = 16 << 20;

/// What a bench has measured.
#[derive(Debug)]
pub(super) struct Sheet {
    pub(super) path: PathBuf,
    pub(super) bench: String,
    version: Option<String>,
    machine: Map<String, Value>,
    setting: Map<String, Value>,
    /// In the order of the file, which is that of names.
    pub(super) figures: Vec<(String, Figure)>,
}

/// One figure of it.
#[derive(Clone, Debug)]
pub(super) struct Figure {
    pub(super) unit: String,
    pub(super) median: f64,
    pub(super) least: f64,
    pub(super) most: f64,
    pub(super) goal: Option<String>,
    pub(super) met: Option<bool>,
}

/// What is to be wished of a figure.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    Less,
    More,
}

/// Something that two sheets have differently.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Difference {
    pub(super) what: String,
    pub(super) a: String,
    pub(super) b: String,
}

impl Figure {
    /// Whether a value lies among the measurements.
    pub(super) fn holds(&self, value: f64) -> bool {
        (self.least..=self.most).contains(&value)
    }

    /// What is to be wished of it: its goal says so, else its unit, else its name.
    pub(super) fn wish(&self, name: &str) -> Option<Wish> {
        let goal = self
            .goal
            .as_deref()
            .map(str::trim_start)
            .unwrap_or_default();
        if ["<", "at most", "≤"]
            .iter()
            .any(|sign| goal.starts_with(sign))
        {
            return Some(Wish::Less);
        }
        if [">", "at least", "≥"]
            .iter()
            .any(|sign| goal.starts_with(sign))
        {
            return Some(Wish::More);
        }
        let unit = self.unit.as_str();
        // Bytes that went back are no cost.
        if name.contains("returned")
            || unit.ends_with("/s")
            || name.ends_with("_per_s")
            || name.ends_with("_per_second")
        {
            return Some(Wish::More);
        }
        let costs = [
            "ns",
            "us",
            "µs",
            "ms",
            "s",
            "bytes",
            "B",
            "KiB",
            "MiB",
            "GiB",
            "allocations",
        ];
        let per = |unit: &str| {
            costs
                .iter()
                .any(|cost| unit.starts_with(&format!("{cost}/")))
        };
        (costs.contains(&unit) || per(unit)).then_some(Wish::Less)
    }
}

impl Sheet {
    /// Reads one.
    ///
    /// # Errors
    /// Where the file cannot be read, or is no sheet: says what is missing.
    pub(super) fn read(path: &Path) -> Result<Sheet, Failure> {
        let unreadable = |error| Failure::io("read", path, &error);
        let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
        if bytes > BYTES_MAX {
            return Err(none(
                path,
                &format!("it has {bytes} bytes, and sheets are short"),
            ));
        }
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        Sheet::parse(path, &text)
    }

    fn parse(path: &Path, text: &str) -> Result<Sheet, Failure> {
        let value: Value = serde_json::from_str(text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            none(
                path,
                &format!("it is not JSON (line {line}, column {column}: {error})"),
            )
        })?;
        let Some(listed) = value["figures"].as_object() else {
            return Err(none(path, "it has no \"figures\""));
        };
        let mut figures = Vec::with_capacity(listed.len());
        for (name, figure) in listed {
            let Some(median) = figure["median"].as_f64() else {
                // A figure that could not be measured is written as null.
                if figure.get("median").is_some_and(Value::is_null) {
                    continue;
                }
                return Err(none(path, &format!("its figure {name} has no \"median\"")));
            };
            let edge = |edge: &str| figure[edge].as_f64().unwrap_or(median);
            figures.push((
                name.clone(),
                Figure {
                    unit: word(&figure["unit"]).unwrap_or_default(),
                    median,
                    least: edge("least"),
                    most: edge("most"),
                    goal: word(&figure["goal"]),
                    met: figure["met"].as_bool(),
                },
            ));
        }
        let map = |name: &str| value[name].as_object().cloned().unwrap_or_default();
        Ok(Sheet {
            path: path.to_owned(),
            bench: word(&value["bench"]).unwrap_or_else(|| "an unnamed bench".to_owned()),
            version: word(&value["version"]),
            machine: map("machine"),
            setting: map("setting"),
            figures,
        })
    }

    /// The figure of that name.
    pub(super) fn figure(&self, name: &str) -> Option<&Figure> {
        let found = self.figures.iter().find(|(other, _)| other == name);
        found.map(|(_, figure)| figure)
    }

    /// What it is of: `bench kv, 0.1.0, on Some CPU`.
    pub(super) fn about(&self) -> String {
        let mut words = format!("bench {}", self.bench);
        if let Some(version) = &self.version {
            words.push_str(&format!(", {version}"));
        }
        if let Some(cpu) = self.machine.get("cpu").and_then(word) {
            words.push_str(&format!(", on {cpu}"));
        }
        words
    }
}

fn word(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn none(path: &Path, why: &str) -> Failure {
    Failure::failed(format!("{} is no sheet of a bench: {why}", path.display()))
        .help("write sheets with `bursar bench ... --json FILE`")
}

/// What the two were not measured alike in: bench, version, machine, setting.
pub(super) fn differences(a: &Sheet, b: &Sheet) -> Vec<Difference> {
    let mut differences = Vec::new();
    let mut differ = |what: String, a: Option<String>, b: Option<String>| {
        if a != b {
            let absent = || "nothing".to_owned();
            differences.push(Difference {
                what,
                a: a.unwrap_or_else(absent),
                b: b.unwrap_or_else(absent),
            });
        }
    };
    differ(
        "bench".to_owned(),
        Some(a.bench.clone()),
        Some(b.bench.clone()),
    );
    differ("version".to_owned(), a.version.clone(), b.version.clone());
    for (group, a, b) in [
        ("machine", &a.machine, &b.machine),
        ("setting", &a.setting, &b.setting),
    ] {
        let names: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
        for name in names {
            let shown = |map: &Map<String, Value>| {
                map.get(name)
                    .map(|value| word(value).unwrap_or_else(|| value.to_string()))
            };
            differ(format!("{group}.{name}"), shown(a), shown(b));
        }
    }
    differences
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sheet(value: &Value) -> Result<Sheet, Failure> {
        Sheet::parse(Path::new("s.json"), &value.to_string())
    }

    #[test]
    fn what_is_no_sheet_says_why() {
        let refused = |text: &str, why: &str| {
            let failure = Sheet::parse(Path::new("s.json"), text).expect_err(text);
            assert!(failure.message().contains(why), "{}", failure.message());
        };
        refused("{", "line 1, column 1");
        refused("[]", "no \"figures\"");
        refused("{\"figures\": 3}", "no \"figures\"");
        refused(
            "{\"figures\": {\"a\": {\"mean\": 3}}}",
            "a has no \"median\"",
        );
    }

    #[test]
    fn differences_are_named() {
        let made = |isa: &str, blocks: u64| {
            sheet(&json!({
                "bench": "kv",
                "machine": { "isa": isa, "cores": 2 },
                "setting": { "blocks": blocks },
                "figures": { "a": { "median": 1.0 }, "b": { "median": null } },
            }))
            .expect("a sheet")
        };
        let (a, b) = (made("avx2", 4), made("avx512", 8));
        assert_eq!(a.figures.len(), 1, "what was not measured is left out");
        let names: Vec<_> = differences(&a, &b).into_iter().map(|d| d.what).collect();
        assert_eq!(names, ["machine.isa", "setting.blocks"]);
        assert_eq!(differences(&a, &a), []);
    }
}
