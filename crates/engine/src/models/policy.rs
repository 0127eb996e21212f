//! Which model is loaded next, which one goes for it, and who waits: one pure function of plain data.
//!
//! The keeper of the cache (`keeper.rs`) asks [`decide`] again and again, does the one thing that it
//! says, and sleeps when it says so. `sim.rs` holds it to what it promises, over thousands of seeds:
//!
//! - A model is loaded only when what it takes at least is free.
//! - A model with leases, a pinned one, and one that has not been there for `min_residency` is never
//!   evicted to make room.
//! - The model whose requests have waited longest is first, and nobody is let past it who would make
//!   it wait longer: so all get their turn. A busy model in its way is closed: it gives no new leases,
//!   finishes what it has, and goes.
//! - What can never fit, or only if a pinned model went, is refused at once.

use std::time::Duration;

use bursar_memory::Bytes;

use crate::plan::MemoryPlan;

/// What a model takes. Activations are shared: of all models that are there, the largest counts.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Footprint {
    /// Bytes of its own: tokenizer, weights, keys and values, sampling.
    pub own: Bytes,
    /// Bytes of activations.
    pub arena: Bytes,
    /// Bytes of its own while it is loaded, where they are more than those that stay.
    pub loading: Bytes,
}

impl Footprint {
    /// What a model of this plan takes.
    pub fn of(plan: &MemoryPlan) -> Self {
        let (need, arena) = (plan.need(Bytes::ZERO), plan.activations());
        Self {
            own: need.loaded.saturating_sub(arena),
            arena,
            loading: need.loading.saturating_sub(arena),
        }
    }

    /// What models take together, loaded one after the other.
    pub fn together(models: impl Iterator<Item = Footprint>) -> Bytes {
        let (mut own, mut arena, mut peak) = (Bytes::ZERO, Bytes::ZERO, Bytes::ZERO);
        for model in models {
            arena = arena.max(model.arena);
            let loading = own.saturating_add(model.own.max(model.loading));
            peak = peak.max(loading.saturating_add(arena));
            own = own.saturating_add(model.own);
        }
        peak
    }
}

/// Whether a model is there.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Presence {
    /// It has to be loaded before it can be used.
    Absent,
    /// It is there and gives leases.
    Open,
    /// It is there, gives no new leases and is to go when those that it gave have ended.
    Closing,
}

/// What there is to know of a model.
#[derive(Copy, Clone, Debug)]
pub(super) struct ModelView {
    /// Whether it is there.
    pub presence: Presence,
    /// What it takes, or would take at least; `None` as long as nobody has tried.
    pub footprint: Option<Footprint>,
    /// Bytes of its own that it could give back and stay: keys and values beyond one sequence's.
    pub spare: Bytes,
    /// How long loading it again would take.
    pub reload: Duration,
    /// Time since its last lease ended.
    pub idle: Duration,
    /// Time since it was loaded.
    pub resident: Duration,
    /// Leases that it has given.
    pub leases: usize,
    /// Whether it stays whatever happens.
    pub pinned: bool,
    /// How long it stays when nobody uses it; `None`: until its place is needed.
    pub keep_alive: Option<Duration>,
    /// How long the first that waits for it has waited; `None` if nobody does.
    pub waiting: Option<Duration>,
    /// Whether somebody has asked for it to go.
    pub unload: bool,
}

/// What there is to load models into.
#[derive(Copy, Clone, Debug)]
pub(super) struct Room {
    /// Bytes that nobody holds.
    pub free: Bytes,
    /// Bytes that would be free if no model were there.
    pub at_best: Bytes,
}

/// How it is decided who goes.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Eviction {
    /// Those that together cost least to load again, those unused for long counting for less.
    #[default]
    Cheapest,
    /// Those that have been unused for longest.
    Lru,
}

/// What holds for all models.
#[derive(Copy, Clone, Debug)]
pub(super) struct Rules {
    /// How long a model stays at least before it goes for another.
    pub min_residency: Duration,
    /// Who goes.
    pub eviction: Eviction,
}

/// Why a model goes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    /// Its place is needed by another, by its index.
    Room(usize),
    /// Nobody has used it for as long as it was to be kept.
    Idle,
    /// Somebody has asked for it.
    Asked,
}

/// Why a model cannot be loaded, though nothing is wrong with it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Hopeless {
    /// It takes more than all models may.
    TooLarge {
        /// What it takes.
        need: Bytes,
        /// What all may.
        most: Bytes,
    },
    /// It would fit only if models went that are pinned, or others held less.
    Blocked {
        /// What it takes.
        need: Bytes,
        /// What could be made free.
        most: Bytes,
    },
}

