//! What was taken and given back, when and by whom: recorded while a server runs, so that the settings
//! of its pools can be chosen by trying them on its own load.
//!
//! - here: the recorder, which the pools feed.
//! - `file`: a trace as data, and as JSON.
//! - `replay`: a trace run against pools set up one way or another.
//! - `picture`: a trace and its replay drawn over time.
//!
//! A recorder that is off costs the pools one relaxed load for each block. One that is on reads the
//! clock and writes 40 bytes under a lock; it keeps the last events there is room for.

pub mod file;
pub mod picture;
pub mod replay;

use std::collections::HashMap;
use std::panic::Location;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Instant;

use crate::account::{Account, Lifetime, Reservation};
use crate::bytes::Bytes;
use crate::node::lock;
use crate::refusal::Refusal;

pub use picture::picture;
pub use replay::{Replay, Way, replay};

pub use file::{Trace, TraceError, TraceEvent, TracedBlock};

/// Events that are kept where nobody says otherwise: 2.5 MiB of them.
pub const EVENTS_DEFAULT: usize = 1 << 16;

/// Records what pools hand out and take back. Cheap to clone: all clones are the same. Off until it is
/// started.
#[derive(Clone, Debug, Default)]
pub struct Recorder(Arc<Recording>);

#[derive(Debug, Default)]
struct Recording {
    on: AtomicBool,
    ring: Mutex<Option<Ring>>,
}

#[derive(Debug)]
struct Ring {
    begun: Instant,
    /// As long as its capacity at most; then the oldest is overwritten.
    events: Vec<Event>,
    capacity: usize,
    /// The oldest, once it is full.
    oldest: usize,
    lost: u64,
    _reservation: Reservation,
}

/// One block taken or given back.
#[derive(Copy, Clone, Debug)]
struct Event {
    time_ns: u64,
    /// Where the block is: who it is, from its take to its give.
    address: usize,
    len: usize,
    lifetime: Lifetime,
    /// `None` for a give.
    place: Option<&'static Location<'static>>,
}

impl Recorder {
    /// Begins to record; what was recorded before is dropped. The last `events` of them are kept, in
    /// memory charged to `account`, all of it taken now.
    ///
    /// # Errors
    /// Where the budget has no room for them.
    pub fn start(&self, events: usize, account: &Account) -> Result<(), Refusal> {
        let bytes = Bytes::from(events.saturating_mul(size_of::<Event>()));
        let reservation = account.reserve(bytes)?;
        *lock(&self.0.ring) = Some(Ring {
            begun: Instant::now(),
            events: Vec::with_capacity(events),
            capacity: events,
            oldest: 0,
            lost: 0,
            _reservation: reservation,
        });
        self.0.on.store(true, Ordering::Relaxed);
        Ok(())
    }

    /// Whether it records.
    #[inline]
    pub fn is_on(&self) -> bool {
        self.0.on.load(Ordering::Relaxed)
    }

    /// A block of `len` bytes has been taken at `address`.
    #[inline]
    pub fn take(
        &self,
        address: usize,
        len: usize,
        lifetime: Lifetime,
        place: &'static Location<'static>,
    ) {
        if self.is_on() {
            self.note(address, len, lifetime, Some(place));
        }
    }

    /// The block at `address` is about to be given back.
    #[inline]
    pub fn give(&self, address: usize) {
        if self.is_on() {
            self.note(address, 0, Lifetime::Episodic, None);
        }
    }

    /// What is recorded so far; `None` where nothing ever was. Recording goes on.
    pub fn trace(&self) -> Option<Trace> {
        lock(&self.0.ring).as_ref().map(Ring::trace)
    }

    /// Ends recording, and says what was recorded.
    pub fn stop(&self) -> Option<Trace> {
        self.0.on.store(false, Ordering::Relaxed);
        let ring = lock(&self.0.ring).take();
        ring.map(|ring| ring.trace())
    }

    #[cold]
    fn note(
        &self,
        address: usize,
        len: usize,
        lifetime: Lifetime,
        place: Option<&'static Location<'static>>,
    ) {
        // The clock is read under the lock: events lie in the order of their times.
        if let Some(ring) = lock(&self.0.ring).as_mut() {
            let time_ns = u64::try_from(ring.begun.elapsed().as_nanos()).unwrap_or(u64::MAX);
            ring.add(Event {
                time_ns,
                address,
                len,
                lifetime,
                place,
            });
        }
    }
}

