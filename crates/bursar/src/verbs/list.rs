//! `bursar list`: the models in the models folder.

use std::path::Path;

use bursar_memory::Bytes;
use clap::Args;
use serde_json::json;

use crate::config::table::{self, Setting};
use crate::config::{SettingFlags, TakesSettings};
use crate::failure::Failure;
use crate::model;
use crate::output::{Align, Out, Table};
use crate::verbs::Shared;

/// What can be given.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingFlags<Takes>,
}

/// What decides where models are.
#[derive(Debug)]
pub(crate) struct Takes;

impl TakesSettings for Takes {
    const SETTINGS: &'static [&'static Setting] = &[&table::MODELS_DIR];
}

/// Prints them.
pub(crate) fn run(arguments: &Arguments, shared: &Shared) -> Result<(), Failure> {
    let settings = shared.settings(&arguments.settings)?;
    let Some(folder) = settings.models_dir(&shared.surroundings) else {
        return Err(
            Failure::failed("there is no home folder, and so no models folder")
                .help("say where models are with --models-dir"),
        );
    };
    let found = model::names_in(&folder).into_iter().filter_map(|name| {
        let path = model::in_folder(&folder, &name)?;
        Some((name, bytes_of(&path), path))
    });
    let mut out = Out::new();
    if arguments.json {
        let models = found.map(|(name, bytes, path)| {
            json!({ "name": name, "bytes": bytes.get(), "path": path.display().to_string() })
        });
        out.json(&models.collect::<Vec<_>>())?;
        return out.flush();
    }
    let mut table = Table::new(&[("NAME", Align::Left), ("SIZE", Align::Right)]);
    let mut none = true;
    for (name, bytes, _) in found {
        none = false;
        table.row([name, bytes.to_string()]);
    }
    match none {
        true => eprintln!("no models in {}", folder.display()),
        false => out.line(table)?,
    }
    out.flush()
}

/// Bytes of a file, or of the files in a folder.
fn bytes_of(path: &Path) -> Bytes {
    let Ok(metadata) = path.metadata() else {
        return Bytes::ZERO;
    };
    if metadata.is_file() {
        return Bytes(metadata.len());
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let files = entries.filter_map(|entry| entry.path().metadata().ok());
    let files = files.filter(std::fs::Metadata::is_file);
    files.fold(Bytes::ZERO, |sum, file| {
        sum.saturating_add(Bytes(file.len()))
    })
}
