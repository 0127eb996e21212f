//! The cache of models as its users see it: ask for a model by name, get a lease when it is there.
//!
//! A lease keeps its model. Loading is done by one thread, the keeper (`keeper.rs`): however many ask
//! for a model at once, it is loaded once. Nothing here blocks for longer than it takes to look into
//! the books: who waits is a future, and giving up is dropping it.

use std::sync::{Arc, Condvar, Mutex};
use std::task::Poll;
use std::time::{Duration, Instant};

use bursar_memory::{Bytes, Ledger};

use super::lease::Acquire;
use super::policy::{Eviction, Rules};
use super::source::ModelSource;
use super::state::{Place, Shed, Shedded, Stage, State};
use super::status::{CacheTotals, ModelStatus};
use crate::inbox::lock;

/// How a cache keeps models.
#[derive(Clone, Debug)]
pub struct CacheOptions {
    /// How long a model stays at least before it goes for another.
    pub min_residency: Duration,
    /// Which models go for another.
    pub eviction: Eviction,
    /// How long a model stays that nobody uses; `None`: until its place is needed.
    pub keep_alive: Option<Duration>,
    /// Models that stay for good once they are there.
    pub pinned: Vec<String>,
    /// Models that stay, if nobody says otherwise, until their place is needed: those named at the
    /// start.
    pub kept: Vec<String>,
    /// Requests that may wait for one model; one more is refused for now.
    pub queue: usize,
    /// Bytes that are free when no model is there.
    pub room: Bytes,
}

/// Time since some moment; tests have their own.
pub(super) type Clock = Box<dyn Fn() -> Duration + Send + Sync>;

/// A cache of models. Clones are the same cache.
pub struct ModelCache<M: Send + Sync + 'static>(pub(super) Arc<Shared<M>>);

impl<M: Send + Sync + 'static> Clone for ModelCache<M> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

pub(super) struct Shared<M: Send + Sync + 'static> {
    pub(super) source: Arc<dyn ModelSource<Model = M>>,
    pub(super) ledger: Ledger,
    pub(super) options: CacheOptions,
    pub(super) clock: Clock,
    pub(super) state: Mutex<State<M>>,
    /// Rung when the keeper may have something to do.
    pub(super) bell: Condvar,
}

/// How long a model stays when nobody uses it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum KeepAlive {
    /// So long; zero: it goes at once.
    For(Duration),
    /// Until its place is needed.
    Always,
}

impl KeepAlive {
    pub(super) fn time(self) -> Option<Duration> {
        match self {
            KeepAlive::For(time) => Some(time),
            KeepAlive::Always => None,
        }
    }
}

/// Why there is no lease.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is no such model.
    #[error("there is no such model")]
    Unknown,
    /// It takes more than all models may.
    #[error("it takes {need} at least, and {most} is all that models may take")]
    TooLarge {
        /// What it takes.
        need: Bytes,
        /// What all models may.
        most: Bytes,
    },
    /// It would fit only if pinned models went, or others held less.
    #[error("it takes {need} at least, and no more than {most} could be made free for it")]
    Blocked {
        /// What it takes.
        need: Bytes,
        /// What could be made free.
        most: Bytes,
    },
    /// As many wait for it as may.
    #[error("{waiting} requests wait for it already, as many as may")]
    QueueFull {
        /// Those who wait.
        waiting: usize,
    },
    /// It could not be loaded, and is not tried again for a while.
    #[error("it could not be loaded: {why}")]
    Failed {
        /// What went wrong.
        why: String,
        /// When it is tried again if somebody asks.
        retry: Duration,
    },
    /// The server ends.
    #[error("the server is shutting down")]
    Stopping,
}

