//! What decides the rows of a run, in a few bytes: two runs with equal digests make equal rows.

use bursar_engine::MemoryPlan;
use bursar_files::ModelFile;

use super::input::Census;
use super::rows::Format;
use super::sink::State;
use crate::failure::Failure;
use crate::model;

/// Raise it when rows would come out differently for the same digests.
const VERSION: u32 = 1;

/// Everything besides model and texts.
pub(super) struct Decides<'a> {
    /// What goes before each text.
    pub(super) prefix: &'a str,
    /// Values of each vector.
    pub(super) dimensions: usize,
    /// Longest text in tokens.
    pub(super) context: usize,
    /// Whether vectors are scaled to length 1 even if the model would not.
    pub(super) normalize: bool,
    /// How rows are written.
    pub(super) format: Format,
}

/// The digests of a run.
pub(super) fn state(
    file: &ModelFile,
    plan: &MemoryPlan,
    census: &Census,
    decides: &Decides<'_>,
) -> Result<State, Failure> {
    let Decides {
        prefix,
        dimensions,
        context,
        normalize,
        format,
    } = decides;
    let options = format!("{dimensions} {context} {normalize} {format:?} {prefix}");
    Ok(State {
        version: VERSION,
        model: model::digest_as_held(file, plan)?.to_hex().to_string(),
        input: census.digest.to_hex().to_string(),
        options: blake3::hash(options.as_bytes()).to_hex().to_string(),
    })
}
