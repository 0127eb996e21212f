//! The books of a cache: a place for each model, and who waits for it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::task::Waker;
use std::time::Duration;

use bursar_memory::Bytes;

use super::cache::{CacheOptions, Denied, KeepAlive};
use super::keeper::Progress;
use super::policy::{Footprint, ModelView, Presence};
use super::source::ModelSource;
use super::status::CacheTotals;

/// Everything that changes.
pub(super) struct State<M> {
    /// In the order in which they were first seen; none is ever taken out, so an index stays.
    pub(super) places: Vec<Place<M>>,
    next_ticket: u64,
    /// Woken when any model's state has changed.
    pub(super) watchers: Vec<Waker>,
    pub(super) totals: CacheTotals,
    /// Whether models have been asked for what they can spare since anything last changed.
    pub(super) spared: bool,
    /// So many bytes are to be freed, and why; the sum of what is freed goes to who asked.
    pub(super) shed: Option<Shed>,
    pub(super) stopping: bool,
    /// Whether the keeper is in the middle of loading.
    pub(super) loading: bool,
}

/// Models that nobody uses are to go.
pub(super) struct Shed {
    pub(super) bytes: Bytes,
    pub(super) why: String,
    pub(super) gone: Vec<Shedded>,
    pub(super) done: Sender<Vec<Shedded>>,
}

/// A model that went under pressure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shedded {
    /// Its name.
    pub id: String,
    /// What that freed.
    pub bytes: Bytes,
}

/// A model's place in the cache.
pub(super) struct Place<M> {
    pub(super) id: String,
    /// Whether its file was there when last looked for.
    pub(super) listed: bool,
    pub(super) stage: Stage<M>,
    pub(super) pinned: bool,
    /// What holds where a request says nothing.
    default_keep: Option<Duration>,
    pub(super) keep_alive: Option<Duration>,
    pub(super) leases: usize,
    pub(super) tickets: BTreeMap<u64, Ticket>,
    pub(super) unload: bool,
    pub(super) used_at: Duration,
    pub(super) loaded_at: Duration,
    pub(super) progress: Arc<Progress>,
    pub(super) footprint: Option<Footprint>,
    /// How long loading took when it was last done.
    pub(super) load_time: Option<Duration>,
    pub(super) loads: u64,
    pub(super) failure: Option<Failure>,
}

/// Where a model is in its life.
pub(super) enum Stage<M> {
    Absent,
    Loading,
    Open(Arc<M>),
    Closing(Arc<M>),
    Unloading,
}

/// Why a model is not there though it was wanted.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) why: String,
    /// Failures in a row.
    pub(super) times: u32,
    /// When to try again.
    pub(super) until: Duration,
}

/// Somebody who waits for a model.
pub(super) struct Ticket {
    pub(super) since: Duration,
    pub(super) keep: Option<KeepAlive>,
    pub(super) waker: Option<Waker>,
    /// Set when it is decided; a lease has been counted then.
    pub(super) outcome: Option<Result<(), Denied>>,
    /// Nobody will look at the outcome.
    pub(super) unheard: bool,
}

impl<M> Place<M> {
    pub(super) fn new(id: String, options: &CacheOptions) -> Self {
        let kept = options.kept.contains(&id);
        let keep = options.keep_alive.filter(|_| !kept);
        Self {
            pinned: options.pinned.contains(&id),
            id,
            listed: true,
            stage: Stage::Absent,
            default_keep: keep,
            keep_alive: keep,
            leases: 0,
            tickets: BTreeMap::new(),
            unload: false,
            used_at: Duration::ZERO,
            loaded_at: Duration::ZERO,
            progress: Arc::default(),
            footprint: None,
            load_time: None,
            loads: 0,
            failure: None,
        }
    }

    pub(super) fn model(&self) -> Option<&Arc<M>> {
        match &self.stage {
            Stage::Open(model) | Stage::Closing(model) => Some(model),
            _ => None,
        }
    }

