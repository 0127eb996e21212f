//! Tests that need a program which is not Rust's: they run where it is there, and say so in plain output where
//! it is not. The test harness would hide that word, so they do without it (`harness = false`).

use std::process::ExitCode;

/// Runs `test`, which says how it went in words, or what went wrong. Understands as much of the harness's command
/// line as `cargo test` uses: a list, and filters.
pub(crate) fn main(name: &str, test: impl FnOnce() -> Result<String, String>) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let given = |flag: &str| arguments.iter().any(|argument| argument == flag);
    if given("--list") {
        if !given("--ignored") {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    let exact = given("--exact");
    let meant = |filter: &String| match exact {
        true => filter == name,
        false => name.contains(filter.as_str()),
    };
    let mut filters = arguments
        .iter()
        .filter(|word| !word.starts_with('-'))
        .peekable();
    if given("--ignored") || filters.peek().is_some() && !filters.any(meant) {
        return ExitCode::SUCCESS;
    }
    match test() {
        Ok(words) => {
            println!("test {name} ... {words}");
            ExitCode::SUCCESS
        }
        Err(words) => {
            println!("test {name} ... FAILED\n{words}");
            ExitCode::FAILURE
        }
    }
}
