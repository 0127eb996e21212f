//! The screen: a pure function of the state and a size. Above stand budget and past, below the panes; a
//! wide screen has two columns of them. The pane in focus gets the room that others do not need.

use ratatui::Frame;
use ratatui::buffer::Buffer;
use ratatui::layout::Rect;
use ratatui::text::Line;
use ratatui::widgets::{Clear, Paragraph, RenderDirection, Sparkline, Widget, Wrap};
use serde_json::Value;

use super::paint::{Colours, Tone, bar, fitted, size, span};
use super::panes::{self, heading, lines};
use super::state::{Pane, State};
use crate::progress::duration;

/// Screens at least so wide have two columns.
const TWO_COLUMNS: u16 = 140;
/// Lines of a pane that is not in focus, where there is little room.
const LINES_LEAST: usize = 3;
/// Rows of the past at most.
const PAST_ROWS_MAX: u16 = 6;
/// Rows above the past: title, budget, figures.
const HEAD_ROWS: u16 = 3;

const HELP: &str = "\
tab, shift-tab    the next, the last pane
j k, arrows       scroll the pane in focus
page up, down     the same by ten lines
?                 this, and away with it
q, esc, ctrl-c    the end

Ledger: the longest bar is what was ever granted.
  █ granted, and known to be resident (or nobody measures it)
  ▒ granted, not touched yet
  - was granted before;  ▏ too little for a cell
Keys and values: ▓ shared, █ used by one, ▒ cached, · free
Colours are lifetimes: procedural blue, episodic yellow,
semantic cyan, emotional magenta.";

/// Where the panes are, and which lines of them are seen.
#[derive(Debug, PartialEq, Eq)]
struct Place {
    pane: Pane,
    area: Rect,
}

/// Draws it.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State) {
    render(state, frame.area(), frame.buffer_mut());
}

/// The screen as text.
pub(super) fn text(state: &State, width: u16, height: u16) -> String {
    let area = Rect::new(0, 0, width, height);
    let mut buffer = Buffer::empty(area);
    render(state, area, &mut buffer);
    let row = |y: u16| {
        let cells = (0..width).map(|x| buffer[(x, y)].symbol());
        cells.collect::<String>().trim_end().to_owned()
    };
    (0..height).map(row).collect::<Vec<String>>().join("\n")
}

/// Rows that show all there is, where there are no keys and no past.
pub(super) fn height(state: &State, width: u16) -> u16 {
    let Some(memory) = &state.memory else {
        return 8;
    };
    let counts = Pane::ALL.map(|pane| lines(pane, state, memory, width).len() + 1);
    let most = match width >= TWO_COLUMNS {
        true => counts[0].max(counts[1..].iter().sum()),
        false => counts.iter().sum(),
    };
    u16::try_from(most)
        .unwrap_or(u16::MAX)
        .saturating_add(HEAD_ROWS)
}

/// Lines of the pane in focus, and how many of them a screen of this size shows.
pub(super) fn focused(state: &State, width: u16, height: u16) -> (usize, usize) {
    let Some(memory) = &state.memory else {
        return (0, 0);
    };
    let below = below(state, Rect::new(0, 0, width, height));
    let mut places = places(state, memory, below).into_iter();
    let Some(place) = places.find(|place| place.pane == state.focus) else {
        return (0, 0);
    };
    let all = lines(state.focus, state, memory, place.area.width).len();
    (all, usize::from(place.area.height.saturating_sub(1)))
}

/// Rows of the past with its heading, of a screen so high.
fn past_rows(state: &State, height: u16) -> u16 {
    match state.live {
        true => 1 + (height / 16).clamp(1, PAST_ROWS_MAX),
        false => 0,
    }
}

/// What is left for panes below the head and above the last line.
fn below(state: &State, area: Rect) -> Rect {
    let top = (HEAD_ROWS + past_rows(state, area.height)).min(area.height);
    let height = area.height - top;
    let foot = u16::from(has_foot(state)).min(height);
    Rect::new(area.x, area.y + top, area.width, height - foot)
}

/// Whether the last line says something.
fn has_foot(state: &State) -> bool {
    state.live || state.trouble.is_some()
}

fn render(state: &State, area: Rect, buffer: &mut Buffer) {
    if area.width == 0 || area.height == 0 {
        return;
    }
    title(state, row(area, 0), buffer);
    match &state.memory {
        None => silence(state, area, buffer),
        Some(memory) => {
            head(state, memory, area, buffer);
            for place in places(state, memory, below(state, area)) {
                pane(state, memory, &place, buffer);
            }
        }
    }
    if area.height > 2 && has_foot(state) {
        foot(state, row(area, area.height - 1), buffer);
    }
    if state.help {
        help(state, area, buffer);
    }
}

/// A row of an area; nothing if it has none such.
fn row(area: Rect, number: u16) -> Rect {
    Rect::new(area.x, area.y + number, area.width, 1).intersection(area)
}

