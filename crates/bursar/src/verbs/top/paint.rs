//! Bars, figures and colours. Every colour says something that a letter or a shade says as well.

use bursar_memory::Bytes;
use ratatui::style::{Color, Modifier, Style};
use ratatui::text::Span;
use serde_json::Value;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// Whether there are colours.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Colours {
    On,
    Off,
}

/// What a colour is for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Tone {
    Plain,
    /// What matters less.
    Dim,
    /// What is in focus.
    Focus,
    Good,
    Warning,
    Bad,
    Procedural,
    Episodic,
    Semantic,
    Emotional,
}

impl Tone {
    /// Of an account.
    pub(super) fn of_lifetime(name: &str) -> Tone {
        match name {
            "procedural" => Tone::Procedural,
            "episodic" => Tone::Episodic,
            "semantic" => Tone::Semantic,
            "emotional" => Tone::Emotional,
            _ => Tone::Plain,
        }
    }

    /// Of a level of pressure.
    pub(super) fn of_pressure(level: &str) -> Tone {
        match level {
            "normal" => Tone::Good,
            "elevated" => Tone::Warning,
            _ => Tone::Bad,
        }
    }

    pub(super) fn style(self, colours: Colours) -> Style {
        let plain = Style::new();
        if colours == Colours::Off {
            return match self {
                Tone::Focus | Tone::Bad => plain.add_modifier(Modifier::BOLD),
                _ => plain,
            };
        }
        match self {
            Tone::Plain => plain,
            Tone::Dim => plain.fg(Color::DarkGray),
            Tone::Focus => plain.add_modifier(Modifier::BOLD),
            Tone::Good => plain.fg(Color::Green),
            Tone::Warning => plain.fg(Color::Yellow),
            Tone::Bad => plain.fg(Color::Red).add_modifier(Modifier::BOLD),
            Tone::Procedural => plain.fg(Color::Blue),
            Tone::Episodic => plain.fg(Color::Yellow),
            Tone::Semantic => plain.fg(Color::Cyan),
            Tone::Emotional => plain.fg(Color::Magenta),
        }
    }
}

/// A word in its colour.
pub(super) fn span(words: impl Into<String>, tone: Tone, colours: Colours) -> Span<'static> {
    Span::styled(words.into(), tone.style(colours))
}

/// A bar of `cells` cells for `whole`: each part in turn with its letter, what is left with a dot. A part
/// of less than half a cell is a thin stroke, where there is room.
pub(super) fn bar(parts: &[(u64, char)], whole: u64, cells: usize) -> String {
    let mut text = String::new();
    let (mut sum, mut used) = (0u64, 0);
    for &(bytes, letter) in parts {
        sum = sum.saturating_add(bytes);
        let share = sum as f64 / whole.max(1) as f64;
        let until = ((share * cells as f64).round() as usize).min(cells);
        if until > used {
            text.extend(std::iter::repeat_n(letter, until - used));
            used = until;
        } else if bytes > 0 && used < cells {
            text.push('▏');
            used += 1;
        }
    }
    text.extend(std::iter::repeat_n('·', cells - used));
    text
}

/// Bytes as people read them, or a stroke for what nobody knows.
pub(super) fn size(value: &Value) -> String {
    let bytes = value.as_u64().map(|bytes| Bytes(bytes).to_string());
    bytes.unwrap_or_else(|| "-".to_owned())
}

/// Words in exactly `columns` columns, cut at the end where they take more.
pub(super) fn fitted(words: &str, columns: usize) -> String {
    let width = words.width();
    if width <= columns {
        return format!("{words}{}", " ".repeat(columns - width));
    }
    let mut text = String::new();
    let mut used = 0;
    for letter in words.chars() {
        let wide = letter.width().unwrap_or(0);
        if used + wide + 1 > columns {
            break;
        }
        text.push(letter);
        used += wide;
    }
    if columns > 0 {
        text.push('…');
        used += 1;
    }
    text.extend(std::iter::repeat_n(' ', columns - used));
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bars_show_even_little() {
        assert_eq!(bar(&[(50, '#')], 100, 10), "#####·····");
        assert_eq!(bar(&[(1, '#'), (1, '+')], 1000, 5), "▏▏···");
        assert_eq!(bar(&[(600, '#'), (1, '+')], 1000, 5), "###▏·");
        assert_eq!(bar(&[(0, '#'), (100, '+')], 100, 4), "++++");
        assert_eq!(bar(&[(200, '#'), (9, '+')], 100, 4), "####");
        assert_eq!(bar(&[], 0, 3), "···");
    }

    #[test]
    fn words_are_cut_to_columns() {
        assert_eq!(fitted("abc", 5), "abc  ");
        assert_eq!(fitted("abcdef", 4), "abc…");
        assert_eq!(fitted("日本語", 4), "日… ");
        assert_eq!(fitted("abc", 0), "");
    }
}
