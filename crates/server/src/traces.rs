//! Requests, told to an OpenTelemetry collector: one span for each that asks for work, from its arrival to its
//! last byte, with the time that it waited, was read and was answered, and its tokens.
//!
//! A span that has ended goes into a queue of a fixed length, from which one thread sends batches (`export`).
//! Where the queue is full, or the collector does not take them, spans are dropped and counted: no request
//! ever waits for any of this.

mod context;
mod export;
mod otlp;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::extract::Request;
use axum::http::{Method, StatusCode};
use bursar_engine::Usage;
use bursar_memory::{Account, Bytes, Reservation};

use crate::app::lock;
use crate::serve::ServeError;
use context::Context;
pub use export::{Collector, CollectorError};

/// Spans that may wait to be sent.
const QUEUE: usize = 512;
/// Most bytes that one takes, its model's name included.
const SPAN_BYTES: usize = 512;

/// A request that has ended.
#[derive(Clone, Debug)]
struct Span {
    context: Context,
    path: String,
    /// Nanoseconds since 1970.
    begun_ns: u64,
    took: Duration,
    status: Option<StatusCode>,
    /// From its arrival to its first token.
    first_token: Option<Duration>,
    answered: Option<(String, Usage)>,
}

/// What became of spans.
#[derive(Debug, Default)]
struct Counts {
    sent: AtomicU64,
    dropped: AtomicU64,
}

/// Begins traces, where there is a collector.
#[derive(Debug, Default)]
pub(crate) struct Tracer(Option<Sending>);

#[derive(Debug)]
struct Sending {
    /// Nothing follows nothing.
    queue: SyncSender<Option<Span>>,
    thread: Option<JoinHandle<()>>,
    counts: Arc<Counts>,
    _room: Reservation,
}

impl Drop for Sending {
    /// What has ended before is sent still; the collector's patience bounds how long that takes.
    fn drop(&mut self) {
        // Requests that are cut off may still hold the queue open, so its end has to be said.
        let _ = self.queue.send(None);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Tracer {
    /// Sends what ends to `collector`; the queue is charged to `account` as if it were full.
    pub(crate) fn to(collector: Collector, account: &Account) -> Result<Tracer, ServeError> {
        let room = account.reserve(Bytes((QUEUE * SPAN_BYTES) as u64));
        let room = room.map_err(std::io::Error::other)?;
        let (queue, spans) = sync_channel(QUEUE);
        let counts = Arc::new(Counts::default());
        let told = Arc::clone(&counts);
        let thread = std::thread::Builder::new()
            .name("traces".to_owned())
            .stack_size(256 << 10)
            .spawn(move || export::run(&collector, &spans, &told))?;
        Ok(Tracer(Some(Sending {
            queue,
            thread: Some(thread),
            counts,
            _room: room,
        })))
    }

    /// The trace of a request that has come; nothing of one that only looks.
    pub(crate) fn begin(&self, request: &Request) -> Trace {
        let Some(sending) = &self.0 else {
            return Trace::default();
        };
        if request.method() != Method::POST {
            return Trace::default();
        }
        let Some(context) = Context::of(request.headers()) else {
            return Trace::default();
        };
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let path: String = request.uri().path().chars().take(100).collect();
        Trace(Some(Arc::new(Draft {
            begun: Instant::now(),
            span: Mutex::new(Span {
                context,
                path,
                begun_ns: u64::try_from(since.unwrap_or_default().as_nanos()).unwrap_or(0),
                took: Duration::ZERO,
                status: None,
                first_token: None,
                answered: None,
            }),
            queue: sending.queue.clone(),
            counts: Arc::clone(&sending.counts),
        })))
    }

    /// Spans sent and dropped, where there is a collector.
    pub(crate) fn counts(&self) -> Option<(u64, u64)> {
        let counts = &self.0.as_ref()?.counts;
        let of = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Some((of(&counts.sent), of(&counts.dropped)))
    }
}

/// What is known of a request so far. It ends when nobody holds it any more.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace(Option<Arc<Draft>>);

#[derive(Debug)]
struct Draft {
    begun: Instant,
    span: Mutex<Span>,
    queue: SyncSender<Option<Span>>,
    counts: Arc<Counts>,
}

impl Trace {
    fn note(&self, note: impl FnOnce(&mut Span, Duration)) {
        if let Some(draft) = &self.0 {
            note(&mut lock(&draft.span), draft.begun.elapsed());
        }
    }

    /// The first token has come.
    pub(crate) fn first_token(&self) {
        self.note(|span, now| span.first_token = Some(now));
    }

    /// All tokens or vectors have.
    pub(crate) fn answered(&self, model: &str, usage: Usage) {
        let model = model.chars().take(100).collect();
        self.note(|span, _| span.answered = Some((model, usage)));
    }

    /// The status that it is answered with.
    pub(crate) fn status(&self, status: StatusCode) {
        self.note(|span, _| span.status = Some(status));
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        let mut span = lock(&self.span).clone();
        span.took = self.begun.elapsed();
        if self.queue.try_send(Some(span)).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}
