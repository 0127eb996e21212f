//! Durations counted in buckets that grow with what they hold, as HdrHistogram does it
//! (<https://hdrhistogram.github.io/HdrHistogram/>): 32 equal ones for each power of two, so that a
//! quantile is off by 1.6 % at most.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Buckets of a power of two are 2 to this.
const PART_BITS: u32 = 5;
const PARTS: usize = 1 << PART_BITS;
/// Longer times (73 minutes) are counted as these.
const LONGEST: u64 = (1 << 42) - 1;
const BUCKETS: usize = bucket(LONGEST) + 1;

/// Bytes of a histogram.
pub(super) const BYTES: usize = size_of::<Histogram>();

/// How often which duration was seen, in nanoseconds. Threads add to it without waiting.
pub(super) struct Histogram {
    buckets: [AtomicU64; BUCKETS],
    total: AtomicU64,
    least: AtomicU64,
    most: AtomicU64,
}

/// Which bucket counts a duration: itself up to 31 ns, then the leading six bits of it.
const fn bucket(nanoseconds: u64) -> usize {
    let clamped = if nanoseconds > LONGEST {
        LONGEST
    } else {
        nanoseconds
    };
    if clamped < PARTS as u64 {
        return clamped as usize;
    }
    let shift = clamped.ilog2() - PART_BITS;
    (shift as usize + 1) * PARTS + ((clamped >> shift) as usize - PARTS)
}

/// The middle of what a bucket counts.
fn middle(bucket: usize) -> u64 {
    if bucket < PARTS {
        return bucket as u64;
    }
    let shift = bucket / PARTS - 1;
    let first = ((PARTS + bucket % PARTS) as u64) << shift;
    first + ((1_u64 << shift) >> 1)
}

impl Histogram {
    pub(super) const fn new() -> Histogram {
        Histogram {
            buckets: [const { AtomicU64::new(0) }; BUCKETS],
            total: AtomicU64::new(0),
            least: AtomicU64::new(u64::MAX),
            most: AtomicU64::new(0),
        }
    }

    /// Counts one.
    pub(super) fn add(&self, nanoseconds: u64) {
        self.buckets[bucket(nanoseconds)].fetch_add(1, Relaxed);
        // Wraps after 584 years of spans.
        self.total.fetch_add(nanoseconds, Relaxed);
        // Looking first spares a locked write nearly always.
        if nanoseconds < self.least.load(Relaxed) {
            self.least.fetch_min(nanoseconds, Relaxed);
        }
        if nanoseconds > self.most.load(Relaxed) {
            self.most.fetch_max(nanoseconds, Relaxed);
        }
    }

    pub(super) fn reset(&self) {
        for bucket in &self.buckets {
            bucket.store(0, Relaxed);
        }
        self.total.store(0, Relaxed);
        self.least.store(u64::MAX, Relaxed);
        self.most.store(0, Relaxed);
    }

    pub(super) fn total(&self) -> u64 {
        self.total.load(Relaxed)
    }

    pub(super) fn count(&self) -> u64 {
        let counts = self.buckets.iter().map(|bucket| bucket.load(Relaxed));
        counts.fold(0, u64::saturating_add)
    }

    /// The shortest and the longest; `None` if none was seen.
    pub(super) fn range(&self) -> Option<(u64, u64)> {
        let (least, most) = (self.least.load(Relaxed), self.most.load(Relaxed));
        (least <= most).then_some((least, most))
    }

    /// The durations that these shares (ascending, 0 to 1) of all were no longer than; 0 if none was
    /// seen.
    pub(super) fn quantiles<const N: usize>(&self, shares: [f64; N]) -> [u64; N] {
        let count = self.count();
        let Some((least, most)) = self.range() else {
            return [0; N];
        };
        let mut found = [most; N];
        let (mut seen, mut next) = (0_u64, 0);
        for (index, bucket) in self.buckets.iter().enumerate() {
            seen = seen.saturating_add(bucket.load(Relaxed));
            // Of 100, the 99th is the p99.
            while next < N && seen as f64 >= (shares[next] * count as f64).max(1.0) {
                found[next] = middle(index).clamp(least, most);
                next += 1;
            }
        }
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_is_in_the_bucket_around_it() {
        let mut last = 0;
        let powers = (0..42).flat_map(|p| [(1_u64 << p) - 1, 1 << p, (1 << p) + 1, 3 << p]);
        let mut times: Vec<u64> = (0..5000).chain(powers).filter(|t| *t <= LONGEST).collect();
        times.sort_unstable();
        for time in times {
            let bucket = bucket(time);
            assert!(bucket >= last, "{time}");
            last = bucket;
            let off = middle(bucket).abs_diff(time) as f64;
            assert!(
                off <= time as f64 / 60.0,
                "{time} counted as {}",
                middle(bucket)
            );
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_those_of_a_sorted_list() {
        let histogram = Histogram::new();
        assert_eq!((histogram.range(), histogram.quantiles([0.5])), (None, [0]));
        let mut times = Vec::new();
        let mut state = 7_u64;
        for _ in 0..10_000 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let time = state >> (24 + state % 30);
            times.push(time);
            histogram.add(time);
        }
        times.sort_unstable();
        assert_eq!(histogram.count(), 10_000);
        assert_eq!(histogram.total(), times.iter().sum::<u64>());
        assert_eq!(histogram.range(), Some((times[0], times[9_999])));
        let shares = [0.0, 0.5, 0.9, 0.99, 1.0];
        for (share, found) in shares.into_iter().zip(histogram.quantiles(shares)) {
            let rank = ((share * 10_000.0) as usize).max(1) - 1;
            let want = times[rank] as f64;
            assert!(
                (found as f64 - want).abs() <= want * 0.016 + 1.0,
                "{share}: {found} is not {want}"
            );
        }
        histogram.reset();
        assert_eq!((histogram.count(), histogram.range()), (0, None));
    }
}
