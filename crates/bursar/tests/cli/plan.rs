//! Plans: what they add up to, and what happens when they do not fit.

use serde_json::Value;

use crate::support::{Place, model};

fn sum(plan: &Value) -> u64 {
    let parts = plan["parts"].as_array().expect("a list");
    parts
        .iter()
        .map(|part| part["bytes"].as_u64().expect("bytes"))
        .sum()
}

fn part(plan: &Value, name: &str) -> u64 {
    let parts = plan["parts"].as_array().expect("a list");
    let part = parts.iter().find(|part| part["name"] == name).expect(name);
    part["bytes"].as_u64().expect("bytes")
}

/// B2
#[test]
fn parts_add_up_to_the_total() {
    let place = Place::new();
    let plan = |arguments: &str| {
        place
            .bursar(&format!("plan {arguments} --json"))
            .ok()
            .json()
    };
    for arguments in [
        "tiny-llama:q8_0",
        "tiny-bert",
        &model("qwen3"),
        &model("llama-q6_k.gguf"),
    ] {
        let plan = plan(arguments);
        assert_eq!(plan["total_bytes"], sum(&plan), "{arguments}");
        assert_eq!(plan["fits"], true);
        assert_eq!(plan["remedies"], serde_json::json!([]));
    }
    let half = plan("tiny-llama --kv-dtype f16 --context 1024");
    let full = plan("tiny-llama --kv-dtype f32 --context 1024");
    // Two layers, K and V, two heads of 64, four bytes each; tables beside them.
    let kv = 1024 * 2 * 2 * 2 * 64 * 4;
    assert!((kv..kv + kv / 50).contains(&part(&full, "kv")), "{full}");
    assert!(part(&full, "kv") > part(&half, "kv") * 19 / 10);
    let two = plan("tiny-llama --kv-dtype f16 --context 1024 --parallel 2");
    assert!(part(&two, "kv") > part(&half, "kv") * 19 / 10);
}

#[test]
fn an_architecture_is_planned_from_its_header() {
    let place = Place::new();
    let plan = place
        .bursar("plan nomic-embed-code:q5_k_s --memory 8GiB --json")
        .ok()
        .json();
    assert_eq!(plan["purpose"], "embed");
    let weights = part(&plan, "weights");
    assert!(
        (4_800_000_000..5_000_000_000).contains(&weights),
        "{weights}"
    );
    // Nothing is written anywhere.
    assert_eq!(place.names(), Vec::<String>::new());
}

#[test]
fn what_does_not_fit_is_3_with_all_parts_and_what_would_help() {
    let place = Place::new();
    let ran = place.bursar("plan tiny-llama --memory 5MiB");
    ran.refused(
        3,
        &[
            "error: Tiny Llama needs",
            "budget of 5.0 MiB (--memory)",
            "help: ",
        ],
    )
    .says(&["weights", "kv", "total", "budget"]);
    let ran = place
        .bursar("plan tiny-llama --memory 5MiB --json")
        .refused(3, &[]);
    let plan = ran.json();
    assert_eq!(plan["fits"], false);
    assert_eq!(plan["total_bytes"], sum(&plan));
    assert_ne!(plan["remedies"], serde_json::json!([]));

    // The same words from those who would load it, and nothing of the answer.
    for (name, verb) in [("llama", "run"), ("bert-mean", "embed")] {
        place.write("texts", "some text");
        let ran = place.bursar_with(&[("BURSAR_MEMORY", "5MiB")], &[verb, &model(name), "texts"]);
        let ran = ran.refused(3, &["weights", "total", "BURSAR_MEMORY", "help: "]);
        assert_eq!(ran.stdout, "");
    }
}

/// What a remedy promises, it keeps.
#[test]
fn remedies_help() {
    let place = Place::new();
    let plan = |more: &str| {
        place
            .bursar(&format!(
                "plan tiny-llama --kv-dtype f32 --context 2048 --json {more}"
            ))
            .json()
    };
    let total = plan("")["total_bytes"].as_u64().expect("bytes");
    let tight = format!("--memory {}", total - (1 << 20));
    let refused = plan(&tight);
    assert_eq!(refused["fits"], false);
    for remedy in refused["remedies"].as_array().expect("a list") {
        let remedy = remedy.as_str().expect("text");
        let Some(context) = remedy.strip_prefix("--context ") else {
            continue;
        };
        let context = context.split_whitespace().next().expect("a number");
        let ran = place.bursar(&format!(
            "plan tiny-llama --kv-dtype f32 --context {context} {tight} --json"
        ));
        assert_eq!(ran.ok().json()["fits"], true, "{remedy}");
        return;
    }
    panic!("no shorter context is offered: {refused}");
}

