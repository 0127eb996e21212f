//! Byte-pair encoding from a ranked list of merges, over bytes or over characters.
//!
//! A byte-level vocabulary is stored as the bytes that its tokens stand for, not in the printable
//! alphabet of the files, so a word is encoded without being rewritten first.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::error::TokenizerError;
use crate::hash::hash_pair;
use crate::models::merge::{NO_TOKEN, Scratch};
use crate::vocab::Vocab;

/// What the merges are applied to.
#[derive(Debug)]
pub(crate) enum Atoms {
    /// Single bytes; the id of each byte that has a token, else `NO_TOKEN`.
    Bytes(Box<[u32; 256]>),
    /// Characters, found in the vocabulary by their UTF-8 bytes.
    Chars {
        /// The tokens `<0x00>` to `<0xFF>` that spell a character which has no token.
        fallback: Option<Box<[u32; 256]>>,
    },
}

/// Byte-pair encoding.
#[derive(Debug)]
pub(crate) struct Bpe {
    pub(crate) merges: MergeTable,
    pub(crate) atoms: Atoms,
    pub(crate) unk: Option<u32>,
    /// Whether adjacent unknown characters make one unknown token.
    pub(crate) fuse_unk: bool,
    /// Whether a word that is a token is that token, whatever the merges say.
    pub(crate) ignore_merges: bool,
    // One bit per id, set once the merges have been seen to turn the token's bytes into the token:
    // a word that equals it then needs no merging, and most words of ordinary text are such tokens.
    // A cache of facts, so the order in which threads find them does not show.
    whole: Box<[AtomicU64]>,
}

impl Bpe {
    pub(crate) fn new(merges: MergeTable, atoms: Atoms) -> Bpe {
        Bpe {
            merges,
            atoms,
            unk: None,
            fuse_unk: false,
            ignore_merges: false,
            whole: Box::new([]),
        }
    }

    /// Remembers which words are tokens, for a vocabulary of `len` ids. Pays where text is split
    /// into words.
    pub(crate) fn remember_words(&mut self, len: usize) {
        self.whole = (0..len.div_ceil(64)).map(|_| AtomicU64::new(0)).collect();
    }

    #[inline]
    pub(crate) fn encode(
        &self,
        vocab: &Vocab,
        word: &str,
        scratch: &mut Scratch,
        out: &mut Vec<u32>,
    ) {
        if !self.ignore_merges && self.whole.is_empty() {
            return self.merge_bytes(vocab, word.as_bytes(), scratch, out);
        }
        let Some(id) = vocab.find(word.as_bytes()) else {
            return self.merge_bytes(vocab, word.as_bytes(), scratch, out);
        };
        let bit = 1 << (id % 64);
        let known = self.whole.get(id as usize / 64);
        if self.ignore_merges || known.is_some_and(|bits| bits.load(Ordering::Relaxed) & bit != 0) {
            out.push(id);
            return;
        }
        let before = out.len();
        self.merge_bytes(vocab, word.as_bytes(), scratch, out);
        if let Some(bits) = known
            && out[before..] == [id]
        {
            bits.fetch_or(bit, Ordering::Relaxed);
        }
    }

    fn merge_bytes(&self, vocab: &Vocab, word: &[u8], scratch: &mut Scratch, out: &mut Vec<u32>) {
        scratch.symbols.clear();
        match &self.atoms {
            Atoms::Bytes(ids) => {
                let mut unknown = false;
                for (at, &byte) in word.iter().enumerate() {
                    let id = ids[usize::from(byte)];
                    self.push_atom((id != NO_TOKEN).then_some(id), at, 1, &mut unknown, scratch);
                }
            }
            Atoms::Chars { fallback } => {
                let mut unknown = false;
                let mut at = 0;
                while at < word.len() {
                    let len = char_len(word[at]).min(word.len() - at);
                    let id = vocab.find(&word[at..at + len]);
                    match (id, fallback) {
                        (None, Some(bytes)) => {
                            for (nth, &byte) in word[at..at + len].iter().enumerate() {
                                scratch.push(bytes[usize::from(byte)], at + nth, 1);
                            }
                        }
                        _ => self.push_atom(id, at, len, &mut unknown, scratch),
                    }
                    at += len;
                }
            }
        }
        let merges = &self.merges;
        scratch.merge(|left, right| merges.get(left.id, right.id));
        out.extend(scratch.symbols.iter().map(|symbol| symbol.id));
    }

