//! Refusing the n-th reservation on purpose, so that a test can walk every path that a lack of
//! memory can take.
//!
//! [`for_each_fault!`](crate::for_each_fault) runs a piece of work once undisturbed to learn how many
//! asks it makes and from where, then once per ask with that ask refused, and once with it and all
//! that follow refused.

use std::collections::BTreeMap;
use std::fmt;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::node::lock;

/// Which asks of a ledger are refused although they would fit.
///
/// An ask is a reservation, a growth of one, an account opened with a floor, or a floor that rises; an ask
/// for nothing is none, because no budget refuses it.
#[derive(Debug)]
pub struct Faults {
    asks: AtomicU64,
    struck: AtomicU64,
    lifted: AtomicBool,
    refused: Refused,
    /// Who asked, in order; `None` where nobody wants to know.
    seen: Option<Mutex<Vec<Ask>>>,
}

#[derive(Copy, Clone, Debug)]
enum Refused {
    None,
    Once(u64),
    From(u64),
}

/// One ask of a ledger.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ask {
    /// Path of the account that was asked for.
    pub account: String,
    /// The line that asked.
    pub place: &'static Location<'static>,
}

impl fmt::Display for Ask {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {}", self.account, self.place)
    }
}

impl Faults {
    fn new(refused: Refused) -> Faults {
        Faults {
            asks: AtomicU64::new(0),
            struck: AtomicU64::new(0),
            lifted: AtomicBool::new(false),
            refused,
            seen: None,
        }
    }

    /// Counts the asks, refuses none.
    pub fn none() -> Faults {
        Faults::new(Refused::None)
    }

    /// Counts the asks and notes who made them, refuses none.
    pub fn watch() -> Faults {
        Faults {
            seen: Some(Mutex::default()),
            ..Faults::none()
        }
    }

    /// Refuses the `n`-th ask (the first is 1) and no other.
    pub fn once(n: u64) -> Faults {
        Faults::new(Refused::Once(n))
    }

    /// Refuses the `n`-th ask (the first is 1) and all that follow, until [`Faults::lift`].
    pub fn from(n: u64) -> Faults {
        Faults::new(Refused::From(n))
    }

    /// Refuses nothing from now on. Asks go on being counted.
    pub fn lift(&self) {
        self.lifted.store(true, Ordering::Relaxed);
    }

    /// How many asks have been made.
    pub fn asks(&self) -> u64 {
        self.asks.load(Ordering::Relaxed)
    }

    /// How many of them were refused on purpose.
    pub fn struck(&self) -> u64 {
        self.struck.load(Ordering::Relaxed)
    }

    /// Who asked, in order; empty unless it [watches](Faults::watch).
    pub fn seen(&self) -> Vec<Ask> {
        self.seen.as_ref().map_or(Vec::new(), |s| lock(s).clone())
    }

    /// Counts one ask; true where it is to be refused.
    pub(crate) fn strikes(&self, account: &str, place: &'static Location<'static>) -> bool {
        let ask = self.asks.fetch_add(1, Ordering::Relaxed) + 1;
        if let Some(seen) = &self.seen {
            lock(seen).push(Ask {
                account: account.to_owned(),
                place,
            });
        }
        let strikes = match self.refused {
            Refused::None => false,
            Refused::Once(n) => ask == n,
            Refused::From(n) => ask >= n,
        };
        let strikes = strikes && !self.lifted.load(Ordering::Relaxed);
        self.struck.fetch_add(u64::from(strikes), Ordering::Relaxed);
        strikes
    }
}

/// Which asks of a piece of work are refused, one run after the other.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Sweep {
    /// Every one of them.
    Every,
    /// The first, the middle and the last of each account and line that asks.
    Places,
}

/// What a sweep did.
#[derive(Clone, Debug)]
pub struct Swept {
    /// Asks of the undisturbed run.
    pub asks: u64,
    /// Accounts and lines that asked in it, with how often.
    pub places: Vec<(Ask, u64)>,
    /// Runs with faults.
    pub runs: u64,
    /// Runs in which a fault struck: work with threads may make fewer asks than the first time.
    pub struck: u64,
}

/// What [`for_each_fault!`](crate::for_each_fault) does, as a function.
///
/// # Panics
/// Where `work` does, having said on stderr which ask was refused.
pub fn sweep(sweep: Sweep, mut work: impl FnMut(&Arc<Faults>)) -> Swept {
    let calm = Arc::new(Faults::watch());
    work(&calm);
    let seen = calm.seen();
    let mut places: BTreeMap<&Ask, Vec<u64>> = BTreeMap::new();
    for (n, ask) in (1..).zip(&seen) {
        places.entry(ask).or_default().push(n);
    }
    let mut chosen: Vec<u64> = match sweep {
        Sweep::Every => (1..=calm.asks()).collect(),
        Sweep::Places => places
            .values()
            .flat_map(|asks| [asks[0], asks[asks.len() / 2], asks[asks.len() - 1]])
            .collect(),
    };
    chosen.sort_unstable();
    chosen.dedup();
    let mut swept = Swept {
        asks: calm.asks(),
        places: places
            .iter()
            .map(|(ask, asks)| ((*ask).clone(), asks.len() as u64))
            .collect(),
        runs: 0,
        struck: 0,
    };
    for n in chosen {
        for faults in [Faults::once(n), Faults::from(n)] {
            let faults = Arc::new(faults);
            let telling = Telling {
                refused: faults.refused,
                ask: &seen[n as usize - 1],
            };
            work(&faults);
            drop(telling);
            swept.runs += 1;
            swept.struck += u64::from(faults.struck() > 0);
        }
    }
    swept
}

/// Says which ask was refused when the work panics over it.
struct Telling<'a> {
    refused: Refused,
    ask: &'a Ask,
}

impl Drop for Telling<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("with {:?} refused: {}", self.refused, self.ask);
        }
    }
}

/// Runs a piece of work once undisturbed, then with its n-th ask refused once, and from there on: for
/// every n, or with `places` for some of every line that asks. Gives a [`Swept`](crate::faults::Swept).
///
/// The work makes its ledger [with the faults](crate::Ledger::with_faults) that it is given, and checks
/// what came of it. After [`Faults::lift`](crate::faults::Faults::lift) everything must go well again.
///
/// ```
/// use bursar_memory::{Bytes, Ledger, for_each_fault};
///
/// let swept = for_each_fault!(|faults| {
///     let ledger = Ledger::with_faults(Bytes(100), faults.clone());
///     let held = ledger.root().reserve(Bytes(10));
///     faults.lift();
///     assert!(held.is_ok() || ledger.root().reserve(Bytes(10)).is_ok());
/// });
/// assert_eq!((swept.asks, swept.runs), (1, 2));
/// ```
#[macro_export]
macro_rules! for_each_fault {
    (|$faults:ident| $work:expr) => {
        $crate::faults::sweep($crate::faults::Sweep::Every, |$faults| $work)
    };
    (places, |$faults:ident| $work:expr) => {
        $crate::faults::sweep($crate::faults::Sweep::Places, |$faults| $work)
    };
}
