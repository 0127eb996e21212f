//! Advice from figures, and settings that it names.

use serde_json::{Value, json};

use crate::support::Place;

fn report(hit_ratio: f64, used_bytes: u64, fallback_total: u64) -> Value {
    json!({
        "budget_bytes": 1u64 << 30,
        "pools": [
            { "name": "heaps", "capacity_bytes": 8 << 20, "used_bytes": used_bytes, "heaps_total": 2,
              "heaps_max": 2, "allocations_total": 10_000, "fallback_total": fallback_total,
              "largest_bytes": 300_000, "average_bytes": 20_000, "largest_free_bytes": 1 << 20,
              "fragmentation_ratio": 0.1, "leaked": 0 },
            { "name": "buffers", "allocations_total": 50_000, "hit_ratio": hit_ratio, "leaked": 0 },
        ],
        "params": { "unique": 1024, "requests_total": 9000, "dedup_ratio": 0.3,
                    "evictions_total": 5000, "bytes": 200_000 },
    })
}

/// P4: what it prints is a file that the program accepts, in either language.
#[test]
fn advice_can_be_pasted() {
    let place = Place::new();
    place.write("then.json", &report(0.5, 8 << 20, 2000).to_string());
    let text = place.bursar("tune then.json").ok();
    text.says(&[
        "hit_ratio",
        "50.0 %",
        "poor",
        "fallback_ratio",
        "[pool]",
        "heaps = 4",
        "pool:\n",
        "capacity: 2048",
    ]);
    let told = place.bursar("tune then.json --json").ok().json();
    assert_eq!(told["settings"]["pool.heaps"], "4");
    for (file, text) in [
        ("bursar.toml", &told["toml"]),
        ("bursar.yaml", &told["yaml"]),
    ] {
        let other = Place::new();
        other.write(file, text.as_str().expect("text"));
        let settings = &other.bursar("config --json").ok().json()["settings"];
        for (key, value) in told["settings"].as_object().expect("settings") {
            let effective = &settings[key];
            assert_eq!(effective["from"], "file", "{key} = {value}");
        }
        assert_eq!(settings["pool.heaps"]["value"], 4);
    }
}

#[test]
fn where_all_is_well_nothing_is_to_change() {
    let place = Place::new();
    let mut all_well = report(0.97, 5 << 20, 0);
    all_well["params"]["dedup_ratio"] = 0.8.into();
    place.write("well.json", &all_well.to_string());
    place
        .bursar("tune well.json")
        .ok()
        .says(&["excellent", "Nothing to change."]);
    let mut off = all_well.clone();
    off["pools"] = json!([]);
    place.write("off.json", &off.to_string());
    place.bursar("tune off.json").ok().says(&["Pools are off"]);
    place.write("other.json", "{}");
    place
        .bursar("tune other.json")
        .refused(1, &["no report of a server", "bursar memory --json"]);
    place
        .bursar("tune missing.json")
        .refused(1, &["cannot read missing.json", "http://"]);
    place
        .bursar("tune https://127.0.0.1:1")
        .refused(2, &["plain HTTP"]);
}

/// P3: pools that cannot be are refused before anything is loaded.
#[test]
fn pools_that_cannot_be_are_refused() {
    let place = Place::new();
    let serve = |more: &str| {
        place.bursar(&format!(
            "serve --listen 127.0.0.1:0 --memory 512MiB {more}"
        ))
    };
    serve("--pool-heap-size 1MiB --pool-warmup-sizes 64KiB,2MiB")
        .refused(2, &["2.0 MiB", "pool.warmup_sizes", "pool.heap_size"]);
    serve("--pool-heaps 4 --pool-max-heaps 2").refused(2, &["pool.max_heaps is 2"]);
    serve("--pool-heap-size 2GiB").refused(3, &["--no-pool"]);
    place
        .bursar("serve --pool-strategy first")
        .refused(2, &["round-robin, best-fit, least-used"]);
}

/// A trace is replayed with the pools of the settings, and drawn.
#[test]
fn a_trace_is_replayed_and_drawn() {
    let place = Place::new();
    // A buffer of 4 KiB, taken again as often as it has been given back, and one that stays.
    let blocks = 9;
    let (mut after_us, mut block) = (vec![0], vec![0]);
    for taken in 1..blocks {
        after_us.extend([10, 5]);
        block.extend([taken, taken]);
    }
    let trace = json!({
        "format": "bursar-trace-1", "lost_events": 0, "places": ["body.rs:1"],
        "blocks": { "bytes": vec![4096; blocks], "lifetime": vec![1; blocks], "place": vec![0; blocks] },
        "events": { "after_us": after_us, "block": block },
    });
    place.write("trace.json", &trace.to_string());
    let drawn = place
        .bursar("memory --trace trace.json --svg over-time.svg --memory 64MiB")
        .ok();
    drawn.says(&[
        "17 events replayed (best-fit",
        "77.8 % of the buffers were there already",
    ]);
    let svg = String::from_utf8(place.read("over-time.svg")).expect("text");
    assert!(
        svg.starts_with("<svg ") && svg.contains("trace.json"),
        "{svg}"
    );
    place
        .bursar("memory --trace trace.json --svg x.svg --memory 64MiB --pool-heaps 3 --pool-max-heaps 2")
        .refused(2, &["pool.max_heaps is 2"]);
    place.write("none.json", "{}");
    place
        .bursar("memory --trace none.json --svg x.svg --memory 64MiB")
        .refused(1, &["none.json", "--pool-record FILE"]);
}
