//! How a job gets from the caller to the workers and back: one atomic word, and sleep around it.
//!
//! ```text
//! word = [ epoch: 46 | stop: 1 | open: 1 | inside: 16 ]
//!
//! caller   job := f; word := [epoch + 1, open, 0]; wake sleepers     (publish)
//!          run f itself
//!          word.open := 0; wait until word.inside == 0               (close)
//! worker   wait until word.epoch != seen                             (spin, then sleep)
//!          seen := word.epoch; if open: inside += 1                  (one compare-exchange)
//!          run f; inside -= 1; wake the caller if it sleeps and inside == 0
//! ```
//!
//! A worker that wakes up late finds the job closed and does not enter, so the caller never waits for a
//! thread that the system has not scheduled: with more threads than cores a join still takes only as long
//! as the work. `job` is only written while the word is closed with nobody inside, and only read by
//! somebody who is inside.
//!
//! Sleeping follows Dekker's pattern: the sleeper announces itself and then looks at the word again, the
//! waker changes the word and then looks for sleepers, all four sequentially consistent; the mutex closes
//! the gap between the second look and the sleep.
#![allow(unsafe_code)]

use std::any::Any;
use std::cell::UnsafeCell;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

const OPEN: u64 = 1 << 16;
const STOP: u64 = 1 << 17;
const EPOCH_SHIFT: u32 = 18;
const INSIDE: u64 = OPEN - 1;

/// How many threads a gate can count.
pub(crate) const THREADS_MAX: usize = INSIDE as usize;

/// Pauses between two looks at the clock.
const PAUSES_PER_LOOK: u32 = 32;

/// What workers run: called once with the worker's number.
type Job = dyn Fn(usize) + Sync;

/// A value alone on its pair of cache lines (processors prefetch lines in pairs).
#[repr(align(128))]
pub(crate) struct Padded<T>(pub(crate) T);

/// The meeting place of the caller and the workers.
pub(crate) struct Gate {
    word: Padded<AtomicU64>,
    job: UnsafeCell<Option<*const Job>>,
    /// Held by the caller from publishing to closing.
    busy: AtomicBool,
    sleepers: AtomicUsize,
    caller_sleeps: AtomicBool,
    lock: Mutex<()>,
    opened: Condvar,
    emptied: Condvar,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    spin: Duration,
}

// SAFETY: `job` is the only field that is not `Send + Sync` by itself. It is written only by the holder
// of `busy` while nobody is inside and the word is closed, and read only by those inside; the word's
// release store and acquiring compare-exchange order the two. What it points to is `Sync`.
unsafe impl Sync for Gate {}
// SAFETY: as above; the pointer is only followed while the frame it points to waits in `run`.
unsafe impl Send for Gate {}

fn epoch(word: u64) -> u64 {
    word >> EPOCH_SHIFT
}

impl Gate {
    /// A closed gate; whoever waits at it spins for `spin` before sleeping.
    pub(crate) fn new(spin: Duration) -> Self {
        Self {
            word: Padded(AtomicU64::new(0)),
            job: UnsafeCell::new(None),
            busy: AtomicBool::new(false),
            sleepers: AtomicUsize::new(0),
            caller_sleeps: AtomicBool::new(false),
            lock: Mutex::new(()),
            opened: Condvar::new(),
            emptied: Condvar::new(),
            panic: Mutex::new(None),
            spin,
        }
    }

    /// Workers asleep now.
    pub(crate) fn sleepers(&self) -> usize {
        self.sleepers.load(Ordering::Relaxed)
    }

    /// Runs `job(0)` here and `job(w)` on every worker that comes in time; with `until`, keeps the job
    /// open until that says true. Returns false, having run nothing, when a job is running already.
    ///
    /// # Panics
    /// With the payload of the first panic of `job`, after everyone has left it.
    pub(crate) fn run(
        &self,
        job: &(dyn Fn(usize) + Sync),
        until: Option<&dyn Fn() -> bool>,
    ) -> bool {
        if self.busy.swap(true, Ordering::Acquire) {
            return false;
        }
        // SAFETY: only the lifetime is erased. The pointer is followed by those inside only, and this
        // frame, which keeps the borrow alive, does not return or unwind before it has closed the gate
        // and seen nobody inside.
        let erased: *const Job =
            unsafe { std::mem::transmute::<*const (dyn Fn(usize) + Sync + '_), *const Job>(job) };
        // SAFETY: `busy` is ours, the word is closed and nobody is inside (the end of the last `run`).
        unsafe { *self.job.get() = Some(erased) };
        let next = epoch(self.word.0.load(Ordering::Relaxed)) + 1;
        self.word
            .0
            .store(next << EPOCH_SHIFT | OPEN, Ordering::SeqCst);
        if self.sleepers.load(Ordering::SeqCst) > 0 {
            let _guard = self.lock();
            self.opened.notify_all();
        }

        let mine = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(0)));
        if let Some(until) = until {
            self.wait_as_caller(until);
        }
        self.word.0.fetch_and(!OPEN, Ordering::SeqCst);
        self.wait_as_caller(&|| self.word.0.load(Ordering::SeqCst) & INSIDE == 0);

        let theirs = self
            .panic
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        self.busy.store(false, Ordering::Release);
        if let Some(payload) = mine.err().or(theirs) {
            std::panic::resume_unwind(payload);
        }
        true
    }

