//! What a heap pool is made from: plain data with the ranges that it must keep.

use std::time::Duration;

use crate::bytes::Bytes;
use crate::heap_pool::choose::{HEAPS_MAX, Strategy};
use crate::region::page_len;
use crate::source::PoolError;

/// How sparse heaps are emptied: `pool.compaction.*`.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct CompactionOptions {
    /// Whether they are.
    pub enabled: bool,
    /// A heap that is filled by a smaller share is sparse.
    pub threshold: f64,
    /// Least time between two compactions.
    pub interval: Duration,
}

impl Default for CompactionOptions {
    fn default() -> CompactionOptions {
        CompactionOptions {
            enabled: true,
            threshold: 0.25,
            interval: Duration::from_secs(60),
        }
    }
}

/// What a heap pool is made from: settings by the names of `pool.*`.
#[derive(Clone, Debug, PartialEq)]
pub struct HeapPoolOptions {
    /// Heaps at the start, which stay.
    pub heaps: usize,
    /// Bytes of a heap; taken in whole pages.
    pub heap_size: Bytes,
    /// The most heaps there may become, at most [`HEAPS_MAX`].
    pub max_heaps: usize,
    /// The share in use at which another heap is opened.
    pub growth_trigger: f64,
    /// By what a heap is chosen.
    pub strategy: Strategy,
    /// Spans that are cut and backed with memory at the start, and kept until somebody wants their size.
    pub warmup_sizes: Vec<Bytes>,
    /// Whether blocks are counted.
    pub track_statistics: bool,
    /// Whether it is said when heaps are full.
    pub log_exhaustion: bool,
    /// How sparse heaps are emptied.
    pub compaction: CompactionOptions,
}

impl Default for HeapPoolOptions {
    fn default() -> HeapPoolOptions {
        HeapPoolOptions {
            heaps: 1,
            heap_size: Bytes::mib(4),
            max_heaps: 8,
            growth_trigger: 0.9,
            strategy: Strategy::default(),
            warmup_sizes: Vec::new(),
            track_statistics: true,
            log_exhaustion: true,
            compaction: CompactionOptions::default(),
        }
    }
}

impl HeapPoolOptions {
    /// Whether every setting is within its range.
    ///
    /// # Errors
    /// Names the first that is not.
    pub fn check(&self) -> Result<(), PoolError> {
        let wrong = |key, value: String, must: String| PoolError::Setting { key, value, must };
        let HeapPoolOptions {
            heaps,
            heap_size,
            max_heaps,
            growth_trigger,
            ..
        } = *self;
        if !(1..=HEAPS_MAX).contains(&heaps) {
            let must = format!("1 to {HEAPS_MAX}");
            return Err(wrong("pool.heaps", heaps.to_string(), must));
        }
        if !(heaps..=HEAPS_MAX).contains(&max_heaps) {
            let must = format!("pool.heaps ({heaps}) to {HEAPS_MAX}");
            return Err(wrong("pool.max_heaps", max_heaps.to_string(), must));
        }
        if heap_size.0 < page_len() as u64 {
            let must = format!("a page ({}) or more", Bytes::from(page_len()));
            return Err(wrong("pool.heap_size", heap_size.to_string(), must));
        }
        for (key, share) in [
            ("pool.growth_trigger", growth_trigger),
            ("pool.compaction.threshold", self.compaction.threshold),
        ] {
            if !(0.0..=1.0).contains(&share) {
                return Err(wrong(key, share.to_string(), "0 to 1".into()));
            }
        }
        if let Some(size) = self.warmup_sizes.iter().find(|size| **size > heap_size) {
            return Err(PoolError::WarmUpTooLong {
                size: *size,
                heap: heap_size,
            });
        }
        Ok(())
    }
}
