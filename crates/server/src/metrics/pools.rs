//! What is told of pools and of membranes.

use bursar_memory::membrane::LevelReport;
use bursar_memory::{PoolReport, PoolsReport};

use super::page::Page;

/// A figure of a pool.
type Figure = fn(&PoolReport) -> Option<f64>;

/// Writes it.
pub(super) fn write(page: &mut Page, report: &PoolsReport) {
    let figures: [(&str, &str, &str, Figure); 16] = [
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
            "bursar_pool_allocations_total",
            "counter",
            "Blocks that were cut out of a heap or mapped.",
            |pool| Some(pool.allocations_total as f64),
        ),
        (
            "bursar_pool_average_bytes",
            "gauge",
            "The average block asked for.",
            |pool| Some(pool.average_bytes as f64),
        ),
        (
            "bursar_pool_largest_free_bytes",
            "gauge",
            "The largest free piece.",
            |pool| Some(pool.largest_free_bytes as f64),
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
                let labels = [("pool", pool.name), ("device", pool.device.name())];
                page.value(name, &labels, value);
            }
        }
    }
    for (name, kind, help, value) in [
        (
            "bursar_scratch_requests_total",
            "counter",
            "Requests whose scratch memory was given back.",
            report.scratch.resets_total,
        ),
        (
            "bursar_scratch_refused_total",
            "counter",
            "Times that scratch memory was refused.",
            report.scratch.refused_total,
        ),
        (
            "bursar_scratch_high_water_bytes",
            "gauge",
            "The most scratch memory that one request had.",
            report.scratch.high_water_bytes,
        ),
    ] {
        page.one(name, kind, help, value);
    }
    let Some(membranes) = &report.membranes else {
        return;
    };
    levels(page, &membranes.levels);
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

/// A figure of a level of membranes.
type LevelFigure = fn(&LevelReport) -> f64;

const LEVELS: [(&str, &str, &str, LevelFigure); 9] = [
    (
        "bursar_membrane_level_membranes",
        "gauge",
        "Membranes of a level.",
        |level| level.membranes as f64,
    ),
    (
        "bursar_membrane_level_span_bytes",
        "gauge",
        "What a level's membranes may span together.",
        |level| level.span_bytes as f64,
    ),
    (
        "bursar_membrane_level_taken_bytes",
        "gauge",
        "What a level's membranes have of memory.",
        |level| level.taken_bytes as f64,
    ),
    (
        "bursar_membrane_level_used_bytes",
        "gauge",
        "What of it is in use.",
        |level| level.used_bytes as f64,
    ),
    (
        "bursar_membrane_level_utilisation_ratio",
        "gauge",
        "The share in use.",
        LevelReport::utilisation_ratio,
    ),
    (
        "bursar_membrane_level_exact_total",
        "counter",
        "Blocks that were put into the level of their size and lifetime.",
        |level| level.exact_total as f64,
    ),
    (
        "bursar_membrane_level_spilled_total",
        "counter",
        "Blocks of a level that were put into another.",
        |level| level.spilled_total as f64,
    ),
    (
        "bursar_membrane_level_received_total",
        "counter",
        "Blocks of other levels that were put into this one.",
        |level| level.received_total as f64,
    ),
    (
        "bursar_membrane_level_failed_total",
        "counter",
        "Blocks of a level for which no membrane had room.",
        |level| level.failed_total as f64,
    ),
];

fn levels(page: &mut Page, levels: &[LevelReport]) {
    for (name, kind, help, figure) in LEVELS {
        page.metric(name, kind, help);
        for level in levels {
            let number = level.level.to_string();
            page.value(name, &[("level", &number)], figure(level));
        }
    }
}
