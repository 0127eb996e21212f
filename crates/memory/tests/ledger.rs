//! The ledger against a naive oracle, and under threads.
//!
//! What must hold, whatever happens:
//! 1. The sum of grants never exceeds the budget, nor a ceiling, not by a byte and not for an instant.
//! 2. A floor can always be filled.
//! 3. What was granted is charged to the account and all above it; what is released is gone from all.
//! 4. A snapshot adds up exactly.
//! 5. A refusal says *never* exactly when releasing everything else would not help.

#![allow(clippy::unwrap_used, reason = "a test may")]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use bursar_memory::account::{Account, AccountOptions, Lifetime, Reservation};
use bursar_memory::faults::{self, Faults};
use bursar_memory::refusal::Verdict;
use bursar_memory::snapshot::AccountSnapshot;
use bursar_memory::{Bytes, Ledger};
use proptest::prelude::*;

fn options(floor: u64, ceiling: Option<u64>) -> AccountOptions {
    let options = AccountOptions::new(Lifetime::Episodic).floor(Bytes(floor));
    ceiling.map_or(options, |ceiling| options.ceiling(Bytes(ceiling)))
}

/// Point 4, for every account.
fn adds_up(account: &AccountSnapshot) {
    let children: Bytes = account.children.iter().map(|child| child.granted).sum();
    assert_eq!(account.granted, account.own + children, "{}", account.name);
    assert!(account.granted <= account.peak);
    assert!(
        account
            .ceiling
            .is_none_or(|ceiling| account.granted <= ceiling)
    );
    account.children.iter().for_each(adds_up);
    let leaves: Bytes = account.leaves().iter().map(|(_, bytes)| *bytes).sum();
    assert_eq!(leaves, account.granted);
}

#[test]
fn a_reservation_is_charged_all_the_way_up_and_released_on_drop() {
    let ledger = Ledger::new(Bytes(100));
    let model = ledger.root().child("model", Lifetime::Semantic);
    let weights = model.child("weights", Lifetime::Semantic);
    let mut held = weights.reserve(Bytes(60)).unwrap();
    assert_eq!(weights.name(), "process/model/weights");
    assert_eq!(
        [ledger.granted(), model.granted(), weights.granted()],
        [Bytes(60); 3]
    );
    held.grow(Bytes(40)).unwrap();
    assert_eq!((ledger.free(), held.bytes()), (Bytes(0), Bytes(100)));
    assert!(held.grow(Bytes(1)).is_err());
    held.shrink(Bytes(50));
    let part = held.split(Bytes(20));
    assert_eq!(
        (held.bytes(), part.bytes(), ledger.granted()),
        (Bytes(30), Bytes(20), Bytes(50))
    );
    held.merge(part).unwrap();
    let other = model.reserve(Bytes(5)).unwrap();
    assert!(held.merge(other).is_err());
    drop(held);
    assert_eq!(
        [ledger.granted(), model.granted(), weights.granted()],
        [Bytes(0); 3]
    );
    assert_eq!(
        (ledger.granted_peak(), weights.peak()),
        (Bytes(100), Bytes(100))
    );
}

