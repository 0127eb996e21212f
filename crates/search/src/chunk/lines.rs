//! Cutting by lines: what no item claims, and items that are too long.

use std::ops::Range;

use super::scan::{Kind, Scan};

/// Most lines of a piece that is no item.
const REST_LINES_MAX: usize = 40;

/// What a language's rules found in a text.
#[derive(Debug, Default)]
pub(super) struct Spans {
    /// Lines of items, in order and apart from each other.
    pub(super) items: Vec<Range<usize>>,
    /// Lines, in order, before which what is no item is cut: where a class begins and ends.
    pub(super) breaks: Vec<usize>,
}

/// Cuts lines that belong to no item.
pub(super) fn rest(
    scan: &Scan<'_>,
    lines: Range<usize>,
    breaks: &[usize],
    bytes_max: usize,
    pieces: &mut Vec<Range<usize>>,
) {
    let first = breaks.partition_point(|&at| at <= lines.start);
    let mut start = lines.start;
    let inner = breaks[first..].iter().copied();
    for at in inner.take_while(|&at| at < lines.end).chain([lines.end]) {
        let part = trim(scan, start..at);
        if !part.clone().all(|line| is_idle(scan, line)) {
            cut(scan, part, bytes_max, REST_LINES_MAX, pieces);
        }
        start = at;
    }
}

/// Cuts an item if it is too long.
pub(super) fn split(
    scan: &Scan<'_>,
    lines: Range<usize>,
    bytes_max: usize,
    pieces: &mut Vec<Range<usize>>,
) {
    cut(scan, trim(scan, lines), bytes_max, usize::MAX, pieces);
}

/// Cuts into pieces of at most so many bytes and lines, between paragraphs where there are such.
fn cut(
    scan: &Scan<'_>,
    lines: Range<usize>,
    bytes_max: usize,
    lines_max: usize,
    pieces: &mut Vec<Range<usize>>,
) {
    let mut rest = lines;
    while !rest.is_empty() {
        let fits = |end: usize| scan.bytes(&(rest.start..end)).len() <= bytes_max;
        let most = rest.end.min(rest.start.saturating_add(lines_max));
        // At least one line, however long.
        let mut end = rest.start + 1;
        while end < most && fits(end + 1) {
            end += 1;
        }
        if end < rest.end {
            let earliest = rest.start + (end - rest.start).div_ceil(2);
            let blank = |&line: &usize| scan.lines[line].kind == Kind::Blank;
            if let Some(paragraph) = (earliest..end).rev().find(blank) {
                end = paragraph + 1;
            }
        }
        let piece = trim(scan, rest.start..end);
        if !piece.is_empty() {
            pieces.push(piece);
        }
        rest.start = end;
    }
}

/// Without blank lines at either end.
fn trim(scan: &Scan<'_>, mut lines: Range<usize>) -> Range<usize> {
    let blank = |line: usize| scan.lines[line].kind == Kind::Blank;
    while !lines.is_empty() && blank(lines.start) {
        lines.start += 1;
    }
    while !lines.is_empty() && blank(lines.end - 1) {
        lines.end -= 1;
    }
    lines
}

/// Whether nobody would look for a line: blanks, brackets, imports, and what only opens an item's
/// surroundings.
fn is_idle(scan: &Scan<'_>, line: usize) -> bool {
    const OPENINGS: [&str; 13] = [
        "use ",
        "pub use ",
        "import ",
        "from ",
        "#include",
        "#pragma",
        "package ",
        "extern crate ",
        "mod ",
        "pub mod ",
        "impl ",
        "impl<",
        "namespace ",
    ];
    let text = scan.trimmed(line);
    let rest = text.trim_start_matches(['}', ')', ']', ';', ' ']);
    scan.lines[line].kind == Kind::Attribute
        || !text.contains(|c: char| c.is_alphanumeric())
        // }  // namespace
        || (rest.len() < text.len() && (rest.starts_with("//") || rest.starts_with("/*")))
        || OPENINGS.iter().any(|opening| text.starts_with(opening))
        // The lines of a braced import.
        || (scan.lines[line].depth > 0 && text.ends_with(',') && !text.contains([' ', '(', '=']))
}
