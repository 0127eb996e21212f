//! `bursar version`: which build this is.

use clap::Args;
use serde_json::json;

use crate::failure::Failure;
use crate::output::Out;

/// What can be given.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Prints it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let version = env!("CARGO_PKG_VERSION");
    let target = format!("{}-{}", std::env::consts::ARCH, std::env::consts::OS);
    let profile = if cfg!(debug_assertions) {
        "debug"
    } else {
        "release"
    };
    let mut out = Out::new();
    if arguments.json {
        out.json(&json!({ "version": version, "target": target, "profile": profile }))?;
    } else {
        out.line(format_args!("bursar {version} ({target}, {profile} build)"))?;
    }
    out.flush()
}