#[test]
fn a_refusal_names_the_holders_and_the_remedy() {
    let ledger = Ledger::new(Bytes::gib(4));
    let root = ledger.root();
    let held: Vec<Reservation> = (1..=6)
        .map(|n| {
            root.child(format!("m{n}"), Lifetime::Semantic)
                .reserve(Bytes::mib(n * 100))
        })
        .map(Result::unwrap)
        .collect();
    let kv = root.child("kv", Lifetime::Episodic);
    let refusal = kv.reserve(Bytes::gib(3)).unwrap_err();
    assert_eq!(refusal.verdict, Verdict::NotNow);
    assert_eq!(refusal.free, Bytes::gib(4) - Bytes::mib(2100));
    let names: Vec<_> = refusal
        .holders
        .iter()
        .map(|holder| holder.name.as_str())
        .collect();
    assert_eq!(
        names,
        [
            "process/m6",
            "process/m5",
            "process/m4",
            "process/m3",
            "process/m2"
        ]
    );
    assert_eq!(
        refusal.to_string(),
        "process/kv asked for 3.0 GiB and 1.9 GiB is free of a budget of 4.0 GiB; the most is held \
         by process/m6 (600.0 MiB), process/m5 (500.0 MiB), process/m4 (400.0 MiB), process/m3 \
         (300.0 MiB), process/m2 (200.0 MiB); it fits once 1.1 GiB more is released"
    );
    drop(held);
    assert!(kv.reserve(Bytes::gib(3)).is_ok());
    let refusal = kv.reserve(Bytes::gib(5)).unwrap_err();
    assert_eq!(refusal.verdict, Verdict::Never);
    assert_eq!(
        refusal.to_string(),
        "process/kv asked for 5.0 GiB and 4.0 GiB is free of a budget of 4.0 GiB; it can never fit, \
         since at most 4.0 GiB can be free: give a budget of at least 5.0 GiB (--memory or \
         BURSAR_MEMORY), or ask for less"
    );
}

#[test]
fn a_ceiling_refuses_before_the_budget() {
    let ledger = Ledger::new(Bytes(1000));
    let tenant = ledger
        .root()
        .child_with("tenant", options(0, Some(300)))
        .unwrap();
    let request = tenant.child("request", Lifetime::Episodic);
    let held = request.reserve(Bytes(200)).unwrap();
    let refusal = request.reserve(Bytes(101)).unwrap_err();
    assert_eq!(
        (refusal.verdict, refusal.free),
        (Verdict::NotNow, Bytes(100))
    );
    assert_eq!(
        refusal.ceiling_hit.as_ref().map(|hit| hit.ceiling),
        Some(Bytes(300))
    );
    // A growth cannot count on its own bytes being released.
    let mut held = held;
    assert_eq!(held.grow(Bytes(101)).unwrap_err().verdict, Verdict::Never);
    let refusal = request.reserve(Bytes(301)).unwrap_err();
    assert_eq!(refusal.verdict, Verdict::Never);
    assert!(refusal.to_string().ends_with(
        "it can never fit, since at most 300 B can be free: raise that ceiling to at least 301 B, or \
         ask for less"
    ));
    assert_eq!(ledger.granted(), Bytes(200));
}

#[test]
fn a_floor_is_kept_for_its_account() {
    let ledger = Ledger::new(Bytes(100));
    let root = ledger.root();
    let kept = root.child_with("kept", options(40, None)).unwrap();
    let other = root.child("other", Lifetime::Episodic);
    assert_eq!(
        (ledger.granted(), ledger.promised(), ledger.free()),
        (Bytes(0), Bytes(40), Bytes(60))
    );
    let refusal = other.reserve(Bytes(61)).unwrap_err();
    assert_eq!(
        (refusal.verdict, refusal.free_at_best),
        (Verdict::Never, Bytes(60))
    );
    let _full = other.reserve(Bytes(60)).unwrap();
    assert_eq!(kept.free(), Bytes(40));
    let inside = kept.reserve(Bytes(40)).unwrap();
    let refusal = kept.reserve(Bytes(1)).unwrap_err();
    assert_eq!(refusal.verdict, Verdict::NotNow);
    drop(inside);
    assert!(other.reserve(Bytes(1)).is_err(), "the floor stays promised");
    drop(kept);
    assert_eq!(ledger.promised(), Bytes(0));
    assert!(other.reserve(Bytes(40)).is_ok());
    assert_eq!(
        root.child_with("greedy", options(41, None))
            .unwrap_err()
            .asked,
        Bytes(41)
    );
}

#[test]
fn siblings_of_one_name_are_told_apart() {
    let root = Ledger::new(Bytes(10)).root();
    let first = root.child("request", Lifetime::Episodic);
    let second = root.child("request", Lifetime::Episodic);
    assert_eq!(
        (first.name(), second.name()),
        ("process/request", "process/request#2")
    );
    drop(first);
    assert_eq!(
        root.child("request", Lifetime::Episodic).name(),
        "process/request"
    );
    assert_eq!(
        root.snapshot().children.len(),
        1,
        "only accounts still in use"
    );
}

