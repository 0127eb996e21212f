//! A picture of a heap over time, as SVG: above how much was in use, below where it lay.
//!
//! Both share the axis of time. Colours are by lifetime; they and the text suit a light and a dark page.

use std::fmt::Write;

use crate::account::Lifetime;
use crate::bytes::Bytes;
use crate::trace::replay::{Placed, Replay, Sample};

/// Width and height of the picture, and where its panels are, in pixels.
const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 620.0;
const LEFT: f64 = 84.0;
const RIGHT: f64 = 944.0;
const USE: (f64, f64) = (84.0, 300.0);
const MAP: (f64, f64) = (344.0, 572.0);

/// Steps of time of the upper panel.
const STEPS: usize = 430;
/// Cells of the lower panel: steps of time, and pieces of the address space.
const COLUMNS: usize = 215;
const ROWS: usize = 76;
/// Shades of a cell, by how much of it is in use.
const SHADES: usize = 4;
/// Address space that nobody used for longer than this is left out.
const GAP_BYTES: usize = 256 << 10;

const STYLE: &str = "\
text{font:12px system-ui,sans-serif;fill:#333}.t{font-size:15px}.a{text-anchor:end}.m{text-anchor:middle}\
.g{stroke:#8886;stroke-width:.5}.b{fill:#fff}.h{fill:none;stroke:#333;stroke-width:1.2}\
.c{fill:none;stroke:#333;stroke-width:1.2;stroke-dasharray:5 4}\
.l0{fill:#7a5cc4}.l1{fill:#2a8fbd}.l2{fill:#3d9a50}.l3{fill:#d9772b}\
@media(prefers-color-scheme:dark){text{fill:#ddd}.b{fill:#161616}.h,.c{stroke:#ddd}\
.l0{fill:#a58be6}.l1{fill:#57b8e3}.l2{fill:#67c47b}.l3{fill:#f2994a}}";

/// Draws a replay. `title` says what it is of.
pub fn picture(title: &str, replay: &Replay) -> String {
    let mut svg = String::new();
    let first = replay.samples.first().map_or(0, |sample| sample.time_us);
    let last = replay.samples.last().map_or(0, |sample| sample.time_us);
    let time = Time {
        first_us: first,
        length_us: (last - first).max(1),
    };
    // Writing to a string does not fail.
    let _ = write!(
        svg,
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\
         <title>{}</title><style>{STYLE}</style>\
         <rect class=\"b\" width=\"{WIDTH}\" height=\"{HEIGHT}\"/>\
         <text class=\"t\" x=\"{LEFT}\" y=\"28\">{}</text>",
        escape(title),
        escape(title),
    );
    legend(&mut svg, replay);
    let bands = Bands::new(replay, &time);
    bands.draw(&mut svg);
    map(&mut svg, replay, &time);
    time.draw(&mut svg);
    svg.push_str("</svg>\n");
    svg
}

/// The axis of time.
struct Time {
    first_us: u64,
    length_us: u64,
}

impl Time {
    /// Which of `steps` steps a moment is in.
    fn step(&self, time_us: u64, steps: usize) -> usize {
        let since = u128::from(time_us.saturating_sub(self.first_us));
        let step = since * steps as u128 / (u128::from(self.length_us) + 1);
        (step as usize).min(steps - 1)
    }

    fn draw(&self, svg: &mut String) {
        let seconds = self.length_us as f64 / 1e6;
        let (unit, per_second) = match seconds {
            ..0.002 => ("µs", 1e6),
            ..2.0 => ("ms", 1e3),
            ..240.0 => ("s", 1.0),
            _ => ("min", 1.0 / 60.0),
        };
        let length = seconds * per_second;
        let step = decimal_step(length);
        let mut at = 0.0;
        while at <= length {
            let x = LEFT + at / length * (RIGHT - LEFT);
            let _ = write!(
                svg,
                "<path class=\"g\" d=\"M{x:.1} {}V{}M{x:.1} {}V{}\"/>\
                 <text class=\"m\" x=\"{x:.1}\" y=\"{}\">{}</text>",
                USE.0,
                USE.1,
                MAP.0,
                MAP.1,
                MAP.1 + 17.0,
                plain(at),
            );
            at += step;
        }
        let middle = (LEFT + RIGHT) / 2.0;
        let _ = write!(
            svg,
            "<text class=\"m\" x=\"{middle}\" y=\"{}\">time in {unit}</text>",
            MAP.1 + 37.0
        );
    }
}

