//! `GET /metrics`: the same figures as `GET /memory` and how requests went, as Prometheus reads
//! them. Everything is read when it is asked for; requests only add to counters.

mod kv;
mod models;
mod params;
mod pools;
mod reclaim;
mod spans;

use std::fmt::{Display, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use bursar_engine::{EngineSnapshot, Totals};
use bursar_memory::AccountSnapshot;
use bursar_profile::Probe;

use crate::app::App;

/// Addresses that are counted each for itself; all others are one.
const ROUTES: [&str; 11] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/models",
    "/tokenize",
    "/detokenize",
    "/health",
    "/ready",
    "/memory",
    "/metrics",
    "other",
];
/// Kinds of answers, by the first digit of their status.
const CLASSES: usize = 5;

/// The place of a path among the counted ones.
pub(crate) fn route(path: &str) -> usize {
    let path = match path.starts_with("/v1/models/") {
        true => "/v1/models",
        false => path,
    };
    let found = ROUTES.iter().position(|route| *route == path);
    found.unwrap_or(ROUTES.len() - 1)
}

/// How requests were answered.
#[derive(Debug, Default)]
pub(crate) struct Requests([[AtomicU64; CLASSES]; ROUTES.len()]);

impl Requests {
    /// One more.
    pub(crate) fn count(&self, route: usize, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES) - 1;
        self.0[route][class].fetch_add(1, Ordering::Relaxed);
    }
}

/// Lines of one metric after another.
#[derive(Debug, Default)]
struct Page(String);