#[test]
fn the_nth_ask_is_refused_once_or_from_then_on() {
    let run = |faults: Faults| {
        let faults = Arc::new(faults);
        let ledger = Ledger::with_faults(Bytes(100), Arc::clone(&faults));
        let root = ledger.root();
        let outcomes: Vec<bool> = (0..4).map(|_| root.reserve(Bytes(10)).is_ok()).collect();
        assert_eq!(ledger.granted(), Bytes(0));
        (outcomes, faults.asks())
    };
    assert_eq!(run(Faults::none()), (vec![true; 4], 4));
    assert_eq!(run(Faults::once(2)).0, [true, false, true, true]);
    assert_eq!(run(Faults::from(2)).0, [true, false, false, false]);
    let ledger = Ledger::with_faults(Bytes(100), Arc::new(Faults::from(1)));
    let refusal = ledger.root().reserve(Bytes(1)).unwrap_err();
    assert!(refusal.injected && refusal.verdict == Verdict::NotNow);
}

#[test]
fn a_sweep_refuses_every_ask_and_lifts_what_it_refuses() {
    let mut seen = Vec::new();
    let mut work = |faults: &Arc<Faults>| {
        let ledger = Ledger::with_faults(Bytes(100), Arc::clone(faults));
        let root = ledger.root();
        let mut line: Vec<bool> = (0..3).map(|_| root.reserve(Bytes(10)).is_ok()).collect();
        let floor = AccountOptions::new(Lifetime::Episodic).floor(Bytes(20));
        let child = root.child_with("child", floor);
        line.push(child.is_ok());
        // Nothing is not an ask.
        assert!(root.reserve(Bytes(0)).is_ok());
        faults.lift();
        let child = child.or_else(|_| root.child_with("child", floor)).unwrap();
        child.set_floor(Bytes(30)).unwrap();
        assert!(faults.asks() > 4);
        seen.push(line);
    };
    let swept = faults::sweep(faults::Sweep::Every, &mut work);
    assert_eq!((swept.asks, swept.runs, swept.struck), (5, 10, 8));
    // The three in one line are one place; what comes after the faults are lifted is never refused.
    let counts: Vec<u64> = swept.places.iter().map(|(_, times)| *times).collect();
    assert_eq!(counts, [3, 1, 1]);
    assert_eq!(swept.places[0].0.account, "process");
    assert!(swept.places[0].0.place.file().ends_with("ledger.rs"));
    let some = faults::sweep(faults::Sweep::Places, &mut work);
    assert_eq!((some.asks, some.runs), (5, 10));
    let (t, f) = (true, false);
    assert_eq!(seen[0], [t; 4]);
    assert_eq!(seen[1..3], [vec![f, t, t, t], vec![f; 4]]);
    assert_eq!(seen[7..9], [vec![t, t, t, f], vec![t, t, t, f]]);
}

// ---- against the oracle ----

/// The same books kept in the most obvious way: every question is answered by walking everything.
#[derive(Default)]
struct Oracle {
    budget: u64,
    accounts: Vec<OracleAccount>,
}

struct OracleAccount {
    parent: Option<usize>,
    floor: u64,
    ceiling: Option<u64>,
    own: u64,
    peak: u64,
}

impl Oracle {
    fn children(&self, of: usize) -> impl Iterator<Item = usize> {
        (0..self.accounts.len()).filter(move |child| self.accounts[*child].parent == Some(of))
    }

    fn granted(&self, of: usize) -> u64 {
        self.accounts[of].own
            + self
                .children(of)
                .map(|child| self.granted(child))
                .sum::<u64>()
    }

    fn claimed(&self, of: usize) -> u64 {
        self.accounts[of].own
            + self
                .children(of)
                .map(|child| self.share(child))
                .sum::<u64>()
    }

