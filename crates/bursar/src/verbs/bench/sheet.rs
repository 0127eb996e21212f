//! What a bench has measured, as a table for people and as JSON for programs: one form for all
//! benches, so that sheets can be laid side by side.

use std::io::Write;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use bursar_kernels::isa::Isa;
use serde_json::{Map, Value, json};

use super::clock::Spread;
use crate::failure::Failure;
use crate::output::{Align, Out, Table, measured};

/// What a bench has measured.
#[derive(Debug)]
pub(crate) struct Sheet {
    bench: &'static str,
    /// What was measured, in figures that were chosen and not measured.
    setting: Map<String, Value>,
    figures: Vec<Figure>,
    /// What else is to be known of the figures, in words.
    remarks: Vec<String>,
}

#[derive(Debug)]
struct Figure {
    name: String,
    unit: &'static str,
    /// What it is, in words.
    words: &'static str,
    spread: Spread,
    /// What it should be, and whether it is.
    goal: Option<(String, bool)>,
}

impl Sheet {
    /// An empty one.
    pub(crate) fn new(bench: &'static str) -> Sheet {
        Sheet {
            bench,
            setting: Map::new(),
            figures: Vec::new(),
            remarks: Vec::new(),
        }
    }

    /// Notes how it was measured.
    pub(crate) fn set(&mut self, name: &str, value: impl Into<Value>) {
        self.setting.insert(name.to_owned(), value.into());
    }

    /// Adds a figure that was measured several times.
    pub(crate) fn spread(
        &mut self,
        name: &str,
        unit: &'static str,
        words: &'static str,
        spread: Spread,
    ) {
        self.figures.push(Figure {
            name: name.to_owned(),
            unit,
            words,
            spread,
            goal: None,
        });
    }

    /// Adds a figure that was counted once.
    pub(crate) fn count(
        &mut self,
        name: &str,
        unit: &'static str,
        words: &'static str,
        value: f64,
    ) {
        self.spread(name, unit, words, Spread::of(vec![value]));
    }

    /// Says something about the figures.
    pub(crate) fn remark(&mut self, words: impl Into<String>) {
        self.remarks.push(words.into());
    }

    /// Says what the last figure should be.
    pub(crate) fn goal(&mut self, goal: &str, met: impl FnOnce(f64) -> bool) {
        if let Some(figure) = self.figures.last_mut() {
            figure.goal = Some((goal.to_owned(), met(figure.spread.median)));
        }
    }

    /// Prints it, and writes it as JSON where a file is given.
    pub(crate) fn finish(&self, file: Option<&Path>) -> Result<(), Failure> {
        let mut out = Out::new();
        match file {
            Some(path) if path == Path::new("-") => out.json(&self.as_json())?,
            Some(path) => {
                self.write(path)?;
                self.print(&mut out)?;
            }
            None => self.print(&mut out)?,
        }
        out.flush()
    }

    /// Writes it as JSON.
    pub(crate) fn write(&self, path: &Path) -> Result<(), Failure> {
        let mut text = serde_json::to_string_pretty(&self.as_json())
            .map_err(|error| Failure::failed(format!("cannot write JSON: {error}")))?;
        text.push('\n');
        std::fs::File::create(path)
            .and_then(|mut file| file.write_all(text.as_bytes()))
            .map_err(|error| Failure::io("write", path, &error))
    }

    fn print(&self, out: &mut Out) -> Result<(), Failure> {
        for (name, value) in &self.setting {
            let value = value.as_str().map_or(value.to_string(), str::to_owned);
            out.line(format_args!("{}: {value}", name.replace('_', " ")))?;
        }
        let mut table = Table::new(&[
            ("FIGURE", Align::Left),
            ("MEDIAN", Align::Right),
            ("LEAST", Align::Right),
            ("MOST", Align::Right),
            ("UNIT", Align::Left),
            ("", Align::Left),
        ]);
        for figure in &self.figures {
            let Figure {
                name,
                unit,
                words,
                spread,
                goal,
            } = figure;
            let edge = |value: f64| match spread.count {
                0 | 1 => String::new(),
                _ => measured(value, unit).0,
            };
            let (median, unit) = measured(spread.median, unit);
            let goal = match goal {
                Some((goal, true)) => format!(" (goal {goal}: met)"),
                Some((goal, false)) => format!(" (goal {goal}: MISSED)"),
                None => String::new(),
            };
            table.row([
                name.clone(),
                median,
                edge(spread.least),
                edge(spread.most),
                unit,
                format!("{words}{goal}"),
            ]);
        }
        out.line("")?;
        out.line(table)?;
        for remark in &self.remarks {
            out.line(format_args!("note: {remark}"))?;
        }
        Ok(())
    }

    fn as_json(&self) -> Value {
        let figures: Map<String, Value> = self
            .figures
            .iter()
            .map(|figure| {
                let spread = &figure.spread;
                let mut value = json!({
                    "unit": figure.unit,
                    "median": spread.median,
                    "least": spread.least,
                    "most": spread.most,
                    "count": spread.count,
                });
                if let Some((goal, met)) = &figure.goal {
                    value["goal"] = goal.as_str().into();
                    value["met"] = (*met).into();
                }
                (figure.name.clone(), value)
            })
            .collect();
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        json!({
            "bench": self.bench,
            "version": env!("CARGO_PKG_VERSION"),
            "unix_seconds": since.map_or(0, |since| since.as_secs()),
            "machine": machine(),
            "setting": self.setting,
            "figures": figures,
            "remarks": self.remarks,
        })
    }
}

/// What it was measured on.
fn machine() -> Value {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = text
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map(|(_, name)| name.to_owned());
    json!({
        "cpu": name,
        "cores": std::thread::available_parallelism().map_or(1, |cores| cores.get()),
        "isa": Isa::best().name(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sheet_tells_its_figures_and_goals() {
        let mut sheet = Sheet::new("some");
        sheet.set("blocks", 64);
        let times = vec![4.0, 2.0, 3.0];
        sheet.spread("take_ns", "ns", "taking one", Spread::of(times));
        sheet.goal("at most 3", |ns| ns <= 3.0);
        sheet.count("ratio", "", "of two", 0.5);
        let told = sheet.as_json();
        assert_eq!(told["bench"], "some");
        assert_eq!(told["setting"]["blocks"], 64);
        let take = &told["figures"]["take_ns"];
        assert_eq!((&take["median"], &take["count"]), (&json!(3.0), &json!(3)));
        assert_eq!(take["met"], true);
        assert!(told["figures"]["ratio"].get("goal").is_none());
        assert!(told["machine"]["cores"].as_u64() > Some(0));
    }
}
