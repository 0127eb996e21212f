//! Broken and unknown descriptions: an error that names the trouble, never a panic; and texts made
//! to be slow.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use std::time::{Duration, Instant};

use bursar_tokenizer::{GgufVocab, Special, Tokenizer, TokenizerError};
use serde_json::{Value, json};

/// What building says about `name`'s description after `change`.
fn error_of(name: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut description = serde_json::from_str(&common::description(name)).unwrap();
    change(&mut description);
    match Tokenizer::from_json(description.to_string().as_bytes()) {
        Ok(_) => panic!("{name}: no error"),
        Err(error) => error.to_string(),
    }
}

fn check(name: &str, wanted: &str, change: impl FnOnce(&mut Value)) {
    let error = error_of(name, change);
    assert!(error.contains(wanted), "{error:?} does not say {wanted:?}");
}

#[test]
fn what_is_unknown_is_named() {
    check("gpt2", "normalizer `Precompiled`", |d| {
        d["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": ""});
    });
    check("gpt2", "pre-tokenizer `UnicodeScripts`", |d| {
        d["pre_tokenizer"] = json!({"type": "UnicodeScripts"});
    });
    check("llama2", "decoder `CTC`", |d| {
        d["decoder"] = json!({"type": "CTC"})
    });
    check("llama2", "place of a decoder `Strip`", |d| {
        d["decoder"] = json!({"type": "Strip", "content": " ", "start": 1, "stop": 0});
    });
    check("gpt2", "post-processor `Other`", |d| {
        d["post_processor"] = json!({"type": "Other"})
    });
    check("gpt2", "model `Unigram`", |d| {
        d["model"]["type"] = json!("Unigram")
    });
    check("gpt2", "`dropout`", |d| d["model"]["dropout"] = json!(0.1));
    check("gpt2", "`end_of_word_suffix`", |d| {
        d["model"]["end_of_word_suffix"] = json!("</w>")
    });
    check("gpt2", "without a ByteLevel decoder", |d| {
        d["decoder"] = json!({"type": "Fuse"})
    });
    check("gpt2", "pattern `(`", |d| {
        let split = json!({"type": "Split", "pattern": {"Regex": "("}, "behavior": "Isolated"});
        d["pre_tokenizer"] =
            json!({"type": "Sequence", "pretokenizers": [split, d["pre_tokenizer"]]});
    });
    check("gpt2", "after ByteLevel `Digits`", |d| {
        let digits = json!({"type": "Digits", "individual_digits": true});
        d["pre_tokenizer"] =
            json!({"type": "Sequence", "pretokenizers": [d["pre_tokenizer"], digits]});
    });
}

#[test]
fn what_contradicts_itself_is_named() {
    check("gpt2", "`vocab`", |d| {
        drop(d["model"].as_object_mut().unwrap().remove("vocab"))
    });
    check("gpt2", "`merges`", |d| {
        drop(d["model"].as_object_mut().unwrap().remove("merges"))
    });
    check("gpt2", "is empty", |d| d["model"]["vocab"] = json!({}));
    check("gpt2", "that the vocabulary lacks", |d| {
        d["model"]["merges"] = json!([["zzzz", "a"]]);
    });
    check("gpt2", "merge", |d| d["model"]["merges"] = json!(["a b c"]));
    check("gpt2", "not in the vocabulary", |d| {
        d["model"]["merges"] = json!([["\u{100}", "~"]])
    });
    check("gpt2", "a token id is 4000000000", |d| {
        d["model"]["vocab"]["x"] = json!(4_000_000_000_u32)
    });
    check("gpt2", "highest token id", |d| {
        d["model"]["vocab"]["x"] = json!(9_000_000)
    });
    check("gpt2", "of another token", |d| {
        d["added_tokens"][0]["id"] = json!(5)
    });
    check("bert", "unknown token", |d| {
        d["model"]["unk_token"] = json!("[NONE]")
    });
    check("llama3", "does not exist", |d| {
        let ids = &mut d["post_processor"]["processors"][1]["special_tokens"];
        ids["<|begin_of_text|>"]["ids"] = json!([123_456]);
    });
}

