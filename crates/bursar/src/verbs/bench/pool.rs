//! `bursar bench pool`: what pools cost and hold.

mod membranes;

use std::path::PathBuf;

use clap::Args;

use crate::failure::Failure;

/// What can be given.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Replay recorded traces with membranes weighted in different ways, and with none
    #[arg(long, required = true)]
    membranes: bool,
    /// Traces to replay, as `bursar serve --pool-record` writes them [default: bench/traces/*.json]
    #[arg(value_name = "TRACE")]
    traces: Vec<PathBuf>,
    /// Write a picture of every replay into FOLDER
    #[arg(long, value_name = "FOLDER")]
    svg: Option<PathBuf>,
    /// Write the figures to FILE as JSON; - for stdout
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Measures and prints it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments {
        traces, svg, json, ..
    } = arguments;
    membranes::run(traces, json.as_deref(), svg.as_deref())
}