/// A step of 1, 2 or 5 times a power of ten, of which `length` has ten at most.
fn decimal_step(length: f64) -> f64 {
    let power = 10_f64.powf((length / 10.0).max(1e-9).log10().floor());
    let steps = [1.0, 2.0, 5.0, 10.0].map(|times| times * power);
    steps
        .into_iter()
        .find(|step| length / step <= 10.0)
        .unwrap_or(length)
}

/// A number of an axis, without the noise of adding steps up.
fn plain(number: f64) -> String {
    let text = format!("{number:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn legend(svg: &mut String, replay: &Replay) {
    let mut x = LEFT;
    let y = 52.0;
    let key = |svg: &mut String, x: &mut f64, mark: String, words: &str| {
        let _ = write!(
            svg,
            "{mark}<text x=\"{:.1}\" y=\"{}\">{words}</text>",
            *x + 22.0,
            y + 4.0
        );
        *x += 38.0 + words.len() as f64 * 6.6;
    };
    for lifetime in Lifetime::ALL {
        let class = lifetime as usize;
        let mark = format!(
            "<rect class=\"l{class}\" x=\"{x:.1}\" y=\"{}\" width=\"14\" height=\"10\"/>",
            y - 5.0
        );
        key(svg, &mut x, mark, lifetime.name());
    }
    if replay.held_peak_bytes.is_some() {
        for (class, words) in [("h", "handed out by the heaps"), ("c", "charged")] {
            let mark = format!("<path class=\"{class}\" d=\"M{x:.1} {y}h16\"/>");
            key(svg, &mut x, mark, words);
        }
    }
}

/// The upper panel.
struct Bands {
    /// By step of time: bytes in use of each lifetime, handed out, charged; at the moment of the step
    /// when most was in use.
    steps: Vec<([u64; 4], u64, u64)>,
    /// Whether the last two are known.
    held: bool,
}

impl Bands {
    fn new(replay: &Replay, time: &Time) -> Bands {
        // Used by lifetime follows from where blocks lay and when; the rest was sampled.
        let mut changes: Vec<(u64, bool, &Placed)> = replay
            .placed
            .iter()
            .flat_map(|placed| {
                [
                    (placed.from_us, true, placed),
                    (placed.to_us, false, placed),
                ]
            })
            .collect();
        // What is taken and given back at the same moment was in use for that moment.
        changes.sort_by_key(|(time_us, takes, _)| (*time_us, !takes));
        let mut steps: Vec<([u64; 4], u64, u64)> = Vec::with_capacity(STEPS);
        let mut now = [0_u64; 4];
        let mut changes = changes.into_iter().peekable();
        let mut samples = replay.samples.iter().peekable();
        let mut sample = Sample::default();
        for step in 0..STEPS {
            let mut most = now;
            let is_here = |time_us: u64| time.step(time_us, STEPS) <= step;
            while let Some((_, takes, placed)) = changes.next_if(|change| is_here(change.0)) {
                let of = &mut now[placed.lifetime as usize];
                let len = placed.len as u64;
                *of = if takes {
                    of.saturating_add(len)
                } else {
                    of.saturating_sub(len)
                };
                if now.iter().sum::<u64>() > most.iter().sum::<u64>() {
                    most = now;
                }
            }
            let (mut held, mut committed) = (sample.held_bytes, sample.committed_bytes);
            while let Some(next) = samples.next_if(|sample| is_here(sample.time_us)) {
                sample = *next;
                held = held.max(sample.held_bytes);
                committed = committed.max(sample.committed_bytes);
            }
            steps.push((most, held, committed));
        }
        Bands {
            steps,
            held: replay.held_peak_bytes.is_some(),
        }
    }

    fn draw(&self, svg: &mut String) {
        let heights = self
            .steps
            .iter()
            .map(|(used, held, committed)| used.iter().sum::<u64>().max(*held).max(*committed));
        let top = heights.max().unwrap_or(0).max(1);
        byte_axis(svg, USE, top, "bytes");
        let y = |bytes: u64| USE.1 - bytes as f64 / top as f64 * (USE.1 - USE.0);
        let x = |step: usize| LEFT + step as f64 / STEPS as f64 * (RIGHT - LEFT);
        let mut below = vec![0_u64; STEPS];
        for lifetime in Lifetime::ALL {
            let above: Vec<u64> = below
                .iter()
                .zip(&self.steps)
                .map(|(below, (used, _, _))| below + used[lifetime as usize])
                .collect();
            if above != below {
                let mut path = format!("M{LEFT} {:.1}", y(above[0]));
                stairs(&mut path, above.iter().map(|bytes| y(*bytes)), x);
                let _ = write!(path, "V{:.1}", y(below[STEPS - 1]));
                for step in (0..STEPS).rev() {
                    let _ = write!(path, "V{:.1}H{:.1}", y(below[step]), x(step));
                }
                let _ = write!(
                    svg,
                    "<path class=\"l{}\" d=\"{path}z\"/>",
                    lifetime as usize
                );
            }
            below = above;
        }
        if !self.held {
            return;
        }
        for (class, line) in [
            (
                "h",
                self.steps.iter().map(|step| step.1).collect::<Vec<u64>>(),
            ),
            ("c", self.steps.iter().map(|step| step.2).collect()),
        ] {
            let mut path = format!("M{LEFT} {:.1}", y(line[0]));
            stairs(&mut path, line.iter().map(|bytes| y(*bytes)), x);
            let _ = write!(svg, "<path class=\"{class}\" d=\"{path}\"/>");
        }
    }
}

/// A line of steps, as long as they stay the same in one go.
fn stairs(path: &mut String, heights: impl Iterator<Item = f64>, x: impl Fn(usize) -> f64) {
    let mut last = None;
    let mut end = 0;
    for (step, height) in heights.enumerate() {
        let height = format!("{height:.1}");
        if last.as_ref() != Some(&height) {
            if step > 0 {
                let _ = write!(path, "H{:.1}V{height}", x(step));
            }
            last = Some(height);
        }
        end = step + 1;
    }
    let _ = write!(path, "H{:.1}", x(end));
}

/// Lines and sizes beside a panel.
fn byte_axis(svg: &mut String, (top, bottom): (f64, f64), bytes: u64, words: &str) {
    let step = (bytes / 5)
        .max(1)
        .checked_next_power_of_two()
        .unwrap_or(bytes);
    for at in (0..=bytes / step).map(|times| times * step) {
        let y = bottom - at as f64 / bytes as f64 * (bottom - top);
        let _ = write!(
            svg,
            "<path class=\"g\" d=\"M{LEFT} {y:.1}H{RIGHT}\"/>\
             <text class=\"a\" x=\"{}\" y=\"{:.1}\">{}</text>",
            LEFT - 6.0,
            y + 4.0,
            Bytes(at),
        );
    }
    let y = (top + bottom) / 2.0;
    let _ = write!(
        svg,
        "<text class=\"m\" transform=\"translate(14 {y}) rotate(-90)\">{words}</text>"
    );
}

/// The address space that was used, without the gaps in it.
struct Spaces {
    /// Start, end, and how many bytes of used space lie before it. Ascending.
    pieces: Vec<(usize, usize, usize)>,
    length: usize,
}

impl Spaces {
    fn new(placed: &[Placed]) -> Spaces {
        let mut ranges: Vec<(usize, usize)> = placed
            .iter()
            .map(|block| (block.start, block.start.saturating_add(block.len)))
            .collect();
        ranges.sort_unstable();
        let mut pieces: Vec<(usize, usize, usize)> = Vec::new();
        for (start, end) in ranges {
            match pieces.last_mut() {
                Some(last) if start <= last.1.saturating_add(GAP_BYTES) => last.1 = last.1.max(end),
                _ => pieces.push((start, end, 0)),
            }
        }
        let mut length = 0;
        for piece in &mut pieces {
            piece.2 = length;
            length += piece.1 - piece.0;
        }
        Spaces { pieces, length }
    }

    /// An address as a distance from the first one used, gaps not counted.
    fn offset(&self, address: usize) -> usize {
        let after = self
            .pieces
            .partition_point(|(start, _, _)| *start <= address);
        let Some((start, _, before)) = after.checked_sub(1).and_then(|at| self.pieces.get(at))
        else {
            return 0;
        };
        before + (address - start)
    }
}

/// The lower panel.
fn map(svg: &mut String, replay: &Replay, time: &Time) {
    let spaces = Spaces::new(&replay.placed);
    if spaces.length == 0 {
        return;
    }
    byte_axis(
        svg,
        MAP,
        spaces.length as u64,
        "address, unused gaps left out",
    );
    // By cell and lifetime: how much of it is in use, as a share of its bytes and its time.
    let mut cells = vec![[0.0_f64; 4]; COLUMNS * ROWS];
    let row_bytes = spaces.length as f64 / ROWS as f64;
    let column_us = time.length_us as f64 / COLUMNS as f64;
    for block in replay.placed.iter().filter(|block| block.len > 0) {
        let start = spaces.offset(block.start) as f64 / row_bytes;
        let end = start + block.len as f64 / row_bytes;
        let from = (block.from_us - time.first_us) as f64 / column_us;
        let to = (block.to_us - time.first_us) as f64 / column_us;
        for (column, time_share) in covered(from, to, COLUMNS) {
            for (row, byte_share) in covered(start, end, ROWS) {
                cells[column * ROWS + row][block.lifetime as usize] += time_share * byte_share;
            }
        }
    }
    // Cells of one colour and shade become one path.
    let mut paths = vec![String::new(); 4 * SHADES];
    let (width, height) = (
        (RIGHT - LEFT) / COLUMNS as f64,
        (MAP.1 - MAP.0) / ROWS as f64,
    );
    for row in 0..ROWS {
        let colour = |column: usize| colour_of(&cells[column * ROWS + row]);
        let mut column = 0;
        while column < COLUMNS {
            let run = (column..COLUMNS)
                .take_while(|next| colour(*next) == colour(column))
                .count();
            if let Some(colour) = colour(column) {
                let _ = write!(
                    paths[colour],
                    "M{:.1} {:.1}h{:.1}v{height:.1}h-{:.1}z",
                    LEFT + column as f64 * width,
                    MAP.1 - (row + 1) as f64 * height,
                    run as f64 * width,
                    run as f64 * width,
                );
            }
            column += run;
        }
    }
    for (colour, path) in paths
        .iter()
        .enumerate()
        .filter(|(_, path)| !path.is_empty())
    {
        let opacity = (colour % SHADES + 1) as f64 / SHADES as f64;
        let class = colour / SHADES;
        let _ = write!(
            svg,
            "<path class=\"l{class}\" fill-opacity=\"{opacity}\" d=\"{path}\"/>"
        );
    }
}

/// The cells of `0..count` between two positions, with how much of each lies between them.
fn covered(from: f64, to: f64, count: usize) -> impl Iterator<Item = (usize, f64)> {
    let first = (from as usize).min(count - 1);
    let last = (to as usize).min(count - 1);
    (first..=last).map(move |cell| {
        let share = to.min((cell + 1) as f64) - from.max(cell as f64);
        (cell, share.clamp(0.0, 1.0))
    })
}

/// The lifetime that has most of a cell, and the shade of how much is in use; `None` where hardly any.
fn colour_of(cell: &[f64; 4]) -> Option<usize> {
    let used: f64 = cell.iter().sum();
    if used < 0.02 {
        return None;
    }
    let most = (0..4).max_by(|one, other| cell[*one].total_cmp(&cell[*other]))?;
    let shade = ((used * SHADES as f64).ceil() as usize).clamp(1, SHADES) - 1;
    Some(most * SHADES + shade)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::trace::replay::Way;

    fn replay(placed: Vec<Placed>, samples: Vec<Sample>) -> Replay {
        Replay {
            way: Way::ProcessAllocator,
            events: samples.len(),
            event_ns: 1.0,
            used_peak_bytes: 0,
            held_peak_bytes: Some(0),
            committed_peak_bytes: Some(0),
            fragmentation_ratio: None,
            hit_ratio: None,
            fallbacks: 0,
            refused: 0,
            membranes: None,
            samples,
            placed,
        }
    }

    fn placed(start: usize, len: usize, from_us: u64, to_us: u64, lifetime: Lifetime) -> Placed {
        Placed {
            start,
            len,
            from_us,
            to_us,
            lifetime,
        }
    }

    fn sample(time_us: u64, bytes: u64) -> Sample {
        Sample {
            time_us,
            used_bytes: bytes,
            held_bytes: bytes,
            committed_bytes: 4096,
        }
    }

    #[test]
    fn a_picture_has_axes_with_units_a_band_and_a_map() {
        let blocks = vec![
            placed(0x1000, 1000, 0, 2_000_000, Lifetime::Episodic),
            placed(0x2000, 3000, 500_000, 3_000_000, Lifetime::Semantic),
        ];
        let samples = vec![sample(0, 1000), sample(500_000, 4000), sample(3_000_000, 0)];
        let svg = picture("a <chat> & more", &replay(blocks, samples));
        for part in [
            "<title>a &lt;chat&gt; &amp; more</title>",
            "time in s",
            ">2.0 KiB</text>",
            "prefers-color-scheme:dark",
            "<path class=\"l1\" d=",
            "<path class=\"l2\" fill-opacity=\"1\"",
            "address, unused gaps left out",
        ] {
            assert!(svg.contains(part), "{part}");
        }
        assert_eq!(svg.matches("<path class=\"l0\"").count(), 0);
    }

    #[test]
    fn odd_replays_are_drawn_too() {
        let zero = placed(0x1000, 0, 0, 0, Lifetime::Episodic);
        let long = placed(1, usize::MAX / 2, 0, u64::MAX, Lifetime::Emotional);
        let samples = vec![sample(0, 1), sample(u64::MAX, u64::MAX / 2)];
        for replay in [
            replay(vec![], vec![]),
            replay(vec![zero], vec![sample(7, 0)]),
            replay(vec![long], samples),
        ] {
            assert!(picture("odd", &replay).ends_with("</svg>\n"));
        }
    }

    #[test]
    fn bands_show_the_most_of_each_step() {
        let blocks = vec![
            placed(0, 10, 0, 4300, Lifetime::Procedural),
            placed(64, 5, 1000, 1001, Lifetime::Episodic),
        ];
        let samples = vec![sample(0, 10), sample(4300, 0)];
        let time = Time {
            first_us: 0,
            length_us: 4299,
        };
        let bands = Bands::new(&replay(blocks, samples), &time);
        assert_eq!(bands.steps[0].0, [10, 0, 0, 0]);
        assert_eq!(bands.steps[100].0, [10, 5, 0, 0]);
        assert_eq!(bands.steps[101].0, [10, 0, 0, 0]);
        assert_eq!((bands.steps[50].1, bands.steps[50].2), (10, 4096));
    }

    #[test]
    fn gaps_between_addresses_are_left_out() {
        let blocks = [
            placed(10 << 20, 100, 0, 1, Lifetime::Episodic),
            placed((10 << 20) + 50, 100, 0, 1, Lifetime::Episodic),
            placed(1 << 40, 100, 0, 1, Lifetime::Episodic),
        ];
        let spaces = Spaces::new(&blocks);
        assert_eq!(spaces.length, 250);
        assert_eq!(spaces.offset((1 << 40) + 7), 157);
        assert_eq!(spaces.offset(10 << 20), 0);
    }

    #[test]
    fn axes_have_round_steps() {
        assert_eq!(
            [7.0, 30.0, 0.4, 100.0].map(decimal_step),
            [1.0, 5.0, 0.05, 10.0]
        );
        assert_eq!(
            [0.30000000000000004, 5.0, 0.0].map(plain),
            ["0.3", "5", "0"]
        );
    }
}
