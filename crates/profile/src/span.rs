//! Named spans of time: how often, how long, and when, at a cost that is hardly there while nobody
//! looks.
//!
//! ```
//! use bursar_profile::{Level, span, spans};
//!
//! spans::set_level(Level::Trace);
//! {
//!     let _span = span!("pack", 12); // ends at the end of the block; 12 is shown in the trace
//! }
//! println!("{}", spans::summary());
//! let mut json = Vec::new();
//! spans::trace().write(&mut json)?; // for ui.perfetto.dev or chrome://tracing
//! # spans::set_level(Level::Off);
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! - `histogram`: durations counted in buckets of 3 %, as HdrHistogram does it.
//! - `ring`: the last events of one thread, overwritten when it is full.
//! - `registry`: what has a name, and the rings of all threads. The program's one global besides
//!   its allocator: a span must be reachable from code that nobody hands anything.
//! - `summary`, `trace`: what was seen, as a table and as Chrome's JSON.
//!
//! A span that is off loads one byte and branches. One that is on reads the clock twice and adds to
//! a histogram; the first of each name takes memory ([`spans::SERIES_BYTES`]), and the first of each
//! thread when a trace is wanted ([`spans::RING_BYTES`]). Nothing else allocates.

mod histogram;
mod registry;
mod ring;
mod summary;
mod trace;

use std::sync::{Arc, OnceLock};
use std::time::Instant;

pub use summary::{SpanSummary, Summary, duration_words};
pub use trace::Trace;

use registry::{REGISTRY, Series};

/// What is recorded.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub enum Level {
    /// Nothing.
    Off,
    /// How long spans took, as histograms; not the fine ones.
    Histograms,
    /// The same of all spans, the fine ones too, and when each of the last ones was, thread by thread.
    Trace,
}

/// A place in the code that is timed; [`crate::span!`] makes one.
pub struct Site {
    name: &'static str,
    from: Level,
    series: OnceLock<Arc<Series>>,
}

impl Site {
    /// A place whose spans are called `name`; places may share a name.
    pub const fn new(name: &'static str) -> Site {
        Site::at(name, Level::Histograms)
    }

    /// The same for a place that is passed so often that its spans are worth their cost only in a trace.
    pub const fn fine(name: &'static str) -> Site {
        Site::at(name, Level::Trace)
    }

    const fn at(name: &'static str, from: Level) -> Site {
        Site {
            name,
            from,
            series: OnceLock::new(),
        }
    }

    /// Begins a span, which ends when it is dropped. `value` says how much is done in it, such as
    /// tokens, and is shown in a trace; 0 if there is nothing to say.
    #[inline]
    pub fn enter(&'static self, value: u64) -> Span {
        if REGISTRY.level() < self.from as u8 {
            return Span(None);
        }
        self.begin(value)
    }

    #[cold]
    fn begin(&'static self, value: u64) -> Span {
        let series = self.series.get_or_init(|| REGISTRY.series(self.name));
        Span(Some(Open {
            series,
            value,
            begun: Instant::now(),
        }))
    }
}

/// A span that has begun, if spans are recorded.
#[must_use = "a span ends when it is dropped: give it a name, `let _span = ...`"]
pub struct Span(Option<Open>);

struct Open {
    series: &'static Arc<Series>,
    value: u64,
    begun: Instant,
}

impl Span {
    /// Says how much was done, where that is known only at the end.
    #[inline]
    pub fn set_value(&mut self, value: u64) {
        if let Some(open) = &mut self.0 {
            open.value = value;
        }
    }
}

impl Drop for Span {
    #[inline]
    fn drop(&mut self) {
        if let Some(open) = &self.0 {
            open.end();
        }
    }
}

impl Open {
    fn end(&self) {
        let took = nanoseconds(self.begun.elapsed());
        self.series.histogram.add(took);
        if REGISTRY.level() == Level::Trace as u8 {
            let begun = REGISTRY.since_epoch(self.begun);
            REGISTRY.record(self.series.span_event(begun, took, self.value));
        }
    }
}

/// Saturates after 584 years.
fn nanoseconds(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Times the rest of the block that it is in: `let _span = span!("name");`, or
/// `span!("name", tokens)` with how much is done in it (a `u64`, or what converts with `as`).
#[macro_export]
macro_rules! span {
    ($name:literal) => {
        $crate::span!($name, 0)
    };
    ($name:literal, $value:expr) => {{
        static SITE: $crate::span::Site = $crate::span::Site::new($name);
        SITE.enter($value as u64)
    }};
}

/// What all spans of the process came to.
pub mod spans {
    use super::{Level, REGISTRY, Summary, Trace, histogram, registry, ring};

    /// Bytes that each name takes once it has been recorded.
    pub const SERIES_BYTES: usize = histogram::BYTES;
    /// Bytes that each thread takes once it has recorded for a trace.
    pub const RING_BYTES: usize = ring::BYTES;
    /// Events of a thread that a trace holds: the last ones.
    pub const RING_EVENTS: usize = ring::EVENTS;
    /// Threads that a trace holds; those beyond are in the histograms alone.
    pub const THREADS_MAX: usize = registry::THREADS_MAX;

    /// Chooses what is recorded from now on, in all threads.
    pub fn set_level(level: Level) {
        REGISTRY.set_level(level);
    }

    /// What is recorded.
    pub fn level() -> Level {
        match REGISTRY.level() {
            0 => Level::Off,
            1 => Level::Histograms,
            _ => Level::Trace,
        }
    }

    /// Forgets what was recorded; keeps the memory.
    pub fn reset() {
        REGISTRY.reset();
    }

    /// Durations by name.
    pub fn summary() -> Summary {
        REGISTRY.summary()
    }

    /// The last events of every thread.
    pub fn trace() -> Trace {
        REGISTRY.trace()
    }

    /// Notes a quantity at this moment, such as resident bytes: a curve in the trace. Nothing is noted
    /// unless a trace is recorded.
    pub fn gauge(name: &'static str, value: u64) {
        if level() == Level::Trace {
            let event = REGISTRY.series(name).gauge_event(REGISTRY.now(), value);
            REGISTRY.record(event);
        }
    }
}
