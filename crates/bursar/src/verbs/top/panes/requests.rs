//! Requests: how many tokens go in and out, who waits and for what, and one line for each where the server
//! tells of each.

use ratatui::text::Line;
use serde_json::Value;

use super::{Page, list, span_of, word};
use crate::output::grouped;
use crate::verbs::top::paint::{Tone, fitted, size};

/// Columns of a model's name.
const NAME: usize = 22;

pub(super) fn lines(page: &Page<'_>) -> Vec<Line<'static>> {
    let mut lines: Vec<Line<'static>> = Vec::new();
    let mut push = |words: String, tone| lines.push(page.line(&words, tone));
    let memory = page.memory;
    if memory["rates"].is_object() {
        for words in rates(&memory["rates"]) {
            push(words, Tone::Plain);
        }
    }
    for waits in list(&memory["waiting"]) {
        let (model, requests) = (word(&waits["model"]), &waits["requests"]);
        let reason = word(&waits["reason"]);
        push(
            format!("{model}: {requests} waiting; the first: {reason}"),
            Tone::Warning,
        );
    }
    let mut any = false;
    for request in list(&memory["requests"]) {
        any = true;
        let (words, waits) = one(request);
        push(words, if waits { Tone::Warning } else { Tone::Plain });
    }
    if let Some(left_out) = memory["requests_left_out"]
        .as_u64()
        .filter(|count| *count > 0)
    {
        push(format!("and {left_out} more"), Tone::Dim);
    }
    if !any {
        let models = list(&memory["models"]);
        let inflight: u64 = models.filter_map(|model| model["inflight"].as_u64()).sum();
        match inflight {
            0 => push("no request is being answered".to_owned(), Tone::Dim),
            count => push(format!("{count} being answered"), Tone::Plain),
        }
    }
    lines
}

/// How many come and go, and how long they take, over the server's window.
fn rates(rates: &Value) -> Vec<String> {
    let rate = |name: &str| rates[name].as_f64().unwrap_or(0.0);
    let whole = |name: &str| grouped(rate(name).round() as u64);
    let mut flow = format!(
        "{:.1} requests/s, {} tokens/s in, {} tokens/s out",
        rate("requests_per_second"),
        whole("tokens_in_per_second"),
        whole("tokens_out_per_second"),
    );
    if rate("vectors_per_second") > 0.0 {
        flow.push_str(&format!(", {} vectors/s", whole("vectors_per_second")));
    }
    if let Some(seconds) = rates["window_seconds"].as_f64() {
        flow.push_str(&format!(" (last {})", span_of(seconds)));
    }
    let mut lines = vec![flow];
    let times = |name: &str, words: &str| {
        let told = &rates[name];
        let ms = |part: &str| {
            told[part]
                .as_f64()
                .map(|seconds| milliseconds(1e3 * seconds))
        };
        Some(format!("{words} {}, p95 {}", ms("p50")?, ms("p95")?))
    };
    let parts = [
        times("first_token_seconds", "first token"),
        times("between_tokens_seconds", "between tokens"),
    ];
    let parts: Vec<String> = parts.into_iter().flatten().collect();
    if !parts.is_empty() {
        lines.push(parts.join("; "));
    }
    lines
}

fn milliseconds(ms: f64) -> String {
    match ms {
        ms if ms >= 10_000.0 => format!("{:.0} s", ms / 1e3),
        ms if ms >= 10.0 => format!("{ms:.0} ms"),
        ms => format!("{ms:.1} ms"),
    }
}

/// A request in words, and whether it waits.
fn one(request: &Value) -> (String, bool) {
    let age = request["age_seconds"]
        .as_f64()
        .map(span_of)
        .unwrap_or_default();
    let model = fitted(word(&request["model"]), NAME);
    let waits = request["state"] == "waiting";
    let head = format!("{model} {:<8} {age:>6}", word(&request["state"]));
    if waits {
        let reason = word(&request["reason"]);
        return (format!("{head}  {reason}"), true);
    }
    let count = |name: &str| request[name].as_u64();
    let told = match (count("generated_tokens"), count("vectors_done")) {
        (Some(done), _) => {
            let most = count("max_tokens").map_or(String::new(), |most| format!(" of {most}"));
            let prompt = count("prompt_tokens").unwrap_or(0);
            let stored = count("stored_tokens").unwrap_or(0);
            match stored < prompt && done == 0 {
                true => format!("prompt {stored} of {prompt}"),
                false => format!("prompt {prompt}, wrote {done}{most}"),
            }
        }
        (None, Some(done)) => {
            let total = count("vectors_total").unwrap_or(0);
            format!("{done} of {total} vectors")
        }
        (None, None) => String::new(),
    };
    let held = match count("kv_bytes") {
        Some(bytes) if bytes > 0 => format!(", {}", size(&request["kv_bytes"])),
        _ => String::new(),
    };
    (format!("{head}  {told}{held}"), false)
}
