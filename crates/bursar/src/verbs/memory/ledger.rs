//! The ledger at one moment as a picture: a bar for the budget with what is granted of it, and below,
//! enlarged, what is granted as a column, to its right the accounts that share it, to the right of each
//! those below it. Heights are bytes, colours are lifetimes.

use bursar_memory::Bytes;
use serde_json::Value;

use crate::picture::{Anchor, Picture, shortened};

const WIDTH: f64 = 960.0;
const MARGIN: f64 = 16.0;
/// The bar of the budget, below title and legend.
const BAR_TOP: f64 = 84.0;
const BAR_HEIGHT: f64 = 20.0;
/// Where the columns begin, and how high all that is granted is.
const TOP: f64 = 120.0;
const HEIGHT: f64 = 560.0;
/// Rectangles that are lower have no room for words, and are listed below.
const WORDS_HEIGHT: f64 = 14.0;
/// Of a letter, about.
const LETTER_WIDTH: f64 = 6.6;
const LIFETIMES: [&str; 4] = ["procedural", "episodic", "semantic", "emotional"];

/// An account to be drawn.
struct Cell<'a> {
    name: &'a str,
    lifetime: &'a str,
    bytes: u64,
    children: Vec<Cell<'a>>,
}

impl<'a> Cell<'a> {
    fn of(node: &'a Value) -> Cell<'a> {
        let word = |name: &str| node[name].as_str().unwrap_or("-");
        let children = node["children"].as_array().into_iter().flatten();
        Cell {
            name: word("name"),
            lifetime: word("lifetime"),
            bytes: node["granted_bytes"].as_u64().unwrap_or(0),
            children: children.map(Cell::of).collect(),
        }
    }

    fn depth(&self) -> usize {
        let below = self.children.iter().map(Cell::depth).max();
        1 + below.unwrap_or(0)
    }
}

/// The picture of a report of `GET /memory`.
pub(super) fn draw(memory: &Value) -> String {
    let root = Cell::of(&memory["tree"]);
    let budget = memory["budget_bytes"].as_u64().unwrap_or(root.bytes);
    let mut small = Vec::new();
    let scale = HEIGHT / root.bytes.max(1) as f64;
    list_small(&root, scale, "", &mut small);
    let title = format!(
        "{} granted of a budget of {}",
        Bytes(root.bytes),
        Bytes(budget)
    );
    // Three to a line.
    let listed = small.len().div_ceil(3) as f64;
    let height = TOP
        + HEIGHT
        + 24.0
        + if small.is_empty() {
            0.0
        } else {
            22.0 + 17.0 * listed
        };
    let mut picture = Picture::new(WIDTH, height, &title);
    picture.words("title", (MARGIN, 28.0), Anchor::Start, &title);
    let size = |name: &str| memory[name].as_u64().map(|bytes| Bytes(bytes).to_string());
    let word = |size: Option<String>| size.unwrap_or_else(|| "unknown".to_owned());
    let measured = format!(
        "resident {}, at most {}; granted at most {}",
        word(size("rss_bytes")),
        word(size("rss_peak_bytes")),
        word(size("granted_peak_bytes")),
    );
    picture.words("dim", (MARGIN, 48.0), Anchor::Start, &measured);
    legend(&mut picture);

    bar(&mut picture, root.bytes, budget);

    let columns = root.depth();
    let width = (WIDTH - 2.0 * MARGIN) / columns as f64;
    let mut drawing = Drawing {
        picture: &mut picture,
        width,
        columns,
        scale,
    };
    drawing.cell(&root, 0, TOP);

    if !small.is_empty() {
        let mut foot = TOP + HEIGHT + 26.0;
        picture.words(
            "dim",
            (MARGIN, foot),
            Anchor::Start,
            "Too small to be seen:",
        );
        foot += 18.0;
        for (place, (name, bytes)) in small.iter().enumerate() {
            let column = (place % 3) as f64 * (WIDTH - 2.0 * MARGIN) / 3.0;
            let line = foot + 17.0 * (place / 3) as f64;
            let words = format!("{} {}", shortened(name, 30), Bytes(*bytes));
            picture.words("", (MARGIN + column, line), Anchor::Start, &words);
        }
    }
    picture.finish()
}

/// The budget, with what is granted of it.
fn bar(picture: &mut Picture, granted: u64, budget: u64) {
    let width = WIDTH - 2.0 * MARGIN;
    let share = (granted as f64 / budget.max(1) as f64).clamp(0.0, 1.0);
    let free = format!("{} free", Bytes(budget.saturating_sub(granted)));
    picture.rectangle("free", (MARGIN, BAR_TOP), (width, BAR_HEIGHT), &free);
    let hint = format!("{} granted", Bytes(granted));
    picture.rectangle(
        "even",
        (MARGIN, BAR_TOP),
        (width * share, BAR_HEIGHT),
        &hint,
    );
    let words = format!("{:.1} %", 100.0 * share);
    let foot = BAR_TOP + 14.0;
    // In the larger part, where there is room for it.
    match share > 0.5 {
        true => picture.words("on", (MARGIN + 6.0, foot), Anchor::Start, &words),
        false => {
            let at = (MARGIN + width * share + 6.0, foot);
            picture.words("", at, Anchor::Start, &format!("{words} granted, {free}"));
        }
    }
}

struct Drawing<'a> {
    picture: &'a mut Picture,
    /// Of a column.
    width: f64,
    columns: usize,
    /// Height of a byte.
    scale: f64,
}

