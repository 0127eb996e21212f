//! The way in: requests that wait for the engine's thread, how many may, and whether more are taken.

use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// What the handles and the engine's thread share.
#[derive(Debug)]
pub(crate) struct Inbox<R> {
    state: Mutex<State<R>>,
    /// The engine's thread sleeps on it when there is nothing to do.
    arrived: Condvar,
    /// Whoever waits for the engine to be empty sleeps on it.
    emptied: Condvar,
}

#[derive(Debug)]
struct State<R> {
    arrivals: VecDeque<R>,
    /// Requests that do not run yet, those the engine has already taken over included.
    waiting: usize,
    /// Requests in all, running ones included.
    inside: usize,
    /// When there was last nobody inside.
    busy_since: Instant,
    draining: bool,
    stopping: bool,
}

/// Why a request was not let in.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    Full { waiting: usize },
    Draining,
}

/// What the engine's thread finds.
#[derive(Debug)]
pub(crate) struct Taken<R> {
    pub(crate) arrivals: VecDeque<R>,
    pub(crate) stopping: bool,
}

/// A mutex whose data stay usable after a panic elsewhere: all changes under it are single steps.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<R> Inbox<R> {
    pub(crate) fn new() -> Self {
        Self {
            state: Mutex::new(State {
                arrivals: VecDeque::new(),
                waiting: 0,
                inside: 0,
                busy_since: Instant::now(),
                draining: false,
                stopping: false,
            }),
            arrived: Condvar::new(),
            emptied: Condvar::new(),
        }
    }

    /// Lets a request in, if fewer than `limit` wait.
    pub(crate) fn push(&self, limit: usize, request: impl FnOnce() -> R) -> Result<(), Closed> {
        let mut state = lock(&self.state);
        if state.draining || state.stopping {
            return Err(Closed::Draining);
        }
        if state.waiting >= limit {
            let waiting = state.waiting;
            return Err(Closed::Full { waiting });
        }
        if state.inside == 0 {
            state.busy_since = Instant::now();
        }
        state.arrivals.push_back(request());
        state.waiting += 1;
        state.inside += 1;
        drop(state);
        self.arrived.notify_one();
        Ok(())
    }

    /// What has arrived; sleeps until something has if `idle`.
    pub(crate) fn take(&self, idle: bool) -> Taken<R> {
        let mut state = lock(&self.state);
        while idle && state.arrivals.is_empty() && !state.stopping {
            let waited = self.arrived.wait(state);
            state = waited.unwrap_or_else(PoisonError::into_inner);
        }
        Taken {
            arrivals: std::mem::take(&mut state.arrivals),
            stopping: state.stopping,
        }
    }

    /// Tells how many wait and how many there are in all besides those that have not been taken.
    pub(crate) fn settle(&self, waiting: usize, running: usize) {
        let mut state = lock(&self.state);
        state.waiting = waiting + state.arrivals.len();
        state.inside = state.waiting + running;
        let empty = state.inside == 0;
        drop(state);
        if empty {
            self.emptied.notify_all();
        }
    }

    /// Requests that do not run yet.
    pub(crate) fn waiting(&self) -> usize {
        lock(&self.state).waiting
    }

    /// Requests in all.
    pub(crate) fn inside(&self) -> usize {
        lock(&self.state).inside
    }

    /// Since when somebody is inside; `None` if nobody is.
    pub(crate) fn busy_since(&self) -> Option<Instant> {
        let state = lock(&self.state);
        (state.inside > 0).then_some(state.busy_since)
    }

    /// Lets nothing more in.
    pub(crate) fn drain(&self) {
        lock(&self.state).draining = true;
    }

    /// Whether nothing more is let in.
    pub(crate) fn draining(&self) -> bool {
        let state = lock(&self.state);
        state.draining || state.stopping
    }

    /// Waits until nothing is inside; false if that takes longer.
    pub(crate) fn wait_empty(&self, deadline: Instant) -> bool {
        let mut state = lock(&self.state);
        while state.inside > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.emptied.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    /// Ends the engine's thread; what has not been taken is dropped, which tells its readers.
    pub(crate) fn stop(&self) {
        let mut state = lock(&self.state);
        state.stopping = true;
        let arrivals = std::mem::take(&mut state.arrivals);
        drop(state);
        drop(arrivals);
        self.arrived.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn those_who_wait_are_bounded_and_counted_until_they_end() {
        let inbox = Inbox::new();
        assert_eq!(inbox.busy_since(), None);
        assert_eq!(inbox.push(2, || 'a'), Ok(()));
        assert_eq!(inbox.push(2, || 'b'), Ok(()));
        assert_eq!(inbox.push(2, || 'c'), Err(Closed::Full { waiting: 2 }));
        let taken = inbox.take(true);
        assert_eq!((taken.arrivals, taken.stopping), (['a', 'b'].into(), false));
        // Taken, they still wait; one that runs makes room.
        assert_eq!(inbox.push(2, || 'c'), Err(Closed::Full { waiting: 2 }));
        inbox.settle(1, 1);
        assert_eq!(inbox.push(2, || 'c'), Ok(()));
        assert_eq!((inbox.waiting(), inbox.inside()), (2, 3));
        inbox.settle(0, 0);
        assert_eq!((inbox.waiting(), inbox.inside()), (1, 1));
        assert!(inbox.busy_since().is_some());
    }

    #[test]
    fn draining_lets_nobody_in_and_waits_for_those_inside() {
        let inbox = Inbox::new();
        assert_eq!(inbox.push(2, || 'a'), Ok(()));
        inbox.drain();
        assert_eq!(inbox.push(2, || 'b'), Err(Closed::Draining));
        assert!(!inbox.wait_empty(Instant::now()));
        let soon = Instant::now() + Duration::from_secs(60);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| inbox.wait_empty(soon));
            assert_eq!(inbox.take(false).arrivals.len(), 1);
            inbox.settle(0, 0);
            assert!(waiter.join().expect("no panic"));
        });
    }

    #[test]
    fn stopping_wakes_the_thread_and_drops_what_it_has_not_taken() {
        let inbox = Inbox::<char>::new();
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| inbox.take(true));
            inbox.stop();
            let taken = thread.join().expect("no panic");
            assert!(taken.stopping && taken.arrivals.is_empty());
        });
        let (sender, mut stream) = crate::reply::tokens(None);
        let inbox = Inbox::new();
        assert_eq!(inbox.push(1, || sender), Ok(()));
        inbox.stop();
        assert!(stream.recv_blocking().is_some(), "the reader is told");
        assert!(inbox.draining());
    }
}
