//! A text cut into pieces that are worth finding: a function with its comment, a section with its
//! title, else some lines.
//!
//! - `scan`: comments, strings and brackets, so that the rest looks at code alone.
//! - `braces`: items of languages that delimit them with braces; `heads`: what begins one.
//! - `python`, `markdown`: items by indentation, sections by headings.
//! - `lines`: what no item claims, and items that are too long, by lines.
//!
//! No parser: a file that does not compile is cut as well, and the worst that a misunderstood line
//! does is to move a cut.

mod braces;
mod heads;
mod lines;
mod markdown;
mod python;
mod scan;

use std::ops::Range;

use crate::language::Language;
use scan::Scan;

/// Fewest letters and digits of a piece: less says nothing.
const LETTERS_MIN: usize = 12;

/// One piece of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// Its lines, counted from 0.
    pub lines: Range<usize>,
    /// Its bytes: whole lines.
    pub bytes: Range<usize>,
}

/// Cuts a text. Pieces do not overlap and are at most `bytes_max` long, but for single lines that are
/// longer; blank lines, lone brackets and lists of imports are in none.
pub fn chunks(text: &str, language: Language, bytes_max: usize) -> Vec<Chunk> {
    let scan = Scan::of(text, language);
    let spans = match language {
        Language::Markdown => markdown::sections(&scan),
        Language::Python => python::items(&scan),
        Language::Plain => lines::Spans::default(),
        _ => braces::items(&scan, language),
    };
    let mut pieces = Vec::new();
    let mut at = 0;
    for item in &spans.items {
        lines::rest(&scan, at..item.start, &spans.breaks, bytes_max, &mut pieces);
        lines::split(&scan, item.clone(), bytes_max, &mut pieces);
        at = item.end;
    }
    let end = scan.len();
    lines::rest(&scan, at..end, &spans.breaks, bytes_max, &mut pieces);
    let chunk = |lines: Range<usize>| Chunk {
        bytes: scan.bytes(&lines),
        lines,
    };
    pieces
        .into_iter()
        .map(chunk)
        .filter(|chunk| letters(&text[chunk.bytes.clone()]) >= LETTERS_MIN)
        .collect()
}

fn letters(text: &str) -> usize {
    text.chars().filter(|c| c.is_alphanumeric()).count()
}

/// A piece as it is shown and embedded: without the indentation that all its lines share, and without
/// blanks at its end.
pub fn dedent(text: &str) -> String {
    let blank = |line: &&str| line.trim().is_empty();
    let indent = |line: &str| line.len() - line.trim_start_matches([' ', '\t']).len();
    let shared = text.lines().filter(|line| !blank(line)).map(indent).min();
    let shared = shared.unwrap_or(0);
    let mut out = String::with_capacity(text.len());
    for line in text.lines() {
        // Blanks and tabs are one byte each, so this is a character's boundary.
        out.push_str(line.get(shared..).unwrap_or_default().trim_end());
        out.push('\n');
    }
    out.truncate(out.trim_end().len());
    out
}

#[cfg(test)]
mod tests;
