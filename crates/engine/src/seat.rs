//! A model's place on the engine's thread: takes what has arrived for it, runs its steps, publishes
//! its figures.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::EngineError;
use crate::arena::ArenaClaim;
use crate::handle::{Face, Published};
use crate::host::Ended;
use crate::inbox::lock;
use crate::turns::Class;
use crate::work::Work;

/// A model on the engine's thread.
pub(crate) struct Seat {
    /// `None` while it is lent.
    work: Option<Box<dyn Work>>,
    class: Class,
    /// Whether there is memory to put in order.
    untidy: bool,
    ends: Ends,
    measured: Measured,
    claim: ArenaClaim,
    /// Last, so that it speaks when all sequences have been dropped.
    face: Farewell,
}

/// Closes the inbox however the model ends, so that no client waits for nobody.
struct Farewell(Arc<Face>);

impl Drop for Farewell {
    fn drop(&mut self) {
        self.0.inbox.stop();
        self.0.inbox.settle(0, 0);
        self.0.lookers.close();
        let mut published = lock(&self.0.published);
        published.alive = false;
        published.running = 0;
        published.waiting = 0;
    }
}

impl Seat {
    pub(crate) fn new(work: Box<dyn Work>, claim: ArenaClaim, face: Arc<Face>) -> Self {
        Self {
            class: work.class(),
            work: Some(work),
            untidy: false,
            ends: Ends::default(),
            measured: Measured::default(),
            claim,
            face: Farewell(face),
        }
    }

    pub(crate) fn face(&self) -> &Arc<Face> {
        &self.face.0
    }

    pub(crate) fn class(&self) -> Class {
        self.class
    }

    /// What it needs of the engine's arena.
    pub(crate) fn claim(&self) -> &ArenaClaim {
        &self.claim
    }

    /// Whether requests are inside; not those that have just arrived.
    pub(crate) fn is_busy(&self) -> bool {
        let busy = |work: &dyn Work| work.running() + work.waiting() > 0;
        self.work.as_deref().is_some_and(busy)
    }

    /// Puts another claim in its place, and gives the one before.
    pub(crate) fn reclaim(&mut self, claim: ArenaClaim) -> ArenaClaim {
        std::mem::replace(&mut self.claim, claim)
    }

    /// Whether there is something to do.
    pub(crate) fn runnable(&self) -> bool {
        let busy = |work: &dyn Work| self.untidy || work.running() + work.waiting() > 0;
        self.work.as_deref().is_some_and(busy)
    }

    /// Takes what has arrived, frees what cancelled requests held, and shows those who look what there is.
    /// Nothing of it while it is lent.
    pub(crate) fn receive(&mut self) {
        let Some(work) = &mut self.work else { return };
        let arrivals = self.face.0.inbox.take();
        if work.running() + work.waiting() == 0 && !arrivals.is_empty() {
            // Time spent asleep is not the length of a queue.
            self.ends.at = None;
        }
        for task in arrivals {
            work.accept(task);
        }
        let before = work.running() + work.waiting();
        work.sweep();
        let left = before - (work.running() + work.waiting());
        if left > 0 {
            self.untidy = true;
            self.ends.observe(left);
            // Who waits for the memory of the cancelled need not wait for a step.
            self.publish();
        }
        if let Some(work) = &self.work {
            self.face.0.lookers.answer(|sight| work.look(sight));
        }
    }

    /// One step, and what is to be put in order after it.
    pub(crate) fn step(&mut self, arena: &mut [u8]) {
        let Some(work) = &mut self.work else { return };
        let start = Instant::now();
        let before = work.running() + work.waiting();
        work.step(arena);
        self.untidy = work.tidy();
        let after = work.running() + work.waiting();
        self.ends.observe(before - after);
        self.measured.refresh(after == 0, || work.measure());
        lock(&self.face.0.published).step = start.elapsed();
        self.publish();
    }

    /// Takes the work away; clients wait until it comes back, or fail when the seat is dropped.
    pub(crate) fn lend(&mut self) -> Option<Box<dyn Work>> {
        self.work.take()
    }

    /// Whether its work is elsewhere.
    pub(crate) fn is_lent(&self) -> bool {
        self.work.is_none()
    }

    /// The work comes back.
    pub(crate) fn give_back(&mut self, work: Box<dyn Work>) {
        self.work = Some(work);
        self.untidy = true;
        self.publish();
    }

    /// Lets nothing more in, fails what is left, keeps what is to be kept, unloads the model.
    pub(crate) fn end(self) -> Result<Ended, EngineError> {
        self.face.0.inbox.stop();
        // Work that is lent ends where it is.
        self.work
            .map_or(Err(EngineError::Stopped), |work| work.end())
    }

    /// Shows what there is now.
    fn publish(&self) {
        let Some(work) = &self.work else { return };
        let face = &self.face.0;
        let (running, waiting) = (work.running(), work.waiting());
        {
            let mut published = lock(&face.published);
            *published = Published {
                running,
                waiting,
                kv: work.kv(),
                stored_tokens: work.stored_tokens(),
                totals: work.totals(),
                chunk_tokens: work.chunk_tokens(),
                waits_for: work.waits_for(),
                step: published.step,
                progress: Instant::now(),
                alive: true,
                between_ends: self.ends.mean,
            };
        }
        // Last: who waits for nobody to be inside finds the end of all.
        face.inbox.settle(waiting, running);
    }
}

/// When resident bytes were last counted, and how long that took.
#[derive(Default)]
pub(crate) struct Measured {
    last: Option<(Instant, Duration)>,
}

/// While there is work, as often, and never more than a hundredth of the time.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);
const MEASURE_PART: u32 = 100;

impl Measured {
    /// Counts again if it is time; before a pause, at any time that is not dominated by it, because
    /// what is told then is told for long.
    pub(crate) fn refresh(&mut self, pause: bool, measure: impl FnOnce()) {
        if let Some((at, took)) = self.last {
            let wait = match pause {
                true => took * (MEASURE_PART / 10),
                false => (took * MEASURE_PART).max(MEASURE_INTERVAL),
            };
            if at.elapsed() < wait {
                return;
            }
        }
        let begun = Instant::now();
        measure();
        self.last = Some((Instant::now(), begun.elapsed()));
    }
}

/// How long it takes from the end of one request to that of the next.
#[derive(Default)]
struct Ends {
    at: Option<Instant>,
    mean: Duration,
}

impl Ends {
    fn observe(&mut self, ended: usize) {
        let Ok(ended @ 1..) = u32::try_from(ended) else {
            self.at.get_or_insert_with(Instant::now);
            return;
        };
        let now = Instant::now();
        if let Some(at) = self.at {
            let each = (now - at) / ended;
            self.mean = match self.mean {
                Duration::ZERO => each,
                mean => (mean * 7 + each) / 8,
            };
        }
        self.at = Some(now);
    }
}
