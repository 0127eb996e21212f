//! The dashboard in a real browser, where there are `node`, the packages of `tests/browser` (`npm ci` there), and
//! Chromium (`CHROMIUM`, or `/usr/bin/chromium`). `BURSAR_PICTURES` names a folder for pictures of it.
//!
//! Without the test harness, which would hide the word that something was skipped.

use std::path::Path;
use std::process::{Command, ExitCode};

const NAME: &str = "the_dashboard_shows_what_the_server_tells";
/// What the script exits with where something is missing.
const SKIPPED: i32 = 77;

/// Understands as much of the harness's command line as `cargo test` uses: a list, and filters.
fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let given = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if given("--list") {
        if !given("--ignored") {
            println!("{NAME}: test");
        }
        return ExitCode::SUCCESS;
    }
    let mut filters = arguments
        .iter()
        .filter(|word| !word.starts_with('-'))
        .peekable();
    let meant = |filter: &String| NAME.contains(filter.as_str());
    if given("--ignored") || filters.peek().is_some() && !filters.any(meant) {
        return ExitCode::SUCCESS;
    }
    match the_dashboard_shows_what_the_server_tells() {
        Ok(words) => {
            println!("test {NAME} ... {words}");
            ExitCode::SUCCESS
        }
        Err(words) => {
            println!("test {NAME} ... FAILED\n{words}");
            ExitCode::FAILURE
        }
    }
}

/// How it went, in words; what went wrong otherwise.
fn the_dashboard_shows_what_the_server_tells() -> Result<String, String> {
    if !cfg!(feature = "pocket") {
        return Ok("SKIPPED: it takes the models that are bundled".to_owned());
    }
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/browser");
    let mut command = Command::new("node");
    command
        .arg(folder.join("dashboard.mjs"))
        .arg(env!("CARGO_BIN_EXE_bursar"));
    if let Some(pictures) = std::env::var_os("BURSAR_PICTURES") {
        command.arg(pictures);
    }
    let skipped = |why: &str| {
        format!("SKIPPED: {why}; install node and Chromium, and run `npm ci` in tests/browser")
    };
    let output = match command.output() {
        Err(error) => return Ok(skipped(&format!("node does not run ({error})"))),
        Ok(output) => output,
    };
    let words = String::from_utf8_lossy(&output.stdout);
    let words = words.trim();
    match output.status.code() {
        Some(0) => Ok(format!("ok ({words})")),
        Some(SKIPPED) => Ok(skipped(words)),
        code => {
            let errors = String::from_utf8_lossy(&output.stderr);
            Err(format!("exit code {code:?}: {words}\n{errors}"))
        }
    }
}
