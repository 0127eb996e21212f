//! `GET /metrics`: a page that keeps all rules of its format, has every figure of `GET /memory`, and is
//! what the reference, the dashboards and the alerts in `deploy/` say that it is.

#![allow(clippy::unwrap_used, reason = "a test may")]

#[path = "../common/committed.rs"]
mod committed;
#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "each test takes what it needs")]
mod common;
mod deploy;
mod exposition;
mod page;

use std::net::SocketAddr;

use bursar_memory::counting::HeapCounts;
use bursar_memory::{Bytes, Lifetime};
use bursar_profile::{Level, spans};
use common::client::{get, post};
use common::{Running, Setup};
use exposition::{Family, parse};
use serde_json::{Value, json};

/// A server of which everything that is measured has been seen once.
fn busy() -> Running {
    spans::set_level(Level::Histograms);
    let server = Setup {
        heap: Some(|| HeapCounts {
            allocations: 9,
            deallocations: 4,
            allocated: Bytes(3000),
            live: Bytes(1000),
            peak: Bytes(2000),
            copied: Bytes(500),
        }),
        ..Setup::new()
    }
    .start();
    let body = json!({
        "model": "llama", "prompt": "The miller mended", "max_tokens": 5, "ignore_eos": true,
        "stream": true, "n": 2,
    });
    let reply = post(server.address, "/v1/completions", body.to_string());
    assert_eq!(reply.status, 200);
    let body = json!({ "model": "embedding", "input": ["a ledger", "two"] });
    let reply = post(server.address, "/v1/embeddings", body.to_string());
    assert_eq!(reply.status, 200, "{}", reply.message());
    server
}

fn scrape(address: SocketAddr) -> Vec<Family> {
    let reply = get(address, "/metrics", "");
    let kind = "text/plain; version=0.0.4; charset=utf-8";
    assert_eq!(reply.header("content-type"), Some(kind));
    parse(std::str::from_utf8(&reply.body).unwrap())
}

/// The value of the first sample of a metric, or of `name_suffix`.
fn value(families: &[Family], name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let mut samples = families.iter().flat_map(|family| &family.samples);
    let found = samples.find(|sample| {
        let has =
            |(label, text): &(&str, &str)| sample.labels.get(*label).is_some_and(|t| t == text);
        sample.name == name && labels.iter().all(has)
    });
    found.map(|sample| sample.value)
}

