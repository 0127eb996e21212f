//! The settings of pools: of buffers, of membranes, and of parameters that requests share.

use super::{Fallback, Setting};
use crate::config::value;

/// Whether memory is kept to be used again.
pub(crate) static POOL_ENABLED: Setting = Setting {
    key: "pool.enabled",
    flag: "pool-enabled",
    env: "BURSAR_POOL_ENABLED",
    placeholder: "BOOL",
    default: Fallback::Value("true"),
    read: value::switch,
    help: "Keep memory that requests and models give back, to be used again; if off, every buffer is a fresh allocation: to compare with",
};

/// Heaps at the start.
pub(crate) static POOL_HEAPS: Setting = Setting {
    key: "pool.heaps",
    flag: "pool-heaps",
    env: "BURSAR_POOL_HEAPS",
    placeholder: "N",
    default: Fallback::Value("1"),
    read: value::heaps,
    help: "Heaps that pools have from the start; they are part of the plan",
};

/// Bytes of one heap.
pub(crate) static POOL_HEAP_SIZE: Setting = Setting {
    key: "pool.heap_size",
    flag: "pool-heap-size",
    env: "BURSAR_POOL_HEAP_SIZE",
    placeholder: "SIZE",
    default: Fallback::Derived("4 MiB, or the largest power of two within 1 % of the memory"),
    read: value::memory,
    help: "Bytes of one heap; a share is of the whole budget",
};

/// Heaps that there may become.
pub(crate) static POOL_MAX_HEAPS: Setting = Setting {
    key: "pool.max_heaps",
    flag: "pool-max-heaps",
    env: "BURSAR_POOL_MAX_HEAPS",
    placeholder: "N",
    default: Fallback::Value("8"),
    read: value::heaps,
    help: "Heaps that there may become, where the budget has room",
};

/// When another heap is opened.
pub(crate) static POOL_GROWTH_TRIGGER: Setting = Setting {
    key: "pool.growth_trigger",
    flag: "pool-growth-trigger",
    env: "BURSAR_POOL_GROWTH_TRIGGER",
    placeholder: "SHARE",
    default: Fallback::Value("90%"),
    read: value::share,
    help: "From which share in use another heap is opened",
};

/// Which heap a block comes from.
pub(crate) static POOL_STRATEGY: Setting = Setting {
    key: "pool.strategy",
    flag: "pool-strategy",
    env: "BURSAR_POOL_STRATEGY",
    placeholder: "HOW",
    default: Fallback::Value("best-fit"),
    read: value::strategy,
    help: "Which heap a block comes from: one after the other (round-robin), the fullest with room (best-fit), the emptiest (least-used)",
};

/// Blocks that are ready from the start.
pub(crate) static POOL_WARMUP_SIZES: Setting = Setting {
    key: "pool.warmup_sizes",
    flag: "pool-warmup-sizes",
    env: "BURSAR_POOL_WARMUP_SIZES",
    placeholder: "SIZE,...",
    default: Fallback::Derived("none"),
    read: value::sizes,
    help: "Blocks that are ready before anybody asks for them, with commas between",
};

/// Whether is counted what pools do.
pub(crate) static POOL_TRACK_STATISTICS: Setting = Setting {
    key: "pool.track_statistics",
    flag: "pool-track-statistics",
    env: "BURSAR_POOL_TRACK_STATISTICS",
    placeholder: "BOOL",
    default: Fallback::Value("true"),
    read: value::switch,
    help: "Count what pools do",
};

/// Whether it is said when heaps are full.
pub(crate) static POOL_LOG_EXHAUSTION: Setting = Setting {
    key: "pool.log_exhaustion",
    flag: "pool-log-exhaustion",
    env: "BURSAR_POOL_LOG_EXHAUSTION",
    placeholder: "BOOL",
    default: Fallback::Value("true"),
    read: value::switch,
    help: "Say on stderr when heaps are full, once a minute at most",
};

/// When unused buffers are given up for want of room.
pub(crate) static POOL_CLEANUP_UTILISATION: Setting = Setting {
    key: "pool.cleanup_utilisation",
    flag: "pool-cleanup-utilisation",
    env: "BURSAR_POOL_CLEANUP_UTILISATION",
    placeholder: "SHARE",
    default: Fallback::Value("85%"),
    read: value::share,
    help: "From which share in use of the heaps buffers that nobody uses are given up",
};

