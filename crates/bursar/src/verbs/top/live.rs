//! The terminal: drawn again when the server has said something, a key was pressed or the size changed, and
//! left as it was found, also after a panic or a signal.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use ratatui::DefaultTerminal;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use serde_json::Value;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

use super::state::{State, Wish};
use super::{unix_ms, view};
use crate::config::Settings;
use crate::failure::Failure;
use crate::verbs::ask;

/// How long is waited for a key before it is looked whether the server said something.
const LOOK: Duration = Duration::from_millis(100);
/// Lines of a page.
const PAGE_LINES: usize = 10;

/// Gives the terminal back when it goes.
struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Shows what the server says until a key, or a signal, says that it is enough.
pub(super) fn watch(state: State, settings: Settings) -> Result<(), Failure> {
    let failed = |error: io::Error| Failure::failed(format!("cannot use the terminal: {error}"));
    let ended = signals().map_err(failed)?;
    // A panic restores it too: the hook is set there.
    let terminal = ratatui::try_init().map_err(failed)?;
    let _restored = Restored;
    let told = asked(settings, state.interval);
    show(terminal, state, &told, &ended).map_err(failed)
}

/// Becomes true with a signal to end; a second one ends the process at once. So does the loss of the
/// terminal: there is nothing to give back, and waiting for its keys would never end.
fn signals() -> io::Result<Arc<AtomicBool>> {
    let ended = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT] {
        flag::register_conditional_shutdown(signal, 1, Arc::clone(&ended))?;
        flag::register(signal, Arc::clone(&ended))?;
    }
    flag::register_conditional_shutdown(SIGHUP, 1, Arc::new(AtomicBool::new(true)))?;
    Ok(ended)
}

/// Asks again and again, on a thread that ends with the process: a server that hangs holds up no key.
fn asked(settings: Settings, interval: Duration) -> Receiver<Result<Value, Failure>> {
    let (sender, receiver) = mpsc::sync_channel(1);
    std::thread::spawn(move || {
        while sender.send(ask::get(&settings, "/memory")).is_ok() {
            std::thread::sleep(interval);
        }
    });
    receiver
}

fn show(
    mut terminal: DefaultTerminal,
    mut state: State,
    told: &Receiver<Result<Value, Failure>>,
    ended: &AtomicBool,
) -> io::Result<()> {
    let mut changed = true;
    while !state.ended && !ended.load(Ordering::Relaxed) {
        if changed {
            terminal.draw(|frame| view::draw(frame, &state))?;
            changed = false;
        }
        let pressed = match event::poll(LOOK) {
            Ok(pressed) => pressed,
            // A signal; which, the flag says.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => false,
            Err(error) => return Err(error),
        };
        if pressed {
            match event::read()? {
                Event::Key(key) if key.kind != KeyEventKind::Release => {
                    if let Some(wish) = wish(key) {
                        let size = terminal.size()?;
                        let (lines, shown) = view::focused(&state, size.width, size.height);
                        state.wish(wish, lines, shown);
                    }
                }
                _ => {}
            }
            // Also what is no key: the size may be another.
            changed = true;
        }
        while let Ok(memory) = told.try_recv() {
            state.told(memory, unix_ms());
            changed = true;
        }
    }
    Ok(())
}

/// What a key wants.
fn wish(key: KeyEvent) -> Option<Wish> {
    if key.modifiers.contains(KeyModifiers::CONTROL) {
        return (key.code == KeyCode::Char('c')).then_some(Wish::End);
    }
    Some(match key.code {
        KeyCode::Char('q') => Wish::End,
        KeyCode::Esc => Wish::Back,
        KeyCode::Tab | KeyCode::Right => Wish::NextPane,
        KeyCode::BackTab | KeyCode::Left => Wish::LastPane,
        KeyCode::Char('j') | KeyCode::Down => Wish::Down(1),
        KeyCode::Char('k') | KeyCode::Up => Wish::Up(1),
        KeyCode::PageDown | KeyCode::Char(' ') => Wish::Down(PAGE_LINES),
        KeyCode::PageUp => Wish::Up(PAGE_LINES),
        KeyCode::End => Wish::Down(usize::MAX / 2),
        KeyCode::Home => Wish::Up(usize::MAX / 2),
        KeyCode::Char('?') => Wish::Help,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_their_wishes() {
        let check = |code, modifiers, expected| {
            assert_eq!(wish(KeyEvent::new(code, modifiers)), expected);
        };
        let none = KeyModifiers::NONE;
        check(KeyCode::Char('q'), none, Some(Wish::End));
        check(KeyCode::Char('c'), KeyModifiers::CONTROL, Some(Wish::End));
        check(KeyCode::Char('c'), none, None);
        check(KeyCode::Char('j'), none, Some(Wish::Down(1)));
        check(KeyCode::Up, none, Some(Wish::Up(1)));
        check(KeyCode::Tab, none, Some(Wish::NextPane));
        check(KeyCode::BackTab, KeyModifiers::SHIFT, Some(Wish::LastPane));
        check(KeyCode::Char('?'), none, Some(Wish::Help));
        check(KeyCode::Esc, none, Some(Wish::Back));
    }
}
