//! What is said about model files.

use serde_json::json;

use crate::support::{Place, model};

#[test]
fn a_folder_with_safetensors() {
    let place = Place::new();
    let path = model("qwen3");
    let shown = place
        .bursar_with(&[], &["show", &path, "--tensors", "--json"])
        .ok()
        .json();
    assert_eq!(shown["architecture"], "qwen3");
    assert_eq!(shown["format"], "safetensors");
    assert_eq!(
        shown["tokenizer"],
        json!({ "kind": "BPE", "pre": null, "tokens": 320 })
    );
    assert_eq!(shown["chat_template"], true);
    assert_eq!(shown["embedding"], json!(null));
    // Two layers, K and V, two heads of 32, two bytes each.
    assert_eq!(shown["kv_bytes_per_token_f16"], 2 * 2 * 2 * 32 * 2);
    let tensors = shown["tensors"].as_array().expect("a list");
    let bytes: u64 = tensors
        .iter()
        .filter_map(|tensor| tensor["bytes"].as_u64())
        .sum();
    assert_eq!(shown["types"][0]["bytes"], bytes);
    assert_eq!(shown["types"][0]["tensors"], tensors.len());
    place.bursar_with(&[], &["show", &path]).ok().says(&[
        "architecture   qwen3",
        "tokenizer      BPE, 320 tokens",
        "F32",
    ]);
}

#[test]
fn a_gguf_file() {
    let place = Place::new();
    let path = model("llama-q4_k_m.gguf");
    let shown = place
        .bursar_with(&[], &["show", &path, "--json"])
        .ok()
        .json();
    assert_eq!(shown["format"], "GGUF v3");
    assert_eq!(shown["architecture"], "llama");
    assert_eq!(shown["tokenizer"]["kind"], "gpt2");
    let types: Vec<&str> = shown["types"]
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|share| share["type"].as_str())
        .collect();
    assert!(
        types.contains(&"Q4_K") && types.contains(&"F32"),
        "{types:?}"
    );
}

#[test]
fn an_embedding_model() {
    let path = model("bert-cls");
    let shown = Place::new()
        .bursar_with(&[], &["show", &path, "--json"])
        .ok()
        .json();
    assert_eq!(shown["embedding"]["pooling"], "first token");
    assert_eq!(shown["generates"], false);
    assert!(shown["embedding"]["prompts"]["query"].is_string());
}

#[test]
fn a_name_in_the_models_folder() {
    let place = Place::new();
    place
        .bursar("synth tiny-llama:q8_0 -o tiny.gguf --seed 3")
        .ok();
    std::fs::create_dir_all(place.path("models")).expect("a folder");
    std::fs::rename(place.path("tiny.gguf"), place.path("models/tiny.gguf")).expect("renamed");
    let shown = place
        .bursar("show tiny --models-dir models --json")
        .ok()
        .json();
    assert_eq!(shown["architecture"], "llama");
    place.write("bursar.toml", "models.dir = 'models'\n");
    place.bursar("show tiny").ok();
    place
        .bursar("show huge")
        .refused(1, &["there is no model huge", "(there: tiny)"]);
}
