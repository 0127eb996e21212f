//! `docs/reference/metrics.md`: every metric, as the server tells of it.

use std::collections::BTreeSet;
use std::fmt::Write;

use crate::committed;
use crate::exposition::Family;

const STALE: &str = "docs/reference/metrics.md is out of date; write it anew with \
                     `BURSAR_WRITE_METRICS=1 cargo test -p bursar-server --test metrics`";

/// The labels that its values have; a histogram's bounds are understood.
fn labels(family: &Family) -> String {
    let names: BTreeSet<&str> = family
        .samples
        .iter()
        .flat_map(|sample| sample.labels.keys())
        .map(String::as_str)
        .filter(|label| *label != "le")
        .collect();
    let names: Vec<String> = names.iter().map(|name| format!("`{name}`")).collect();
    names.join(", ")
}

fn write(families: &[Family]) -> String {
    let mut out = String::from(
        "# Metrics\n\n\
         What `GET /metrics` serves, as the test found it that wrote this page\n\
         (`BURSAR_WRITE_METRICS=1 cargo test -p bursar-server --test metrics`). Units are bytes, seconds, tokens, \
         and ratios\nfrom 0 to 1; counters end in `_total` and begin at 0 with the server, those of a model with \
         its load.\n\n\
         | metric | kind | labels | what it is |\n|---|---|---|---|\n",
    );
    for family in families {
        let Family {
            name, kind, help, ..
        } = family;
        let labels = labels(family);
        let _ = writeln!(out, "| `{name}` | {kind} | {labels} | {help} |");
    }
    out.push_str(
        "\n## For routers\n\n\
         The endpoint picker of the Gateway API's inference extension asks three gauges of a model server:\n\
         `--total-queued-requests-metric=bursar_requests_waiting`,\n\
         `--total-running-requests-metric=bursar_requests_running`,\n\
         `--kv-cache-usage-percentage-metric=bursar_kv_usage_ratio` (0 to 1, as it expects).\n",
    );
    out
}

/// The committed page says the same, or is written anew.
pub(crate) fn compare(families: &[Family]) {
    committed::compare(
        "metrics.md",
        &write(families),
        "BURSAR_WRITE_METRICS",
        STALE,
    );
}