/// Figures of `GET /memory` by the place where they stand, and the metrics that have the same.
const FIGURES: [(&str, &str); 77] = [
    ("budget_bytes", "bursar_memory_budget_bytes"),
    ("granted_bytes", "bursar_memory_granted_bytes"),
    ("granted_peak_bytes", "bursar_memory_granted_peak_bytes"),
    ("rss_bytes", "bursar_process_resident_bytes"),
    ("rss_peak_bytes", "bursar_process_resident_peak_bytes"),
    ("drift_bytes", "bursar_memory_drift_bytes"),
    ("pressure", "bursar_memory_pressure_level"),
    ("tree.granted_bytes", "bursar_account_granted_bytes"),
    ("tree.measured_bytes", "bursar_account_measured_bytes"),
    ("tree.peak_bytes", "bursar_account_peak_bytes"),
    ("tree.ceiling_bytes", "bursar_account_ceiling_bytes"),
    ("models[].state", "bursar_model_loaded"),
    ("models[].plan_bytes", "bursar_model_plan_bytes"),
    ("models[].used_bytes", "bursar_model_used_bytes"),
    ("models[].weights_bytes", "bursar_model_weights_bytes"),
    ("models[].kv_bytes", "bursar_model_kv_bytes"),
    (
        "models[].activations_bytes",
        "bursar_model_activations_bytes",
    ),
    ("models[].tokenizer_bytes", "bursar_model_tokenizer_bytes"),
    ("models[].inflight", "bursar_model_leases"),
    ("models[].pinned", "bursar_model_pinned"),
    ("models[].idle_seconds", "bursar_model_idle_seconds"),
    ("kv[].block_tokens", "bursar_kv_block_tokens"),
    ("kv[].bytes_per_token", "bursar_kv_token_bytes"),
    ("kv[].blocks_total", "bursar_kv_blocks"),
    ("kv[].blocks_used", "bursar_kv_blocks"),
    ("kv[].blocks_cached", "bursar_kv_blocks"),
    ("kv[].blocks_free", "bursar_kv_blocks"),
    ("kv[].logical_blocks", "bursar_kv_logical_blocks"),
    ("kv[].shared_blocks", "bursar_kv_shared_blocks"),
    ("kv[].slabs", "bursar_kv_slabs"),
    ("kv[].metadata_bytes", "bursar_kv_metadata_bytes"),
    ("kv[].fragmentation_ratio", "bursar_kv_fragmentation_ratio"),
    ("kv[].efficiency_ratio", "bursar_kv_efficiency_ratio"),
    ("kv[].allocations_total", "bursar_kv_allocations_total"),
    ("kv[].deallocations_total", "bursar_kv_deallocations_total"),
    ("kv[].allocations_peak", "bursar_kv_blocks_peak"),
    ("kv[].allocations_current", "bursar_kv_blocks"),
    ("kv[].compactions_total", "bursar_kv_compactions_total"),
    (
        "kv[].compaction_last_unix_ms",
        "bursar_kv_compaction_last_timestamp_seconds",
    ),
    (
        "kv[].compaction_last_duration_ms",
        "bursar_kv_compaction_last_duration_seconds",
    ),
    (
        "kv[].prefix_hit_tokens_total",
        "bursar_prefix_hit_tokens_total",
    ),
    ("kv[].fragmented_bytes", "bursar_kv_fragmented_bytes"),
    ("pools[].device", "bursar_pool_capacity_bytes"),
    ("pools[].capacity_bytes", "bursar_pool_capacity_bytes"),
    ("pools[].used_bytes", "bursar_pool_used_bytes"),
    ("pools[].hit_ratio", "bursar_pool_hit_ratio"),
    ("pools[].utilisation_ratio", "bursar_pool_utilisation_ratio"),
    ("pools[].heaps_total", "bursar_pool_heaps"),
    ("pools[].heaps_active", "bursar_pool_heaps_active"),
    ("pools[].allocations_total", "bursar_pool_allocations_total"),
    ("pools[].fallback_total", "bursar_pool_fallback_total"),
    ("pools[].acquired_total", "bursar_pool_acquired_total"),
    ("pools[].released_total", "bursar_pool_released_total"),
    ("pools[].active", "bursar_pool_active"),
    ("pools[].largest_bytes", "bursar_pool_largest_bytes"),
    ("pools[].average_bytes", "bursar_pool_average_bytes"),
    (
        "pools[].largest_free_bytes",
        "bursar_pool_largest_free_bytes",
    ),
    (
        "pools[].fragmentation_ratio",
        "bursar_pool_fragmentation_ratio",
    ),
    ("pools[].leaked", "bursar_pool_leaked"),
    (
        "membranes.levels[].membranes",
        "bursar_membrane_level_membranes",
    ),
    (
        "membranes.levels[].span_bytes",
        "bursar_membrane_level_span_bytes",
    ),
    (
        "membranes.levels[].used_bytes",
        "bursar_membrane_level_used_bytes",
    ),
    (
        "membranes.levels[].utilisation_ratio",
        "bursar_membrane_level_utilisation_ratio",
    ),
    (
        "membranes.levels[].spilled_total",
        "bursar_membrane_level_spilled_total",
    ),
    ("membranes.exact_total", "bursar_membranes_exact_total"),
    ("membranes.spilled_total", "bursar_membranes_spilled_total"),
    ("membranes.failed_total", "bursar_membranes_failed_total"),
    ("params.unique", "bursar_params_unique"),
    ("params.requests_total", "bursar_params_requests_total"),
    ("params.dedup_ratio", "bursar_params_dedup_ratio"),
    ("params.bytes", "bursar_params_bytes"),
    ("model_cache.hits_total", "bursar_model_cache_hits_total"),
    (
        "model_cache.misses_total",
        "bursar_model_cache_misses_total",
    ),
    (
        "model_cache.evictions_total",
        "bursar_model_cache_evictions_total",
    ),
    (
        "model_cache.load_seconds",
        "bursar_model_cache_load_seconds_total",
    ),
    ("heap.allocations_total", "bursar_heap_allocations_total"),
    (
        "scratch.high_water_bytes",
        "bursar_scratch_high_water_bytes",
    ),
];

/// Figures that nothing changes between two looks at an idle server, so that both must be equal.
const EQUAL: [&str; 12] = [
    "budget_bytes",
    "granted_peak_bytes",
    "models[].plan_bytes",
    "models[].used_bytes",
    "models[].weights_bytes",
    "models[].tokenizer_bytes",
    "kv[].block_tokens",
    "kv[].bytes_per_token",
    "kv[].allocations_total",
    "params.unique",
    "params.requests_total",
    "model_cache.misses_total",
];

/// Whatever stands at a place in the report, of the first entry of a list.
fn at<'a>(report: &'a Value, place: &str) -> Option<&'a Value> {
    place
        .split('.')
        .try_fold(report, |value, name| match name.strip_suffix("[]") {
            Some(name) => value.get(name)?.get(0),
            None => value.get(name),
        })
}

