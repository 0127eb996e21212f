//! The figures of the caches of keys and values: blocks, slabs, shares, counts, and how long blocks
//! live, rest and wait to be of use again.

use bursar_engine::{EngineSnapshot, Totals};
use bursar_kv::{Histogram, KvReport};

use super::page::Page;

/// A gauge or counter of a cache.
type Figure = (&'static str, &'static str, fn(&KvReport) -> f64);

const GAUGES: [Figure; 18] = [
    (
        "bursar_kv_usage_ratio",
        "Part of the KV blocks that sequences hold, of those that they may, 0 to 1.",
        |kv| kv.blocks_used as f64 / (kv.blocks_capacity as f64).max(1.0),
    ),
    (
        "bursar_kv_used_bytes",
        "Bytes of the KV blocks that sequences hold.",
        |kv| kv.bytes_used.get() as f64,
    ),
    (
        "bursar_kv_cached_bytes",
        "Bytes of the KV blocks that nobody holds and that are kept for what they store.",
        |kv| kv.bytes_cached.get() as f64,
    ),
    (
        "bursar_kv_committed_bytes",
        "Bytes of the slabs that have memory.",
        |kv| kv.bytes_committed.get() as f64,
    ),
    (
        "bursar_kv_capacity_bytes",
        "Bytes of all KV blocks.",
        |kv| kv.bytes_total.get() as f64,
    ),
    (
        "bursar_kv_promised_bytes",
        "Bytes that are never refused to keys and values: less than planned while memory is short.",
        |kv| kv.bytes_promised.get() as f64,
    ),
    (
        "bursar_kv_usable_blocks",
        "KV blocks that sequences may hold at once: fewer than planned while memory is short.",
        |kv| kv.blocks_capacity as f64,
    ),
    (
        "bursar_kv_metadata_bytes",
        "Bytes of the books and of the sequences' tables.",
        |kv| kv.bytes_metadata().get() as f64,
    ),
    (
        "bursar_kv_token_bytes",
        "Bytes of a token's keys and values.",
        |kv| kv.bytes_per_token.get() as f64,
    ),
    ("bursar_kv_block_tokens", "Tokens of a KV block.", |kv| {
        kv.block_tokens as f64
    }),
    (
        "bursar_kv_logical_blocks",
        "KV blocks as sequences count them: one that two share counts twice.",
        |kv| kv.logical_blocks as f64,
    ),
    (
        "bursar_kv_shared_blocks",
        "KV blocks that more than one sequence holds.",
        |kv| kv.shared_blocks as f64,
    ),
    (
        "bursar_kv_blocks_peak",
        "The most KV blocks that sequences held at once.",
        |kv| kv.blocks_peak as f64,
    ),
    (
        "bursar_kv_fragmentation_ratio",
        "Part of the committed bytes that lies empty in partly used slabs, 0 to 1.",
        KvReport::fragmentation,
    ),
    (
        "bursar_kv_efficiency_ratio",
        "Part of the committed bytes that is used or cached, 0 to 1.",
        KvReport::efficiency,
    ),
    (
        "bursar_kv_fragmented_bytes",
        "Committed bytes that lie empty in partly used slabs.",
        |kv| kv.bytes_fragmented.get() as f64,
    ),
    (
        "bursar_kv_compaction_last_duration_seconds",
        "How long blocks were last moved together; 0 if never.",
        |kv| {
            let last = kv.compactions.last;
            last.map_or(0.0, |last| last.duration.as_secs_f64())
        },
    ),
    (
        "bursar_kv_compaction_last_timestamp_seconds",
        "When blocks were last moved together, in seconds since 1970; 0 if never.",
        |kv| {
            kv.compactions
                .last
                .map_or(0.0, |last| last.unix_ms as f64 / 1e3)
        },
    ),
];

const COUNTERS: [Figure; 9] = [
    (
        "bursar_kv_allocations_total",
        "Times that a KV block came into use.",
        |kv| kv.stats.allocations as f64,
    ),
    (
        "bursar_kv_deallocations_total",
        "Times that the last holder of a KV block let go of it.",
        |kv| kv.stats.deallocations as f64,
    ),
    (
        "bursar_kv_evictions_total",
        "Cached KV blocks that gave way to others.",
        |kv| kv.evictions as f64,
    ),
    (
        "bursar_kv_deduplications_total",
        "Full KV blocks that turned out to be stored already.",
        |kv| kv.deduplications as f64,
    ),
    (
        "bursar_kv_copies_total",
        "Shared KV blocks that were copied before they were written.",
        |kv| kv.copies as f64,
    ),
    (
        "bursar_kv_refusals_total",
        "Slabs that the memory ledger refused.",
        |kv| kv.refusals as f64,
    ),
    (
        "bursar_kv_compactions_total",
        "Times that KV blocks were moved together.",
        |kv| kv.compactions.count as f64,
    ),
    (
        "bursar_kv_compaction_moved_bytes_total",
        "Bytes of KV blocks that were moved together.",
        |kv| kv.compactions.moved_bytes.get() as f64,
    ),
    (
        "bursar_kv_compaction_returned_bytes_total",
        "Bytes that compaction gave back to the system, measured.",
        |kv| kv.compactions.returned_bytes.get() as f64,
    ),
];

