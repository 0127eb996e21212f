//! Pre-tokenizers: the steps that cut normalised text into the words a model encodes.
//!
//! The steps form a chain, each handing its pieces to the next, so no list of pieces is ever built.

use fancy_regex::{Regex, RegexBuilder};

use crate::error::TokenizerError;
use crate::text::class::{is_punctuation, is_word};
use crate::text::unicode8::is_punctuation_or_ascii_symbol;
use crate::text::words::Words;

/// What becomes of the matches of a pattern when text is split by it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Behavior {
    Isolated,
    Removed,
    Contiguous,
    MergedWithPrevious,
    MergedWithNext,
}

/// When a word mark is put before text that lacks one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prepend {
    Always,
    /// Only at the start of the whole text.
    First,
    Never,
}

/// One step.
#[derive(Debug)]
pub(crate) enum Step {
    /// A known pattern, each match a word.
    Words(Words),
    /// Any other pattern.
    Pattern {
        pattern: Pattern,
        behavior: Behavior,
        invert: bool,
    },
    /// Runs of numeric characters, or each by itself.
    Digits { individual: bool },
    /// Spaces become marks, which begin words.
    Metaspace {
        mark: char,
        prepend: Prepend,
        split: bool,
    },
    /// BERT's: white space removed, punctuation isolated.
    Bert,
    /// `\w+|[^\w\s]+`.
    Whitespace,
    /// White space removed.
    WhitespaceSplit,
    /// Punctuation, ASCII's symbols included.
    Punctuation(Behavior),
    /// One character, removed.
    Delimiter(char),
    /// A space before text that does not start with one.
    PrefixSpace,
    /// GGUF's `default`: runs of `[\p{P}$+<=>^~|]` stand alone.
    PunctuationRuns,
    /// GGUF's `default`: ASCII digits by threes.
    DigitTriples,
}

/// A pattern without a scanner of its own.
#[derive(Debug)]
pub(crate) enum Pattern {
    Literal(Box<str>),
    /// Boxed: a rare and large variant.
    Regex(Box<Regex>),
}

/// Backtracking steps that one search may take before the rest of the text counts as unmatched.
const BACKTRACK_MAX: usize = 1_000_000;
/// Limit of a compiled pattern, and of the cache of its lazy automaton, in bytes.
const REGEX_BYTES_MAX: usize = 1 << 20;

impl Pattern {
    /// A literal; empty ones are refused, they would match everywhere.
    pub(crate) fn literal(text: &str) -> Result<Pattern, TokenizerError> {
        if text.is_empty() {
            return Err(TokenizerError::unsupported("pattern", "an empty string"));
        }
        Ok(Pattern::Literal(text.into()))
    }

    pub(crate) fn regex(pattern: &str) -> Result<Pattern, TokenizerError> {
        let regex = RegexBuilder::new(pattern)
            .backtrack_limit(BACKTRACK_MAX)
            .delegate_size_limit(REGEX_BYTES_MAX)
            .delegate_dfa_size_limit(REGEX_BYTES_MAX)
            .build()
            .map_err(|error| TokenizerError::Pattern {
                pattern: pattern.into(),
                message: error.to_string(),
            })?;
        Ok(Pattern::Regex(Box::new(regex)))
    }

    /// Calls `part` with consecutive ranges that cover `text`, and whether each is a match.
    pub(crate) fn parts(&self, text: &str, mut part: impl FnMut(usize, usize, bool)) {
        let mut done = 0;
        let mut found = |start: usize, end: usize, done: &mut usize| {
            if *done < start {
                part(*done, start, false);
            }
            part(start, end, true);
            *done = end;
        };
        match self {
            Pattern::Literal(literal) => {
                for (start, matched) in text.match_indices(&**literal) {
                    found(start, start + matched.len(), &mut done);
                }
            }
            Pattern::Regex(regex) => {
                // A search that exceeds its limit ends the matching, as it does in `tokenizers`.
                for matched in regex.find_iter(text).map_while(Result::ok) {
                    found(matched.start(), matched.end(), &mut done);
                }
            }
        }
        if done < text.len() {
            part(done, text.len(), false);
        }
    }

    /// Memory of the pattern in bytes. For a regular expression this is its limit, which is what
    /// can be said of it: compiled program and automaton each stay below [`REGEX_BYTES_MAX`].
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Pattern::Literal(literal) => literal.len(),
            Pattern::Regex(_) => size_of::<Regex>() + 2 * REGEX_BYTES_MAX,
        }
    }
}

/// Takes the words, each with whether it starts at the start of the whole text.
type Sink<'s> = dyn FnMut(&str, bool) + 's;

