//! Items of languages that delimit them with braces: where each begins, with the comment and the
//! attributes above it, and where it ends.

use super::heads::{self, Form};
use super::lines::Spans;
use super::scan::{Kind, Scan};
use crate::language::Language;

/// Longest value (a constant, a variable) that is left among the lines around it unless it has a
/// comment of its own.
const VALUE_LINES_PLAIN: usize = 3;

/// An `impl`, a class, a module: what is in it is cut for itself.
struct Container {
    /// Open brackets within it.
    depth: u32,
    /// The line after its last.
    end: usize,
}

/// One item per function, type or the like that is in no other; lines of a container that are in none
/// of its items are left to lines, cut off from what stands around it.
pub(super) fn items(scan: &Scan<'_>, language: Language) -> Spans {
    let mut spans = Spans::default();
    let mut containers: Vec<Container> = Vec::new();
    let mut pending: Option<usize> = None;
    let mut line = 0;
    while line < scan.len() {
        while containers.last().is_some_and(|inner| line >= inner.end) {
            containers.pop();
            spans.breaks.push(line);
        }
        let this = scan.lines[line];
        let level = containers.last().map_or(0, |inner| inner.depth);
        if this.kind == Kind::Blank || this.kind == Kind::Directive {
            pending = None;
            line += 1;
            continue;
        }
        if this.kind == Kind::Comment {
            pending.get_or_insert(line);
            line += 1;
            continue;
        }
        if this.inside || this.depth != level {
            // An attribute of several lines is still one.
            if this.depth <= level {
                pending = None;
            }
            line += 1;
            continue;
        }
        if this.kind == Kind::Attribute {
            pending.get_or_insert(line);
            line = attribute_end(scan, line, level);
            continue;
        }
        let inner = !containers.is_empty();
        let start = pending.take().unwrap_or(line);
        let Some(form) = heads::form(scan, line, language, inner) else {
            line += 1;
            continue;
        };
        let extent = extent(scan, line, language, form);
        let documented = start < line;
        match form {
            Form::Container => {
                let Some(open) = extent.body else {
                    // `mod name;`
                    line = extent.end;
                    continue;
                };
                spans.breaks.push(start);
                let within = scan.lines.get(open + 1).map_or(0, |line| line.depth);
                if within > level && open + 1 < extent.end {
                    containers.push(Container {
                        depth: within,
                        end: extent.end,
                    });
                    line = open + 1;
                } else {
                    spans.items.push(start..extent.end);
                    line = extent.end;
                }
            }
            Form::Declaration if extent.body.is_none() && !documented => line = extent.end,
            Form::Value if extent.end - line <= VALUE_LINES_PLAIN && !documented => {
                line = extent.end;
            }
            _ => {
                spans.items.push(start..extent.end);
                line = extent.end;
            }
        }
    }
    spans.breaks.dedup();
    spans
}

/// The line after an attribute, which may have several.
fn attribute_end(scan: &Scan<'_>, line: usize, level: u32) -> usize {
    let next = (line + 1..scan.len()).find(|&next| scan.lines[next].depth <= level);
    next.unwrap_or(scan.len())
}

/// How far an item reaches.
struct Extent {
    /// The line on which its body opens.
    body: Option<usize>,
    /// The line after its last.
    end: usize,
}

/// Follows brackets from the beginning of a line to the end of what begins there.
fn extent(scan: &Scan<'_>, line: usize, language: Language, form: Form) -> Extent {
    let newlines_end = matches!(language, Language::Go | Language::JavaScript);
    let mut depth = 0u32;
    let mut body = None;
    let mut value = false;
    let mut at_line = line;
    let first = scan.lines[line].mark as usize;
    for (index, mark) in scan.marks.iter().enumerate().skip(first) {
        let mark_line = scan.line_of(mark.at);
        if newlines_end && depth == 0 {
            let complete = |&line: &usize| is_complete(scan, line, body.is_some());
            if let Some(last) = (at_line..mark_line).find(complete) {
                return Extent {
                    body,
                    end: last + 1,
                };
            }
        }
        at_line = mark_line;
        match mark.byte {
            b'{' | b'(' | b'[' => {
                if mark.byte == b'{' && depth == 0 && body.is_none() && !value {
                    body = Some(mark_line);
                }
                depth += 1;
            }
            b'}' | b')' | b']' if depth == 0 => {
                // What holds the item ends here.
                return Extent {
                    body,
                    end: mark_line.max(line + 1),
                };
            }
            b'}' | b')' | b']' => {
                depth -= 1;
                let closes = mark.byte == b'}' && depth == 0 && body.is_some();
                if closes && !goes_on(scan, mark.at, language) {
                    return Extent {
                        body,
                        end: end_after(scan, index, mark_line),
                    };
                }
            }
            b';' if depth == 0 => {
                return Extent {
                    body,
                    end: mark_line + 1,
                };
            }
            b'=' if depth == 0 && form == Form::Value => value = true,
            _ => {}
        }
    }
    let last = match newlines_end && depth == 0 {
        true => (at_line..scan.len()).find(|&line| is_complete(scan, line, body.is_some())),
        false => None,
    };
    Extent {
        body,
        end: last.map_or(scan.len(), |last| last + 1),
    }
}

/// The line after a closing brace; `} name;` and `};` belong to it.
fn end_after(scan: &Scan<'_>, mark: usize, line: usize) -> usize {
    match scan.marks.get(mark + 1) {
        Some(next) if next.byte == b';' => scan.line_of(next.at).min(line + 1) + 1,
        _ => line + 1,
    }
}

/// Whether a brace that closes at an item's level does not end it: `Foo() : a{1}, b{2} {`.
fn goes_on(scan: &Scan<'_>, at: u32, language: Language) -> bool {
    let after = scan.text[at as usize + 1..].trim_start();
    language == Language::Cpp && after.starts_with([',', '{'])
}

/// Whether a statement of a language without semicolons may end with this line.
fn is_complete(scan: &Scan<'_>, line: usize, has_body: bool) -> bool {
    const OPERATORS: &[u8] = b",=+-*/&|<>?:.({[\\";
    if scan.lines[line].last == 0 || OPERATORS.contains(&scan.lines[line].last) {
        return false;
    }
    let code = |&next: &usize| !matches!(scan.lines[next].kind, Kind::Blank | Kind::Comment);
    let Some(next) = (line + 1..scan.len()).find(code) else {
        return true;
    };
    if scan.lines[next].inside {
        return false;
    }
    let next = scan.trimmed(next);
    if !has_body && next.starts_with('{') {
        return false;
    }
    !next.starts_with(['.', '?', ':', '|', '&', '=', '+', '*'])
}
