//! The pools of a server as one: heaps, membranes over them where there are any, buffers over both.
//!
//! ```text
//! buffers ─► membranes ─► heaps ─► account `pools`
//! ```
//!
//! Who draws from them, and how much at once; a heap of the start is to hold all of it for a few clients:
//!
//! ```text
//! bodies of requests        server/src/body.rs            as long as the body, 2 to 64 KiB as a rule
//! answers as they are built server/src/out.rs             whole ones: text and its marks; streams: one write
//! answers of embeddings     server/src/out.rs             texts x dimensions x 5.3 (base64) to 15 bytes (decimals)
//! vectors                   engine/src/reply/vectors.rs   texts x dimensions x 4 bytes
//! tokens of a request       engine/src/words.rs           (prompt + longest answer) x 4 bytes, as scratch
//! events not read yet       engine/src/reply/ring.rs      24 bytes a token and 8 an alternative, at most 16 KiB
//!                                                         unless a reader lags
//! ```
//!
//! What is not drawn from them lies in memory that a plan counts already, and stays there: weights and
//! what they are packed into are mappings of the model's account; a file that is loaded goes through memory
//! split from what is held for keys and values (`engine/src/load.rs`), one that is converted in place
//! through a `staging` account of the model (`engine/src/optimize.rs`); blocks of keys and values have one
//! owner, `kv`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::account::{Account, Lifetime};
use crate::buffer_pool::{BufferPool, BufferPoolOptions, CleanUp, Leak};
use crate::bytes::Bytes;
use crate::heap_pool::{
    Compaction, CompactionOptions, HeapPool, HeapPoolOptions, HeapsExhausted, PoolReport, Strategy,
};
use crate::membrane::{Consolidation, MembraneOptions, Membranes, MembranesReport, Weights};
use crate::movable::MovableSpan;
use crate::scratch::{ScratchReport, ScratchTotals};
use crate::source::{FreshSource, PoolError, SpanSource};
use crate::trace::Recorder;

/// How membranes are laid out: `membranes.*`.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct MembranesOptions {
    /// Whether there are any.
    pub enabled: bool,
    /// Levels.
    pub depth: usize,
    /// The most bytes that all levels may span; half of the heaps of the start where nobody says.
    pub limit: Option<Bytes>,
}

impl Default for MembranesOptions {
    fn default() -> MembranesOptions {
        MembranesOptions {
            enabled: true,
            depth: 8,
            limit: None,
        }
    }
}

/// What pools are made from: settings by the names of `pool.*` and `membranes.*`.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolsOptions {
    /// `pool.enabled`: whether memory is kept to be used again. Off, every acquire is a fresh
    /// allocation.
    pub enabled: bool,
    /// `pool.heaps`: heaps at the start, which stay.
    pub heaps: usize,
    /// `pool.heap_size`: bytes of a heap.
    pub heap_size: Bytes,
    /// `pool.max_heaps`: the most heaps there may become.
    pub max_heaps: usize,
    /// `pool.growth_trigger`: the share in use at which another heap is opened.
    pub growth_trigger: f64,
    /// `pool.strategy`: by what a heap is chosen.
    pub strategy: Strategy,
    /// `pool.warmup_sizes`: spans that are ready before anybody wants them.
    pub warmup_sizes: Vec<Bytes>,
    /// `pool.track_statistics`: whether blocks are counted.
    pub track_statistics: bool,
    /// `pool.log_exhaustion`: whether it is said when heaps are full.
    pub log_exhaustion: bool,
    /// `pool.cleanup_utilisation`: the share in use of the heaps from which on unused buffers are given
    /// up before more is taken.
    pub cleanup_utilisation: f64,
    /// `pool.cleanup_interval`: least time between two clean-ups.
    pub cleanup_interval: Duration,
    /// `pool.compaction.*`.
    pub compaction: CompactionOptions,
    /// `membranes.*`.
    pub membranes: MembranesOptions,
}

impl Default for PoolsOptions {
    fn default() -> PoolsOptions {
        let HeapPoolOptions {
            heaps,
            heap_size,
            max_heaps,
            growth_trigger,
            strategy,
            warmup_sizes,
            track_statistics,
            log_exhaustion,
            compaction,
        } = HeapPoolOptions::default();
        let BufferPoolOptions {
            cleanup_utilisation,
            cleanup_interval,
            ..
        } = BufferPoolOptions::default();
        PoolsOptions {
            enabled: true,
            heaps,
            heap_size,
            max_heaps,
            growth_trigger,
            strategy,
            warmup_sizes,
            track_statistics,
            log_exhaustion,
            cleanup_utilisation,
            cleanup_interval,
            compaction,
            membranes: MembranesOptions::default(),
        }
    }
}

