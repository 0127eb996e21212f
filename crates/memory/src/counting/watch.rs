//! Watching the allocator: a seal that notices who allocates though nobody should, and a clock that
//! says how long allocating takes. Both are off unless asked for, and cost one load then.

use std::cell::Cell;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// The seal is on.
const SEALED: u8 = 1;
/// The clock is on.
const TIMED: u8 = 2;

/// What is watched, and what was noticed.
#[derive(Debug)]
pub(super) struct Watch {
    flags: AtomicU8,
    /// Blocks asked for while the seal was on.
    breaches: AtomicU64,
    /// What is called at each of them.
    told: Mutex<Option<fn()>>,
    /// Nanoseconds in the allocator while the clock was on.
    time_ns: AtomicU64,
}

thread_local! {
    // Constant and without a destructor: reaching it never allocates.
    static EXEMPT: Cell<bool> = const { Cell::new(false) };
}

/// Whether the seal takes no notice of this thread from now on: of clients, say, who may do as they like.
pub fn exempt_this_thread(exempt: bool) {
    EXEMPT.with(|flag| flag.set(exempt));
}

impl Watch {
    pub(super) const fn new() -> Self {
        Self {
            flags: AtomicU8::new(0),
            breaches: AtomicU64::new(0),
            told: Mutex::new(None),
            time_ns: AtomicU64::new(0),
        }
    }

    /// Runs the allocator; `asks` if for a new block.
    pub(super) fn around<T>(&self, asks: bool, work: impl FnOnce() -> T) -> T {
        let flags = self.flags.load(Ordering::Relaxed);
        if flags == 0 {
            return work();
        }
        if asks && flags & SEALED != 0 && !EXEMPT.with(Cell::get) {
            self.breach();
        }
        if flags & TIMED == 0 {
            return work();
        }
        let start = Instant::now();
        let done = work();
        let time = start.elapsed().as_nanos() as u64;
        self.time_ns.fetch_add(time, Ordering::Relaxed);
        done
    }

    #[cold]
    fn breach(&self) {
        self.breaches.fetch_add(1, Ordering::Relaxed);
        let told = *self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(told) = told {
            // What it allocates itself is not told of.
            EXEMPT.with(|flag| flag.set(true));
            told();
            EXEMPT.with(|flag| flag.set(false));
        }
    }

    fn set(&self, flag: u8, on: bool) {
        match on {
            true => self.flags.fetch_or(flag, Ordering::SeqCst),
            false => self.flags.fetch_and(!flag, Ordering::SeqCst),
        };
    }

    pub(super) fn seal(&self, told: Option<fn()>) {
        *self.told.lock().unwrap_or_else(PoisonError::into_inner) = told;
        self.breaches.store(0, Ordering::SeqCst);
        self.set(SEALED, true);
    }

    pub(super) fn unseal(&self) -> u64 {
        self.set(SEALED, false);
        self.breaches.load(Ordering::SeqCst)
    }

    pub(super) fn time(&self, on: bool) {
        self.set(TIMED, on);
    }

    pub(super) fn timed(&self) -> Duration {
        Duration::from_nanos(self.time_ns.load(Ordering::Relaxed))
    }
}