/// A counter of an engine.
type Total = (&'static str, &'static str, fn(&Totals) -> f64);

const TOTALS: [Total; 9] = [
    (
        "bursar_prefix_hit_tokens_total",
        "Tokens of prompts that were found stored and not computed.",
        |totals| totals.prefix_hit_tokens as f64,
    ),
    (
        "bursar_forks_total",
        "Sequences that took over all of another's prompt.",
        |totals| totals.forks as f64,
    ),
    (
        "bursar_overtakes_total",
        "Times that a waiting request was passed by a later one of higher priority.",
        |totals| totals.overtakes as f64,
    ),
    (
        "bursar_kv_spills_total",
        "Preempted sequences whose keys and values were written to a file.",
        |totals| totals.spills as f64,
    ),
    (
        "bursar_kv_spilled_bytes_total",
        "Bytes written for that.",
        |totals| totals.spilled_bytes as f64,
    ),
    (
        "bursar_kv_restored_bytes_total",
        "Bytes of them that were read again.",
        |totals| totals.restored_bytes as f64,
    ),
    (
        "bursar_kv_spill_failures_total",
        "KV blocks that could not be written or read again, and were computed instead.",
        |totals| totals.spill_failures as f64,
    ),
    (
        "bursar_kv_compaction_seconds_total",
        "Time spent on moving KV blocks together.",
        |totals| totals.compaction_us as f64 / 1e6,
    ),
    (
        "bursar_reply_bytes_total",
        "Bytes copied to tell clients of tokens and of their likelihoods.",
        |totals| totals.reply_bytes as f64,
    ),
];

/// Durations of a cache's blocks.
type Durations = (&'static str, &'static str, fn(&KvReport) -> &Histogram);

const HISTOGRAMS: [Durations; 3] = [
    (
        "bursar_kv_block_age_seconds",
        "Time from a KV block's taking to the end of what it stored.",
        |kv| &kv.stats.age,
    ),
    (
        "bursar_kv_block_idle_seconds",
        "Time from the last use of a KV block to the end of what it stored.",
        |kv| &kv.stats.idle,
    ),
    (
        "bursar_kv_block_reuse_gap_seconds",
        "Time between two uses of what a KV block stored.",
        |kv| &kv.stats.reuse_gap,
    ),
];

/// All of them, for each model.
pub(super) fn write(page: &mut Page, snapshots: &[(&str, EngineSnapshot)]) {
    let caches: Vec<(&str, &KvReport)> = snapshots
        .iter()
        .filter_map(|(model, snapshot)| Some((*model, snapshot.kv.as_ref()?)))
        .collect();
    for (kind, figures) in [("gauge", GAUGES.as_slice()), ("counter", &COUNTERS)] {
        for (name, help, figure) in figures {
            page.metric(name, kind, help);
            for (model, kv) in &caches {
                page.value(name, &[("model", model)], figure(kv));
            }
        }
    }
    for (name, help, total) in TOTALS {
        page.metric(name, "counter", help);
        for (model, snapshot) in snapshots {
            page.value(name, &[("model", model)], total(&snapshot.totals));
        }
    }
    states(page, &caches);
    for (name, help, histogram) in HISTOGRAMS {
        page.metric(name, "histogram", help);
        for (model, kv) in &caches {
            let histogram = histogram(kv);
            let seconds = |ms: u64| ms as f64 / 1e3;
            let buckets = histogram.buckets();
            let buckets = buckets.map(|(bound, count)| (bound.map(seconds), count));
            page.histogram(name, model, buckets, seconds(histogram.sum_ms()));
        }
    }
}

/// Blocks and slabs by what they are.
fn states(page: &mut Page, caches: &[(&str, &KvReport)]) {
    let name = "bursar_kv_blocks";
    page.metric(
        name,
        "gauge",
        "KV blocks by state; the sum is all there are.",
    );
    for (model, kv) in caches {
        for (state, count) in [
            ("used", kv.blocks_used),
            ("cached", kv.blocks_cached),
            ("free", kv.blocks_free),
            ("vacant", kv.blocks_vacant),
        ] {
            page.value(name, &[("model", model), ("state", state)], count);
        }
    }
    let name = "bursar_kv_slabs";
    page.metric(
        name,
        "gauge",
        "Slabs of KV blocks, with memory and without.",
    );
    for (model, kv) in caches {
        let vacant = kv.slabs_total.saturating_sub(kv.slabs_committed);
        for (state, count) in [("committed", kv.slabs_committed), ("vacant", vacant)] {
            page.value(name, &[("model", model), ("state", state)], count);
        }
    }
}
