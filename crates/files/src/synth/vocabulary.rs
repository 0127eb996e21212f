//! Made-up vocabularies of any size that a real tokenizer accepts: every byte or letter can be
//! written, and every longer token is reached by merging or matching.

use std::collections::HashSet;

use super::random::Random;
use crate::strings::StringTable;

/// Token types of GGUF.
const NORMAL: u8 = 1;
const CONTROL: u8 = 3;

/// Positions of BERT's special tokens.
pub(super) const PAD: u32 = 0;
pub(super) const UNK: u32 = 100;
pub(super) const CLS: u32 = 101;
pub(super) const SEP: u32 = 102;
pub(super) const MASK: u32 = 103;

/// A vocabulary as GGUF stores it.
pub(super) struct Vocabulary {
    pub(super) tokens: StringTable,
    pub(super) types: Vec<u8>,
    pub(super) merges: StringTable,
}

const LETTERS: &str = "abcdefghijklmnopqrstuvwxyz";

/// The character that stands for a byte in GPT-2's alphabet: itself if it is printable, else the
/// next character from U+0100 on.
fn byte_alphabet() -> Vec<char> {
    let printable = |byte: &u8| matches!(byte, 33..=126 | 161..=172 | 174..=255);
    let own = (0..=255u8).filter(printable).map(char::from);
    let hidden = (0..=255u8).filter(|byte| !printable(byte)).count() as u32;
    let others =
        (0..hidden).map(|i| char::from_u32(256 + i).expect("U+0100 and on are characters"));
    own.chain(others).collect()
}

/// A byte-level BPE vocabulary of `size` tokens, the last of which are `specials`.
///
/// After the bytes come all pairs and triples of letters, with and without a space before, which
/// splits English text into tokens of three letters; then made-up words of four to six letters.
///
/// `size` must leave room for the 256 bytes and the specials.
pub(super) fn byte_pairs(size: usize, specials: &[&str]) -> Vocabulary {
    let mut build = Build::new(
        size.checked_sub(specials.len())
            .expect("room for the specials"),
    );
    for byte in byte_alphabet() {
        build.add(&byte.to_string());
    }
    let space = "\u{120}";
    let newline = "\u{10A}";
    for (left, right) in [
        (space, space),
        ("ĠĠ", "ĠĠ"),
        ("ĠĠĠĠ", "ĠĠĠĠ"),
        (newline, newline),
    ] {
        build.merge(left, right);
    }
    let letters: Vec<String> = LETTERS.chars().map(String::from).collect();
    let pairs: Vec<String> = letters
        .iter()
        .flat_map(|a| letters.iter().map(move |b| format!("{a}{b}")))
        .collect();
    for letter in &letters {
        build.merge(space, letter);
        build.merge(space, &letter.to_uppercase());
    }
    for left in &letters {
        for right in &letters {
            build.merge(left, right);
            build.merge(&format!("{space}{left}"), right);
            build.merge(&left.to_uppercase(), right);
        }
    }
    for pair in &pairs {
        for letter in &letters {
            build.merge(pair, letter);
            build.merge(&format!("{space}{pair}"), letter);
        }
    }
    // Words: a triple with up to three more letters, at random but the same for every seed.
    let mut random = Random::new(0, [0, 0]);
    while !build.full() {
        let left = format!(
            "{}{}",
            pairs[random.below(pairs.len())],
            letters[random.below(26)]
        );
        let left = if random.below(2) == 0 {
            format!("{space}{left}")
        } else {
            left
        };
        match random.below(3) {
            0 => build.merge(&left, &letters[random.below(26)]),
            1 => build.merge(&left, &pairs[random.below(pairs.len())]),
            _ => {
                let right = format!("{}{}", pairs[random.below(676)], letters[random.below(26)]);
                build.merge(&left, &right);
            }
        }
    }
    build.finish(specials)
}

/// Collects tokens that differ, up to a number.
struct Build {
    limit: usize,
    seen: HashSet<Box<str>>,
    tokens: StringTable,
    merges: StringTable,
}

impl Build {
    fn new(limit: usize) -> Build {
        let (tokens, merges) = (StringTable::new(), StringTable::new());
        Build {
            limit,
            seen: HashSet::with_capacity(limit),
            tokens,
            merges,
        }
    }

    fn full(&self) -> bool {
        self.tokens.len() >= self.limit
    }

    /// Adds a token unless it is there or there is no room. Says whether it did.
    fn add(&mut self, token: &str) -> bool {
        if self.full() || !self.seen.insert(token.into()) {
            return false;
        }
        assert!(
            self.tokens.push(token.as_bytes()),
            "vocabularies are far below 4 GiB"
        );
        true
    }

