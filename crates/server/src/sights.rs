//! What is seen of the models' engines when somebody looks: requests one by one, and blocks.

use std::collections::BTreeMap;
use std::time::Duration;

use bursar_engine::{EngineSnapshot, Looking, Made, Purpose, RequestView, Sight, Waits};
use bursar_kv::Cell;
use bursar_memory::{Bytes, Reservation};
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use crate::app::App;
use crate::pressure_api;
use crate::served::Served;

/// An engine answers between two of its steps, which take a tenth of a second as a rule, and longer where a
/// large model takes longer for one token. What is not seen by then is left out: who watches is answered
/// whatever a model does.
const PATIENCE: Duration = Duration::from_secs(1);

/// What was seen, by model.
#[derive(Debug, Default)]
pub(crate) struct Sights {
    models: BTreeMap<String, Sight>,
    _room: Option<Reservation>,
}

impl Sights {
    /// Looks at all models that are there. Where the budget has no room for it, nothing is seen.
    pub(crate) async fn take(app: &App) -> Sights {
        let Some((room, asked)) = ask(app) else {
            return Sights::default();
        };
        let deadline = Instant::now() + PATIENCE;
        let mut models = BTreeMap::new();
        for (id, looking) in asked {
            if let Ok(Some(sight)) = timeout_at(deadline, looking).await {
                models.insert(id, sight);
            }
        }
        Sights {
            models,
            _room: Some(room),
        }
    }

    /// What was seen of one model.
    pub(crate) fn of(&self, model: &str) -> Option<&Sight> {
        self.models.get(model)
    }
}

/// Asks all engines at once. Nothing of a model is kept meanwhile: it may go.
fn ask(app: &App) -> Option<(Reservation, Vec<(String, Looking)>)> {
    let served = app.served();
    let bytes = Bytes(Sight::bytes().get().saturating_mul(served.len() as u64));
    let room = app.watching.reserve(bytes).ok()?;
    let look = |served: &std::sync::Arc<Served>| {
        (served.id().to_owned(), served.engine.look(Sight::new()))
    };
    Some((room, served.iter().map(look).collect()))
}

/// A model's requests, those that run first.
pub(crate) fn requests(served: &Served, snapshot: &EngineSnapshot, sight: &Sight) -> Vec<Value> {
    let block_bytes = snapshot
        .kv
        .map_or(0, |kv| kv.bytes_per_token.get() * kv.block_tokens as u64);
    let requests = sight.requests.iter();
    requests
        .map(|request| self::request(served, snapshot, block_bytes, request))
        .collect()
}

fn request(
    served: &Served,
    snapshot: &EngineSnapshot,
    block_bytes: u64,
    request: &RequestView,
) -> Value {
    let (tokens, vectors) = match request.made {
        Made::Tokens { done, most } => (Some((done, most)), None),
        Made::Vectors { done, all } => (None, Some((done, all))),
    };
    json!({
        "model": served.id(),
        "kind": match served.engine.purpose() {
            Purpose::Generate => "generate",
            Purpose::Embed => "embed",
        },
        "state": if request.waits.is_some() { "waiting" } else { "running" },
        "reason": request.waits.map(|waits| reason(&waits, snapshot)),
        "age_seconds": request.age.as_secs_f64(),
        "prompt_tokens": request.prompt_tokens,
        "stored_tokens": request.stored_tokens,
        "generated_tokens": tokens.map(|(done, _)| done),
        "max_tokens": tokens.map(|(_, most)| most),
        "vectors_done": vectors.map(|(done, _)| done),
        "vectors_total": vectors.map(|(_, all)| all),
        // Shared blocks count for each that holds them.
        "kv_bytes": block_bytes.saturating_mul(request.blocks as u64),
        "priority": request.priority,
    })
}

/// Why a request does not run.
fn reason(waits: &Waits, snapshot: &EngineSnapshot) -> String {
    let first = pressure_api::reason(waits.first, snapshot);
    let place = match waits.before {
        0 => first,
        1 => format!("one goes before it: {first}"),
        before => format!("{before} go before it; the first: {first}"),
    };
    match waits.displaced {
        true => format!("gave its keys and values to others; {place}"),
        false => place,
    }
}

/// A model's blocks in order: how many in a row are alike, and what they are, a letter for each: `.` vacant,
/// `f` free, `c` cached, `u` used, `s` shared.
pub(crate) fn map(sight: &Sight) -> Option<Value> {
    let shape = sight.shape?;
    Some(json!({
        "blocks": shape.blocks,
        "blocks_per_slab": shape.blocks_per_slab,
        "blocks_per_cell": shape.blocks_per_cell,
        "cells": runs(&sight.cells),
    }))
}

fn runs(cells: &[Cell]) -> String {
    let mut text = String::new();
    for run in cells.chunk_by(|one, next| one == next) {
        let letter = match run[0] {
            Cell::Vacant => '.',
            Cell::Free => 'f',
            Cell::Cached => 'c',
            Cell::Used => 'u',
            Cell::Shared => 's',
        };
        text.push_str(&run.len().to_string());
        text.push(letter);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cells_are_written_as_runs() {
        use Cell::{Cached, Free, Shared, Used, Vacant};
        assert_eq!(runs(&[]), "");
        let cells = [Used, Used, Shared, Free, Cached, Vacant, Vacant, Vacant];
        assert_eq!(runs(&cells), "2u1s1f1c3.");
    }
}
