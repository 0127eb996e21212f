//! The policy in a seeded simulator: models of random sizes, clients that come, wait, give up and
//! hold leases, a keeper that takes time to load, memory that others take and give back.
//!
//! What must hold, at every moment of every seed:
//! 1. What models hold never exceeds the budget: none is loaded before there is room for it.
//! 2. No model goes that has leases; none that is pinned, unless somebody asks for it; none for
//!    another's sake before it has been there for `min_residency`.
//! 3. The keeper never turns in circles: after so many decisions in a row it waits.
//! 4. Everybody is served or refused, and refused only where the model could not fit.
//! 5. Nobody starves: the model whose requests have waited longest has its turn within the time that
//!    the leases, loads and residencies before it may take.

use std::time::Duration;

use bursar_memory::Bytes;

use super::policy::{Decision, Eviction, Footprint, ModelView, Presence, Reason, Room, Rules};
use super::policy::{decide, growth};
use crate::sim::Random;

/// Longest lease, in milliseconds.
const LEASE_MAX: usize = 4000;
/// Longest load.
const LOAD_MAX: usize = 1500;

/// A model of the simulation; times are moments, in milliseconds.
struct Model {
    footprint: Footprint,
    /// Bytes that it takes beyond the least where there are some.
    wish: u64,
    /// What it holds beyond the least.
    spare: u64,
    presence: Presence,
    load_ms: u64,
    loaded_at: u64,
    used_at: u64,
    pinned: bool,
    keep_alive: Option<u64>,
    unload: bool,
    known: bool,
    /// When its leases end.
    leases: Vec<u64>,
    /// Those who wait: since when, until when at most, and for how long they will use it.
    queue: Vec<(u64, u64, u64)>,
}

struct World {
    now: u64,
    budget: u64,
    /// What others hold, requests for example.
    others: u64,
    rules: Rules,
    models: Vec<Model>,
    served: usize,
    refused: usize,
    gave_up: usize,
    /// Those who came to have a model unloaded.
    asked: usize,
    evictions: usize,
}

impl World {
    fn new(random: &mut Random) -> World {
        let count = random.range(2, 6);
        let models = (0..count).map(|_| {
            let own = random.range(5, 60) as u64;
            Model {
                footprint: Footprint {
                    own: Bytes(own),
                    arena: Bytes(random.range(0, 15) as u64),
                    loading: Bytes(own.saturating_add(random.range(0, 8) as u64) - 4),
                },
                wish: random.range(0, 40) as u64,
                spare: 0,
                presence: Presence::Absent,
                load_ms: random.range(1, LOAD_MAX) as u64,
                loaded_at: 0,
                used_at: 0,
                pinned: random.one_in(8),
                keep_alive: match random.below(3) {
                    0 => None,
                    1 => Some(random.range(0, 500) as u64),
                    _ => Some(random.range(0, 20_000) as u64),
                },
                unload: false,
                known: random.one_in(2),
                leases: Vec::new(),
                queue: Vec::new(),
            }
        });
        let models: Vec<Model> = models.collect();
        World {
            now: 0,
            budget: random.range(40, 140) as u64,
            others: 0,
            rules: Rules {
                min_residency: Duration::from_millis(random.range(0, 3000) as u64),
                eviction: match random.one_in(3) {
                    true => Eviction::Lru,
                    false => Eviction::Cheapest,
                },
            },
            models,
            served: 0,
            refused: 0,
            gave_up: 0,
            asked: 0,
            evictions: 0,
        }
    }

    fn there(&self) -> impl Iterator<Item = &Model> {
        let there = |model: &&Model| model.presence != Presence::Absent;
        self.models.iter().filter(there)
    }

    fn arena(&self) -> u64 {
        let arenas = self.there().map(|model| model.footprint.arena.get());
        arenas.max().unwrap_or(0)
    }

    fn held(&self) -> u64 {
        let own: u64 = self
            .there()
            .map(|model| model.footprint.own.get() + model.spare)
            .sum();
        own + self.arena()
    }

    fn free(&self) -> u64 {
        self.budget - self.others - self.held()
    }