impl PoolsOptions {
    /// What the heaps of the start are charged: what a plan sets aside for pools. They may grow by as
    /// much again for every further heap, as far as the budget then has room.
    pub fn floor(&self) -> Bytes {
        if !self.enabled {
            return Bytes::ZERO;
        }
        let heap = crate::region::charge_of(self.heap_size);
        Bytes(heap.0.saturating_mul(self.heaps as u64))
    }

    /// Those of the heaps.
    pub fn heap_pool(&self) -> HeapPoolOptions {
        HeapPoolOptions {
            heaps: self.heaps,
            heap_size: self.heap_size,
            max_heaps: self.max_heaps,
            growth_trigger: self.growth_trigger,
            strategy: self.strategy,
            warmup_sizes: self.warmup_sizes.clone(),
            track_statistics: self.track_statistics,
            log_exhaustion: self.log_exhaustion,
            compaction: self.compaction,
        }
    }

    /// Those of the membranes.
    pub fn membrane_levels(&self) -> MembraneOptions {
        let heaps = self.heap_size.0.saturating_mul(self.heaps as u64);
        MembraneOptions {
            limit: self.membranes.limit.unwrap_or(Bytes(heaps / 2)),
            depth: self.membranes.depth,
            weights: Weights::default(),
        }
    }

    /// Those of the buffers.
    pub fn buffer_pool(&self) -> BufferPoolOptions {
        BufferPoolOptions {
            keep: self.enabled,
            track_statistics: self.track_statistics,
            cleanup_utilisation: self.cleanup_utilisation,
            cleanup_interval: self.cleanup_interval,
        }
    }

    /// Whether every setting is within its range.
    ///
    /// # Errors
    /// Names the first that is not.
    pub fn check(&self) -> Result<(), PoolError> {
        self.heap_pool().check()?;
        if !(0.0..=1.0).contains(&self.cleanup_utilisation) {
            return Err(PoolError::Setting {
                key: "pool.cleanup_utilisation",
                value: self.cleanup_utilisation.to_string(),
                must: "0 to 1".into(),
            });
        }
        Ok(())
    }
}

/// All figures of the pools.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolsReport {
    /// One entry per pool: the `pools` of `GET /memory`.
    pub pools: Vec<PoolReport>,
    /// The `membranes` of `GET /memory`, where there are any.
    pub membranes: Option<MembranesReport>,
    /// Scratch memory of requests.
    pub scratch: ScratchReport,
}

/// What looking after the pools did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Upkeep {
    /// Buffers given up, if a clean-up was due.
    pub clean_up: Option<CleanUp>,
    /// Heaps emptied, if a compaction was due.
    pub compaction: Option<Compaction>,
    /// Membranes emptied, when a compaction was due.
    pub consolidation: Option<Consolidation>,
    /// What the operator should be told.
    pub warning: Option<HeapsExhausted>,
}

/// The pools of a server. Cheap to clone: all clones are the same pools.
#[derive(Clone, Debug)]
pub struct Pools {
    /// `None` where pools are off.
    heaps: Option<HeapPool>,
    membranes: Option<Membranes>,
    buffers: BufferPool,
    scratch: Arc<ScratchTotals>,
    recorder: Recorder,
}

impl PartialEq for Pools {
    fn eq(&self, other: &Pools) -> bool {
        Arc::ptr_eq(&self.scratch, &other.scratch)
    }
}

impl Pools {
    /// Opens the heaps of the start, charged to `account`; with `enabled` off, the same as
    /// [`Pools::off`].
    ///
    /// # Errors
    /// Where a setting is out of range, or the budget has no room for the heaps of the start.
    pub fn start(options: &PoolsOptions, account: &Account) -> Result<Pools, PoolError> {
        options.check()?;
        if !options.enabled {
            return Ok(Pools::off(account));
        }
        let heaps = HeapPool::start(options.heap_pool(), account)?;
        let membranes = options
            .membranes
            .enabled
            .then(|| Membranes::new(options.membrane_levels(), &heaps))
            .transpose()?;
        let source: Arc<dyn SpanSource> = match &membranes {
            Some(membranes) => Arc::new(membranes.clone()),
            None => Arc::new(heaps.clone()),
        };
        let recorder = Recorder::default();
        let buffers = BufferPool::recorded(source, options.buffer_pool(), recorder.clone());
        Ok(Pools {
            heaps: Some(heaps),
            membranes,
            buffers,
            scratch: Arc::default(),
            recorder,
        })
    }

