//! The tree of accounts as numbers: how bytes are claimed and released without locks.
//!
//! Every node keeps two counts.
//!
//! * `claimed`: what its limit (the budget at the root, a ceiling below) is checked against: the
//!   grants in its subtree, where a child counts as at least its floor.
//! * `granted`: the grants in its subtree, floors not counted. Always at most `claimed`.
//!
//! ```text
//! share(child)  = max(child.claimed, child.floor)
//! node.claimed >= own grants of the node + sum of share(child)           (I)
//! node.claimed <= node.ceiling                                           (II)
//!
//! take(node, n):  claim at the parent whatever share(node) will rise by, then CAS node.claimed
//! give(node, n):  lower node.claimed, then give the parent whatever share(node) fell by
//! ```
//!
//! So a grant is claimed at the root first and at the leaf last, and released the other way round:
//! (I) and (II) hold after every single step of every thread, hence the sum of grants never passes
//! the budget, not even for an instant, and a floor can always be filled. The price: while a claim
//! that fails halfway is on its way back, another may be told *not now* although it would have fitted
//! an instant later.

use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::account::Lifetime;
use crate::bytes::Bytes;
use crate::faults::Faults;
use crate::refusal::{CeilingHit, Holder, Refusal, Verdict};
use crate::snapshot::AccountSnapshot;

/// How many of the largest holders a refusal names.
const HOLDERS_NAMED: usize = 5;

/// How often a snapshot is tried without holding anyone up.
const SNAPSHOT_TRIES: usize = 64;

/// What the nodes of one ledger share.
#[derive(Debug)]
pub(crate) struct Books {
    pub(crate) budget: u64,
    pub(crate) faults: Option<Arc<Faults>>,
    /// Changes under way, so that a snapshot can tell whether it saw a single moment:
    /// `bits 0..31` how many are under way, `bit 31` "paused", `bits 32..64` how many began (wraps).
    flights: AtomicU64,
    /// Held by a snapshot that has paused the changes, and awaited by the changes it paused.
    gate: Mutex<()>,
}

const FLIGHT: u64 = (1 << 32) | 1;
const FLIGHTS_MASK: u64 = (1 << 31) - 1;
const PAUSED: u64 = 1 << 31;

/// A change under way; snapshots are consistent because they see none.
struct Flight<'a>(&'a Books);

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        self.0.flights.fetch_sub(1, Ordering::AcqRel);
    }
}

impl Books {
    pub(crate) fn new(budget: u64, faults: Option<Arc<Faults>>) -> Books {
        Books {
            budget,
            faults,
            flights: AtomicU64::new(0),
            gate: Mutex::new(()),
        }
    }

    /// Announces a change. Lock-free, except while a snapshot that has starved for long is copying.
    fn flight(&self) -> Flight<'_> {
        loop {
            let before = self.flights.fetch_add(FLIGHT, Ordering::AcqRel);
            let flight = Flight(self);
            if before & PAUSED == 0 {
                return flight;
            }
            drop(flight);
            drop(lock(&self.gate));
        }
    }

    /// Runs `copy` at a moment when no change is under way. `copy` must not drop accounts.
    pub(crate) fn at_rest<T>(&self, mut copy: impl FnMut() -> T) -> T {
        for _ in 0..SNAPSHOT_TRIES {
            let before = self.flights.load(Ordering::Acquire);
            if before & (FLIGHTS_MASK | PAUSED) == 0 {
                let copied = copy();
                // Pairs with the acquire-release changes of the counts: whoever saw a count changed
                // by a flight sees that flight here.
                if self.flights.load(Ordering::Acquire) == before {
                    return copied;
                }
            }
            std::hint::spin_loop();
        }
        self.alone(copy)
    }

    /// Runs `change` while no other change is under way, and none begins. It must neither announce
    /// one nor drop accounts.
    fn alone<T>(&self, change: impl FnOnce() -> T) -> T {
        let _held = lock(&self.gate);
        self.flights.fetch_or(PAUSED, Ordering::AcqRel);
        while self.flights.load(Ordering::Acquire) & FLIGHTS_MASK != 0 {
            std::thread::yield_now();
        }
        let changed = change();
        // Counted like a change, so that no snapshot takes the moments before and after for one.
        self.flights.fetch_add(1 << 32, Ordering::AcqRel);
        self.flights.fetch_and(!PAUSED, Ordering::AcqRel);
        changed
    }
}