/// What to do next; models are named by their indices.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Decision {
    /// Load it.
    Load(usize),
    /// Have models give back what they can spare, so many bytes for this one.
    Reclaim(usize, Bytes),
    /// Unload it: it has no leases.
    Unload(usize, Reason),
    /// Let it give no new leases.
    Close(usize),
    /// Let it give leases again: its place is not needed any more.
    Open(usize),
    /// Tell those who wait for it.
    Refuse(usize, Hopeless),
    /// Nothing, until something changes or so much time has passed.
    Wait(Option<Duration>),
}

/// After so much time without use, a model's cost of loading it again counts half.
const HALF_LIFE: Duration = Duration::from_secs(60);
/// Of so many candidates, every set is looked at; of more, they are taken one by one.
const EXACT_MODELS: usize = 12;

/// What is to be done next.
pub(super) fn decide(models: &[ModelView], room: Room, rules: &Rules) -> Decision {
    if let Some(decision) = leaving(models) {
        return decision;
    }
    let mut queue: Vec<usize> = (0..models.len())
        .filter(|&m| models[m].presence == Presence::Absent && models[m].waiting.is_some())
        .collect();
    // The sort is stable: of two that have waited alike, the one listed first.
    queue.sort_by_key(|&m| std::cmp::Reverse(models[m].waiting));
    let mut wake = expiry(models);
    let mut going = 0_u128;
    if let Some((&first, others)) = queue.split_first() {
        let turn = Turn {
            models,
            room,
            rules,
            first,
        };
        match turn.decide() {
            Ok(decision) => return decision,
            Err(held_up) => {
                going = held_up.going;
                wake = least(wake, held_up.until);
                if let Some(decision) = turn.beside(others, &held_up) {
                    return decision;
                }
            }
        }
    }
    let stays = |&m: &usize| {
        let model = &models[m];
        model.presence == Presence::Closing && !model.unload && !has(going, m)
    };
    match (0..models.len()).find(stays) {
        Some(model) => Decision::Open(model),
        None => Decision::Wait(wake),
    }
}

/// The model that is best unloaded when the process is to hold less; `None` if none may go.
pub(super) fn shed(models: &[ModelView], rules: &Rules) -> Option<usize> {
    let may_go = |&m: &usize| {
        let model = &models[m];
        model.presence != Presence::Absent
            && model.leases == 0
            && model.waiting.is_none()
            && !model.pinned
            && model.resident >= rules.min_residency
    };
    let price = |m: usize| match rules.eviction {
        Eviction::Cheapest => {
            let own = models[m].footprint.unwrap_or_default().own;
            cost(&models[m]) / (own.get() as f64).max(1.0)
        }
        Eviction::Lru => -models[m].idle.as_secs_f64(),
    };
    let candidates = (0..models.len()).filter(may_go);
    candidates.min_by(|&a, &b| price(a).total_cmp(&price(b)))
}

/// What a model would take beyond what is held, where `arena` bytes of activations are there.
pub(super) fn growth(footprint: Footprint, arena: Bytes) -> Bytes {
    let own = footprint.own.max(footprint.loading);
    own.saturating_add(footprint.arena.saturating_sub(arena))
}

/// Models that go whoever waits.
fn leaving(models: &[ModelView]) -> Option<Decision> {
    models.iter().enumerate().find_map(|(index, model)| {
        if model.presence == Presence::Absent {
            return None;
        }
        if model.unload {
            return match (model.leases, model.presence) {
                (0, _) => Some(Decision::Unload(index, Reason::Asked)),
                (_, Presence::Open) => Some(Decision::Close(index)),
                _ => None,
            };
        }
        let expired = expires_in(model).is_some_and(|left| left.is_zero());
        expired.then_some(Decision::Unload(index, Reason::Idle))
    })
}

/// How long a model that nobody uses still stays; `None` where it is not for time to say.
fn expires_in(model: &ModelView) -> Option<Duration> {
    let unused = model.presence == Presence::Open
        && model.leases == 0
        && model.waiting.is_none()
        && !model.pinned;
    let keep = model.keep_alive.filter(|_| unused)?;
    Some(keep.saturating_sub(model.idle))
}

fn expiry(models: &[ModelView]) -> Option<Duration> {
    models.iter().filter_map(expires_in).min()
}

fn least(a: Option<Duration>, b: Option<Duration>) -> Option<Duration> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.min(b)),
        (a, b) => a.or(b),
    }
}