    /// Pools that keep nothing: every acquire is a fresh allocation, charged to `account` and given back
    /// at once. What pools are compared with (`--no-pool`).
    pub fn off(account: &Account) -> Pools {
        let options = BufferPoolOptions {
            keep: false,
            ..BufferPoolOptions::default()
        };
        let recorder = Recorder::default();
        let source = Arc::new(FreshSource::new(account));
        Pools {
            heaps: None,
            membranes: None,
            buffers: BufferPool::recorded(source, options, recorder.clone()),
            scratch: Arc::default(),
            recorder,
        }
    }

    /// Whether memory is kept to be used again.
    pub fn are_on(&self) -> bool {
        self.heaps.is_some()
    }

    /// The buffers: what most want.
    pub fn buffers(&self) -> &BufferPool {
        &self.buffers
    }

    /// What the scratch of requests came to, for whoever makes one.
    pub fn scratch(&self) -> &Arc<ScratchTotals> {
        &self.scratch
    }

    /// The heaps, where pools are on.
    pub fn heaps(&self) -> Option<&HeapPool> {
        self.heaps.as_ref()
    }

    /// The membranes, where there are any.
    pub fn membranes(&self) -> Option<&Membranes> {
        self.membranes.as_ref()
    }

    /// Takes `len` bytes that may be moved while nobody looks at them: out of sparse membranes, or out of
    /// sparse heaps where there are no membranes or they have no room.
    ///
    /// # Errors
    /// Where there is no room and the budget refuses more; [`PoolError::Closed`] where pools are off.
    pub fn take_movable(&self, len: usize, lifetime: Lifetime) -> Result<MovableSpan, PoolError> {
        let membranes = self.membranes.as_ref();
        if let Some(movable) = membranes.and_then(|all| all.take_movable(len, lifetime)) {
            return Ok(movable);
        }
        let heaps = self.heaps.as_ref().ok_or(PoolError::Closed)?;
        heaps.take_movable(len)
    }

    /// What records the buffers that are taken and given back, once it is started.
    pub fn recorder(&self) -> &Recorder {
        &self.recorder
    }

    /// The figures.
    pub fn report(&self) -> PoolsReport {
        let heaps = self.heaps.iter().map(HeapPool::report);
        PoolsReport {
            pools: heaps.chain([self.buffers.report()]).collect(),
            membranes: self.membranes.as_ref().map(Membranes::report),
            scratch: self.scratch.report(),
        }
    }

    /// Gives up what nobody uses: the first rung of the reclaim ladder. Says how many bytes went back to
    /// the operating system.
    pub fn trim(&self) -> Bytes {
        self.buffers.trim()
    }

    /// Does what is due at `now`: to be called about once a second.
    pub fn look_after(&self, now: Instant) -> Upkeep {
        let heaps = self.heaps.as_ref();
        let clean_up = self.buffers.clean_up_if_due(now);
        let compaction = heaps.and_then(|heaps| heaps.compact_if_due(now));
        let sparse = heaps.map(|heaps| heaps.options().compaction.threshold);
        let consolidation = match (&self.membranes, sparse) {
            (Some(membranes), Some(sparse)) if compaction.is_some() => {
                Some(membranes.consolidate(sparse, Bytes::MAX))
            }
            _ => None,
        };
        Upkeep {
            clean_up,
            compaction,
            consolidation,
            warning: heaps.and_then(|heaps| heaps.warning(now)),
        }
    }

    /// Where the buffers that are out now were acquired: at a moment when none should be, the leaks.
    pub fn out(&self) -> Vec<Leak> {
        self.buffers.out()
    }

    /// Starts all totals again; what is out is not touched.
    pub fn reset_statistics(&self) {
        self.buffers.reset_statistics();
        if let Some(heaps) = &self.heaps {
            heaps.reset_statistics();
        }
    }
}