/// Nothing panics while these locks are held, and the data behind them stays whole anyway.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[derive(Debug)]
pub(crate) struct Node {
    /// Path from the root: `process/model/weights`.
    pub(crate) name: String,
    pub(crate) lifetime: Lifetime,
    pub(crate) priority: i32,
    /// Changed only while no change is under way: see [`Books::alone`].
    floor: AtomicU64,
    /// The root's is the budget.
    pub(crate) ceiling: Option<u64>,
    pub(crate) measured: Mutex<Option<Bytes>>,
    pub(crate) books: Arc<Books>,
    parent: Option<Arc<Node>>,
    children: Mutex<Vec<Weak<Node>>>,
    claimed: AtomicU64,
    granted: AtomicU64,
    peak: AtomicU64,
}

/// A node that had no room.
struct Full<'a>(&'a Node);

impl Node {
    pub(crate) fn root(name: String, books: Arc<Books>) -> Arc<Node> {
        Arc::new(Node {
            name,
            lifetime: Lifetime::Semantic,
            priority: 0,
            floor: AtomicU64::new(0),
            ceiling: Some(books.budget),
            measured: Mutex::new(None),
            books,
            parent: None,
            children: Mutex::default(),
            claimed: AtomicU64::new(0),
            granted: AtomicU64::new(0),
            peak: AtomicU64::new(0),
        })
    }

    /// Opens an account below this one; its floor is claimed at once and refused if it does not fit.
    #[track_caller]
    pub(crate) fn open(
        self: &Arc<Node>,
        name: &str,
        lifetime: Lifetime,
        priority: i32,
        floor: u64,
        ceiling: Option<u64>,
    ) -> Result<Arc<Node>, Refusal> {
        let ceiling = ceiling.map(|ceiling| ceiling.max(floor));
        if floor > 0 {
            self.check_faults(floor, Location::caller())?;
            let claimed = {
                let _flight = self.books.flight();
                self.take(floor).map_err(|full| full.0)
            };
            claimed.map_err(|full| self.refuse(floor, 0, full))?;
        }
        let mut children = lock(&self.children);
        // Kept alive here: dropping a node while its parent's list is held is fine, but pointless.
        let alive: Vec<Arc<Node>> = children.iter().filter_map(Weak::upgrade).collect();
        let path = |nth: usize| match nth {
            1 => format!("{}/{name}", self.name),
            _ => format!("{}/{name}#{nth}", self.name),
        };
        let taken = |path: &str| alive.iter().any(|node| node.name == path);
        let name = (1..=alive.len() + 1)
            .map(path)
            .find(|path| !taken(path))
            .expect("one more name than there are siblings");
        let node = Arc::new(Node {
            name,
            lifetime,
            priority,
            floor: AtomicU64::new(floor),
            ceiling,
            measured: Mutex::new(None),
            books: Arc::clone(&self.books),
            parent: Some(Arc::clone(self)),
            children: Mutex::default(),
            claimed: AtomicU64::new(0),
            granted: AtomicU64::new(0),
            peak: AtomicU64::new(0),
        });
        children.retain(|child| child.strong_count() > 0);
        children.push(Arc::downgrade(&node));
        drop(children);
        Ok(node)
    }

    /// Grants `bytes` to this account, or says why not. `held` is what a growing reservation
    /// already has.
    #[track_caller]
    pub(crate) fn reserve(&self, bytes: u64, held: u64) -> Result<(), Refusal> {
        if bytes > 0 {
            self.check_faults(bytes, Location::caller())?;
        }
        let full = {
            let _flight = self.books.flight();
            match self.take(bytes) {
                Ok(()) => {
                    for node in self.path() {
                        let now = node.granted.fetch_add(bytes, Ordering::AcqRel) + bytes;
                        if now > node.peak.load(Ordering::Relaxed) {
                            node.peak.fetch_max(now, Ordering::AcqRel);
                        }
                    }
                    return Ok(());
                }
                Err(full) => full.0,
            }
        };
        Err(self.refuse(bytes, held, full))
    }

    /// Takes back what [`Node::reserve`] granted.
    pub(crate) fn release(&self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let _flight = self.books.flight();
        for node in self.path() {
            node.granted.fetch_sub(bytes, Ordering::AcqRel);
        }
        self.give(bytes);
    }

