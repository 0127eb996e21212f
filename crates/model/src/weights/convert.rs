//! Held weights into a smaller form, in place.
//!
//! Tensors go one after another, panel by panel, in ascending order. No matrix grows, so where a
//! panel is written is never beyond where the next one is still to be read from: old and new are
//! never both there in full, and what is left over at the end goes back to the operating system.

use bursar_kernels::panel::PanelLayout;
use bursar_memory::Bytes;
use bursar_workers::Workers;

use super::plan::Place;
use super::{Weights, WeightsPlan, digest_of};
use crate::ModelError;
use crate::arch::{TensorForm, TensorSpec};
use crate::recast::{Recast, WeightsDtype};

/// Bytes of the buffer that converting needs: some panels for each worker.
pub(crate) fn staging_bytes(old: &[TensorSpec], new: &[TensorSpec], workers: usize) -> usize {
    let each = |(old, new): (&TensorSpec, &TensorSpec)| match (old.form, new.form) {
        (TensorForm::Matrix(old), TensorForm::Matrix(to)) if old != to => {
            let from = old.dtype();
            Recast { from, to }.scratch_bytes() + to.panel_bytes()
        }
        _ => 0,
    };
    old.iter().zip(new).map(each).max().unwrap_or(0) * workers
}

impl Weights {
    /// Takes the forms of `tensors` and the places of `plan`, both made from what is held now;
    /// `staging` holds `staging_bytes`. Gives the bytes of memory that went back, measured.
    pub(crate) fn convert(
        &mut self,
        dtype: WeightsDtype,
        tensors: &[TensorSpec],
        plan: WeightsPlan,
        staging: &mut [u8],
        workers: &Workers,
    ) -> Result<Bytes, ModelError> {
        let bytes = self.held.as_mut_slice();
        let (mut old_places, mut new_places) = (self.plan.places.iter(), plan.places.iter());
        for (old, new) in self.tensors.iter().zip(tensors) {
            let (Some(Place::Held(from)), Some(Place::Held(to))) =
                (old_places.next(), new_places.next())
            else {
                unreachable!("all weights are held, before and after");
            };
            match (old.form, new.form) {
                (TensorForm::Matrix(before), TensorForm::Matrix(after)) if before != after => {
                    debug_assert!(to.start <= from.start && after.bytes() <= before.bytes());
                    let at = (from.start, to.start);
                    panels(workers, &before, &after, at, staging, bytes);
                }
                _ => bytes.copy_within(from.clone(), to.start),
            }
        }
        let keep = plan.held_bytes;
        self.plan = plan;
        self.tensors = tensors.to_vec();
        self.history.push(dtype);
        self.digest = digest_of(&self.read, &self.history);
        Ok(self.held.truncate(keep)?)
    }
}

/// Packs the panels of one matrix again, as many at once as there are workers; `at` is where they
/// begin and will begin among `bytes`.
fn panels(
    workers: &Workers,
    before: &PanelLayout,
    after: &PanelLayout,
    at: (usize, usize),
    staging: &mut [u8],
    bytes: &mut [u8],
) {
    let recast = Recast {
        from: before.dtype(),
        to: *after,
    };
    let (scratch, panel) = (recast.scratch_bytes(), after.panel_bytes());
    let mut parts: Vec<(&mut [u8], &mut [u8])> = staging
        .chunks_exact_mut(scratch + panel)
        .map(|part| part.split_at_mut(scratch))
        .take(workers.threads())
        .collect();
    let count = parts.len();
    let mut first = 0;
    while first < before.panels() {
        let now = count.min(before.panels() - first);
        let old = &bytes[at.0..at.0 + before.bytes()];
        workers.for_each_mut(&mut parts[..now], |i, (scratch, panel)| {
            recast.repack_panel((before, old), first + i, scratch, panel);
        });
        for (i, (_, done)) in parts[..now].iter().enumerate() {
            let to = at.1 + (first + i) * panel;
            bytes[to..to + panel].copy_from_slice(done);
        }
        first += now;
    }
}