/// R3: the least of the preset's bytes, the budget and the need.
#[test]
fn a_preset_sizes_the_cache() {
    let place = Place::new();
    let plan = |more: &str| {
        let ran = place.bursar(&format!("plan qwen3-0.6b:q4_k_m --json {more}"));
        ran.ok().json()
    };
    let bytes = |plan: &Value| plan["kv"]["bytes"].as_u64().expect("bytes");
    let token = 28 * 8 * 128 * 2 * 2;
    let preset = plan("--memory 64GiB --kv-preset small");
    assert_eq!(preset["kv"]["preset"], "small");
    assert_eq!(preset["kv"]["block_tokens"], 16);
    assert_eq!(preset["kv"]["bytes_per_token"], token);
    assert!((3_990_000_000..=4_000_000_000).contains(&bytes(&preset)));
    assert_eq!(bytes(&preset), part(&preset, "kv"));
    let budget = plan("--memory 2GiB --kv-preset medium");
    assert_eq!(budget["kv"]["block_tokens"], 32);
    let total = budget["total_bytes"].as_u64().expect("bytes");
    assert!(
        total <= 2 << 30 && total > (2 << 30) - (32 << 20),
        "{total}"
    );
    let need = plan("--memory 64GiB --kv-preset large --context 1024 --parallel 2");
    assert_eq!(need["kv"]["tokens"], 2048);
    let own = plan("--memory 64GiB --kv-preset large --kv-block-tokens 16 --kv-memory 1GiB");
    assert_eq!(own["kv"]["block_tokens"], 16);
    assert!(bytes(&own) <= 1 << 30);

    let shown = place.bursar("plan qwen3-0.6b:q4_k_m --memory 64GiB --kv-preset small");
    shown.ok().says(&[
        "keys and values (preset small)",
        "114,688 bytes (112.0 KiB)",
        "sequences of 4,096",
    ]);
    place
        .bursar("plan tiny-llama --kv-preset huge")
        .refused(2, &["--kv-preset", "small, medium, large, custom"]);
}

/// T1, T8
#[test]
fn a_plan_says_what_becomes_of_the_weights() {
    let place = Place::new();
    let plan = |arguments: &str| {
        place
            .bursar(&format!("plan {arguments} --json"))
            .ok()
            .json()
    };
    let full = plan("qwen3-0.6b:f32 --memory 4GiB");
    assert_eq!(full["weights"]["dtype"], "as-is");
    assert_eq!(full["weights"]["streaming"], Value::Null);
    let auto = plan("qwen3-0.6b:f32 --memory 2GiB --weights-dtype auto");
    assert_eq!(auto["weights"]["dtype"], "bf16");
    assert!(part(&auto, "weights") * 19 / 10 < part(&full, "weights"));
    // Nothing of a Q8_0 file would be smaller.
    let same = plan("qwen3-0.6b:q8_0 --memory 2GiB --weights-dtype bf16");
    assert_eq!(same["weights"]["converts"], false);

    let streamed = plan("nomic-embed-code:q5_k_s --memory 1.5GiB");
    let streaming = &streamed["weights"]["streaming"];
    assert_eq!(streaming["window_layers"], 2);
    assert_eq!(streaming["window_bytes"], part(&streamed, "window"));
    assert_eq!(streaming["measured"], Value::Null, "there is no file");
    assert_eq!(streamed["total_bytes"], sum(&streamed));
    place
        .bursar("plan nomic-embed-code:q5_k_s --memory 1.5GiB --weights-residency resident")
        .refused(3, &["--weights-residency streamed"]);
}

#[test]
fn a_plan_is_drawn_beside_its_budget() {
    let place = Place::new();
    let drawn = |arguments: &str| {
        place.bursar(&format!("plan {arguments} --svg plan.svg"));
        String::from_utf8(place.read("plan.svg")).expect("text")
    };
    let fits = drawn("qwen3-0.6b --memory 2GiB");
    assert!(fits.contains("of 2.0 GiB: fits,"), "{fits}");
    for part in ["weights", "kv", "activations", "process"] {
        assert!(fits.contains(&format!(">{part}</text>")), "{part}: {fits}");
    }
    let over = drawn("qwen3-0.6b --memory 300MiB --weights-residency resident");
    assert!(over.contains("does not fit") && over.contains("What would make it fit:"));
}
