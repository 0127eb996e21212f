//! What to change about pools, from their own figures: a pure function, so that it can be asked of a
//! running server and of a report that was kept.
//!
//! | figure | excellent | good | fair | poor |
//! |---|---|---|---|---|
//! | hit ratio: buffers that were there already | from 95 % | from 90 % | from 80 % | below |
//! | utilisation: bytes used of those held | 50 to 80 % | below 50 % | to 95 % | above |
//! | fallback: asks that no heap had room for | none | to 5 % | to 10 % | above |
//!
//! Changes are consistent with each other: never more heaps than may become, never a warm-up size that a
//! heap does not hold.

use std::time::Duration;

use crate::bytes::Bytes;

/// Fewer buffers than these say nothing about what is usual.
pub const ACQUIRED_MIN: u64 = 1000;
/// The part of heaps that is to be in use once a change has been made: the middle of what is excellent.
const UTILISATION_AIM: f64 = 0.65;
/// No heap is advised that is smaller.
const HEAP_MIN: Bytes = Bytes::kib(64);
/// Nor more heaps than these.
const HEAPS_MAX: u64 = 64;
/// Free memory in pieces: from this share on, and where no piece holds an average buffer, it is said.
const FRAGMENTATION_MAX: f64 = 0.5;

/// What a pool has done, as its report says.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub struct PoolFigures {
    /// Bytes of its heaps.
    pub capacity: Bytes,
    /// Bytes of them in use.
    pub used: Bytes,
    /// Heaps that it has.
    pub heaps: u64,
    /// Heaps that it may have, where known.
    pub heaps_max: Option<u64>,
    /// Buffers asked for.
    pub acquired: u64,
    /// The share of those that were there already.
    pub hit_ratio: f64,
    /// Asks that went to heaps, and those of them that no heap had room for.
    pub allocations: u64,
    /// See `allocations`.
    pub fallbacks: u64,
    /// The largest ask.
    pub largest: Bytes,
    /// The average ask.
    pub average: Bytes,
    /// The largest free piece of any heap.
    pub largest_free: Bytes,
    /// One less the largest free piece by all that is free.
    pub fragmentation_ratio: f64,
    /// Buffers of which nobody knows any more.
    pub leaked: u64,
}

/// How good a figure is.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Grade {
    /// Nothing to be done.
    Excellent,
    /// Nothing that has to be done.
    Good,
    /// Worth a change.
    Fair,
    /// To be changed.
    Poor,
}

impl Grade {
    /// In a word.
    pub const fn name(self) -> &'static str {
        match self {
            Grade::Excellent => "excellent",
            Grade::Good => "good",
            Grade::Fair => "fair",
            Grade::Poor => "poor",
        }
    }
}

/// What is said about one figure.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Its name in reports.
    pub figure: &'static str,
    /// What it is: a share, or a count.
    pub value: f64,
    /// How good that is.
    pub grade: Grade,
    /// What it means, and what helps.
    pub words: &'static str,
}

/// A setting, and what it should be.
#[derive(Clone, Debug, PartialEq)]
pub enum Change {
    /// Heaps to begin with.
    Heaps(u64),
    /// Heaps that there may be.
    HeapsMax(u64),
    /// Bytes of each heap.
    HeapSize(Bytes),
    /// Sizes to be there from the start.
    WarmUpSizes(Vec<Bytes>),
    /// How long buffers that nobody uses are kept.
    CleanUpInterval(Duration),
    /// Move together what is spread over many heaps, from this share of emptiness on.
    Compaction {
        /// The share.
        threshold: f64,
    },
}

/// All that is said about a pool.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Advice {
    /// Figure by figure.
    pub findings: Vec<Finding>,
    /// What to change; empty where all is well, or too little is known.
    pub changes: Vec<Change>,
}

/// How good a hit ratio is.
pub fn grade_hits(ratio: f64) -> Grade {
    match ratio {
        ratio if ratio >= 0.95 => Grade::Excellent,
        ratio if ratio >= 0.90 => Grade::Good,
        ratio if ratio >= 0.80 => Grade::Fair,
        _ => Grade::Poor,
    }
}

/// How good a utilisation is: half empty is no harm but to others, full is one.
pub fn grade_utilisation(ratio: f64) -> Grade {
    match ratio {
        ratio if ratio < 0.50 => Grade::Good,
        ratio if ratio <= 0.80 => Grade::Excellent,
        ratio if ratio <= 0.95 => Grade::Fair,
        _ => Grade::Poor,
    }
}

