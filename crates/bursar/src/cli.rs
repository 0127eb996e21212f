//! What can be typed: the verbs, and the flags that all of them share.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use crate::verbs;

#[cfg(test)]
mod reference;

const AFTER_HELP: &str = "\
Sizes are written 512MiB, 2GiB, 1GB, as plain bytes, or as a share such as 80%.
Every setting can also be given in the environment (--kv-dtype is BURSAR_KV_DTYPE) or in
bursar.toml or bursar.yaml (kv.dtype); `bursar config` prints which value holds and why.

Exit codes: 0 done, 1 failed, 2 bad usage, 3 does not fit the memory budget.";

/// Runs language and embedding models inside one memory budget.
#[derive(Debug, Parser)]
#[command(name = "bursar", version, after_help = AFTER_HELP, max_term_width = 100)]
pub(crate) struct Cli {
    /// Configuration file; by default bursar.toml or bursar.yaml in the current folder
    #[arg(long, global = true, value_name = "FILE", help_heading = "Everywhere")]
    pub(crate) config: Option<PathBuf>,
    /// Print progress on stderr even where that is not a terminal
    #[arg(long, global = true, help_heading = "Everywhere")]
    pub(crate) progress: bool,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Answer a prompt, or chat on a terminal
    Run(verbs::run::Arguments),
    /// Turn texts into vectors
    Embed(verbs::embed::Arguments),
    /// Find what files hold by its meaning
    Search(verbs::search::Arguments),
    /// Print the exact bytes a model would take, by part, and whether they fit
    Plan(verbs::plan::Arguments),
    /// Serve models over HTTP, as OpenAI's API has it
    Serve(verbs::serve::Arguments),
    /// List the models of a running server with what they hold
    Ps(verbs::ps::Arguments),
    /// List the models in the models folder
    List(verbs::list::Arguments),
    /// Have a running server load a model
    Load(verbs::load::Arguments),
    /// Have a running server unload a model when nobody uses it
    Stop(verbs::load::Arguments),
    /// Remove a model from the models folder
    Rm(verbs::rm::Arguments),
    /// Print who holds which memory of a running server
    Memory(verbs::memory::Arguments),
    /// Watch a running server: who holds which memory, what runs, what waits and why
    Top(verbs::top::Arguments),
    /// Print the membranes of a running server's pools, level by level
    Membranes(verbs::membranes::Arguments),
    /// Say what to change, from the figures of a running server or of a saved report
    Tune(verbs::tune::Arguments),
    /// Measure parts of Bursar on this machine
    Bench(verbs::bench::Arguments),
    /// Lay two sheets of a bench side by side, with ratios and a plot
    Compare(verbs::compare::Arguments),
    /// Describe a model file
    Show(verbs::show::Arguments),
    /// Write a model file with random weights in a real architecture and size
    Synth(verbs::synth::Arguments),
    /// Say what this machine offers and what is misconfigured
    Doctor(verbs::doctor::Arguments),
    /// Print every setting, its value and where that came from
    Config(verbs::config::Arguments),
    /// Print a completion script for a shell
    Completions(verbs::completions::Arguments),
    /// Write a manual page for each verb into a folder
    #[command(hide = true)]
    Man(verbs::man::Arguments),
    /// Print the version
    Version(verbs::version::Arguments),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn the_reference_says_the_same() {
        reference::compare(Cli::command());
    }
}
