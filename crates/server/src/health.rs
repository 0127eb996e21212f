//! `GET /health` and `GET /ready`: is work being done, and will more be taken.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Response, StatusCode};
use serde_json::json;

use crate::app::App;
use crate::error::json_response;
use crate::phase::Phase;

/// A model that loads and has read nothing for so long will not get any further.
const LOAD_STUCK: Duration = Duration::from_secs(60);

/// A single step takes less than this even of the largest models on the slowest machines; an
/// engine that has work and finished none for so long is stuck.
const STUCK_MS: u64 = 60_000;

/// 200 if every engine that has work gets on with it, and every model that loads.
pub(crate) fn health(app: &App) -> Response<Body> {
    for status in app.models.status() {
        let Some(served) = status.model else {
            if let Some(still) = status.still.filter(|still| *still > LOAD_STUCK) {
                let why = format!("nothing was read of it for {} s", still.as_secs());
                return stuck(&status.id, &why);
            }
            continue;
        };
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
            return stuck(served.id(), &why);
        }
    }
    json_response(StatusCode::OK, &json!({ "status": "ok" }))
}

fn stuck(model: &str, why: &str) -> Response<Body> {
    let body = json!({ "status": "stuck", "model": model, "why": why });
    json_response(StatusCode::SERVICE_UNAVAILABLE, &body)
}

/// 200 if requests are taken, and the models that were to be there from the start are.
pub(crate) fn ready(app: &App) -> Response<Body> {
    let loading = app.models.status().iter().any(|status| status.starting);
    let (status, word) = match app.stopper.phase() {
        Phase::Serving if loading => (StatusCode::SERVICE_UNAVAILABLE, "loading"),
        Phase::Serving => (StatusCode::OK, "ready"),
        Phase::Draining | Phase::Ended => (StatusCode::SERVICE_UNAVAILABLE, "draining"),
    };
    json_response(status, &json!({ "status": word }))
}