/// How good a share of asks that no heap had room for is.
pub fn grade_fallback(ratio: f64) -> Grade {
    match ratio {
        ratio if ratio <= 0.0 => Grade::Excellent,
        ratio if ratio <= 0.05 => Grade::Good,
        ratio if ratio <= 0.10 => Grade::Fair,
        _ => Grade::Poor,
    }
}

fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// What to change about a pool with these figures.
pub fn advise(figures: &PoolFigures) -> Advice {
    let utilisation = share(figures.used.0 as f64, figures.capacity.0 as f64);
    let fallback = share(figures.fallbacks as f64, figures.allocations as f64);
    let mut advice = Advice::default();
    if figures.leaked > 0 {
        advice.findings.push(Finding {
            figure: "leaked",
            value: figures.leaked as f64,
            grade: Grade::Poor,
            words: "buffers were never given back: a fault of the program; the report at its end names \
                    the place",
        });
    }
    if figures.acquired < ACQUIRED_MIN {
        advice.findings.push(Finding {
            figure: "acquired_total",
            value: figures.acquired as f64,
            grade: Grade::Good,
            words: "too few buffers were asked for to say what is usual: ask again after some load",
        });
        return advice;
    }
    let (hits, used, fell) = (
        grade_hits(figures.hit_ratio),
        grade_utilisation(utilisation),
        grade_fallback(fallback),
    );
    let too_large = figures.largest > heap_bytes(figures) && figures.fallbacks > 0;
    advice.findings.push(Finding {
        figure: "hit_ratio",
        value: figures.hit_ratio,
        grade: hits,
        words: match hits {
            Grade::Excellent => "nearly all buffers are there already",
            Grade::Good => "most buffers are there already",
            Grade::Fair => "buffers are given up too early: keep them longer",
            Grade::Poor => {
                "buffers are seldom there: keep them longer, and have the usual sizes ready"
            }
        },
    });
    advice.findings.push(Finding {
        figure: "utilisation_ratio",
        value: utilisation,
        grade: used,
        words: match used {
            Grade::Excellent => "heaps are as full as they should be",
            Grade::Good => "heaps are half empty: fewer would do",
            Grade::Fair => "heaps are nearly full: let there be more",
            Grade::Poor => "heaps are full: have more of them",
        },
    });
    advice.findings.push(Finding {
        figure: "fallback_ratio",
        value: fallback,
        grade: fell,
        words: match (fell, too_large) {
            (Grade::Excellent, _) => "heaps had room for every ask",
            (_, true) => "the largest asks fit no heap: have larger ones",
            (Grade::Good, _) => "heaps seldom had no room: let there be more",
            (Grade::Fair | Grade::Poor, _) => "heaps often had no room: have more of them",
        },
    });
    if figures.fragmentation_ratio > FRAGMENTATION_MAX && figures.largest_free < figures.average {
        advice.findings.push(Finding {
            figure: "fragmentation_ratio",
            value: figures.fragmentation_ratio,
            grade: Grade::Fair,
            words: "what is free lies in pieces smaller than an average buffer: move things together",
        });
        advice.changes.push(Change::Compaction { threshold: 0.2 });
    }
    size(figures, (used, fell), too_large, &mut advice.changes);
    keep(figures, hits, &mut advice.changes);
    advice
}

/// Bytes of one heap.
fn heap_bytes(figures: &PoolFigures) -> Bytes {
    Bytes(figures.capacity.0 / figures.heaps.max(1))
}

