//! Token ids back to text: the rules of each family, and the streaming detokeniser that applies
//! them one token at a time.
//!
//! Decoding a whole sequence *is* streaming it: there is one implementation, so the two agree.

use crate::tokenizer::Tokenizer;

/// How tokens become text.
#[derive(Debug)]
pub(crate) enum Decoder {
    /// Tokens are bytes; together they are UTF-8.
    Bytes,
    /// Tokens are words, or with a prefix the rest of one.
    WordPiece {
        prefix: Box<str>,
        /// Whether spaces before punctuation and contractions are removed.
        cleanup: bool,
    },
    /// Tokens are text with marks for spaces, or single bytes.
    Pieces(Pieces),
    /// Tokens are text, separated by spaces: the rule of a tokenizer without a decoder.
    Separated,
}

/// Rules of the SentencePiece family.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    /// Replacements in order, `▁` by a space as a rule.
    pub(crate) replacements: Vec<(Box<str>, Box<str>)>,
    /// Whether `<0x0A>` is a byte.
    pub(crate) byte_fallback: bool,
    /// Whether added tokens are text as they stand.
    pub(crate) added_verbatim: bool,
    /// A mark that the first token loses and that is a space in the others.
    pub(crate) mark: Option<(char, Lead)>,
    /// A character that the text loses at its start, and how often.
    pub(crate) strip: Option<(char, usize)>,
}

/// What becomes of marks in the first token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Lead {
    /// They vanish.
    Drop,
    /// They are spaces as elsewhere.
    Keep,
}

impl Decoder {
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Decoder::Bytes | Decoder::Separated => 0,
            Decoder::WordPiece { prefix, .. } => prefix.len(),
            Decoder::Pieces(pieces) => {
                let list = pieces.replacements.capacity() * size_of::<(Box<str>, Box<str>)>();
                pieces
                    .replacements
                    .iter()
                    .fold(list, |sum, (from, to)| sum + from.len() + to.len())
            }
        }
    }
}

/// Turns a stream of token ids into text that never ends in half a character.
///
/// Bytes that may still become a character are held back, at most three. Bytes that can no longer
/// become one are U+FFFD, as many as `String::from_utf8_lossy` of the whole would give.
///
/// The text does not depend on how the ids are cut into calls: what the calls return, joined, is
/// [`Tokenizer::decode`] of the whole sequence.
#[derive(Clone, Debug)]
pub struct Detokenizer {
    skip_special: bool,
    // Tokens that gave text so far decide how the next is read; only zero or not matters.
    first: bool,
    // Times that the leading character may still be stripped.
    strip_left: usize,
    // Bytes of an unfinished character.
    pending: Vec<u8>,
    out: String,
    token: String,
}

impl Detokenizer {
    pub(crate) fn new(tokenizer: &Tokenizer, skip_special: bool) -> Detokenizer {
        let strip_left = match tokenizer.decoder() {
            Decoder::Pieces(Pieces {
                strip: Some((_, times)),
                ..
            }) => *times,
            _ => 0,
        };
        // A token of n bytes becomes at most 3n bytes (each byte a U+FFFD) and a space; room for
        // the longest means that pushing does not allocate.
        let longest = tokenizer.vocab().longest();
        Detokenizer {
            skip_special,
            first: true,
            strip_left,
            pending: Vec::with_capacity(longest + 4),
            out: String::with_capacity(3 * longest + 16),
            token: match tokenizer.decoder() {
                Decoder::Bytes => String::new(),
                _ => String::with_capacity(3 * longest + 16),
            },
        }
    }

    /// Takes one token and returns the text that has become certain with it, often none.
    ///
    /// `tokenizer` must be the one that made this detokeniser. Ids that it does not have are
    /// ignored.
    pub fn push(&mut self, tokenizer: &Tokenizer, id: u32) -> &str {
        self.out.clear();
        self.take(tokenizer, id);
        &self.out
    }

    /// Ends the text: a character that never was finished becomes U+FFFD.
    pub fn finish(&mut self) -> &str {
        self.out.clear();
        self.flush();
        &self.out
    }

    /// Appends a token's text to `out`.
    fn take(&mut self, tokenizer: &Tokenizer, id: u32) {
        let Some(bytes) = tokenizer.surface(id) else {
            return;
        };
        if self.skip_special && tokenizer.is_special(id) {
            return;
        }
        let first = std::mem::take(&mut self.first);
        match tokenizer.decoder() {
            Decoder::Bytes => {
                self.pending.extend_from_slice(bytes);
                self.drain();
            }
            Decoder::WordPiece { prefix, cleanup } => {
                self.token.clear();
                let text = text_of(bytes);
                match text.strip_prefix(&**prefix) {
                    _ if first => self.token.push_str(text),
                    Some(rest) => self.token.push_str(rest),
                    None => self.token.extend([" ", text]),
                }
                if *cleanup {
                    clean_up(&mut self.token);
                }
                self.out.push_str(&self.token);
            }
            Decoder::Separated => {
                if !first {
                    self.out.push(' ');
                }
                self.out.push_str(text_of(bytes));
            }
            Decoder::Pieces(pieces) => {
                if pieces.byte_fallback
                    && let Some(byte) = byte_token(bytes)
                {
                    self.pending.push(byte);
                    let before = self.out.len();
                    self.drain();
                    self.strip(pieces, before);
                    return;
                }
                let before = self.out.len();
                self.flush();
                let verbatim = pieces.added_verbatim && tokenizer.is_added(id);
                pieces.append(
                    text_of(bytes),
                    first,
                    verbatim,
                    &mut self.token,
                    &mut self.out,
                );
                self.strip(pieces, before);
            }
        }
    }