    fn presence(&self) -> Presence {
        match self.stage {
            Stage::Open(_) => Presence::Open,
            Stage::Closing(_) => Presence::Closing,
            _ => Presence::Absent,
        }
    }

    pub(super) fn undecided(&self) -> impl Iterator<Item = &Ticket> {
        let tickets = self.tickets.values();
        tickets.filter(|ticket| ticket.outcome.is_none())
    }

    /// Whether it was asked for before anybody came.
    pub(super) fn starting(&self) -> bool {
        self.tickets.values().any(|ticket| ticket.unheard)
    }

    pub(super) fn waiting_since(&self) -> Option<Duration> {
        self.undecided().map(|ticket| ticket.since).next()
    }

    /// How long loading would take.
    fn reload(&self) -> Duration {
        /// Where it has never been measured.
        const BYTES_PER_SECOND: f64 = 1e9;
        self.load_time.unwrap_or_else(|| {
            let own = self.footprint.unwrap_or_default().own;
            Duration::from_secs_f64(own.get() as f64 / BYTES_PER_SECOND)
        })
    }

    /// What the policy is told of it.
    pub(super) fn view(
        &self,
        source: &dyn ModelSource<Model = M>,
        now: Duration,
        spared: bool,
    ) -> ModelView
    where
        M: Send + Sync + 'static,
    {
        let held = self.model().map(|model| source.held(model));
        ModelView {
            presence: self.presence(),
            footprint: held.map(|held| held.footprint).or(self.footprint),
            spare: held.filter(|_| !spared).unwrap_or_default().spare,
            reload: self.reload(),
            idle: now.saturating_sub(self.used_at),
            resident: now.saturating_sub(self.loaded_at),
            leases: self.leases,
            pinned: self.pinned,
            keep_alive: self.keep_alive,
            waiting: self.waiting_since().map(|since| now.saturating_sub(since)),
            unload: self.unload,
        }
    }

    /// Everybody who waits gets a lease.
    pub(super) fn grant(&mut self) {
        let mut keep = None;
        for ticket in self.tickets.values_mut() {
            if ticket.outcome.is_some() {
                continue;
            }
            ticket.outcome = Some(Ok(()));
            keep = Some(ticket.keep);
            if !ticket.unheard {
                self.leases += 1;
            }
            if let Some(waker) = ticket.waker.take() {
                waker.wake();
            }
        }
        self.tickets.retain(|_, ticket| !ticket.unheard);
        if let Some(keep) = keep {
            self.keep(keep);
        }
    }

    /// Nobody who waits gets one.
    pub(super) fn deny(&mut self, denied: &Denied) {
        for ticket in self.tickets.values_mut() {
            if ticket.outcome.is_none() {
                ticket.outcome = Some(Err(denied.clone()));
                if let Some(waker) = ticket.waker.take() {
                    waker.wake();
                }
            }
        }
        self.tickets.retain(|_, ticket| !ticket.unheard);
    }

    pub(super) fn keep(&mut self, keep: Option<KeepAlive>) {
        self.keep_alive = keep.map_or(self.default_keep, KeepAlive::time);
    }
}

impl<M> State<M> {
    pub(super) fn new() -> Self {
        Self {
            places: Vec::new(),
            next_ticket: 0,
            watchers: Vec::new(),
            totals: CacheTotals::default(),
            spared: false,
            shed: None,
            stopping: false,
            loading: false,
        }
    }

    pub(super) fn ticket(
        &mut self,
        place: usize,
        since: Duration,
        keep: Option<KeepAlive>,
        unheard: bool,
    ) -> u64 {
        let number = self.next_ticket;
        self.next_ticket += 1;
        let ticket = Ticket {
            since,
            keep,
            waker: None,
            outcome: None,
            unheard,
        };
        self.places[place].tickets.insert(number, ticket);
        number
    }

    /// Tells everybody who watches.
    pub(super) fn changed(&mut self) {
        for waker in self.watchers.drain(..) {
            waker.wake();
        }
    }
}