impl<M: Send + Sync + 'static> ModelCache<M> {
    /// An empty cache of the models of a source, in which nothing happens before it has a keeper:
    /// see [`super::Keeper::start`].
    pub fn new(
        source: Arc<dyn ModelSource<Model = M>>,
        ledger: &Ledger,
        options: CacheOptions,
    ) -> Self {
        let start = Instant::now();
        Self::with_clock(source, ledger, options, Box::new(move || start.elapsed()))
    }

    pub(super) fn with_clock(
        source: Arc<dyn ModelSource<Model = M>>,
        ledger: &Ledger,
        options: CacheOptions,
        clock: Clock,
    ) -> Self {
        let cache = Self(Arc::new(Shared {
            source,
            ledger: ledger.clone(),
            options,
            clock,
            state: Mutex::new(State::new()),
            bell: Condvar::new(),
        }));
        cache.refresh();
        cache
    }

    /// Looks which models there are.
    pub fn refresh(&self) {
        let shared = &*self.0;
        let ids = shared.source.list();
        let mut state = lock(&shared.state);
        for place in &mut state.places {
            place.listed = ids.contains(&place.id);
        }
        for id in ids {
            if !state.places.iter().any(|place| place.id == id) {
                state.places.push(Place::new(id, &shared.options));
            }
        }
    }

    /// Asks for a model; `keep_alive` says how long it stays after, if not as long as usual. The lease
    /// comes when it is there. Dropping what is returned gives up.
    ///
    /// # Errors
    /// When there is none, when too many wait, when it failed a short time ago. Later, when it turns
    /// out that it does not fit or cannot be loaded.
    pub fn acquire(&self, id: &str, keep_alive: Option<KeepAlive>) -> Result<Acquire<M>, Denied> {
        let found = match self.find(id) {
            Some(place) => Some(place),
            None => {
                self.refresh();
                self.find(id)
            }
        };
        let place = found.ok_or(Denied::Unknown)?;
        let shared = &self.0;
        let now = (shared.clock)();
        let mut state = lock(&shared.state);
        if state.stopping {
            return Err(Denied::Stopping);
        }
        let entry = &mut state.places[place];
        let waiting = entry.undecided().count();
        let open = matches!(entry.stage, Stage::Open(_)) && !entry.unload;
        if open && waiting == 0 {
            entry.leases += 1;
            entry.keep(keep_alive);
            state.totals.hits += 1;
            let ticket = state.ticket(place, now, keep_alive, false);
            if let Some(ticket) = state.places[place].tickets.get_mut(&ticket) {
                ticket.outcome = Some(Ok(()));
            }
            return Ok(Acquire::new(shared, place, ticket));
        }
        if let Some(failure) = &entry.failure
            && failure.until > now
        {
            return Err(Denied::Failed {
                why: failure.why.clone(),
                retry: failure.until - now,
            });
        }
        if waiting >= shared.options.queue {
            return Err(Denied::QueueFull { waiting });
        }
        state.totals.misses += 1;
        let ticket = state.ticket(place, now, keep_alive, false);
        shared.bell.notify_all();
        Ok(Acquire::new(shared, place, ticket))
    }

    /// Has a model loaded that nobody has asked for yet; nobody hears how that went.
    pub fn preload(&self, id: &str) {
        let Some(place) = self.find(id) else { return };
        let shared = &self.0;
        let now = (shared.clock)();
        let mut state = lock(&shared.state);
        if state.places[place].model().is_none() {
            state.ticket(place, now, None, true);
            shared.bell.notify_all();
        }
    }

    /// Has a model unloaded as soon as nobody uses it; new requests load it again.
    ///
    /// # Errors
    /// When there is none.
    pub fn unload(&self, id: &str) -> Result<(), Denied> {
        let place = self.find(id).ok_or(Denied::Unknown)?;
        let shared = &self.0;
        let mut state = lock(&shared.state);
        let entry = &mut state.places[place];
        entry.unload = !matches!(entry.stage, Stage::Absent | Stage::Unloading);
        shared.bell.notify_all();
        Ok(())
    }

    /// Has a model stay whatever happens once it is there, or no longer.
    ///
    /// # Errors
    /// When there is none.
    pub fn pin(&self, id: &str, pinned: bool) -> Result<(), Denied> {
        let place = self.find(id).ok_or(Denied::Unknown)?;
        let shared = &self.0;
        lock(&shared.state).places[place].pinned = pinned;
        // Others may go for those who wait now, or none any more.
        shared.bell.notify_all();
        Ok(())
    }

    /// Waits until a model is gone, or wanted again.
    pub async fn gone(&self, id: &str) {
        let Some(place) = self.find(id) else { return };
        let shared = &self.0;
        std::future::poll_fn(|context| {
            let mut state = lock(&shared.state);
            let entry = &state.places[place];
            let there = !matches!(entry.stage, Stage::Absent | Stage::Loading);
            if !there || (!entry.unload && !matches!(entry.stage, Stage::Unloading)) {
                return Poll::Ready(());
            }
            state.watchers.push(context.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Has models go that nobody uses, the cheapest first, until `bytes` are free of them; those who
    /// are pinned or have just come stay. Blocks until that is done; tells who went.
    pub fn shed(&self, bytes: Bytes, why: &str) -> Vec<Shedded> {
        let shared = &self.0;
        let (done, answer) = std::sync::mpsc::channel();
        {
            let mut state = lock(&shared.state);
            if state.stopping || state.loading || state.shed.is_some() {
                return Vec::new();
            }
            state.shed = Some(Shed {
                bytes,
                why: why.to_owned(),
                gone: Vec::new(),
                done,
            });
            shared.bell.notify_all();
        }
        // A keeper that ends drops the sender.
        answer.recv().unwrap_or_default()
    }

    /// All models at this moment: those that could be loaded, and those that are there.
    pub fn status(&self) -> Vec<ModelStatus<M>> {
        let shared = &self.0;
        let now = (shared.clock)();
        let state = lock(&shared.state);
        let shown = |place: &&Place<M>| place.listed || !matches!(place.stage, Stage::Absent);
        let shown = state.places.iter().filter(shown);
        shown.map(|place| shared.status(place, now)).collect()
    }

    /// One of them.
    pub fn status_of(&self, id: &str) -> Option<ModelStatus<M>> {
        let found = self.status().into_iter().find(|status| status.id == id);
        if found.is_some() {
            return found;
        }
        self.refresh();
        self.status().into_iter().find(|status| status.id == id)
    }

    /// Counts since the start.
    pub fn totals(&self) -> CacheTotals {
        lock(&self.0.state).totals
    }

    fn find(&self, id: &str) -> Option<usize> {
        let state = lock(&self.0.state);
        let known = |place: &Place<M>| {
            place.id == id && (place.listed || !matches!(place.stage, Stage::Absent))
        };
        state.places.iter().position(known)
    }
}

impl<M: Send + Sync + 'static> Shared<M> {
    pub(super) fn rules(&self) -> Rules {
        Rules {
            min_residency: self.options.min_residency,
            eviction: self.options.eviction,
        }
    }
}