    /// What a worker thread does until [`Gate::stop`].
    pub(crate) fn serve(&self, worker: usize) {
        let mut seen = 0;
        loop {
            let word = self.wait_as_worker(seen);
            if word & STOP != 0 {
                return;
            }
            seen = epoch(word);
            if self.enter(seen) {
                // SAFETY: we are inside, so nobody writes `job`; our entering acquired the store that
                // opened the gate, before which it was written.
                let job = unsafe { *self.job.get() };
                // SAFETY: the caller's frame cannot end while we are inside (see `run`).
                let job = unsafe { &*job.expect("an open gate has a job") };
                let outcome =
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| job(worker)));
                if let Err(payload) = outcome {
                    let mut first = self.panic.lock().unwrap_or_else(PoisonError::into_inner);
                    if first.is_none() {
                        *first = Some(payload);
                    } else {
                        // Dropping it could panic again, out here.
                        std::mem::forget(payload);
                    }
                }
                self.leave();
            }
        }
    }

    /// Tells every worker to return.
    pub(crate) fn stop(&self) {
        self.word.0.fetch_or(STOP, Ordering::SeqCst);
        let _guard = self.lock();
        self.opened.notify_all();
    }

    fn enter(&self, epoch_seen: u64) -> bool {
        let mut word = self.word.0.load(Ordering::Relaxed);
        while epoch(word) == epoch_seen && word & OPEN != 0 {
            match self.word.0.compare_exchange_weak(
                word,
                word + 1,
                Ordering::AcqRel,
                Ordering::Relaxed,
            ) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
        false
    }

    fn leave(&self) {
        let before = self.word.0.fetch_sub(1, Ordering::SeqCst);
        if before & INSIDE == 1 && self.caller_sleeps.load(Ordering::SeqCst) {
            let _guard = self.lock();
            self.emptied.notify_all();
        }
    }

    /// Waits for an epoch other than `seen`, or the stop.
    fn wait_as_worker(&self, seen: u64) -> u64 {
        let news = || {
            let word = self.word.0.load(Ordering::SeqCst);
            (epoch(word) != seen || word & STOP != 0).then_some(word)
        };
        if let Some(word) = spin_for(self.spin, news) {
            return word;
        }
        let mut guard = self.lock();
        self.sleepers.fetch_add(1, Ordering::SeqCst);
        let word = loop {
            if let Some(word) = news() {
                break word;
            }
            guard = self
                .opened
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
        };
        self.sleepers.fetch_sub(1, Ordering::SeqCst);
        word
    }

    /// Waits until `done`, which can only become true by someone leaving.
    fn wait_as_caller(&self, done: &dyn Fn() -> bool) {
        if spin_for(self.spin, || done().then_some(())).is_some() {
            return;
        }
        let mut guard = self.lock();
        self.caller_sleeps.store(true, Ordering::SeqCst);
        while !done() {
            guard = self
                .emptied
                .wait(guard)
                .unwrap_or_else(PoisonError::into_inner);
        }
        self.caller_sleeps.store(false, Ordering::SeqCst);
    }

    fn lock(&self) -> MutexGuard<'_, ()> {
        self.lock.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks `ready` again and again for `limit`.
fn spin_for<T>(limit: Duration, ready: impl Fn() -> Option<T>) -> Option<T> {
    if let Some(value) = ready() {
        return Some(value);
    }
    if limit.is_zero() {
        return None;
    }
    let start = Instant::now();
    loop {
        for _ in 0..PAUSES_PER_LOOK {
            std::hint::spin_loop();
            if let Some(value) = ready() {
                return Some(value);
            }
        }
        if start.elapsed() >= limit {
            return None;
        }
    }
}
