//! The ladder: what is done when memory is short, cheapest first, until enough has come free.
//!
//! ```text
//! for each rung, from the cheapest up to the last that is allowed:
//!     for each model, the longest idle first, while too little is free:
//!         take the rung there, and write down what it gave and why
//! ```
//!
//! What counts as free depends on who asks. For the *system*, every byte that goes back to it does. For
//! the *budget*, bytes that a model gives back but may take again at any time do not: only what it is
//! promised less, what an unloaded model held, or a heap of the pools that is given up. So trimming and
//! forgetting are left to [`Rung::ShrinkKv`] then, which does as much of both as it must; only the pools
//! are trimmed for either.
//!
//! Unloading is another's business (who is used, pinned, or cheap to load again is known there), and is
//! handed in.

use std::borrow::Borrow;
use std::sync::{Arc, Weak};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bursar_memory::{Bytes, Freed, Ledger, Pools, ReclaimBooks, ReclaimEvent, Rung, counting};

use crate::handle::{EngineHandle, Face};
use crate::host::EngineController;

/// For whom memory is got back.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Goal {
    /// For somebody who asks the budget for it.
    Budget,
    /// For others than this process.
    System,
}

impl Goal {
    /// Whether a rung can give what is wanted.
    fn is_helped_by(self, rung: Rung) -> bool {
        match self {
            Goal::Budget => matches!(
                rung,
                Rung::TrimPools | Rung::ShrinkKv | Rung::EvictModel | Rung::Preempt
            ),
            Goal::System => !matches!(rung, Rung::Queue | Rung::Refuse),
        }
    }
}

/// What is wanted, and how far one may go for it.
#[derive(Copy, Clone, Debug)]
pub struct Climb<'a> {
    /// For the budget: so much is to be free. For the system: so much is to go back.
    pub bytes: Bytes,
    /// For whom.
    pub goal: Goal,
    /// The last rung that may be taken.
    pub up_to: Rung,
    /// Why, in words that follow "for" or "because".
    pub reason: &'a str,
}

/// A model that was unloaded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evicted {
    /// Its name.
    pub model: String,
    /// What it held, once that is gone.
    pub bytes: Bytes,
    /// Why this one.
    pub reason: String,
}

/// Who has memory to give back.
trait Holder {
    /// How long nobody has used it.
    fn idle(&self) -> Duration;
    fn name(&self) -> &str;
    fn reclaim(&mut self, rung: Rung, bytes: Bytes) -> Freed;
}

/// What the climb happens in.
struct Around<'a> {
    /// What the budget has free now.
    free: &'a mut dyn FnMut() -> Bytes,
    /// Gives back what belongs to no model: all that stores nothing, or only what nobody is going to
    /// touch again soon.
    trim: &'a mut dyn FnMut(bool) -> Freed,
    /// Unloads models for so many bytes, as many as it takes; none if none can go.
    evict: &'a mut dyn FnMut(Bytes) -> Vec<Evicted>,
    /// Writes a rung down.
    record: &'a mut dyn FnMut(Rung, Option<String>, Bytes, String),
}

/// Climbs until enough is free; gives the bytes that went back to the system.
fn climb(climb: &Climb<'_>, holders: &mut [impl Holder], around: &mut Around<'_>) -> Bytes {
    let mut returned = Bytes::ZERO;
    let missing = |returned: Bytes, free: &mut dyn FnMut() -> Bytes| match climb.goal {
        Goal::Budget => climb.bytes.saturating_sub(free()),
        Goal::System => climb.bytes.saturating_sub(returned),
    };
    holders.sort_by_key(|holder| std::cmp::Reverse(holder.idle()));
    let allowed = |rung: &Rung| *rung <= climb.up_to && climb.goal.is_helped_by(*rung);
    for rung in Rung::ALL.into_iter().filter(allowed) {
        let words = |what: &str| format!("{what}: {}", climb.reason);
        if rung == Rung::EvictModel {
            loop {
                let short = missing(returned, around.free);
                let gone = match short.is_zero() {
                    true => Vec::new(),
                    false => (around.evict)(short),
                };
                if gone.is_empty() {
                    break;
                }
                for evicted in gone {
                    returned = returned.saturating_add(evicted.bytes);
                    let reason = format!("{}: {}", evicted.reason, climb.reason);
                    (around.record)(rung, Some(evicted.model), evicted.bytes, reason);
                }
            }
            continue;
        }
        if rung == Rung::TrimPools && !missing(returned, around.free).is_zero() {
            // Who wants no more than that is in no need of what the next step takes again.
            let freed = (around.trim)(climb.up_to > Rung::TrimPools);
            if !freed.what.is_empty() {
                returned = returned.saturating_add(freed.bytes);
                (around.record)(rung, None, freed.bytes, words(&freed.what));
            }
        }
        if rung == Rung::TrimPools && climb.goal == Goal::Budget {
            // What a model gives back there it may take again.
            continue;
        }
        for holder in holders.iter_mut() {
            let short = missing(returned, around.free);
            if short.is_zero() {
                break;
            }
            let freed = holder.reclaim(rung, short);
            if !freed.what.is_empty() {
                returned = returned.saturating_add(freed.bytes);
                let name = Some(holder.name().to_owned());
                (around.record)(rung, name, freed.bytes, words(&freed.what));
            }
        }
    }
    returned
}

