//! WordPiece: the longest token that begins the word, then the longest that continues it.
//!
//! Method: Google's BERT, `tokenization.py`.

use crate::models::merge::Scratch;
use crate::vocab::Vocab;

/// WordPiece over a vocabulary whose continuing tokens carry a prefix.
#[derive(Debug)]
pub(crate) struct WordPiece {
    /// Begins every token that continues a word, `##` as a rule.
    pub(crate) prefix: Box<str>,
    pub(crate) unk: u32,
    /// Longer words are unknown, in characters.
    pub(crate) word_chars_max: usize,
}

impl WordPiece {
    pub(crate) fn encode(
        &self,
        vocab: &Vocab,
        word: &str,
        scratch: &mut Scratch,
        out: &mut Vec<u32>,
    ) {
        // Bytes bound characters from above, so most words need no counting.
        if word.len() > self.word_chars_max && word.chars().count() > self.word_chars_max {
            out.push(self.unk);
            return;
        }
        let before = out.len();
        let mut start = 0;
        while start < word.len() {
            let prefix = if start == 0 { "" } else { &*self.prefix };
            // No token is longer than the longest, so neither is a candidate.
            let longest = vocab.longest().saturating_sub(prefix.len());
            let mut end = word.floor_char_boundary(start.saturating_add(longest).min(word.len()));
            let text = &mut scratch.text;
            text.clear();
            text.extend_from_slice(prefix.as_bytes());
            text.extend_from_slice(&word.as_bytes()[start..end.max(start)]);
            let found = loop {
                if end <= start {
                    break None;
                }
                if let Some(id) = vocab.find(&text[..prefix.len() + end - start]) {
                    break Some(id);
                }
                end = word.floor_char_boundary(end - 1);
            };
            match found {
                Some(id) => out.push(id),
                // One piece without a token makes the whole word unknown.
                None => {
                    out.truncate(before);
                    out.push(self.unk);
                    return;
                }
            }
            start = end;
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.prefix.len()
    }
}
