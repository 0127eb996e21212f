//! The way in: requests that wait for a model, how many may, and whether more are taken.

use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::bell::Bell;

/// What a model's handles and the engine's thread share.
#[derive(Debug)]
pub(crate) struct Inbox<R> {
    state: Mutex<State<R>>,
    /// Wakes the engine's thread.
    bell: Arc<Bell>,
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
    /// When the first came in, or the last left.
    since: Instant,
    draining: bool,
    stopping: bool,
}

/// Why a request was not let in.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Closed {
    Full { waiting: usize },
    Draining,
}

/// A mutex whose data stay usable after a panic elsewhere: all changes under it are single steps.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<R> Inbox<R> {
    pub(crate) fn new(bell: Arc<Bell>) -> Self {
        Self {
            state: Mutex::new(State {
                arrivals: VecDeque::new(),
                waiting: 0,
                inside: 0,
                since: Instant::now(),
                draining: false,
                stopping: false,
            }),
            bell,
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
            state.since = Instant::now();
        }
        state.arrivals.push_back(request());
        state.waiting += 1;
        state.inside += 1;
        drop(state);
        self.bell.ring();
        Ok(())
    }

    /// What has arrived.
    pub(crate) fn take(&self) -> VecDeque<R> {
        std::mem::take(&mut lock(&self.state).arrivals)
    }

    /// Tells how many wait and how many there are in all besides those that have not been taken.
    pub(crate) fn settle(&self, waiting: usize, running: usize) {
        let mut state = lock(&self.state);
        state.waiting = waiting + state.arrivals.len();
        let before = state.inside;
        state.inside = state.waiting + running;
        let empty = state.inside == 0;
        if empty && before > 0 {
            state.since = Instant::now();
        }
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
        (state.inside > 0).then_some(state.since)
    }

    /// Since when nobody is inside; `None` if somebody is.
    pub(crate) fn idle_since(&self) -> Option<Instant> {
        let state = lock(&self.state);
        (state.inside == 0).then_some(state.since)
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

    /// Lets nothing more in, for good; what has not been taken is dropped, which tells its readers.
    pub(crate) fn stop(&self) {
        let mut state = lock(&self.state);
        state.stopping = true;
        let arrivals = std::mem::take(&mut state.arrivals);
        drop(state);
        drop(arrivals);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn those_who_wait_are_bounded_and_counted_until_they_end() {
        let inbox = Inbox::new(Arc::default());
        assert_eq!(inbox.busy_since(), None);
        assert_eq!(inbox.push(2, || 'a'), Ok(()));
        assert_eq!(inbox.push(2, || 'b'), Ok(()));
        assert_eq!(inbox.push(2, || 'c'), Err(Closed::Full { waiting: 2 }));
        assert_eq!(inbox.take(), ['a', 'b']);
        assert_eq!(inbox.idle_since(), None);
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
        let inbox = Inbox::new(Arc::default());
        assert_eq!(inbox.push(2, || 'a'), Ok(()));
        inbox.drain();
        assert_eq!(inbox.push(2, || 'b'), Err(Closed::Draining));
        assert!(!inbox.wait_empty(Instant::now()));
        let soon = Instant::now() + Duration::from_secs(60);
        std::thread::scope(|scope| {
            let waiter = scope.spawn(|| inbox.wait_empty(soon));
            assert_eq!(inbox.take().len(), 1);
            inbox.settle(0, 0);
            assert!(waiter.join().expect("no panic"));
        });
    }

    #[test]
    fn who_comes_in_rings_and_the_last_to_leave_is_noted() {
        let bell = Arc::new(Bell::default());
        let inbox = Inbox::new(Arc::clone(&bell));
        let before = inbox.idle_since().expect("nobody is inside");
        assert_eq!(inbox.push(1, || 'a'), Ok(()));
        // Does not sleep.
        bell.answer(true);
        assert_eq!(inbox.take(), ['a']);
        inbox.settle(0, 0);
        assert!(inbox.idle_since().is_some_and(|since| since >= before));
    }

    #[test]
    fn stopping_drops_what_has_not_been_taken() {
        let (sender, mut stream) =
            crate::reply::tokens(crate::reply::RingSource::Heap, crate::reply::Lag::default());
        let inbox = Inbox::new(Arc::default());
        assert_eq!(inbox.push(1, || sender), Ok(()));
        inbox.stop();
        assert!(stream.recv_blocking().is_some(), "the reader is told");
        assert!(inbox.draining());
    }
}
