//! Token ids and text against the `tokenizers` crate on what no corpus holds: every kind of
//! character, texts put together at random, and ids that no text gives.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;

use bursar_tokenizer::{Special, Tokenizer};

fn oracle(name: &str) -> tokenizers::Tokenizer {
    common::description(name)
        .parse()
        .unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Compares ids and text; the message names the text.
fn check(name: &str, ours: &Tokenizer, oracle: &tokenizers::Tokenizer, text: &str) {
    let want = oracle.encode_fast(text, true).expect("the oracle encodes");
    let ids = ours.encode(text, Special::ALL);
    assert_eq!(ids, want.get_ids(), "{name}: ids of {text:?}");
    let decoded = oracle.decode(&ids, true).expect("the oracle decodes");
    assert_eq!(ours.decode(&ids, true), decoded, "{name}: text of {text:?}");
}

/// A generator of numbers (splitmix64), so that a failure can be repeated.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((x ^ (x >> 31)) % limit as u64) as usize
    }
}

/// Every character below U+0700, and beyond it those next to a change of category and every 97th.
fn characters() -> Vec<char> {
    use unicode_general_category::get_general_category as category;
    let mut before = None;
    let mut chars: Vec<char> = ('\0'..=char::MAX).collect();
    chars.retain(|&c| {
        let changed = before.replace(category(c)) != Some(category(c));
        changed || u32::from(c) < 0x700 || u32::from(c).is_multiple_of(97)
    });
    chars
}

#[test]
fn every_kind_of_character() {
    // The cased one without its normalizer: the reference's tables of marks are of 2020.
    let mut plain: serde_json::Value =
        serde_json::from_str(&common::description("wordpiece_cased")).expect("a description");
    plain["normalizer"] = serde_json::Value::Null;
    let plain = ("plain wordpiece", plain.to_string());
    let names = ["bert", "qwen2", "roberta", "llama2", "metaspace"];
    for (name, json) in names
        .map(|name| (name, common::description(name)))
        .iter()
        .chain([&plain])
    {
        let ours = Tokenizer::from_json(json.as_bytes()).expect("a description");
        let oracle: tokenizers::Tokenizer = json.parse().expect("a description");
        let wrong = characters().into_iter().filter(|c| {
            let text = format!("a{c}b {c}. '{c}");
            let want = oracle
                .encode_fast(&*text, true)
                .expect("the oracle encodes");
            ours.encode(&text, Special::ALL) != want.get_ids()
        });
        let wrong: Vec<char> = wrong.collect();
        assert!(
            wrong.is_empty(),
            "{name}: {} differ: {wrong:?}",
            wrong.len()
        );
    }
}

#[test]
fn random_texts() {
    let corpus = common::corpus();
    let pieces: Vec<char> = corpus.iter().flat_map(|text| text.chars()).collect();
    let specials = [
        "<|im_end|>",
        "<s>",
        "[MASK]",
        "<mask>",
        "<tool_call>",
        "Hello",
        " ",
        "\n",
    ];
    for name in common::TRAINED.iter().copied().chain(["bert"]) {
        let (ours, oracle) = (common::tokenizer(name), oracle(name));
        let mut random = Random(7);
        for _ in 0..1500 {
            let mut text = String::new();
            for _ in 0..random.below(30) {
                match random.below(8) {
                    0 => text.push_str(specials[random.below(specials.len())]),
                    1 => {
                        // A stretch of a text.
                        let chars: Vec<char> = corpus[random.below(corpus.len())].chars().collect();
                        let start = random.below(chars.len() + 1);
                        let end = (start + random.below(12)).min(chars.len());
                        text.extend(&chars[start..end]);
                    }
                    _ => text.push(pieces[random.below(pieces.len())]),
                }
            }
            check(name, &ours, &oracle, &text);
        }
    }
}

#[test]
fn random_ids() {
    for name in common::TRAINED.iter().copied().chain(["bert"]) {
        let (ours, oracle) = (common::tokenizer(name), oracle(name));
        let is_piece = matches!(name, "llama2" | "mistral" | "metaspace");
        let mut random = Random(11);
        for _ in 0..1500 {
            let count = random.below(20);
            let ids: Vec<u32> = (0..count)
                .map(|_| random.below(ours.vocab_len() + 3) as u32)
                .collect();
            // Of a run of byte tokens that is no UTF-8, the reference makes one U+FFFD per byte;
            // Bursar keeps its characters, see `invalid_bytes_cost_no_character`.
            let is_byte = |id: &u32| ours.token_bytes(*id).first().is_some_and(|b| !b.is_ascii());
            if is_piece && ids.iter().any(|id| (3..259).contains(id) && is_byte(id)) {
                continue;
            }
            let skip = random.below(2) == 0;
            let want = oracle.decode(&ids, skip).expect("the oracle decodes");
            assert_eq!(ours.decode(&ids, skip), want, "{name}: {ids:?}");
        }
    }
}

#[test]
fn invalid_bytes_cost_no_character() {
    let ours = common::tokenizer("llama2");
    let byte = |byte: u8| ours.token_id(&format!("<0x{byte:02X}>")).unwrap();
    let mut stream = ours.detokenizer(false);
    let mut pieces = Vec::new();
    for b in [0xe4, 0xbd, 0xa0, 0xe4, 0xff, 0x41, 0xf0, 0x9f] {
        pieces.push(stream.push(&ours, byte(b)).to_owned());
    }
    pieces.push(stream.finish().to_owned());
    assert_eq!(
        pieces,
        [
            "",
            "",
            "\u{4f60}",
            "",
            "\u{fffd}\u{fffd}",
            "A",
            "",
            "",
            "\u{fffd}"
        ]
    );
}