/// R5, B5: whoever watches by Prometheus misses nothing.
#[test]
fn every_figure_of_memory_has_its_metric() {
    let server = busy();
    let memory = get(server.address, "/memory", "").json();
    let families = scrape(server.address);
    for (place, metric) in FIGURES {
        let told = at(&memory, place);
        let told = told.unwrap_or_else(|| panic!("{place} is not told"));
        assert!(
            families.iter().any(|family| family.name == metric),
            "{metric}"
        );
        if EQUAL.contains(&place) {
            let list = place.split_once("[].").map(|(list, _)| &memory[list][0]);
            let model = list.and_then(|first| first["id"].as_str().or(first["model"].as_str()));
            let labels: Vec<_> = model.iter().map(|model| ("model", *model)).collect();
            assert_eq!(told.as_f64(), value(&families, metric, &labels), "{place}");
        }
    }
    let accounts = families
        .iter()
        .find(|family| family.name == "bursar_account_granted_bytes");
    let sum: f64 = accounts.unwrap().samples.iter().map(|s| s.value).sum();
    assert_eq!(
        Some(sum),
        value(&families, "bursar_memory_granted_bytes", &[])
    );
    server.stop();
}

/// What a router of the Gateway API's inference extension asks of a server.
#[test]
fn routers_find_queue_running_and_usage() {
    let server = busy();
    let families = scrape(server.address);
    for name in [
        "bursar_requests_waiting",
        "bursar_requests_running",
        "bursar_kv_usage_ratio",
    ] {
        let family = families.iter().find(|family| family.name == name).unwrap();
        assert_eq!(family.kind, "gauge");
        let found = value(&families, name, &[("model", "llama")]).unwrap();
        assert!((0.0..=1.0).contains(&found), "{name} is {found}");
    }
    server.stop();
}

/// Each request is timed once, each of its tokens, and what failed is counted by its code.
#[test]
fn requests_are_timed_and_errors_counted() {
    let server = busy();
    let unknown = post(server.address, "/v1/completions", r#"{"model":"none"}"#);
    assert_eq!(unknown.status, 404);
    let long = json!({ "model": "llama", "prompt": "a", "max_tokens": 100_000 });
    let long = post(server.address, "/v1/completions", long.to_string());
    assert_eq!(long.json()["error"]["code"], "context_length_exceeded");
    let families = scrape(server.address);
    let count = |name: &str, model| value(&families, name, &[("model", model)]);
    for (name, llama, embedding) in [
        ("bursar_time_to_first_token_seconds_count", 1.0, 0.0),
        // Two answers of five tokens.
        ("bursar_inter_token_seconds_count", 8.0, 0.0),
        ("bursar_request_duration_seconds_count", 1.0, 1.0),
        ("bursar_request_prompt_tokens_count", 1.0, 1.0),
        ("bursar_request_output_tokens_count", 1.0, 0.0),
        ("bursar_request_output_tokens_sum", 10.0, 0.0),
    ] {
        assert_eq!(count(name, "llama"), Some(llama), "{name}");
        assert_eq!(count(name, "embedding"), Some(embedding), "{name}");
    }
    let first = count("bursar_time_to_first_token_seconds_sum", "llama");
    let whole = count("bursar_request_duration_seconds_sum", "llama");
    assert!(0.0 < first.unwrap() && first < whole, "{first:?} {whole:?}");
    for (code, times) in [
        ("context_length_exceeded", 1.0),
        ("other", 1.0),
        ("queue_full", 0.0),
    ] {
        let found = value(&families, "bursar_http_errors_total", &[("code", code)]);
        assert_eq!(found, Some(times), "{code}");
    }
    server.stop();
}

#[test]
fn the_reference_lists_what_is_served() {
    let server = busy();
    page::compare(&scrape(server.address));
    server.stop();
}

#[test]
fn dashboards_and_alerts_use_what_is_served() {
    let server = busy();
    deploy::check(&scrape(server.address));
    server.stop();
}

/// A ceiling is told where an account has one.
#[test]
fn ceilings_are_told() {
    let server = Setup::new().start();
    let options = bursar_memory::AccountOptions::new(Lifetime::Episodic).ceiling(Bytes::mib(3));
    let account = server.ledger.root().child_with("capped", options).unwrap();
    let families = scrape(server.address);
    let labels = [("account", account.name())];
    let ceiling = value(&families, "bursar_account_ceiling_bytes", &labels);
    assert_eq!(ceiling, Some(3.0 * 1024.0 * 1024.0));
    drop(account);
    server.stop();
}
