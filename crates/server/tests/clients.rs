//! Other people's clients, where Python has them: `PYTHON` (or `python3`) with `openai`, and
//! LangChain's on top of it.

#![allow(clippy::unwrap_used, reason = "a test may")]

#[allow(dead_code, reason = "each test takes what it needs")]
mod common;

use std::path::Path;
use std::process::Command;

use common::Setup;

/// What the script exits with where `openai` is not installed.
const SKIPPED: i32 = 77;

#[test]
fn the_official_client_gets_what_it_expects() {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/clients/openai_client.py");
    let server = Setup::new().start();
    let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    let ran = Command::new(python)
        .arg("-B")
        .arg(script)
        .arg(format!("http://{}/v1", server.address))
        .args(["llama", "embedding"])
        .output();
    match ran {
        Err(error) => println!("skipped: there is no Python here: {error}"),
        Ok(output) => {
            print!("{}", String::from_utf8_lossy(&output.stdout));
            let errors = String::from_utf8_lossy(&output.stderr);
            let code = output.status.code();
            assert!(matches!(code, Some(0 | SKIPPED)), "{code:?}: {errors}");
        }
    }
    server.stop();
}
