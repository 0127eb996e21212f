//! `bursar top`: what a running server holds and does, on a terminal, looked at again and again.
//!
//! - `state`: all that is shown, and what keys change of it.
//! - `view`: the screen as a function of the state and a size.
//! - `panes`: the lines of each part of it.
//! - `paint`: bars and colours.
//! - `live`: the terminal, its keys, and the server asked meanwhile.

mod live;
mod paint;
mod panes;
mod state;
#[cfg(test)]
mod tests;
mod view;

use std::io::IsTerminal;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Args;

use self::paint::Colours;
use self::state::State;
use crate::config::{SettingFlags, duration};
use crate::failure::Failure;
use crate::output::Out;
use crate::verbs::{Shared, ask};

/// Columns where nobody says how many there are.
const WIDTH: u16 = 80;
/// Most rows of a frame that is printed; it has as many as it needs.
const HEIGHT_MAX: u16 = 400;
/// Shortest time between two questions.
const INTERVAL_LEAST: Duration = Duration::from_millis(100);

/// What can be given.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Print one frame and end, as it is done where stdout is no terminal
    #[arg(long)]
    once: bool,
    /// How often the server is asked
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "1s")]
    interval: Duration,
    #[command(flatten)]
    settings: SettingFlags<ask::Takes>,
}

/// Shows it until a key says that it is enough.
pub(crate) fn run(arguments: &Arguments, shared: &Shared) -> Result<(), Failure> {
    let settings = shared.settings(&arguments.settings)?;
    let interval = arguments.interval.max(INTERVAL_LEAST);
    let url = format!("http://{}", settings.listen());
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let coloured = match variable("NO_COLOR") {
        Some(_) => Colours::Off,
        None => Colours::On,
    };
    if !arguments.once && std::io::stdout().is_terminal() {
        return live::watch(State::new(url, interval, coloured), settings);
    }
    let memory = ask::get(&settings, "/memory")?;
    let mut state = State::new(url, interval, Colours::Off);
    state.live = false;
    state.told(Ok(memory), unix_ms());
    let number = |name: &str| variable(name)?.parse::<u16>().ok();
    let width = number("COLUMNS").unwrap_or(WIDTH);
    let height = number("LINES").unwrap_or_else(|| view::height(&state, width).min(HEIGHT_MAX));
    let mut out = Out::new();
    out.line(view::text(&state, width, height))?;
    out.flush()
}

/// Milliseconds since 1970.
fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(0, |since| {
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}
