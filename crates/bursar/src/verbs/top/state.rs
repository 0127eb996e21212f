//! All that the screen shows: the server's last report, what was granted before, and where the user is.

use std::collections::VecDeque;
use std::time::Duration;

use serde_json::Value;

use super::paint::Colours;
use crate::failure::Failure;

/// Moments of the past that are kept: as many as the widest screens have columns.
const MOMENTS: usize = 600;

/// A part of the screen.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Pane {
    Ledger,
    Models,
    Requests,
    Events,
}

impl Pane {
    pub(super) const ALL: [Pane; 4] = [Pane::Ledger, Pane::Models, Pane::Requests, Pane::Events];
}

/// What a key wants.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Wish {
    NextPane,
    LastPane,
    Down(usize),
    Up(usize),
    Help,
    /// Away with the help, or the end.
    Back,
    End,
}

/// All that is shown.
#[derive(Debug)]
pub(super) struct State {
    /// The server's address.
    pub(super) url: String,
    /// How often it is asked.
    pub(super) interval: Duration,
    pub(super) colours: Colours,
    /// Whether there are keys, and a past.
    pub(super) live: bool,
    /// What `GET /memory` said last.
    pub(super) memory: Option<Value>,
    /// When that was.
    pub(super) told_unix_ms: u64,
    /// Why there is nothing newer, and what can be done about it.
    pub(super) trouble: Option<(String, Vec<String>)>,
    /// Bytes granted at the last moments, the latest at the end.
    pub(super) granted: VecDeque<u64>,
    pub(super) focus: Pane,
    /// Lines that are scrolled away, of each pane.
    pub(super) scrolled: [usize; Pane::ALL.len()],
    pub(super) help: bool,
    pub(super) ended: bool,
}

impl State {
    /// Before anything is known.
    pub(super) fn new(url: String, interval: Duration, colours: Colours) -> State {
        State {
            url,
            interval,
            colours,
            live: true,
            memory: None,
            told_unix_ms: 0,
            trouble: None,
            granted: VecDeque::with_capacity(MOMENTS),
            focus: Pane::Ledger,
            scrolled: [0; Pane::ALL.len()],
            help: false,
            ended: false,
        }
    }

    /// Takes what the server said at a moment, or why it said nothing. What it said before stays.
    pub(super) fn told(&mut self, told: Result<Value, Failure>, unix_ms: u64) {
        match told {
            Ok(memory) => {
                if self.granted.len() == MOMENTS {
                    self.granted.pop_front();
                }
                self.granted
                    .push_back(memory["granted_bytes"].as_u64().unwrap_or(0));
                self.memory = Some(memory);
                self.told_unix_ms = unix_ms;
                self.trouble = None;
            }
            Err(failure) => {
                self.trouble = Some((failure.message().to_owned(), failure.remedies().to_vec()));
            }
        }
    }

    /// Does what a key wants; `lines` are those of the pane in focus, of which `shown` are to be seen.
    pub(super) fn wish(&mut self, wish: Wish, lines: usize, shown: usize) {
        let panes = Pane::ALL.len();
        let place = self.focus as usize;
        let scrolled = &mut self.scrolled[place];
        match wish {
            Wish::NextPane => self.focus = Pane::ALL[(place + 1) % panes],
            Wish::LastPane => self.focus = Pane::ALL[(place + panes - 1) % panes],
            Wish::Down(by) => *scrolled = (*scrolled + by).min(lines.saturating_sub(shown)),
            // It may have become shorter since.
            Wish::Up(by) => {
                *scrolled = (*scrolled)
                    .min(lines.saturating_sub(shown))
                    .saturating_sub(by);
            }
            Wish::Help => self.help = !self.help,
            Wish::Back if self.help => self.help = false,
            Wish::Back | Wish::End => self.ended = true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn state() -> State {
        State::new(String::new(), Duration::from_secs(1), Colours::Off)
    }

    #[test]
    fn keys_move_between_panes_and_lines() {
        let mut state = state();
        state.wish(Wish::LastPane, 0, 0);
        assert_eq!(state.focus, Pane::Events);
        state.wish(Wish::NextPane, 0, 0);
        assert_eq!(state.focus, Pane::Ledger);
        state.wish(Wish::Down(3), 10, 8);
        assert_eq!(state.scrolled[0], 2, "not past the last line");
        state.wish(Wish::Up(1), 9, 8);
        assert_eq!(
            state.scrolled[0], 0,
            "what was shown last is where one begins"
        );
        state.wish(Wish::Help, 0, 0);
        state.wish(Wish::Back, 0, 0);
        assert!(!state.help && !state.ended);
        state.wish(Wish::Back, 0, 0);
        assert!(state.ended);
    }

    #[test]
    fn the_past_is_bounded_and_trouble_passes() {
        let mut state = state();
        for bytes in 0..MOMENTS as u64 + 5 {
            state.told(Ok(json!({ "granted_bytes": bytes })), bytes);
        }
        assert_eq!(state.granted.len(), MOMENTS);
        assert_eq!(state.granted.front(), Some(&5));
        state.told(Err(Failure::failed("gone").help("come back")), 0);
        assert!(state.trouble.is_some() && state.memory.is_some());
        state.told(Ok(json!({})), 1);
        assert!(state.trouble.is_none());
    }
}
