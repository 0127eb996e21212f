//! Normalizers: what happens to text between cutting out the added tokens and splitting.

use std::borrow::Cow;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick, is_nfd_quick};
use unicode_normalization::{is_nfkc_quick, is_nfkd_quick};

use crate::text::class::is_mark;
use crate::text::split::Pattern;
use crate::text::unicode8::{is_nonspacing_mark, is_other};

/// One step of normalisation.
#[derive(Debug)]
pub(crate) enum Normalizer {
    Nfc,
    Nfd,
    Nfkc,
    Nfkd,
    Lowercase,
    /// Removes marks.
    StripAccents,
    /// Removes white space at the ends.
    Strip {
        left: bool,
        right: bool,
    },
    /// Puts a string before text that is not empty.
    Prepend(Box<str>),
    Replace {
        pattern: Pattern,
        content: Box<str>,
    },
    Bert {
        clean: bool,
        chinese: bool,
        accents: bool,
        lowercase: bool,
    },
}

impl Normalizer {
    pub(crate) fn apply<'t>(&self, text: Cow<'t, str>) -> Cow<'t, str> {
        if text.is_empty() {
            return text;
        }
        match self {
            Normalizer::Nfc => compose(
                text,
                |text| is_nfc_quick(text.chars()),
                |text| text.nfc().collect(),
            ),
            Normalizer::Nfd => compose(
                text,
                |text| is_nfd_quick(text.chars()),
                |text| text.nfd().collect(),
            ),
            Normalizer::Nfkc => compose(
                text,
                |text| is_nfkc_quick(text.chars()),
                |text| text.nfkc().collect(),
            ),
            Normalizer::Nfkd => compose(
                text,
                |text| is_nfkd_quick(text.chars()),
                |text| text.nfkd().collect(),
            ),
            Normalizer::Lowercase => {
                if text
                    .bytes()
                    .all(|byte| byte.is_ascii() && !byte.is_ascii_uppercase())
                {
                    return text;
                }
                Cow::Owned(lowercase(text.chars()).collect())
            }
            Normalizer::StripAccents => {
                if text.is_ascii() {
                    return text;
                }
                Cow::Owned(text.chars().filter(|&c| !is_mark(c)).collect())
            }
            Normalizer::Strip { left, right } => {
                let mut kept = &*text;
                if *left {
                    kept = kept.trim_start();
                }
                if *right {
                    kept = kept.trim_end();
                }
                if kept.len() == text.len() {
                    text
                } else {
                    Cow::Owned(kept.to_owned())
                }
            }
            Normalizer::Prepend(prefix) => {
                let mut prefixed = String::with_capacity(prefix.len() + text.len());
                prefixed.push_str(prefix);
                prefixed.push_str(&text);
                Cow::Owned(prefixed)
            }
            Normalizer::Replace { pattern, content } => {
                let mut replaced = String::with_capacity(text.len());
                pattern.parts(&text, |start, end, matched| {
                    replaced.push_str(if matched { content } else { &text[start..end] });
                });
                Cow::Owned(replaced)
            }
            Normalizer::Bert {
                clean,
                chinese,
                accents,
                lowercase,
            } => Cow::Owned(bert(&text, *clean, *chinese, *accents, *lowercase)),
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Normalizer::Prepend(prefix) => prefix.len(),
            Normalizer::Replace { pattern, content } => pattern.heap_bytes() + content.len(),
            _ => 0,
        }
    }
}

fn compose<'t>(
    text: Cow<'t, str>,
    quick: impl Fn(&str) -> IsNormalized,
    normalise: impl Fn(&str) -> String,
) -> Cow<'t, str> {
    // ASCII is its own normal form in all four.
    if text.is_ascii() || quick(&text) == IsNormalized::Yes {
        text
    } else {
        Cow::Owned(normalise(&text))
    }
}

/// Lowercases each character by itself: no final sigma, as the reference does.
fn lowercase(chars: impl Iterator<Item = char>) -> impl Iterator<Item = char> {
    chars.flat_map(char::to_lowercase)
}

fn bert(text: &str, clean: bool, chinese: bool, accents: bool, lower: bool) -> String {
    let mut out = String::with_capacity(text.len());
    let kept = text.chars().filter(|&c| !(clean && is_dropped(c)));
    let spaced = kept.map(|c| if clean && is_white(c) { ' ' } else { c });
    for c in spaced {
        if chinese && is_chinese(c) {
            out.extend([' ', c, ' ']);
        } else {
            out.push(c);
        }
    }
    if accents && !out.is_ascii() {
        out = out.nfd().filter(|&c| !is_nonspacing_mark(c)).collect();
    }
    if lower {
        if out.is_ascii() {
            out.make_ascii_lowercase();
        } else {
            out = lowercase(out.chars()).collect();
        }
    }
    out
}

fn is_white(c: char) -> bool {
    c.is_whitespace()
}

fn is_dropped(c: char) -> bool {
    match c {
        '\t' | '\n' | '\r' => false,
        '\0' | '\u{fffd}' => true,
        _ => is_other(c),
    }
}

/// The blocks of CJK ideographs that BERT isolates. The start of the sixth is the reference's,
/// which differs from the block's own (U+2B820).
fn is_chinese(c: char) -> bool {
    matches!(u32::from(c),
        0x4e00..=0x9fff
        | 0x3400..=0x4dbf
        | 0x2_0000..=0x2_a6df
        | 0x2_a700..=0x2_b73f
        | 0x2_b740..=0x2_b81f
        | 0x2_b920..=0x2_ceaf
        | 0xf900..=0xfaff
        | 0x2_f800..=0x2_fa1f)
}
