//! What a pool says of itself: figures, what a compaction did, and when its heaps were full.

use crate::bytes::Bytes;
use crate::source::Device;

/// Heaps were full: said at most once a minute, by whoever asks [`HeapPool::warning`](crate::HeapPool::warning).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the heaps were full for {blocks} blocks, the longest of {longest}, which were mapped one by one: \
     {}",
    self.remedy()
)]
pub struct HeapsExhausted {
    /// Blocks since the last warning.
    pub blocks: u64,
    /// The longest of them.
    pub longest: Bytes,
    /// Heaps there are.
    pub heaps: usize,
    /// The most there may be.
    pub max_heaps: usize,
    /// Bytes of a heap.
    pub heap_size: Bytes,
}

impl HeapsExhausted {
    /// What to change.
    pub fn remedy(&self) -> String {
        if self.longest > self.heap_size {
            return format!(
                "raise pool.heap_size from {} to at least {}",
                self.heap_size, self.longest
            );
        }
        if self.heaps >= self.max_heaps {
            return format!("raise pool.max_heaps above {}", self.max_heaps);
        }
        "the budget had no room for another heap: raise --memory, or lower what else is planned"
            .to_owned()
    }
}

/// What a compaction did.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Compaction {
    /// Spans that were moved.
    pub moved: u64,
    /// Their bytes.
    pub moved_bytes: Bytes,
    /// Heaps that were given up.
    pub heaps_closed: usize,
    /// Bytes that went back to the operating system.
    pub returned: Bytes,
}

/// A pool's figures, by the names of `GET /memory`.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolReport {
    /// Which pool: `heaps`, `buffers`.
    pub name: &'static str,
    /// Whose memory.
    pub device: Device,
    /// Bytes it has.
    pub capacity_bytes: u64,
    /// Bytes of them in use.
    pub used_bytes: u64,
    /// The share of blocks that needed nothing new: of heaps, blocks that were not mapped one by one; of
    /// buffers, those that were reused. `None` before the first.
    pub hit_ratio: Option<f64>,
    /// In use of what it has.
    pub utilisation_ratio: f64,
    /// Heaps there are.
    pub heaps_total: usize,
    /// Heaps of which something is in use.
    pub heaps_active: usize,
    /// Blocks handed out since the last reset.
    pub allocations_total: u64,
    /// Blocks that were mapped one by one since the last reset.
    pub fallback_total: u64,
    /// Blocks handed out since the start.
    pub acquired_total: u64,
    /// Blocks taken back since the start.
    pub released_total: u64,
    /// Blocks handed out now.
    pub active: u64,
    /// The largest block asked for, in bytes.
    pub largest_bytes: u64,
    /// The average block asked for, in bytes.
    pub average_bytes: u64,
    /// The longest free block.
    pub largest_free_bytes: u64,
    /// What of the free bytes is not in the longest free block of its heap.
    pub fragmentation_ratio: f64,
    /// Blocks that were never given back, as far as it can tell.
    pub leaked: u64,
}
