//! Benches: that they measure what they say, not how fast this machine is.

use serde_json::Value;

use crate::support::{self, Place, model};

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

/// T3
#[test]
fn batches_of_every_size_are_measured() {
    let place = Place::new();
    let model = model("bert-mean");
    let arguments = "--sizes 1,8,64 --texts 64 --length 12 --rounds 1 --json -";
    let ran = place
        .bursar(&format!("bench embed {model} {arguments}"))
        .ok();
    let sheet = ran.json();
    let of = |size, what: &str| figure(&sheet, &format!("batch_{size}_{what}"));
    for size in [1, 8, 64] {
        assert!(of(size, "texts_per_second") > 0.0 && of(size, "tokens_per_second") > 0.0);
        assert!(of(size, "texts_mean") <= f64::from(size), "{sheet}");
    }
    assert_eq!(of(1, "texts_mean"), 1.0);
    assert!(of(64, "texts_mean") > 16.0, "{sheet}");
    assert!(of(64, "activations_bytes") > of(8, "activations_bytes"));
    place
        .bursar(&format!("bench embed {model} --sizes 0"))
        .refused(2, &["--sizes is 0"]);
}

/// T5
#[test]
fn spans_are_summed_up_and_traced() {
    let place = Place::new();
    let model = model("qwen3");
    let ran = place
        .bursar(&format!(
            "bench profile {model} --trace trace.json --json sheet.json"
        ))
        .ok();
    ran.says(&["SPAN", "P99", "engine.forward", "op.product", "when off"]);
    let sheet: Value = serde_json::from_slice(&place.read("sheet.json")).expect("JSON");
    let spans = sheet["spans"].as_array().expect("a list");
    let span = |name: &str| {
        let found = spans.iter().find(|span| span["name"] == name);
        found.unwrap_or_else(|| panic!("{name} is missing from {sheet}"))
    };
    for name in [
        "load",
        "load.read",
        "load.pack",
        "engine.schedule",
        "engine.forward",
        "engine.sample",
        "engine.publish",
    ] {
        let value = |part: &str| span(name)[part].as_f64().expect("a number");
        assert!(value("count") > 0.0);
        assert!(value("min_seconds") <= value("p50_seconds"));
        assert!(value("p50_seconds") <= value("p99_seconds"));
        assert!(value("p99_seconds") <= value("max_seconds"));
    }
    // Eight clients get 32 tokens each.
    assert_eq!(span("engine.sample")["count"], 8 * 32);
    let trace: Value = serde_json::from_slice(&place.read("trace.json")).expect("JSON");
    let events = trace["traceEvents"].as_array().expect("a list");
    let of = |phase: &str| events.iter().filter(|event| event["ph"] == phase).count();
    assert!(of("X") > 100 && of("C") > 1 && of("M") >= 2);
    let embedding = place
        .bursar(&format!("bench profile {}", support::model("bert-mean")))
        .ok();
    embedding.says(&["embed.tokenize", "embed.pack", "embed.forward"]);
}
