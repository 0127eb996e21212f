//! The figures of the cache of models: which are there, who waits, how often they came and went.

use bursar_engine::{ModelState, WhyKind};

use super::Page;
use crate::app::App;

/// All of them.
pub(super) fn write(app: &App, page: &mut Page) {
    let status = app.models.status();
    let name = "bursar_model_loaded";
    page.metric(name, "gauge", "Whether a model is there, 0 or 1.");
    for model in &status {
        let there = matches!(model.state, ModelState::Loaded | ModelState::Closing);
        page.value(name, &[("model", &model.id)], u8::from(there));
    }
    let name = "bursar_model_leases";
    page.metric(name, "gauge", "Requests that use a model.");
    for model in &status {
        page.value(name, &[("model", &model.id)], model.leases);
    }
    let name = "bursar_model_requests_waiting";
    page.metric(
        name,
        "gauge",
        "Requests that wait for a model to be loaded.",
    );
    for model in &status {
        page.value(name, &[("model", &model.id)], model.waiting);
    }
    let totals = app.models.totals();
    for (name, help, value) in [
        (
            "bursar_model_cache_hits_total",
            "Requests that found their model loaded.",
            totals.hits,
        ),
        (
            "bursar_model_cache_misses_total",
            "Requests that had to wait for theirs.",
            totals.misses,
        ),
        (
            "bursar_model_cache_loads_total",
            "Models loaded.",
            totals.loads,
        ),
        (
            "bursar_model_cache_load_failures_total",
            "Models that could not be loaded.",
            totals.failures,
        ),
        (
            "bursar_model_cache_evictions_total",
            "Models unloaded because others needed their memory.",
            totals.evictions(),
        ),
        (
            "bursar_model_cache_unloaded_bytes_total",
            "Bytes that unloaded models held.",
            totals.unloaded_bytes,
        ),
    ] {
        page.one(name, "counter", help, value);
    }
    page.one(
        "bursar_model_cache_load_seconds_total",
        "counter",
        "Time that loading models took.",
        totals.load_time.as_secs_f64(),
    );
    let name = "bursar_model_cache_unloads_total";
    page.metric(name, "counter", "Models unloaded, by the kind of reason.");
    for kind in WhyKind::ALL {
        let count = totals.unloads[kind as usize];
        page.value(name, &[("reason", kind.name())], count);
    }
}