fn line(line: Line<'static>, area: Rect, buffer: &mut Buffer) {
    if !area.is_empty() {
        line.render(area, buffer);
    }
}

fn title(state: &State, area: Rect, buffer: &mut Buffer) {
    let left = format!("bursar top  {}", state.url);
    let level = state
        .memory
        .as_ref()
        .map(|memory| memory["pressure"].as_str().unwrap_or("unknown"));
    let right = level.map_or(String::new(), |level| format!("pressure {level}"));
    let columns = usize::from(area.width).saturating_sub(right.chars().count());
    let tone = Tone::of_pressure(level.unwrap_or("normal"));
    let words = vec![
        span(fitted(&left, columns), Tone::Focus, state.colours),
        span(right, tone, state.colours),
    ];
    line(Line::from(words), area, buffer);
}

/// Budget, what is granted of it and resident, and what was.
fn head(state: &State, memory: &Value, area: Rect, buffer: &mut Buffer) {
    let colours = state.colours;
    let bytes = |name: &str| memory[name].as_u64().unwrap_or(0);
    let (budget, granted) = (bytes("budget_bytes"), bytes("granted_bytes"));
    let before = bytes("granted_peak_bytes").saturating_sub(granted);
    let share = 100.0 * granted as f64 / budget.max(1) as f64;
    let left = format!("budget {} ", size(&memory["budget_bytes"]));
    let right = format!(" {share:.1} % granted");
    let cells =
        usize::from(area.width).saturating_sub(left.chars().count() + right.chars().count());
    let tone = Tone::of_pressure(memory["pressure"].as_str().unwrap_or("normal"));
    let gauge = bar(&[(granted, '█'), (before, '-')], budget, cells);
    let words = vec![
        span(left, Tone::Plain, colours),
        span(gauge, tone, colours),
        span(right, Tone::Plain, colours),
    ];
    line(Line::from(words), row(area, 1), buffer);
    let figure = |name: &str| size(&memory[name]);
    let words = format!(
        "granted {}, at most {}; resident {}, at most {}",
        figure("granted_bytes"),
        figure("granted_peak_bytes"),
        figure("rss_bytes"),
        figure("rss_peak_bytes"),
    );
    line(
        Line::from(span(words, Tone::Plain, colours)),
        row(area, 2),
        buffer,
    );
    if state.live {
        past(state, area, buffer);
    }
}

/// What was granted, a column for each time that the server was asked.
fn past(state: &State, area: Rect, buffer: &mut Buffer) {
    let columns = usize::from(area.width);
    let seen = state.granted.iter().rev().take(columns).copied();
    let seen: Vec<u64> = seen.collect();
    let most = seen.iter().copied().max().unwrap_or(0);
    let seconds = state.interval.as_secs_f64() * seen.len().saturating_sub(1) as f64;
    let name = match seen.len() {
        ..2 => "Granted now".to_owned(),
        _ => format!("Granted, last {}", duration(seconds)),
    };
    let right = format!("most {}", size(&most.into()));
    rule(
        &name,
        &right,
        Tone::Dim,
        state.colours,
        row(area, HEAD_ROWS),
        buffer,
    );
    let (top, height) = (HEAD_ROWS + 1, past_rows(state, area.height) - 1);
    let rows = Rect::new(area.x, area.y + top, area.width, height);
    Sparkline::default()
        .data(seen)
        .max(most.max(1))
        .direction(RenderDirection::RightToLeft)
        .style(Tone::Semantic.style(state.colours))
        .render(rows.intersection(area), buffer);
}

/// A line with words at its ends.
fn rule(name: &str, right: &str, tone: Tone, colours: Colours, area: Rect, buffer: &mut Buffer) {
    let columns = usize::from(area.width);
    let ends = name.chars().count() + right.chars().count() + 4;
    let middle = "─".repeat(columns.saturating_sub(ends));
    let gap = if right.is_empty() { "──" } else { " " };
    let rest = if right.is_empty() { "" } else { right };
    let words = vec![
        span("─ ", Tone::Dim, colours),
        span(name.to_owned(), tone, colours),
        span(format!(" {middle}{gap}"), Tone::Dim, colours),
        span(rest.to_owned(), Tone::Dim, colours),
    ];
    line(Line::from(words), area, buffer);
}

/// Where each pane is: what all need at least, then what the one in focus can use, then the others.
fn places(state: &State, memory: &Value, area: Rect) -> Vec<Place> {
    let columns: Vec<(&[Pane], Rect)> = match area.width >= TWO_COLUMNS {
        true => {
            let left = area.width / 2;
            vec![
                (
                    &Pane::ALL[..1],
                    Rect {
                        width: left - 1,
                        ..area
                    },
                ),
                (
                    &Pane::ALL[1..],
                    Rect {
                        x: area.x + left + 1,
                        width: area.width - left - 1,
                        ..area
                    },
                ),
            ]
        }
        false => vec![(&Pane::ALL, area)],
    };
    let mut places = Vec::new();
    for (panes, area) in columns {
        let wants: Vec<usize> = panes
            .iter()
            .map(|pane| lines(*pane, state, memory, area.width).len())
            .collect();
        let focus = panes.iter().position(|pane| *pane == state.focus);
        let rows = shares(&wants, focus, usize::from(area.height));
        let mut y = area.y;
        for (pane, rows) in panes.iter().zip(rows) {
            let height = u16::try_from(rows).unwrap_or(0);
            let area = Rect { y, height, ..area };
            y += height;
            places.push(Place { pane: *pane, area });
        }
    }
    places
}

