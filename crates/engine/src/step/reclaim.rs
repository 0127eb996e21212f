//! Giving memory back between two steps: what each rung of the ladder means for a model that writes.
//!
//! Nothing that a rung takes changes an answer: what was forgotten is computed again, who was displaced
//! waits and goes on. The cache never holds fewer blocks than the longest sequence may need, so that
//! whoever is let in can end; and where blocks are granted up front, those are never taken away.

use std::time::Duration;

use bursar_kv::{Returned, Triggers};
use bursar_memory::{Bytes, Freed, ReclaimEvent, Rung};

use super::Generation;
use crate::batch::Decoder;
use crate::schedule::Admission;

/// So long after it was made smaller, the cache does not grow again: what it gave up was wanted by
/// somebody who may not have taken it yet.
const GROWTH_PAUSE: Duration = Duration::from_secs(5);
/// Most bytes of blocks that are moved for one rung: tens of milliseconds of copying.
const MOVES_MAX: Bytes = Bytes::mib(256);

/// What the first of those who wait needs.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum WaitsFor {
    /// The end of the step that runs.
    Step,
    /// One of the places of those that run at once.
    Place {
        /// How many there are.
        parallel: usize,
    },
    /// Blocks of keys and values.
    Blocks {
        /// Blocks that others hold.
        used: usize,
        /// Blocks that may be used at once.
        capacity: usize,
        /// Blocks that there would be if memory were not short.
        planned: usize,
    },
}

impl<D: Decoder> Generation<D> {
    /// Takes a rung for `bytes`, as far as it goes.
    pub(crate) fn reclaim(&mut self, rung: Rung, bytes: Bytes) -> Freed {
        match rung {
            Rung::TrimPools => {
                let (slabs, bytes) = self.kv.trim();
                let what = match slabs {
                    0 => String::new(),
                    _ => format!("{slabs} slabs that stored nothing given back"),
                };
                Freed { bytes, what }
            }
            Rung::DropPrefixes => words(&self.kv.return_cached(bytes), ""),
            Rung::Compact => self.move_together(bytes),
            Rung::ShrinkKv => self.shrink(bytes, String::new()),
            Rung::ShrinkPrefill => self.shorten_pieces(),
            Rung::Preempt => self.displace(bytes),
            Rung::EvictModel | Rung::Queue | Rung::Refuse => Freed::default(),
        }
    }

    /// What the first of the waiting needs; `None` where nobody waits.
    pub(crate) fn waits_for(&self) -> Option<WaitsFor> {
        let first = self.waiting.first()?.candidate();
        if self.running.len() >= self.rules.parallel {
            let parallel = self.rules.parallel;
            return Some(WaitsFor::Place { parallel });
        }
        let needed = (first.cached + first.pending).div_ceil(self.block_tokens);
        let headroom = self.running.len();
        if self.running.is_empty() || needed + headroom <= self.kv.available() {
            return Some(WaitsFor::Step);
        }
        let report = self.kv.report();
        Some(WaitsFor::Blocks {
            used: report.blocks_used,
            capacity: report.blocks_capacity,
            planned: report.blocks_total,
        })
    }

    /// Writes down whose blocks the decision took, and who has begun to wait for some.
    pub(super) fn note(&mut self, now: Duration) {
        let preempted = self.lists.decision.preempt.len();
        let queued = match self.waits_for() {
            Some(WaitsFor::Blocks { used, capacity, .. }) => {
                let first = self.waiting.first_mut();
                let new = first.is_some_and(|first| !std::mem::replace(&mut first.held_up, true));
                new.then_some((used, capacity))
            }
            _ => None,
        };
        let Some((books, model)) = &self.rules.books else {
            return;
        };
        let record = |rung, reason| {
            books.record(ReclaimEvent {
                unix_ms: now.as_millis() as u64,
                rung,
                model: Some(model.clone()),
                bytes: Bytes::ZERO,
                reason,
            });
        };
        for _ in 0..preempted {
            let reason = "a sequence gave its keys and values to those before it";
            record(Rung::Preempt, reason.to_owned());
        }
        if let Some((used, capacity)) = queued {
            let reason = format!("a request waits: {used} of {capacity} blocks are in use");
            record(Rung::Queue, reason);
        }
    }

    /// Lets the cache have more of its plan again, if somebody waits for it and the budget has room.
    pub(super) fn grow_back(&mut self, now: Duration) {
        if now < self.shrunk_until {
            return;
        }
        self.pace.lengthen();
        let (planned, capacity) = (self.kv.plan().blocks(), self.kv.capacity());
        if self.waiting.is_empty() || capacity == planned {
            return;
        }
        let longest = |tokens: usize| tokens.div_ceil(self.block_tokens);
        let wanted = self.waiting.iter().map(|s| longest(s.candidate().longest));
        let wanted = capacity.saturating_add(wanted.sum());
        // Refused growth is no error: they wait as they did.
        self.kv.set_capacity(wanted.min(planned));
    }

    /// Gives back what lies beyond the capacity, within what fits between two steps; whether there may
    /// be more to do.
    pub(super) fn settle(&mut self) -> bool {
        if !self.kv.is_over() {
            return false;
        }
        let budget = self.rules.compaction.map(|options| options.bytes_per_step);
        self.settle_within(budget) != Returned::default()
    }

    fn settle_within(&mut self, budget: Option<Bytes>) -> Returned {
        let returned = self.kv.settle(&mut self.running, budget);
        self.totals.moved_bytes += returned.moved_bytes.0;
        self.totals.returned_bytes += returned.bytes.0;
        returned
    }

