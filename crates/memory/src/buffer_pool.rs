//! Buffers that are used again: what requests, steps and loads take and give back all the time.
//!
//! | module | what lives there |
//! |---|---|
//! | `class` | size classes and keys |
//! | `block` | a span that is kept, who had it last, all that are alive |
//! | `magazine` | stacks of unused blocks, and how many are worth keeping |
//! | `shared` | the ways of a block out and back |
//! | `buffer` | what users hold |
//!
//! The design is Bonwick's magazines ("Magazines and Vmem", USENIX 2001), with two departures: a
//! magazine belongs to one thread but can be looked at by others (`cell.rs`), so that nothing is lost in
//! idle threads; and old blocks are found by how low a stack has been, not by the clock.

mod block;
mod buffer;
mod class;
mod magazine;
mod shared;

use std::fmt;
use std::panic::Location;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use crate::account::Lifetime;
use crate::bytes::Bytes;
use crate::heap_pool::PoolReport;
use crate::node::lock;
use crate::source::{Device, PoolError, SpanSource};
use crate::trace::Recorder;

pub use block::Leak;
pub use buffer::{Buffer, Shape, TypedBuffer};
pub use class::{Dtype, Element};
use shared::{Counts, Shared};

/// What a buffer pool is made from: settings by the names of `pool.*`.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct BufferPoolOptions {
    /// Whether buffers are kept to be used again.
    pub keep: bool,
    /// Whether acquiring is counted.
    pub track_statistics: bool,
    /// The share in use of what is behind from which on unused buffers are given up before more is
    /// taken.
    pub cleanup_utilisation: f64,
    /// Least time between two clean-ups. A buffer that was not wanted all that time is old.
    pub cleanup_interval: Duration,
}

impl Default for BufferPoolOptions {
    fn default() -> BufferPoolOptions {
        BufferPoolOptions {
            keep: true,
            track_statistics: true,
            cleanup_utilisation: 0.85,
            cleanup_interval: Duration::from_secs(30),
        }
    }
}

/// Buffers by size class and dtype, of one device. Cheap to clone: all clones are the same pool, which
/// is closed with the last of them. Buffers may outlive it.
#[derive(Clone)]
pub struct BufferPool {
    shared: Arc<Shared>,
    /// What only the pool has, and not its buffers.
    handle: Arc<Handle>,
}

struct Handle {
    shared: Arc<Shared>,
    options: BufferPoolOptions,
    /// What had been counted at the last reset.
    baseline: Mutex<Counts>,
    cleaned: Mutex<Option<Instant>>,
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.shared.close();
    }
}

/// What a clean-up gave up.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct CleanUp {
    /// Blocks that nobody had wanted.
    pub blocks: u64,
    /// Their bytes, which went back to the heaps.
    pub bytes: Bytes,
}

impl BufferPool {
    /// An empty pool that draws from `source`.
    pub fn new(source: Arc<dyn SpanSource>, options: BufferPoolOptions) -> BufferPool {
        BufferPool::recorded(source, options, Recorder::default())
    }

    /// The same, with a recorder that is told of every buffer.
    pub fn recorded(
        source: Arc<dyn SpanSource>,
        options: BufferPoolOptions,
        recorder: Recorder,
    ) -> BufferPool {
        let BufferPoolOptions {
            keep,
            track_statistics,
            cleanup_utilisation,
            ..
        } = options;
        let shared = Arc::new(Shared::new(
            source,
            keep,
            track_statistics,
            cleanup_utilisation,
            recorder,
        ));
        BufferPool {
            shared: Arc::clone(&shared),
            handle: Arc::new(Handle {
                shared,
                options,
                baseline: Mutex::default(),
                cleaned: Mutex::default(),
            }),
        }
    }

    /// A buffer of `len` bytes, of whatever content; one that was used before, where there is one that
    /// is less than twice as long.
    ///
    /// # Errors
    /// Where there is none and the source refuses a new one.
    #[track_caller]
    #[inline]
    pub fn acquire(&self, len: usize, lifetime: Lifetime) -> Result<Buffer, PoolError> {
        self.shared
            .acquire(len, Dtype::U8, lifetime, Location::caller())
    }

    /// A buffer without bytes that has room for `capacity`: to be filled like a `Vec`.
    ///
    /// # Errors
    /// As [`BufferPool::acquire`].
    #[track_caller]
    pub fn acquire_empty(&self, capacity: usize, lifetime: Lifetime) -> Result<Buffer, PoolError> {
        let mut buffer = self.acquire(capacity, lifetime)?;
        buffer.clear();
        Ok(buffer)
    }

