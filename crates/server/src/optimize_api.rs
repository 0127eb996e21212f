//! `POST /v1/models/{id}/optimize`: a loaded model asked what it holds, whether it could hold less, and
//! to do so.

use std::collections::BTreeMap;

use bursar_engine::{EngineError, HeldPart, Lease, OptimizeReport, WeightsDtype};
use bursar_memory::{Bytes, Rung};
use serde_json::{Map, Value, json};

use crate::error::ApiError;
use crate::fields::Fields;
use crate::served::Served;

/// What is asked.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wish {
    /// Tell only what would be.
    dry: bool,
    /// Hold matrices in this form.
    dtype: Option<WeightsDtype>,
    /// Forget what is cached of prompts.
    drop_prefixes: bool,
    /// Be promised keys and values for one sequence only.
    shrink_kv: bool,
}

impl Wish {
    /// Reads it from a request.
    pub(crate) fn read(fields: &Fields<'_>) -> Result<Wish, ApiError> {
        let forms = WeightsDtype::DESCENDING.map(|dtype| (dtype.name(), dtype));
        let boolean = |name| Ok::<_, ApiError>(fields.boolean(name)?.unwrap_or(false));
        Ok(Wish {
            dry: boolean("dry_run")?,
            dtype: fields.word("weights_dtype", &forms)?,
            drop_prefixes: boolean("drop_prefixes")?,
            shrink_kv: boolean("shrink_kv")?,
        })
    }
}

/// Does it, on a thread of its own: other models go on, and so does the server.
pub(crate) async fn optimize(lease: Lease<Served>, wish: Wish) -> Result<Value, ApiError> {
    let (answer, answered) = tokio::sync::oneshot::channel();
    std::thread::Builder::new()
        .name("optimize".to_owned())
        .stack_size(1 << 20)
        .spawn(move || {
            let done = work(&lease, wish);
            // Who asked may have gone; what was asked for is done all the same.
            let _ = answer.send(done);
        })
        .map_err(ApiError::internal)?;
    let done = answered.await.map_err(ApiError::internal)?;
    done.map_err(|error| refused(&error))
}

fn refused(error: &EngineError) -> ApiError {
    if let Some(refusal) = error.refusal() {
        return ApiError::memory(refusal.clone());
    }
    match error {
        EngineError::Busy { .. } => ApiError::busy(error),
        EngineError::Stopped => ApiError::cut_off(),
        EngineError::Setting { name, .. } => ApiError::invalid(*name, format!("is wrong: {error}")),
        other => ApiError::internal(other),
    }
}

fn work(served: &Served, wish: Wish) -> Result<Value, EngineError> {
    let (engine, controller) = (&served.engine, &served.controller);
    let mut freed = BTreeMap::new();
    for (rung, wanted) in [
        (Rung::DropPrefixes, wish.drop_prefixes),
        (Rung::ShrinkKv, wish.shrink_kv),
    ] {
        if wanted && !wish.dry {
            let done = controller.reclaim(engine, rung, Bytes(u64::MAX))?;
            freed.insert(rung.name(), done.bytes.get());
        }
    }
    // What it holds is told whatever is asked.
    let dtype = wish.dtype.unwrap_or(WeightsDtype::AsIs);
    let report = controller.optimize(engine, dtype, wish.dry || wish.dtype.is_none())?;
    let half = controller.optimize(engine, WeightsDtype::Bf16, true)?;
    Ok(value(served.id(), &report, &half, &freed))
}

fn value(
    model: &str,
    report: &OptimizeReport,
    half: &OptimizeReport,
    freed: &BTreeMap<&str, u64>,
) -> Value {
    json!({
        "id": model,
        "weights_dtype": report.dtype.name(),
        "converts": report.converts,
        "weights_bytes_before": report.weights_before.get(),
        "weights_bytes_after": report.weights_after.get(),
        "returned_bytes": report.returned.get(),
        "before": parts(&report.before),
        "after": parts(&report.after),
        "note": report.note,
        // Whether half precision would make it smaller than it is now.
        "half_precision": { "converts": half.converts, "note": half.note },
        "reclaimed_bytes": freed,
    })
}

fn parts(parts: &[HeldPart]) -> Value {
    let part = |part: &HeldPart| {
        let figures = json!({
            "granted_bytes": part.granted.get(),
            "measured_bytes": part.measured.map(Bytes::get),
        });
        (part.name.clone(), figures)
    };
    Value::Object(parts.iter().map(part).collect::<Map<String, Value>>())
}
