//! The GGUF path against llama.cpp over the same corpus, with the differences that are meant.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use bursar_tokenizer::{GgufVocab, Special, Tokenizer};
use serde_json::Value;

/// A fixture's vocabulary as a GGUF file would have it: tokens, types, scores, merges.
struct Vocabulary {
    tokens: Vec<String>,
    types: Vec<u8>,
    scores: Vec<f32>,
    merges: Vec<String>,
}

fn vocabulary(name: &str, model: &str) -> Vocabulary {
    let description: Value = serde_json::from_str(&common::description(name)).unwrap();
    let mut tokens: Vec<(u64, String, u8)> = description["model"]["vocab"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(token, id)| (id.as_u64().unwrap(), token.clone(), 1))
        .collect();
    for added in description["added_tokens"].as_array().unwrap() {
        let id = added["id"].as_u64().unwrap();
        tokens.retain(|(other, ..)| *other != id);
        let kind = if added["special"] == true { 3 } else { 4 };
        tokens.push((id, added["content"].as_str().unwrap().to_owned(), kind));
    }
    tokens.sort_unstable();
    let merges = description["model"]["merges"].as_array();
    let merges = merges.into_iter().flatten().map(|merge| {
        format!(
            "{} {}",
            merge[0].as_str().unwrap(),
            merge[1].as_str().unwrap()
        )
    });
    let mut out = Vocabulary {
        scores: (0..tokens.len()).map(|id| -(id as f32)).collect(),
        tokens: Vec::new(),
        types: Vec::new(),
        merges: merges.collect(),
    };
    for (_, token, kind) in tokens {
        out.types.push(match (model, &*token) {
            ("llama", "<unk>") => 2,
            ("llama", token) if token.starts_with("<0x") => 6,
            _ => kind,
        });
        let bracketed = token.starts_with('[') && token.ends_with(']');
        out.tokens.push(match token.strip_prefix("##") {
            _ if model != "bert" || bracketed => token,
            Some(rest) => rest.to_owned(),
            None => format!("\u{2581}{token}"),
        });
    }
    out
}

fn load(fixture: &str, golden: &Value) -> Tokenizer {
    let described = &golden["vocab"];
    let model = described["model"].as_str().unwrap();
    let vocabulary = vocabulary(fixture, model);
    let role = |name: &str| described["roles"][name].as_u64().map(|id| id as u32);
    Tokenizer::from_gguf(&GgufVocab {
        model,
        pre: described["pre"].as_str(),
        tokens: vocabulary
            .tokens
            .iter()
            .map(|token| token.as_bytes())
            .collect(),
        types: &vocabulary.types,
        scores: if model == "llama" {
            &vocabulary.scores
        } else {
            &[]
        },
        merges: vocabulary
            .merges
            .iter()
            .map(|merge| merge.as_bytes())
            .collect(),
        bos: role("bos"),
        eos: role("eos"),
        unk: role("unk"),
        sep: role("sep"),
        pad: role("pad"),
        ..GgufVocab::default()
    })
    .unwrap_or_else(|error| panic!("{fixture}: {error}"))
}

/// Compares all texts but those where `differs` holds, which are compared nowhere else: each must
/// indeed differ, so that the list stays true.
fn check(fixture: &str, golden: &str, differs: impl Fn(&str) -> bool) {
    let golden = common::json(golden);
    let tokenizer = load(fixture, &golden);
    let latin1 = |text: &str| text.chars().map(|c| c as u8).collect::<Vec<u8>>();
    for (text, case) in common::corpus()
        .iter()
        .zip(golden["cases"].as_array().unwrap())
    {
        let bare = tokenizer.encode(text, Special::NONE);
        if differs(text) {
            assert_ne!(
                bare,
                common::ids(&case["bare"]),
                "{fixture} no longer differs: {text:?}"
            );
            continue;
        }
        assert_eq!(
            bare,
            common::ids(&case["bare"]),
            "{fixture}: plain ids of {text:?}"
        );
        let full = tokenizer.encode(text, Special::ALL);
        assert_eq!(
            full,
            common::ids(&case["full"]),
            "{fixture}: ids of {text:?}"
        );
        if golden["vocab"]["model"] != "bert" {
            let want = latin1(case["text"].as_str().unwrap());
            let want = String::from_utf8_lossy(&want);
            assert_eq!(tokenizer.decode(&bare, false), want, "{fixture}: {text:?}");
        }
    }
}

#[test]
fn qwen2() {
    check("qwen2", "qwen2.llama.json", |_| false);
}

#[test]
fn llama3() {
    check("llama3", "llama3.llama.json", |_| false);
}

#[test]
fn gpt2() {
    check("gpt2", "gpt2.llama.json", |_| false);
}

#[test]
fn default() {
    check("gpt2", "default.llama.json", |_| false);
}

#[test]
fn sentencepiece() {
    check("llama2", "llama2.llama.json", |_| false);
}

/// llama.cpp normalises for BERT in its own way: it takes Hangul apart and keeps one letter of each
/// syllable, removes spacing and enclosing marks where BERT removes only nonspacing ones, takes
/// U+0085 for a control, and has no limit of 100 characters to a word. Bursar encodes as the
/// model's own tokenizer does, which the second half checks.
#[test]
fn bert() {
    let differs = |text: &str| {
        let odd = |c| {
            matches!(
                c,
                '\u{ac00}'..='\u{d7a3}' | '\u{20e3}' | '\u{93f}' | '\u{85}'
            )
        };
        let long = |word: &str| word.chars().count() > 100 && word.chars().all(char::is_alphabetic);
        text.contains(odd) || text.split(' ').any(long)
    };
    check("bert", "bert.llama.json", differs);

    let tokenizer = load("bert", &common::json("bert.llama.json"));
    let golden = common::json("bert.golden.json");
    for (text, case) in common::corpus().iter().zip(golden.as_array().unwrap()) {
        let full = common::ids(&case["full"]);
        assert_eq!(
            tokenizer.encode(text, Special::ALL),
            full,
            "ids of {text:?}"
        );
        assert_eq!(
            tokenizer.encode(text, Special::NONE),
            common::ids(&case["bare"]),
            "{text:?}"
        );
        assert_eq!(
            tokenizer.decode(&full, true),
            case["text_skip"],
            "text of {text:?}"
        );
    }
}
