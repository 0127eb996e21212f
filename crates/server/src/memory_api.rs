//! `GET /memory`: who holds what. The leaves of the tree add up to what is granted, to the byte.

use std::collections::BTreeMap;
use std::time::Duration;

use bursar_engine::{CacheTotals, EngineSnapshot, ModelState, ModelStatus, ParamsReport, WhyKind};
use bursar_memory::counting::HeapCounts;
use bursar_memory::monitor::reconcile;
use bursar_memory::{AccountSnapshot, Bytes};
use bursar_profile::Probe;
use serde_json::{Value, json};

use crate::app::App;
use crate::held::HeldBytes;
use crate::kv_api;
use crate::pools_api;
use crate::pressure_api;
use crate::served::Served;
use crate::sights::{self, Sights};

/// The whole report; `sights` are what was seen of the engines for it.
pub(crate) fn report(app: &App, sights: &Sights) -> Value {
    let books = app.ledger.snapshot();
    let process = Probe::default().process();
    let drift = process.map(|process| reconcile(&books, &process).drift_bytes);
    let rss = process.map(|process| process.rss_bytes);
    let budget = app.ledger.budget();
    let status = app.models.status();
    // What is only a file holds nothing.
    let there = |status: &&ModelStatus<Served>| status.state != ModelState::Absent;
    let models = status.iter().filter(there);
    let models: Vec<Value> = models.map(|status| model(status, &books)).collect();
    let served = || status.iter().filter_map(|status| status.model.as_deref());
    let snapshots: Vec<_> = served()
        .map(|served| (served, served.engine.snapshot()))
        .collect();
    let kv: Vec<Value> = snapshots
        .iter()
        .filter_map(|(served, snapshot)| kv(served, snapshot, sights))
        .collect();
    let seen = snapshots
        .iter()
        .filter_map(|(served, snapshot)| Some((*served, snapshot, sights.of(served.id())?)));
    let left_out: usize = seen.clone().map(|(_, _, sight)| sight.left_out).sum();
    let requests: Vec<Value> = seen
        .flat_map(|(served, snapshot, sight)| sights::requests(served, snapshot, sight))
        .collect();
    let pressure = app.pressure.read();
    let pooled = app.pools.report();
    let queued = snapshots
        .iter()
        .filter_map(|(served, snapshot)| pressure_api::waiting(served.id(), snapshot));
    let waiting: Vec<Value> = queued.chain(status.iter().filter_map(unloaded)).collect();
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
        "requests": requests,
        "requests_left_out": left_out,
        "rates": app.rates.report(&status),
        "heap": app.heap.map(|counts| heap(&counts())),
        "tree": tree(&books),
        "models": models,
        "kv": kv,
        "pools": pools_api::pools(&app.pools, &pooled),
        "membranes": pooled.membranes.as_ref().map(pools_api::membranes),
        "scratch": pools_api::scratch(&pooled.scratch),
        "params": params(&app.params.report()),
        "model_cache": model_cache(&app.models.totals()),
    })
}

/// What the process allocator has handed out: all that is neither mapped nor pooled.
fn heap(counts: &HeapCounts) -> Value {
    json!({
        "allocations_total": counts.allocations,
        "deallocations_total": counts.deallocations,
        "allocated_bytes": counts.live.get(),
        "allocated_peak_bytes": counts.peak.get(),
        "copied_bytes_total": counts.copied.get(),
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

fn model(status: &ModelStatus<Served>, books: &AccountSnapshot) -> Value {
    let seconds = |time: Option<Duration>| time.map(|time| time.as_secs_f64());
    let mut model = json!({
        "id": status.id,
        "state": status.state.name(),
        "loaded_ratio": status.loaded_ratio,
        "inflight": status.leases,
        "waiting": status.waiting,
        "waiting_seconds": seconds(status.waited),
        "pinned": status.pinned,
        "idle_seconds": seconds(status.idle),
        "keep_alive_seconds": seconds(status.keep_alive),
        "expires_seconds": seconds(status.expires),
        "loads": status.loads,
        "load_seconds": seconds(status.load_time),
        "error": status.error,
    });
    let Some(served) = &status.model else {
        return model;
    };
    let held = HeldBytes::of(served, books);
    let figures = json!({
        "plan_bytes": held.plan,
        "used_bytes": held.used,
        "weights_bytes": held.weights,
        "kv_bytes": held.kv,
        "activations_bytes": held.activations,
        "tokenizer_bytes": held.tokenizer,
    });
    if let (Value::Object(model), Value::Object(figures)) = (&mut model, figures) {
        model.extend(figures);
    }
    model
}

/// Who waits for a model that is not there, and why; nothing if nobody does.
fn unloaded(status: &ModelStatus<Served>) -> Option<Value> {
    if status.waiting == 0 {
        return None;
    }
    let reason = match status.state {
        ModelState::Loading => {
            format!(
                "it is being loaded, {:.0} % done",
                100.0 * status.loaded_ratio
            )
        }
        ModelState::Closing | ModelState::Unloading => {
            "it makes room for another model, and is loaded again then".to_owned()
        }
        _ => "it is not loaded, and the models in its way have not gone yet".to_owned(),
    };
    Some(json!({
        "model": status.id,
        "requests": status.waiting,
        "reason": reason,
    }))
}

fn model_cache(totals: &CacheTotals) -> Value {
    let unloads = WhyKind::ALL.map(|kind| (kind.name(), totals.unloads[kind as usize]));
    json!({
        "hits_total": totals.hits,
        "misses_total": totals.misses,
        "loads_total": totals.loads,
        "load_failures_total": totals.failures,
        "evictions_total": totals.evictions(),
        "evicted_bytes_total": totals.unloaded_bytes,
        "unloads_total": BTreeMap::from(unloads),
        "load_seconds": totals.load_time.as_secs_f64(),
    })
}

fn params(report: &ParamsReport) -> Value {
    json!({
        "unique": report.unique,
        "requests_total": report.requests_total,
        "hits_total": report.hits_total,
        "evictions_total": report.evictions_total,
        "expired_total": report.expired_total,
        "dedup_ratio": report.dedup_ratio(),
        "bytes": report.bytes.get(),
    })
}

fn kv(served: &Served, snapshot: &EngineSnapshot, sights: &Sights) -> Option<Value> {
    let report = snapshot.kv.as_ref()?;
    let map = sights.of(served.id()).and_then(sights::map);
    Some(kv_api::entry(served.id(), report, &snapshot.totals, map))
}
