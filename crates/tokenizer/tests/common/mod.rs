//! The fixtures that `tools/reference/tokenizers/make.py` makes.

// Each test file uses its own part.
#![allow(dead_code)]

use std::path::PathBuf;

use bursar_tokenizer::Tokenizer;
use serde_json::{Map, Value, json};

/// The tokenizers trained for the fixtures.
pub(crate) const TRAINED: [&str; 10] = [
    "qwen2",
    "llama3",
    "gpt2",
    "roberta",
    "starcoder",
    "tekken",
    "llama2",
    "mistral",
    "metaspace",
    "wordpiece_cased",
];

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests", "fixtures", name]
        .iter()
        .collect()
}

/// A fixture's text.
pub(crate) fn text(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A fixture as JSON.
pub(crate) fn json(name: &str) -> Value {
    serde_json::from_str(&text(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The text of a tokenizer's `tokenizer.json`.
pub(crate) fn description(name: &str) -> String {
    if name == "bert" {
        bert_json()
    } else {
        text(&format!("{name}.tokenizer.json"))
    }
}

/// The tokenizer of a fixture.
pub(crate) fn tokenizer(name: &str) -> Tokenizer {
    Tokenizer::from_json(description(name).as_bytes())
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// The nasty texts.
pub(crate) fn corpus() -> Vec<String> {
    serde_json::from_value(json("corpus.json")).expect("a list of strings")
}

/// Ids of a JSON list.
pub(crate) fn ids(value: &Value) -> Vec<u32> {
    serde_json::from_value(value.clone()).expect("a list of ids")
}

/// The description of all-MiniLM-L6-v2's tokenizer around its vocabulary, one token a line.
fn bert_json() -> String {
    let special = |id: u32, content: &str| {
        json!({
            "id": id, "content": content, "single_word": false, "lstrip": false, "rstrip": false,
            "normalized": false, "special": true,
        })
    };
    let names = [
        (0, "[PAD]"),
        (100, "[UNK]"),
        (101, "[CLS]"),
        (102, "[SEP]"),
        (103, "[MASK]"),
    ];
    let vocab: Map<String, Value> = text("bert.vocab.txt")
        .lines()
        .enumerate()
        .map(|(id, token)| (token.to_owned(), json!(id)))
        .collect();
    json!({
        "version": "1.0",
        "added_tokens": names.map(|(id, content)| special(id, content)),
        "normalizer": {
            "type": "BertNormalizer", "clean_text": true, "handle_chinese_chars": true,
            "strip_accents": null, "lowercase": true,
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [
                {"SpecialToken": {"id": "[CLS]", "type_id": 0}},
                {"Sequence": {"id": "A", "type_id": 0}},
                {"SpecialToken": {"id": "[SEP]", "type_id": 0}},
            ],
            "pair": [],
            "special_tokens": {
                "[CLS]": {"id": "[CLS]", "ids": [101], "tokens": ["[CLS]"]},
                "[SEP]": {"id": "[SEP]", "ids": [102], "tokens": ["[SEP]"]},
            },
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": true},
        "model": {
            "type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100, "vocab": vocab,
        },
    })
    .to_string()
}