    /// Adds the token that two others merge into. Both must be tokens.
    fn merge(&mut self, left: &str, right: &str) {
        debug_assert!(self.full() || (self.seen.contains(left) && self.seen.contains(right)));
        if self.add(&format!("{left}{right}")) {
            let pair = format!("{left} {right}");
            assert!(
                self.merges.push(pair.as_bytes()),
                "merges are far below 4 GiB"
            );
        }
    }

    fn finish(mut self, specials: &[&str]) -> Vocabulary {
        let mut types = vec![NORMAL; self.tokens.len()];
        for special in specials {
            assert!(
                self.tokens.push(special.as_bytes()),
                "vocabularies are far below 4 GiB"
            );
            types.push(CONTROL);
        }
        Vocabulary {
            tokens: self.tokens,
            types,
            merges: self.merges,
        }
    }
}

/// A WordPiece vocabulary of `size` tokens with BERT's special tokens in their places.
///
/// GGUF marks tokens that begin a word with U+2581 and leaves others bare, where BERT marks the
/// others with `##`. Single characters come first, then pairs and triples of letters.
pub(super) fn word_pieces(size: usize) -> Vocabulary {
    let mut build = Build::new(size);
    let mut types = Vec::with_capacity(size);
    let begin = |text: &str| format!("\u{2581}{text}");
    for place in 0..=MASK {
        let special = match place {
            PAD => Some("[PAD]"),
            UNK => Some("[UNK]"),
            CLS => Some("[CLS]"),
            SEP => Some("[SEP]"),
            MASK => Some("[MASK]"),
            _ => None,
        };
        match special {
            Some(special) => build.add(special),
            None => build.add(&begin(&format!("[unused{}]", place - 1))),
        };
        types.push(if special.is_some() { CONTROL } else { NORMAL });
    }
    let letters: Vec<String> = LETTERS.chars().map(String::from).collect();
    let pairs: Vec<String> = letters
        .iter()
        .flat_map(|a| letters.iter().map(move |b| format!("{a}{b}")))
        .collect();
    let triples = pairs
        .iter()
        .flat_map(|pair| letters.iter().map(move |c| format!("{pair}{c}")));
    for byte in (33..=126u8).filter(|byte| !byte.is_ascii_uppercase()) {
        let text = char::from(byte).to_string();
        build.add(&begin(&text));
        if byte.is_ascii_alphanumeric() {
            build.add(&text);
        }
    }
    for pair in &pairs {
        build.add(&begin(pair));
        build.add(pair);
    }
    for triple in triples {
        build.add(&begin(&triple));
        build.add(&triple);
    }
    let mut random = Random::new(0, [0, 1]);
    while !build.full() {
        let word = format!("{}{}", pairs[random.below(676)], pairs[random.below(676)]);
        build.add(&begin(&word));
    }
    types.resize(build.tokens.len(), NORMAL);
    Vocabulary {
        tokens: build.tokens,
        types,
        merges: StringTable::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_byte_alphabet_is_gpt_2s() {
        let alphabet = byte_alphabet();
        assert_eq!(alphabet.len(), 256);
        assert_eq!(alphabet[0], '!');
        // A space is the 33rd hidden byte.
        assert_eq!(alphabet[188 + 32], 'Ġ');
        assert_eq!(alphabet.iter().collect::<HashSet<_>>().len(), 256);
    }

    #[test]
    fn every_merge_makes_a_token_from_earlier_ones() {
        for size in [260, 1024, 40_000] {
            let specials = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
            let vocabulary = byte_pairs(size, &specials);
            assert_eq!(vocabulary.tokens.len(), size);
            assert_eq!(vocabulary.types.len(), size);
            assert_eq!(vocabulary.merges.len(), size - 256 - specials.len());
            let mut known: HashSet<&str> = (0..256)
                .map(|id| vocabulary.tokens.get_str(id).unwrap())
                .collect();
            for (rank, merge) in vocabulary.merges.iter().enumerate() {
                let merge = std::str::from_utf8(merge).unwrap();
                let (left, right) = merge.split_once(' ').unwrap();
                assert!(known.contains(left) && known.contains(right), "{merge:?}");
                let token = vocabulary.tokens.get_str(256 + rank).unwrap();
                assert_eq!(token, format!("{left}{right}"));
                assert!(known.insert(token));
            }
        }
    }

    #[test]
    fn word_pieces_have_berts_places() {
        for size in [1024, 30_522] {
            let vocabulary = word_pieces(size);
            assert_eq!(vocabulary.tokens.len(), size);
            assert_eq!(vocabulary.tokens.get_str(UNK as usize), Some("[UNK]"));
            assert_eq!(vocabulary.tokens.get_str(1), Some("▁[unused0]"));
            let all: HashSet<_> = vocabulary.tokens.iter().collect();
            assert_eq!(all.len(), size);
            assert!(all.contains("▁a".as_bytes()) && all.contains("z".as_bytes()));
        }
    }
}
