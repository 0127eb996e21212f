//! The ledger: one hard budget, and a tree of accounts that share it.
//!
//! Asking the ledger is the only step that can fail for lack of memory. Whatever holds bytes holds a
//! [`Reservation`](crate::account::Reservation) for them; the sum of all reservations never exceeds
//! the budget, not by a byte and not for an instant (how is written in `node.rs`).

use std::sync::Arc;

use crate::account::Account;
use crate::bytes::Bytes;
use crate::faults::Faults;
use crate::node::{Books, Node};
use crate::snapshot::AccountSnapshot;

/// A budget and who holds what of it. Cheap to clone: all clones are the same books.
#[derive(Clone, Debug)]
pub struct Ledger {
    root: Account,
}

impl Ledger {
    /// Opens the books with a budget that never changes. The root account is called `process`.
    pub fn new(budget: Bytes) -> Ledger {
        Ledger::build(budget, None)
    }

    /// A ledger that refuses on purpose what `faults` says. For tests.
    pub fn with_faults(budget: Bytes, faults: Arc<Faults>) -> Ledger {
        Ledger::build(budget, Some(faults))
    }

    fn build(budget: Bytes, faults: Option<Arc<Faults>>) -> Ledger {
        let books = Arc::new(Books::new(budget.0, faults));
        Ledger {
            root: Account(Node::root("process".to_owned(), books)),
        }
    }

    /// The account above all others.
    pub fn root(&self) -> Account {
        self.root.clone()
    }

    /// The most that can be granted.
    pub fn budget(&self) -> Bytes {
        Bytes(self.root.0.books.budget)
    }

    /// What is granted now.
    pub fn granted(&self) -> Bytes {
        self.root.granted()
    }

    /// The most that was granted at one moment.
    pub fn granted_peak(&self) -> Bytes {
        self.root.peak()
    }

    /// What is neither granted nor promised as a floor.
    pub fn free(&self) -> Bytes {
        self.root.free()
    }

    /// What is promised as floors and not granted yet.
    pub fn promised(&self) -> Bytes {
        // Read in this order the difference cannot come out negative for long; saturate for the
        // instant in which it could.
        let granted = self.root.0.granted();
        Bytes(self.root.0.claimed().saturating_sub(granted))
    }

    /// All accounts at one single moment. Never blocks a reservation unless changes come so fast
    /// that no quiet moment was found; then they wait for the copy.
    pub fn snapshot(&self) -> AccountSnapshot {
        self.root.snapshot()
    }
}
