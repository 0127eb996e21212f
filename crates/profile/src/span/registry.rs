//! Everything that has been recorded: histograms by name, rings by thread.

use std::cell::OnceCell;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Instant;

use super::histogram::Histogram;
use super::ring::{self, Event, Ring};
use super::summary::{SpanSummary, Summary};
use super::trace::{Lane, Trace};
use super::{Level, nanoseconds};

/// Rings that there may be.
pub(super) const THREADS_MAX: usize = 64;

/// The one there is.
pub(super) static REGISTRY: Registry = Registry {
    level: AtomicU8::new(Level::Off as u8),
    epoch: OnceLock::new(),
    books: Mutex::new(Books {
        series: Vec::new(),
        lanes: Vec::new(),
    }),
};

thread_local! {
    /// This thread's ring; `None` if it gets none.
    static RING: OnceCell<Option<Arc<Ring>>> = const { OnceCell::new() };
}

/// All spans of one name.
pub(super) struct Series {
    name: &'static str,
    /// Its place among all series.
    index: u32,
    pub(super) histogram: Histogram,
}

impl Series {
    pub(super) fn span_event(&self, at: u64, took: u64, value: u64) -> Event {
        Event {
            at,
            took: Some(took),
            series: self.index,
            value,
        }
    }

    pub(super) fn gauge_event(&self, at: u64, value: u64) -> Event {
        Event {
            at,
            took: None,
            series: self.index,
            value,
        }
    }
}

pub(super) struct Registry {
    level: AtomicU8,
    /// What events' times count from: the first time that a level was set.
    epoch: OnceLock<Instant>,
    books: Mutex<Books>,
}

struct Books {
    series: Vec<Arc<Series>>,
    lanes: Vec<ThreadRing>,
}

/// A ring, and whose it is or was last.
struct ThreadRing {
    thread: String,
    ring: Arc<Ring>,
}

impl Registry {
    #[inline]
    pub(super) fn level(&self) -> u8 {
        self.level.load(Ordering::Relaxed)
    }

    pub(super) fn set_level(&self, level: Level) {
        self.epoch.get_or_init(Instant::now);
        self.level.store(level as u8, Ordering::Relaxed);
    }

    pub(super) fn now(&self) -> u64 {
        self.since_epoch(Instant::now())
    }

    pub(super) fn since_epoch(&self, at: Instant) -> u64 {
        let epoch = *self.epoch.get_or_init(Instant::now);
        nanoseconds(at.saturating_duration_since(epoch))
    }

    /// What panicked while it held the lock had only read or pushed: the lists are whole.
    fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The series of a name, made if there is none.
    pub(super) fn series(&self, name: &'static str) -> Arc<Series> {
        let mut books = self.books();
        if let Some(series) = books.series.iter().find(|series| series.name == name) {
            return Arc::clone(series);
        }
        let series = Arc::new(Series {
            name,
            // As many as there are names in the program's text.
            index: books.series.len() as u32,
            histogram: Histogram::new(),
        });
        books.series.push(Arc::clone(&series));
        series
    }

    /// Adds an event to this thread's ring.
    pub(super) fn record(&self, event: Event) {
        // A thread that is about to end has no ring any more.
        let _ = RING.try_with(|ring| {
            if let Some(ring) = ring.get_or_init(|| self.new_ring()) {
                ring.push(event);
            }
        });
    }

    fn new_ring(&self) -> Option<Arc<Ring>> {
        let current = std::thread::current();
        let thread = current.name().unwrap_or("unnamed").to_owned();
        let mut books = self.books();
        if books.lanes.len() < THREADS_MAX {
            let ring = Arc::new(Ring::new(ring::EVENTS));
            books.lanes.push(ThreadRing {
                thread,
                ring: Arc::clone(&ring),
            });
            return Some(ring);
        }
        // That of a thread that has ended, if there is one.
        let free = books
            .lanes
            .iter_mut()
            .find(|lane| Arc::strong_count(&lane.ring) == 1)?;
        free.ring.clear();
        free.thread = thread;
        Some(Arc::clone(&free.ring))
    }

    pub(super) fn reset(&self) {
        let books = self.books();
        for series in &books.series {
            series.histogram.reset();
        }
        for lane in &books.lanes {
            lane.ring.clear();
        }
    }

    pub(super) fn summary(&self) -> Summary {
        let books = self.books();
        let mut spans = Vec::with_capacity(books.series.len());
        for series in &books.series {
            let histogram = &series.histogram;
            let Some((min_ns, max_ns)) = histogram.range() else {
                continue;
            };
            let [p50_ns, p99_ns] = histogram.quantiles([0.5, 0.99]);
            spans.push(SpanSummary {
                name: series.name,
                count: histogram.count(),
                total_ns: histogram.total(),
                min_ns,
                p50_ns,
                p99_ns,
                max_ns,
            });
        }
        Summary::new(spans)
    }

    pub(super) fn trace(&self) -> Trace {
        let books = self.books();
        let lanes = books.lanes.iter().map(|lane| {
            let (events, lost) = lane.ring.events();
            Lane {
                thread: lane.thread.clone(),
                events,
                lost,
            }
        });
        Trace {
            lanes: lanes.collect(),
            names: books.series.iter().map(|series| series.name).collect(),
        }
    }
}
