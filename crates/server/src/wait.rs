//! Getting a model to answer with: at once if it is there, after a while if it has to be loaded, with
//! figures if neither.

use std::time::Duration;

use bursar_engine::{Denied, KeepAlive, Lease, ModelState};
use bursar_memory::Bytes;
use serde_json::Value;

use crate::app::App;
use crate::error::ApiError;
use crate::fields::{Fields, wrong};
use crate::served::Served;

/// Most names in the answer to who asks for a model that is not there.
const NAMES_MAX: usize = 20;
/// Seconds that a client is told to wait at most; what will be true in a minute nobody knows.
const RETRY_SECONDS_MAX: u64 = 60;

/// A lease of the model called `id`, within the time that requests may wait.
pub(crate) async fn for_model(
    app: &App,
    id: &str,
    keep_alive: Option<KeepAlive>,
) -> Result<Lease<Served>, ApiError> {
    let acquire = app.models.acquire(id, keep_alive);
    let acquire = acquire.map_err(|denied| refused(app, id, &denied))?;
    let ended = app.stopper.ended();
    // Dropping what is waited for is giving up, whoever does it: the clock, the end, or the client.
    tokio::select! {
        biased;
        lease = acquire => lease.map_err(|denied| refused(app, id, &denied)),
        () = ended.wait() => Err(ApiError::cut_off()),
        () = tokio::time::sleep(app.limits.wait) => Err(too_long(app, id)),
    }
}

/// What it means to a client that there is no model for it.
pub(crate) fn refused(app: &App, id: &str, denied: &Denied) -> ApiError {
    match denied {
        Denied::Unknown => {
            let names: Vec<String> = app.models.status().into_iter().map(|m| m.id).collect();
            let mut known = names[..names.len().min(NAMES_MAX)].join(", ");
            if names.len() > NAMES_MAX {
                known = format!("{known} and {} more", names.len() - NAMES_MAX);
            }
            ApiError::model_not_found(id, &known)
        }
        Denied::TooLarge { need, most } => {
            ApiError::model_too_large(id, denied, &app.ledger, *need, *most)
        }
        Denied::Blocked { need, most } => {
            let message = format!("{id} cannot be loaded now: {denied}");
            ApiError::memory_full(message, 1, &app.ledger, *need, *most)
        }
        Denied::QueueFull { .. } => {
            let (asked, free) = needs(app, id);
            let message = format!("{id} is not loaded yet, and {denied}");
            ApiError::queue_full(message, 1000, &app.ledger, asked, free)
        }
        Denied::Failed { retry, .. } => {
            ApiError::model_failed(format!("{id}: {denied}"), seconds(*retry))
        }
        Denied::Stopping => ApiError::draining(),
    }
}

/// Who has waited for as long as may be is told for what.
fn too_long(app: &App, id: &str) -> ApiError {
    let status = app.models.status_of(id);
    let left = status.as_ref().and_then(|status| status.load_left);
    match status.map(|status| status.state) {
        Some(ModelState::Loading | ModelState::Loaded) => {
            ApiError::loading(id, seconds(left.unwrap_or_default()))
        }
        _ => {
            let (asked, free) = needs(app, id);
            let message = format!(
                "{id} is not loaded: it takes {asked}, {free} are free, and the models in its way are in use"
            );
            ApiError::memory_full(message, 1, &app.ledger, asked, free)
        }
    }
}

/// What a model takes, and what is free.
fn needs(app: &App, id: &str) -> (Bytes, Bytes) {
    let status = app.models.status_of(id);
    let footprint = status.and_then(|status| status.footprint);
    let asked = footprint.map_or(Bytes(0), |need| need.own.saturating_add(need.arena));
    (asked, app.ledger.free())
}

fn seconds(time: Duration) -> u64 {
    (time.as_millis().div_ceil(1000) as u64).clamp(1, RETRY_SECONDS_MAX)
}

/// How long the model stays after this request: `"5m"`, `300` (seconds), 0 for not at all, -1 for until
/// its place is needed.
pub(crate) fn keep_alive(fields: &Fields<'_>) -> Result<Option<KeepAlive>, ApiError> {
    let Some(value) = fields.get("keep_alive") else {
        return Ok(None);
    };
    let given = match value {
        Value::Number(number) => number.as_f64().and_then(from_seconds),
        Value::String(text) => from_text(text),
        _ => None,
    };
    match given {
        Some(keep) => Ok(Some(keep)),
        None => Err(wrong(
            &fields.place("keep_alive"),
            value,
            "a time such as \"5m\", seconds, 0, or -1",
        )),
    }
}

/// The longest time that can be asked for; beyond it, say -1.
const KEEP_SECONDS_MAX: f64 = 366.0 * 24.0 * 3600.0;

fn from_seconds(seconds: f64) -> Option<KeepAlive> {
    match seconds {
        seconds if seconds < 0.0 => Some(KeepAlive::Always),
        0.0..=KEEP_SECONDS_MAX => Some(KeepAlive::For(Duration::from_secs_f64(seconds))),
        _ => None,
    }
}

fn from_text(text: &str) -> Option<KeepAlive> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match &text[digits.len()..] {
        "ms" => 1e-3,
        "s" | "" => 1.0,
        "m" => 60.0,
        "h" => 3600.0,
        "d" => 24.0 * 3600.0,
        _ => return None,
    };
    from_seconds(digits.parse::<f64>().ok()? * factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_people_write_them() {
        let secs = |seconds| Some(KeepAlive::For(Duration::from_secs(seconds)));
        for (text, want) in [
            ("5m", secs(300)),
            ("0", secs(0)),
            ("90", secs(90)),
            ("1h", secs(3600)),
            ("-1", Some(KeepAlive::Always)),
            ("-1s", Some(KeepAlive::Always)),
            ("", None),
            ("m", None),
            ("5 weeks", None),
            ("nan", None),
            ("inf", None),
            ("1e300", None),
        ] {
            assert_eq!(from_text(text), want, "{text}");
        }
    }
}
