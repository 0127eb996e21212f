//! Models: what they hold, what they are doing, and how far loading is; below each that has them, its keys
//! and values.

use ratatui::text::Line;
use serde_json::Value;

use super::{Page, list, span_of, word};
use crate::verbs::top::paint::{Tone, bar, fitted, size, span};

/// Columns of names.
const NAME: usize = 22;
/// Columns of the state.
const STATE: usize = 9;
/// Columns of what is held.
const HELD: usize = 10;
/// Most columns of a bar.
const BAR: usize = 48;

pub(super) fn lines(page: &Page<'_>) -> Vec<Line<'static>> {
    let mut lines = Vec::new();
    for model in list(&page.memory["models"]) {
        lines.push(line(page, model));
        let mut reports = list(&page.memory["kv"]);
        if let Some(kv) = reports.find(|kv| kv["model"] == model["id"]) {
            lines.push(kv_line(page, kv));
        }
    }
    if lines.is_empty() {
        lines.push(Line::from(span(
            "no model is loaded",
            Tone::Dim,
            page.colours,
        )));
    }
    lines
}

fn line(page: &Page<'_>, model: &Value) -> Line<'static> {
    let state = word(&model["state"]);
    let tone = match state {
        "loaded" => Tone::Good,
        "failed" => Tone::Bad,
        _ => Tone::Warning,
    };
    let plain = |words: String| span(words, Tone::Plain, page.colours);
    let mut spans = vec![
        plain(format!("{} ", fitted(word(&model["id"]), NAME))),
        span(format!("{} ", fitted(state, STATE)), tone, page.colours),
    ];
    let rest = page.width.saturating_sub(NAME + STATE + 2);
    if state == "loading" {
        let ratio = model["loaded_ratio"]
            .as_f64()
            .unwrap_or(0.0)
            .clamp(0.0, 1.0);
        let cells = rest.saturating_sub(6).min(BAR);
        let done = bar(&[((ratio * 1e3) as u64, '█')], 1000, cells);
        spans.push(span(done, tone, page.colours));
        spans.push(plain(format!(" {:>3.0} %", 100.0 * ratio)));
        return Line::from(spans);
    }
    let held = format!("{:>HELD$}", size(&model["used_bytes"]));
    let doing = format!("{held}  {}", doing(model).join(", "));
    spans.push(plain(fitted(&doing, rest)));
    Line::from(spans)
}

/// What a model is doing, in words.
fn doing(model: &Value) -> Vec<String> {
    if let Some(error) = model["error"].as_str() {
        return vec![error.to_owned()];
    }
    let mut words = Vec::new();
    match model["inflight"].as_u64() {
        None | Some(0) => match model["idle_seconds"].as_f64() {
            Some(seconds) => words.push(format!("idle {}", span_of(seconds))),
            None => words.push("idle".to_owned()),
        },
        Some(count) => words.push(format!("{count} in flight")),
    }
    if let Some(count) = model["waiting"].as_u64().filter(|count| *count > 0) {
        words.push(format!("{count} wait for it"));
    }
    if model["pinned"] == true {
        words.push("pinned".to_owned());
    }
    words
}

fn kv_line(page: &Page<'_>, kv: &Value) -> Line<'static> {
    let count = |name: &str| kv[name].as_u64().unwrap_or(0);
    let (used, shared) = (
        count("blocks_used"),
        count("shared_blocks").min(count("blocks_used")),
    );
    let (cached, total) = (count("blocks_cached"), count("blocks_total"));
    let told = format!(
        "{used} used ({shared} shared), {cached} cached, {} free",
        total.saturating_sub(used + cached)
    );
    let name = fitted("  keys and values", NAME);
    let rest = page.width.saturating_sub(NAME + 2);
    let cells = rest.saturating_sub(told.chars().count());
    let told = fitted(&told, rest.saturating_sub(cells.min(BAR)));
    let parts = [(shared, '▓'), (used - shared, '█'), (cached, '▒')];
    Line::from(vec![
        span(format!("{name} "), Tone::Dim, page.colours),
        span(
            bar(&parts, total, cells.min(BAR)),
            Tone::Episodic,
            page.colours,
        ),
        span(format!(" {told}"), Tone::Plain, page.colours),
    ])
}
