//! How long things took, counted in powers of two of a millisecond: fixed size, nothing allocated.

/// Counts of durations.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    buckets: [u64; Histogram::BUCKETS],
    sum_ms: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        Self {
            buckets: [0; Self::BUCKETS],
            sum_ms: 0,
        }
    }
}

impl Histogram {
    /// Up to 1, 2, 4, ... 2^30 ms (12 days), and longer.
    pub const BUCKETS: usize = 32;

    /// Counts a duration.
    pub fn observe(&mut self, ms: u64) {
        let bucket = match ms {
            0 | 1 => 0,
            _ => (u64::BITS - (ms - 1).leading_zeros()) as usize,
        };
        self.buckets[bucket.min(Self::BUCKETS - 1)] += 1;
        self.sum_ms = self.sum_ms.saturating_add(ms);
    }

    /// The longest duration that each bucket counts in ms (`None`: there is no longest), and how many
    /// it has counted, those of the buckets before not among them.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let last = Self::BUCKETS - 1;
        let bound = move |i: usize| (i < last).then(|| 1 << i);
        let counts = self.buckets.into_iter().enumerate();
        counts.map(move |(i, count)| (bound(i), count))
    }

    /// How many have been counted.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// All durations together, in ms.
    pub fn sum_ms(&self) -> u64 {
        self.sum_ms
    }

    /// A duration that at least this share (0 to 1) of those counted do not pass: the upper end of a
    /// bucket, in ms. `None` without any, or where it is beyond the last bucket.
    pub fn quantile_ms(&self, share: f64) -> Option<u64> {
        let wanted = (share * self.count() as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        let reached = self.buckets().find(|(_, count)| {
            seen += count;
            seen >= wanted
        });
        reached.and_then(|(bound, _)| bound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_is_in_the_bucket_that_bounds_it() {
        for ms in [
            0,
            1,
            2,
            3,
            4,
            5,
            1023,
            1024,
            1025,
            1 << 30,
            1 << 31,
            u64::MAX,
        ] {
            let mut histogram = Histogram::default();
            histogram.observe(ms);
            assert_eq!((histogram.count(), histogram.sum_ms()), (1, ms));
            let mut below = 0;
            for (bound, count) in histogram.buckets() {
                if count == 1 {
                    assert!(bound.is_none_or(|bound| ms <= bound), "{ms} <= {bound:?}");
                    assert!(ms == 0 || ms > below, "{ms} > {below}");
                }
                below = bound.unwrap_or(below);
            }
        }
    }

    #[test]
    fn quantiles_are_bounds() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile_ms(0.5), None);
        for ms in [1, 3, 3, 100] {
            histogram.observe(ms);
        }
        assert_eq!(histogram.quantile_ms(0.0), Some(1));
        assert_eq!(histogram.quantile_ms(0.5), Some(4));
        assert_eq!(histogram.quantile_ms(1.0), Some(128));
        histogram.observe(u64::MAX);
        assert_eq!(histogram.quantile_ms(1.0), None);
    }
}
