//! What `GET /memory` tells of pools and membranes.

use bursar_memory::membrane::{LevelReport, MembranesReport};
use bursar_memory::scratch::ScratchReport;
use bursar_memory::{Lifetime, PoolReport, Pools, PoolsReport};
use serde_json::{Map, Value, json};

/// Each pool with its figures. Of the heaps, also how many there may become.
pub(crate) fn pools(pools: &Pools, report: &PoolsReport) -> Vec<Value> {
    let heaps_max = pools.heaps().map(|heaps| heaps.options().max_heaps);
    let entry = |report: &PoolReport| {
        let heaps_max = heaps_max.filter(|_| report.heaps_total > 0);
        json!({
            "name": report.name,
            "device": report.device.name(),
            "capacity_bytes": report.capacity_bytes,
            "used_bytes": report.used_bytes,
            "hit_ratio": report.hit_ratio,
            "utilisation_ratio": report.utilisation_ratio,
            "heaps_total": report.heaps_total,
            "heaps_active": report.heaps_active,
            "heaps_max": heaps_max,
            "allocations_total": report.allocations_total,
            "fallback_total": report.fallback_total,
            "acquired_total": report.acquired_total,
            "released_total": report.released_total,
            "active": report.active,
            "largest_bytes": report.largest_bytes,
            "average_bytes": report.average_bytes,
            "largest_free_bytes": report.largest_free_bytes,
            "fragmentation_ratio": report.fragmentation_ratio,
            "leaked": report.leaked,
        })
    };
    report.pools.iter().map(entry).collect()
}

/// The scratch memory of requests: how many have ended, and the most that one of them had.
pub(crate) fn scratch(report: &ScratchReport) -> Value {
    json!({
        "requests_total": report.resets_total,
        "refused_total": report.refused_total,
        "high_water_bytes": report.high_water_bytes,
    })
}

/// The hierarchy, level by level.
pub(crate) fn membranes(report: &MembranesReport) -> Value {
    let level = |level: &LevelReport| {
        let by_lifetime = Lifetime::ALL.into_iter().zip(level.used_by_lifetime);
        let by_lifetime: Map<String, Value> = by_lifetime
            .map(|(lifetime, bytes)| (lifetime.name().to_owned(), bytes.into()))
            .collect();
        json!({
            "level": level.level,
            "weight": level.weight,
            "membranes": level.membranes,
            "membranes_max": level.membranes_max,
            "membrane_bytes": level.membrane_bytes,
            "span_bytes": level.span_bytes,
            "taken_bytes": level.taken_bytes,
            "used_bytes": level.used_bytes,
            "used_bytes_by_lifetime": by_lifetime,
            "utilisation_ratio": level.utilisation_ratio(),
            "exact_total": level.exact_total,
            "spilled_total": level.spilled_total,
            "received_total": level.received_total,
            "failed_total": level.failed_total,
            "least_importance": level.least_importance,
        })
    };
    json!({
        "limit_bytes": report.limit_bytes,
        "weights": report.weights.name(),
        "span_bytes": report.span_bytes,
        "taken_bytes": report.taken_bytes,
        "used_bytes": report.used_bytes,
        "exact_total": report.exact_total,
        "spilled_total": report.spilled_total,
        "failed_total": report.failed_total,
        "oversize_total": report.oversize_total,
        "consolidated": {
            "membranes_total": report.consolidated.membranes,
            "moved_total": report.consolidated.moved,
            "moved_bytes_total": report.consolidated.moved_bytes,
            "returned_bytes_total": report.consolidated.returned_bytes,
        },
        "levels": report.levels.iter().map(level).collect::<Vec<_>>(),
    })
}
