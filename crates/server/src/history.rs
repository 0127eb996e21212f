//! The last hour: what was granted, what was measured, what was done, a point every few seconds, so that
//! who opens a page later sees what came before.
//!
//! The ring is made once and takes 68 KiB, charged to the account of watchers. Where the budget has no
//! room for it, there is no history.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bursar_memory::{Account, AccountSnapshot, Bytes, Lifetime, ReclaimReport, Reservation};
use bursar_profile::Probe;
use serde_json::{Value, json};
use tokio::time::MissedTickBehavior;

use crate::app::{App, lock};
use crate::pressure_api;
use crate::served::unix_ms;

/// Time between two points.
const INTERVAL: Duration = Duration::from_secs(5);
/// An hour of them.
const POINTS: usize = 720;

/// What there was at a moment.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
struct Point {
    unix_ms: u64,
    /// Granted bytes, in the order of [`Lifetime::ALL`].
    granted_bytes: [u64; Lifetime::ALL.len()],
    rss_bytes: u64,
    /// Tokens of prompts computed since the server began, tokens generated, vectors made.
    tokens_in: u64,
    tokens_out: u64,
    vectors: u64,
    requests: u64,
    /// Medians of the minute before, in microseconds.
    first_token_us: Option<NonZeroU32>,
    between_tokens_us: Option<NonZeroU32>,
    running: u32,
    waiting: u32,
}

/// The ring of points.
#[derive(Debug)]
pub(crate) struct History {
    points: Mutex<VecDeque<Point>>,
    _room: Option<Reservation>,
}

impl History {
    /// An empty one, charged to `account` as if it were full.
    pub(crate) fn new(account: &Account) -> History {
        let room = account.reserve(Bytes((POINTS * size_of::<Point>()) as u64));
        let points = match room {
            Ok(_) => VecDeque::with_capacity(POINTS),
            Err(_) => VecDeque::new(),
        };
        History {
            points: Mutex::new(points),
            _room: room.ok(),
        }
    }

    /// One more point; the oldest gives way.
    fn add(&self, point: Point) {
        let mut points = lock(&self.points);
        if points.capacity() == 0 {
            return;
        }
        if points.len() == POINTS {
            points.pop_front();
        }
        points.push_back(point);
    }

    /// The hour in columns, the oldest point first, with what was done for memory in it.
    fn report(&self, budget: Bytes, reclaim: &ReclaimReport) -> Value {
        let points = lock(&self.points);
        let column = |of: &dyn Fn(&Point) -> u64| points.iter().map(of).collect::<Vec<u64>>();
        let times = |of: &dyn Fn(&Point) -> Option<NonZeroU32>| {
            let seconds = |point| of(point).map(|us| f64::from(us.get()) / 1e6);
            points.iter().map(seconds).collect::<Vec<Option<f64>>>()
        };
        let granted = Lifetime::ALL.map(|lifetime| {
            let bytes = column(&|point| point.granted_bytes[lifetime as usize]);
            (lifetime.name().to_owned(), Value::from(bytes))
        });
        let since = points.front().map_or(0, |point| point.unix_ms);
        json!({
            "interval_seconds": INTERVAL.as_secs_f64(),
            "points_max": POINTS,
            "budget_bytes": budget.get(),
            "unix_ms": column(&|point| point.unix_ms),
            "granted_bytes": granted.into_iter().collect::<serde_json::Map<_, _>>(),
            "rss_bytes": column(&|point| point.rss_bytes),
            "tokens_in_total": column(&|point| point.tokens_in),
            "tokens_out_total": column(&|point| point.tokens_out),
            "vectors_total": column(&|point| point.vectors),
            "requests_total": column(&|point| point.requests),
            "first_token_seconds": times(&|point| point.first_token_us),
            "between_tokens_seconds": times(&|point| point.between_tokens_us),
            "running": column(&|point| u64::from(point.running)),
            "waiting": column(&|point| u64::from(point.waiting)),
            "marks": pressure_api::events(reclaim, since),
        })
    }
}

/// `GET /memory/history`.
pub(crate) fn report(app: &App) -> Value {
    app.history
        .report(app.ledger.budget(), &app.reclaim.report())
}

