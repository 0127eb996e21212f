//! How much memory keys and values get: as much as was asked for; else what a preset, the budget and
//! the sequences' needs allow, the least of them.

use bursar_engine::{EngineError, MemoryPlan, PlanRequest, Purpose};
use bursar_memory::Bytes;

use crate::config::Settings;

/// What is asked of a plan for `parallel` sequences, where shares of memory are of `budget`.
pub(crate) fn request(
    settings: &Settings,
    purpose: Purpose,
    parallel: usize,
    budget: Bytes,
) -> PlanRequest {
    PlanRequest {
        purpose,
        context: settings.context(),
        parallel,
        batch_tokens: settings.batch_tokens(),
        batch_memory: settings.batch_memory(budget),
        kv_dtype_k: settings.kv_dtype_k(),
        kv_dtype_v: settings.kv_dtype_v(),
        kv_block_tokens: settings.kv_block_tokens(),
        kv_memory: settings.kv_memory(budget),
        threads: settings.threads(),
        weights: settings.weights(),
    }
}

/// What a cache whose size nobody gave is held to.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Otherwise {
    /// What all sequences need, or it does not fit.
    Needs,
    /// What all sequences need, but no more than is left.
    Leftover,
}

/// Plans within `left` bytes by `with`, with as many of them for keys and values as they should get.
pub(crate) fn plan(
    request: PlanRequest,
    settings: &Settings,
    otherwise: Otherwise,
    left: Bytes,
    with: impl Fn(&PlanRequest) -> Result<MemoryPlan, EngineError>,
) -> Result<MemoryPlan, EngineError> {
    let preset = settings.kv_preset();
    if request.kv_memory.is_some() || (preset.is_none() && otherwise == Otherwise::Needs) {
        return with(&request);
    }
    // One sequence shows what everything else takes, and how long it may become.
    let least = with(&PlanRequest {
        parallel: 1,
        ..request
    })?;
    let (Some(kv), true) = (least.kv(), least.fits()) else {
        return with(&request);
    };
    let others = least.total().saturating_sub(kv.bytes());
    let left = left.saturating_sub(others);
    // More for keys and values does not change what weights are.
    let weights = least.chosen_weights();
    let request = PlanRequest { weights, ..request };
    let context = Some(least.context());
    let full = with(&PlanRequest { context, ..request })?;
    let needed = full.kv().map(|kv| kv.bytes());
    let kv_memory = match preset {
        // What requests have in common is worth keeping beyond their own needs: only a context that
        // was asked for bounds what a preset takes.
        Some(preset) => preset.bytes_within(left, needed.filter(|_| request.context.is_some())),
        None if full.fits() => return Ok(full),
        None => left,
    };
    with(&PlanRequest {
        context,
        kv_memory: Some(kv_memory),
        ..request
    })
}