#[test]
fn every_truncation_and_many_flips_of_a_description_are_errors_or_tokenizers() {
    let json = common::description("wordpiece_cased");
    for len in 0..json.len() {
        let _ = Tokenizer::from_json(&json.as_bytes()[..len]);
    }
    for name in ["wordpiece_cased", "llama3", "mistral"] {
        let mut json = common::description(name).into_bytes();
        for at in (0..json.len()).step_by(29) {
            let bit = 1 << (at % 8);
            json[at] ^= bit;
            if let Ok(tokenizer) = Tokenizer::from_json(&json) {
                let ids = tokenizer.encode("Any text, 1 2 3 \u{e9}\u{1f600}", Special::ALL);
                tokenizer.decode(&ids, false);
            }
            json[at] ^= bit;
        }
    }
}

#[test]
fn gguf_metadata_that_cannot_be_is_refused() {
    let tokens: Vec<&[u8]> = vec![b"<unk>", b"a", b"b", b"ab"];
    let good = GgufVocab {
        model: "gpt2",
        pre: Some("qwen2"),
        tokens: tokens.clone(),
        merges: vec![b"a b"],
        ..GgufVocab::default()
    };
    assert_eq!(
        Tokenizer::from_gguf(&good)
            .unwrap()
            .encode("ab", Special::ALL),
        [3]
    );
    let check = |vocab: GgufVocab<'_>, wanted: &str| {
        let error = Tokenizer::from_gguf(&vocab)
            .map(|_| ())
            .unwrap_err()
            .to_string();
        assert!(error.contains(wanted), "{error:?} does not say {wanted:?}");
    };
    check(GgufVocab::default(), "tokens");
    check(
        GgufVocab {
            model: "t5",
            ..good.clone()
        },
        "`t5`",
    );
    check(
        GgufVocab {
            pre: Some("new-thing"),
            ..good.clone()
        },
        "`new-thing`",
    );
    check(
        GgufVocab {
            types: &[1, 1],
            ..good.clone()
        },
        "2 token types for 4",
    );
    check(
        GgufVocab {
            merges: vec![],
            ..good.clone()
        },
        "merges",
    );
    check(
        GgufVocab {
            merges: vec![b"a zz"],
            ..good.clone()
        },
        "merge 0",
    );
    check(
        GgufVocab {
            tokens: vec![b"\xff"],
            ..good.clone()
        },
        "token 0 is not UTF-8",
    );
    check(
        GgufVocab {
            add_bos: Some(true),
            bos: Some(99),
            ..good.clone()
        },
        "BOS",
    );
    check(
        GgufVocab {
            model: "llama",
            ..good.clone()
        },
        "0 scores for 4",
    );
    check(
        GgufVocab {
            model: "bert",
            ..good.clone()
        },
        "unknown token of BERT",
    );
    let scores = [0.0, f32::NAN, f32::INFINITY, -1.0];
    let odd = GgufVocab {
        model: "llama",
        scores: &scores,
        bos: Some(0),
        ..good.clone()
    };
    let tokenizer = Tokenizer::from_gguf(&odd).unwrap();
    tokenizer.encode("abba", Special::ALL);
    let byte = GgufVocab {
        types: &[6, 1, 1, 1],
        ..odd
    };
    assert!(matches!(
        Tokenizer::from_gguf(&byte),
        Err(TokenizerError::Inconsistent(_))
    ));
}

#[test]
fn long_runs_take_time_in_proportion() {
    // Far above what any machine needs, far below what a quadratic step would take.
    let limit = Duration::from_secs(20);
    for name in [
        "qwen2",
        "llama3",
        "roberta",
        "tekken",
        "llama2",
        "metaspace",
        "bert",
    ] {
        let tokenizer = common::tokenizer(name);
        for unit in [
            "a", " ", "\n", "1", "!", "\u{301}", "\u{4f60}", "<|", "ab ", "'s", "\u{2581}",
        ] {
            let text = unit.repeat((1 << 18) / unit.len());
            let started = Instant::now();
            let ids = tokenizer.encode(&text, Special::ALL);
            tokenizer.decode(&ids, true);
            let took = started.elapsed();
            assert!(took < limit, "{name}: {unit:?} took {took:?}");
        }
    }
}
