//! `GET /metrics`: the same figures as `GET /memory` and how requests went, as Prometheus reads
//! them. Everything is read when it is asked for; requests only add to counters.

mod engines;
mod kv;
mod memory;
mod models;
mod page;
mod params;
mod pools;
mod reclaim;
mod spans;

use std::sync::atomic::{AtomicU64, Ordering};

use axum::body::Body;
use axum::http::{HeaderValue, Response, header};
use page::Page;

use crate::app::App;
use crate::error::ErrorCode;

/// Addresses that are counted each for itself; all others are one.
const ROUTES: [&str; 14] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/embeddings",
    "/v1/models",
    "/tokenize",
    "/detokenize",
    "/health",
    "/ready",
    "/memory",
    "/memory/history",
    "/memory/events",
    "/metrics",
    "/openapi.json",
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

/// Codes of errors that are counted each for itself; all others, and those without one, are one.
const CODES: [&str; 13] = [
    "queue_full",
    "memory_full",
    "memory_pressure",
    "model_loading",
    "model_failed",
    "model_busy",
    "model_too_large",
    "request_too_large",
    "body_too_large",
    "context_length_exceeded",
    "invalid_api_key",
    "draining",
    "other",
];

/// How requests were answered.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    answers: [[AtomicU64; CLASSES]; ROUTES.len()],
    errors: [AtomicU64; CODES.len()],
}

impl Requests {
    /// One more.
    pub(crate) fn count(&self, route: usize, response: &Response<Body>) {
        let status = response.status();
        let class = usize::from(status.as_u16() / 100).clamp(1, CLASSES) - 1;
        self.answers[route][class].fetch_add(1, Ordering::Relaxed);
        if let Some(ErrorCode(code)) = response.extensions().get() {
            let found = CODES.iter().position(|known| Some(*known) == *code);
            self.errors[found.unwrap_or(CODES.len() - 1)].fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// All metrics.
pub(crate) fn answer(app: &App) -> Response<Body> {
    let mut page = Page::default();
    server(app, &mut page);
    memory::write(app, &mut page);
    reclaim::write(&mut page, &app.pressure.read(), &app.reclaim.report());
    engines::write(app, &mut page);
    models::write(app, &mut page);
    pools::write(&mut page, &app.pools.report());
    params::write(&mut page, &app.params.report());
    requests(app, &mut page);
    spans::write(&mut page);
    let mut response = Response::new(Body::from(page.into_text()));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8"),
    );
    response
}

/// Which program this is, and since when it runs.
fn server(app: &App, page: &mut Page) {
    let name = "bursar_build_info";
    page.metric(
        name,
        "gauge",
        "The version that runs; the value is always 1.",
    );
    page.value(name, &[("version", env!("CARGO_PKG_VERSION"))], 1);
    page.one(
        "bursar_start_timestamp_seconds",
        "gauge",
        "When the server began, in seconds since 1970.",
        app.created,
    );
}

fn requests(app: &App, page: &mut Page) {
    let name = "bursar_http_requests_total";
    page.metric(
        name,
        "counter",
        "Requests answered, by address and kind of status.",
    );
    for (route, counts) in ROUTES.iter().zip(&app.requests.answers) {
        for (class, count) in (1..).zip(counts) {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                let class = format!("{class}xx");
                page.value(name, &[("route", route), ("status", &class)], count);
            }
        }
    }
    let name = "bursar_http_errors_total";
    page.metric(
        name,
        "counter",
        "Requests refused or failed, by the error's code.",
    );
    for (code, count) in CODES.iter().zip(&app.requests.errors) {
        page.value(name, &[("code", code)], count.load(Ordering::Relaxed));
    }
    if let Some((sent, dropped)) = app.tracer.counts() {
        let (name, help) = (
            "bursar_trace_spans_sent_total",
            "Spans that the collector took.",
        );
        page.one(name, "counter", help, sent);
        let help =
            "Spans that were dropped: the queue was full, or the collector did not take them.";
        page.one("bursar_trace_spans_dropped_total", "counter", help, dropped);
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
    fn every_path_has_a_route() {
        assert_eq!(ROUTES[route("/v1/models/a/b")], "/v1/models");
        assert_eq!(ROUTES[route("/v1/embeddings")], "/v1/embeddings");
        assert_eq!(ROUTES[route("/etc/passwd")], "other");
    }
}
