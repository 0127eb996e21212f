//! What `GET /openapi.json` serves, as the validator of the OpenAPI specifications sees it, where Python has
//! that: `PYTHON` (or `python3`) with the packages in `tests/openapi/requirements.txt`.

#[path = "common/outside.rs"]
mod outside;

use std::path::Path;
use std::process::{Command, ExitCode};

const NAME: &str = "the_validator_accepts_the_description";
/// What the script exits with where a package is not installed.
const SKIPPED: i32 = 77;

fn main() -> ExitCode {
    outside::main(NAME, validate)
}

/// How it went, in words; what went wrong otherwise.
fn validate() -> Result<String, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = std::env::var_os("PYTHON").unwrap_or_else(|| "python3".into());
    let ran = Command::new(&python)
        .arg("-B")
        .arg(root.join("../../tests/openapi/validate.py"))
        .arg(root.join("src/openapi.json"))
        .output();
    let python = Path::new(&python).display();
    let skipped = |why: &str| {
        format!(
            "SKIPPED: {why}; set PYTHON to one with the packages of tests/openapi/requirements.txt"
        )
    };
    let output = match ran {
        Err(error) => return Ok(skipped(&format!("{python} does not run ({error})"))),
        Ok(output) => output,
    };
    let words = String::from_utf8_lossy(&output.stdout);
    match output.status.code() {
        Some(0) => Ok(format!("ok ({})", words.trim())),
        Some(SKIPPED) => Ok(skipped(&format!(
            "{python} has no package openapi_spec_validator"
        ))),
        code => {
            let errors = String::from_utf8_lossy(&output.stderr);
            Err(format!("exit code {code:?}: {words}\n{errors}"))
        }
    }
}
