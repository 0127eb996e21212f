//! `GET /memory`: who holds what. The leaves of the tree add up to what is granted, to the byte.

use bursar_memory::monitor::reconcile;
use bursar_memory::{AccountSnapshot, Bytes};
use bursar_profile::Probe;
use serde_json::{Value, json};

use crate::app::App;
use crate::kv_api;
use crate::pressure_api;
use crate::served::Served;
use crate::slot::Slot;

/// The whole report.
pub(crate) fn report(app: &App) -> Value {
    let books = app.ledger.snapshot();
    let process = Probe::default().process();
    let drift = process.map(|process| reconcile(&books, &process).drift_bytes);
    let rss = process.map(|process| process.rss_bytes);
    let budget = app.ledger.budget();
    let models: Vec<Value> = app.models.iter().map(|slot| model(slot, &books)).collect();
    let kv: Vec<Value> = app.served().filter_map(kv).collect();
    let pressure = app.pressure.read();
    let waiting = app
        .served()
        .filter_map(|served| pressure_api::waiting(served.id(), &served.engine.snapshot()));
    let waiting: Vec<Value> = waiting.collect();
    json!({
        "budget_bytes": budget.get(),
        "granted_bytes": books.granted.get(),
        "granted_peak_bytes": books.peak.get(),
        "rss_bytes": rss,
        "rss_peak_bytes": process.and_then(|process| process.hwm_bytes),
        "drift_bytes": drift,
        "pressure": pressure.level().name(),
        "pressure_detail": pressure_api::detail(&pressure),
        "reclaim": pressure_api::reclaim(&app.reclaim.report()),
        "waiting": waiting,
        "tree": tree(&books),
        "models": models,
        "kv": kv,
    })
}

fn tree(account: &AccountSnapshot) -> Value {
    let mut children: Vec<Value> = account.children.iter().map(tree).collect();
    if !children.is_empty() && !account.own.is_zero() {
        // What it holds itself is a leaf too.
        children.push(json!({
            "name": "itself",
            "lifetime": account.lifetime.name(),
            "granted_bytes": account.own.get(),
            "measured_bytes": null,
            "peak_bytes": null,
            "ceiling_bytes": null,
            "children": [],
        }));
    }
    json!({
        "name": account.label(),
        "lifetime": account.lifetime.name(),
        "granted_bytes": account.granted.get(),
        "measured_bytes": account.measured.map(Bytes::get),
        "peak_bytes": account.peak.get(),
        "ceiling_bytes": account.ceiling.map(Bytes::get),
        "children": children,
    })
}

fn model(slot: &Slot, books: &AccountSnapshot) -> Value {
    let Some(served) = slot.served() else {
        return json!({
            "id": slot.id(),
            "state": slot.state(),
            "loaded_ratio": slot.ratio(),
            "inflight": 0,
            "pinned": true,
            "idle_seconds": null,
        });
    };
    let snapshot = served.engine.snapshot();
    let plan = served.engine.plan();
    let part = |name: &str| {
        let part = plan.parts().iter().find(|part| part.name == name);
        part.map_or(0, |part| part.bytes.get())
    };
    // The process's own part belongs to no model.
    let planned = plan.total().get().saturating_sub(part("process"));
    let account = served.engine.account().name().to_owned();
    let used = books.find(&account).map(|account| account.granted.get());
    json!({
        "id": served.id(),
        "state": slot.state(),
        "plan_bytes": planned,
        "used_bytes": used,
        "weights_bytes": part("weights"),
        "kv_bytes": part("kv"),
        // Of the arena that all models share.
        "activations_bytes": plan.activations().get(),
        "tokenizer_bytes": part("tokenizer"),
        "inflight": snapshot.running + snapshot.waiting,
        "pinned": true,
        "idle_seconds": null,
    })
}

fn kv(served: &Served) -> Option<Value> {
    let snapshot = served.engine.snapshot();
    let report = snapshot.kv.as_ref()?;
    Some(kv_api::entry(served.id(), report, &snapshot.totals))
}
