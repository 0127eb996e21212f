//! `bursar man DIR`: a manual page for each verb. Hidden, because it is for who packages the program.

use std::path::PathBuf;

use clap::{Args, CommandFactory};

use crate::cli::Cli;
use crate::failure::Failure;

/// What can be given.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// The folder, share/man/man1 of some place; made if it is not there
    #[arg(value_name = "DIR")]
    folder: PathBuf,
}

/// Writes `bursar.1`, `bursar-serve.1` and so on.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let folder = &arguments.folder;
    let failed = |error| Failure::io("write manual pages into", folder, &error);
    std::fs::create_dir_all(folder).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), folder).map_err(failed)
}
