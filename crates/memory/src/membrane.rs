//! Membranes: a hierarchy of heaps that keeps apart what lives long and what comes and goes.
//!
//! A membrane is a span of the pool below, taken when it is first needed, with a heap inside. Levels
//! share a limit by weight ([`Weights`]); a block's level follows from its size and lifetime
//! ([`choice::level_for`]).
//!
//! ```text
//! take(len, lifetime):
//!     own level    a membrane that holds this lifetime; else a new one; else any        exact
//!     its likes    the same in the levels below, then above, whose membranes are as long spilled
//!     else         nothing: the caller takes the block from the pool below            failed
//! ```
//!
//! - `rooted`: the numbers of rooted trees, by which levels are weighted.
//! - `plan`: how a limit is shared out among levels and membranes.
//! - `choice`: the level of a block, where it spills to, what goes first under pressure.
//! - `level`: the membranes of one level.
//! - `report`: the figures.

pub mod choice;
mod level;
pub mod plan;
pub mod report;
pub mod rooted;

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};

use crate::account::Lifetime;
use crate::bytes::Bytes;
use crate::heap_pool::HeapPool;
use crate::movable::{MovablePlace, MovableSpan};
use crate::node::lock;
use crate::source::{Device, PoolError, SpanSource};
use crate::span::Span;

use choice::{Candidate, evacuation_order, level_for, spill_levels};
use level::Level;

pub use plan::{LevelPlan, MembraneOptions, MembranePlanError, plan_levels};
pub use report::{LevelReport, MembranesReport};
pub use rooted::{Weights, rooted_trees};

/// The hierarchy. Cheap to clone: all clones are the same, and its memory goes back with the last of
/// them and the last span.
#[derive(Clone)]
pub struct Membranes(Arc<Inner>);

struct Inner {
    options: MembraneOptions,
    plans: Vec<LevelPlan>,
    heaps: HeapPool,
    levels: Vec<Mutex<Level>>,
    /// Blocks taken: the clock of this hierarchy.
    takes: AtomicU64,
    /// Membranes there have been: the next one's number.
    numbers: AtomicU64,
    /// Blocks that no membrane is long enough for.
    oversize: AtomicU64,
    movables: Mutex<Vec<Movable>>,
    consolidated: Mutex<Consolidation>,
}

/// A block that may be moved, as long as somebody holds it.
#[derive(Clone)]
struct Movable {
    place: Weak<MovablePlace>,
    lifetime: Lifetime,
}

/// What consolidations did.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Consolidation {
    /// Membranes whose span was given up.
    pub membranes: u64,
    /// Their spans in bytes: what the pool below got back.
    pub span_bytes: u64,
    /// Blocks that were moved.
    pub moved: u64,
    /// Their bytes, each copied once.
    pub moved_bytes: u64,
    /// Blocks that stayed: somebody looked at them, or there was no room elsewhere.
    pub stayed: u64,
    /// Bytes that the operating system got back, measured.
    pub returned_bytes: u64,
}

impl Membranes {
    /// Levels over a pool, nothing taken from it yet. A membrane is half a heap of the pool at most, so
    /// that two of them share one.
    ///
    /// # Errors
    /// Where there are too few or too many levels, or the limit has no page for any.
    pub fn new(options: MembraneOptions, heaps: &HeapPool) -> Result<Membranes, MembranePlanError> {
        let longest = Bytes(heaps.options().heap_size.0 / 2);
        let plans = plan_levels(&options, longest)?;
        let levels = plans.iter().map(|_| Mutex::default()).collect();
        Ok(Membranes(Arc::new(Inner {
            options,
            plans,
            heaps: heaps.clone(),
            levels,
            takes: AtomicU64::new(0),
            numbers: AtomicU64::new(0),
            oversize: AtomicU64::new(0),
            movables: Mutex::default(),
            consolidated: Mutex::default(),
        })))
    }

    /// What they were made from.
    pub fn options(&self) -> &MembraneOptions {
        &self.0.options
    }

    /// The levels as planned.
    pub fn plans(&self) -> &[LevelPlan] {
        &self.0.plans
    }

