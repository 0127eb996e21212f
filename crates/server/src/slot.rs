//! The places of models: announced by name when the port opens, filled as each has been loaded.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bursar_engine::Purpose;

use crate::error::ApiError;
use crate::served::{Served, now};

/// A model that is there, or will be. Clones are the same place.
#[derive(Clone)]
pub struct Slot(Arc<Place>);

struct Place {
    id: String,
    purpose: Purpose,
    announced: Instant,
    /// Seconds since 1970.
    created: u64,
    /// Bytes of the file read so far, and all of them.
    read: AtomicU64,
    total: AtomicU64,
    /// When the last of them were read, in milliseconds since it was announced.
    moved_ms: AtomicU64,
    served: OnceLock<Served>,
}

/// Seconds that a client is told to wait at most; what will be true in a minute nobody knows.
const RETRY_SECONDS_MAX: u64 = 60;

impl Slot {
    /// A model that has still to be loaded.
    pub fn loading(id: &str, purpose: Purpose) -> Slot {
        Slot(Arc::new(Place {
            id: id.to_owned(),
            purpose,
            announced: Instant::now(),
            created: now(),
            read: AtomicU64::new(0),
            total: AtomicU64::new(0),
            moved_ms: AtomicU64::new(0),
            served: OnceLock::new(),
        }))
    }

    /// A model that has been loaded.
    pub fn loaded(served: Served) -> Slot {
        let slot = Slot::loading(served.engine.name(), served.engine.purpose());
        slot.fill(served);
        slot
    }

    /// So many bytes of the file have been read, of so many.
    pub fn progress(&self, read: u64, total: u64) {
        let place = &*self.0;
        place.read.store(read, Ordering::Relaxed);
        place.total.store(total, Ordering::Relaxed);
        place
            .moved_ms
            .store(millis(place.announced.elapsed()), Ordering::Relaxed);
    }

    /// The model has been loaded; only the first one counts.
    pub fn fill(&self, served: Served) {
        let _ = self.0.served.set(served);
    }

    pub(crate) fn id(&self) -> &str {
        &self.0.id
    }

    pub(crate) fn purpose(&self) -> Purpose {
        self.0.purpose
    }

    pub(crate) fn created(&self) -> u64 {
        self.0.created
    }

    /// The model, once it is there.
    pub(crate) fn served(&self) -> Option<&Served> {
        self.0.served.get()
    }

    /// The model, or word of when to come back.
    pub(crate) fn require(&self) -> Result<&Served, ApiError> {
        let wait = || ApiError::loading(self.id(), self.wait());
        self.served().ok_or_else(wait)
    }

    /// What it is doing, in a word.
    pub(crate) fn state(&self) -> &'static str {
        match self.served() {
            None => "loading",
            Some(served) if served.engine.snapshot().alive => "loaded",
            Some(_) => "failed",
        }
    }

    /// How much of the file has been read, 0 to 1.
    pub(crate) fn ratio(&self) -> f64 {
        let total = self.0.total.load(Ordering::Relaxed);
        self.0.read.load(Ordering::Relaxed) as f64 / (total as f64).max(1.0)
    }

    /// Time since anything was last read of a model that is still to be loaded.
    pub(crate) fn still(&self) -> Duration {
        let moved = Duration::from_millis(self.0.moved_ms.load(Ordering::Relaxed));
        self.0.announced.elapsed().saturating_sub(moved)
    }

    /// Seconds that the rest will take, if it goes on as it has.
    fn wait(&self) -> u64 {
        rest_seconds(self.0.announced.elapsed(), self.ratio())
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

fn rest_seconds(passed: Duration, ratio: f64) -> u64 {
    let ratio = ratio.clamp(0.0, 1.0);
    let rest = passed.as_secs_f64() * (1.0 - ratio) / ratio.max(1e-3);
    // A float beyond the range becomes the largest integer.
    (rest.ceil() as u64).clamp(1, RETRY_SECONDS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_told_from_what_has_passed() {
        let wait = |seconds, ratio| rest_seconds(Duration::from_secs(seconds), ratio);
        assert_eq!(wait(0, 0.0), 1);
        assert_eq!(wait(10, 0.5), 10);
        assert_eq!(wait(10, 0.99), 1);
        assert_eq!(wait(1000, 0.0), RETRY_SECONDS_MAX);
        assert_eq!(wait(10, 2.0), 1);
    }

    #[test]
    fn a_model_that_loads_tells_how_far_it_is_and_sends_requests_away() {
        let slot = Slot::loading("m", Purpose::Generate);
        assert_eq!(slot.ratio(), 0.0);
        slot.clone().progress(30, 40);
        assert_eq!(slot.ratio(), 0.75);
        assert!(slot.still() < Duration::from_secs(60));
        let Err(error) = slot.require() else {
            panic!("not there yet");
        };
        assert_eq!(error.status().as_u16(), 503);
        assert!(error.to_string().contains('m'));
    }
}
