//! `/v1/models`: which models there are, what they are doing, and having them loaded, unloaded, tried.

use std::time::{Duration, Instant};

use bursar_engine::{
    EmbedEvent, EmbedRequest, EngineError, Event, GenerateRequest, ModelStatus, Purpose,
};
use bursar_memory::Bytes;
use serde_json::{Value, json};

use crate::answers::failed;
use crate::app::{App, Received};
use crate::error::ApiError;
use crate::fields::Fields;
use crate::generation::refused;
use crate::optimize_api::{self, Wish};
use crate::served::Served;
use crate::{plan_api, pressure_api, wait};

/// All models.
pub(crate) fn list(app: &App) -> Value {
    app.models.refresh();
    let status = app.models.status();
    let data: Vec<Value> = status.iter().map(|status| entry(app, status)).collect();
    json!({ "object": "list", "data": data })
}

/// One of them.
pub(crate) fn one(app: &App, id: &str) -> Result<Value, ApiError> {
    match app.models.status_of(id) {
        Some(status) => Ok(entry(app, &status)),
        None => Err(wait::refused(app, id, &bursar_engine::Denied::Unknown)),
    }
}

fn entry(app: &App, status: &ModelStatus<Served>) -> Value {
    let task = status.purpose.map(|purpose| match purpose {
        Purpose::Generate => "generate",
        Purpose::Embed => "embed",
    });
    let bytes = status
        .footprint
        .map(|need| need.own.saturating_add(need.arena).get());
    json!({
        "id": status.id,
        "object": "model",
        "created": app.created,
        "owned_by": "bursar",
        "task": task,
        "state": status.state.name(),
        "loaded_ratio": status.loaded_ratio,
        "max_model_len": status.model.as_ref().map(|served| served.engine.longest()),
        "bytes": bytes,
        "inflight": status.leases,
        "waiting": status.waiting,
        "pinned": status.pinned,
        "keep_alive_seconds": status.keep_alive.map(|time| time.as_secs_f64()),
        "expires_seconds": status.expires.map(|time| time.as_secs_f64()),
        "loads": status.loads,
        "load_seconds": status.load_time.map(|time| time.as_secs_f64()),
        "error": status.error,
    })
}

/// What can be done with a model.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Have it there.
    Load,
    /// Have it gone.
    Unload,
    /// Have it run once, so that the first request finds everything in place.
    Warmup,
    /// Have it hold less, and tell what it holds.
    Optimize,
    /// Have it stay once it is there.
    Pin,
    /// Let it go for others again.
    Unpin,
    /// Tell what it would take.
    Plan,
}

impl Action {
    /// A model's name and what is to be done with it, from a path `id/load`.
    pub(crate) fn of(path: &str) -> Result<(&str, Action), ApiError> {
        let (id, word) = path.rsplit_once('/').unwrap_or((path, ""));
        let action = match word {
            "load" => Action::Load,
            "unload" => Action::Unload,
            "warmup" => Action::Warmup,
            "optimize" => Action::Optimize,
            "pin" => Action::Pin,
            "unpin" => Action::Unpin,
            "plan" => Action::Plan,
            "" => return Err(ApiError::method()),
            _ => return Err(ApiError::unknown_path(&format!("/v1/models/{path}"))),
        };
        Ok((id, action))
    }
}

/// Does it, and tells how the model is then.
pub(crate) async fn act(
    app: &App,
    id: &str,
    action: Action,
    received: Received,
) -> Result<Value, ApiError> {
    let fields = Fields::root(&received.value)?;
    let keep_alive = wait::keep_alive(&fields)?;
    let takes_nothing = matches!(
        action,
        Action::Unload | Action::Pin | Action::Unpin | Action::Plan
    );
    if !takes_nothing && app.pressure.refuses() {
        let message = pressure_api::refusal(&app.pressure.read());
        return Err(ApiError::pressed(message, &app.ledger, Bytes::ZERO));
    }
    let mut took = None;
    match action {
        Action::Load => drop(wait::for_model(app, id, keep_alive).await?),
        Action::Unload => {
            let unloaded = app.models.unload(id);
            unloaded.map_err(|denied| wait::refused(app, id, &denied))?;
            // Where requests run for longer than that, it is still closing.
            let _ = tokio::time::timeout(app.limits.wait, app.models.gone(id)).await;
        }
        Action::Pin | Action::Unpin => {
            let pinned = app.models.pin(id, action == Action::Pin);
            pinned.map_err(|denied| wait::refused(app, id, &denied))?;
        }
        Action::Warmup => {
            let lease = wait::for_model(app, id, keep_alive).await?;
            took = Some(run_once(app, &lease).await?);
        }
        Action::Plan => return plan_api::plan(app, id, &fields).await,
        Action::Optimize => {
            let wish = Wish::read(&fields)?;
            let lease = wait::for_model(app, id, keep_alive).await?;
            return optimize_api::optimize(lease, wish).await;
        }
    }
    let mut entry = one(app, id)?;
    if let Some(took) = took {
        entry["warmup_seconds"] = took.as_secs_f64().into();
    }
    Ok(entry)
}

/// The least that goes through all of a model: one token, one vector.
async fn run_once(app: &App, served: &Served) -> Result<Duration, ApiError> {
    let begun = Instant::now();
    let failure = |rejected| refused(app, rejected, "model");
    let run = async {
        match served.engine.purpose() {
            Purpose::Generate => {
                let request = GenerateRequest {
                    prompt: vec![0],
                    max_tokens: Some(1),
                    ..GenerateRequest::default()
                };
                let mut stream = served.engine.submit(request).map_err(failure)?;
                loop {
                    match stream.recv().await {
                        Some(Event::Done { .. }) => return Ok(()),
                        Some(Event::Failed(error)) => return Err(failed(&error)),
                        Some(_) => {}
                        None => return Err(failed(&EngineError::Stopped)),
                    }
                }
            }
            Purpose::Embed => {
                let request = EmbedRequest {
                    tokens: vec![vec![0]],
                    ..EmbedRequest::default()
                };
                let mut stream = served.engine.embed(request).map_err(failure)?;
                loop {
                    match stream.recv().await {
                        Some(EmbedEvent::Done { .. }) => return Ok(()),
                        Some(EmbedEvent::Failed(error)) => return Err(failed(&error)),
                        Some(EmbedEvent::Vector { .. }) => {}
                        None => return Err(failed(&EngineError::Stopped)),
                    }
                }
            }
        }
    };
    let ended = app.stopper.ended();
    tokio::select! {
        ran = run => ran?,
        () = ended.wait() => return Err(ApiError::cut_off()),
    }
    Ok(begun.elapsed())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn actions_stand_behind_names() {
        let of = |path| Action::of(path).map_err(|error| error.status().as_u16());
        assert_eq!(of("a/load"), Ok(("a", Action::Load)));
        assert_eq!(of("a/b/unload"), Ok(("a/b", Action::Unload)));
        assert_eq!(of("a/warmup"), Ok(("a", Action::Warmup)));
        assert_eq!(of("a/optimize"), Ok(("a", Action::Optimize)));
        assert_eq!(of("a/pin"), Ok(("a", Action::Pin)));
        assert_eq!(of("a/plan"), Ok(("a", Action::Plan)));
        assert_eq!(of("a/unpin"), Ok(("a", Action::Unpin)));
        assert_eq!(of("a"), Err(405));
        assert_eq!(of("a/fly"), Err(404));
    }
}