/// Adds points for as long as the server runs.
pub(crate) async fn keep(app: Arc<App>) {
    let mut interval = tokio::time::interval(INTERVAL);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        interval.tick().await;
        app.history.add(point(&app));
    }
}

fn point(app: &App) -> Point {
    let status = app.models.status();
    let rates = app.rates.tick(&status);
    let mut point = Point {
        unix_ms: unix_ms(),
        granted_bytes: by_lifetime(&app.ledger.snapshot()),
        rss_bytes: Probe::default()
            .process()
            .map_or(0, |process| process.rss_bytes),
        tokens_in: rates.sum.tokens_in,
        tokens_out: rates.sum.tokens_out,
        vectors: rates.sum.vectors,
        requests: rates.sum.requests,
        first_token_us: micros(rates.first_token),
        between_tokens_us: micros(rates.between_tokens),
        running: 0,
        waiting: 0,
    };
    for model in &status {
        let inside = model.model.as_ref().map(|served| served.engine.snapshot());
        let (running, waiting) = inside.map_or((0, 0), |seen| (seen.running, seen.waiting));
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        point.running = point.running.saturating_add(count(running));
        point.waiting = point.waiting.saturating_add(count(waiting + model.waiting));
    }
    point
}

/// Less than a microsecond is one.
fn micros(seconds: Option<f64>) -> Option<NonZeroU32> {
    NonZeroU32::new((seconds? * 1e6).clamp(1.0, f64::from(u32::MAX)) as u32)
}

/// What accounts hold themselves, added up by their lifetimes: all that is granted.
fn by_lifetime(books: &AccountSnapshot) -> [u64; Lifetime::ALL.len()] {
    let mut granted = [0; Lifetime::ALL.len()];
    books.visit(&mut |account: &AccountSnapshot, _| {
        granted[account.lifetime as usize] += account.own.get();
    });
    granted
}

#[cfg(test)]
mod tests {
    use bursar_memory::{Ledger, ReclaimBooks, ReclaimEvent, Rung};

    use super::*;

    fn at(unix_ms: u64) -> Point {
        Point {
            unix_ms,
            ..Point::default()
        }
    }

    #[test]
    fn an_hour_is_kept_and_charged_once() {
        let ledger = Ledger::new(Bytes::mib(1));
        let history = History::new(&ledger.root());
        let granted = ledger.granted();
        assert_eq!(granted, Bytes(69_120));
        for moment in 0..POINTS as u64 + 3 {
            history.add(at(moment));
        }
        assert_eq!(ledger.granted(), granted);
        let books = ReclaimBooks::new();
        for unix_ms in [1, 500] {
            books.record(ReclaimEvent {
                unix_ms,
                rung: Rung::EvictModel,
                model: Some("chat".to_owned()),
                bytes: Bytes(7),
                reason: format!("at {unix_ms}"),
            });
        }
        let told = history.report(Bytes(9), &books.report());
        let times = told["unix_ms"].as_array().expect("a list");
        assert_eq!((times.len(), &times[0]), (POINTS, &Value::from(3)));
        // What happened before the first point is not of this hour.
        let marks = told["marks"].as_array().expect("a list");
        assert_eq!((marks.len(), &marks[0]["reason"]), (1, &"at 500".into()));
    }

    #[test]
    fn without_room_there_is_no_history() {
        let ledger = Ledger::new(Bytes::kib(1));
        let history = History::new(&ledger.root());
        history.add(at(1));
        let told = history.report(Bytes(9), &ReclaimBooks::new().report());
        assert_eq!(told["unix_ms"], json!([]));
    }

    #[test]
    fn lifetimes_add_up_to_what_is_granted() {
        let ledger = Ledger::new(Bytes::mib(1));
        let model = ledger.root().child("model", Lifetime::Semantic);
        let kv = model.child("kv", Lifetime::Episodic);
        let held = [model.reserve(Bytes(5)), kv.reserve(Bytes(7))];
        assert!(held.iter().all(Result::is_ok));
        let granted = by_lifetime(&ledger.snapshot());
        assert_eq!(granted[Lifetime::Semantic as usize], 5);
        assert_eq!(granted[Lifetime::Episodic as usize], 7);
        assert_eq!(granted.iter().sum::<u64>(), ledger.granted().get());
    }
}