/// Climbs with the models of an engine. Clones write in the same books.
#[derive(Clone)]
pub struct Ladder {
    ledger: Ledger,
    controller: EngineController,
    books: ReclaimBooks,
    pools: Option<Pools>,
}

impl Ladder {
    /// For the models that `controller` has, within `ledger`, written down in `books`.
    pub fn new(ledger: &Ledger, controller: &EngineController, books: &ReclaimBooks) -> Ladder {
        Ladder {
            ledger: ledger.clone(),
            controller: controller.clone(),
            books: books.clone(),
            pools: None,
        }
    }

    /// The same, which trims these pools first.
    pub fn with_pools(self, pools: &Pools) -> Ladder {
        Ladder {
            pools: Some(pools.clone()),
            ..self
        }
    }

    /// What has been taken so far.
    pub fn books(&self) -> &ReclaimBooks {
        &self.books
    }

    /// Climbs with these models until enough is free or nothing is left that is allowed; gives the bytes
    /// that went back to the system. Does not keep their handles: one that is unloaded meanwhile is gone. `evict` unloads models for the bytes that it is told, and says
    /// which; it is asked again until it says none. Blocks for steps that are under way, and on the
    /// engine's thread never ends: call it from any other.
    pub fn climb(
        &self,
        wanted: &Climb<'_>,
        models: impl IntoIterator<Item = impl Borrow<EngineHandle>>,
        evict: &mut dyn FnMut(Bytes) -> Vec<Evicted>,
    ) -> Bytes {
        let controller = &self.controller;
        let resident = |handle: &EngineHandle| Resident {
            controller,
            name: handle.name().to_owned(),
            idle: handle
                .idle_since()
                .map_or(Duration::ZERO, |since| since.elapsed()),
            face: Arc::downgrade(handle.face()),
        };
        let models = models.into_iter();
        let mut holders: Vec<_> = models.map(|handle| resident(handle.borrow())).collect();
        let (books, pools) = (&self.books, self.pools.as_ref());
        climb(
            wanted,
            &mut holders,
            &mut Around {
                free: &mut || self.ledger.free(),
                trim: &mut |all| match wanted.goal {
                    Goal::Budget => trim_pools(pools),
                    Goal::System => trim(controller, pools, all),
                },
                evict,
                record: &mut |rung, model, bytes, reason| {
                    books.record(ReclaimEvent {
                        unix_ms: unix_ms(),
                        rung,
                        model,
                        bytes,
                        reason,
                    });
                },
            },
        )
    }
}

/// Milliseconds since 1970.
pub(crate) fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    u64::try_from(since.unwrap_or_default().as_millis()).unwrap_or(u64::MAX)
}

/// Less than this is not worth a word: the allocator has some pages to give back at any time.
const WORTH: Bytes = Bytes::kib(256);

/// Gives back what nobody uses of the pools.
fn trim_pools(pools: Option<&Pools>) -> Freed {
    let bytes = pools.map_or(Bytes::ZERO, Pools::trim);
    match bytes.is_zero() {
        true => Freed::default(),
        false => Freed {
            bytes,
            what: format!("{bytes} of the pools given back"),
        },
    }
}

/// Gives back what the pools and the process's allocator keep and, if `all`, what the last step left in
/// the arena; measures how much that was.
fn trim(controller: &EngineController, pools: Option<&Pools>, all: bool) -> Freed {
    let pooled = trim_pools(pools).bytes;
    let arena = match all {
        true => controller.trim_arena(false),
        false => Bytes::ZERO,
    };
    let probe = bursar_profile::Probe::default();
    let anonymous = || probe.process().and_then(|process| process.rss_anon_bytes);
    let before = anonymous().unwrap_or(0);
    let purged = counting::purge();
    let pages = match anonymous() {
        Some(after) if purged => Bytes(before.saturating_sub(after)),
        _ => Bytes::ZERO,
    };
    let bytes = arena.saturating_add(pages).saturating_add(pooled);
    if bytes < WORTH {
        return Freed::default();
    }
    Freed {
        bytes,
        what: format!(
            "{pooled} of the pools, {arena} of the idle arena and {pages} of the allocator given back"
        ),
    }
}

/// A model on the engine.
struct Resident<'a> {
    controller: &'a EngineController,
    name: String,
    idle: Duration,
    face: Weak<Face>,
}

impl Holder for Resident<'_> {
    fn idle(&self) -> Duration {
        self.idle
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn reclaim(&mut self, rung: Rung, bytes: Bytes) -> Freed {
        // One that has gone meanwhile has nothing to give.
        let handle = self.face.upgrade().map(EngineHandle::new);
        let freed = handle.map(|handle| self.controller.reclaim(&handle, rung, bytes));
        let mut freed = freed.and_then(Result::ok).unwrap_or_default();
        if rung == Rung::ShrinkPrefill && !freed.what.is_empty() {
            // Shorter pieces touch less of it.
            freed.bytes = freed.bytes.saturating_add(self.controller.trim_arena(true));
        }
        freed
    }
}