    /// Takes `len` bytes. `None` where no membrane is long enough, or all that are have no room and
    /// none can be added: then the pool below is asked directly.
    pub fn take(&self, len: usize, lifetime: Lifetime) -> Option<Span> {
        let Inner { plans, levels, .. } = &*self.0;
        let now = self.0.takes.fetch_add(1, Ordering::Relaxed);
        let Some(own) = level_for(plans, len as u64, lifetime) else {
            self.0.oversize.fetch_add(1, Ordering::Relaxed);
            return None;
        };
        {
            let mut level = lock(&levels[own]);
            if let Some(span) = self.take_in(own, &mut level, len, lifetime, now) {
                level.counts.exact += 1;
                return Some(span);
            }
        }
        // Levels are locked one at a time, so that those who spill never wait for each other.
        for other in spill_levels(plans, own, len as u64) {
            let mut level = lock(&levels[other]);
            if let Some(span) = self.take_in(other, &mut level, len, lifetime, now) {
                level.counts.received += 1;
                drop(level);
                lock(&levels[own]).counts.spilled += 1;
                return Some(span);
            }
        }
        lock(&levels[own]).counts.failed += 1;
        None
    }

    /// Takes `len` bytes that consolidation may move. `None` as for [`Membranes::take`].
    pub fn take_movable(&self, len: usize, lifetime: Lifetime) -> Option<MovableSpan> {
        let movable = MovableSpan::new(self.take(len, lifetime)?);
        let mut movables = lock(&self.0.movables);
        if movables.len() == movables.capacity() {
            // Those that are gone make room before the list grows, and it grows by what is left: each
            // is looked at a constant number of times.
            movables.retain(|movable| movable.place.strong_count() > 0);
            let more = movables.len().max(16);
            movables.reserve(more);
        }
        movables.push(Movable {
            place: Arc::downgrade(movable.place()),
            lifetime,
        });
        Some(movable)
    }

    /// Gives the spans of empty membranes back to the pool below, and says how many bytes that was.
    pub fn trim(&self) -> Bytes {
        let freed = self
            .0
            .levels
            .iter()
            .map(|level| lock(level).give_up_empty());
        Bytes(freed.map(|(_, bytes)| bytes).sum())
    }

    /// Empties sparse membranes (used to less than the share `sparse` of their span) into others, the
    /// least important first, and gives their spans back to the pool below and its free pages to the
    /// operating system. Stops when membranes of `wanted` bytes have been given up.
    ///
    /// What somebody looks at is not moved and nothing waits for it.
    pub fn consolidate(&self, sparse: f64, wanted: Bytes) -> Consolidation {
        let mut done = Consolidation::default();
        for level in &self.0.levels {
            let (membranes, bytes) = lock(level).give_up_empty();
            done.membranes += membranes;
            done.span_bytes += bytes;
        }
        let movables: Vec<(Arc<MovablePlace>, Lifetime)> = {
            let mut movables = lock(&self.0.movables);
            movables.retain(|movable| movable.place.strong_count() > 0);
            let held = |movable: &Movable| Some((movable.place.upgrade()?, movable.lifetime));
            movables.iter().filter_map(held).collect()
        };
        for (level, number) in evacuation_order(&self.candidates(&movables), sparse) {
            if done.span_bytes >= wanted.0 {
                break;
            }
            self.evacuate(level, number, &movables, &mut done);
        }
        if done.membranes > 0 {
            done.returned_bytes = self.0.heaps.trim().0;
        }
        lock(&self.0.consolidated).add(&done);
        done
    }

    /// The figures.
    pub fn report(&self) -> MembranesReport {
        let Inner {
            options,
            plans,
            levels,
            ..
        } = &*self.0;
        let now = self.0.takes.load(Ordering::Relaxed);
        let levels: Vec<LevelReport> = plans
            .iter()
            .zip(levels)
            .zip(1..)
            .map(|((plan, level), number)| lock(level).report(number, plan, now))
            .collect();
        MembranesReport::new(
            options,
            levels,
            self.0.oversize.load(Ordering::Relaxed),
            *lock(&self.0.consolidated),
        )
    }

