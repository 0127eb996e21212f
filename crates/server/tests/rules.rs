//! The alerts in `deploy/prometheus`, as Prometheus itself checks and tests them, where its `promtool` is there
//! (Debian: `apt-get install prometheus`). `deploy/test.py` goes further: a real Prometheus, a real server.

#[path = "common/outside.rs"]
mod outside;

use std::path::Path;
use std::process::{Command, ExitCode};

const NAME: &str = "prometheus_accepts_the_rules_and_they_fire";

fn main() -> ExitCode {
    outside::main(NAME, promtool)
}

/// How it went, in words; what went wrong otherwise.
fn promtool() -> Result<String, String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../deploy/prometheus");
    let mut said = Vec::new();
    for (arguments, file) in [
        (["check", "config"], "prometheus.yml"),
        (["check", "rules"], "rules.yml"),
        (["test", "rules"], "rules_test.yml"),
    ] {
        let ran = Command::new("promtool")
            .args(arguments)
            .arg(file)
            .current_dir(&folder)
            .output();
        let output = match ran {
            Err(error) => {
                return Ok(format!(
                    "SKIPPED: promtool does not run ({error}); Debian has it in the package prometheus"
                ));
            }
            Ok(output) => output,
        };
        if !output.status.success() {
            let words = [output.stdout, output.stderr].concat();
            return Err(String::from_utf8_lossy(&words).into_owned());
        }
        said.push(format!("{} {file}", arguments.join(" ")));
    }
    Ok(format!("ok (promtool {})", said.join(", ")))
}
