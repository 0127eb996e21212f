//! Token ids and text against the reference, Hugging Face's `tokenizers`, over a corpus of texts
//! that tokenizers get wrong.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use bursar_tokenizer::{Special, Tokenizer};

fn check(name: &str) {
    let tokenizer = common::tokenizer(name);
    let golden = common::json(&format!("{name}.golden.json"));
    let corpus = common::corpus();
    let cases = golden.as_array().expect("a list of cases");
    assert_eq!(cases.len(), corpus.len());
    for (text, case) in corpus.iter().zip(cases) {
        let full = common::ids(&case["full"]);
        assert_eq!(
            tokenizer.encode(text, Special::ALL),
            full,
            "{name}: ids of {text:?}"
        );
        let bare = tokenizer.encode(text, Special::NONE);
        assert_eq!(
            bare,
            common::ids(&case["bare"]),
            "{name}: plain ids of {text:?}"
        );
        assert_eq!(
            tokenizer.decode(&full, false),
            case["text"],
            "{name}: text of {text:?}"
        );
        assert_eq!(
            tokenizer.decode(&full, true),
            case["text_skip"],
            "{name}: {text:?}"
        );
        stream(&tokenizer, &full);
    }
}

/// A stream gives the text of the whole, in pieces that are text.
fn stream(tokenizer: &Tokenizer, ids: &[u32]) {
    let mut stream = tokenizer.detokenizer(true);
    let mut text = String::new();
    for &id in ids {
        let piece = stream.push(tokenizer, id);
        assert!(!piece.contains('\u{fffd}') || tokenizer.decode(ids, true).contains('\u{fffd}'));
        text.push_str(piece);
    }
    text.push_str(stream.finish());
    assert_eq!(text, tokenizer.decode(ids, true));
}

macro_rules! golden {
    ($($name:ident)*) => {
        $(
            #[test]
            fn $name() {
                check(stringify!($name));
            }
        )*
    };
}

golden!(qwen2 llama3 gpt2 roberta starcoder tekken llama2 mistral metaspace wordpiece_cased bert);

#[test]
fn a_config_names_the_ends_of_a_sequence() {
    let config = br#"{
        "bos_token": {"__type": "AddedToken", "content": "<|im_start|>"},
        "eos_token": "<|im_end|>", "pad_token": "<|endoftext|>", "unk_token": null,
        "chat_template": "x", "model_max_length": 131072
    }"#;
    let tokenizer = common::tokenizer("qwen2").with_config(config).unwrap();
    assert_eq!(tokenizer.bos(), tokenizer.token_id("<|im_start|>"));
    assert_eq!(tokenizer.eos(), tokenizer.token_id("<|im_end|>"));
    assert!(tokenizer.eos().is_some_and(|id| tokenizer.is_special(id)));
    assert_eq!(
        tokenizer.special_ids().pad,
        tokenizer.token_id("<|endoftext|>")
    );
    assert_eq!(tokenizer.special_ids().unk, None);
}

#[test]
fn a_tokens_bytes_are_what_it_adds_to_text() {
    for name in ["qwen2", "llama2", "bert"] {
        let tokenizer = common::tokenizer(name);
        for text in [
            "say h\u{e9} \u{1f600} \u{4f60}.",
            "un\u{301}believable words",
        ] {
            let ids = tokenizer.encode(text, Special::NONE);
            let bytes: Vec<u8> = ids
                .iter()
                .flat_map(|&id| tokenizer.token_bytes(id).into_owned())
                .collect();
            let joined = String::from_utf8(bytes).unwrap();
            // Without what a decoder does at the start and around punctuation.
            let squash = |text: &str| text.replace(' ', "");
            assert_eq!(
                squash(&joined),
                squash(&tokenizer.decode(&ids, false)),
                "{name}"
            );
        }
    }
    assert_eq!(&*common::tokenizer("qwen2").token_bytes(1_000_000), b"");
}
