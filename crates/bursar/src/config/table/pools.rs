//! The settings of pools: of buffers, of membranes, and of parameters that requests share.

use super::{Fallback, Setting};
use crate::config::value;

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
