//! `bursar bench pool`: what pools cost and hold.

mod membranes;
mod speed;

use std::path::PathBuf;

use clap::Args;

use crate::failure::Failure;

/// Times that each figure is measured, unless told otherwise.
const BATCHES: u32 = 2001;

/// What can be given.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Replay recorded traces with membranes weighted in different ways, and with none
    #[arg(long)]
    membranes: bool,
    /// Traces to replay, as `bursar serve --pool-record` writes them [default: bench/traces/*.json]
    #[arg(value_name = "TRACE")]
    traces: Vec<PathBuf>,
    /// Write a picture of every replay into FOLDER
    #[arg(long, value_name = "FOLDER", requires = "membranes")]
    svg: Option<PathBuf>,
    /// Measurements of each figure
    #[arg(long, value_name = "N", default_value_t = BATCHES,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batches: u32,
    /// Write the figures to FILE as JSON; - for stdout
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Measures and prints it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let Arguments {
        membranes,
        traces,
        svg,
        batches,
        json,
    } = arguments;
    if *membranes {
        return membranes::run(traces, json.as_deref(), svg.as_deref());
    }
    speed::run(&membranes::read_all(traces)?, *batches, json.as_deref())
}
