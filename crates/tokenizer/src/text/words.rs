//! The patterns by which byte-level BPE tokenizers cut text into words, as hand-written scanners.
//!
//! The patterns end in a look-ahead, `\s+(?!\S)`, so they need a backtracking engine; a scanner
//! that knows the alternatives reads each character once or twice, holds no memory, and cannot be
//! made to backtrack. Each scanner covers the whole text: every character is a letter, a number, a
//! space or none of these, and each has an alternative.

use crate::text::class::{Class, class};

/// A known pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Words {
    /// `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
    Gpt2,
    /// Llama 3, Qwen 2 and their kin:
    ///
    /// ```text
    /// (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}
    /// | ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
    /// ```
    Modern {
        /// Most digits in a word: 3 for Llama 3, 1 for Qwen 2.
        digits: u8,
        /// Whether marks count as letters (`[\p{L}\p{M}]`), as in Qwen 3.5.
        marks: bool,
        /// Whether `'ſ` is `'s`: it is to `(?i:'s)`, not to `'[sS]`.
        long_s: bool,
    },
}

const GPT2: &str = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const GPT2_GROUPED: &str =
    r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+";
const LLAMA3: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const QWEN2: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}",
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);
const QWEN35: &str = concat!(
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}",
    r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

impl Words {
    /// The scanner for a pattern as files spell it, if it is a known one.
    pub(crate) fn of_pattern(pattern: &str) -> Option<Words> {
        let modern = |digits, marks| Words::Modern {
            digits,
            marks,
            long_s: true,
        };
        match pattern {
            GPT2 | GPT2_GROUPED => Some(Words::Gpt2),
            LLAMA3 => Some(modern(3, false)),
            QWEN2 => Some(modern(1, false)),
            QWEN35 => Some(modern(1, true)),
            _ => None,
        }
    }

    /// Calls `word` with each word of `text`, in order.
    #[inline]
    pub(crate) fn split(self, text: &str, mut word: impl FnMut(usize, &str)) {
        let mut at = 0;
        while at < text.len() {
            let rest = &text[at..];
            let len = match self {
                Words::Gpt2 => gpt2(rest),
                Words::Modern {
                    digits,
                    marks,
                    long_s,
                } => modern(rest, digits, marks, long_s),
            };
            word(at, &rest[..len]);
            at += len;
        }
    }
}

/// The first character and its class.
#[inline]
fn first(text: &str) -> Option<(char, Class)> {
    text.chars().next().map(|c| (c, class(c)))
}

/// Bytes of the run of characters at the start of `text` that `is` accepts.
#[inline]
fn run(text: &str, is: impl Fn(Class) -> bool) -> usize {
    text.char_indices()
        .find(|&(_, c)| !is(class(c)))
        .map_or(text.len(), |(at, _)| at)
}

const LETTER_OR_NUMBER: Class = Class::LETTER.or(Class::NUMBER);
const WORDLIKE: Class = LETTER_OR_NUMBER.or(Class::SPACE);

/// Bytes of the first word of `text`, which is not empty.
fn gpt2(text: &str) -> usize {
    if let Some(len) = contraction(text, |c| c, false) {
        return len;
    }
    // ` ?` of the next three alternatives: the space belongs to what follows unless that is space.
    let space = usize::from(text.starts_with(' '));
    if let Some((_, next)) = first(&text[space..]) {
        let body = &text[space..];
        if next.is(Class::LETTER) {
            return space + run(body, |class| class.is(Class::LETTER));
        }
        if next.is(Class::NUMBER) {
            return space + run(body, |class| class.is(Class::NUMBER));
        }
        if !next.is(Class::SPACE) {
            return space + run(body, |class| !class.is(WORDLIKE));
        }
    }
    spaces(text, run(text, |class| class.is(Class::SPACE)))
}

/// Bytes of the first word of `text`, which is not empty.
fn modern(text: &str, digits: u8, marks: bool, long_s: bool) -> usize {
    if let Some(len) = contraction(text, |c| c.to_ascii_lowercase(), long_s) {
        return len;
    }
    let letter = if marks {
        Class::LETTER.or(Class::MARK)
    } else {
        Class::LETTER
    };
    let Some((c, class)) = first(text) else {
        return 0;
    };
    // `[^\r\n\p{L}\p{N}]?\p{L}+`: with the leading character if it can be one, else without.
    if !class.is(Class::NEWLINE.or(LETTER_OR_NUMBER)) {
        let len = run(&text[c.len_utf8()..], |class| class.is(letter));
        if len > 0 {
            return c.len_utf8() + len;
        }
    }
    if class.is(letter) {
        return run(text, |class| class.is(letter));
    }
    if class.is(Class::NUMBER) {
        let mut chars = text.char_indices().enumerate();
        let end = chars.find(|&(nth, (_, c))| {
            nth == usize::from(digits) || !crate::text::class::class(c).is(Class::NUMBER)
        });
        return end.map_or(text.len(), |(_, (at, _))| at);
    }
    // ` ?[^\s\p{L}\p{N}]+[\r\n]*`
    let space = usize::from(c == ' ');
    let len = run(&text[space..], |class| !class.is(WORDLIKE.or(letter)));
    if len > 0 {
        let end = space + len;
        return end + run(&text[end..], |class| class.is(Class::NEWLINE));
    }
    let len = run(text, |class| class.is(Class::SPACE));
    // `\s*[\r\n]+`: to the last line end of the run.
    if let Some(at) = text.as_bytes()[..len]
        .iter()
        .rposition(|byte| matches!(byte, b'\r' | b'\n'))
    {
        return at + 1;
    }
    spaces(text, len)
}

