//! Repository chores: `cargo xtask ci` runs what continuous integration runs, `cargo xtask check`
//! the rules that neither the compiler nor clippy knows.

#![forbid(unsafe_code)]

mod documents;
mod sources;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const USAGE: &str = "usage: cargo xtask <ci|check>

  ci      run .ci/run: formatting, source rules, clippy, tests, documentation
  check   only the source rules: opening comments, file lengths, places of unsafe_code; links of documents";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match words[..] {
        ["ci"] => ci(),
        ["check"] => sources::check(&root()).and_then(|()| documents::check(&root())),
        ["help" | "--help" | "-h"] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => Err(USAGE.to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("{message}");
            ExitCode::FAILURE
        }
    }
}

fn ci() -> Result<(), String> {
    let script = root().join(".ci/run");
    let status = Command::new(&script)
        .status()
        .map_err(|error| format!("{}: {error}", script.display()))?;
    if status.success() {
        Ok(())
    } else {
        Err(format!("{}: {status}", script.display()))
    }
}

/// The repository's root: this crate's parent.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}
