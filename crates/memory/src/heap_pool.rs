//! Several heaps as one: what buffers, membranes and movable spans are cut out of.
//!
//! ```text
//! take(len):  a warmed-up span that fits
//!             else a span of the heap that the strategy chooses; of the next one, where that is too
//!                 fragmented
//!             else a span of a new heap, as long as there may be more
//!             else a mapping of its own: counted, and warned of
//! ```
//!
//! Heaps are opened whole and charged whole: what is taken within them asks nobody. Those of the start
//! stay; those that were added go when they are empty and memory is wanted, or compaction has emptied
//! them. No address space is reserved beyond what is charged.

pub mod choose;
mod options;
mod report;

use std::fmt;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, Weak};
use std::time::{Duration, Instant};

use crate::account::{Account, Lifetime};
use crate::bytes::Bytes;
use crate::heap::HeapFull;
use crate::movable::{MovablePlace, MovableSpan};
use crate::node::lock;
use crate::region::page_len;
use crate::source::{Device, HeapSource, HostSource, PoolError, SpanSource};
use crate::span::{HeapMemory, LiveCount, LiveCounts, SPAN_ALIGN, Span, SpanHeap};

pub use choose::{Fill, HEAPS_MAX, Strategy};
pub use options::{CompactionOptions, HeapPoolOptions};
pub use report::{Compaction, HeapsExhausted, PoolReport};

/// Least time between two warnings that heaps were full.
const WARNING_REST: Duration = Duration::from_secs(60);
/// Blocks that are taken before growing is tried again after it was refused.
const GROWTH_REST: u32 = 256;

/// Heaps as one. Cheap to clone: all clones are the same pool, which ends with the last of them; its
/// memory with the last span.
#[derive(Clone)]
pub struct HeapPool {
    inner: Arc<Inner>,
}

struct Inner {
    options: HeapPoolOptions,
    /// Bytes of a heap, as a length of memory.
    heap_len: usize,
    source: Box<dyn HeapSource>,
    /// Blocks outside heaps that are alive.
    fallbacks: Arc<LiveCounts>,
    state: Mutex<State>,
}

struct State {
    heaps: Vec<Arc<SpanHeap>>,
    /// Spans that nobody has wanted yet.
    warm: Vec<Span>,
    /// Blocks taken, for those who take turns.
    turn: u64,
    /// Blocks to take before growing is tried again.
    growth_rest: u32,
    counts: Counts,
    movable: Vec<Weak<MovablePlace>>,
    compacted: Option<Instant>,
    exhausted: Exhaustion,
}

/// What is counted. Who is alive is read off the books of the heaps, so that starting again from zero
/// here loses nothing.
#[derive(Copy, Clone, Debug, Default)]
struct Counts {
    /// Since the start.
    acquired: u64,
    /// Since the last reset.
    allocations: u64,
    fallbacks: u64,
    bytes: u64,
    largest: u64,
}

/// Blocks for which heaps had no room, since the last warning.
#[derive(Debug, Default)]
struct Exhaustion {
    blocks: u64,
    longest: u64,
    warned: Option<Instant>,
}

impl HeapPool {
    /// Opens the heaps of the start in this machine's memory, charged to `account`.
    ///
    /// # Errors
    /// As [`HeapPool::with_source`].
    pub fn start(options: HeapPoolOptions, account: &Account) -> Result<HeapPool, PoolError> {
        HeapPool::with_source(options, Box::new(HostSource::new(account)))
    }

    /// Opens the heaps of the start in the memory of a source.
    ///
    /// # Errors
    /// Where a setting is out of range, the warm-up sizes do not fit, or the source refuses: nothing is
    /// held then.
    pub fn with_source(
        options: HeapPoolOptions,
        source: Box<dyn HeapSource>,
    ) -> Result<HeapPool, PoolError> {
        options.check()?;
        let heap_len = options
            .heap_size
            .checked_round_up(page_len() as u64)
            .and_then(Bytes::to_usize)
            .ok_or_else(|| PoolError::Setting {
                key: "pool.heap_size",
                value: options.heap_size.to_string(),
                must: "within the address space".into(),
            })?;
        let mut state = State {
            heaps: Vec::with_capacity(options.max_heaps),
            warm: Vec::with_capacity(options.warmup_sizes.len()),
            turn: 0,
            growth_rest: 0,
            counts: Counts::default(),
            movable: Vec::new(),
            compacted: None,
            exhausted: Exhaustion::default(),
        };
        for _ in 0..options.heaps {
            state.heaps.push(open(&*source, heap_len)?);
        }
        let pool = Inner {
            options,
            heap_len,
            source,
            fallbacks: Arc::default(),
            state: Mutex::new(state),
        };
        pool.warm_up()?;
        Ok(HeapPool {
            inner: Arc::new(pool),
        })
    }

