//! `GET /v1/models`: what is served.

use bursar_engine::Purpose;
use serde_json::{Value, json};

use crate::app::App;
use crate::error::ApiError;
use crate::served::Served;

/// All models.
pub(crate) fn list(app: &App) -> Value {
    let data: Vec<Value> = app.models.iter().map(entry).collect();
    json!({ "object": "list", "data": data })
}

/// One of them.
pub(crate) fn one(app: &App, id: &str) -> Result<Value, ApiError> {
    app.named(id).map(entry)
}

fn entry(served: &Served) -> Value {
    let task = match served.engine.purpose() {
        Purpose::Generate => "generate",
        Purpose::Embed => "embed",
    };
    json!({
        "id": served.id(),
        "object": "model",
        "created": served.created,
        "owned_by": "bursar",
        "task": task,
        "max_model_len": served.engine.longest(),
    })
}
