//! The thread that loads and unloads: it asks the policy what to do, does it, and sleeps.
//!
//! Only this thread changes which models are there, so between a decision and its execution nothing
//! changes but leases and those who wait. The books are not locked while a model is loaded or unloaded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use bursar_memory::Bytes;

use super::cache::{Denied, ModelCache, Shared};
use super::policy::{self, Decision, Hopeless, ModelView, Presence, Reason, Room};
use super::source::{LoadError, Why, WhyKind};
use super::state::{Failure, Shedded, Stage, State};
use crate::inbox::lock;

/// Stack of the keeper's thread: reading files and packing weights takes little.
const STACK_BYTES: usize = 1 << 20;
/// A model that failed is tried again after this, doubled with each failure up to `RETRY_MAX`.
const RETRY: Duration = Duration::from_secs(1);
const RETRY_MAX: Duration = Duration::from_secs(60);
/// Most milliseconds of the estimate of a load's rest.
const LEFT_MAX_MS: u64 = 60_000;

/// How far a load has come; shared with those who look.
#[derive(Debug, Default)]
pub(super) struct Progress {
    read: AtomicU64,
    total: AtomicU64,
    /// On the cache's clock, in milliseconds.
    begun: AtomicU64,
    moved: AtomicU64,
}

impl Progress {
    fn begin(&self, now: Duration) {
        self.read.store(0, Ordering::Relaxed);
        self.total.store(0, Ordering::Relaxed);
        self.begun.store(millis(now), Ordering::Relaxed);
        self.moved.store(millis(now), Ordering::Relaxed);
    }

    fn set(&self, read: u64, total: u64, now: Duration) {
        self.read.store(read, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
        self.moved.store(millis(now), Ordering::Relaxed);
    }

    /// How much of the file has been read, 0 to 1.
    pub(super) fn ratio(&self) -> f64 {
        let total = self.total.load(Ordering::Relaxed);
        let read = self.read.load(Ordering::Relaxed);
        (read as f64 / (total as f64).max(1.0)).min(1.0)
    }

    /// How long the rest will take, if it goes on as it has; a minute at most, because what will be
    /// true then nobody knows.
    pub(super) fn left(&self, now: Duration) -> Duration {
        let begun = self.begun.load(Ordering::Relaxed);
        let passed = millis(now).saturating_sub(begun);
        rest(passed, self.ratio())
    }

    /// Time since anything was read.
    pub(super) fn still(&self, now: Duration) -> Duration {
        let moved = self.moved.load(Ordering::Relaxed);
        Duration::from_millis(millis(now).saturating_sub(moved))
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn rest(passed_ms: u64, ratio: f64) -> Duration {
    let rest = passed_ms as f64 * (1.0 - ratio) / ratio.max(1e-3);
    // A float beyond the range becomes the largest integer.
    Duration::from_millis((rest as u64).min(LEFT_MAX_MS))
}

/// The thread that keeps a cache.
pub struct Keeper<M: Send + Sync + 'static> {
    cache: ModelCache<M>,
    thread: JoinHandle<()>,
}

impl<M: Send + Sync + 'static> Keeper<M> {
    /// Starts it.
    ///
    /// # Errors
    /// When the system refuses the thread.
    pub fn start(cache: &ModelCache<M>) -> std::io::Result<Keeper<M>> {
        let shared = Arc::clone(&cache.0);
        let thread = std::thread::Builder::new()
            .name("load".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || Work { shared: &shared }.run())?;
        Ok(Keeper {
            cache: cache.clone(),
            thread,
        })
    }

    /// Ends it: nobody gets a lease any more, and every model that nobody uses is unloaded. True when
    /// that was done; a load that is under way is not waited for, and left to the end of the process.
    pub fn end(self) -> bool {
        let shared = &self.cache.0;
        let loading = {
            let mut state = lock(&shared.state);
            state.stopping = true;
            for place in &mut state.places {
                place.deny(&Denied::Stopping);
            }
            state.changed();
            shared.bell.notify_all();
            state.loading
        };
        // A panic of the thread has been reported where it happened.
        !loading && self.thread.join().is_ok()
    }
}

type Locked<'a, M> = MutexGuard<'a, State<M>>;

struct Work<'a, M: Send + Sync + 'static> {
    shared: &'a Shared<M>,
}

/// Nobody waits for a thread that is gone.
impl<M: Send + Sync + 'static> Drop for Work<'_, M> {
    fn drop(&mut self) {
        let mut state = lock(&self.shared.state);
        state.stopping = true;
        state.shed = None;
        for place in &mut state.places {
            place.deny(&Denied::Stopping);
        }
        state.changed();
    }
}

impl<'a, M: Send + Sync + 'static> Work<'a, M> {
    fn run(&self) {
        let shared = self.shared;
        let mut state = lock(&shared.state);
        while !state.stopping {
            if state.shed.is_some() {
                state = self.shed(state);
                continue;
            }
            let views = self.views(&state);
            let room = Room {
                free: shared.ledger.free(),
                at_best: shared.options.room,
            };
            state = match policy::decide(&views, room, &shared.rules()) {
                Decision::Load(place) => self.load(state, place, &views),
                Decision::Unload(place, reason) => {
                    let (kind, words) = self.words(&state, reason);
                    self.unload(state, place, kind, words)
                }
                Decision::Reclaim(place, bytes) => {
                    let words = for_whom(&state.places[place].id);
                    // Once, until something else has changed.
                    state.spared = true;
                    drop(state);
                    shared.source.reclaim(bytes, &words);
                    lock(&shared.state)
                }
                Decision::Close(place) => {
                    let entry = &mut state.places[place];
                    if let Stage::Open(model) = std::mem::replace(&mut entry.stage, Stage::Absent) {
                        entry.stage = Stage::Closing(model);
                    }
                    state.changed();
                    state
                }
                Decision::Open(place) => {
                    let entry = &mut state.places[place];
                    let stage = std::mem::replace(&mut entry.stage, Stage::Absent);
                    entry.stage = match stage {
                        Stage::Closing(model) => Stage::Open(model),
                        other => other,
                    };
                    entry.grant();
                    state.changed();
                    state
                }
                Decision::Refuse(place, hopeless) => {
                    let denied = match hopeless {
                        Hopeless::TooLarge { need, most } => Denied::TooLarge { need, most },
                        Hopeless::Blocked { need, most } => Denied::Blocked { need, most },
                    };
                    state.places[place].deny(&denied);
                    state
                }
                Decision::Wait(time) => self.wait(state, time),
            };
        }
        for place in 0..state.places.len() {
            if state.places[place].model().is_some() && state.places[place].leases == 0 {
                state = self.unload(state, place, WhyKind::End, "the server ends".to_owned());
            }
        }
    }

