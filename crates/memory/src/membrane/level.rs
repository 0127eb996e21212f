//! The membranes of one level: the mechanism behind the decisions. Everything here runs under the
//! level's lock.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::account::Lifetime;
use crate::membrane::choice::{Candidate, Experience, importance};
use crate::membrane::plan::LevelPlan;
use crate::membrane::report::LevelReport;
use crate::movable::MovablePlace;
use crate::span::{HeapMemory, LiveCounts, SPAN_ALIGN, Span, SpanHeap};

/// One level's membranes and what was counted of it.
#[derive(Default)]
pub(super) struct Level {
    membranes: Vec<Membrane>,
    pub(super) counts: Counts,
}

/// Blocks of a level since the start.
#[derive(Copy, Clone, Default)]
pub(super) struct Counts {
    /// Blocks of this level that lie in it.
    pub(super) exact: u64,
    /// Blocks of this level that went to another.
    pub(super) spilled: u64,
    /// Blocks of other levels that came here.
    pub(super) received: u64,
    /// Blocks of this level that had no room anywhere.
    pub(super) failed: u64,
}

struct Membrane {
    number: u64,
    heap: Arc<SpanHeap>,
    /// The lifetime that it was opened for.
    kind: Lifetime,
    /// What is alive of each lifetime, in the order of [`Lifetime::ALL`].
    live: [Arc<LiveCounts>; 4],
    /// Takes of the whole hierarchy when it was opened, and when it was last taken from.
    opened: u64,
    touched: u64,
    /// Blocks it has handed out.
    uses: u64,
    /// It is being emptied: nothing is taken from it.
    closed: bool,
}

impl Membrane {
    fn take(&mut self, len: usize, lifetime: Lifetime, now: u64) -> Option<Span> {
        // A full one is passed over without its lock.
        let free = self.heap.len() as u64 - self.heap.used();
        if self.closed || free < len as u64 {
            return None;
        }
        let mut span = self.heap.take(len).ok()?;
        span.count_by(&self.live[lifetime as usize]);
        self.uses += 1;
        self.touched = now;
        Some(span)
    }

    fn used_by_lifetime(&self) -> [u64; 4] {
        let bytes = |live: &Arc<LiveCounts>| live.bytes.load(Ordering::Relaxed);
        [0, 1, 2, 3].map(|at: usize| bytes(&self.live[at]))
    }

    fn importance(&self, now: u64) -> f64 {
        importance(&Experience {
            idle_takes: now.saturating_sub(self.touched),
            uses: self.uses,
            age_takes: now.saturating_sub(self.opened),
            used_bytes: self.used_by_lifetime(),
        })
    }
}

impl Level {
    /// Membranes there are.
    pub(super) fn len(&self) -> usize {
        self.membranes.len()
    }

    /// Opens a membrane in a span. What its books cannot count is never planned; it would be dropped.
    pub(super) fn add(&mut self, span: Span, kind: Lifetime, number: u64, now: u64) {
        if let Ok(heap) = SpanHeap::new(HeapMemory::Span(span)) {
            self.membranes.push(Membrane {
                number,
                heap,
                kind,
                live: Default::default(),
                opened: now,
                touched: now,
                uses: 0,
                closed: false,
            });
        }
    }

    /// Takes a block from the first membrane with room whose kind will do.
    pub(super) fn take(
        &mut self,
        len: usize,
        lifetime: Lifetime,
        now: u64,
        will_do: impl Fn(Lifetime) -> bool,
    ) -> Option<Span> {
        self.membranes
            .iter_mut()
            .filter(|membrane| will_do(membrane.kind))
            .find_map(|membrane| membrane.take(len, lifetime, now))
    }

