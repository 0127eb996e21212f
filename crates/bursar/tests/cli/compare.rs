//! Two sheets side by side.

use serde_json::json;

use crate::support::Place;

fn sheet(isa: &str, take_ns: f64, hit_ratio: f64) -> String {
    json!({
        "bench": "pool",
        "version": "0.1.0",
        "machine": { "cpu": "Some <CPU>", "cores": 2, "isa": isa },
        "setting": { "heaps": 4 },
        "figures": {
            "take_ns": { "unit": "ns", "median": take_ns, "least": take_ns, "most": take_ns,
                         "goal": "<= 20", "met": take_ns <= 20.0 },
            "hit_ratio": { "unit": "", "median": hit_ratio, "goal": ">= 0.75", "met": true },
            "allocations": { "unit": "allocations/token", "median": take_ns - 12.0 },
        },
    })
    .to_string()
}

/// P7: ratios, what is better, goals, and what the two were not measured alike in.
#[test]
fn sheets_are_laid_side_by_side() {
    let place = Place::new();
    place.write("pooled.json", &sheet("avx512", 12.0, 0.9));
    place.write("off.json", &sheet("avx2", 48.0, 0.9));
    let ran = place
        .bursar("compare pooled.json off.json --svg ratios.svg")
        .ok();
    ran.says(&[
        "A: pooled.json, bench pool, 0.1.0",
        "machine.isa differs: A avx512, B avx2",
        "0.250",
        "better",
        "<= 20: A met, B MISSED",
    ]);
    let svg = String::from_utf8(place.read("ratios.svg")).expect("text");
    assert!(svg.contains("take_ns") && svg.contains("Some &lt;CPU&gt;"));
    assert!(svg.starts_with("<svg ") && svg.trim_end().ends_with("</svg>"));

    let told = place
        .bursar("compare pooled.json off.json --json")
        .ok()
        .json();
    let figure = |name: &str| {
        let figures = told["figures"].as_array().expect("a list");
        let found = figures.iter().find(|figure| figure["name"] == name);
        found.expect(name).clone()
    };
    assert_eq!(figure("take_ns")["ratio"], 0.25);
    assert_eq!(figure("take_ns")["a_is"], "better");
    assert_eq!(figure("hit_ratio")["a_is"], "alike");
    assert_eq!(figure("allocations")["ratio"], 0.0);
    assert_eq!(told["differs"][0]["what"], "machine.isa");
}

#[test]
fn files_that_are_no_sheets_are_refused() {
    let place = Place::new();
    place.write("a.json", &sheet("avx2", 12.0, 0.9));
    place.write("list.json", "[1, 2]");
    place.write(
        "other.json",
        "{\"bench\": \"kv\", \"figures\": {\"x\": {\"median\": 1}}}",
    );
    let compare = |with: &str| place.bursar(&format!("compare a.json {with}"));
    compare("list.json").refused(
        1,
        &["list.json is no sheet", "no \"figures\"", "--json FILE"],
    );
    compare("missing.json").refused(1, &["cannot read missing.json"]);
    compare("other.json").refused(1, &["no figure in common", "of pool and kv"]);
}