/// Sets of models are bits; who keeps more models than bits has the rest stay where they are.
fn has(set: u128, model: usize) -> bool {
    model < 128 && set >> model & 1 == 1
}

/// The model whose turn it is.
struct Turn<'a> {
    models: &'a [ModelView],
    room: Room,
    rules: &'a Rules,
    first: usize,
}

/// Why its turn has not come yet.
struct HeldUp {
    /// Who goes for it.
    going: u128,
    /// When to look again, if nothing else changes.
    until: Option<Duration>,
}

impl Turn<'_> {
    fn decide(&self) -> Result<Decision, HeldUp> {
        let first = self.first;
        let Some(footprint) = self.models[first].footprint else {
            // What it takes is found out by trying.
            return Ok(Decision::Load(first));
        };
        let short = self.need(0).saturating_sub(self.room.free);
        if short.is_zero() {
            return Ok(Decision::Load(first));
        }
        if self.fits(0) {
            return Ok(Decision::Reclaim(first, short));
        }
        let need = growth(footprint, Bytes(0));
        if need > self.room.at_best {
            let most = self.room.at_best;
            return Ok(Decision::Refuse(first, Hopeless::TooLarge { need, most }));
        }
        let movable = self.those(|_| true);
        if !self.fits(movable) {
            let most = self.freed(movable);
            let most = self.room.free.saturating_add(most);
            return Ok(Decision::Refuse(first, Hopeless::Blocked { need, most }));
        }
        let idle = self.those(|model| model.leases == 0);
        let ripe = self.those(|model| self.ripens_in(model).is_zero());
        if self.fits(idle & ripe) {
            let set = self.choose(idle & ripe);
            return match (0..self.models.len()).find(|&m| has(set, m)) {
                Some(model) => Ok(Decision::Unload(model, Reason::Room(first))),
                None => Err(self.held_up(0, None)),
            };
        }
        if self.fits(idle) {
            // A while is better waited for than a model closed that somebody uses.
            let until = self.ripe_enough(idle);
            return Err(self.held_up(self.choose(idle), until));
        }
        if self.fits(ripe) {
            let set = self.choose(ripe);
            let busy = |&m: &usize| {
                let model = &self.models[m];
                has(set, m) && model.leases > 0 && model.presence == Presence::Open
            };
            return match (0..self.models.len()).find(busy) {
                Some(model) => Ok(Decision::Close(model)),
                // The end of a lease is heard.
                None => Err(self.held_up(set, None)),
            };
        }
        let until = self.ripe_enough(movable);
        Err(self.held_up(self.choose(movable), until))
    }

    /// Another one that can be loaded now without making the first wait any longer.
    fn beside(&self, others: &[usize], held_up: &HeldUp) -> Option<Decision> {
        let after = self
            .room
            .free
            .saturating_add(self.freed(held_up.going))
            .saturating_sub(self.need(held_up.going));
        let fits = |&&other: &&usize| match self.models[other].footprint {
            // Trying may take bytes: not before the first has its own.
            None => false,
            Some(footprint) => {
                // Its activations are counted in full: who stays is not decided yet.
                let alone = growth(footprint, Bytes(0));
                alone <= self.room.free.min(after)
            }
        };
        others.iter().find(fits).map(|&other| Decision::Load(other))
    }

    fn held_up(&self, going: u128, until: Option<Duration>) -> HeldUp {
        HeldUp { going, until }
    }

    /// Those that may go in principle and of which `which` holds.
    fn those(&self, which: impl Fn(&ModelView) -> bool) -> u128 {
        let mut set = 0;
        for (index, model) in self.models.iter().enumerate().take(128) {
            let there = model.presence != Presence::Absent;
            if there && !model.pinned && which(model) {
                set |= 1 << index;
            }
        }
        set
    }

    fn ripens_in(&self, model: &ModelView) -> Duration {
        self.rules.min_residency.saturating_sub(model.resident)
    }

    /// When enough of these have been there for long enough.
    fn ripe_enough(&self, set: u128) -> Option<Duration> {
        let mut times: Vec<Duration> = (0..self.models.len())
            .filter(|&m| has(set, m))
            .map(|m| self.ripens_in(&self.models[m]))
            .collect();
        times.sort();
        times.into_iter().find(|&time| {
            let ripe = self.those(|model| self.ripens_in(model) <= time);
            self.fits(set & ripe)
        })
    }

    /// Activations of those that are there without `gone`.
    fn arena(&self, gone: u128) -> Bytes {
        self.present(gone)
            .filter_map(|model| model.footprint)
            .map(|footprint| footprint.arena)
            .max()
            .unwrap_or(Bytes(0))
    }

    fn present(&self, gone: u128) -> impl Iterator<Item = &ModelView> {
        let there = move |(index, model): &(usize, &ModelView)| {
            model.presence != Presence::Absent && !has(gone, *index)
        };
        let models = self.models.iter().enumerate().filter(there);
        models.map(|(_, model)| model)
    }

    /// What the first takes when `gone` are gone.
    fn need(&self, gone: u128) -> Bytes {
        let footprint = self.models[self.first].footprint.unwrap_or_default();
        growth(footprint, self.arena(gone))
    }

    /// What is freed when `gone` go.
    fn freed(&self, gone: u128) -> Bytes {
        let own = |sum: Bytes, (index, model): (usize, &ModelView)| match has(gone, index) {
            true => sum.saturating_add(model.footprint.unwrap_or_default().own),
            false => sum,
        };
        let own = self.models.iter().enumerate().fold(Bytes(0), own);
        own.saturating_add(self.arena(0).saturating_sub(self.arena(gone)))
    }

    /// Whether the first fits when `gone` are gone and the others have given what they can spare.
    fn fits(&self, gone: u128) -> bool {
        let spare = self
            .present(gone)
            .fold(Bytes(0), |sum, model| sum.saturating_add(model.spare));
        let free = self.room.free.saturating_add(spare);
        self.need(gone) <= free.saturating_add(self.freed(gone))
    }

    /// A set out of `candidates`, who together are enough, that is enough too.
    fn choose(&self, candidates: u128) -> u128 {
        let mut members: Vec<usize> = (0..self.models.len())
            .filter(|&m| has(candidates, m))
            .collect();
        match self.rules.eviction {
            Eviction::Cheapest if members.len() <= EXACT_MODELS => self.cheapest(&members),
            Eviction::Cheapest => {
                let price = |m: usize| {
                    let own = self.models[m].footprint.unwrap_or_default().own;
                    cost(&self.models[m]) / (own.get() as f64).max(1.0)
                };
                members.sort_by(|&a, &b| price(a).total_cmp(&price(b)));
                let mut set = self.first_enough(&members);
                // Small ones taken first may not be needed beside the large ones taken last.
                members.sort_by(|&a, &b| {
                    let cost = |m: usize| cost(&self.models[m]);
                    cost(b).total_cmp(&cost(a))
                });
                for member in members {
                    let without = set & !(1 << member);
                    if has(set, member) && self.fits(without) {
                        set = without;
                    }
                }
                set
            }
            Eviction::Lru => {
                members.sort_by_key(|&m| {
                    let model = &self.models[m];
                    (model.leases > 0, std::cmp::Reverse(model.idle))
                });
                self.first_enough(&members)
            }
        }
    }

    /// The members from the first on until they are enough.
    fn first_enough(&self, members: &[usize]) -> u128 {
        let mut set = 0;
        for member in members {
            if self.fits(set) {
                break;
            }
            set |= 1 << member;
        }
        set
    }

    /// Of all sets that are enough the one of least cost; of several, the one listed first.
    fn cheapest(&self, members: &[usize]) -> u128 {
        let mut best: Option<(f64, u128)> = None;
        for bits in 1_u32..1 << members.len() {
            let chosen = (0..members.len()).filter(|&place| bits >> place & 1 == 1);
            let (mut set, mut cost) = (0, 0.0);
            for place in chosen {
                set |= 1 << members[place];
                cost += self::cost(&self.models[members[place]]);
            }
            let cheaper = best.is_none_or(|(least, _)| cost < least);
            if cheaper && self.fits(set) {
                best = Some((cost, set));
            }
        }
        best.map_or(0, |(_, set)| set)
    }
}

/// What losing a model costs: the time to load it again, less likely to be needed the longer nobody
/// has.
fn cost(model: &ModelView) -> f64 {
    if model.presence == Presence::Closing {
        // It has been decided, and others wait for it: not to be decided anew.
        return 0.0;
    }
    // A model of no bytes takes a little time too, so that none is taken along for nothing.
    let reload = model.reload.as_secs_f64() + 1e-3;
    let busy = if model.leases > 0 { 2.0 } else { 1.0 };
    busy * reload / (1.0 + model.idle.as_secs_f64() / HALF_LIFE.as_secs_f64())
}

#[cfg(test)]
mod tests;
