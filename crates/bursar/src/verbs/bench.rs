//! `bursar bench WHAT`: measures parts of Bursar on this machine, as a table and as JSON.

mod alloc;
mod clock;
mod draw;
mod embed;
mod kv;
mod memory;
mod pool;
mod profile;
mod serve;
mod sheet;
mod tiny;

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
    /// How often an engine asks the allocator for memory, how long that takes, and what it copies
    Alloc(alloc::Arguments),
    /// Texts and tokens per second in batches from one text to very many
    Embed(embed::Arguments),
    /// What the cache of keys and values costs: taking blocks, giving them back, finding prefixes,
    /// compaction
    Kv(kv::Arguments),
    /// What requests hold that begin alike, by a real engine
    Memory(memory::Arguments),
    /// What pools hold: recorded loads replayed against pools set up in different ways
    Pool(pool::Arguments),
    /// Where the time goes, span by span, and what the spans cost
    Profile(profile::Arguments),
    /// Any running server of OpenAI's API under a stated load: throughput, latencies, peak memory
    Serve(Box<serve::Arguments>),
}

/// Measures it.
pub(crate) fn run(arguments: &Arguments, shared: &Shared) -> Result<(), Failure> {
    match &arguments.what {
        What::Alloc(arguments) => alloc::run(arguments, shared),
        What::Embed(arguments) => embed::run(arguments, shared),
        What::Kv(arguments) => kv::run(arguments),
        What::Memory(arguments) => memory::run(arguments, shared),
        What::Pool(arguments) => pool::run(arguments),
        What::Profile(arguments) => profile::run(arguments, shared),
        What::Serve(arguments) => serve::run(arguments, shared),
    }
}
