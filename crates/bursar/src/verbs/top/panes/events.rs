//! What was done because memory was short: the latest first, with what went back and why.

use ratatui::text::Line;

use super::{Page, list, span_of, word};
use crate::verbs::top::paint::{Tone, size};

pub(super) fn lines(page: &Page<'_>) -> Vec<Line<'static>> {
    let mut lines: Vec<Line<'static>> = Vec::new();
    let mut push = |words: String, tone| lines.push(page.line(&words, tone));
    if let Some(cause) = page.memory["pressure_detail"]["cause"].as_str() {
        push(format!("memory is short because {cause}"), Tone::Warning);
    }
    let mut any = false;
    for event in list(&page.memory["reclaim"]["recent"]) {
        any = true;
        let since = event["unix_ms"].as_u64().unwrap_or(page.unix_ms);
        let ago = span_of(page.unix_ms.saturating_sub(since) as f64 / 1e3);
        let times = match event["times"].as_u64() {
            Some(times) if times > 1 => format!(" x {times}"),
            _ => String::new(),
        };
        let model = event["model"]
            .as_str()
            .map_or(String::new(), |model| format!(", {model}"));
        let (rung, reason) = (word(&event["rung"]), word(&event["reason"]));
        let returned = size(&event["returned_bytes"]);
        push(
            format!("{ago:>7} ago  {rung}{times}{model}, {returned} back: {reason}"),
            Tone::Plain,
        );
    }
    if !any {
        push("nothing had to be taken back".to_owned(), Tone::Dim);
    }
    lines
}
