//! `GET /memory/events`: the report of `GET /memory` every second as server-sent events, and between
//! them what happens to memory and models, for as long as somebody watches.
//!
//! One task composes for all who watch; it begins with the first and ends with the last. Who watches has
//! the latest frame only: a slow reader skips what came in between, and no queue grows for it. Of what
//! happened, the last few events stand in every frame, so that they are not skipped with it.

use std::collections::{BTreeMap, VecDeque};
use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderValue, Response, header};
use bursar_engine::{ModelState, ModelStatus};
use bursar_memory::{PoolError, ReclaimReport, RungTotal};
use futures_core::Stream;
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::Instant;

use crate::app::App;
use crate::error::ApiError;
use crate::memory_api;
use crate::out::Out;
use crate::phase::Phase;
use crate::pressure_api;
use crate::served::{Served, unix_ms};
use crate::sights::Sights;

/// Who may watch at once.
const WATCHERS_MAX: usize = 16;
/// Time between two reports.
const INTERVAL: Duration = Duration::from_secs(1);
/// Time between two looks whether something has happened.
const LOOK: Duration = Duration::from_millis(200);
/// Events that a frame holds.
const NEWS_MAX: usize = 32;

/// What those share who watch.
#[derive(Debug)]
pub(crate) struct Watch {
    frames: watch::Sender<Option<Arc<Frame>>>,
    places: Arc<Semaphore>,
    /// Whether somebody composes.
    composing: AtomicBool,
}

/// What is sent.
#[derive(Debug, Default)]
struct Frame {
    /// What happened last, each with its number, the latest at the end.
    news: Vec<(u64, Bytes)>,
    /// The report, as an event.
    memory: Bytes,
}

impl Frame {
    /// The number of the last event.
    fn newest(&self) -> u64 {
        self.news.last().map_or(0, |(number, _)| *number)
    }
}

impl Watch {
    /// Nobody watches yet.
    pub(crate) fn new() -> Watch {
        Watch {
            frames: watch::Sender::new(None),
            places: Arc::new(Semaphore::new(WATCHERS_MAX)),
            composing: AtomicBool::new(false),
        }
    }
}

/// Begins to watch.
pub(crate) fn answer(app: &Arc<App>) -> Result<Response<Body>, ApiError> {
    let place = Arc::clone(&app.watch.places).try_acquire_owned();
    let place = place.map_err(|_| ApiError::watched(WATCHERS_MAX))?;
    let frames = app.watch.frames.subscribe();
    let there = frames.borrow().clone();
    if !app.watch.composing.swap(true, Ordering::AcqRel) {
        tokio::spawn(compose(Arc::clone(app)));
    }
    let stopper = app.stopper.clone();
    let watcher = Watcher {
        // What happened before is in the report.
        newest: there.as_ref().map_or(0, |frame| frame.newest()),
        next: Box::pin(next(frames, there)),
        draining: Box::pin(async move { stopper.reached(Phase::Draining).await }),
        _place: place,
    };
    let mut response = Response::new(Body::from_stream(watcher));
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // nginx would hold events back.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    Ok(response)
}

type Frames = watch::Receiver<Option<Arc<Frame>>>;
type Next = Pin<Box<dyn Future<Output = Option<(Arc<Frame>, Frames)>> + Send>>;

/// The frame that is there, or else the next one.
async fn next(mut frames: Frames, there: Option<Arc<Frame>>) -> Option<(Arc<Frame>, Frames)> {
    if let Some(frame) = there {
        return Some((frame, frames));
    }
    loop {
        frames.changed().await.ok()?;
        let frame = frames.borrow_and_update().clone();
        if let Some(frame) = frame {
            return Some((frame, frames));
        }
    }
}

/// The body of who watches; ends when the server begins to.
struct Watcher {
    next: Next,
    /// The number of the last event that he has been told.
    newest: u64,
    draining: Pin<Box<dyn Future<Output = ()> + Send>>,
    _place: OwnedSemaphorePermit,
}

impl Stream for Watcher {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        if this.draining.as_mut().poll(context).is_ready() {
            return Poll::Ready(None);
        }
        let Poll::Ready(next) = this.next.as_mut().poll(context) else {
            return Poll::Pending;
        };
        let Some((frame, frames)) = next else {
            return Poll::Ready(None);
        };
        let missed = frame.news.iter().find(|(number, _)| *number > this.newest);
        // One event at a time: the report of a frame comes after all that happened.
        let (bytes, there) = match missed {
            Some((number, event)) => {
                this.newest = *number;
                (event.clone(), Some(frame))
            }
            None => (frame.memory.clone(), None),
        };
        this.next = Box::pin(self::next(frames, there));
        Poll::Ready(Some(Ok(bytes)))
    }
}