    fn take(&self, bytes: u64) -> Result<(), Full<'_>> {
        // What the parent has already been charged for this claim.
        let mut funded = 0;
        let mut claimed = self.claimed.load(Ordering::Acquire);
        let floor = self.floor();
        let refund = |funded: u64| {
            if let Some(parent) = &self.parent {
                parent.give(funded);
            }
        };
        loop {
            let after = claimed
                .checked_add(bytes)
                .filter(|after| self.ceiling.is_none_or(|ceiling| *after <= ceiling));
            let Some(after) = after else {
                refund(funded);
                return Err(Full(self));
            };
            let rise = after.max(floor) - claimed.max(floor);
            if let Some(parent) = &self.parent
                && rise > funded
            {
                if let Err(full) = parent.take(rise - funded) {
                    refund(funded);
                    return Err(full);
                }
                funded = rise;
            }
            match self.claimed.compare_exchange_weak(
                claimed,
                after,
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => {
                    if funded > rise {
                        refund(funded - rise);
                    }
                    return Ok(());
                }
                Err(now) => claimed = now,
            }
        }
    }

    fn give(&self, bytes: u64) {
        if bytes == 0 {
            return;
        }
        let before = self.claimed.fetch_sub(bytes, Ordering::AcqRel);
        let after = before - bytes;
        if let Some(parent) = &self.parent {
            let floor = self.floor();
            parent.give(before.max(floor) - after.max(floor));
        }
    }

    /// Bytes guaranteed to this account.
    pub(crate) fn floor(&self) -> u64 {
        // Changed between two changes only, which order it.
        self.floor.load(Ordering::Relaxed)
    }

    /// Guarantees more or fewer bytes to this account. Fewer are never refused.
    #[track_caller]
    pub(crate) fn set_floor(&self, floor: u64) -> Result<(), Refusal> {
        let more = floor.saturating_sub(self.floor());
        if more > 0 {
            self.check_faults(more, Location::caller())?;
        }
        let changed = self.books.alone(|| {
            if self.ceiling.is_some_and(|ceiling| floor > ceiling) {
                return Err(Full(self));
            }
            let claimed = self.claimed();
            let (before, after) = (claimed.max(self.floor()), claimed.max(floor));
            if let Some(parent) = &self.parent {
                if after > before {
                    parent.take(after - before)?;
                } else {
                    parent.give(before - after);
                }
            }
            self.floor.store(floor, Ordering::Relaxed);
            Ok(())
        });
        changed.map_err(|full| self.refuse(more, 0, full.0))
    }

    fn check_faults(&self, bytes: u64, place: &'static Location<'static>) -> Result<(), Refusal> {
        match &self.books.faults {
            Some(faults) if faults.strikes(&self.name, place) => {
                let mut refusal = self.refuse(bytes, 0, self.top());
                refusal.verdict = Verdict::NotNow;
                refusal.ceiling_hit = None;
                refusal.injected = true;
                Err(refusal)
            }
            _ => Ok(()),
        }
    }

    /// This node and its ancestors up to the root.
    fn path(&self) -> impl Iterator<Item = &Node> {
        std::iter::successors(Some(self), |node| node.parent.as_deref())
    }

    fn top(&self) -> &Node {
        self.path().last().unwrap_or(self)
    }

    fn is_within(&self, other: &Node) -> bool {
        self.path().any(|node| std::ptr::eq(node, other))
    }

    pub(crate) fn granted(&self) -> u64 {
        self.granted.load(Ordering::Acquire)
    }

    pub(crate) fn peak(&self) -> u64 {
        self.peak.load(Ordering::Acquire)
    }

    /// Grants and floors promised: what is no longer free for others.
    pub(crate) fn claimed(&self) -> u64 {
        self.claimed.load(Ordering::Acquire)
    }

    /// The most that could be granted here now: the unfilled floor, and beyond it what the parent
    /// has, but never past the ceiling.
    pub(crate) fn room(&self) -> u64 {
        let claimed = self.claimed();
        let above = match &self.parent {
            Some(parent) => self
                .floor()
                .saturating_sub(claimed)
                .saturating_add(parent.room()),
            None => u64::MAX,
        };
        match self.ceiling {
            Some(ceiling) => above.min(ceiling.saturating_sub(claimed)),
            None => above,
        }
    }

    /// What this subtree claims when everything in it has been released.
    fn least(&self) -> u64 {
        self.floor()
            .max(self.children().iter().map(|child| child.least()).sum())
    }

    pub(crate) fn children(&self) -> Vec<Arc<Node>> {
        lock(&self.children)
            .iter()
            .filter_map(Weak::upgrade)
            .collect()
    }

    /// The most that could be granted here with everything else released, and the node whose limit
    /// that is.
    fn room_at_best(&self) -> (u64, &Node) {
        let (most, limit) = self.most_claimed();
        (most.saturating_sub(self.promised_below(None)), limit)
    }

    /// The most that this subtree can ever claim: what its parent's most leaves beside the floors of
    /// its siblings, or its own ceiling. With the node whose limit that is.
    fn most_claimed(&self) -> (u64, &Node) {
        let above = self.parent.as_deref().map(|parent| {
            let (most, limit) = parent.most_claimed();
            (
                most.saturating_sub(parent.promised_below(Some(self))),
                limit,
            )
        });
        match (above, self.ceiling) {
            (Some(above), Some(ceiling)) if above.0 <= ceiling => above,
            (Some(above), None) => above,
            (_, Some(ceiling)) => (ceiling, self),
            (None, None) => (u64::MAX, self),
        }
    }

    /// What the children claim, all but one of them, when everything has been released.
    fn promised_below(&self, but: Option<&Node>) -> u64 {
        self.children()
            .iter()
            .filter(|child| but.is_none_or(|but| !std::ptr::eq(&***child, but)))
            .map(|child| child.least())
            .sum()
    }

    fn refuse(&self, asked: u64, held: u64, full: &Node) -> Refusal {
        let (at_best, narrowest) = self.room_at_best();
        let at_best = at_best.saturating_sub(held);
        let (verdict, limit) = if asked > at_best {
            (Verdict::Never, narrowest)
        } else {
            (Verdict::NotNow, full)
        };
        let mut holders = Vec::new();
        limit.add_holders(&mut holders);
        holders.sort_by(|a, b| b.bytes.cmp(&a.bytes).then_with(|| a.name.cmp(&b.name)));
        holders.truncate(HOLDERS_NAMED);
        debug_assert!(self.is_within(limit));
        Refusal {
            account: self.name.clone(),
            asked: Bytes(asked),
            free: Bytes(self.room()),
            free_at_best: Bytes(at_best),
            budget: Bytes(self.books.budget),
            ceiling_hit: match (&limit.parent, limit.ceiling) {
                (Some(_), Some(ceiling)) => Some(Box::new(CeilingHit {
                    account: limit.name.clone(),
                    ceiling: Bytes(ceiling),
                })),
                _ => None,
            },
            holders,
            verdict,
            injected: false,
        }
    }

    /// Adds every account below that holds something itself. Not a single moment's picture: a
    /// refusal must not hold anyone up.
    fn add_holders(&self, holders: &mut Vec<Holder>) {
        let mut own = self.granted();
        for child in self.children() {
            own = own.saturating_sub(child.granted());
            child.add_holders(holders);
        }
        if own > 0 {
            holders.push(Holder {
                name: self.name.clone(),
                bytes: Bytes(own),
            });
        }
    }

    /// The subtree at one single moment.
    pub(crate) fn snapshot(self: &Arc<Node>) -> AccountSnapshot {
        let kept = Kept::gather(self);
        // `kept` outlives the copy, so no account can be dropped (and released) within it.
        self.books.at_rest(|| kept.copy())
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // The last account handle and reservation are gone, so nothing is granted here; the parent
        // still holds the floor.
        let floor = self.floor();
        if let Some(parent) = &self.parent
            && floor > 0
        {
            let _flight = self.books.flight();
            parent.give(floor);
        }
    }
}

/// A subtree whose nodes are kept alive.
struct Kept {
    node: Arc<Node>,
    children: Vec<Kept>,
}

impl Kept {
    fn gather(node: &Arc<Node>) -> Kept {
        let children = node.children().iter().map(Kept::gather).collect();
        Kept {
            node: Arc::clone(node),
            children,
        }
    }

    fn copy(&self) -> AccountSnapshot {
        let node = &self.node;
        let children: Vec<AccountSnapshot> = self.children.iter().map(Kept::copy).collect();
        let granted = Bytes(node.granted());
        let of_children: Bytes = children.iter().map(|child| child.granted).sum();
        AccountSnapshot {
            name: node.name.clone(),
            lifetime: node.lifetime,
            priority: node.priority,
            granted,
            // Saturates only in a copy that `at_rest` throws away.
            own: granted.saturating_sub(of_children),
            measured: *lock(&node.measured),
            peak: Bytes(node.peak()),
            floor: Bytes(node.floor()),
            ceiling: node.ceiling.map(Bytes),
            children,
        }
    }
}