    fn views(&self, state: &State<M>) -> Vec<ModelView> {
        let now = (self.shared.clock)();
        let places = state.places.iter();
        places
            .map(|place| place.view(&*self.shared.source, now, state.spared))
            .collect()
    }

    fn wait(&self, state: Locked<'a, M>, time: Option<Duration>) -> Locked<'a, M> {
        let bell = &self.shared.bell;
        match time {
            // A moment more, so that the time has come when it is looked at.
            Some(time) => {
                let waited = bell.wait_timeout(state, time + Duration::from_millis(1));
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => bell.wait(state).unwrap_or_else(PoisonError::into_inner),
        }
    }

    fn words(&self, state: &State<M>, reason: Reason) -> (WhyKind, String) {
        match reason {
            Reason::Room(place) => {
                let words = for_whom(&state.places[place].id);
                (WhyKind::Room, words)
            }
            Reason::Idle => (WhyKind::Idle, "nobody used it".to_owned()),
            Reason::Asked => (WhyKind::Asked, "it was asked for".to_owned()),
        }
    }

    fn load(&self, mut state: Locked<'a, M>, place: usize, views: &[ModelView]) -> Locked<'a, M> {
        let shared = self.shared;
        let begun = (shared.clock)();
        let entry = &mut state.places[place];
        entry.stage = Stage::Loading;
        entry.progress.begin(begun);
        let (id, progress) = (entry.id.clone(), Arc::clone(&entry.progress));
        state.loading = true;
        state.spared = false;
        state.changed();
        drop(state);
        let loaded = shared.source.load(&id, &mut |read, total| {
            progress.set(read, total, (shared.clock)());
        });
        let now = (shared.clock)();
        if let Err(LoadError::Failed(why)) = &loaded {
            shared.source.failed(&id, why);
        }
        let mut state = lock(&shared.state);
        state.loading = false;
        let entry = &mut state.places[place];
        entry.stage = Stage::Absent;
        match loaded {
            Ok(model) => {
                entry.footprint = Some(shared.source.held(&model).least());
                entry.stage = Stage::Open(Arc::new(model));
                entry.failure = None;
                entry.loaded_at = now;
                entry.used_at = now;
                entry.loads += 1;
                let took = now.saturating_sub(begun);
                entry.load_time = Some(took);
                entry.grant();
                state.totals.loads += 1;
                state.totals.load_time += took;
            }
            Err(LoadError::Missing) => {
                entry.listed = false;
                entry.deny(&Denied::Unknown);
            }
            Err(LoadError::NeedsMore(footprint)) => {
                entry.footprint = Some(footprint);
                let free = shared.ledger.free();
                let need = policy::growth(footprint, arena(views));
                if need <= free {
                    // Others took it meanwhile, and gave it back: who asks again may be luckier, but
                    // going round in circles here helps nobody.
                    entry.deny(&Denied::Blocked { need, most: free });
                }
            }
            Err(LoadError::Failed(why)) => {
                let times = entry.failure.as_ref().map_or(0, |failure| failure.times) + 1;
                let retry = RETRY
                    .saturating_mul(1 << times.saturating_sub(1).min(10))
                    .min(RETRY_MAX);
                entry.deny(&Denied::Failed {
                    why: why.clone(),
                    retry,
                });
                entry.failure = Some(Failure {
                    why,
                    times,
                    until: now + retry,
                });
                state.totals.failures += 1;
            }
        }
        state.changed();
        state
    }

    fn unload(
        &self,
        mut state: Locked<'a, M>,
        place: usize,
        kind: WhyKind,
        words: String,
    ) -> Locked<'a, M> {
        let shared = self.shared;
        let entry = &mut state.places[place];
        let stage = std::mem::replace(&mut entry.stage, Stage::Unloading);
        let (Stage::Open(model) | Stage::Closing(model)) = stage else {
            entry.stage = stage;
            return state;
        };
        entry.unload = false;
        let holds = shared.source.held(&model);
        let held = holds.footprint.own;
        // What it could have spared it does not need to come back.
        entry.footprint = Some(holds.least());
        let id = entry.id.clone();
        state.spared = false;
        state.changed();
        drop(state);
        let why = Why { kind, words, held };
        shared.source.unload(&id, model, &why);
        let mut state = lock(&shared.state);
        state.places[place].stage = Stage::Absent;
        let totals = &mut state.totals;
        totals.unloads[kind as usize] += 1;
        totals.unloaded_bytes = totals.unloaded_bytes.saturating_add(held.get());
        state.changed();
        state
    }

    /// One model that nobody uses goes; or none is left that may, or enough have gone.
    fn shed(&self, mut state: Locked<'a, M>) -> Locked<'a, M> {
        let views = self.views(&state);
        let Some(mut shed) = state.shed.take() else {
            return state;
        };
        let freed = shed
            .gone
            .iter()
            .fold(Bytes(0), |sum, gone| sum.saturating_add(gone.bytes));
        let next = (freed < shed.bytes)
            .then(|| policy::shed(&views, &self.shared.rules()))
            .flatten();
        let Some(place) = next else {
            // Who asked may have gone.
            let _ = shed.done.send(shed.gone);
            return state;
        };
        let before = self.shared.ledger.free();
        let id = state.places[place].id.clone();
        let mut state = self.unload(state, place, WhyKind::Pressure, shed.why.clone());
        shed.gone.push(Shedded {
            id,
            bytes: self.shared.ledger.free().saturating_sub(before),
        });
        state.shed = Some(shed);
        state
    }
}

fn for_whom(id: &str) -> String {
    format!("its place was needed for {id}")
}

/// Activations of the models that are there.
fn arena(views: &[ModelView]) -> Bytes {
    let there = views
        .iter()
        .filter(|model| model.presence != Presence::Absent);
    let arenas = there.filter_map(|model| model.footprint);
    let most = arenas.map(|footprint| footprint.arena).max();
    most.unwrap_or(Bytes(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_from_what_has_passed() {
        let left = |seconds: u64, ratio| rest(seconds * 1000, ratio).as_secs();
        assert_eq!(left(0, 0.0), 0);
        assert_eq!(left(10, 0.5), 10);
        assert_eq!(left(10, 1.0), 0);
        assert_eq!(left(1000, 0.0), 60);
    }
}