    /// Removes leading characters from the start of the text, which `out` holds from `from` on.
    fn strip(&mut self, pieces: &Pieces, from: usize) {
        let Some((mark, _)) = pieces.strip else {
            return;
        };
        while self.strip_left > 0 && self.out.len() > from {
            if !self.out[from..].starts_with(mark) {
                self.strip_left = 0;
                return;
            }
            self.out.replace_range(from..from + mark.len_utf8(), "");
            self.strip_left -= 1;
        }
    }

    /// Moves what is certain from `pending` to `out`.
    fn drain(&mut self) {
        let mut done = 0;
        loop {
            match std::str::from_utf8(&self.pending[done..]) {
                Ok(text) => {
                    self.out.push_str(text);
                    self.pending.clear();
                    return;
                }
                Err(error) => {
                    let valid = done + error.valid_up_to();
                    self.out.push_str(text_of(&self.pending[done..valid]));
                    match error.error_len() {
                        Some(wrong) => {
                            self.out.push(char::REPLACEMENT_CHARACTER);
                            done = valid + wrong;
                        }
                        None => {
                            self.pending.drain(..valid);
                            return;
                        }
                    }
                }
            }
        }
    }

    /// Gives up on an unfinished character.
    fn flush(&mut self) {
        if !self.pending.is_empty() {
            // What `drain` leaves is one incomplete character.
            self.out.push(char::REPLACEMENT_CHARACTER);
            self.pending.clear();
        }
    }
}

impl Pieces {
    /// Appends a token's text to `out`; `scratch` is overwritten.
    pub(crate) fn append(
        &self,
        text: &str,
        first: bool,
        verbatim: bool,
        scratch: &mut String,
        out: &mut String,
    ) {
        if verbatim {
            out.push_str(text);
            return;
        }
        scratch.clear();
        scratch.push_str(text);
        for (from, to) in &self.replacements {
            replace(scratch, from, to);
        }
        match self.mark {
            None => out.push_str(scratch),
            Some((mark, lead)) => {
                let drop = first && lead == Lead::Drop;
                out.extend(scratch.chars().filter_map(|c| match c {
                    c if c != mark => Some(c),
                    _ if drop => None,
                    _ => Some(' '),
                }));
            }
        }
    }
}

/// A token's bytes as text. They are UTF-8 wherever this is called: only `Decoder::Bytes` has
/// tokens that need not be.
pub(crate) fn text_of(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

/// The byte that a token such as `<0x0A>` spells.
pub(crate) fn byte_token(token: &[u8]) -> Option<u8> {
    let digits = token.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    if digits.len() != 2 || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    u8::from_str_radix(text_of(digits), 16).ok()
}

/// Replaces every `from` in place.
fn replace(text: &mut String, from: &str, to: &str) {
    let mut at = 0;
    while let Some(found) = text[at..].find(from) {
        let start = at + found;
        text.replace_range(start..start + from.len(), to);
        at = start + to.len();
    }
}

/// Removes the spaces that splitting by punctuation put before it.
fn clean_up(text: &mut String) {
    const RULES: [(&str, &str); 11] = [
        (" .", "."),
        (" ?", "?"),
        (" !", "!"),
        (" ,", ","),
        (" ' ", "'"),
        (" n't", "n't"),
        (" 'm", "'m"),
        (" do not", " don't"),
        (" 's", "'s"),
        (" 've", "'ve"),
        (" 're", "'re"),
    ];
    if !text.contains(' ') {
        return;
    }
    for (from, to) in RULES {
        replace(text, from, to);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_tokens_are_exactly_two_hex_digits() {
        assert_eq!(byte_token(b"<0x0A>"), Some(10));
        assert_eq!(byte_token(b"<0xff>"), Some(255));
        for not in ["<0x0>", "<0x00A>", "<0x+1>", "0x0A", "<0xG0>", ""] {
            assert_eq!(byte_token(not.as_bytes()), None, "{not}");
        }
    }

    #[test]
    fn clean_up_closes_the_gaps() {
        let check = |text: &str, want: &str| {
            let mut text = text.to_owned();
            clean_up(&mut text);
            assert_eq!(text, want);
        };
        check(" .", ".");
        check(" 's", "'s");
        check(" word", " word");
    }
}