    /// Takes a block in one level, adding a membrane where that keeps lifetimes apart or nothing else
    /// has room.
    fn take_in(
        &self,
        at: usize,
        level: &mut Level,
        len: usize,
        lifetime: Lifetime,
        now: u64,
    ) -> Option<Span> {
        if let Some(span) = level.take(len, lifetime, now, |kind| kind == lifetime) {
            return Some(span);
        }
        let plan = &self.0.plans[at];
        if level.len() < plan.membranes
            && let Ok(span) = self.0.heaps.take(plan.membrane_bytes as usize)
        {
            let number = self.0.numbers.fetch_add(1, Ordering::Relaxed);
            level.add(span, lifetime, number, now);
            if let Some(span) = level.take(len, lifetime, now, |kind| kind == lifetime) {
                return Some(span);
            }
        }
        level.take(len, lifetime, now, |_| true)
    }

    fn candidates(&self, movables: &[(Arc<MovablePlace>, Lifetime)]) -> Vec<Candidate> {
        let now = self.0.takes.load(Ordering::Relaxed);
        let mut candidates = Vec::new();
        for (at, level) in self.0.levels.iter().enumerate() {
            lock(level).candidates(at, movables, now, &mut candidates);
        }
        candidates
    }

    /// Moves the blocks of one membrane into others, and gives it up where it is empty then.
    fn evacuate(
        &self,
        at: usize,
        number: u64,
        movables: &[(Arc<MovablePlace>, Lifetime)],
        done: &mut Consolidation,
    ) {
        // Nothing is taken in it from here on.
        let Some(heap) = lock(&self.0.levels[at]).close(number) else {
            return;
        };
        for (place, lifetime) in movables {
            let Some(len) = place.len_in(&heap) else {
                continue;
            };
            let own = std::iter::once(at);
            let to = own
                .chain(spill_levels(&self.0.plans, at, len as u64))
                .find_map(|level| lock(&self.0.levels[level]).take_densest(len, *lifetime));
            match to.map(|span| place.relocate(span)) {
                Some(Ok(old)) => {
                    drop(old);
                    done.moved += 1;
                    done.moved_bytes += len as u64;
                }
                Some(Err(_)) | None => done.stayed += 1,
            }
        }
        drop(heap);
        if let Some(bytes) = lock(&self.0.levels[at]).give_up_or_reopen(number) {
            done.membranes += 1;
            done.span_bytes += bytes;
        }
    }
}

/// What buffers are cut out of: blocks that no membrane has room for come from the pool below.
impl SpanSource for Membranes {
    fn device(&self) -> Device {
        self.0.heaps.device()
    }

    fn take_span(&self, len: usize, lifetime: Lifetime) -> Result<Span, PoolError> {
        match self.take(len, lifetime) {
            Some(span) => Ok(span),
            None => self.0.heaps.take(len),
        }
    }

    fn utilisation_ratio(&self) -> Option<f64> {
        self.0.heaps.utilisation_ratio()
    }

    /// Memory is short: what is sparse is emptied too.
    fn trim_spans(&self) -> Bytes {
        let sparse = self.0.heaps.options().compaction.threshold;
        let returned = Bytes(self.consolidate(sparse, Bytes::MAX).returned_bytes);
        returned.saturating_add(self.0.heaps.trim())
    }
}

impl fmt::Debug for Membranes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let MembranesReport {
            taken_bytes,
            used_bytes,
            ..
        } = self.report();
        let (used, taken) = (Bytes(used_bytes), Bytes(taken_bytes));
        write!(
            f,
            "Membranes({used} used of {taken}, at most {})",
            self.0.options.limit
        )
    }
}

impl Consolidation {
    fn add(&mut self, other: &Consolidation) {
        self.membranes += other.membranes;
        self.span_bytes += other.span_bytes;
        self.moved += other.moved;
        self.moved_bytes += other.moved_bytes;
        self.stayed += other.stayed;
        self.returned_bytes += other.returned_bytes;
    }
}
