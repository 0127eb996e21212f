//! `GET /health` and `GET /ready`: is work being done, and will more be taken.

use axum::body::Body;
use axum::http::{Response, StatusCode};
use serde_json::json;

use crate::app::App;
use crate::error::json_response;
use crate::phase::Phase;

/// A single step takes less than this even of the largest models on the slowest machines; an
/// engine that has work and finished none for so long is stuck.
const STUCK_MS: u64 = 60_000;

/// 200 if every engine that has work gets on with it.
pub(crate) fn health(app: &App) -> Response<Body> {
    for served in &app.models {
        let snapshot = served.engine.snapshot();
        let busy = snapshot.running + snapshot.waiting > 0;
        if !snapshot.alive || busy && snapshot.last_progress_ms > STUCK_MS {
            let why = match snapshot.alive {
                false => "its engine has died".to_owned(),
                true => format!(
                    "its engine has work and made no progress for {} s",
                    snapshot.last_progress_ms / 1000
                ),
            };
            let body = json!({ "status": "stuck", "model": served.id(), "why": why });
            return json_response(StatusCode::SERVICE_UNAVAILABLE, &body);
        }
    }
    json_response(StatusCode::OK, &json!({ "status": "ok" }))
}

/// 200 if requests are taken.
pub(crate) fn ready(app: &App) -> Response<Body> {
    let (status, word) = match app.stopper.phase() {
        Phase::Serving => (StatusCode::OK, "ready"),
        Phase::Draining | Phase::Ended => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    };
    json_response(status, &json!({ "status": word }))
}
