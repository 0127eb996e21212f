//! Categories of characters as Unicode 8 had them.
//!
//! The reference's BERT normalizer and punctuation split use tables of 2015, and models were
//! trained behind them: a mark that came with Unicode 9 is not removed, newer punctuation splits
//! nothing. The present tables minus what came since give the same answers.

use crate::text::class;

/// Ranges, both ends included, that hold every control, format or private-use character,
/// nonspacing mark and punctuation character that is newer than Unicode 8, and none that is older.
#[rustfmt::skip]
const NEWER: [(u32, u32); 41] = [
    (0x61d, 0x61d), (0x7fd, 0x7fd), (0x890, 0x8e2), (0x9fd, 0x9fe), (0xa76, 0xa76), (0xafa,
    0xaff), (0xb55, 0xb55), (0xc04, 0xc3c), (0xc77, 0xc77), (0xc84, 0xc84), (0xd00, 0xd00),
    (0xd3b, 0xd3c), (0xd81, 0xd81), (0xeba, 0xeba), (0xece, 0xece), (0x180f, 0x1886), (0x1abf,
    0x1ace), (0x1b4e, 0x1b4f), (0x1b7d, 0x1b7f), (0x1df6, 0x1dfb), (0x2e43, 0x2e5d), (0xa82c,
    0xa82c), (0xa8c5, 0xa8c5), (0xa8ff, 0xa8ff), (0xa9bd, 0xa9bd), (0x1_0d24, 0x1_0f89),
    (0x1_1070, 0x1_1074), (0x1_10c2, 0x1_10cd), (0x1_11cf, 0x1_11cf), (0x1_123e, 0x1_1241),
    (0x1_133b, 0x1_133b), (0x1_13bb, 0x1_145e), (0x1_1660, 0x1_166c), (0x1_16b9, 0x1_16b9),
    (0x1_182f, 0x1_1fff), (0x1_2ff1, 0x1_612f), (0x1_6d6d, 0x1_6f4f), (0x1_6fe2, 0x1_6fe4),
    (0x1_cf00, 0x1_cf46), (0x1_e000, 0x1_e5ff), (0x1_e944, 0x1_e95f),
];

fn is_newer(c: char) -> bool {
    let code = u32::from(c);
    let after = NEWER.partition_point(|&(first, _)| first <= code);
    after > 0 && code <= NEWER[after - 1].1
}

/// Control, format and private-use characters.
pub(crate) fn is_other(c: char) -> bool {
    class::is_other(c) && !is_newer(c)
}

/// `\p{Mn}`. Of three characters the category has changed since.
pub(crate) fn is_nonspacing_mark(c: char) -> bool {
    match c {
        '\u{1734}' | '\u{1171e}' => true,
        '\u{111c9}' => false,
        _ => class::is_nonspacing_mark(c) && !is_newer(c),
    }
}

/// `\p{P}`. Of two characters the category has changed since.
pub(crate) fn is_punctuation(c: char) -> bool {
    matches!(c, '\u{166d}' | '\u{111c9}') || (class::is_punctuation(c) && !is_newer(c))
}

/// `\p{P}`, and all of ASCII's punctuation, some of which Unicode calls symbols.
pub(crate) fn is_punctuation_or_ascii_symbol(c: char) -> bool {
    c.is_ascii_punctuation() || is_punctuation(c)
}

#[cfg(test)]
mod tests {
    use super::*;
    use unicode_categories::UnicodeCategories;

    #[test]
    fn every_character_is_what_it_is_to_the_reference() {
        for c in '\0'..=char::MAX {
            assert_eq!(is_other(c), c.is_other(), "{c:?}");
            assert_eq!(is_nonspacing_mark(c), c.is_mark_nonspacing(), "{c:?}");
            assert_eq!(
                is_punctuation(c),
                UnicodeCategories::is_punctuation(c),
                "{c:?}"
            );
        }
    }
}