/// Composes frames until nobody watches any more.
async fn compose(app: Arc<App>) {
    let mut composer = Composer::new(&app);
    while app.watch.frames.receiver_count() > 0 {
        let due = Instant::now() + INTERVAL;
        let sights = Sights::take(&app).await;
        composer.notice(&app);
        // Where the budget has no room for a report now, the next may find some.
        if let Ok(frame) = composer.frame(&app, &sights) {
            app.watch.frames.send_replace(Some(Arc::new(frame)));
        }
        drop(sights);
        while Instant::now() < due && app.watch.frames.receiver_count() > 0 {
            tokio::time::sleep_until(due.min(Instant::now() + LOOK)).await;
            if composer.notice(&app) {
                break;
            }
        }
    }
    // One thread serves: nobody has begun to watch since the last look.
    app.watch.composing.store(false, Ordering::Release);
    app.watch.frames.send_replace(None);
}

/// What was there when last looked at, and what has happened since.
struct Composer {
    seen: Seen,
    news: VecDeque<(u64, Bytes)>,
    numbers: u64,
}

/// What tells that something has happened.
#[derive(Debug, Default)]
struct Seen {
    /// Rungs taken.
    rungs: u64,
    models: BTreeMap<String, ModelState>,
}

impl Seen {
    fn of(status: &[ModelStatus<Served>], reclaim: &ReclaimReport) -> Seen {
        let times = |total: &RungTotal| total.times;
        Seen {
            rungs: reclaim.rungs.iter().map(times).sum(),
            models: status.iter().map(|m| (m.id.clone(), m.state)).collect(),
        }
    }

    /// What a model was before, if that was something else.
    fn before(&self, id: &str, now: ModelState) -> Option<ModelState> {
        let before = self.models.get(id).copied();
        let before = before.unwrap_or(ModelState::Absent);
        (before != now).then_some(before)
    }
}

impl Composer {
    fn new(app: &App) -> Composer {
        Composer {
            seen: Seen::of(&app.models.status(), &app.reclaim.report()),
            news: VecDeque::with_capacity(NEWS_MAX),
            numbers: 0,
        }
    }

    fn add(&mut self, app: &App, kind: &str, event: &Value) {
        self.numbers += 1;
        // Where the budget has no room for it, the next report tells.
        let Ok(event) = written(app, kind, event) else {
            return;
        };
        if self.news.len() == NEWS_MAX {
            self.news.pop_front();
        }
        self.news.push_back((self.numbers, event));
    }

    /// Looks what has happened; whether there was something.
    fn notice(&mut self, app: &App) -> bool {
        let (status, reclaim) = (app.models.status(), app.reclaim.report());
        let before = self.numbers;
        let seen = Seen::of(&status, &reclaim);
        for event in pressure_api::latest(&reclaim, seen.rungs - self.seen.rungs) {
            self.add(app, "reclaim", &event);
        }
        for model in &status {
            if let Some(before) = self.seen.before(&model.id, model.state) {
                let event = json!({
                    "unix_ms": unix_ms(),
                    "id": model.id,
                    "state": model.state.name(),
                    "before": before.name(),
                    "error": model.error,
                });
                self.add(app, "model", &event);
            }
        }
        self.seen = seen;
        self.numbers > before
    }

    /// The report as it is now, with the last that happened.
    fn frame(&self, app: &App, sights: &Sights) -> Result<Frame, PoolError> {
        Ok(Frame {
            news: self.news.iter().cloned().collect(),
            memory: written(app, "memory", &memory_api::report(app, sights))?,
        })
    }
}

/// An event in a buffer of the pool, which charges it. JSON holds no line breaks, so it is one line.
fn written(app: &App, kind: &str, data: &Value) -> Result<Bytes, PoolError> {
    let text = data.to_string();
    let mut out = Out::with_capacity(app.pools.buffers(), text.len() + kind.len() + 32)?;
    for part in ["event: ", kind, "\ndata: ", &text, "\n\n"] {
        out.raw(part)?;
    }
    Ok(out.into_bytes())
}
