//! Refusing the n-th reservation on purpose, so that a test can walk every path that a lack of
//! memory can take.
//!
//! The usual test runs the work once with [`Faults::none`] to learn how many asks it makes, then once
//! per ask with [`Faults::once`] and [`Faults::from`], and checks after each that nothing leaked.

use std::sync::atomic::{AtomicU64, Ordering};

/// Which asks of a ledger are refused although they would fit.
///
/// An ask is a reservation, a growth of one, or an account opened with a floor.
#[derive(Debug)]
pub struct Faults {
    asks: AtomicU64,
    refused: Refused,
}

#[derive(Debug)]
enum Refused {
    None,
    Once(u64),
    From(u64),
}

impl Faults {
    fn new(refused: Refused) -> Faults {
        Faults {
            asks: AtomicU64::new(0),
            refused,
        }
    }

    /// Counts the asks, refuses none.
    pub fn none() -> Faults {
        Faults::new(Refused::None)
    }

    /// Refuses the `n`-th ask (the first is 1) and no other.
    pub fn once(n: u64) -> Faults {
        Faults::new(Refused::Once(n))
    }

    /// Refuses the `n`-th ask (the first is 1) and all that follow.
    pub fn from(n: u64) -> Faults {
        Faults::new(Refused::From(n))
    }

    /// How many asks have been made.
    pub fn asks(&self) -> u64 {
        self.asks.load(Ordering::Relaxed)
    }

    /// Counts one ask; true where it is to be refused.
    pub(crate) fn strikes(&self) -> bool {
        let ask = self.asks.fetch_add(1, Ordering::Relaxed) + 1;
        match self.refused {
            Refused::None => false,
            Refused::Once(n) => ask == n,
            Refused::From(n) => ask >= n,
        }
    }
}