/// How large and how many heaps should be.
fn size(
    figures: &PoolFigures,
    (used, fell): (Grade, Grade),
    too_large: bool,
    changes: &mut Vec<Change>,
) {
    let before = heap_bytes(figures);
    if before.is_zero() {
        return;
    }
    let heap = match too_large {
        // Twice the largest ask, so that one of them does not fill a heap.
        true => round_up(Bytes(figures.largest.0.saturating_mul(2))),
        false => before,
    };
    if heap != before {
        changes.push(Change::HeapSize(heap));
    }
    // Heaps of the new size that hold what is in use with room to spare.
    let wanted = (figures.used.0 as f64 / UTILISATION_AIM / heap.0 as f64).ceil();
    let wanted = (wanted as u64).clamp(1, HEAPS_MAX);
    let heaps = match (used, fell) {
        (_, Grade::Fair | Grade::Poor) => wanted.max(figures.heaps.saturating_add(1)),
        (Grade::Poor, _) => wanted.max(figures.heaps),
        (Grade::Good, Grade::Excellent) => wanted.min(figures.heaps),
        _ => figures.heaps,
    };
    let heaps = heaps.clamp(1, HEAPS_MAX);
    let more = matches!(used, Grade::Fair | Grade::Poor) || fell > Grade::Excellent;
    let most = figures.heaps_max.unwrap_or(heaps);
    // Room to grow by half where it was short, and never fewer than there are to begin with.
    let most = match more {
        true => most.max(heaps.saturating_add(heaps.div_ceil(2))),
        false => most.max(heaps),
    };
    let most = most.clamp(heaps, HEAPS_MAX.max(heaps));
    if heaps != figures.heaps {
        changes.push(Change::Heaps(heaps));
    }
    if figures.heaps_max != Some(most) && (more || figures.heaps_max.is_some()) {
        changes.push(Change::HeapsMax(most));
    }
}

/// How long buffers should be kept, and which should be there from the start.
fn keep(figures: &PoolFigures, hits: Grade, changes: &mut Vec<Change>) {
    let minutes = match hits {
        Grade::Excellent | Grade::Good => return,
        Grade::Fair => 5,
        Grade::Poor => 15,
    };
    changes.push(Change::CleanUpInterval(Duration::from_secs(60 * minutes)));
    if hits != Grade::Poor {
        return;
    }
    let heap = changes.iter().find_map(|change| match change {
        Change::HeapSize(bytes) => Some(*bytes),
        _ => None,
    });
    let heap = heap.unwrap_or_else(|| heap_bytes(figures));
    let mut sizes: Vec<Bytes> = [figures.average, figures.largest]
        .into_iter()
        .filter(|bytes| !bytes.is_zero())
        .map(|bytes| Bytes(bytes.0.checked_next_power_of_two().unwrap_or(bytes.0)))
        // More than half a heap each would leave it no room for anything else.
        .filter(|bytes| bytes.0 <= heap.0 / 2)
        .collect();
    sizes.dedup();
    if !sizes.is_empty() {
        changes.push(Change::WarmUpSizes(sizes));
    }
}

