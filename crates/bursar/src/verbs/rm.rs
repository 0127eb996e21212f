//! `bursar rm MODEL`: a model taken out of the models folder.

use std::fs;

use clap::Args;

use crate::config::SettingFlags;
use crate::failure::Failure;
use crate::model;
use crate::verbs::{Shared, list};

/// What can be given.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Its name in the models folder, as `bursar list` shows it
    #[arg(value_name = "MODEL")]
    model: String,
    #[command(flatten)]
    settings: SettingFlags<list::Takes>,
}

/// Removes it. A server that has it loaded keeps it until it is unloaded.
pub(crate) fn run(arguments: &Arguments, shared: &Shared) -> Result<(), Failure> {
    let settings = shared.settings(&arguments.settings)?;
    let folder = settings
        .models_dir(&shared.surroundings)
        .unwrap_or_default();
    // Only what is listed: no path leads out of the folder.
    let names = model::names_in(&folder);
    let path = match names.contains(&arguments.model) {
        true => model::in_folder(&folder, &arguments.model),
        false => None,
    };
    let Some(path) = path else {
        let there = match names.is_empty() {
            true => "none".to_owned(),
            false => names.join(", "),
        };
        return Err(
            Failure::failed(format!("there is no model {}", arguments.model)).help(format!(
                "give a name in {} (there: {there})",
                folder.display()
            )),
        );
    };
    let metadata = fs::symlink_metadata(&path).map_err(|e| Failure::io("read", &path, &e))?;
    // A link is removed, not what it leads to.
    let removed = match metadata.is_dir() {
        true => fs::remove_dir_all(&path),
        false => fs::remove_file(&path),
    };
    removed.map_err(|error| Failure::io("remove", &path, &error))
}