    /// Takes a block from the densest membrane with room: for what is moved together. It is no use of
    /// it: nobody asked for the block.
    pub(super) fn take_densest(&mut self, len: usize, lifetime: Lifetime) -> Option<Span> {
        let mut order: Vec<usize> = (0..self.membranes.len()).collect();
        order.sort_by_key(|at| std::cmp::Reverse(self.membranes[*at].heap.used()));
        order.into_iter().find_map(|at| {
            let membrane = &mut self.membranes[at];
            let (uses, touched) = (membrane.uses, membrane.touched);
            let span = membrane.take(len, lifetime, touched);
            membrane.uses = uses;
            span
        })
    }

    /// Gives up the empty membranes; how many, and their bytes.
    pub(super) fn give_up_empty(&mut self) -> (u64, u64) {
        let (mut membranes, mut bytes) = (0, 0);
        self.membranes.retain(|membrane| {
            let empty = membrane.heap.used() == 0;
            if empty {
                membranes += 1;
                bytes += membrane.heap.len() as u64;
            }
            !empty
        });
        (membranes, bytes)
    }

    /// Lists the membranes in which all or nothing might be moved.
    pub(super) fn candidates(
        &self,
        at: usize,
        movables: &[(Arc<MovablePlace>, Lifetime)],
        now: u64,
        candidates: &mut Vec<Candidate>,
    ) {
        candidates.extend(self.membranes.iter().map(|membrane| {
            let here = |place: &MovablePlace| place.len_in(&membrane.heap);
            let rounded = |len: usize| len.max(1).next_multiple_of(SPAN_ALIGN) as u64;
            Candidate {
                place: (at, membrane.number),
                span_bytes: membrane.heap.len() as u64,
                used_bytes: membrane.heap.used(),
                movable_bytes: movables
                    .iter()
                    .filter_map(|(place, _)| here(place).map(rounded))
                    .sum(),
                importance: membrane.importance(now),
            }
        }));
    }

    /// Takes nothing more from a membrane; its heap, if it is still there.
    pub(super) fn close(&mut self, number: u64) -> Option<Arc<SpanHeap>> {
        let membrane = self.membrane(number)?;
        membrane.closed = true;
        Some(Arc::clone(&membrane.heap))
    }

    /// Gives up a membrane that was closed, if it is empty, and says how many bytes it spanned; else it
    /// is used again.
    pub(super) fn give_up_or_reopen(&mut self, number: u64) -> Option<u64> {
        let membrane = self.membrane(number)?;
        if membrane.heap.used() > 0 {
            membrane.closed = false;
            return None;
        }
        let bytes = membrane.heap.len() as u64;
        self.membranes.retain(|membrane| membrane.number != number);
        Some(bytes)
    }

    fn membrane(&mut self, number: u64) -> Option<&mut Membrane> {
        self.membranes
            .iter_mut()
            .find(|membrane| membrane.number == number)
    }

    /// The figures.
    pub(super) fn report(&self, number: usize, plan: &LevelPlan, now: u64) -> LevelReport {
        let mut used_by_lifetime = [0; 4];
        let (mut taken, mut used) = (0, 0);
        let mut least: Option<f64> = None;
        for membrane in &self.membranes {
            taken += membrane.heap.len() as u64;
            used += membrane.heap.used();
            for (sum, bytes) in used_by_lifetime.iter_mut().zip(membrane.used_by_lifetime()) {
                *sum += bytes;
            }
            let importance = membrane.importance(now);
            least = Some(least.map_or(importance, |least| least.min(importance)));
        }
        let Counts {
            exact,
            spilled,
            received,
            failed,
        } = self.counts;
        LevelReport {
            level: number,
            weight: plan.weight,
            membranes: self.membranes.len(),
            membranes_max: plan.membranes,
            membrane_bytes: plan.membrane_bytes,
            span_bytes: plan.span_bytes(),
            taken_bytes: taken,
            used_bytes: used,
            used_by_lifetime,
            exact_total: exact,
            spilled_total: spilled,
            received_total: received,
            failed_total: failed,
            least_importance: least,
        }
    }
}