/// The next power of two that is a size for a heap.
fn round_up(bytes: Bytes) -> Bytes {
    let bytes = bytes.max(HEAP_MIN).0;
    Bytes(bytes.checked_next_power_of_two().unwrap_or(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn usual() -> PoolFigures {
        PoolFigures {
            capacity: Bytes::mib(8),
            used: Bytes::mib(5),
            heaps: 2,
            heaps_max: Some(4),
            acquired: 100_000,
            hit_ratio: 0.97,
            allocations: 3000,
            fallbacks: 0,
            largest: Bytes::kib(300),
            average: Bytes::kib(20),
            largest_free: Bytes::mib(1),
            fragmentation_ratio: 0.1,
            leaked: 0,
        }
    }

    /// P4: on each side of each edge.
    #[test]
    fn grades_change_at_the_stated_edges() {
        use Grade::*;
        let check = |grade: fn(f64) -> Grade, table: &[(f64, Grade)]| {
            for (ratio, expected) in table {
                assert_eq!(grade(*ratio), *expected, "{ratio}");
            }
        };
        check(
            grade_hits,
            &[
                (1.0, Excellent),
                (0.95, Excellent),
                (0.9499, Good),
                (0.90, Good),
                (0.8999, Fair),
                (0.80, Fair),
                (0.7999, Poor),
                (0.0, Poor),
            ],
        );
        check(
            grade_utilisation,
            &[
                (0.0, Good),
                (0.4999, Good),
                (0.50, Excellent),
                (0.80, Excellent),
                (0.8001, Fair),
                (0.95, Fair),
                (0.9501, Poor),
                (1.0, Poor),
            ],
        );
        check(
            grade_fallback,
            &[
                (0.0, Excellent),
                (0.0001, Good),
                (0.05, Good),
                (0.0501, Fair),
                (0.10, Fair),
                (0.1001, Poor),
            ],
        );
    }

    #[track_caller]
    fn changes(change: impl FnOnce(&mut PoolFigures)) -> Vec<Change> {
        let mut figures = usual();
        change(&mut figures);
        advise(&figures).changes
    }

    /// P4
    #[test]
    fn each_trouble_has_its_remedy() {
        assert_eq!(changes(|_| {}), []);
        let minutes = |minutes: u64| Change::CleanUpInterval(Duration::from_secs(60 * minutes));
        assert_eq!(changes(|f| f.hit_ratio = 0.85), [minutes(5)]);
        let ready = Change::WarmUpSizes(vec![Bytes::kib(32), Bytes::kib(512)]);
        assert_eq!(changes(|f| f.hit_ratio = 0.5), [minutes(15), ready]);
        // 7 of 8 MiB: nearly full, let it grow.
        assert_eq!(
            changes(|f| {
                f.used = Bytes::mib(7);
                f.heaps_max = Some(2);
            }),
            [Change::HeapsMax(3)]
        );
        // All of it: three heaps of 4 MiB would be two thirds full.
        let full = changes(|f| {
            f.used = Bytes::mib(8);
            f.heaps_max = Some(2);
        });
        assert_eq!(full, [Change::Heaps(4), Change::HeapsMax(6)]);
        assert_eq!(changes(|f| f.used = Bytes::mib(1)), [Change::Heaps(1)]);
        let fell = changes(|f| f.fallbacks = 200);
        assert_eq!(fell, [Change::Heaps(3), Change::HeapsMax(5)]);
        let large = changes(|f| {
            f.fallbacks = 20;
            f.largest = Bytes::mib(5);
        });
        assert_eq!(large[0], Change::HeapSize(Bytes::mib(16)));
        let pieces = changes(|f| {
            f.fragmentation_ratio = 0.9;
            f.largest_free = Bytes::kib(4);
        });
        assert_eq!(pieces, [Change::Compaction { threshold: 0.2 }]);
    }

    #[test]
    fn little_is_said_of_little() {
        let mut figures = usual();
        figures.acquired = ACQUIRED_MIN - 1;
        figures.hit_ratio = 0.0;
        figures.leaked = 2;
        let advice = advise(&figures);
        assert_eq!(advice.changes, []);
        let said: Vec<_> = advice.findings.iter().map(|f| f.figure).collect();
        assert_eq!(said, ["leaked", "acquired_total"]);
    }

    prop_compose! {
        fn any_figures()(
            heap in 1u64..1 << 30, heaps in 0u64..200, heaps_max in prop::option::of(0u64..200),
            used in 0.0f64..1.2, acquired: u64, hit_ratio in 0.0f64..1.0,
            allocations in 0u64..10_000, fallbacks in 0u64..2000,
            largest in 0u64..1 << 34, average in 0u64..1 << 30,
            largest_free in 0u64..1 << 30, fragmentation_ratio in 0.0f64..1.0, leaked in 0u64..3,
        ) -> PoolFigures {
            let capacity = heap * heaps;
            PoolFigures {
                capacity: Bytes(capacity),
                used: Bytes((capacity as f64 * used) as u64),
                heaps, heaps_max, acquired, hit_ratio, allocations, fallbacks,
                largest: Bytes(largest), average: Bytes(average),
                largest_free: Bytes(largest_free), fragmentation_ratio, leaked,
            }
        }
    }

    proptest! {
        /// P4: whatever the figures are, the advice can be followed.
        #[test]
        fn changes_fit_together(figures in any_figures()) {
            let advice = advise(&figures);
            let mut heaps = figures.heaps;
            let mut most = figures.heaps_max;
            let mut heap = heap_bytes(&figures);
            for change in &advice.changes {
                match change {
                    Change::Heaps(count) => heaps = *count,
                    Change::HeapsMax(count) => most = Some(*count),
                    Change::HeapSize(bytes) => heap = *bytes,
                    _ => {}
                }
            }
            let sized = advice
                .changes
                .iter()
                .any(|change| matches!(change, Change::Heaps(_) | Change::HeapsMax(_)));
            if sized {
                prop_assert!((1..=HEAPS_MAX).contains(&heaps), "{:?}", advice);
                prop_assert!(most.is_none_or(|most| most >= heaps), "{:?}", advice);
            }
            for change in &advice.changes {
                if let Change::WarmUpSizes(sizes) = change {
                    prop_assert!(sizes.iter().all(|bytes| *bytes <= heap));
                }
            }
        }
    }
}
