//! SentencePiece's BPE as GGUF files carry it: scores instead of merges.
//!
//! Two adjacent pieces merge if their text is a token; the token with the highest score goes first.
//! What ends up as no token is spelt in byte tokens. The method is llama.cpp's, whose vocabulary
//! format this is.

use crate::models::bpe::char_len;
use crate::models::merge::{NO_TOKEN, Scratch};
use crate::vocab::Vocab;

/// Tokens ranked by score.
#[derive(Debug)]
pub(crate) struct Spm {
    // Rank by id: 0 has the highest score; equal scores have equal ranks.
    ranks: Box<[u32]>,
    // Ids of the tokens that spell a byte, else `NO_TOKEN`.
    bytes: Box<[u32; 256]>,
    unk: Option<u32>,
}

impl Spm {
    pub(crate) fn new(scores: &[f32], bytes: Box<[u32; 256]>, unk: Option<u32>) -> Spm {
        let mut order: Vec<u32> = (0..scores.len() as u32).collect();
        // Total order, so that a file with NaN scores is odd but harmless.
        order.sort_by(|&a, &b| scores[b as usize].total_cmp(&scores[a as usize]));
        let mut ranks = vec![0_u32; scores.len()];
        let mut rank = 0;
        for (at, &id) in order.iter().enumerate() {
            if at > 0 && scores[id as usize] != scores[order[at - 1] as usize] {
                rank += 1;
            }
            ranks[id as usize] = rank;
        }
        Spm {
            ranks: ranks.into_boxed_slice(),
            bytes,
            unk,
        }
    }

    pub(crate) fn encode(
        &self,
        vocab: &Vocab,
        word: &str,
        scratch: &mut Scratch,
        out: &mut Vec<u32>,
    ) {
        let word = word.as_bytes();
        scratch.symbols.clear();
        let mut at = 0;
        while at < word.len() {
            let len = char_len(word[at]).min(word.len() - at);
            let id = vocab.find(&word[at..at + len]).unwrap_or(NO_TOKEN);
            scratch.push(id, at, len);
            at += len;
        }
        scratch.merge(|left, right| {
            let start = left.start as usize;
            let id = vocab.find(&word[start..start + (left.len + right.len) as usize])?;
            Some((self.ranks[id as usize], id))
        });
        for symbol in &scratch.symbols {
            if symbol.id != NO_TOKEN {
                out.push(symbol.id);
                continue;
            }
            let start = symbol.start as usize;
            for &byte in &word[start..start + symbol.len as usize] {
                match self.bytes[usize::from(byte)] {
                    NO_TOKEN => out.extend(self.unk),
                    id => out.push(id),
                }
            }
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        size_of_val(&*self.ranks) + size_of::<[u32; 256]>()
    }
}
