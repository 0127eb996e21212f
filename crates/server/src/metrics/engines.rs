//! The figures of the engine, model by model: who runs and waits, what was computed, how long requests
//! took.

use std::sync::Arc;

use bursar_engine::{EngineSnapshot, Totals};

use super::kv;
use super::page::Page;
use crate::app::App;
use crate::served::Served;
use crate::timings::{Histogram, Timings};

/// All of them.
pub(super) fn write(app: &App, page: &mut Page) {
    let served = app.served();
    let snapshots: Vec<_> = served
        .iter()
        .map(|served| (served.id(), served.engine.snapshot()))
        .collect();
    for (name, help, figure) in GAUGES {
        page.metric(name, "gauge", help);
        for (model, snapshot) in &snapshots {
            page.value(name, &[("model", model)], figure(snapshot));
        }
    }
    for (name, help, total) in TOTALS {
        page.metric(name, "counter", help);
        for (model, snapshot) in &snapshots {
            page.value(name, &[("model", model)], total(&snapshot.totals));
        }
    }
    timings(page, &served);
    kv::write(page, &snapshots);
}

/// A gauge of a model on the engine.
type Gauge = (&'static str, &'static str, fn(&EngineSnapshot) -> f64);

const GAUGES: [Gauge; 5] = [
    (
        "bursar_requests_running",
        "Requests that the engine works on.",
        |snapshot| snapshot.running as f64,
    ),
    (
        "bursar_requests_waiting",
        "Requests that wait for the engine.",
        |snapshot| snapshot.waiting as f64,
    ),
    (
        "bursar_requests_running_max",
        "Requests that the engine works on at most.",
        |snapshot| snapshot.parallel as f64,
    ),
    (
        "bursar_requests_waiting_max",
        "Requests that may wait for the engine; one more is refused.",
        |snapshot| snapshot.queue as f64,
    ),
    (
        "bursar_last_progress_seconds",
        "Time since the last step, while there is something to do.",
        |snapshot| snapshot.last_progress_ms as f64 / 1e3,
    ),
];

/// A counter of a model on the engine.
type Total = (&'static str, &'static str, fn(&Totals) -> u64);

const TOTALS: [Total; 7] = [
    (
        "bursar_requests_total",
        "Requests that the engine has taken.",
        |totals| totals.requests,
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
];

/// A histogram of a model's requests, and how many of its units make one of the metric's.
type Timing = (&'static str, &'static str, f64, fn(&Timings) -> &Histogram);

const TIMINGS: [Timing; 6] = [
    (
        "bursar_request_queue_seconds",
        "Time from a request's arrival until the engine let it in.",
        1e6,
        |timings| &timings.queue,
    ),
    (
        "bursar_time_to_first_token_seconds",
        "Time from a request's arrival to its first token, as its client gets to see it.",
        1e6,
        |timings| &timings.first_token,
    ),
    (
        "bursar_inter_token_seconds",
        "Time between two tokens of an answer, as its client gets to see them.",
        1e6,
        |timings| &timings.between_tokens,
    ),
    (
        "bursar_request_duration_seconds",
        "Time from a request's arrival to the end of its answers, of those that came to one.",
        1e6,
        |timings| &timings.whole,
    ),
    (
        "bursar_request_prompt_tokens",
        "Tokens of a request's prompts or texts.",
        1.0,
        |timings| &timings.prompt_tokens,
    ),
    (
        "bursar_request_output_tokens",
        "Tokens of a request's answers.",
        1.0,
        |timings| &timings.output_tokens,
    ),
];

fn timings(page: &mut Page, served: &[Arc<Served>]) {
    for (name, help, units, histogram) in TIMINGS {
        page.metric(name, "histogram", help);
        for served in served {
            let histogram = histogram(&served.timings);
            let bound = |bound: Option<u64>| bound.map(|bound| bound as f64 / units);
            let buckets = histogram.buckets();
            let buckets = buckets.map(|(most, count)| (bound(most), count));
            page.histogram(name, served.id(), buckets, histogram.sum() as f64 / units);
        }
    }
}
