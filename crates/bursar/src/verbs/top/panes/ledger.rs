//! The ledger as a tree: every account with a bar of what is measured, granted and was granted at most.

use ratatui::text::Line;
use serde_json::Value;

use super::{Page, list, word};
use crate::verbs::top::paint::{Tone, bar, fitted, size, span};

/// Columns of a figure, a blank before it included.
const FIGURE: usize = 11;
/// Fewest and most columns of names.
const NAME: (usize, usize) = (16, 34);

/// What the figures are.
pub(super) fn columns() -> String {
    format!(
        "{:>FIGURE$}{:>FIGURE$}{:>FIGURE$}",
        "GRANTED", "MEASURED", "PEAK"
    )
}

pub(super) fn lines(page: &Page<'_>) -> Vec<Line<'static>> {
    let tree = &page.memory["tree"];
    let mut nodes = Vec::new();
    flatten(tree, 0, &mut nodes);
    let longest = nodes
        .iter()
        .map(|(depth, node)| 2 * depth + word(&node["name"]).chars().count());
    let name_columns = longest.max().unwrap_or(0).clamp(NAME.0, NAME.1);
    let rest = page.width.saturating_sub(name_columns + 3 * FIGURE + 1);
    // The longest bar is what was ever granted: of a budget that is far from used, nothing could be seen.
    let whole = bytes(tree, "peak_bytes").max(bytes(tree, "granted_bytes"));
    let line = |(depth, node): &(usize, &Value)| {
        let name = format!("{}{}", "  ".repeat(*depth), word(&node["name"]));
        let figure = |name: &str| format!("{:>FIGURE$}", size(&node[name]));
        let tone = Tone::of_lifetime(word(&node["lifetime"]));
        let plain = |words: String| span(words, Tone::Plain, page.colours);
        Line::from(vec![
            plain(format!("{} ", fitted(&name, name_columns))),
            span(account_bar(node, whole, rest), tone, page.colours),
            plain(figure("granted_bytes")),
            span(figure("measured_bytes"), Tone::Dim, page.colours),
            span(figure("peak_bytes"), Tone::Dim, page.colours),
        ])
    };
    nodes.iter().map(line).collect()
}

/// Of what is granted, what is known to be there is full, the rest is shaded; behind it, what was granted
/// at most.
fn account_bar(node: &Value, whole: u64, cells: usize) -> String {
    let granted = bytes(node, "granted_bytes");
    let measured = node["measured_bytes"]
        .as_u64()
        .unwrap_or(granted)
        .min(granted);
    let before = bytes(node, "peak_bytes").saturating_sub(granted);
    let parts = [(measured, '█'), (granted - measured, '▒'), (before, '-')];
    bar(&parts, whole, cells)
}

fn bytes(node: &Value, name: &str) -> u64 {
    node[name].as_u64().unwrap_or(0)
}

fn flatten<'a>(node: &'a Value, depth: usize, into: &mut Vec<(usize, &'a Value)>) {
    into.push((depth, node));
    for child in list(&node["children"]) {
        flatten(child, depth + 1, into);
    }
}