    /// What it was made from.
    pub fn options(&self) -> &HeapPoolOptions {
        &self.inner.options
    }

    /// Whose memory it is.
    pub fn device(&self) -> Device {
        self.inner.source.device()
    }

    /// Takes `len` bytes: from a heap, or, where none has room and none can be added, as a mapping of
    /// its own.
    ///
    /// # Errors
    /// Where that mapping is refused.
    pub fn take(&self, len: usize) -> Result<Span, PoolError> {
        self.inner.take(len, &mut lock(&self.inner.state))
    }

    /// Takes `len` bytes that compaction may move.
    ///
    /// # Errors
    /// As [`HeapPool::take`].
    pub fn take_movable(&self, len: usize) -> Result<MovableSpan, PoolError> {
        let mut state = lock(&self.inner.state);
        let movable = MovableSpan::new(self.inner.take(len, &mut state)?);
        state.enlist(&movable);
        Ok(movable)
    }

    /// Bytes in use and in all, blocks outside heaps not counted.
    pub fn fill(&self) -> Fill {
        lock(&self.inner.state).fill()
    }

    /// Gives up the heaps beyond those of the start that are empty, and the free pages of the others.
    /// Says how many bytes went back to the operating system, measured; the charge falls by the heaps
    /// given up.
    pub fn trim(&self) -> Bytes {
        let mut state = lock(&self.inner.state);
        let (_, mut returned) = self.inner.shrink(&mut state);
        for heap in &state.heaps {
            // What the kernel refuses to take stays where it is; there is no better answer to it.
            returned = returned.saturating_add(heap.trim().unwrap_or(Bytes::ZERO));
        }
        returned
    }

    /// Empties sparse heaps, if that is due at `now` by the options. `None` where it was not.
    pub fn compact_if_due(&self, now: Instant) -> Option<Compaction> {
        let CompactionOptions {
            enabled, interval, ..
        } = self.inner.options.compaction;
        let mut state = lock(&self.inner.state);
        let due = state
            .compacted
            .is_none_or(|last| now.saturating_duration_since(last) >= interval);
        if !enabled || !due {
            return None;
        }
        state.compacted = Some(now);
        Some(self.inner.compact(&mut state))
    }

    /// Moves what may be moved out of sparse heaps into the others, and gives up heaps that are empty
    /// then.
    pub fn compact(&self) -> Compaction {
        self.inner.compact(&mut lock(&self.inner.state))
    }

    /// Whether heaps have been full since the last time that this was said, at most once a minute and
    /// only where the options want it.
    pub fn warning(&self, now: Instant) -> Option<HeapsExhausted> {
        let Inner { options, .. } = &*self.inner;
        let mut state = lock(&self.inner.state);
        let rested = state
            .exhausted
            .warned
            .is_none_or(|last| now.saturating_duration_since(last) >= WARNING_REST);
        if !options.log_exhaustion || state.exhausted.blocks == 0 || !rested {
            return None;
        }
        let Exhaustion {
            blocks, longest, ..
        } = std::mem::replace(
            &mut state.exhausted,
            Exhaustion {
                warned: Some(now),
                ..Exhaustion::default()
            },
        );
        Some(HeapsExhausted {
            blocks,
            longest: Bytes(longest),
            heaps: state.heaps.len(),
            max_heaps: options.max_heaps,
            heap_size: Bytes::from(self.inner.heap_len),
        })
    }

    /// Starts the totals, the largest and the average again. What is alive is not touched.
    pub fn reset_statistics(&self) {
        let counts = &mut lock(&self.inner.state).counts;
        *counts = Counts {
            acquired: counts.acquired,
            ..Counts::default()
        };
    }

