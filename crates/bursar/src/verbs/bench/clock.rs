//! Times of things too short to be timed once: many in a batch, the cost of reading the clock taken
//! off, and the median of many batches.

use std::time::{Duration, Instant};

/// Readings of the clock from which its cost is taken.
const READINGS: usize = 10_001;

/// A clock whose own cost is known.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Clock {
    cost: Duration,
}

/// Several measurements of one thing.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Spread {
    /// The one in the middle.
    pub(crate) median: f64,
    /// The smallest.
    pub(crate) least: f64,
    /// The largest.
    pub(crate) most: f64,
    /// How many there are.
    pub(crate) count: usize,
}

impl Clock {
    /// Finds out what reading it costs.
    pub(crate) fn new() -> Clock {
        let mut costs: Vec<Duration> = (0..READINGS).map(|_| Instant::now().elapsed()).collect();
        costs.sort_unstable();
        Clock {
            cost: costs[READINGS / 2],
        }
    }

    /// Nanoseconds that `work` takes.
    pub(crate) fn nanoseconds(self, work: impl FnOnce()) -> f64 {
        let begun = Instant::now();
        work();
        begun.elapsed().saturating_sub(self.cost).as_nanos() as f64
    }
}

impl Spread {
    /// Of at least one measurement.
    pub(crate) fn of(mut measured: Vec<f64>) -> Spread {
        measured.sort_unstable_by(f64::total_cmp);
        let at = |place: usize| measured.get(place).copied().unwrap_or(f64::NAN);
        Spread {
            median: at(measured.len() / 2),
            least: at(0),
            most: at(measured.len().saturating_sub(1)),
            count: measured.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        let spread = Spread::of(vec![3.0, 1.0, 100.0, 2.0, 2.5]);
        assert_eq!(
            (spread.median, spread.least, spread.most),
            (2.5, 1.0, 100.0)
        );
        assert_eq!(spread.count, 5);
        assert!(Spread::of(Vec::new()).median.is_nan());
    }

    #[test]
    fn nothing_takes_no_time_to_speak_of() {
        let clock = Clock::new();
        let times = (0..101).map(|_| clock.nanoseconds(|| ())).collect();
        assert!(Spread::of(times).median < 10_000.0);
    }
}