    /// Moves blocks together until slabs of `bytes` came free, or nothing is left to gain.
    fn move_together(&mut self, bytes: Bytes) -> Freed {
        let Some(options) = &self.rules.compaction else {
            return Freed::default();
        };
        let (mut moved, mut returned) = (Bytes::ZERO, Bytes::ZERO);
        while returned < bytes && moved < MOVES_MAX {
            let start = (self.clock)();
            let (tables, piece) = (&mut self.running, options.bytes_per_step);
            let done = self.kv.compact(tables, piece, &Triggers::ALWAYS);
            if done.is_empty() {
                break;
            }
            let end = (self.clock)();
            let time = end.saturating_sub(start);
            self.kv.compacted(end.as_millis() as u64, time);
            self.totals.compactions += 1;
            self.totals.moved_bytes += done.moved_bytes.0;
            self.totals.returned_bytes += done.bytes_returned.0;
            self.totals.compaction_us += time.as_micros() as u64;
            moved = moved.saturating_add(done.moved_bytes);
            returned = returned.saturating_add(done.bytes_returned);
        }
        let what = match (moved, returned) {
            (Bytes::ZERO, Bytes::ZERO) => String::new(),
            _ => format!("{moved} of keys and values moved together"),
        };
        Freed {
            bytes: returned,
            what,
        }
    }

    /// Promises the cache `bytes` less, and gives back what it holds beyond.
    fn shrink(&mut self, bytes: Bytes, before: String) -> Freed {
        let promised = self.kv.promised();
        let capacity = self.kv.capacity();
        let layout = *self.kv.layout();
        let slabs = bytes.0.div_ceil(layout.slab_bytes() as u64);
        let blocks = slabs.saturating_mul(u64::from(layout.blocks_per_slab()));
        let blocks = usize::try_from(blocks).unwrap_or(usize::MAX);
        let target = capacity.saturating_sub(blocks).max(self.least());
        if target < capacity {
            let left = self.kv.set_capacity(target);
            if promised.saturating_sub(self.kv.promised()) < bytes {
                // The last slab is shorter than the others: one more makes up for it.
                let less = left.saturating_sub(layout.blocks_per_slab() as usize);
                self.kv.set_capacity(less.max(self.least()));
            }
        }
        let budget = self.rules.compaction.map(|_| MOVES_MAX);
        let returned = self.settle_within(budget);
        let less = promised.saturating_sub(self.kv.promised());
        if less.is_zero() {
            return words(&returned, &before);
        }
        self.shrunk_until = (self.clock)() + GROWTH_PAUSE;
        let blocks = self.kv.capacity();
        let what = format!("{less} less promised to keys and values, {blocks} blocks left");
        let what = match before.is_empty() {
            true => what,
            false => format!("{before}, {what}"),
        };
        words(&returned, &what)
    }

    /// The fewest blocks with which all that run can go on, and the longest that may come can end.
    fn least(&self) -> usize {
        let blocks = |tokens: usize| tokens.div_ceil(self.block_tokens);
        let used = self.kv.report().blocks_used;
        let busy = match self.rules.admission {
            // A block of headroom for each, as when they were let in.
            Admission::Grow => used + self.running.len(),
            Admission::Reserve => {
                let later = self.running.iter().map(|sequence| {
                    let longest = blocks(sequence.candidate().longest);
                    longest.saturating_sub(sequence.table.blocks().len())
                });
                used + later.sum::<usize>()
            }
        };
        busy.max(blocks(self.rules.longest))
    }

    /// Displaces running sequences, most junior first, until blocks of `bytes` came free, but never the
    /// most senior; and makes the cache so much smaller, so that they wait until there is room again.
    fn displace(&mut self, bytes: Bytes) -> Freed {
        if self.rules.admission == Admission::Reserve {
            // What was granted up front is not taken away.
            return Freed::default();
        }
        let block_bytes = self.kv.layout().block_bytes() as u64;
        let wanted = usize::try_from(bytes.0.div_ceil(block_bytes)).unwrap_or(usize::MAX);
        let used = self.kv.report().blocks_used;
        let mut displaced = 0;
        while self.running.len() > 1 && used - self.kv.report().blocks_used < wanted {
            let juniors = 0..self.running.len();
            let junior = juniors.max_by(|&a, &b| {
                let seniority = |place: usize| self.running[place].seniority();
                seniority(a).order(seniority(b))
            });
            let Some(place) = junior else { break };
            self.preempt(place);
            let sequence = self.running.remove(place);
            self.wait(sequence);
            displaced += 1;
        }
        if displaced == 0 {
            return Freed::default();
        }
        self.shrink(bytes, format!("{displaced} sequences made to wait"))
    }

    /// Prompts are read in pieces half as long: a step touches fewer bytes of the activations.
    fn shorten_pieces(&mut self) -> Freed {
        let what = match self.pace.shorten() {
            Some(tokens) => format!("prompts read in pieces of {tokens} tokens at most"),
            None => String::new(),
        };
        self.shrunk_until = (self.clock)() + GROWTH_PAUSE;
        let bytes = Bytes::ZERO;
        Freed { bytes, what }
    }
}

/// What was given back, in words after those given; empty where nothing was.
fn words(returned: &Returned, before: &str) -> Freed {
    let mut what = before.to_owned();
    let mut add = |words: String| {
        if !what.is_empty() {
            what.push_str(", ");
        }
        what.push_str(&words);
    };
    if returned.dropped_blocks > 0 {
        add(format!(
            "{} cached blocks forgotten",
            returned.dropped_blocks
        ));
    }
    if !returned.moved_bytes.is_zero() {
        add(format!("{} moved together", returned.moved_bytes));
    }
    if returned.slabs > 0 {
        add(format!("{} slabs given back", returned.slabs));
    }
    Freed {
        bytes: returned.bytes,
        what,
    }
}
