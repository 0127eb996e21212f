//! Accounts and the reservations made on them: the only way to be allowed bytes.

use std::fmt;
use std::sync::Arc;

use crate::bytes::Bytes;
use crate::node::{Node, lock};
use crate::refusal::Refusal;
use crate::snapshot::AccountSnapshot;

/// How long what an account holds is meant to live.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Lifetime {
    /// Plans and step scratch: as long as a program runs.
    Procedural,
    /// One request.
    Episodic,
    /// Shared knowledge: weights, vocabularies, cached prefixes.
    Semantic,
    /// Pinned or prioritised by someone.
    Emotional,
}

impl Lifetime {
    /// All there are.
    pub const ALL: [Lifetime; 4] = [
        Lifetime::Procedural,
        Lifetime::Episodic,
        Lifetime::Semantic,
        Lifetime::Emotional,
    ];

    /// The word as it appears in reports: `semantic`.
    pub const fn name(self) -> &'static str {
        match self {
            Lifetime::Procedural => "procedural",
            Lifetime::Episodic => "episodic",
            Lifetime::Semantic => "semantic",
            Lifetime::Emotional => "emotional",
        }
    }
}

impl fmt::Display for Lifetime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What an account is opened with.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct AccountOptions {
    /// How long its bytes are meant to live.
    pub lifetime: Lifetime,
    /// Bytes guaranteed to it: no other account is granted them, used or not.
    pub floor: Bytes,
    /// The most that it and its children may hold together; a ceiling below the floor is raised
    /// to it.
    pub ceiling: Option<Bytes>,
    /// Who goes last when something must go: higher stays longer. The ledger only carries it.
    pub priority: i32,
}

impl AccountOptions {
    /// No floor, no ceiling, priority 0.
    pub const fn new(lifetime: Lifetime) -> AccountOptions {
        AccountOptions {
            lifetime,
            floor: Bytes::ZERO,
            ceiling: None,
            priority: 0,
        }
    }

    /// With bytes guaranteed.
    pub const fn floor(self, floor: Bytes) -> AccountOptions {
        AccountOptions { floor, ..self }
    }

    /// With a most.
    pub const fn ceiling(self, ceiling: Bytes) -> AccountOptions {
        AccountOptions {
            ceiling: Some(ceiling),
            ..self
        }
    }

    /// With a priority.
    pub const fn priority(self, priority: i32) -> AccountOptions {
        AccountOptions { priority, ..self }
    }
}

/// One name in the books, with everything below it. Cheap to clone: all clones are the same account.
///
/// An account leaves the books when its handles, its reservations and its children are gone.
#[derive(Clone)]
pub struct Account(pub(crate) Arc<Node>);

impl Account {
    /// Opens an account below this one, with neither floor nor ceiling.
    ///
    /// A sibling of the same name gets `#2`, `#3`, ... appended.
    pub fn child(&self, name: impl Into<String>, lifetime: Lifetime) -> Account {
        let opened = self.0.open(&name.into(), lifetime, 0, 0, None);
        Account(opened.expect("only a floor can be refused"))
    }

    /// Opens an account below this one.
    ///
    /// # Errors
    /// Where the floor cannot be guaranteed.
    #[track_caller]
    pub fn child_with(
        &self,
        name: impl Into<String>,
        options: AccountOptions,
    ) -> Result<Account, Refusal> {
        let AccountOptions {
            lifetime,
            floor,
            ceiling,
            priority,
        } = options;
        self.0
            .open(
                &name.into(),
                lifetime,
                priority,
                floor.0,
                ceiling.map(|c| c.0),
            )
            .map(Account)
    }

    /// Grants `bytes`, charged to this account and all above it in one go: wholly or not at all.
    /// Lock-free.
    ///
    /// # Errors
    /// Where a ceiling or the budget has no room; nothing is charged then.
    #[track_caller]
    pub fn reserve(&self, bytes: Bytes) -> Result<Reservation, Refusal> {
        self.0.reserve(bytes.0, 0)?;
        Ok(Reservation {
            account: self.clone(),
            bytes: bytes.0,
        })
    }