/// `\s+(?!\S)|\s+` over a run of `len` bytes of space: all but its last character if more text
/// follows, which leaves that one to be the next word's leading space.
fn spaces(text: &str, len: usize) -> usize {
    if len == text.len() {
        return len;
    }
    let last = text[..len]
        .char_indices()
        .next_back()
        .map_or(0, |(at, _)| at);
    if last > 0 { last } else { len }
}

/// `'s|'t|'re|'ve|'m|'ll|'d` after `fold`.
#[inline]
fn contraction(text: &str, fold: impl Fn(u8) -> u8, long_s: bool) -> Option<usize> {
    let tail = text.as_bytes().strip_prefix(b"'")?;
    let one = fold(*tail.first()?);
    match one {
        b's' | b't' | b'm' | b'd' => return Some(2),
        _ => {}
    }
    if let (one, Some(&two)) = (one, tail.get(1)) {
        match (one, fold(two)) {
            (b'r', b'e') | (b'v', b'e') | (b'l', b'l') => return Some(3),
            _ => {}
        }
    }
    (long_s && tail.starts_with("\u{17f}".as_bytes())).then_some(3)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(pattern: Words, text: &str) -> Vec<&str> {
        let mut words = Vec::new();
        let mut end = 0;
        pattern.split(text, |at, word| {
            assert_eq!(at, end, "words follow each other");
            end = at + word.len();
            words.push(&text[at..end]);
        });
        assert_eq!(end, text.len());
        words
    }

    /// Splits by the pattern itself.
    fn oracle<'t>(pattern: &str, text: &'t str) -> Vec<&'t str> {
        let regex = fancy_regex::Regex::new(pattern).unwrap();
        regex
            .find_iter(text)
            .map(|found| found.unwrap().as_str())
            .collect()
    }

    const ALL: [&str; 5] = [GPT2, GPT2_GROUPED, LLAMA3, QWEN2, QWEN35];

    #[test]
    fn every_short_string_of_one_character_per_class_splits_as_by_the_pattern() {
        let alphabet = [
            "a", "\u{301}", "1", " ", "\n", "\t", "!", "'", "s", "\u{a0}",
        ];
        for pattern in ALL {
            let scanner = Words::of_pattern(pattern).unwrap();
            let regex = fancy_regex::Regex::new(pattern).unwrap();
            for len in 1..=5_u32 {
                for nth in 0..alphabet.len().pow(len) {
                    let mut rest = nth;
                    let mut text = String::new();
                    for _ in 0..len {
                        text.push_str(alphabet[rest % alphabet.len()]);
                        rest /= alphabet.len();
                    }
                    let want: Vec<&str> = regex
                        .find_iter(&text)
                        .map(|found| found.unwrap().as_str())
                        .collect();
                    assert_eq!(words(scanner, &text), want, "{pattern} on {text:?}");
                }
            }
        }
    }

    #[test]
    fn every_character_splits_as_by_the_pattern() {
        for pattern in ALL {
            let scanner = Words::of_pattern(pattern).unwrap();
            // The long blocks of one category are sampled: the engine is slow.
            let is_tested = |&c: &char| {
                let before = char::from_u32(u32::from(c).wrapping_sub(1));
                u32::from(c) < 0x700
                    || before.map(class) != Some(class(c))
                    || u32::from(c).is_multiple_of(61)
            };
            let chars: Vec<char> = ('\0'..=char::MAX).filter(is_tested).collect();
            for chunk in chars.chunks(256) {
                let mut text = String::new();
                for c in chunk {
                    text.extend(['a', *c, '1', *c, ' ', *c, '\'', *c, '\n']);
                }
                assert_eq!(
                    words(scanner, &text),
                    oracle(pattern, &text),
                    "{pattern} on {text:?}"
                );
            }
        }
    }

    #[test]
    fn a_long_run_of_spaces_leaves_one_for_the_next_word() {
        let text = format!("a{}b", " ".repeat(100_000));
        for pattern in ALL {
            let words = words(Words::of_pattern(pattern).unwrap(), &text);
            assert_eq!(words.len(), 3);
            assert_eq!(words[2], " b");
        }
    }
}