    /// A buffer of `len` bytes, all zero.
    ///
    /// # Errors
    /// As [`BufferPool::acquire`].
    #[track_caller]
    pub fn acquire_zeroed(&self, len: usize, lifetime: Lifetime) -> Result<Buffer, PoolError> {
        let mut buffer = self.acquire(len, lifetime)?;
        buffer.fill(0);
        Ok(buffer)
    }

    /// Elements in a shape, of whatever content.
    ///
    /// # Errors
    /// As [`BufferPool::acquire`], and where there are more than the address space holds.
    #[track_caller]
    pub fn acquire_typed<T: Element>(
        &self,
        shape: impl Into<Shape>,
        lifetime: Lifetime,
    ) -> Result<TypedBuffer<T>, PoolError> {
        let place = Location::caller();
        TypedBuffer::acquire(&self.shared, shape.into(), lifetime, place)
    }

    /// Whose memory it is.
    pub fn device(&self) -> Device {
        self.shared.device()
    }

    /// What it was made from.
    pub fn options(&self) -> &BufferPoolOptions {
        &self.handle.options
    }

    /// Gives up what was not wanted for an interval, if that is due at `now`. `None` where it was not.
    pub fn clean_up_if_due(&self, now: Instant) -> Option<CleanUp> {
        {
            let mut cleaned = lock(&self.handle.cleaned);
            let interval = self.handle.options.cleanup_interval;
            let due = cleaned.is_none_or(|last| now.saturating_duration_since(last) >= interval);
            if !due {
                return None;
            }
            *cleaned = Some(now);
        }
        Some(self.clean_up())
    }

    /// Gives up what was not wanted since the last time, as far as the pool is larger than what has been
    /// wanted at once lately.
    pub fn clean_up(&self) -> CleanUp {
        let (blocks, bytes) = self.shared.clean_up();
        CleanUp { blocks, bytes }
    }

    /// Gives up all buffers that nobody uses, and what the source keeps beyond need. Says how many bytes
    /// went back to the operating system.
    pub fn trim(&self) -> Bytes {
        self.shared.empty_all();
        self.shared
            .source()
            .map_or(Bytes::ZERO, |source| source.trim_spans())
    }

    /// Where the buffers that are out now were acquired, most bytes first. At a moment when none should
    /// be, these are the leaks. Always empty for a pool that keeps nothing.
    pub fn out(&self) -> Vec<Leak> {
        self.shared.out()
    }

    /// Starts the totals, the largest and the average again. What is out is not touched.
    pub fn reset_statistics(&self) {
        *lock(&self.handle.baseline) = self.shared.survey().counts;
        self.shared.reset_largest();
    }

    /// The figures. Of the heaps behind, it has none: they have their own report.
    pub fn report(&self) -> PoolReport {
        let survey = self.shared.survey();
        let baseline = *lock(&self.handle.baseline);
        let Counts {
            acquired,
            drawn,
            bytes,
            largest,
        } = survey.counts;
        let allocations = acquired.wrapping_sub(baseline.acquired);
        let drawn = drawn.wrapping_sub(baseline.drawn);
        let asked = bytes.wrapping_sub(baseline.bytes);
        let active = survey.blocks - survey.blocks_free;
        let used = survey.bytes - survey.bytes_free;
        let ratio = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        PoolReport {
            name: "buffers",
            device: self.device(),
            capacity_bytes: survey.bytes,
            used_bytes: used,
            hit_ratio: ratio(allocations.saturating_sub(drawn), allocations),
            utilisation_ratio: ratio(used, survey.bytes).unwrap_or(0.0),
            heaps_total: 0,
            heaps_active: 0,
            allocations_total: allocations,
            fallback_total: 0,
            acquired_total: acquired,
            released_total: acquired.saturating_sub(active),
            active,
            largest_bytes: largest,
            average_bytes: asked.checked_div(allocations).unwrap_or(0),
            largest_free_bytes: survey.largest_free,
            fragmentation_ratio: 0.0,
            leaked: survey.leaked,
        }
    }
}

impl fmt::Debug for BufferPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = self.report();
        write!(
            f,
            "BufferPool({} of {} used)",
            Bytes(report.used_bytes),
            Bytes(report.capacity_bytes)
        )
    }
}