    /// The figures.
    pub fn report(&self) -> PoolReport {
        let state = lock(&self.inner.state);
        let fallbacks = &self.inner.fallbacks;
        let outside = fallbacks.bytes.load(Ordering::Relaxed);
        let stats: Vec<_> = state.heaps.iter().map(|heap| heap.stats()).collect();
        let sum = |part: fn(&crate::heap::HeapStats) -> u64| stats.iter().map(part).sum::<u64>();
        let blocks: u64 = sum(|heap| heap.blocks as u64);
        let free = sum(|heap| heap.free);
        let whole = sum(|heap| heap.largest_free);
        let capacity = sum(|heap| heap.len) + outside;
        let used = sum(|heap| heap.used) + outside;
        let active = (blocks + fallbacks.live.load(Ordering::Relaxed))
            .saturating_sub(state.warm.len() as u64);
        let Counts {
            acquired,
            allocations,
            fallbacks,
            bytes,
            largest,
        } = state.counts;
        let ratio = |part: u64, whole: u64| (whole > 0).then(|| part as f64 / whole as f64);
        PoolReport {
            name: "heaps",
            device: self.inner.source.device(),
            capacity_bytes: capacity,
            used_bytes: used,
            hit_ratio: ratio(allocations - fallbacks, allocations),
            utilisation_ratio: ratio(used, capacity).unwrap_or(0.0),
            heaps_total: stats.len(),
            heaps_active: stats.iter().filter(|heap| heap.used > 0).count(),
            allocations_total: allocations,
            fallback_total: fallbacks,
            acquired_total: acquired,
            released_total: acquired.saturating_sub(active),
            active,
            largest_bytes: largest,
            average_bytes: bytes.checked_div(allocations).unwrap_or(0),
            largest_free_bytes: stats
                .iter()
                .map(|heap| heap.largest_free)
                .max()
                .unwrap_or(0),
            fragmentation_ratio: ratio(free - whole, free).unwrap_or(0.0),
            leaked: 0,
        }
    }
}

impl SpanSource for HeapPool {
    fn device(&self) -> Device {
        HeapPool::device(self)
    }

    fn take_span(&self, len: usize, _lifetime: Lifetime) -> Result<Span, PoolError> {
        self.take(len)
    }

    fn utilisation_ratio(&self) -> Option<f64> {
        let Fill { used, len } = self.fill();
        Some(used as f64 / len.max(1) as f64)
    }

    fn trim_spans(&self) -> Bytes {
        self.trim()
    }
}

impl fmt::Debug for HeapPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Fill { used, len } = self.fill();
        write!(f, "HeapPool({} of {} used)", Bytes(used), Bytes(len))
    }
}

fn open(source: &dyn HeapSource, len: usize) -> Result<Arc<SpanHeap>, PoolError> {
    let memory: HeapMemory = source.open(len)?;
    SpanHeap::new(memory).map_err(|source| PoolError::Heap {
        len: Bytes::from(len),
        source,
    })
}

impl Inner {
    /// Cuts the spans of the warm-up sizes, longest first, and touches their pages.
    fn warm_up(&self) -> Result<(), PoolError> {
        let mut sizes = self.options.warmup_sizes.clone();
        sizes.sort_unstable();
        let state = &mut *lock(&self.state);
        for size in sizes.iter().rev() {
            let len = size.to_usize().unwrap_or(usize::MAX);
            let Ok(mut span) = state.cut(self.options.strategy, len, 0) else {
                return Err(PoolError::WarmUpTooMuch {
                    asked: sizes.iter().copied().sum(),
                    heaps: self.options.heaps,
                    heap: self.options.heap_size,
                });
            };
            span.fill(0);
            state.warm.push(span);
        }
        Ok(())
    }

    fn take(&self, len: usize, state: &mut State) -> Result<Span, PoolError> {
        let span = match state.warmed(len) {
            Some(span) => span,
            None => match state.cut(self.options.strategy, len, 0) {
                Ok(span) => {
                    self.grow_in_time(state);
                    span
                }
                Err(_) => self.take_elsewhere(len, state)?,
            },
        };
        if self.options.track_statistics {
            let counts = &mut state.counts;
            counts.acquired += 1;
            counts.allocations += 1;
            counts.bytes = counts.bytes.saturating_add(len as u64);
            counts.largest = counts.largest.max(len as u64);
        }
        Ok(span)
    }

    /// A span for which the heaps have no room.
    #[cold]
    fn take_elsewhere(&self, len: usize, state: &mut State) -> Result<Span, PoolError> {
        // A pool that may not grow, or cannot, has its fallback; so whatever is wrong shows there.
        if len <= self.heap_len && self.grow(state).is_ok_and(|grown| grown) {
            let others = !(1 << (state.heaps.len() - 1));
            if let Ok(span) = state.cut(self.options.strategy, len, others) {
                return Ok(span);
            }
        }
        let mapping = self.source.open_single(len)?;
        let counted = LiveCount::new(&self.fallbacks, mapping.charged().0);
        if self.options.track_statistics {
            state.counts.fallbacks += 1;
        }
        state.exhausted.blocks += 1;
        state.exhausted.longest = state.exhausted.longest.max(len as u64);
        Ok(Span::counted(mapping, len, Some(counted)))
    }

