//! The figures of the cache of models: which are there, who waits, how often they came and went.

use bursar_engine::{ModelState, ModelStatus, WhyKind};

use super::page::Page;
use crate::app::App;
use crate::held::HeldBytes;
use crate::served::Served;

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
    let name = "bursar_model_pinned";
    page.metric(
        name,
        "gauge",
        "Whether a model stays whatever happens, 0 or 1.",
    );
    for model in &status {
        page.value(name, &[("model", &model.id)], u8::from(model.pinned));
    }
    let name = "bursar_model_idle_seconds";
    page.metric(
        name,
        "gauge",
        "Time since a model was last used, where nobody uses it now.",
    );
    for model in &status {
        if let Some(idle) = model.idle {
            page.value(name, &[("model", &model.id)], idle.as_secs_f64());
        }
    }
    held(app, &status, page);
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

/// A part of a model's bytes.
type Part = (&'static str, &'static str, fn(&HeldBytes) -> Option<u64>);

const PARTS: [Part; 6] = [
    (
        "bursar_model_plan_bytes",
        "What was planned for a model, with what it needs of the arena that all models share.",
        |held| Some(held.plan),
    ),
    (
        "bursar_model_used_bytes",
        "What a model's account holds.",
        |held| held.used,
    ),
    (
        "bursar_model_weights_bytes",
        "What a model's weights take.",
        |held| Some(held.weights),
    ),
    (
        "bursar_model_kv_bytes",
        "What was planned for a model's keys and values.",
        |held| Some(held.kv),
    ),
    (
        "bursar_model_activations_bytes",
        "What a model needs of the arena that all models share.",
        |held| Some(held.activations),
    ),
    (
        "bursar_model_tokenizer_bytes",
        "What a model's tokenizer takes.",
        |held| Some(held.tokenizer),
    ),
];

/// What the loaded ones hold.
fn held(app: &App, status: &[ModelStatus<Served>], page: &mut Page) {
    let books = app.ledger.snapshot();
    let served = status.iter().filter_map(|status| status.model.as_deref());
    let held: Vec<_> = served
        .map(|served| (served.id(), HeldBytes::of(served, &books)))
        .collect();
    for (name, help, part) in PARTS {
        page.metric(name, "gauge", help);
        for (model, held) in &held {
            if let Some(bytes) = part(held) {
                page.value(name, &[("model", model)], bytes);
            }
        }
    }
}
