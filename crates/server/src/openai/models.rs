//! `GET /v1/models`: what is served.

use bursar_engine::Purpose;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::ApiError;
use crate::slot::Slot;

/// All models.
pub(crate) fn list(app: &App) -> Value {
    let data: Vec<Value> = app.models.iter().map(entry).collect();
    json!({ "object": "list", "data": data })
}

/// One of them.
pub(crate) fn one(app: &App, id: &str) -> Result<Value, ApiError> {
    app.named(id).map(entry)
}

fn entry(slot: &Slot) -> Value {
    let task = match slot.purpose() {
        Purpose::Generate => "generate",
        Purpose::Embed => "embed",
    };
    let mut entry = json!({
        "id": slot.id(),
        "object": "model",
        "created": slot.created(),
        "owned_by": "bursar",
        "task": task,
        "state": slot.state(),
        "max_model_len": slot.served().map(|served| served.engine.longest()),
    });
    if slot.served().is_none() {
        entry["loaded_ratio"] = slot.ratio().into();
    }
    entry
}