impl Drawing<'_> {
    fn rectangle(&mut self, class: &str, name: &str, bytes: u64, at: (f64, f64), width: f64) {
        let height = self.scale * bytes as f64;
        if height < 0.1 {
            return;
        }
        let hint = format!("{name}: {} ({bytes} bytes)", Bytes(bytes));
        let class = format!("{class} edge");
        self.picture.rectangle(&class, at, (width, height), &hint);
        if height >= WORDS_HEIGHT {
            let letters = (width / LETTER_WIDTH) as usize;
            let size = Bytes(bytes).to_string();
            let name = shortened(name, letters.saturating_sub(size.chars().count() + 3));
            let foot = (at.0 + 6.0, at.1 + (height / 2.0).min(14.0) + 4.0);
            let words = format!("{name}  {size}");
            self.picture.words("on", foot, Anchor::Start, &words);
        }
    }

    /// An account at its column, and those below it to its right.
    fn cell(&mut self, cell: &Cell<'_>, column: usize, top: f64) {
        let left = MARGIN + self.width * column as f64;
        // What nothing is below of reaches to the edge.
        let columns = match cell.children.is_empty() {
            true => self.columns - column,
            false => 1,
        };
        let width = self.width * columns as f64;
        self.rectangle(cell.lifetime, cell.name, cell.bytes, (left, top), width);
        let mut top = top;
        for child in &cell.children {
            self.cell(child, column + 1, top);
            top += self.scale * child.bytes as f64;
        }
    }
}

/// The accounts that hold something and are too low for words, by their path below the whole.
fn list_small<'a>(cell: &Cell<'a>, scale: f64, path: &str, small: &mut Vec<(String, u64)>) {
    for child in &cell.children {
        let path = match path {
            "" => child.name.to_owned(),
            path => format!("{path}/{}", child.name),
        };
        if child.bytes > 0 && scale * (child.bytes as f64) < WORDS_HEIGHT {
            small.push((path, child.bytes));
        } else {
            list_small(child, scale, &path, small);
        }
    }
}

fn legend(picture: &mut Picture) {
    let mut x = MARGIN;
    for name in LIFETIMES.into_iter().chain(["free"]) {
        picture.rectangle(name, (x, 58.0), (12.0, 12.0), "");
        picture.words("dim", (x + 18.0, 68.0), Anchor::Start, name);
        x += 40.0 + LETTER_WIDTH * name.len() as f64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_account_is_in_the_picture() {
        let leaf = |name: &str, bytes: u64| json!({ "name": name, "lifetime": "semantic", "granted_bytes": bytes, "children": [] });
        let memory = json!({
            "budget_bytes": 1000,
            "rss_bytes": 700,
            "tree": {
                "name": "process", "lifetime": "procedural", "granted_bytes": 600,
                "children": [
                    leaf("pools", 100),
                    { "name": "model<1>", "lifetime": "semantic", "granted_bytes": 500,
                      "children": [leaf("weights", 499), leaf("tokenizer", 1)] },
                ],
            },
        });
        let svg = draw(&memory);
        for words in [
            "600 B granted of a budget of 1000 B",
            "pools  100 B",
            "model&lt;1&gt;",
            "free",
        ] {
            assert!(svg.contains(words), "{words} is missing from {svg}");
        }
        assert!(
            svg.contains("model&lt;1&gt;/tokenizer 1 B"),
            "what is too small is listed"
        );
        assert!(
            draw(&json!({})).contains("</svg>"),
            "an empty report is no panic"
        );
    }
}
