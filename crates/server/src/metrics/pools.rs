//! What is told of pools and of membranes.

use bursar_memory::{PoolReport, PoolsReport};

use super::Page;

/// A figure of a pool.
type Figure = fn(&PoolReport) -> Option<f64>;

/// Writes it.
pub(super) fn write(page: &mut Page, report: &PoolsReport) {
    let figures: [(&str, &str, &str, Figure); 13] = [
        (
            "bursar_pool_capacity_bytes",
            "gauge",
            "What a pool holds, in use or not.",
            |pool| Some(pool.capacity_bytes as f64),
        ),
        (
            "bursar_pool_used_bytes",
            "gauge",
            "What of it is in use.",
            |pool| Some(pool.used_bytes as f64),
        ),
        (
            "bursar_pool_utilisation_ratio",
            "gauge",
            "The share in use.",
            |pool| Some(pool.utilisation_ratio),
        ),
        (
            "bursar_pool_hit_ratio",
            "gauge",
            "The share of asks that were met by what was there.",
            |pool| pool.hit_ratio,
        ),
        ("bursar_pool_heaps", "gauge", "Heaps of a pool.", |pool| {
            Some(pool.heaps_total as f64)
        }),
        (
            "bursar_pool_heaps_active",
            "gauge",
            "Heaps of a pool that something is in.",
            |pool| Some(pool.heaps_active as f64),
        ),
        (
            "bursar_pool_acquired_total",
            "counter",
            "Blocks taken.",
            |pool| Some(pool.acquired_total as f64),
        ),
        (
            "bursar_pool_released_total",
            "counter",
            "Blocks given back.",
            |pool| Some(pool.released_total as f64),
        ),
        (
            "bursar_pool_fallback_total",
            "counter",
            "Blocks that no heap had room for.",
            |pool| Some(pool.fallback_total as f64),
        ),
        (
            "bursar_pool_active",
            "gauge",
            "Blocks that are out.",
            |pool| Some(pool.active as f64),
        ),
        (
            "bursar_pool_largest_bytes",
            "gauge",
            "The largest block asked for.",
            |pool| Some(pool.largest_bytes as f64),
        ),
        (
            "bursar_pool_fragmentation_ratio",
            "gauge",
            "The share of free bytes outside the largest free piece of each heap.",
            |pool| Some(pool.fragmentation_ratio),
        ),
        (
            "bursar_pool_leaked",
            "gauge",
            "Blocks of which nobody knows any more.",
            |pool| Some(pool.leaked as f64),
        ),
    ];
    for (name, kind, help, figure) in figures {
        page.metric(name, kind, help);
        for pool in &report.pools {
            if let Some(value) = figure(pool) {
                page.value(name, &[("pool", pool.name)], value);
            }
        }
    }
    let Some(membranes) = &report.membranes else {
        return;
    };
    for (name, help, value) in [
        (
            "bursar_membranes_exact_total",
            "Blocks that were put into the level of their size and lifetime.",
            membranes.exact_total,
        ),
        (
            "bursar_membranes_spilled_total",
            "Blocks that were put into another level.",
            membranes.spilled_total,
        ),
        (
            "bursar_membranes_failed_total",
            "Blocks for which no membrane had room.",
            membranes.failed_total,
        ),
    ] {
        page.one(name, "counter", help, value);
    }
}
