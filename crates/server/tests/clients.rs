//! Other people's clients, where Python has them: `PYTHON` (or `python3`) with `openai`, and
//! LangChain's on top of it.
//!
//! Without the test harness, which would hide the word that something was skipped.

#![allow(clippy::unwrap_used, reason = "a test may")]

#[allow(dead_code, reason = "each test takes what it needs")]
mod common;
#[path = "common/outside.rs"]
mod outside;

use std::path::Path;
use std::process::{Command, ExitCode};

use common::Setup;

const NAME: &str = "the_official_client_gets_what_it_expects";
/// What the script exits with where `openai` is not installed.
const SKIPPED: i32 = 77;

fn main() -> ExitCode {
    outside::main(NAME, the_official_client_gets_what_it_expects)
}

/// How it went, in words; what went wrong otherwise.
fn the_official_client_gets_what_it_expects() -> Result<String, String> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients/openai_client.py");
    let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    let server = Setup::new().start();
    let ran = Command::new(&python)
        .arg("-B")
        .arg(script)
        .arg(format!("http://{}/v1", server.address))
        .args(["llama", "embedding"])
        .output();
    server.stop();
    let python = Path::new(&python).display();
    let skipped = |why: &str| {
        format!("SKIPPED: {why}; set PYTHON to one with the packages openai and langchain-openai")
    };
    let output = match ran {
        Err(error) => return Ok(skipped(&format!("{python} does not run ({error})"))),
        Ok(output) => output,
    };
    let words = String::from_utf8_lossy(&output.stdout);
    let words = words.trim().replace('\n', ", ");
    match output.status.code() {
        Some(0) => Ok(format!("ok ({words})")),
        Some(SKIPPED) => Ok(skipped(&format!("{python} has no package openai"))),
        code => {
            let errors = String::from_utf8_lossy(&output.stderr);
            Err(format!("exit code {code:?}: {words}\n{errors}"))
        }
    }
}
