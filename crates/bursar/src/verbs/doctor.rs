//! `bursar doctor`: what this machine offers, what it holds back, and what is misconfigured.
//!
//! - `survey`: the figures, read below a root path so that tests can fake a machine.
//! - `findings`: what is wrong with them; a pure function.
//! - `words`: both for a person.

mod findings;
mod survey;
mod words;

use std::path::PathBuf;

use clap::Args;
use serde::Serialize;

use crate::config::table::{self, Setting};
use crate::config::{SettingFlags, TakesSettings};
use crate::failure::Failure;
use crate::output::Out;
use crate::verbs::Shared;
use findings::Finding;
use survey::Survey;

/// What can be given.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    /// Read proc and sys below this folder: for tests
    #[arg(long, value_name = "DIR", default_value = "/", hide = true)]
    root: PathBuf,
    #[command(flatten)]
    settings: SettingFlags<Takes>,
}

/// The settings that what is found is compared with.
#[derive(Debug)]
pub(crate) struct Takes;

impl TakesSettings for Takes {
    const SETTINGS: &'static [&'static Setting] = &[&table::MEMORY, &table::THREADS, &table::ISA];
}

/// All that is said.
#[derive(Debug, Serialize)]
struct Report {
    #[serde(flatten)]
    survey: Survey,
    findings: Vec<Finding>,
}

/// Surveys the machine and prints what was found.
pub(crate) fn run(arguments: &Arguments, shared: &Shared) -> Result<(), Failure> {
    let settings = shared.settings(&arguments.settings)?;
    let survey = Survey::take(&arguments.root, &settings)?;
    let findings = findings::of(&survey);
    let mut out = Out::new();
    if arguments.json {
        out.json(&Report { survey, findings })?;
    } else {
        out.text(words::of(&survey, &findings))?;
    }
    out.flush()
}
