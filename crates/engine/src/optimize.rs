//! A loaded model into a smaller form, while nobody asks it: on the thread of whoever wants it, while
//! the engine's other models go on.

use bursar_memory::region::charge_of;
use bursar_memory::{Account, Bytes, HugePages, Lifetime, Mapping};
use bursar_model::{Model, ModelError, ModelPlan, WeightsDtype};
use bursar_workers::Workers;

use crate::EngineError;
use crate::handle::EngineHandle;
use crate::host::EngineController;

/// Bytes of one part of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldPart {
    /// Whose, as its account is called.
    pub name: String,
    /// What the ledger has granted it.
    pub granted: Bytes,
    /// What it really takes, as last measured.
    pub measured: Option<Bytes>,
}

/// What became of a model, or would.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OptimizeReport {
    /// The form that was asked for.
    pub dtype: WeightsDtype,
    /// Whether its weights have another form now; or would, if it was only asked.
    pub converts: bool,
    /// Bytes of the weights before.
    pub weights_before: Bytes,
    /// Bytes of the weights after.
    pub weights_after: Bytes,
    /// Bytes of memory that went back to the operating system, measured; none if it was only asked.
    pub returned: Bytes,
    /// The model's parts before.
    pub before: Vec<HeldPart>,
    /// The model's parts now.
    pub after: Vec<HeldPart>,
    /// What there is to say of it.
    pub note: String,
}

impl EngineController {
    /// Takes a model's matrices to a smaller form, in place: tensor by tensor, so that old and new are
    /// never both there in full. What it has cached of prompts is forgotten, as it computes something
    /// else now. With `dry` nothing is done, but what would be is told.
    ///
    /// # Errors
    /// When requests are inside, layers are streamed, the buffer for it (some panels of weights) or
    /// what activations take more does not fit, or the model is not there any more.
    pub fn optimize(
        &self,
        handle: &EngineHandle,
        dtype: WeightsDtype,
        dry: bool,
    ) -> Result<OptimizeReport, EngineError> {
        let account = handle.account();
        let before = parts(account);
        let planned = self.lend(handle, |work| {
            let now = work.model().plan();
            Ok::<_, EngineError>((now.converted(dtype)?, now.weights_bytes()))
        })?;
        let (plan, weights_before) = planned?;
        let weights_after = plan.weights_bytes();
        let converts = weights_after < weights_before;
        let mut report = OptimizeReport {
            dtype,
            converts,
            weights_before,
            weights_after,
            returned: Bytes::ZERO,
            after: before.clone(),
            before,
            note: note(dtype, converts, weights_before, weights_after),
        };
        if !converts || dry {
            return Ok(report);
        }
        report.returned = self.convert(handle, plan)?;
        report.after = parts(account);
        Ok(report)
    }
}

fn note(dtype: WeightsDtype, converts: bool, before: Bytes, after: Bytes) -> String {
    match (converts, dtype) {
        (false, _) => format!("no matrix would be smaller as {dtype}: nothing to do"),
        (true, WeightsDtype::Bf16) => {
            format!("{before} become {after}: values keep 8 bits of precision")
        }
        (true, _) => format!("{before} become {after}: lossy"),
    }
}

/// The parts of a model on its account.
pub(crate) fn parts(account: &Account) -> Vec<HeldPart> {
    let snapshot = account.snapshot();
    let mut parts: Vec<HeldPart> = (snapshot.children.iter())
        .filter(|child| !child.granted.is_zero())
        .map(|child| HeldPart {
            name: child.label().to_owned(),
            granted: child.granted,
            measured: child.measured,
        })
        .collect();
    if !snapshot.own.is_zero() {
        parts.push(HeldPart {
            name: "other".to_owned(),
            granted: snapshot.own,
            measured: None,
        });
    }
    parts
}

/// Converts a model that nobody computes with; gives the bytes of memory that went back.
pub(crate) fn convert(
    model: &mut Model,
    plan: ModelPlan,
    workers: &Workers,
    account: &Account,
) -> Result<Bytes, EngineError> {
    let staging = account
        .child("staging", Lifetime::Procedural)
        .reserve(charge_of(model.conversion_staging(&plan)))?;
    let mut staging = Mapping::new(staging, HugePages::Never).map_err(ModelError::from)?;
    Ok(model.convert(plan, staging.as_mut_slice(), workers)?)
}
