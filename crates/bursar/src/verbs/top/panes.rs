//! The lines of each pane, from a report of `GET /memory`. A server that does not tell something has a
//! line less.
//!
//! - `ledger`: accounts with bars.
//! - `models`: models, with their keys and values.
//! - `requests`: rates, who runs, who waits and why.
//! - `events`: what was done for memory.

mod events;
mod ledger;
mod models;
mod requests;

use ratatui::text::Line;
use serde_json::Value;

use super::paint::{Colours, Tone, fitted, span};
use super::state::{Pane, State};

/// What stands in a pane's heading, to the left and to the right.
pub(super) struct Heading {
    pub(super) name: &'static str,
    pub(super) columns: String,
}

/// How a pane's lines are made.
#[derive(Copy, Clone, Debug)]
struct Page<'a> {
    memory: &'a Value,
    /// Columns.
    width: usize,
    colours: Colours,
    /// When the report was made.
    unix_ms: u64,
}

impl Page<'_> {
    /// Words as a line, cut off where the pane ends.
    fn line(&self, words: &str, tone: Tone) -> Line<'static> {
        Line::from(span(fitted(words, self.width), tone, self.colours))
    }
}

/// A pane's heading.
pub(super) fn heading(pane: Pane) -> Heading {
    let (name, columns) = match pane {
        Pane::Ledger => ("Ledger", ledger::columns()),
        Pane::Models => ("Models, keys and values", String::new()),
        Pane::Requests => ("Requests", String::new()),
        Pane::Events => ("Memory taken back", String::new()),
    };
    Heading { name, columns }
}

/// All lines of a pane, of which as many are shown as there is room for.
pub(super) fn lines(pane: Pane, state: &State, memory: &Value, width: u16) -> Vec<Line<'static>> {
    let page = Page {
        memory,
        width: usize::from(width),
        colours: state.colours,
        unix_ms: state.told_unix_ms,
    };
    match pane {
        Pane::Ledger => ledger::lines(&page),
        Pane::Models => models::lines(&page),
        Pane::Requests => requests::lines(&page),
        Pane::Events => events::lines(&page),
    }
}

/// A list of a report.
fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// A word of a report.
fn word(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}

/// A length of time in its largest whole unit.
fn span_of(seconds: f64) -> String {
    match seconds.max(0.0) as u64 {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}
