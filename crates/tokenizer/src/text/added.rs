//! Added tokens: strings that become one token wherever they stand, before anything else happens
//! to the text.
//!
//! Found leftmost first, the longest of those that start at one place. The strings are kept sorted,
//! so that the candidates at a place are a range that narrows with every byte read: no automaton,
//! whose states would weigh more than the strings.

use crate::text::class::is_word;

/// One added token.
#[derive(Clone, Debug)]
pub(crate) struct Added {
    pub(crate) id: u32,
    pub(crate) content: String,
    /// Control tokens: left out of decoded text on request, recognised in text on request.
    pub(crate) special: bool,
    /// Takes the white space before it along.
    pub(crate) lstrip: bool,
    /// Takes the white space after it along.
    pub(crate) rstrip: bool,
    /// Only where no letter, digit or mark touches it.
    pub(crate) single_word: bool,
}

/// A set of added tokens that are looked for together.
#[derive(Debug, Default)]
pub(crate) struct AddedSet {
    // Sorted by content, contents distinct and not empty.
    tokens: Box<[Added]>,
    // Bit per byte value: some content starts with it.
    starts: [u64; 4],
}

/// A stretch of text, or an added token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Section<'t> {
    /// Text without added tokens, and whether it starts at the start of the whole.
    Text(&'t str, bool),
    /// The id of an added token.
    Token(u32),
}

impl AddedSet {
    /// Of two tokens with one content, the later one is kept.
    pub(crate) fn new(mut tokens: Vec<Added>) -> AddedSet {
        tokens.retain(|token| !token.content.is_empty());
        tokens.sort_by(|a, b| a.content.as_bytes().cmp(b.content.as_bytes()));
        // Keep the last of each run of equals.
        tokens.reverse();
        tokens.dedup_by(|a, b| a.content == b.content);
        tokens.reverse();
        for token in &mut tokens {
            token.content.shrink_to_fit();
        }
        let mut starts = [0_u64; 4];
        for token in &tokens {
            let byte = token.content.as_bytes()[0];
            starts[usize::from(byte >> 6)] |= 1 << (byte & 63);
        }
        AddedSet {
            tokens: tokens.into_boxed_slice(),
            starts,
        }
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = &Added> {
        self.tokens.iter()
    }

    /// The id of the token with this spelling.
    pub(crate) fn get(&self, content: &str) -> Option<u32> {
        let at = self
            .tokens
            .binary_search_by(|token| token.content.as_str().cmp(content))
            .ok()?;
        Some(self.tokens[at].id)
    }

    /// Calls `section` with the consecutive sections of `text`, which is at the start of the whole
    /// text if `at_start`. Without `parse_special`, special tokens are not recognised.
    pub(crate) fn sections<'t>(
        &self,
        text: &'t str,
        at_start: bool,
        parse_special: bool,
        mut section: impl FnMut(Section<'t>),
    ) {
        // Text before `done` is given out; the search goes on at `from`.
        let mut done = 0;
        let mut from = 0;
        while let Some((start, token)) = self.find(text.as_bytes(), from) {
            let end = start + token.content.len();
            from = end;
            if token.special && !parse_special {
                continue;
            }
            if token.single_word {
                let before = text[..start].chars().next_back().is_some_and(is_word);
                let after = text[end..].chars().next().is_some_and(is_word);
                if before || after {
                    continue;
                }
            }
            let (mut start, mut end) = (start, end);
            if token.lstrip {
                // Space that the token before took along is gone.
                start = text[..start].trim_end().len().max(done);
            }
            if token.rstrip {
                end = text.len() - text[end..].trim_start().len();
            }
            if done < start {
                section(Section::Text(&text[done..start], at_start && done == 0));
            }
            section(Section::Token(token.id));
            done = done.max(end);
            from = from.max(done);
        }
        if done < text.len() {
            section(Section::Text(&text[done..], at_start && done == 0));
        }
    }

    /// The leftmost longest token that starts at or after `from`.
    fn find(&self, text: &[u8], from: usize) -> Option<(usize, &Added)> {
        if self.tokens.is_empty() {
            return None;
        }
        (from..text.len())
            .filter(|&at| {
                let byte = text[at];
                self.starts[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
            })
            .find_map(|at| Some((at, self.longest_at(&text[at..])?)))
    }

    /// The longest token that `text` starts with.
    fn longest_at(&self, text: &[u8]) -> Option<&Added> {
        let mut candidates = &*self.tokens;
        let mut longest = None;
        for (depth, &byte) in text.iter().enumerate() {
            // All candidates share the first `depth` bytes of the text; one that ends here is the
            // first of them.
            let byte_of = |token: &Added| token.content.as_bytes().get(depth).copied();
            let low = candidates.partition_point(|token| byte_of(token) < Some(byte));
            let high = candidates.partition_point(|token| byte_of(token) <= Some(byte));
            candidates = &candidates[low..high];
            let Some(first) = candidates.first() else {
                break;
            };
            if first.content.len() == depth + 1 {
                longest = Some(first);
            }
        }
        longest
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        let contents: usize = self
            .tokens
            .iter()
            .map(|token| token.content.capacity())
            .sum();
        size_of_val(&*self.tokens) + contents
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(id: u32, content: &str) -> Added {
        Added {
            id,
            content: content.into(),
            special: false,
            lstrip: false,
            rstrip: false,
            single_word: false,
        }
    }

    fn check(tokens: &[Added], text: &str, parse_special: bool, want: &[Section<'_>]) {
        let mut sections = Vec::new();
        AddedSet::new(tokens.to_vec())
            .sections(text, true, parse_special, |section| sections.push(section));
        assert_eq!(sections, want, "{text:?}");
    }

    use Section::{Text, Token};

    #[test]
    fn the_longest_of_the_leftmost_is_taken() {
        let tokens = [
            token(1, "<a"),
            token(2, "<a>"),
            token(3, "a>b"),
            token(4, "\u{e9}"),
        ];
        check(
            &tokens,
            "x<a>b",
            true,
            &[Text("x", true), Token(2), Text("b", false)],
        );
        check(&tokens, "<a<a>a>b", true, &[Token(1), Token(2), Token(3)]);
        check(
            &tokens,
            "\u{e9}\u{e8}",
            true,
            &[Token(4), Text("\u{e8}", false)],
        );
        check(&tokens, "", true, &[]);
    }

    #[test]
    fn a_special_token_is_plain_text_unless_asked_for() {
        let special = Added {
            special: true,
            ..token(1, "<s>")
        };
        let tokens = [special, token(2, "s>")];
        check(&tokens, "<s>s>", true, &[Token(1), Token(2)]);
        // What a match covers stays covered, as in `tokenizers`.
        check(&tokens, "<s>s>", false, &[Text("<s>", true), Token(2)]);
    }

    #[test]
    fn stripping_takes_white_space_once_and_words_must_stand_alone() {
        let mask = Added {
            lstrip: true,
            rstrip: true,
            ..token(1, "<m>")
        };
        check(
            &[mask],
            "a <m>  <m> b",
            true,
            &[Text("a", true), Token(1), Token(1), Text("b", false)],
        );
        let word = Added {
            single_word: true,
            ..token(1, "ing")
        };
        check(&[word], "ring ing", true, &[Text("ring ", true), Token(1)]);
    }
}
