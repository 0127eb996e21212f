//! The memory budget of this process: what a person set, else what the surroundings leave.

use std::path::Path;

use bursar_memory::budget::{self, Budget, BudgetError};

use crate::config::Settings;
use crate::failure::Failure;

/// The budget that holds, found below `root` (`/` for the real machine) where it is not set as a
/// size.
pub(crate) fn of(settings: &Settings, root: &Path) -> Result<Budget, Failure> {
    let found = match settings.memory() {
        Some((spec, origin)) => budget::given(spec, &origin.to_string(), root),
        None => budget::detect(root),
    };
    found.map_err(|error| Failure::usage(error.to_string()))
}

/// As [`of`] on the real machine; says on stderr where the budget is more than there is.
pub(crate) fn of_process(settings: &Settings) -> Result<Budget, Failure> {
    let budget = of(settings, Path::new("/"))?;
    if let Some(warning) = &budget.warning {
        eprintln!("warning: {warning}");
    }
    Ok(budget)
}

/// What the budget would be if nothing were set.
pub(crate) fn detected(root: &Path) -> Result<Budget, BudgetError> {
    budget::detect(root)
}