/// Rows of each pane, its heading included, of `height` for all; `wants` are lines.
fn shares(wants: &[usize], focus: Option<usize>, height: usize) -> Vec<usize> {
    let mut rows = vec![0; wants.len()];
    let mut left = height;
    let mut give = |place: usize, until: usize, left: &mut usize| {
        let more = until.saturating_sub(rows[place]).min(*left);
        rows[place] += more;
        *left -= more;
    };
    // The one in focus first, so that it is there on the lowest of screens.
    let order: Vec<usize> = focus.into_iter().chain(0..wants.len()).collect();
    for &place in &order {
        give(place, 1 + wants[place].min(LINES_LEAST), &mut left);
    }
    for &place in &order {
        give(place, 1 + wants[place], &mut left);
    }
    rows
}

fn pane(state: &State, memory: &Value, place: &Place, buffer: &mut Buffer) {
    let area = place.area;
    if area.is_empty() {
        return;
    }
    let panes::Heading { name, columns } = heading(place.pane);
    let all = lines(place.pane, state, memory, area.width);
    let room = usize::from(area.height - 1);
    let scrolled = state.scrolled[place.pane as usize].min(all.len().saturating_sub(room));
    let (focused, hidden) = (place.pane == state.focus, all.len().saturating_sub(room));
    let mark = if focused { "▸ " } else { "" };
    let more = match hidden {
        0 => String::new(),
        _ => format!(" {}-{} of {}", scrolled + 1, scrolled + room, all.len()),
    };
    let name = format!("{mark}{name}{more}");
    let tone = if focused { Tone::Focus } else { Tone::Plain };
    rule(&name, &columns, tone, state.colours, row(area, 0), buffer);
    for (number, shown) in all.into_iter().skip(scrolled).take(room).enumerate() {
        line(shown, row(area, 1 + number as u16), buffer);
    }
}

/// The last line: keys, or what is wrong.
fn foot(state: &State, area: Rect, buffer: &mut Buffer) {
    let (words, tone) = match (&state.trouble, &state.memory) {
        (Some((what, _)), Some(_)) => (format!("trying again: {what}"), Tone::Warning),
        _ => (
            "q quit   tab next pane   j k scroll   ? help".to_owned(),
            Tone::Dim,
        ),
    };
    let words = fitted(&words, usize::from(area.width));
    line(Line::from(span(words, tone, state.colours)), area, buffer);
}

/// What is said while the server says nothing.
fn silence(state: &State, area: Rect, buffer: &mut Buffer) {
    let mut words = Vec::new();
    match &state.trouble {
        None => words.push(Line::from(format!("asking {} ...", state.url))),
        Some((what, remedies)) => {
            words.push(Line::from(span(what.clone(), Tone::Warning, state.colours)));
            words.push(Line::default());
            words.extend(remedies.iter().map(|remedy| Line::from(remedy.clone())));
            let again = duration(state.interval.as_secs_f64().max(1.0));
            words.push(Line::from(format!("Trying again every {again}.")));
        }
    }
    let inside = Rect::new(
        area.x + 2,
        area.y + 2,
        area.width.saturating_sub(4),
        area.height,
    );
    let text = Paragraph::new(words).wrap(Wrap { trim: true });
    text.render(inside.intersection(area), buffer);
}

fn help(state: &State, area: Rect, buffer: &mut Buffer) {
    let text: Vec<&str> = HELP.lines().collect();
    let width = text
        .iter()
        .map(|line| line.chars().count())
        .max()
        .unwrap_or(0) as u16
        + 4;
    let height = text.len() as u16 + 2;
    let x = area.width.saturating_sub(width) / 2;
    let y = area.height.saturating_sub(height) / 2;
    let area = Rect::new(area.x + x, area.y + y, width, height).intersection(area);
    Clear.render(area, buffer);
    rule("Help", "", Tone::Focus, state.colours, row(area, 0), buffer);
    for (number, words) in text.iter().enumerate() {
        let words = Line::from(span(format!("  {words}"), Tone::Plain, state.colours));
        line(words, row(area, 1 + number as u16), buffer);
    }
    if area.height > 1 {
        rule(
            "? or esc to close",
            "",
            Tone::Dim,
            state.colours,
            row(area, area.height - 1),
            buffer,
        );
    }
}