/// Runs `text` through the steps and gives each word, none empty, to `word`.
pub(crate) fn split(steps: &[Step], text: &str, at_start: bool, word: &mut dyn FnMut(&str)) {
    if text.is_empty() {
        return;
    }
    match steps {
        [] => word(text),
        // The usual chain, without an indirect call per word between scanner and model.
        [Step::Words(words)] => words.split(text, |_, piece| word(piece)),
        [step, rest @ ..] => {
            step.split(text, at_start, &mut |piece, at_start| {
                split(rest, piece, at_start, word)
            });
        }
    }
}

impl Step {
    fn split(&self, text: &str, at_start: bool, sink: &mut Sink<'_>) {
        match self {
            Step::Words(words) => words.split(text, |at, word| sink(word, at_start && at == 0)),
            Step::Pattern {
                pattern,
                behavior,
                invert,
            } => {
                let mut cut = Cut::new(text, *behavior, at_start, sink);
                pattern.parts(text, |start, end, matched| {
                    cut.part(start, end, matched != *invert)
                });
                cut.finish();
            }
            Step::Digits { individual } => {
                let behavior = if *individual {
                    Behavior::Isolated
                } else {
                    Behavior::Contiguous
                };
                by_char(text, char::is_numeric, behavior, at_start, sink);
            }
            Step::Metaspace {
                mark,
                prepend,
                split,
            } => {
                metaspace(text, *mark, *prepend, *split, at_start, sink);
            }
            Step::Bert => {
                by_char(
                    text,
                    char::is_whitespace,
                    Behavior::Removed,
                    at_start,
                    &mut |word, start| {
                        let isolated = Behavior::Isolated;
                        by_char(word, is_punctuation_or_ascii_symbol, isolated, start, sink);
                    },
                );
            }
            Step::Whitespace => {
                let kind = |c: char| match c {
                    c if is_word(c) => 0,
                    c if c.is_whitespace() => 1,
                    _ => 2,
                };
                let mut start = 0;
                let mut current = None;
                for (at, c) in text.char_indices().map(|(at, c)| (at, Some(c))) {
                    let next = c.map(kind);
                    if next != current {
                        if start < at && current != Some(1) {
                            sink(&text[start..at], at_start && start == 0);
                        }
                        start = at;
                        current = next;
                    }
                }
                if start < text.len() && current != Some(1) {
                    sink(&text[start..], at_start && start == 0);
                }
            }
            Step::WhitespaceSplit => {
                by_char(text, char::is_whitespace, Behavior::Removed, at_start, sink);
            }
            Step::Punctuation(behavior) => {
                by_char(
                    text,
                    is_punctuation_or_ascii_symbol,
                    *behavior,
                    at_start,
                    sink,
                );
            }
            Step::Delimiter(delimiter) => {
                by_char(text, |c| c == *delimiter, Behavior::Removed, at_start, sink);
            }
            Step::PrefixSpace => {
                if text.starts_with(' ') {
                    sink(text, at_start);
                } else {
                    let mut prefixed = String::with_capacity(text.len() + 1);
                    prefixed.push(' ');
                    prefixed.push_str(text);
                    sink(&prefixed, at_start);
                }
            }
            Step::PunctuationRuns => {
                let in_run = |c: char| {
                    matches!(c, '$' | '+' | '<' | '=' | '>' | '^' | '~' | '|') || is_punctuation(c)
                };
                by_char(text, in_run, Behavior::Contiguous, at_start, sink);
            }
            Step::DigitTriples => {
                let mut start = 0;
                let mut digits = 0;
                for (at, byte) in text.bytes().enumerate() {
                    digits = if byte.is_ascii_digit() { digits + 1 } else { 0 };
                    if digits == 3 {
                        if start + 3 < at + 1 {
                            sink(&text[start..at - 2], at_start && start == 0);
                        }
                        sink(&text[at - 2..=at], at_start && at == 2);
                        start = at + 1;
                        digits = 0;
                    }
                }
                if start < text.len() {
                    sink(&text[start..], at_start && start == 0);
                }
            }
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Step::Pattern { pattern, .. } => pattern.heap_bytes(),
            _ => 0,
        }
    }
}

