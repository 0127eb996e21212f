//! The report on keys and values as a page to read.

use serde_json::Value;

use crate::output::{Table, grouped};
use crate::verbs::ps::size;

/// The page of one model.
pub(super) fn page(report: &Value) -> Table {
    let count = |name: &str| report[name].as_u64().map_or("-".to_owned(), grouped);
    let bytes = |name: &str| size(&report[name]);
    let percent = |name: &str| {
        let share = report[name].as_f64();
        share.map_or("-".to_owned(), |share| format!("{:.1} %", share * 100.0))
    };
    let mut table = Table::plain(2);
    let mut row = |name: &str, text: String| table.row([name.to_owned(), text]);
    row("model", report["model"].as_str().unwrap_or("-").to_owned());
    row(
        "block",
        format!(
            "{} tokens, {} bytes per token",
            count("block_tokens"),
            count("bytes_per_token")
        ),
    );
    row(
        "blocks",
        format!(
            "{} in all: {} used, {} cached, {} free",
            count("blocks_total"),
            count("blocks_used"),
            count("blocks_cached"),
            count("blocks_free")
        ),
    );
    row(
        "sequences",
        format!(
            "hold {} blocks, of which {} are shared",
            count("logical_blocks"),
            count("shared_blocks")
        ),
    );
    row(
        "memory",
        format!(
            "{} of {} committed in {} of {} slabs: {} used, {} cached",
            bytes("committed_bytes"),
            bytes("capacity_bytes"),
            count("slabs"),
            count("slabs_total"),
            bytes("used_bytes"),
            bytes("cached_bytes")
        ),
    );
    row(
        "shares",
        format!(
            "{} fragmentation ({}), {} efficiency",
            percent("fragmentation_ratio"),
            bytes("fragmented_bytes"),
            percent("efficiency_ratio")
        ),
    );
    row("metadata", bytes("metadata_bytes"));
    row(
        "allocations",
        format!(
            "{} in all, {} given back, {} now, {} at most",
            count("allocations_total"),
            count("deallocations_total"),
            count("allocations_current"),
            count("allocations_peak")
        ),
    );
    row(
        "prefixes",
        format!(
            "{} tokens found stored; {} blocks evicted, {} deduplicated, {} copied",
            count("prefix_hit_tokens_total"),
            count("evictions_total"),
            count("deduplications_total"),
            count("copies_total")
        ),
    );
    let last = match report["compaction_last_duration_ms"].as_f64() {
        Some(ms) => format!("; the last took {ms:.3} ms"),
        None => String::new(),
    };
    row(
        "compactions",
        format!(
            "{}: {} moved, {} given back{last}",
            count("compactions_total"),
            bytes("compaction_moved_bytes_total"),
            bytes("compaction_returned_bytes_total")
        ),
    );
    row(
        "pressure",
        format!(
            "{} preemptions; {} spilled, {} restored",
            count("preemptions_total"),
            bytes("spilled_bytes_total"),
            bytes("restored_bytes_total")
        ),
    );
    let median = |name: &str| {
        let seconds = report[name]["p50"].as_f64();
        seconds.map_or("-".to_owned(), |seconds| format!("{seconds} s"))
    };
    row(
        "medians",
        format!(
            "block age {}, idle {}, until used again {} (at most)",
            median("block_age_seconds"),
            median("block_idle_seconds"),
            median("block_reuse_gap_seconds")
        ),
    );
    table
}