    /// The path: `process/model/weights`.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The lifetime it was opened with.
    pub fn lifetime(&self) -> Lifetime {
        self.0.lifetime
    }

    /// The priority it was opened with.
    pub fn priority(&self) -> i32 {
        self.0.priority
    }

    /// Bytes guaranteed to it.
    pub fn floor(&self) -> Bytes {
        Bytes(self.0.floor())
    }

    /// What it and its children hold or are guaranteed: nobody else is granted any of it.
    pub fn claimed(&self) -> Bytes {
        Bytes(self.0.claimed().max(self.0.floor()))
    }

    /// Guarantees more or fewer bytes to it. What it holds beyond a lower floor stays its own until it
    /// lets go of it. Holds up all reservations for a moment: for decisions, not for steps.
    ///
    /// # Errors
    /// Where more cannot be guaranteed; the floor is what it was then.
    #[track_caller]
    pub fn set_floor(&self, floor: Bytes) -> Result<(), Refusal> {
        self.0.set_floor(floor.0)
    }

    /// What it and its children hold now.
    pub fn granted(&self) -> Bytes {
        Bytes(self.0.granted())
    }

    /// The most that it and its children held at one moment.
    pub fn peak(&self) -> Bytes {
        Bytes(self.0.peak())
    }

    /// The most that could be granted to it now.
    pub fn free(&self) -> Bytes {
        Bytes(self.0.room())
    }

    /// What was last measured of it, children included.
    pub fn measured(&self) -> Option<Bytes> {
        *lock(&self.0.measured)
    }

    /// Notes what has been measured of it, children included, to be shown beside what was granted.
    pub fn set_measured(&self, bytes: Bytes) {
        *lock(&self.0.measured) = Some(bytes);
    }

    /// It and everything below it at one moment.
    pub fn snapshot(&self) -> AccountSnapshot {
        self.0.snapshot()
    }
}

impl fmt::Debug for Account {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Account({}, {})", self.name(), self.granted())
    }
}

/// Bytes granted to an account, given back when dropped.
#[derive(Debug)]
#[must_use = "a reservation that is dropped is given back"]
pub struct Reservation {
    account: Account,
    bytes: u64,
}

impl Reservation {
    /// How many.
    pub fn bytes(&self) -> Bytes {
        Bytes(self.bytes)
    }

    /// Whose.
    pub fn account(&self) -> &Account {
        &self.account
    }

    /// Adds `more` bytes to it.
    ///
    /// # Errors
    /// Where they do not fit; the reservation keeps what it had.
    #[track_caller]
    pub fn grow(&mut self, more: Bytes) -> Result<(), Refusal> {
        self.account.0.reserve(more.0, self.bytes)?;
        // No overflow: both are within the budget.
        self.bytes += more.0;
        Ok(())
    }

    /// Gives `less` bytes of it back.
    ///
    /// # Panics
    /// Where it holds fewer.
    pub fn shrink(&mut self, less: Bytes) {
        drop(self.split(less));
    }

    /// Takes `part` bytes of it out as a reservation of their own. Neither asks the ledger nor fails.
    ///
    /// # Panics
    /// Where it holds fewer.
    pub fn split(&mut self, part: Bytes) -> Reservation {
        assert!(
            part.0 <= self.bytes,
            "{part} cannot be taken out of a reservation of {} on {}",
            self.bytes(),
            self.account.name(),
        );
        self.bytes -= part.0;
        Reservation {
            account: self.account.clone(),
            bytes: part.0,
        }
    }

    /// Puts another reservation of the same account into this one.
    ///
    /// # Errors
    /// Gives the other back where it is of another account.
    pub fn merge(&mut self, mut other: Reservation) -> Result<(), Reservation> {
        if !Arc::ptr_eq(&self.account.0, &other.account.0) {
            return Err(other);
        }
        self.bytes += std::mem::take(&mut other.bytes);
        Ok(())
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.account.0.release(self.bytes);
    }
}