fn metaspace(
    text: &str,
    mark: char,
    prepend: Prepend,
    split: bool,
    at_start: bool,
    sink: &mut Sink<'_>,
) {
    let starts_with_mark = text.starts_with(mark) || text.starts_with(' ');
    let prepended = !starts_with_mark
        && match prepend {
            Prepend::Always => true,
            Prepend::First => at_start,
            Prepend::Never => false,
        };
    let mut marked = String::with_capacity(text.len() + mark.len_utf8());
    if prepended {
        marked.push(mark);
    }
    marked.extend(text.chars().map(|c| if c == ' ' { mark } else { c }));
    if split {
        by_char(
            &marked,
            |c| c == mark,
            Behavior::MergedWithNext,
            at_start,
            sink,
        );
    } else {
        sink(&marked, at_start);
    }
}

/// Splits by single characters.
fn by_char(
    text: &str,
    matches: impl Fn(char) -> bool,
    behavior: Behavior,
    at_start: bool,
    sink: &mut Sink<'_>,
) {
    let mut cut = Cut::new(text, behavior, at_start, sink);
    let mut done = 0;
    for (at, c) in text.char_indices() {
        if matches(c) {
            if done < at {
                cut.part(done, at, false);
            }
            done = at + c.len_utf8();
            cut.part(at, done, true);
        }
    }
    if done < text.len() {
        cut.part(done, text.len(), false);
    }
    cut.finish();
}

/// Joins or drops consecutive parts according to a behaviour, holding back at most one.
struct Cut<'t, 's, 'f> {
    text: &'t str,
    behavior: Behavior,
    at_start: bool,
    sink: &'s mut Sink<'f>,
    // The part held back: start, end, whether it was a match.
    held: Option<(usize, usize, bool)>,
}

impl<'t, 's, 'f> Cut<'t, 's, 'f> {
    fn new(text: &'t str, behavior: Behavior, at_start: bool, sink: &'s mut Sink<'f>) -> Self {
        Cut {
            text,
            behavior,
            at_start,
            sink,
            held: None,
        }
    }

    fn part(&mut self, start: usize, end: usize, matched: bool) {
        let joined = match (self.behavior, self.held) {
            (Behavior::Isolated, _) | (_, None) => None,
            (Behavior::Removed, _) => None,
            (Behavior::Contiguous, Some((from, _, before))) => (before == matched).then_some(from),
            (Behavior::MergedWithPrevious, Some((from, _, before))) => {
                (matched && !before).then_some(from)
            }
            (Behavior::MergedWithNext, Some((from, _, before))) => {
                (before && !matched).then_some(from)
            }
        };
        if self.behavior == Behavior::Removed && matched {
            return;
        }
        match joined {
            Some(from) => self.held = Some((from, end, matched)),
            None => {
                self.finish();
                self.held = Some((start, end, matched));
            }
        }
    }

    /// Gives out the part held back.
    fn finish(&mut self) {
        if let Some((start, end, _)) = self.held.take()
            && start < end
        {
            (self.sink)(&self.text[start..end], self.at_start && start == 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(step: Step, text: &str, want: &[&str]) {
        let mut words = Vec::new();
        split(&[step], text, true, &mut |word| words.push(word.to_owned()));
        assert_eq!(words, want);
    }

    #[test]
    fn behaviours_join_as_their_names_say() {
        let by_dash = |behavior| Step::Pattern {
            pattern: Pattern::literal("-").unwrap(),
            behavior,
            invert: false,
        };
        let text = "the-final--count-";
        check(
            by_dash(Behavior::Isolated),
            text,
            &["the", "-", "final", "-", "-", "count", "-"],
        );
        check(by_dash(Behavior::Removed), text, &["the", "final", "count"]);
        check(
            by_dash(Behavior::Contiguous),
            text,
            &["the", "-", "final", "--", "count", "-"],
        );
        check(
            by_dash(Behavior::MergedWithPrevious),
            text,
            &["the-", "final-", "-", "count-"],
        );
        check(
            by_dash(Behavior::MergedWithNext),
            text,
            &["the", "-final", "-", "-count", "-"],
        );
    }

    #[test]
    fn digits_go_by_threes_from_the_left() {
        check(Step::DigitTriples, "12345678", &["123", "456", "78"]);
        check(Step::DigitTriples, "a1234b", &["a", "123", "4b"]);
        check(Step::DigitTriples, "123", &["123"]);
    }

    #[test]
    fn a_mark_is_prepended_once() {
        let step = |prepend| Step::Metaspace {
            mark: '\u{2581}',
            prepend,
            split: true,
        };
        check(step(Prepend::First), "a b", &["\u{2581}a", "\u{2581}b"]);
        check(
            step(Prepend::Never),
            "a  b",
            &["a", "\u{2581}", "\u{2581}b"],
        );
        check(step(Prepend::Always), " a", &["\u{2581}a"]);
    }
}