    /// `unknown` says whether the symbol before this one is an unknown one.
    fn push_atom(
        &self,
        id: Option<u32>,
        at: usize,
        len: usize,
        unknown: &mut bool,
        scratch: &mut Scratch,
    ) {
        match (id, self.unk) {
            (Some(id), _) => {
                scratch.push(id, at, len);
                *unknown = false;
            }
            (None, Some(unk)) => {
                if !(*unknown && self.fuse_unk) {
                    scratch.push(unk, at, len);
                }
                *unknown = true;
            }
            // Without an unknown token, what has no token vanishes.
            (None, None) => {}
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        let table = size_of::<[u32; 256]>();
        let atoms = match &self.atoms {
            Atoms::Bytes(_) | Atoms::Chars { fallback: Some(_) } => table,
            Atoms::Chars { fallback: None } => 0,
        };
        self.merges.heap_bytes() + atoms + size_of_val(&*self.whole)
    }
}

/// Length of the UTF-8 character that starts with `first`; 1 for a byte that starts none.
pub(crate) fn char_len(first: u8) -> usize {
    match first {
        0xc2..=0xdf => 2,
        0xe0..=0xef => 3,
        0xf0..=0xf4 => 4,
        _ => 1,
    }
}

/// The merges: what a pair of ids becomes, and how early.
///
/// One array with open addressing and linear probing; a look-up touches one cache line as a rule.
#[derive(Debug)]
pub(crate) struct MergeTable {
    slots: Box<[Slot]>,
}

#[derive(Clone, Copy, Debug)]
struct Slot {
    pair: u64,
    rank: u32,
    merged: u32,
}

const EMPTY: Slot = Slot {
    pair: u64::MAX,
    rank: 0,
    merged: 0,
};

const _: () = assert!(size_of::<Slot>() == 16);

fn pack(left: u32, right: u32) -> u64 {
    u64::from(left) << 32 | u64::from(right)
}

impl MergeTable {
    /// Builds the table from pairs of ids in order of rank. Every pair's product must be a token.
    ///
    /// # Errors
    /// Names the first pair whose product is not in the vocabulary.
    pub(crate) fn build(vocab: &Vocab, pairs: &[(u32, u32)]) -> Result<MergeTable, TokenizerError> {
        let slot_count = (pairs.len() * 3 / 2).max(8);
        let mut slots = vec![EMPTY; slot_count].into_boxed_slice();
        let mut product = Vec::new();
        for (rank, &(left, right)) in pairs.iter().enumerate() {
            product.clear();
            product.extend_from_slice(vocab.bytes(left));
            product.extend_from_slice(vocab.bytes(right));
            let merged = vocab.find(&product).ok_or_else(|| {
                TokenizerError::inconsistent(format!(
                    "merge {rank} makes `{}`, which is not in the vocabulary",
                    String::from_utf8_lossy(&product)
                ))
            })?;
            let rank = u32::try_from(rank)
                .ok()
                .filter(|&rank| rank < u32::MAX)
                .ok_or(TokenizerError::TooLarge {
                    what: "the number of merges",
                    got: pairs.len() as u64,
                    limit: u64::from(u32::MAX),
                })?;
            let pair = pack(left, right);
            let mut at = place(pair, slot_count);
            while slots[at].pair != EMPTY.pair && slots[at].pair != pair {
                at = if at + 1 == slot_count { 0 } else { at + 1 };
            }
            slots[at] = Slot { pair, rank, merged };
        }
        Ok(MergeTable { slots })
    }

    /// Rank and product of a pair.
    #[inline]
    fn get(&self, left: u32, right: u32) -> Option<(u32, u32)> {
        let pair = pack(left, right);
        let mut at = place(pair, self.slots.len());
        loop {
            let slot = self.slots[at];
            if slot.pair == pair {
                return Some((slot.rank, slot.merged));
            }
            if slot.pair == EMPTY.pair {
                return None;
            }
            at = if at + 1 == self.slots.len() {
                0
            } else {
                at + 1
            };
        }
    }

    fn heap_bytes(&self) -> usize {
        size_of_val(&*self.slots)
    }
}

#[inline]
fn place(pair: u64, slot_count: usize) -> usize {
    (((hash_pair(pair) >> 32) * slot_count as u64) >> 32) as usize
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocab::VocabBuilder;

    fn vocab(tokens: &[&str]) -> Vocab {
        let mut builder = VocabBuilder::default();
        for (id, token) in tokens.iter().enumerate() {
            builder.push(id as u32, token.as_bytes(), true).unwrap();
        }
        builder.build().unwrap()
    }

    fn encode(model: &Bpe, vocab: &Vocab, word: &str) -> Vec<u32> {
        let mut out = Vec::new();
        model.encode(vocab, word, &mut Scratch::default(), &mut out);
        out
    }

    #[test]
    fn unknown_characters_fuse_only_when_told_to() {
        let vocab = vocab(&["<unk>", "a", "b", "ab"]);
        let merges = MergeTable::build(&vocab, &[(1, 2)]).unwrap();
        let mut model = Bpe::new(merges, Atoms::Chars { fallback: None });
        assert_eq!(encode(&model, &vocab, "aXXb"), [3]);
        model.unk = Some(0);
        assert_eq!(encode(&model, &vocab, "aXXb"), [1, 0, 0, 2]);
        model.fuse_unk = true;
        assert_eq!(encode(&model, &vocab, "aXXbYab"), [1, 0, 2, 0, 3]);
    }

    #[test]
    fn a_token_that_the_merges_do_not_reach_is_used_only_when_merges_are_ignored() {
        let vocab = vocab(&["a", "b", "c", "ab", "abc"]);
        let merges = MergeTable::build(&vocab, &[(0, 1)]).unwrap();
        let mut model = Bpe::new(merges, Atoms::Chars { fallback: None });
        model.remember_words(vocab.len());
        for _ in 0..2 {
            assert_eq!(encode(&model, &vocab, "ab"), [3]);
            assert_eq!(encode(&model, &vocab, "abc"), [3, 2]);
        }
        model.ignore_merges = true;
        assert_eq!(encode(&model, &vocab, "abc"), [4]);
    }

    #[test]
    fn a_merge_without_a_product_is_refused() {
        let vocab = vocab(&["a", "b"]);
        let error = MergeTable::build(&vocab, &[(0, 1)]).unwrap_err();
        assert!(error.to_string().contains("`ab`"), "{error}");
    }
}