    fn views(&self) -> Vec<ModelView> {
        let since = |then: u64| Duration::from_millis(self.now - then);
        let view = |model: &Model| {
            let own = model.footprint.own.get() + model.spare;
            let there = model.presence != Presence::Absent;
            ModelView {
                presence: model.presence,
                footprint: (model.known || there).then_some(Footprint {
                    own: Bytes(own),
                    ..model.footprint
                }),
                spare: Bytes(model.spare),
                reload: Duration::from_millis(model.load_ms),
                idle: since(model.used_at),
                resident: since(model.loaded_at),
                leases: model.leases.len(),
                pinned: model.pinned,
                keep_alive: model.keep_alive.map(Duration::from_millis),
                waiting: model
                    .queue
                    .first()
                    .map(|&(since, ..)| self.now - since)
                    .map(Duration::from_millis),
                unload: model.unload,
            }
        };
        self.models.iter().map(view).collect()
    }

    /// What the keeper does until it waits; gives the time to wait for, if it says one.
    fn keep(&mut self, random: &mut Random) -> Option<u64> {
        for _ in 0..200 {
            let room = Room {
                free: Bytes(self.free()),
                at_best: Bytes(self.budget),
            };
            match decide(&self.views(), room, &self.rules) {
                Decision::Load(m) => self.load(m, random),
                Decision::Reclaim(m, short) => {
                    let mut short = short.get();
                    assert!(short > 0 && !self.models[m].queue.is_empty());
                    for model in &mut self.models {
                        let less = model.spare.min(short);
                        model.spare -= less;
                        short -= less;
                    }
                    assert_eq!(short, 0, "less was there than was said");
                }
                Decision::Unload(m, reason) => self.unload(m, reason),
                Decision::Close(m) => {
                    let model = &mut self.models[m];
                    assert_eq!(model.presence, Presence::Open);
                    assert!(!model.leases.is_empty(), "closed though it could go");
                    model.presence = Presence::Closing;
                }
                Decision::Open(m) => {
                    assert_eq!(self.models[m].presence, Presence::Closing);
                    self.models[m].presence = Presence::Open;
                    self.serve(m);
                }
                Decision::Refuse(m, _) => {
                    let model = &self.models[m];
                    let pinned: u64 = self
                        .there()
                        .filter(|other| other.pinned)
                        .map(|other| other.footprint.own.get())
                        .sum();
                    let need = growth(model.footprint, Bytes(0)).get();
                    assert!(
                        need + pinned + self.others + 15 > self.budget,
                        "refused though there was room"
                    );
                    self.refused += self.models[m].queue.drain(..).count();
                }
                Decision::Wait(time) => return time.map(|time| time.as_millis() as u64),
            }
        }
        panic!("the keeper turns in circles");
    }

    fn load(&mut self, m: usize, random: &mut Random) {
        let arena = Bytes(self.arena());
        let free = self.free();
        let model = &mut self.models[m];
        assert_eq!(model.presence, Presence::Absent);
        assert!(!model.queue.is_empty());
        if growth(model.footprint, arena).get() > free {
            assert!(!model.known, "there is no room for it");
            model.known = true;
            return;
        }
        let left = free - growth(model.footprint, arena).get();
        model.spare = model.wish.min(left);
        model.presence = Presence::Open;
        // Time passes while it loads: leases end, and others come.
        let took = model.load_ms;
        self.pass(took, random);
        let now = self.now;
        self.models[m].loaded_at = now;
        self.models[m].used_at = now;
        self.serve(m);
    }

    fn unload(&mut self, m: usize, reason: Reason) {
        let resident = self.now - self.models[m].loaded_at;
        let model = &mut self.models[m];
        assert!(model.leases.is_empty(), "it is in use");
        assert_ne!(model.presence, Presence::Absent);
        match reason {
            Reason::Room(_) => {
                assert!(!model.pinned);
                let resident = Duration::from_millis(resident);
                assert!(resident >= self.rules.min_residency, "thrashing");
                self.evictions += 1;
            }
            Reason::Idle => assert!(!model.pinned && model.queue.is_empty()),
            Reason::Asked => assert!(model.unload),
        }
        model.presence = Presence::Absent;
        model.spare = 0;
        model.unload = false;
    }

