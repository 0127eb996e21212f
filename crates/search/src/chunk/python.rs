//! Items of Python: functions, and classes with each method for itself, by indentation.

use super::lines::Spans;
use super::scan::{Kind, Scan};

/// One item per function that is in no other function; a class's own lines are left to lines, cut off
/// from what stands around it.
pub(super) fn items(scan: &Scan<'_>) -> Spans {
    let mut spans = Spans::default();
    // Indentation of the classes that are open.
    let mut classes: Vec<usize> = Vec::new();
    let mut pending: Option<usize> = None;
    let mut line = 0;
    while line < scan.len() {
        let this = scan.lines[line];
        if this.inside || this.depth > 0 {
            line += 1;
            continue;
        }
        match this.kind {
            Kind::Blank => {
                pending = None;
                line += 1;
                continue;
            }
            Kind::Comment | Kind::Attribute => {
                pending.get_or_insert(line);
                line += 1;
                continue;
            }
            _ => {}
        }
        let indent = scan.indent(line);
        while classes.last().is_some_and(|&class| indent <= class) {
            classes.pop();
            spans.breaks.push(pending.unwrap_or(line));
        }
        let start = pending.take().unwrap_or(line);
        let text = scan.trimmed(line);
        if text.starts_with("class ") {
            spans.breaks.push(start);
            classes.push(indent);
        } else if text.starts_with("def ") || text.starts_with("async def ") {
            let end = block_end(scan, line, indent);
            spans.items.push(start..end);
            line = end;
            continue;
        }
        line += 1;
    }
    spans.breaks.dedup();
    spans
}

/// Where the block below a line ends: before the next line of code that is not indented further.
fn block_end(scan: &Scan<'_>, line: usize, indent: usize) -> usize {
    let mut end = line + 1;
    for next in line + 1..scan.len() {
        let this = scan.lines[next];
        if this.inside || this.depth > 0 {
            end = next + 1;
            continue;
        }
        match this.kind {
            Kind::Blank => {}
            // A comment that is not indented belongs to what follows.
            _ if scan.indent(next) <= indent => break,
            _ => end = next + 1,
        }
    }
    end
}
