//! What `GET /memory` tells about memory that is short: how short, what was done for it, and who waits.

use bursar_engine::{EngineSnapshot, WaitsFor};
use bursar_memory::pressure::Assessment;
use bursar_memory::{RecentEvents, ReclaimReport, RungTotal};
use serde_json::{Value, json};

/// Which levels there are inside the budget and around it, and why.
pub(crate) fn detail(found: &Assessment) -> Value {
    json!({
        "inside": found.inside.name(),
        "outside": found.outside.name(),
        "cause": (!found.cause.is_empty()).then_some(&found.cause),
        "missing_bytes": found.missing.get(),
    })
}

/// The rungs that were taken, and the last times that they were, the latest first.
pub(crate) fn reclaim(report: &ReclaimReport) -> Value {
    let rung = |total: &RungTotal| {
        json!({
            "rung": total.rung.name(),
            "times_total": total.times,
            "returned_bytes_total": total.bytes.get(),
        })
    };
    json!({
        "rungs": report.rungs.iter().map(rung).collect::<Vec<Value>>(),
        "recent": report.recent.iter().map(event).collect::<Vec<Value>>(),
    })
}

fn event(events: &RecentEvents) -> Value {
    let last = &events.last;
    json!({
        "unix_ms": last.unix_ms,
        "rung": last.rung.name(),
        "model": last.model,
        "times": events.times,
        "returned_bytes": last.bytes.get(),
        "reason": last.reason,
    })
}

/// What was done at `since` or later, of what is still known; the latest last.
pub(crate) fn events(report: &ReclaimReport, since_unix_ms: u64) -> Vec<Value> {
    let events = report.recent.iter().rev();
    let later = events.filter(|events| events.last.unix_ms >= since_unix_ms);
    later.map(event).collect()
}

/// What the last `times` times were that a rung was taken, of what is still known; the latest last.
pub(crate) fn latest(report: &ReclaimReport, mut times: u64) -> Vec<Value> {
    let mut latest = Vec::new();
    for events in &report.recent {
        if times == 0 {
            break;
        }
        times = times.saturating_sub(events.times);
        latest.push(event(events));
    }
    latest.reverse();
    latest
}

/// Who waits in a model's queue, and for what; nothing if nobody does.
pub(crate) fn waiting(model: &str, snapshot: &EngineSnapshot) -> Option<Value> {
    (snapshot.waiting > 0).then(|| {
        json!({
            "model": model,
            "requests": snapshot.waiting,
            "reason": reason(snapshot.waits_for, snapshot),
        })
    })
}

/// What the first of those who wait needs, in words.
pub(crate) fn reason(first: Option<WaitsFor>, snapshot: &EngineSnapshot) -> String {
    match first {
        None | Some(WaitsFor::Step) => "for the step that runs".to_owned(),
        Some(WaitsFor::Place { parallel }) => {
            format!("all {parallel} places of those that run at once are taken")
        }
        Some(WaitsFor::Blocks {
            used,
            capacity,
            planned,
        }) => {
            let free = snapshot.kv.map_or(0, |kv| kv.blocks_available());
            let short = match capacity < planned {
                true => format!(", and {} more are lent to others", planned - capacity),
                false => String::new(),
            };
            format!(
                "for keys and values: {used} of {capacity} blocks are in use{short}; {free} are free, \
                 which is too few for the first in line"
            )
        }
    }
}

/// What a request is told that comes when nothing more is taken on.
pub(crate) fn refusal(found: &Assessment) -> String {
    let cause = match found.cause.as_str() {
        "" => "the system around this server is out of memory",
        cause => cause,
    };
    format!("nothing more is taken on until memory is less short: {cause}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use bursar_engine::Totals;
    use bursar_memory::pressure::Level;
    use bursar_memory::{Bytes, ReclaimBooks, ReclaimEvent, Rung};

    use super::*;

    #[test]
    fn who_waits_is_told_for_what() {
        let mut snapshot = EngineSnapshot {
            running: 2,
            waiting: 3,
            queue: 64,
            parallel: 2,
            draining: false,
            kv: None,
            stored_tokens: 0,
            totals: Totals::default(),
            chunk_tokens: 16,
            waits_for: Some(WaitsFor::Place { parallel: 2 }),
            step_ms: Duration::from_millis(5).as_millis() as u64,
            last_progress_ms: 0,
            alive: true,
        };
        let told = waiting("chat", &snapshot).expect("three wait");
        assert_eq!(told["requests"], 3);
        assert_eq!(
            told["reason"],
            "all 2 places of those that run at once are taken"
        );
        snapshot.waits_for = Some(WaitsFor::Blocks {
            used: 7,
            capacity: 8,
            planned: 20,
        });
        let told = waiting("chat", &snapshot).expect("three wait");
        let reason = told["reason"].as_str().expect("text");
        assert!(reason.contains("7 of 8 blocks are in use, and 12 more are lent to others"));
        snapshot.waiting = 0;
        assert_eq!(waiting("chat", &snapshot), None);
    }

    #[test]
    fn rungs_levels_and_reasons_are_told() {
        let books = ReclaimBooks::new();
        for _ in 0..2 {
            books.record(ReclaimEvent {
                unix_ms: 5,
                rung: Rung::EvictModel,
                model: Some("chat".to_owned()),
                bytes: Bytes(10),
                reason: "room for another".to_owned(),
            });
        }
        let told = reclaim(&books.report());
        assert_eq!(told["rungs"][5]["rung"], "evict_model");
        assert_eq!(told["rungs"][5]["times_total"], 2);
        assert_eq!(told["recent"][0]["returned_bytes"], 20);
        assert_eq!(told["recent"][0]["reason"], "room for another");
        books.record(ReclaimEvent {
            unix_ms: 9,
            rung: Rung::Compact,
            model: None,
            bytes: Bytes(1),
            reason: "later".to_owned(),
        });
        let report = books.report();
        let rungs = |events: Vec<Value>| -> Vec<String> {
            let rung = |event: &Value| event["rung"].as_str().map(str::to_owned);
            events.iter().filter_map(rung).collect()
        };
        assert_eq!(rungs(latest(&report, 0)), [""; 0]);
        assert_eq!(rungs(latest(&report, 1)), ["compact"]);
        assert_eq!(rungs(latest(&report, 2)), ["evict_model", "compact"]);
        assert_eq!(rungs(events(&report, 6)), ["compact"]);
        assert_eq!(rungs(events(&report, 0)), ["evict_model", "compact"]);
        let found = Assessment {
            outside: Level::Critical,
            cause: "cgroup /app is full".to_owned(),
            missing: Bytes(7),
            ..Assessment::default()
        };
        assert_eq!(detail(&found)["outside"], "critical");
        assert_eq!(detail(&Assessment::default())["cause"], Value::Null);
        assert!(refusal(&found).ends_with("cgroup /app is full"));
    }
}
