//! The last events of one thread: written by it alone, read by anyone at any time, never locked.
//!
//! A sequence lock over words that are atomic each for themselves: the writer says which event it
//! begins and which it has ended; a reader copies, looks again, and leaves out what may have been
//! overwritten meanwhile.

use std::sync::atomic::{AtomicU64, Ordering, fence};

/// Events held.
pub(super) const EVENTS: usize = 8192;
/// Bytes of a ring.
pub(super) const BYTES: usize = EVENTS * size_of::<[AtomicU64; WORDS]>();
const WORDS: usize = 4;

/// What happened.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Nanoseconds since the registry's epoch.
    pub(super) at: u64,
    /// Nanoseconds that it took; `None` for a quantity at a moment.
    pub(super) took: Option<u64>,
    /// Which series it belongs to.
    pub(super) series: u32,
    /// How much was done in it, or the quantity.
    pub(super) value: u64,
}

impl Event {
    fn words(self) -> [u64; WORDS] {
        let kind = u64::from(self.took.is_some()) << 32;
        [
            self.at,
            self.took.unwrap_or(0),
            kind | u64::from(self.series),
            self.value,
        ]
    }

    fn of([at, took, kind, value]: [u64; WORDS]) -> Event {
        Event {
            at,
            took: (kind >> 32 != 0).then_some(took),
            // The lower half is a u32.
            series: (kind & u64::from(u32::MAX)) as u32,
            value,
        }
    }
}

/// A ring of events.
pub(super) struct Ring {
    slots: Box<[[AtomicU64; WORDS]]>,
    /// Events begun and ended since the ring was made.
    begun: AtomicU64,
    ended: AtomicU64,
    /// Events before this one are forgotten.
    first: AtomicU64,
}

impl Ring {
    pub(super) fn new(events: usize) -> Ring {
        Ring {
            slots: (0..events)
                .map(|_| [const { AtomicU64::new(0) }; WORDS])
                .collect(),
            begun: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            first: AtomicU64::new(0),
        }
    }

    /// Adds an event; the oldest goes where there is no room. For the ring's own thread alone: were
    /// there two, events would be mixed up, and nothing worse.
    pub(super) fn push(&self, event: Event) {
        let number = self.ended.load(Ordering::Relaxed);
        self.begun.store(number + 1, Ordering::Relaxed);
        // Who sees a word of this event sees that it was begun.
        fence(Ordering::Release);
        let slot = &self.slots[(number % self.slots.len() as u64) as usize];
        for (place, word) in slot.iter().zip(event.words()) {
            place.store(word, Ordering::Relaxed);
        }
        self.ended.store(number + 1, Ordering::Release);
    }

    /// Forgets what there is.
    pub(super) fn clear(&self) {
        self.first
            .store(self.ended.load(Ordering::Acquire), Ordering::Relaxed);
    }

    /// A copy of what there is, in order, and how many older ones have been overwritten.
    pub(super) fn events(&self) -> (Vec<Event>, u64) {
        let len = self.slots.len() as u64;
        let ended = self.ended.load(Ordering::Acquire);
        let first = self.first.load(Ordering::Relaxed);
        let from = first.max(ended.saturating_sub(len));
        let words: Vec<[u64; WORDS]> = (from..ended)
            .map(|number| {
                let slot = &self.slots[(number % len) as usize];
                std::array::from_fn(|word| slot[word].load(Ordering::Relaxed))
            })
            .collect();
        fence(Ordering::Acquire);
        // Events that began while these were copied have taken the places of the oldest.
        let sound = self.begun.load(Ordering::Relaxed).saturating_sub(len);
        let lost = sound.saturating_sub(from).min(ended - from);
        let events = words[lost as usize..].iter().copied().map(Event::of);
        (events.collect(), from + lost - first.min(from))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(number: u64) -> Event {
        Event {
            at: number,
            took: (!number.is_multiple_of(3)).then_some(number * 2),
            series: (number % 5) as u32,
            value: number * 7,
        }
    }

    #[test]
    fn the_last_events_are_there_in_order() {
        let ring = Ring::new(8);
        assert_eq!(ring.events(), (Vec::new(), 0));
        for count in 1..=30_u64 {
            ring.push(event(count - 1));
            let (events, lost) = ring.events();
            let from = count.saturating_sub(8);
            assert_eq!(lost, from);
            assert_eq!(events, (from..count).map(event).collect::<Vec<_>>());
        }
        ring.clear();
        assert_eq!(ring.events(), (Vec::new(), 0));
        ring.push(event(30));
        assert_eq!(ring.events(), (vec![event(30)], 0));
    }

    #[test]
    fn a_reader_beside_the_writer_sees_whole_events() {
        let ring = Ring::new(16);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for number in 0..200_000 {
                    ring.push(event(number));
                }
            });
            let mut seen = 0;
            while seen < 199_999 {
                let (events, _) = ring.events();
                for pair in events.windows(2) {
                    assert_eq!(pair[1].at, pair[0].at + 1);
                }
                for &found in &events {
                    assert_eq!(found, event(found.at));
                    seen = seen.max(found.at);
                }
            }
        });
    }
}
