//! Benches: that they measure what they say, not how fast this machine is.

use serde_json::Value;

use crate::support::Place;

fn figure(sheet: &Value, name: &str) -> f64 {
    let median = sheet["figures"][name]["median"].as_f64();
    median.unwrap_or_else(|| panic!("{name} is missing from {sheet}"))
}

#[test]
fn the_cost_of_the_cache_is_measured() {
    let place = Place::new();
    let ran = place.bursar("bench kv --batches 3 --json sheet.json").ok();
    ran.says(&["allocate_single_ns", "compaction_gb_per_s", "GB/s"]);
    let sheet: Value = serde_json::from_slice(&place.read("sheet.json")).expect("JSON");
    assert_eq!(sheet["bench"], "kv");
    assert_eq!(sheet["setting"]["consecutive_were_neighbours"], true);
    assert_eq!(sheet["setting"]["blocks_found"], 63);
    for name in [
        "allocate_single_ns",
        "allocate_consecutive_ns",
        "allocate_scattered_ns",
        "free_ns",
        "lookup_1000_tokens_ns",
        "compaction_gb_per_s",
        "compaction_returned_bytes",
    ] {
        assert!(figure(&sheet, name) > 0.0, "{name}");
    }
    // What compaction says went back, went back.
    assert!(figure(&sheet, "compaction_rss_ratio") >= 0.9, "{sheet}");
}

/// R6: what is shared is held once, and no more than the end of a block is wasted.
#[test]
fn requests_that_begin_alike_hold_little_more_than_half() {
    let place = Place::new();
    let ran = place.bursar("bench memory --compare --json -").ok();
    let sheet = ran.json();
    assert!(
        figure(&sheet, "shared_to_contiguous_ratio") <= 0.58,
        "{sheet}"
    );
    assert!(figure(&sheet, "shared_waste_ratio") < 0.04, "{sheet}");
    assert_eq!(figure(&sheet, "shared_running"), 8.0);
    let computed = |mode: &str| figure(&sheet, &format!("{mode}_computed_tokens"));
    assert_eq!(computed("separate") - computed("shared"), 7.0 * 512.0);
    assert_eq!(computed("separate"), computed("contiguous"));
}
