//! How long requests to a model took and how large they were, in histograms of a fixed size.
//!
//! They are written by the thread that hands events to clients, when a client gets to see one: nothing is
//! added to the engine's step. One model's take 912 bytes, whatever comes.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bursar_engine::Usage;

/// Buckets with a bound; one more holds the rest.
const BOUNDS: usize = 16;
/// All buckets.
pub(crate) const BUCKETS: usize = BOUNDS + 1;

/// Bounds of times, in microseconds: a millisecond to five minutes.
const TIMES_US: [u64; BOUNDS] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    30_000_000,
    60_000_000,
    300_000_000,
];

/// Bounds of tokens.
const TOKENS: [u64; BOUNDS] = [
    1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000,
];

/// Counts of values by size; a value that is equal to a bound is below it.
#[derive(Debug)]
pub(crate) struct Histogram {
    bounds: &'static [u64; BOUNDS],
    counts: [AtomicU64; BOUNDS + 1],
    sum: AtomicU64,
}

impl Histogram {
    fn new(bounds: &'static [u64; BOUNDS]) -> Histogram {
        Histogram {
            bounds,
            counts: Default::default(),
            sum: AtomicU64::new(0),
        }
    }

    /// Bounds of those that count times, in microseconds.
    pub(crate) fn time_bounds_us() -> &'static [u64] {
        &TIMES_US
    }

    fn observe(&self, value: u64) {
        let bucket = self.bounds.partition_point(|bound| *bound < value);
        self.counts[bucket].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// Bounds and what lies below each and above the one before; the last has none.
    pub(crate) fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounds = self.bounds.iter().copied().map(Some).chain([None]);
        let counts = self.counts.iter();
        bounds.zip(counts.map(|count| count.load(Ordering::Relaxed)))
    }

    /// All values together.
    pub(crate) fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }
}

/// How long requests to one model took, and how large they were.
#[derive(Debug)]
pub(crate) struct Timings {
    /// From a request's arrival until the engine let it in, in microseconds.
    pub(crate) queue: Histogram,
    /// From a request's arrival to its first token, in microseconds.
    pub(crate) first_token: Histogram,
    /// Between two tokens of an answer, in microseconds.
    pub(crate) between_tokens: Histogram,
    /// From a request's arrival to the end of its answers, in microseconds.
    pub(crate) whole: Histogram,
    /// Tokens of its prompts or texts.
    pub(crate) prompt_tokens: Histogram,
    /// Tokens of its answers.
    pub(crate) output_tokens: Histogram,
}

impl Timings {
    pub(crate) fn new() -> Timings {
        Timings {
            queue: Histogram::new(&TIMES_US),
            first_token: Histogram::new(&TIMES_US),
            between_tokens: Histogram::new(&TIMES_US),
            whole: Histogram::new(&TIMES_US),
            prompt_tokens: Histogram::new(&TOKENS),
            output_tokens: Histogram::new(&TOKENS),
        }
    }

    /// A request's first token has come, so long after the request.
    pub(crate) fn first_token(&self, after: Duration) {
        self.first_token.observe(micros(after));
    }

    /// A further token of an answer has come, so long after the one before.
    pub(crate) fn next_token(&self, after: Duration) {
        self.between_tokens.observe(micros(after));
    }

    /// A request for text has been answered, so long after it came.
    pub(crate) fn answered(&self, after: Duration, usage: Usage) {
        self.embedded(after, usage);
        self.output_tokens.observe(usage.completion_tokens as u64);
    }

    /// A request for vectors has been, which has no tokens of answers.
    pub(crate) fn embedded(&self, after: Duration, usage: Usage) {
        self.whole.observe(micros(after));
        self.prompt_tokens.observe(usage.prompt_tokens as u64);
        if let Some(waited) = usage.waited {
            self.queue.observe(micros(waited));
        }
    }
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_counted_below_their_bound() {
        let histogram = Histogram::new(&TOKENS);
        for value in [0, 1, 2, 3, 100_000, 100_001] {
            histogram.observe(value);
        }
        let counts: Vec<(Option<u64>, u64)> = histogram.buckets().collect();
        assert_eq!(counts[..3], [(Some(1), 2), (Some(2), 1), (Some(5), 1)]);
        assert_eq!(counts[BOUNDS - 1..], [(Some(100_000), 1), (None, 1)]);
        assert_eq!(histogram.sum(), 200_007);
        assert_eq!(size_of::<Timings>(), 912);
    }

    #[test]
    fn requests_are_told_by_what_they_were() {
        let timings = Timings::new();
        timings.first_token(Duration::from_millis(3));
        timings.next_token(Duration::from_micros(999));
        let usage = |prompt_tokens, waited| Usage {
            prompt_tokens,
            completion_tokens: 9,
            waited,
            ..Usage::default()
        };
        let waited = Some(Duration::from_millis(1));
        timings.answered(Duration::from_secs(2), usage(7, waited));
        timings.embedded(Duration::from_secs(1), usage(5, None));
        let count = |histogram: &Histogram| histogram.buckets().map(|(_, count)| count).sum();
        let counts: [u64; 6] = [
            count(&timings.queue),
            count(&timings.first_token),
            count(&timings.between_tokens),
            count(&timings.whole),
            count(&timings.prompt_tokens),
            count(&timings.output_tokens),
        ];
        assert_eq!(counts, [1, 1, 1, 2, 2, 1]);
        assert_eq!(timings.whole.sum(), 3_000_000);
        assert_eq!(timings.prompt_tokens.sum(), 12);
    }
}