impl Page {
    /// Begins a metric.
    fn metric(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One value of it.
    fn value(&mut self, name: &str, labels: &[(&str, &str)], value: impl Display) {
        self.0.push_str(name);
        for (index, (label, text)) in labels.iter().enumerate() {
            let begin = if index == 0 { '{' } else { ',' };
            let _ = write!(self.0, "{begin}{label}=\"");
            for character in text.chars() {
                match character {
                    '\\' => self.0.push_str("\\\\"),
                    '"' => self.0.push_str("\\\""),
                    '\n' => self.0.push_str("\\n"),
                    other => self.0.push(other),
                }
            }
            self.0.push('"');
        }
        if !labels.is_empty() {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }

    /// A metric with one value.
    fn one(&mut self, name: &str, kind: &str, help: &str, value: impl Display) {
        self.metric(name, kind, help);
        self.value(name, &[], value);
    }
}

/// All metrics.
pub(crate) fn answer(app: &App) -> Response<Body> {
    let mut page = Page::default();
    memory(app, &mut page);
    heap(app, &mut page);
    reclaim::write(&mut page, &app.pressure.read(), &app.reclaim.report());
    engines(app, &mut page);
    models::write(app, &mut page);
    pools::write(&mut page, &app.pools.report());
    params::write(&mut page, &app.params.report());
    requests(app, &mut page);
    spans::write(&mut page);
    let mut response = Response::new(Body::from(page.0));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    response
}

fn memory(app: &App, page: &mut Page) {
    let ledger = &app.ledger;
    let gauges = [
        (
            "bursar_memory_budget_bytes",
            "What the whole process may take.",
            Some(ledger.budget().get()),
        ),
        (
            "bursar_memory_granted_bytes",
            "What has been granted to all accounts.",
            Some(ledger.granted().get()),
        ),
        (
            "bursar_memory_granted_peak_bytes",
            "The most that was ever granted at once.",
            Some(ledger.granted_peak().get()),
        ),
    ];
    let process = Probe::default().process();
    let rss = (
        "bursar_process_resident_bytes",
        "What is resident of the process.",
        process.map(|process| process.rss_bytes),
    );
    let hwm = (
        "bursar_process_resident_peak_bytes",
        "The most that was ever resident of the process.",
        process.and_then(|process| process.hwm_bytes),
    );
    for (name, help, value) in gauges.into_iter().chain([rss, hwm]) {
        if let Some(value) = value {
            page.one(name, "gauge", help, value);
        }
    }
    let name = "bursar_account_granted_bytes";
    page.metric(name, "gauge", "What an account holds itself, by its path.");
    let books = ledger.snapshot();
    books.visit(&mut |account: &AccountSnapshot, _| {
        if !account.own.is_zero() {
            page.value(name, &[("account", &account.name)], account.own.get());
        }
    });
}

/// The small heap: what the process allocator has handed out, this page included.
fn heap(app: &App, page: &mut Page) {
    let Some(counts) = app.heap.map(|counts| counts()) else {
        return;
    };
    for (name, kind, help, value) in [
        (
            "bursar_heap_allocations_total",
            "counter",
            "Blocks that the process allocator handed out; one that was moved counts again.",
            counts.allocations,
        ),
        (
            "bursar_heap_deallocations_total",
            "counter",
            "Blocks that it took back.",
            counts.deallocations,
        ),
        (
            "bursar_heap_allocated_bytes",
            "gauge",
            "Bytes that live blocks take.",
            counts.live.get(),
        ),
        (
            "bursar_heap_allocated_peak_bytes",
            "gauge",
            "The most that they took at once.",
            counts.peak.get(),
        ),
    ] {
        page.one(name, kind, help, value);
    }
}

fn engines(app: &App, page: &mut Page) {
    let served = app.served();
    let snapshots: Vec<_> = served
        .iter()
        .map(|served| (served.id(), served.engine.snapshot()))
        .collect();
    let mut each =
        |name: &str, kind: &str, help: &str, value: &dyn Fn(&EngineSnapshot) -> Option<f64>| {
            page.metric(name, kind, help);
            for (model, snapshot) in &snapshots {
                if let Some(value) = value(snapshot) {
                    page.value(name, &[("model", model)], value);
                }
            }
        };
    each(
        "bursar_requests_running",
        "gauge",
        "Requests that the engine works on.",
        &|snapshot| Some(snapshot.running as f64),
    );
    each(
        "bursar_requests_waiting",
        "gauge",
        "Requests that wait for the engine.",
        &|snapshot| Some(snapshot.waiting as f64),
    );
    for (name, help, total) in [
        (
            "bursar_requests_total",
            "Requests that the engine has taken.",
            (|totals| totals.requests) as fn(&Totals) -> u64,
        ),
        (
            "bursar_requests_cancelled_total",
            "Requests that were cancelled before their end.",
            |totals| totals.cancelled,
        ),
        (
            "bursar_prefill_tokens_total",
            "Tokens of prompts computed.",
            |totals| totals.prefill_tokens,
        ),
        (
            "bursar_outputs_total",
            "Tokens generated, or vectors made.",
            |totals| totals.outputs,
        ),
        (
            "bursar_preemptions_total",
            "Sequences that lost their blocks to others and were recomputed.",
            |totals| totals.preemptions,
        ),
        (
            "bursar_recomputed_tokens_total",
            "Tokens that were computed once more for that.",
            |totals| totals.recomputed_tokens,
        ),
        (
            "bursar_steps_total",
            "Passes through the model.",
            |totals| totals.steps,
        ),
    ] {
        each(name, "counter", help, &|snapshot| {
            Some(total(&snapshot.totals) as f64)
        });
    }
    each(
        "bursar_last_progress_seconds",
        "gauge",
        "Time since the last step, while there is something to do.",
        &|snapshot| Some(snapshot.last_progress_ms as f64 / 1000.0),
    );
    kv::write(page, &snapshots);
}

fn requests(app: &App, page: &mut Page) {
    let name = "bursar_http_requests_total";
    page.metric(
        name,
        "counter",
        "Requests answered, by address and kind of status.",
    );
    for (route, counts) in ROUTES.iter().zip(&app.requests.0) {
        for (class, count) in (1..).zip(counts) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                let class = format!("{class}xx");
                page.value(name, &[("route", route), ("status", &class)], count);
            }
        }
    }
    page.one(
        "bursar_http_requests_in_flight",
        "gauge",
        "Requests that are being answered.",
        app.running.count(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_path_has_a_route_and_labels_are_escaped() {
        assert_eq!(ROUTES[route("/v1/models/a/b")], "/v1/models");
        assert_eq!(ROUTES[route("/v1/embeddings")], "/v1/embeddings");
        assert_eq!(ROUTES[route("/etc/passwd")], "other");
        let mut page = Page::default();
        page.value("m", &[("a", "x\"\\\n"), ("b", "")], 1.5);
        assert_eq!(page.0, "m{a=\"x\\\"\\\\\\n\",b=\"\"} 1.5\n");
    }
}