/// When unused buffers are given up for their age.
pub(crate) static POOL_CLEANUP_INTERVAL: Setting = Setting {
    key: "pool.cleanup_interval",
    flag: "pool-cleanup-interval",
    env: "BURSAR_POOL_CLEANUP_INTERVAL",
    placeholder: "TIME",
    default: Fallback::Value("30s"),
    read: value::time,
    help: "How often buffers that nobody has used since are given up",
};

/// Whether heaps are emptied.
pub(crate) static POOL_COMPACTION_ENABLED: Setting = Setting {
    key: "pool.compaction.enabled",
    flag: "pool-compaction-enabled",
    env: "BURSAR_POOL_COMPACTION_ENABLED",
    placeholder: "BOOL",
    default: Fallback::Value("true"),
    read: value::switch,
    help: "Move what may be moved out of heaps that are nearly empty, so that they can be given back",
};

/// Which heaps are emptied.
pub(crate) static POOL_COMPACTION_THRESHOLD: Setting = Setting {
    key: "pool.compaction.threshold",
    flag: "pool-compaction-threshold",
    env: "BURSAR_POOL_COMPACTION_THRESHOLD",
    placeholder: "SHARE",
    default: Fallback::Value("25%"),
    read: value::share,
    help: "Heaps that hold less than this share are emptied into others",
};

/// How often heaps are looked at.
pub(crate) static POOL_COMPACTION_INTERVAL: Setting = Setting {
    key: "pool.compaction.interval",
    flag: "pool-compaction-interval",
    env: "BURSAR_POOL_COMPACTION_INTERVAL",
    placeholder: "TIME",
    default: Fallback::Value("60s"),
    read: value::time,
    help: "How often heaps are looked at for that",
};

/// Where it is written down what pools hand out.
pub(crate) static POOL_RECORD: Setting = Setting {
    key: "pool.record",
    flag: "pool-record",
    env: "BURSAR_POOL_RECORD",
    placeholder: "FILE",
    default: Fallback::Derived("nothing is recorded"),
    read: value::path,
    help: "File for a trace of the last 131,072 buffers taken and given back, written when the server ends",
};

/// Whether what pools hold is divided into levels.
pub(crate) static MEMBRANES_ENABLED: Setting = Setting {
    key: "membranes.enabled",
    flag: "membranes-enabled",
    env: "BURSAR_MEMBRANES_ENABLED",
    placeholder: "BOOL",
    default: Fallback::Value("true"),
    read: value::switch,
    help: "Divide what pools hold into levels by size and lifetime",
};

/// Levels.
pub(crate) static MEMBRANES_DEPTH: Setting = Setting {
    key: "membranes.depth",
    flag: "membranes-depth",
    env: "BURSAR_MEMBRANES_DEPTH",
    placeholder: "N",
    default: Fallback::Value("8"),
    read: value::depth,
    help: "Levels, 1 to 12",
};

/// Most bytes of all levels.
pub(crate) static MEMBRANES_LIMIT: Setting = Setting {
    key: "membranes.limit",
    flag: "membranes-limit",
    env: "BURSAR_MEMBRANES_LIMIT",
    placeholder: "SIZE",
    default: Fallback::Derived("half of the heaps of the start"),
    read: value::memory,
    help: "Most bytes that all levels may span; a share is of the whole budget",
};

/// Different sampling parameters that are kept.
pub(crate) static PARAMS_POOL_CAPACITY: Setting = Setting {
    key: "params_pool.capacity",
    flag: "params-pool-capacity",
    env: "BURSAR_PARAMS_POOL_CAPACITY",
    placeholder: "N",
    default: Fallback::Value("1024"),
    read: value::params,
    help: "Different sampling parameters of requests that are kept to be shared; 0 shares none",
};

/// How long sampling parameters are kept that nobody asks for.
pub(crate) static PARAMS_POOL_MAX_AGE: Setting = Setting {
    key: "params_pool.max_age",
    flag: "params-pool-max-age",
    env: "BURSAR_PARAMS_POOL_MAX_AGE",
    placeholder: "TIME",
    default: Fallback::Value("3600s"),
    read: value::time,
    help: "How long sampling parameters are kept that no request asks for",
};

/// How often they are looked through.
pub(crate) static PARAMS_POOL_CLEANUP_INTERVAL: Setting = Setting {
    key: "params_pool.cleanup_interval",
    flag: "params-pool-cleanup-interval",
    env: "BURSAR_PARAMS_POOL_CLEANUP_INTERVAL",
    placeholder: "TIME",
    default: Fallback::Value("60s"),
    read: value::time,
    help: "How often sampling parameters that are too old are looked for",
};
