//! Progress on stderr: a moving bar on a terminal, a line now and then where `--progress` asks for
//! it elsewhere, nothing otherwise.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use bursar_memory::Bytes;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// How often a bar is drawn again.
const DRAW_INTERVAL: Duration = Duration::from_millis(125);
/// How often a line is printed where there is no terminal.
const LINE_INTERVAL: Duration = Duration::from_secs(1);

/// Whether and how progress is shown.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Progress {
    /// Not at all.
    Off,
    /// A bar that is drawn over.
    Bar,
    /// A line every second.
    Lines,
}

/// What is counted.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unit {
    /// Bytes of a file.
    Bytes,
    /// Texts of an input.
    Texts,
    /// Files.
    Files,
    /// Requests to a server.
    Requests,
    /// Measurements, of which each takes its time.
    Steps,
    /// Of a time that is known before.
    Seconds,
    /// Hundredths of something whose size is not known.
    Percent,
}

impl Progress {
    /// Shown on a terminal, or anywhere if `forced`.
    pub(crate) fn new(forced: bool) -> Progress {
        match (std::io::stderr().is_terminal(), forced) {
            (true, _) => Progress::Bar,
            (false, true) => Progress::Lines,
            (false, false) => Progress::Off,
        }
    }

    /// Starts counting to `total`, if that is known.
    pub(crate) fn meter(self, label: &str, unit: Unit, total: impl Into<Option<u64>>) -> Meter {
        let total = total.into();
        let bar = matches!(self, Progress::Bar).then(|| {
            let target = ProgressDrawTarget::stderr();
            let bar = ProgressBar::with_draw_target(total, target);
            // The template is ours; were it wrong, the plain bar would do.
            if let Ok(style) = ProgressStyle::with_template("{prefix} {bar:16} {wide_msg}") {
                bar.set_style(style.progress_chars("=> "));
            }
            bar.set_prefix(label.to_owned());
            bar
        });
        let now = Instant::now();
        Meter {
            progress: self,
            label: label.to_owned(),
            unit,
            total,
            begun: now,
            begun_at: None,
            shown: now,
            done: 0,
            bar,
        }
    }
}

/// One thing that is counted.
pub(crate) struct Meter {
    progress: Progress,
    label: String,
    unit: Unit,
    total: Option<u64>,
    begun: Instant,
    /// What was already done when counting began: a resumed run's rate is that of this run.
    begun_at: Option<u64>,
    shown: Instant,
    done: u64,
    bar: Option<ProgressBar>,
}

impl Meter {
    /// Says how much is done; `note` makes further figures, only when they are going to be shown.
    pub(crate) fn set(&mut self, done: u64, note: impl FnOnce() -> String) {
        self.done = done;
        let begun_at = *self.begun_at.get_or_insert(done);
        let interval = match self.progress {
            Progress::Off => return,
            Progress::Bar => DRAW_INTERVAL,
            Progress::Lines => LINE_INTERVAL,
        };
        let now = Instant::now();
        if now - self.shown < interval && self.total.is_none_or(|total| done < total) {
            return;
        }
        self.shown = now;
        let message = self.message(now, begun_at, &note());
        match &self.bar {
            Some(bar) => {
                bar.set_position(done);
                bar.set_message(message);
            }
            None => eprintln!("{} {message}", self.label),
        }
    }

    /// Takes the bar away; so does dropping it.
    pub(crate) fn finish(self) {}

    fn count(&self, count: u64) -> String {
        match self.unit {
            Unit::Bytes => Bytes(count).to_string(),
            Unit::Texts | Unit::Files | Unit::Requests | Unit::Steps => count.to_string(),
            Unit::Seconds => duration(count as f64),
            Unit::Percent => format!("{count} %"),
        }
    }

    /// How much of how much, rate, further figures, and the time left at that rate.
    fn message(&self, now: Instant, begun_at: u64, note: &str) -> String {
        let seconds = (now - self.begun).as_secs_f64().max(1e-9);
        let rate = self.done.saturating_sub(begun_at) as f64 / seconds;
        let rated = match self.unit {
            // Saturates: a rate is no exact count.
            Unit::Bytes => format!("{}/s", Bytes(rate as u64)),
            Unit::Texts => format!("{rate:.1} texts/s"),
            Unit::Files => format!("{rate:.0} files/s"),
            Unit::Requests => format!("{rate:.1} requests/s"),
            Unit::Percent => format!("{rate:.0} %/s"),
            // These say nothing that the count does not.
            Unit::Steps | Unit::Seconds => String::new(),
        };
        let mut parts = vec![rated, note.to_owned()];
        parts.retain(|part| !part.is_empty());
        let left = self
            .total
            .map_or(0, |total| total.saturating_sub(self.done));
        if rate > 0.0 && left > 0 {
            parts.push(format!("{} left", duration(left as f64 / rate)));
        }
        let done = self.count(self.done);
        let of = self
            .total
            .map_or(String::new(), |total| format!(" of {}", self.count(total)));
        let unit = match self.unit {
            Unit::Bytes | Unit::Percent | Unit::Seconds | Unit::Steps => "",
            Unit::Texts => " texts",
            Unit::Files => " files",
            Unit::Requests => " requests",
        };
        match parts.is_empty() {
            true => format!("{done}{of}{unit}"),
            false => format!("{done}{of}{unit} ({})", parts.join(", ")),
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// Seconds in words: `7 s`, `3 min 20 s`, `2 h 05 min`.
pub(crate) fn duration(seconds: f64) -> String {
    let whole = seconds.round().clamp(0.0, 1e9) as u64;
    match whole {
        0..60 => format!("{whole} s"),
        60..3600 => format!("{} min {:02} s", whole / 60, whole % 60),
        _ => format!("{} h {:02} min", whole / 3600, whole % 3600 / 60),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_well() {
        let shown = [0.4, 59.6, 200.0, 7505.0, f64::INFINITY].map(duration);
        assert_eq!(
            shown,
            [
                "0 s",
                "1 min 00 s",
                "3 min 20 s",
                "2 h 05 min",
                "277777 h 46 min"
            ]
        );
    }
}
