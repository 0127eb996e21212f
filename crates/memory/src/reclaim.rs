//! The ladder on which memory is got back, and the books of it: which rung was taken, when, for whom,
//! why, and how much the operating system got back.
//!
//! What each rung does is up to who holds the memory; here is only their order, and what is written
//! down.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Mutex};

use crate::bytes::Bytes;
use crate::node::lock;

/// Events that are kept; the oldest gives way.
const EVENTS_KEPT: usize = 256;

/// What can be done when memory is short, in ascending order of what it costs those who are served.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Rung {
    /// Memory that stores nothing goes back: idle slabs, free pages of pools.
    TrimPools,
    /// Cached prefixes are forgotten: a later prompt may have to be computed again.
    DropPrefixes,
    /// Blocks of keys and values are moved together, and what comes free goes back.
    Compact,
    /// A model may hold fewer keys and values: fewer sequences run at once.
    ShrinkKv,
    /// Fewer tokens of prompts are computed at once.
    ShrinkPrefill,
    /// A model that nobody uses is unloaded; the next request for it loads it again.
    EvictModel,
    /// Running sequences give their blocks back and wait again.
    Preempt,
    /// A request waits for memory.
    Queue,
    /// A request is refused.
    Refuse,
}

impl Rung {
    /// All, the cheapest first.
    pub const ALL: [Rung; 9] = [
        Rung::TrimPools,
        Rung::DropPrefixes,
        Rung::Compact,
        Rung::ShrinkKv,
        Rung::ShrinkPrefill,
        Rung::EvictModel,
        Rung::Preempt,
        Rung::Queue,
        Rung::Refuse,
    ];

    /// The word as it appears in reports and metrics: `drop_prefixes`.
    pub const fn name(self) -> &'static str {
        match self {
            Rung::TrimPools => "trim_pools",
            Rung::DropPrefixes => "drop_prefixes",
            Rung::Compact => "compact",
            Rung::ShrinkKv => "shrink_kv",
            Rung::ShrinkPrefill => "shrink_prefill",
            Rung::EvictModel => "evict_model",
            Rung::Preempt => "preempt",
            Rung::Queue => "queue",
            Rung::Refuse => "refuse",
        }
    }
}

impl fmt::Display for Rung {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What taking a rung gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Freed {
    /// Bytes that the operating system got back.
    pub bytes: Bytes,
    /// What was done for that, in words; empty where nothing was.
    pub what: String,
}

/// A rung that was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReclaimEvent {
    /// When, in milliseconds since 1970.
    pub unix_ms: u64,
    /// Which.
    pub rung: Rung,
    /// Whose memory it was, or who has to wait; `None` where it was of no model.
    pub model: Option<String>,
    /// Bytes that the operating system got back; of a request that waits or is refused, 0.
    pub bytes: Bytes,
    /// What was done and why.
    pub reason: String,
}

/// Events of one kind in a row: of the same rung, for the same model, for the same reason.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecentEvents {
    /// How many.
    pub times: u64,
    /// The last of them, with the bytes of all.
    pub last: ReclaimEvent,
}

/// How often a rung was taken, and what it gave.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct RungTotal {
    /// Which.
    pub rung: Rung,
    /// Times since the start.
    pub times: u64,
    /// Bytes that the operating system got back, since the start.
    pub bytes: Bytes,
}

/// The books at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReclaimReport {
    /// One for each rung, in the order of [`Rung::ALL`].
    pub rungs: [RungTotal; Rung::ALL.len()],
    /// What was taken last, the latest first.
    pub recent: Vec<RecentEvents>,
}

/// Who writes down rungs and who reports them share these. Clones are the same books, and equal.
#[derive(Clone, Debug, Default)]
pub struct ReclaimBooks(Arc<Mutex<Pages>>);

impl PartialEq for ReclaimBooks {
    fn eq(&self, other: &ReclaimBooks) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

#[derive(Debug, Default)]
struct Pages {
    totals: [(u64, Bytes); Rung::ALL.len()],
    recent: VecDeque<RecentEvents>,
}

impl ReclaimBooks {
    /// Empty books.
    pub fn new() -> ReclaimBooks {
        ReclaimBooks::default()
    }

    /// Writes a rung down.
    pub fn record(&self, event: ReclaimEvent) {
        let mut pages = lock(&self.0);
        // The order of declaration is that of `ALL`.
        let (times, bytes) = &mut pages.totals[event.rung as usize];
        *times = times.saturating_add(1);
        *bytes = bytes.saturating_add(event.bytes);
        let alike = |other: &&mut RecentEvents| {
            let other = &other.last;
            (other.rung, &other.model, &other.reason) == (event.rung, &event.model, &event.reason)
        };
        if let Some(before) = pages.recent.back_mut().filter(alike) {
            before.times = before.times.saturating_add(1);
            before.last.bytes = before.last.bytes.saturating_add(event.bytes);
            before.last.unix_ms = event.unix_ms;
            return;
        }
        if pages.recent.len() == EVENTS_KEPT {
            pages.recent.pop_front();
        }
        pages.recent.push_back(RecentEvents {
            times: 1,
            last: event,
        });
    }

    /// What is written in them.
    pub fn report(&self) -> ReclaimReport {
        let pages = lock(&self.0);
        let total = |rung: Rung| {
            let (times, bytes) = pages.totals[rung as usize];
            RungTotal { rung, times, bytes }
        };
        ReclaimReport {
            rungs: Rung::ALL.map(total),
            recent: pages.recent.iter().rev().cloned().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rungs_are_counted_and_the_last_are_kept() {
        assert!(Rung::ALL.is_sorted());
        for (place, rung) in Rung::ALL.into_iter().enumerate() {
            assert_eq!(rung as usize, place);
        }
        let books = ReclaimBooks::new();
        let clone = books.clone();
        for at in 0..300 {
            clone.record(ReclaimEvent {
                unix_ms: at,
                rung: if at % 3 == 0 {
                    Rung::Compact
                } else {
                    Rung::Queue
                },
                model: (at % 2 == 0).then(|| "chat".to_owned()),
                bytes: Bytes(if at % 3 == 0 { 10 } else { 0 }),
                reason: format!("no {at}"),
            });
        }
        let report = books.report();
        let compact = report.rungs[Rung::Compact as usize];
        assert_eq!((compact.times, compact.bytes), (100, Bytes(1000)));
        assert_eq!(report.rungs[Rung::Queue as usize].times, 200);
        assert_eq!(report.rungs[Rung::Refuse as usize].times, 0);
        assert_eq!(report.recent.len(), EVENTS_KEPT);
        assert_eq!(report.recent[0].last.unix_ms, 299);
        assert_eq!(report.recent[255].last.unix_ms, 44);

        // The same again is one event.
        for at in 0..5 {
            books.record(ReclaimEvent {
                unix_ms: at,
                rung: Rung::Compact,
                model: None,
                bytes: Bytes(3),
                reason: "sparse".to_owned(),
            });
        }
        let latest = &books.report().recent[..2];
        assert_eq!((latest[0].times, latest[0].last.bytes), (5, Bytes(15)));
        assert_eq!((latest[0].last.unix_ms, latest[1].times), (4, 1));
        assert!(books == clone && books != ReclaimBooks::new());
    }
}
