//! The ratios of two sheets as bars on a logarithmic axis: what is twice as much reaches as far to the
//! right as what is half as much reaches to the left.

use super::sheet::{self, Difference, Sheet};
use super::{Pair, Verdict};
use crate::output::measured;
use crate::picture::{Anchor, Picture, shortened};

const WIDTH: f64 = 1000.0;
/// Where bars may be; names stand before, values after.
const LEFT: f64 = 290.0;
const RIGHT: f64 = 630.0;
/// Where the first bar begins, below title and legend.
const TOP: f64 = 96.0;
const ROW: f64 = 24.0;
const BAR: f64 = 14.0;
/// Letters that a name may have.
const NAME_LETTERS: usize = 40;
/// Doublings that the axis shows at most to either side; what goes beyond ends there.
const DOUBLINGS_MAX: f64 = 10.0;

/// The picture as a file.
pub(super) fn draw(a: &Sheet, b: &Sheet, pairs: &[Pair<'_>]) -> String {
    // Of what neither has, there is nothing to be seen.
    let pairs: Vec<&Pair<'_>> = pairs
        .iter()
        .filter(|pair| pair.a.median != 0.0 || pair.b.median != 0.0)
        .collect();
    let doublings = axis(&pairs);
    let bottom = TOP + ROW * pairs.len() as f64;
    let file = |sheet: &Sheet| {
        let name = sheet.path.file_name().unwrap_or_default().to_string_lossy();
        shortened(&name, 60)
    };
    let title = format!("A / B: {} / {}", file(a), file(b));
    let mut picture = Picture::new(WIDTH, bottom + 40.0, &title);
    picture.words("title", (16.0, 26.0), Anchor::Start, &title);
    let mut about = match a.about() == b.about() {
        true => format!("both {}", a.about()),
        false => format!("A: {}; B: {}", a.about(), b.about()),
    };
    for differs in sheet::differences(a, b) {
        let Difference { what, a, b } = differs;
        // What tells the two apart beside what they are said to be of.
        if let Some(name) = what.strip_prefix("setting.") {
            about.push_str(&format!("; {name}: {a} / {b}"));
        }
    }
    picture.words("dim", (16.0, 46.0), Anchor::Start, &shortened(&about, 140));
    legend(&mut picture);

    let middle = (LEFT + RIGHT) / 2.0;
    let x = |doubled: f64| {
        let doubled = doubled.clamp(-doublings, doublings);
        middle + (RIGHT - LEFT) / 2.0 * doubled / doublings
    };
    // At most nine marks, whole doublings apart.
    let step = (doublings / 4.0).ceil().max(1.0) as i32;
    let most = doublings as i32;
    for mark in (-most..=most).filter(|mark| mark % step == 0) {
        let at = x(f64::from(mark));
        let class = if mark == 0 { "axis" } else { "line" };
        picture.line(class, (at, TOP - 6.0), (at, bottom));
        let label = match mark {
            ..0 => format!("1/{}", 1u64 << -mark),
            _ => (1u64 << mark).to_string(),
        };
        picture.words("dim", (at, bottom + 18.0), Anchor::Middle, &label);
    }
    for (row, pair) in pairs.into_iter().enumerate() {
        let y = TOP + ROW * row as f64;
        let foot = y + BAR - 2.0;
        let name = shortened(pair.name, NAME_LETTERS);
        picture.words("", (LEFT - 10.0, foot), Anchor::End, &name);
        let verdict = pair.verdict();
        let class = match verdict {
            Verdict::Better => "good",
            Verdict::Worse => "bad",
            Verdict::Alike | Verdict::Neither => "even",
        };
        let end = x(reach(pair));
        // A bar of nothing is still to be seen.
        let (from, width) = (middle.min(end), (end - middle).abs().max(1.0));
        let ratio = match pair.ratio() {
            Some(ratio) => format!("{ratio:.3}"),
            None => "no ratio".to_owned(),
        };
        let [(a, unit), (b, _)] =
            [pair.a, pair.b].map(|figure| measured(figure.median, &figure.unit));
        let values = format!("{a} / {b} {unit}");
        let hint = format!("{}: {ratio} ({values}) {}", pair.name, verdict.word());
        picture.rectangle(class, (from, y), (width, BAR), &hint);
        picture.words("", (RIGHT + 60.0, foot), Anchor::End, &ratio);
        let values = match verdict.word() {
            "" => values,
            word => format!("{}: {word}", values.trim_end()),
        };
        picture.words("dim", (RIGHT + 74.0, foot), Anchor::Start, &values);
    }
    picture.finish()
}

fn legend(picture: &mut Picture) {
    let entries = [
        ("good", "A is better"),
        ("bad", "A is worse"),
        ("even", "alike, or neither is to be wished for"),
    ];
    let mut x = 16.0;
    for (class, words) in entries {
        picture.rectangle(class, (x, 58.0), (12.0, 12.0), "");
        picture.words("dim", (x + 18.0, 68.0), Anchor::Start, words);
        x += 36.0 + 6.5 * words.len() as f64;
    }
}

/// Doublings from 1 to the ratio: endless where there is none to speak of.
fn reach(pair: &Pair<'_>) -> f64 {
    match pair.ratio() {
        Some(ratio) if ratio > 0.0 => ratio.log2(),
        Some(_) => f64::NEG_INFINITY,
        None if pair.b.median == 0.0 => f64::INFINITY,
        None => 0.0,
    }
}

/// Doublings that the axis shows to either side.
fn axis(pairs: &[&Pair<'_>]) -> f64 {
    let reaches = pairs.iter().map(|pair| reach(pair).abs());
    let widest = reaches.filter(|reach| reach.is_finite());
    widest.fold(1.0, f64::max).ceil().min(DOUBLINGS_MAX)
}