    fn share(&self, of: usize) -> u64 {
        self.claimed(of).max(self.accounts[of].floor)
    }

    fn limit(&self, of: usize) -> u64 {
        match self.accounts[of].parent {
            None => self.budget,
            Some(_) => self.accounts[of].ceiling.unwrap_or(u64::MAX),
        }
    }

    fn holds(&self) -> bool {
        (0..self.accounts.len()).all(|account| self.claimed(account) <= self.limit(account))
    }

    /// Charges if everything then still holds.
    fn reserve(&mut self, account: usize, bytes: u64) -> bool {
        self.accounts[account].own += bytes;
        if !self.holds() {
            self.accounts[account].own -= bytes;
            return false;
        }
        for account in 0..self.accounts.len() {
            let granted = self.granted(account);
            let peak = &mut self.accounts[account].peak;
            *peak = granted.max(*peak);
        }
        true
    }

    /// Would it fit if nothing at all were held?
    fn could_ever(&self, account: usize, bytes: u64) -> bool {
        let accounts = self
            .accounts
            .iter()
            .map(|a| OracleAccount { own: 0, ..*a })
            .collect();
        Oracle {
            budget: self.budget,
            accounts,
        }
        .reserve(account, bytes)
    }

    fn open(&mut self, parent: usize, floor: u64, ceiling: Option<u64>) -> bool {
        let ceiling = ceiling.map(|ceiling| ceiling.max(floor));
        self.accounts.push(OracleAccount {
            parent: Some(parent),
            floor,
            ceiling,
            own: 0,
            peak: 0,
        });
        let holds = self.holds();
        if !holds {
            self.accounts.pop();
        }
        holds
    }

    fn set_floor(&mut self, account: usize, floor: u64) -> bool {
        let before = std::mem::replace(&mut self.accounts[account].floor, floor);
        let ceiling = self.accounts[account].ceiling;
        let holds = ceiling.is_none_or(|ceiling| floor <= ceiling) && self.holds();
        if !holds {
            self.accounts[account].floor = before;
        }
        holds
    }
}