impl Ring {
    fn add(&mut self, event: Event) {
        if self.events.len() < self.capacity {
            self.events.push(event);
            return;
        }
        self.lost += 1;
        // A ring without room keeps nothing.
        if let Some(oldest) = self.events.get_mut(self.oldest) {
            *oldest = event;
            self.oldest = (self.oldest + 1) % self.capacity;
        }
    }

    /// The events with blocks numbered instead of addressed. Gives whose take was lost are left out.
    fn trace(&self) -> Trace {
        let mut trace = Trace {
            lost_events: self.lost,
            ..Trace::default()
        };
        let mut places: HashMap<(&str, u32), u32> = HashMap::new();
        let mut out: HashMap<usize, u32> = HashMap::new();
        let (newer, older) = self.events.split_at(self.oldest);
        for event in older.iter().chain(newer) {
            let time_us = event.time_ns / 1000;
            match event.place {
                Some(place) => {
                    let known = places
                        .entry((place.file(), place.line()))
                        .or_insert_with(|| {
                            trace
                                .places
                                .push(format!("{}:{}", place.file(), place.line()));
                            // Fewer places than lines of a program.
                            (trace.places.len() - 1) as u32
                        });
                    let block = trace.take(
                        time_us,
                        TracedBlock {
                            bytes: event.len as u64,
                            lifetime: event.lifetime,
                            place: *known,
                        },
                    );
                    out.insert(event.address, block);
                }
                None => {
                    if let Some(block) = out.remove(&event.address) {
                        trace.give(time_us, block);
                    }
                }
            }
        }
        trace
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;

    #[test]
    fn takes_and_gives_are_paired_with_size_lifetime_and_place() {
        let ledger = Ledger::new(Bytes::mib(1));
        let recorder = Recorder::default();
        let place = Location::caller();
        recorder.take(64, 10, Lifetime::Semantic, place);
        assert_eq!(recorder.trace(), None);
        recorder.start(100, &ledger.root()).unwrap();
        assert_eq!(ledger.granted(), Bytes::from(100 * size_of::<Event>()));
        recorder.give(64);
        recorder.take(64, 11, Lifetime::Episodic, place);
        recorder.take(128, 12, Lifetime::Emotional, Location::caller());
        recorder.give(64);
        recorder.take(64, 13, Lifetime::Procedural, place);
        let trace = recorder.trace().unwrap();
        let events: Vec<(u32, bool)> = trace.events.iter().map(|e| (e.block, e.gives)).collect();
        assert_eq!(events, [(0, false), (1, false), (0, true), (2, false)]);
        let blocks: Vec<(u64, Lifetime, u32)> = trace
            .blocks
            .iter()
            .map(|b| (b.bytes, b.lifetime, b.place))
            .collect();
        let expected = [
            (11, Lifetime::Episodic, 0),
            (12, Lifetime::Emotional, 1),
            (13, Lifetime::Procedural, 0),
        ];
        assert_eq!(blocks, expected);
        assert!(trace.places[0].ends_with(&format!("trace.rs:{}", place.line())));
        assert!(recorder.stop().is_some());
        assert!(!recorder.is_on() && recorder.stop().is_none());
        assert_eq!(ledger.granted(), Bytes::ZERO);
    }

    #[test]
    fn the_last_events_are_kept_and_the_others_counted() {
        let ledger = Ledger::new(Bytes::mib(1));
        let recorder = Recorder::default();
        recorder.start(4, &ledger.root()).unwrap();
        for address in 0..5 {
            recorder.take(address, address, Lifetime::Episodic, Location::caller());
            recorder.give(address);
        }
        recorder.give(77);
        let trace = recorder.stop().unwrap();
        assert_eq!(trace.lost_events, 7);
        // The give of 3 lost its take; that of 77 never had one.
        let bytes: Vec<u64> = trace.blocks.iter().map(|block| block.bytes).collect();
        assert_eq!((bytes, trace.events.len()), (vec![4], 2));
        assert!(recorder.start(1 << 30, &ledger.root()).is_err());
        assert!(!recorder.is_on());
    }
}
