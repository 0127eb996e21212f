//! Classes of characters: what the pre-tokenizers' patterns ask of one.

use unicode_general_category::{GeneralCategory as Category, get_general_category};

/// A set of classes; a character may be in several.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Class(u8);

impl Class {
    /// `\p{L}`.
    pub(crate) const LETTER: Class = Class(1);
    /// `\p{M}`.
    pub(crate) const MARK: Class = Class(2);
    /// `\p{N}`.
    pub(crate) const NUMBER: Class = Class(4);
    /// `\s`.
    pub(crate) const SPACE: Class = Class(8);
    /// `[\r\n]`, which is space too.
    pub(crate) const NEWLINE: Class = Class(16);

    pub(crate) const fn or(self, other: Class) -> Class {
        Class(self.0 | other.0)
    }

    /// Whether the two sets share a class.
    #[inline]
    pub(crate) const fn is(self, other: Class) -> bool {
        self.0 & other.0 != 0
    }
}

const ASCII: [Class; 128] = {
    let mut table = [Class(0); 128];
    let mut at = 0;
    while at < 128 {
        table[at] = match at as u8 {
            b'a'..=b'z' | b'A'..=b'Z' => Class::LETTER,
            b'0'..=b'9' => Class::NUMBER,
            b'\r' | b'\n' => Class::SPACE.or(Class::NEWLINE),
            b' ' | b'\t' | 0x0b | 0x0c => Class::SPACE,
            _ => Class(0),
        };
        at += 1;
    }
    table
};

/// The classes of a character.
#[inline]
pub(crate) fn class(c: char) -> Class {
    match ASCII.get(c as usize) {
        Some(&class) => class,
        None => class_beyond_ascii(c),
    }
}

fn class_beyond_ascii(c: char) -> Class {
    match get_general_category(c) {
        Category::UppercaseLetter
        | Category::LowercaseLetter
        | Category::TitlecaseLetter
        | Category::ModifierLetter
        | Category::OtherLetter => Class::LETTER,
        Category::NonspacingMark | Category::SpacingMark | Category::EnclosingMark => Class::MARK,
        Category::DecimalNumber | Category::LetterNumber | Category::OtherNumber => Class::NUMBER,
        _ if c.is_whitespace() => Class::SPACE,
        _ => Class(0),
    }
}

/// `\p{P}`.
pub(crate) fn is_punctuation(c: char) -> bool {
    matches!(
        get_general_category(c),
        Category::ConnectorPunctuation
            | Category::DashPunctuation
            | Category::ClosePunctuation
            | Category::FinalPunctuation
            | Category::InitialPunctuation
            | Category::OtherPunctuation
            | Category::OpenPunctuation
    )
}

/// Control, format and private-use characters.
pub(crate) fn is_other(c: char) -> bool {
    matches!(
        get_general_category(c),
        Category::Control | Category::Format | Category::PrivateUse
    )
}

/// `\p{Mn}`.
pub(crate) fn is_nonspacing_mark(c: char) -> bool {
    get_general_category(c) == Category::NonspacingMark
}

/// `\p{M}`.
pub(crate) fn is_mark(c: char) -> bool {
    class(c).is(Class::MARK)
}

/// `\w`: letters, marks, decimal digits, connectors, joiners, and the numbers and symbols that
/// Unicode counts as alphabetic (`Other_Alphabetic`).
pub(crate) fn is_word(c: char) -> bool {
    matches!(
        get_general_category(c),
        Category::DecimalNumber | Category::LetterNumber | Category::ConnectorPunctuation
    ) || class(c).is(Class::LETTER.or(Class::MARK))
        || matches!(c, '\u{200c}' | '\u{200d}' | '\u{24b6}'..='\u{24e9}')
        || matches!(c, '\u{1f130}'..='\u{1f149}' | '\u{1f150}'..='\u{1f169}')
        || matches!(c, '\u{1f170}'..='\u{1f189}')
}
