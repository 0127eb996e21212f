//! The command line: parses arguments, resolves settings, hands both to a verb, and turns what
//! comes back into words and an exit code.
//!
//! - `cli`: the verbs and the flags that all of them share.
//! - `config`: settings, where they may be given and which one holds.
//! - `verbs`: one file per verb.
//! - `budget`, `bundled`, `model`, `sizing`, `prepare`: what several verbs do alike: find the budget,
//!   find the model that is meant or make one up, size its cache, plan it.
//! - `http`: asking servers.
//! - `output`, `picture`, `progress`, `failure`: results on stdout and as pictures, progress and errors on
//!   stderr.

#![forbid(unsafe_code)]

mod budget;
mod bundled;
mod cli;
mod config;
mod failure;
mod http;
mod model;
mod output;
mod picture;
mod prepare;
mod progress;
mod sizing;
mod verbs;

use std::process::ExitCode;

use bursar_memory::counting::{self, ProcessAllocator};
use clap::Parser;

use cli::{Cli, Verb};
use config::Surroundings;
use progress::Progress;

/// Counts the small heap, so that a plan can say what it takes.
#[global_allocator]
static ALLOCATOR: ProcessAllocator = counting::process_allocator();

fn main() -> ExitCode {
    counting::configure();
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(refusal) => return failure::print_usage(&refusal),
    };
    let shared = verbs::Shared {
        config: cli.config,
        progress: Progress::new(cli.progress),
        surroundings: Surroundings::of_process(),
        heap: || ALLOCATOR.counts(),
        allocator: &ALLOCATOR,
    };
    let outcome = match cli.verb {
        Verb::Run(arguments) => verbs::run::run(&arguments, &shared),
        Verb::Embed(arguments) => verbs::embed::run(&arguments, &shared),
        Verb::Search(arguments) => verbs::search::run(&arguments, &shared),
        Verb::Plan(arguments) => verbs::plan::run(&arguments, &shared),
        Verb::Serve(arguments) => verbs::serve::run(&arguments, &shared),
        Verb::Ps(arguments) => verbs::ps::run(&arguments, &shared),
        Verb::List(arguments) => verbs::list::run(&arguments, &shared),
        Verb::Load(arguments) => verbs::load::run(&arguments, &shared),
        Verb::Stop(arguments) => verbs::load::stop(&arguments, &shared),
        Verb::Rm(arguments) => verbs::rm::run(&arguments, &shared),
        Verb::Tune(arguments) => verbs::tune::run(&arguments, &shared),
        Verb::Compare(arguments) => verbs::compare::run(&arguments),
        Verb::Memory(arguments) => verbs::memory::run(&arguments, &shared),
        Verb::Top(arguments) => verbs::top::run(&arguments, &shared),
        Verb::Membranes(arguments) => verbs::membranes::run(&arguments, &shared),
        Verb::Bench(arguments) => verbs::bench::run(&arguments, &shared),
        Verb::Show(arguments) => verbs::show::run(&arguments, &shared),
        Verb::Synth(arguments) => verbs::synth::run(&arguments, &shared),
        Verb::Doctor(arguments) => verbs::doctor::run(&arguments, &shared),
        Verb::Config(arguments) => verbs::config::run(&arguments, &shared),
        Verb::Completions(arguments) => verbs::completions::run(&arguments),
        Verb::Man(arguments) => verbs::man::run(&arguments),
        Verb::Version(arguments) => verbs::version::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.print(),
    }
}
