//! How an engine runs: who is let in, what is kept and shared, what happens when blocks run out.

use std::path::PathBuf;

use bursar_memory::{Bytes, Pools, ReclaimBooks};

use crate::schedule::Admission;

/// How an engine runs.
#[derive(Clone, Debug, PartialEq)]
pub struct EngineOptions {
    /// How sequences are granted their blocks.
    pub admission: Admission,
    /// Requests that may wait; one more is refused for now.
    pub queue: usize,
    /// Keep keys and values that have been computed while there is room, and let requests that begin
    /// with the same tokens use them.
    pub prefix_cache: bool,
    /// Give each sequence all the blocks that it may need when it begins, side by side where there is
    /// such a run, as engines without pages do: to compare with. Nothing is shared, written away or
    /// moved then, and `admission` counts as [`Admission::Reserve`].
    pub contiguous: bool,
    /// When blocks are moved together between steps, so that memory goes back to the system; `None`:
    /// never.
    pub compaction: Option<CompactionOptions>,
    /// Where the keys and values of a preempted sequence may be written; `None`: they are computed
    /// again.
    pub spill: Option<SpillOptions>,
    /// A file that keeps the cached keys and values from one run of the program to the next.
    pub keep: Option<PathBuf>,
    /// How texts to embed are gathered into batches.
    pub batches: BatchOptions,
    /// Where the memory of requests comes from; the heap if `None`.
    pub pools: Option<Pools>,
    /// Where it is written down who had to wait for memory, who was refused, and whose was taken.
    pub reclaim: Option<ReclaimBooks>,
    /// What the prefixes of requests without a salt of their own are found by: kept secret and the
    /// same from run to run where there is a `keep` file.
    pub salt: [u8; 32],
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            admission: Admission::Grow,
            queue: 64,
            prefix_cache: true,
            contiguous: false,
            compaction: Some(CompactionOptions::default()),
            spill: None,
            keep: None,
            batches: BatchOptions::default(),
            pools: None,
            reclaim: None,
            salt: [0; 32],
        }
    }
}

/// How texts to embed are gathered into batches, within what the plan gave memory for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct BatchOptions {
    /// Texts that a batch takes even if it runs for longer than others should wait.
    pub texts_min: usize,
    /// Most texts of a batch; as many as fit if `None`.
    pub texts_max: Option<usize>,
    /// Hold batches to the time that others may wait, a tenth of a second, so that they run between
    /// them; otherwise each is as large as memory allows.
    pub yields: bool,
}

impl Default for BatchOptions {
    fn default() -> Self {
        Self {
            texts_min: 1,
            texts_max: None,
            yields: true,
        }
    }
}

/// When blocks are moved together, and how much of it fits between two steps.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct CompactionOptions {
    /// Begin when more than this share of the committed bytes lies empty in partly used slabs, 0 to 1.
    pub fragmentation: f64,
    /// Begin when less than this share of the committed bytes is used or cached, 0 to 1.
    pub efficiency: f64,
    /// Most bytes that are moved between two steps.
    pub bytes_per_step: Bytes,
}

impl Default for CompactionOptions {
    fn default() -> Self {
        Self {
            fragmentation: 0.30,
            efficiency: 0.70,
            // A few milliseconds of copying.
            bytes_per_step: Bytes(16 << 20),
        }
    }
}

/// Where preempted keys and values are written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpillOptions {
    /// A folder on a disk with room; the file in it has no name and goes with the process.
    pub dir: PathBuf,
    /// Most bytes of the file.
    pub bytes: Bytes,
}
