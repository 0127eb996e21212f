//! The report on a model's keys and values, as `GET /memory` tells it.

use bursar_engine::Totals;
use bursar_kv::{Histogram, KvReport};
use serde_json::{Value, json};

/// One model's entry. Counts are since the start; ratios are 0 to 1.
pub(crate) fn entry(model: &str, kv: &KvReport, totals: &Totals, map: Option<Value>) -> Value {
    let last = kv.compactions.last;
    let blocks = json!({
        "model": model,
        "block_tokens": kv.block_tokens,
        "bytes_per_token": kv.bytes_per_token.get(),
        "blocks_total": kv.blocks_total,
        // Fewer than all while memory is short.
        "blocks_usable": kv.blocks_capacity,
        "blocks_used": kv.blocks_used,
        "blocks_cached": kv.blocks_cached,
        // Used, cached and free add up to all; those free ones that have no memory are vacant.
        "blocks_free": kv.blocks_free + kv.blocks_vacant,
        "blocks_vacant": kv.blocks_vacant,
        "blocks_peak": kv.blocks_peak,
        "logical_blocks": kv.logical_blocks,
        "shared_blocks": kv.shared_blocks,
        "slabs": kv.slabs_committed,
        "slabs_total": kv.slabs_total,
        "map": map,
    });
    let memory = json!({
        "used_bytes": kv.bytes_used.get(),
        "cached_bytes": kv.bytes_cached.get(),
        "committed_bytes": kv.bytes_committed.get(),
        "fragmented_bytes": kv.bytes_fragmented.get(),
        "capacity_bytes": kv.bytes_total.get(),
        "promised_bytes": kv.bytes_promised.get(),
        "metadata_bytes": kv.bytes_metadata().get(),
        "fragmentation_ratio": kv.fragmentation(),
        "efficiency_ratio": kv.efficiency(),
    });
    let counts = json!({
        "allocations_total": kv.stats.allocations,
        "deallocations_total": kv.stats.deallocations,
        "allocations_peak": kv.stats.peak,
        "allocations_current": kv.blocks_used,
        "evictions_total": kv.evictions,
        "deduplications_total": kv.deduplications,
        "copies_total": kv.copies,
        "refusals_total": kv.refusals,
        "compactions_total": kv.compactions.count,
        "compaction_last_unix_ms": last.map(|last| last.unix_ms),
        "compaction_last_duration_ms": last.map(|last| last.duration.as_secs_f64() * 1e3),
        "compaction_moved_bytes_total": kv.compactions.moved_bytes.get(),
        "compaction_returned_bytes_total": kv.compactions.returned_bytes.get(),
        "prefix_hit_tokens_total": totals.prefix_hit_tokens,
        "forks_total": totals.forks,
        "preemptions_total": totals.preemptions,
        "spills_total": totals.spills,
        "spilled_bytes_total": totals.spilled_bytes,
        "restored_bytes_total": totals.restored_bytes,
        "block_age_seconds": durations(&kv.stats.age),
        "block_idle_seconds": durations(&kv.stats.idle),
        "block_reuse_gap_seconds": durations(&kv.stats.reuse_gap),
    });
    let parts = [blocks, memory, counts].into_iter();
    let fields = parts.filter_map(|part| match part {
        Value::Object(fields) => Some(fields),
        _ => None,
    });
    Value::Object(fields.flatten().collect())
}

/// How many there were, and bounds that shares of them do not pass.
fn durations(histogram: &Histogram) -> Value {
    let bound = |share| histogram.quantile_ms(share).map(|ms| ms as f64 / 1e3);
    json!({
        "count": histogram.count(),
        "p50": bound(0.5),
        "p90": bound(0.9),
        "p99": bound(0.99),
    })
}