#[derive(Clone, Debug)]
enum Step {
    Open {
        parent: usize,
        floor: u64,
        ceiling: Option<u64>,
    },
    Reserve {
        account: usize,
        bytes: u64,
    },
    Release {
        held: usize,
    },
    Grow {
        held: usize,
        bytes: u64,
    },
    Shrink {
        held: usize,
        percent: u64,
    },
    SetFloor {
        account: usize,
        floor: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let index = 0..1000_usize;
    let bytes = prop_oneof![0..40_u64, 0..400_u64, Just(u64::MAX)];
    let step = prop_oneof![
        2 => (index.clone(), prop_oneof![Just(0), 0..100_u64], prop::option::of(0..500_u64))
            .prop_map(|(parent, floor, ceiling)| Step::Open { parent, floor, ceiling }),
        6 => (index.clone(), bytes.clone())
            .prop_map(|(account, bytes)| Step::Reserve { account, bytes }),
        3 => index.clone().prop_map(|held| Step::Release { held }),
        2 => (index.clone(), bytes).prop_map(|(held, bytes)| Step::Grow { held, bytes }),
        1 => (index.clone(), 0..=100_u64)
            .prop_map(|(held, percent)| Step::Shrink { held, percent }),
        2 => (index, prop_oneof![Just(0), 0..200_u64])
            .prop_map(|(account, floor)| Step::SetFloor { account, floor }),
    ];
    prop::collection::vec(step, 1..120)
}

fn check_against_oracle(budget: u64, steps: Vec<Step>) {
    let ledger = Ledger::new(Bytes(budget));
    let mut accounts: Vec<Account> = vec![ledger.root()];
    let mut oracle = Oracle {
        budget,
        accounts: Vec::new(),
    };
    oracle.accounts.push(OracleAccount {
        parent: None,
        floor: 0,
        ceiling: None,
        own: 0,
        peak: 0,
    });
    let mut held: Vec<(usize, Reservation)> = Vec::new();
    for step in steps {
        match step {
            Step::Open {
                parent,
                floor,
                ceiling,
            } => {
                let parent = parent % accounts.len();
                let opened = accounts[parent].child_with("a", options(floor, ceiling));
                assert_eq!(opened.is_ok(), oracle.open(parent, floor, ceiling));
                accounts.extend(opened.ok());
            }
            Step::Reserve { account, bytes } => {
                let account = account % accounts.len();
                let room = accounts[account].free();
                // A number no machine has: the oracle cannot add it, but knows the answer.
                let fits = bytes <= budget && oracle.reserve(account, bytes);
                match accounts[account].reserve(Bytes(bytes)) {
                    Ok(reservation) => {
                        assert!(fits && Bytes(bytes) <= room);
                        held.push((account, reservation));
                    }
                    Err(refusal) => {
                        assert!(!fits && refusal.asked > refusal.free && refusal.free == room);
                        let ever = bytes <= budget && oracle.could_ever(account, bytes);
                        assert_eq!(refusal.verdict == Verdict::NotNow, ever, "{refusal}");
                    }
                }
            }
            Step::Release { held: at } if !held.is_empty() => {
                let (account, reservation) = held.swap_remove(at % held.len());
                oracle.accounts[account].own -= reservation.bytes().0;
            }
            Step::Grow { held: at, bytes } if !held.is_empty() => {
                let at = at % held.len();
                let (account, reservation) = &mut held[at];
                let fits = bytes <= budget && oracle.reserve(*account, bytes);
                assert_eq!(reservation.grow(Bytes(bytes)).is_ok(), fits);
            }
            Step::Shrink { held: at, percent } if !held.is_empty() => {
                let at = at % held.len();
                let (account, reservation) = &mut held[at];
                let less = reservation.bytes().0 * percent / 100;
                reservation.shrink(Bytes(less));
                oracle.accounts[*account].own -= less;
            }
            Step::SetFloor { account, floor } if accounts.len() > 1 => {
                let account = 1 + account % (accounts.len() - 1);
                let fits = oracle.set_floor(account, floor);
                assert_eq!(accounts[account].set_floor(Bytes(floor)).is_ok(), fits);
                let kept = oracle.accounts[account].floor;
                assert_eq!(accounts[account].floor(), Bytes(kept));
            }
            _ => {}
        }
        assert!(oracle.holds());
        for (index, account) in accounts.iter().enumerate() {
            assert_eq!(account.granted(), Bytes(oracle.granted(index)));
            assert_eq!(account.peak(), Bytes(oracle.accounts[index].peak));
        }
        assert_eq!(ledger.free(), Bytes(budget - oracle.claimed(0)));
        adds_up(&ledger.snapshot());
    }
    drop(held);
    assert_eq!(ledger.granted(), Bytes::ZERO);
    drop(accounts);
    assert_eq!(
        ledger.free(),
        Bytes(budget),
        "floors of closed accounts are free again"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..Default::default() })]

    #[test]
    fn the_ledger_does_what_the_oracle_does(budget in 0..1000_u64, steps in steps()) {
        check_against_oracle(budget, steps);
    }
}

// ---- under threads ----

/// A small generator, so that each thread's run is its own and always the same.
struct Lcg(u64);

impl Lcg {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6364136223846793005)
            .wrapping_add(1442695040888963407);
        (self.0 >> 33) % n
    }
}

