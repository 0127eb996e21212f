//! What wakes the engine's thread: one bell for all inboxes and messages, so that it sleeps without
//! looking around while there is nothing to do.

use std::sync::{Condvar, Mutex, PoisonError};

use crate::inbox::lock;

/// A bell that remembers having been rung.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: Mutex<bool>,
    heard: Condvar,
}

impl Bell {
    /// Wakes the thread, or keeps it from falling asleep. Comes after what it calls for has been put
    /// where the thread looks.
    pub(crate) fn ring(&self) {
        *lock(&self.rung) = true;
        self.heard.notify_one();
    }

    /// Forgets that it was rung; sleeps until it is if `idle`. Comes before the thread looks around:
    /// what is put there later rings again.
    pub(crate) fn answer(&self, idle: bool) {
        let mut rung = lock(&self.rung);
        while idle && !*rung {
            rung = self
                .heard
                .wait(rung)
                .unwrap_or_else(PoisonError::into_inner);
        }
        *rung = false;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_before_the_sleep_is_not_missed_and_counts_once() {
        let bell = Bell::default();
        bell.ring();
        bell.ring();
        bell.answer(true);
        bell.answer(false);
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| bell.answer(true));
            bell.ring();
            thread.join().expect("no panic");
        });
        assert!(!*lock(&bell.rung));
    }
}