#[cfg(test)]
mod tests {
    use std::cell::{Cell, RefCell};

    use super::*;

    /// A model that gives back these bytes, rung by rung, and of the budget what it is promised less.
    struct Fake<'a> {
        name: &'static str,
        idle: u64,
        gives: Vec<(Rung, u64)>,
        budget: &'a Cell<u64>,
    }

    impl Holder for Fake<'_> {
        fn idle(&self) -> Duration {
            Duration::from_secs(self.idle)
        }

        fn name(&self) -> &str {
            self.name
        }

        fn reclaim(&mut self, rung: Rung, bytes: Bytes) -> Freed {
            let found = self.gives.iter_mut().find(|(gives, _)| *gives == rung);
            let Some((_, has)) = found.filter(|(_, has)| *has > 0) else {
                return Freed::default();
            };
            let given = bytes.0.min(*has);
            *has -= given;
            if matches!(rung, Rung::ShrinkKv | Rung::Preempt) {
                self.budget.set(self.budget.get() + given);
            }
            Freed {
                bytes: Bytes(given),
                what: "given".to_owned(),
            }
        }
    }

    /// What is written down of a climb with two models, a third that can be unloaded for 100 bytes, and
    /// 7 bytes of the process.
    fn taken(goal: Goal, bytes: u64, up_to: Rung) -> (Vec<(Rung, &'static str, u64)>, u64) {
        let budget = Cell::new(0);
        let gives = vec![
            (Rung::TrimPools, 10),
            (Rung::DropPrefixes, 20),
            (Rung::ShrinkKv, 30),
            (Rung::Preempt, 40),
        ];
        let fake = |name, idle| Fake {
            name,
            idle,
            gives: gives.clone(),
            budget: &budget,
        };
        let mut holders = [fake("busy", 0), fake("idle", 60)];
        let written = RefCell::new(Vec::new());
        let third = Cell::new(true);
        let wanted = Climb {
            bytes: Bytes(bytes),
            goal,
            up_to,
            reason: "a test",
        };
        let returned = climb(
            &wanted,
            &mut holders,
            &mut Around {
                free: &mut || Bytes(budget.get()),
                trim: &mut |_| Freed {
                    bytes: Bytes(7),
                    what: "trimmed".to_owned(),
                },
                evict: &mut |_| match third.replace(false) {
                    true => {
                        budget.set(budget.get() + 100);
                        vec![Evicted {
                            model: "third".to_owned(),
                            bytes: Bytes(100),
                            reason: "unused".to_owned(),
                        }]
                    }
                    false => Vec::new(),
                },
                record: &mut |rung, model, bytes, reason| {
                    assert!(reason.ends_with(": a test"));
                    let names = ["busy", "idle", "third"];
                    let name = names
                        .into_iter()
                        .find(|name| model.as_deref() == Some(name));
                    written
                        .borrow_mut()
                        .push((rung, name.unwrap_or("process"), bytes.0));
                },
            },
        );
        let written = written.into_inner();
        let sum: u64 = written.iter().map(|(_, _, bytes)| bytes).sum();
        assert_eq!(returned.0, sum);
        (written, sum)
    }

    #[test]
    fn the_cheapest_rungs_of_the_longest_idle_come_first() {
        use Rung::*;
        let all = Refuse;
        assert_eq!(taken(Goal::System, 0, all).0, []);
        assert_eq!(taken(Goal::System, 5, all).0, [(TrimPools, "process", 7)]);
        let (written, _) = taken(Goal::System, 40, all);
        let expected = [
            (TrimPools, "process", 7),
            (TrimPools, "idle", 10),
            (TrimPools, "busy", 10),
            (DropPrefixes, "idle", 13),
        ];
        assert_eq!(written, expected);
        let (written, sum) = taken(Goal::System, 1000, all);
        let order: Vec<Rung> = written.iter().map(|(rung, _, _)| *rung).collect();
        assert!(order.is_sorted());
        assert_eq!(sum, 7 + 2 * (10 + 20 + 30 + 40) + 100);
    }

    #[test]
    fn what_may_be_taken_again_is_not_free_for_others() {
        use Rung::*;
        let (written, _) = taken(Goal::Budget, 45, EvictModel);
        let pools = (TrimPools, "process", 7);
        assert_eq!(
            written,
            [pools, (ShrinkKv, "idle", 30), (ShrinkKv, "busy", 15)]
        );
        let (written, _) = taken(Goal::Budget, 90, EvictModel);
        assert_eq!(written[3..], [(EvictModel, "third", 100)]);
        let (written, _) = taken(Goal::Budget, 200, EvictModel);
        assert_eq!(written.len(), 4, "no further than allowed");
        let (written, _) = taken(Goal::Budget, 190, Refuse);
        assert_eq!(written[4], (Preempt, "idle", 30));
        let (written, _) = taken(Goal::Budget, 500, ShrinkKv);
        assert_eq!(written.len(), 3);
    }
}
