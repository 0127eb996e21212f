//! What can be seen of a cache: counts since the start, and each model at a moment.

use std::sync::Arc;
use std::time::Duration;

use bursar_model::Purpose;

use super::cache::Shared;
use super::policy::Footprint;
use super::source::WhyKind;
use super::state::{Place, Stage};

/// Counts since the start.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub struct CacheTotals {
    /// Leases given at once.
    pub hits: u64,
    /// Leases that had to be waited for.
    pub misses: u64,
    /// Models loaded.
    pub loads: u64,
    /// Models that could not be.
    pub failures: u64,
    /// Time that loading took.
    pub load_time: Duration,
    /// Models that went, by the kind of reason: see [`WhyKind::ALL`].
    pub unloads: [u64; WhyKind::ALL.len()],
    /// Bytes that they held.
    pub unloaded_bytes: u64,
}

impl CacheTotals {
    /// Models that went for another, or because the process was to hold less.
    pub fn evictions(&self) -> u64 {
        self.unloads[WhyKind::Room as usize] + self.unloads[WhyKind::Pressure as usize]
    }
}

/// What a model is doing.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum ModelState {
    /// It can be loaded.
    Absent,
    /// It is being loaded.
    Loading,
    /// It is there.
    Loaded,
    /// It finishes what it has, and goes.
    Closing,
    /// Its memory is being given back.
    Unloading,
    /// It could not be loaded.
    Failed,
}

impl ModelState {
    /// The word as it appears in reports: `loaded`.
    pub const fn name(self) -> &'static str {
        match self {
            ModelState::Absent => "absent",
            ModelState::Loading => "loading",
            ModelState::Loaded => "loaded",
            ModelState::Closing => "closing",
            ModelState::Unloading => "unloading",
            ModelState::Failed => "failed",
        }
    }
}

/// A model at a moment.
pub struct ModelStatus<M> {
    /// Its name.
    pub id: String,
    /// What it is for; `None` as long as nobody has looked.
    pub purpose: Option<Purpose>,
    /// What it is doing.
    pub state: ModelState,
    /// Whether it was to be there from the start, and is not yet.
    pub starting: bool,
    /// How much of its file has been read while it loads, 0 to 1; 1 when it is there.
    pub loaded_ratio: f64,
    /// How long the rest of loading will take, if it goes on as it has.
    pub load_left: Option<Duration>,
    /// Time since anything of it was last read, while it loads.
    pub still: Option<Duration>,
    /// The model, where it is there; who only looks needs no lease, and must not keep it.
    pub model: Option<Arc<M>>,
    /// Leases given.
    pub leases: usize,
    /// Requests that wait for it.
    pub waiting: usize,
    /// How long the first of them has.
    pub waited: Option<Duration>,
    /// Whether it stays whatever happens.
    pub pinned: bool,
    /// How long it stays when nobody uses it; `None`: until its place is needed.
    pub keep_alive: Option<Duration>,
    /// Time since it was last used, where nobody uses it now.
    pub idle: Option<Duration>,
    /// When it goes if nobody uses it.
    pub expires: Option<Duration>,
    /// What it takes, or took when last tried; `None` if it never was.
    pub footprint: Option<Footprint>,
    /// Times that it has been loaded.
    pub loads: u64,
    /// How long that took the last time.
    pub load_time: Option<Duration>,
    /// Why it could not be loaded.
    pub error: Option<String>,
}

impl<M: Send + Sync + 'static> Shared<M> {
    pub(super) fn status(&self, place: &Place<M>, now: Duration) -> ModelStatus<M> {
        let loading = matches!(place.stage, Stage::Loading);
        let state = match &place.stage {
            Stage::Loading => ModelState::Loading,
            Stage::Open(_) => ModelState::Loaded,
            Stage::Closing(_) => ModelState::Closing,
            Stage::Unloading => ModelState::Unloading,
            Stage::Absent if place.starting() => ModelState::Loading,
            Stage::Absent if place.failure.is_some() => ModelState::Failed,
            Stage::Absent => ModelState::Absent,
        };
        let model = place.model();
        let held = model.map(|model| self.source.held(model));
        let unused = model.filter(|_| place.leases == 0);
        let idle = unused.map(|_| now.saturating_sub(place.used_at));
        let keep = place.keep_alive.filter(|_| !place.pinned);
        let expires = idle.zip(keep).map(|(idle, keep)| keep.saturating_sub(idle));
        ModelStatus {
            id: place.id.clone(),
            purpose: self.source.purpose(&place.id),
            state,
            starting: place.starting(),
            loaded_ratio: match (model, loading) {
                (Some(_), _) => 1.0,
                (None, true) => place.progress.ratio(),
                (None, false) => 0.0,
            },
            load_left: loading.then(|| place.progress.left(now)),
            still: loading.then(|| place.progress.still(now)),
            model: model.cloned(),
            leases: place.leases,
            waiting: place.undecided().count(),
            waited: place.waiting_since().map(|since| now.saturating_sub(since)),
            pinned: place.pinned,
            keep_alive: place.keep_alive,
            idle,
            expires,
            footprint: held.map(|held| held.footprint).or(place.footprint),
            loads: place.loads,
            load_time: place.load_time,
            error: place.failure.as_ref().map(|failure| failure.why.clone()),
        }
    }
}