    /// Opens another heap before the last byte is taken.
    fn grow_in_time(&self, state: &mut State) {
        let Fill { used, len } = state.fill();
        if state.heaps.len() >= self.options.max_heaps
            || !choose::should_grow(used, len, self.options.growth_trigger)
        {
            return;
        }
        if state.growth_rest > 0 {
            state.growth_rest -= 1;
            return;
        }
        // Refused now, it is tried again later; until then there is room.
        if self.grow(state).is_err() {
            state.growth_rest = GROWTH_REST;
        }
    }

    /// Opens another heap, if there may be one.
    fn grow(&self, state: &mut State) -> Result<bool, PoolError> {
        if state.heaps.len() >= self.options.max_heaps {
            return Ok(false);
        }
        state.heaps.push(open(&*self.source, self.heap_len)?);
        Ok(true)
    }

    /// Gives up the empty heaps beyond those of the start; how many, and the bytes that went back.
    fn shrink(&self, state: &mut State) -> (usize, Bytes) {
        let before = state.heaps.len();
        let mut returned = Bytes::ZERO;
        let mut at = before;
        while state.heaps.len() > self.options.heaps && at > 0 {
            at -= 1;
            if state.heaps[at].used() == 0 {
                let heap = state.heaps.remove(at);
                // Measured before it is unmapped.
                returned = returned.saturating_add(heap.trim().unwrap_or(Bytes::ZERO));
            }
        }
        (before - state.heaps.len(), returned)
    }

    fn compact(&self, state: &mut State) -> Compaction {
        let mut done = Compaction::default();
        state.movable.retain(|place| place.strong_count() > 0);
        let threshold = self.options.compaction.threshold;
        let sparse = choose::sparse(state.heaps.len(), |at| state.fill_of(at), threshold);
        let places: Vec<_> = state.movable.iter().filter_map(Weak::upgrade).collect();
        for at in (0..state.heaps.len()).filter(|at| sparse & (1 << at) != 0) {
            let heap = Arc::clone(&state.heaps[at]);
            for place in &places {
                let Some(len) = place.len_in(&heap) else {
                    continue;
                };
                // The others have room in all, but perhaps not in one piece.
                let Ok(span) = state.cut(self.options.strategy, len, sparse) else {
                    continue;
                };
                if place.relocate(span).is_ok() {
                    done.moved += 1;
                    done.moved_bytes = done.moved_bytes.saturating_add(Bytes::from(len));
                }
            }
        }
        let (closed, returned) = self.shrink(state);
        done.heaps_closed = closed;
        done.returned = returned;
        for heap in &state.heaps {
            done.returned = done
                .returned
                .saturating_add(heap.trim().unwrap_or(Bytes::ZERO));
        }
        done
    }
}

impl State {
    fn fill_of(&self, at: usize) -> Fill {
        Fill {
            used: self.heaps[at].used(),
            len: self.heaps[at].len() as u64,
        }
    }

    fn fill(&self) -> Fill {
        let mut whole = Fill { used: 0, len: 0 };
        for heap in &self.heaps {
            whole.used += heap.used();
            whole.len += heap.len() as u64;
        }
        whole
    }

    /// A warmed-up span for `len` bytes that is less than twice as long.
    fn warmed(&mut self, len: usize) -> Option<Span> {
        let fits = |span: &Span| span.len() >= len && span.len() / 2 < len;
        let at = self.warm.iter().rposition(fits)?;
        let mut span = self.warm.remove(at);
        span.truncate(len);
        Some(span)
    }

    /// A span out of a heap, none of those in `passed_over`.
    fn cut(&mut self, strategy: Strategy, len: usize, passed_over: u64) -> Result<Span, HeapFull> {
        let rounded = (len.max(1) as u64).saturating_add(SPAN_ALIGN as u64 - 1);
        let rounded = rounded / SPAN_ALIGN as u64 * SPAN_ALIGN as u64;
        let mut passed_over = passed_over;
        let mut full = HeapFull {
            asked: len as u64,
            align: SPAN_ALIGN as u64,
            free: 0,
            largest_free: 0,
        };
        while let Some(at) = choose::choose(
            strategy,
            self.turn,
            rounded,
            self.heaps.len(),
            |at| self.fill_of(at),
            passed_over,
        ) {
            match self.heaps[at].take(len) {
                Ok(span) => {
                    self.turn = self.turn.wrapping_add(1);
                    return Ok(span);
                }
                Err(fragmented) => full = fragmented,
            }
            passed_over |= 1 << at;
        }
        Err(full)
    }

    fn enlist(&mut self, movable: &MovableSpan) {
        if self.movable.len() == self.movable.capacity() {
            self.movable.retain(|place| place.strong_count() > 0);
        }
        self.movable.push(Arc::downgrade(movable.place()));
    }
}
