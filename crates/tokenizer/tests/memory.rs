//! What a tokenizer of 151,000 tokens holds, counted by the allocator, and what building it takes.

#![allow(clippy::unwrap_used, reason = "a test may")]

mod common;
#[path = "common/synthetic.rs"]
mod synthetic;

use bursar_memory::counting::{ProcessAllocator, left_by, process_allocator};
use bursar_tokenizer::{Special, Tokenizer};

#[global_allocator]
static ALLOCATOR: ProcessAllocator = process_allocator();

const MIB: u64 = 1 << 20;

#[test]
fn a_large_vocabulary_is_small() {
    let json = synthetic::description(151_643);
    let (tokenizer, left) = left_by(|| Tokenizer::from_json(json.as_bytes()).expect("it is valid"));
    let held = left.held().0;
    let said = tokenizer.heap_bytes() as u64;
    // The allocator adds a header and rounding to each block, at most a page to a large one.
    let blocks = u64::try_from(left.blocks).expect("it holds blocks");
    assert!(blocks < 40, "{blocks} blocks");
    assert!(
        said <= held && held - said < blocks * 4200,
        "says {said}, holds {held}: {left}"
    );
    assert!(held < 9 * MIB, "{left}");
    // Beside itself: the entries as they come from the file, once.
    assert!(left.peak.0 < 16 * MIB, "{left}");

    // Encoding and decoding leave nothing behind.
    let text = "some words, fn main() { 12345 } and \u{4f60}\u{597d}";
    let ((), left) = left_by(|| {
        let ids = tokenizer.encode(text, Special::ALL);
        assert_eq!(tokenizer.decode(&ids, true), text);
    });
    assert_eq!((left.bytes, left.blocks), (0, 0));
}

#[test]
fn every_fixture_says_what_it_holds() {
    for name in common::TRAINED.iter().copied().chain(["bert"]) {
        let json = common::description(name);
        let (tokenizer, left) =
            left_by(|| Tokenizer::from_json(json.as_bytes()).expect("it is valid"));
        let (held, said) = (left.held().0, tokenizer.heap_bytes() as u64);
        let blocks = u64::try_from(left.blocks).expect("it holds blocks");
        if name == "tekken" {
            // A regular expression counts as its limit.
            assert!(held < said, "{name}: says {said}, holds {held}");
        } else {
            assert!(
                said <= held && held - said <= blocks * 4200,
                "{name}: {said} and {left}"
            );
        }
    }
}

#[test]
fn a_token_pushed_through_a_detokeniser_allocates_nothing() {
    for name in ["qwen2", "llama2", "bert"] {
        let tokenizer = common::tokenizer(name);
        let ids = tokenizer.encode(&common::corpus().concat(), Special::ALL);
        let mut stream = tokenizer.detokenizer(true);
        let (_, left) = left_by(|| {
            ids.iter()
                .map(|&id| stream.push(&tokenizer, id).len())
                .sum::<usize>()
                + stream.finish().len()
        });
        assert_eq!(left.allocations, 0, "{name}");
    }
}

#[test]
fn a_megabyte_of_one_letter_takes_no_more_than_its_symbols() {
    let tokenizer = Tokenizer::from_json(synthetic::description(20_000).as_bytes()).unwrap();
    let text = "e".repeat(1 << 20);
    let (ids, left) = left_by(|| tokenizer.encode(&text, Special::NONE));
    assert_eq!(tokenizer.decode(&ids, false), text);
    // A symbol of 28 bytes and a heap entry of 8 per letter, each list up to doubled by growing.
    assert!(left.peak.0 < 100 * MIB, "{left}");
}