#[test]
fn threads_never_pass_the_budget_a_ceiling_or_a_floor() {
    const BUDGET: u64 = 10_000;
    const FLOOR: u64 = 2_000;
    const CEILING: u64 = 4_000;
    let ledger = Ledger::new(Bytes(BUDGET));
    let root = ledger.root();
    let floored = root.child_with("floored", options(FLOOR, None)).unwrap();
    let capped = root
        .child_with("capped", options(0, Some(CEILING)))
        .unwrap();
    let capped_leaf = capped.child("leaf", Lifetime::Episodic);
    let plain = root.child("plain", Lifetime::Episodic);
    // What is really held, added after each grant and taken off before each release: never more than
    // the books have.
    let held_all = AtomicU64::new(0);
    let held_capped = AtomicU64::new(0);
    let running = AtomicBool::new(true);
    let add = |sum: &AtomicU64, bytes: u64, limit: u64| {
        let now = sum.fetch_add(bytes, Ordering::SeqCst) + bytes;
        assert!(now <= limit, "{now} held of {limit}");
    };

    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..6_u64)
            .map(|seed| {
                let (account, is_capped) = match seed % 3 {
                    0 => (floored.clone(), false),
                    1 => (capped_leaf.clone(), true),
                    _ => (plain.clone(), false),
                };
                let (held_all, held_capped, add) = (&held_all, &held_capped, &add);
                scope.spawn(move || {
                    let mut random = Lcg(seed);
                    let mut mine: Vec<Reservation> = Vec::new();
                    let mut refused = 0_u32;
                    for _ in 0..20_000 {
                        if random.below(2) == 0 && !mine.is_empty() {
                            let gone = mine.swap_remove(random.below(mine.len() as u64) as usize);
                            held_all.fetch_sub(gone.bytes().0, Ordering::SeqCst);
                            if is_capped {
                                held_capped.fetch_sub(gone.bytes().0, Ordering::SeqCst);
                            }
                            continue;
                        }
                        let bytes = random.below(1_500);
                        match account.reserve(Bytes(bytes)) {
                            Ok(reservation) => {
                                add(held_all, bytes, BUDGET);
                                if is_capped {
                                    add(held_capped, bytes, CEILING);
                                }
                                mine.push(reservation);
                            }
                            Err(refusal) => {
                                refused += 1;
                                assert_eq!(refusal.verdict, Verdict::NotNow);
                            }
                        }
                    }
                    for gone in mine {
                        held_all.fetch_sub(gone.bytes().0, Ordering::SeqCst);
                        if is_capped {
                            held_capped.fetch_sub(gone.bytes().0, Ordering::SeqCst);
                        }
                    }
                    refused
                })
            })
            .collect();
        // One thread opens and closes accounts with floors and fills them: a promise always holds.
        let opener = {
            let root = root.clone();
            scope.spawn(move || {
                let mut filled = 0_u32;
                // Once the others are gone, it cannot but succeed.
                for attempt in 0.. {
                    if attempt >= 5_000 && filled > 0 {
                        break;
                    }
                    if let Ok(account) = root.child_with("brief", options(500, None)) {
                        let all = account.reserve(Bytes(500)).expect("a floor can be filled");
                        // Less is never refused; what it holds beyond goes when it is let go of.
                        account
                            .set_floor(Bytes(200))
                            .expect("a floor can be lowered");
                        drop(all);
                        let raised = account.set_floor(Bytes(800)).is_ok();
                        let floor = if raised { 800 } else { 200 };
                        let all = account.reserve(Bytes(floor)).expect("it can be filled");
                        drop(all);
                        filled += 1;
                    }
                }
                filled
            })
        };
        let watcher = {
            let (ledger, running) = (&ledger, &running);
            scope.spawn(move || {
                let mut seen = 0_u32;
                loop {
                    assert!(ledger.granted() <= ledger.budget());
                    let snapshot = ledger.snapshot();
                    assert!(snapshot.granted <= ledger.budget());
                    adds_up(&snapshot);
                    seen += 1;
                    if !running.load(Ordering::Acquire) {
                        return seen;
                    }
                }
            })
        };
        let refused: u32 = workers
            .into_iter()
            .map(|worker| worker.join().unwrap())
            .sum();
        let filled = opener.join().unwrap();
        running.store(false, Ordering::Release);
        assert!(
            refused > 0 && filled > 0,
            "{refused} refused, {filled} filled: too easy"
        );
        assert!(watcher.join().unwrap() > 0);
    });
    assert_eq!(ledger.granted(), Bytes::ZERO);
    assert!(ledger.granted_peak() <= ledger.budget());
    drop(floored);
    assert_eq!(ledger.free(), Bytes(BUDGET));
}
