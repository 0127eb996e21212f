//! `bursar bench WHAT`: measures parts of Bursar on this machine, as a table and as JSON.

mod clock;
mod kv;
mod memory;
mod sheet;

use clap::{Args, Subcommand};

use crate::failure::Failure;
use crate::verbs::Shared;

/// What can be given.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    #[command(subcommand)]
    what: What,
}

/// What is measured.
#[derive(Debug, Subcommand)]
enum What {
    /// What the cache of keys and values costs: taking blocks, giving them back, finding prefixes,
    /// compaction
    Kv(kv::Arguments),
    /// What requests hold that begin alike, by a real engine
    Memory(memory::Arguments),
}

/// Measures it.
pub(crate) fn run(arguments: &Arguments, shared: &Shared) -> Result<(), Failure> {
    match &arguments.what {
        What::Kv(arguments) => kv::run(arguments),
        What::Memory(arguments) => memory::run(arguments, shared),
    }
}
