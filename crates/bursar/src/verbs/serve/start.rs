//! The models named on the command line: found, opened and planned before the port opens, so that what
//! can never be served is said at once.

use std::path::Path;

use bursar_engine::{Footprint, ModelCache, Purpose};
use bursar_memory::budget::Budget;
use bursar_server::Served;

use super::Arguments;
use super::catalog::{Opened, Planned, Sizes};
use crate::bundled;
use crate::config::Settings;
use crate::failure::Failure;
use crate::model::{self, Found};
use crate::prepare;
use crate::verbs::Shared;

/// The models that are named, and what clients call them; the bundled ones where none is.
pub(super) fn named(
    arguments: &Arguments,
    settings: &Settings,
    shared: &Shared,
) -> Result<Vec<(String, Found)>, Failure> {
    let mut found = Vec::new();
    for given in &arguments.models {
        found.push(model::find(given, settings, &shared.surroundings)?);
    }
    if found.is_empty() {
        found.push(Found::Bundled(bundled::chat()?));
        found.push(Found::Bundled(bundled::embedding()?));
    }
    let mut named: Vec<(String, Found)> = Vec::with_capacity(found.len());
    for found in found {
        let name = match &found {
            Found::Path(path) => name_of(path),
            Found::Bundled(bundled) => bundled.name.to_owned(),
        };
        if named.iter().any(|(other, _)| *other == name) {
            let message = format!("two models would be called {name}");
            return Err(Failure::usage(message).help("rename one of the files"));
        }
        named.push((name, found));
    }
    Ok(named)
}

/// What clients call a model: its file or folder, without `.gguf`.
fn name_of(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".gguf").unwrap_or(&name);
    name.strip_suffix(".safetensors").unwrap_or(name).to_owned()
}

/// Opens all of them, those first that take a fixed number of bytes: the others share the rest.
pub(super) fn open(named: &[(String, Found)]) -> Result<Vec<Opened>, Failure> {
    let opened = named.iter().map(|(name, found)| Opened::of(name, found));
    let mut opened = opened.collect::<Result<Vec<_>, _>>()?;
    opened.sort_by_key(|model| model.purpose == Purpose::Generate);
    Ok(opened)
}

/// Plans as many of them as fit together, each with as much as it wants and the later ones leave.
///
/// # Errors
/// When one does not even fit alone.
pub(super) fn plan(
    opened: Vec<Opened>,
    sizes: &Sizes,
    budget: &Budget,
) -> Result<Vec<Planned>, Failure> {
    let ledger = &sizes.ledger;
    let all = ledger.free();
    let mut together: Vec<(Opened, Footprint)> = Vec::with_capacity(opened.len());
    for model in opened {
        let least = sizes.least(&model, all)?;
        if !least.fits() {
            eprintln!("{}", prepare::parts(&least));
            let left = sizes.left(&model, all);
            return Err(Failure::does_not_fit(format!(
                "{} needs {}, and {left} of the budget of {} ({}) are left for it",
                model.name,
                least.total(),
                budget.bytes,
                budget.source,
            ))
            .helps(&least.remedies(budget.bytes.saturating_sub(left))));
        }
        let footprint = Footprint::of(&least);
        let others = together.iter().map(|(_, footprint)| *footprint);
        let need = Footprint::together(others.chain([footprint]));
        if need > all {
            eprintln!(
                "note: {} does not fit beside the others, together they need {need} of {all}: it is \
                 loaded when it is asked for, and another one goes",
                model.name
            );
            continue;
        }
        together.push((model, footprint));
    }
    let mut later: Vec<Footprint> = together.iter().map(|(_, footprint)| *footprint).collect();
    let mut planned = Vec::with_capacity(together.len());
    for (model, _) in together {
        let own = later.remove(0);
        // What those after it need at least is not for it to take.
        let with = Footprint::together(later.iter().copied().chain([own]));
        let kept = with.saturating_sub(Footprint::together([own].into_iter()));
        let free = ledger.free().saturating_sub(kept);
        let plan = sizes.wanted(&model, free)?;
        let plan = match plan.fits() {
            true => plan,
            false => sizes.least(&model, ledger.free())?,
        };
        planned.push(sizes.promise(model, plan)?);
    }
    Ok(planned)
}

/// A pin of a model that is not there is a slip of the pen.
pub(super) fn check_pins(settings: &Settings, cache: &ModelCache<Served>) -> Result<(), Failure> {
    for pin in settings.pinned() {
        if cache.status_of(&pin).is_none() {
            let names: Vec<String> = cache.status().into_iter().map(|model| model.id).collect();
            return Err(
                Failure::usage(format!("there is no model {pin} to be pinned"))
                    .help(format!("there are: {}", names.join(", "))),
            );
        }
    }
    Ok(())
}