    /// All who wait for a model that is there get their leases.
    fn serve(&mut self, m: usize) {
        let now = self.now;
        let model = &mut self.models[m];
        self.served += model.queue.len();
        let ends = model.queue.drain(..).map(|(_, _, use_ms)| now + use_ms);
        model.leases.extend(ends);
    }

    /// Lets time pass, and what happens in it happen.
    fn pass(&mut self, ms: u64, random: &mut Random) {
        self.now += ms;
        let now = self.now;
        for model in &mut self.models {
            let leases = model.leases.len();
            let last = model.leases.iter().copied().filter(|&end| end <= now).max();
            model.leases.retain(|&end| end > now);
            if leases > model.leases.len() {
                model.used_at = last.unwrap_or(now);
            }
            let waiting = model.queue.len();
            model.queue.retain(|&(_, until, _)| until > now);
            self.gave_up += waiting - model.queue.len();
        }
        if random.one_in(4) {
            self.others = random
                .below(10)
                .min(self.others as usize + self.free() as usize) as u64;
        }
    }

    fn arrive(&mut self, random: &mut Random) {
        let m = random.below(self.models.len());
        let use_ms = random.range(1, LEASE_MAX) as u64;
        let patience = match random.one_in(10) {
            true => random.range(1, 3000) as u64,
            false => 1 << 40,
        };
        let now = self.now;
        let model = &mut self.models[m];
        if random.one_in(40) {
            model.unload = model.presence != Presence::Absent;
            self.asked += 1;
            return;
        }
        if model.presence == Presence::Open && !model.unload {
            model.leases.push(now + use_ms);
            self.served += 1;
        } else {
            model.queue.push((now, now + patience, use_ms));
        }
    }
}

fn run(seed: u64) -> World {
    let mut random = Random(seed);
    let mut world = World::new(&mut random);
    let mut came = 0;
    let clients = 60;
    // Each who is before another needs its residency, the longest lease and a load, and of each of the
    // models that go for it the leases; the number is generous, and a bound.
    let turn =
        LEASE_MAX as u64 + 2 * LOAD_MAX as u64 + world.rules.min_residency.as_millis() as u64;
    let longest = 4 * turn * (world.models.len() as u64 + 1);
    while came < clients || world.models.iter().any(|model| !model.queue.is_empty()) {
        assert!(world.held() + world.others <= world.budget);
        let until = world.keep(&mut random);
        assert!(world.held() + world.others <= world.budget);
        for model in &world.models {
            if let Some((since, ..)) = model.queue.first() {
                let waited = world.now - since;
                assert!(waited <= longest, "seed {seed}: {waited} ms of {longest}");
            }
        }
        // The keeper wakes at the time it said, when a lease ends, and when somebody comes.
        let lease = world.models.iter().flat_map(|model| &model.leases).min();
        let lease = lease.map(|&end| end - world.now);
        let next = until.into_iter().chain(lease).min();
        let come = (came < clients).then(|| random.range(0, 400) as u64);
        match (come, next) {
            (Some(come), next) if next.is_none_or(|next| come <= next) => {
                world.pass(come, &mut random);
                world.arrive(&mut random);
                came += 1;
            }
            (_, Some(next)) => world.pass(next.max(1), &mut random),
            (_, None) => {
                // Nobody uses anything and nobody comes: whoever waits, waits for ever.
                let waiting = world.models.iter().any(|model| !model.queue.is_empty());
                assert!(!waiting, "seed {seed}: somebody is forgotten");
                break;
            }
        }
    }
    let ends = world.served + world.refused + world.gave_up + world.asked;
    assert_eq!(ends, clients, "seed {seed}");
    world
}

#[test]
fn everybody_is_served_or_refused_and_nobody_is_evicted_early() {
    let (mut served, mut refused, mut evictions) = (0, 0, 0);
    for seed in 0..2000 {
        let world = run(seed);
        served += world.served;
        refused += world.refused;
        evictions += world.evictions;
    }
    // The simulation is worth something only if all of it happens.
    assert!(
        served > 50_000 && refused > 1000 && evictions > 5000,
        "{served} {refused} {evictions}"
    );
}
