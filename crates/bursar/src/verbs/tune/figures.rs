//! What of a report of `GET /memory` the advisor reads.

use bursar_memory::Bytes;
use bursar_memory::advisor::{Finding, Grade, PoolFigures};
use serde_json::Value;

use crate::failure::Failure;

/// Requests below which nothing is said about their parameters.
const REQUESTS_MIN: u64 = 1000;
/// From which share on requests share their parameters as well as they usually do.
const DEDUP_USUAL: f64 = 0.6;

/// The figures of the pools: of buffers, and of the heaps behind them. `None` where they are off.
///
/// # Errors
/// Where the value is no report.
pub(super) fn of_pools(report: &Value) -> Result<Option<PoolFigures>, Failure> {
    if !report["budget_bytes"].is_u64() {
        return Err(
            Failure::failed("this is no report of a server: it names no budget_bytes")
                .help("write one with `bursar memory --json > FILE`"),
        );
    }
    let pools = report["pools"].as_array();
    let named = |name: &str| {
        pools
            .into_iter()
            .flatten()
            .find(|pool| pool["name"] == name)
    };
    let (Some(heaps), Some(buffers)) = (named("heaps"), named("buffers")) else {
        return Ok(None);
    };
    let count = |pool: &Value, name: &str| pool[name].as_u64().unwrap_or(0);
    let ratio = |pool: &Value, name: &str| pool[name].as_f64().unwrap_or(0.0);
    Ok(Some(PoolFigures {
        capacity: Bytes(count(heaps, "capacity_bytes")),
        used: Bytes(count(heaps, "used_bytes")),
        heaps: count(heaps, "heaps_total"),
        heaps_max: heaps["heaps_max"].as_u64(),
        acquired: count(buffers, "allocations_total"),
        hit_ratio: ratio(buffers, "hit_ratio"),
        allocations: count(heaps, "allocations_total"),
        fallbacks: count(heaps, "fallback_total"),
        largest: Bytes(count(heaps, "largest_bytes")),
        average: Bytes(count(heaps, "average_bytes")),
        largest_free: Bytes(count(heaps, "largest_free_bytes")),
        fragmentation_ratio: ratio(heaps, "fragmentation_ratio"),
        leaked: count(heaps, "leaked").saturating_add(count(buffers, "leaked")),
    }))
}

/// What is to be said of the parameters that requests share, and how many should be kept, if more.
/// Where none had to give way to others, more room would not help.
pub(super) fn of_params(report: &Value) -> Option<(Finding, Option<u64>)> {
    let params = &report["params"];
    let ratio = params["dedup_ratio"].as_f64()?;
    if params["requests_total"].as_u64()? < REQUESTS_MIN {
        return None;
    }
    let crowded = params["evictions_total"].as_u64() > Some(0) && ratio < DEDUP_USUAL;
    let capacity = params["unique"]
        .as_u64()?
        .saturating_mul(2)
        .next_power_of_two();
    let finding = Finding {
        figure: "params.dedup_ratio",
        value: ratio,
        grade: match (ratio >= DEDUP_USUAL, crowded) {
            (true, _) => Grade::Excellent,
            (false, true) => Grade::Fair,
            (false, false) => Grade::Good,
        },
        words: match (ratio >= DEDUP_USUAL, crowded) {
            (true, _) => "most requests share their sampling parameters",
            (false, true) => {
                "sampling parameters give way to others before they are used again: keep more"
            }
            (false, false) => {
                "requests differ in their sampling parameters; more room would not help"
            }
        },
    };
    Some((finding, crowded.then(|| capacity.min(1 << 16))))
}
