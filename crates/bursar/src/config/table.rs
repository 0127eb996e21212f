//! Every setting, declared once. Flags, environment variables, file keys, defaults, `--help` and
//! `bursar config` all come from this table. Those of pools are in a file of their own.

mod pools;

pub(crate) use pools::*;

use super::value::{self, Invalid, Value};

/// One setting.
#[derive(Debug)]
pub(crate) struct Setting {
    /// Its name in a file: `kv.dtype`.
    pub(crate) key: &'static str,
    /// Its flag without the dashes: `kv-dtype`.
    pub(crate) flag: &'static str,
    /// Its environment variable: `BURSAR_KV_DTYPE`.
    pub(crate) env: &'static str,
    /// What stands for its value in help texts.
    pub(crate) placeholder: &'static str,
    /// What holds when it is not given.
    pub(crate) default: Fallback,
    /// Reads its value.
    pub(crate) read: fn(&str) -> Result<Value, Invalid>,
    /// What it is, for `--help`.
    pub(crate) help: &'static str,
}

/// What holds when a setting is not given.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Fallback {
    /// This value.
    Value(&'static str),
    /// Something found out at run time, in words.
    Derived(&'static str),
}

/// Most bytes that the whole process may have resident.
pub(crate) static MEMORY: Setting = Setting {
    key: "memory",
    flag: "memory",
    env: "BURSAR_MEMORY",
    placeholder: "SIZE",
    default: Fallback::Derived("what the control group and the machine leave this process"),
    read: value::memory,
    help: "Most memory the whole process may use: 512MiB, 2GiB, 1GB, bytes, or a share such as 80%",
};

/// Longest one sequence may become.
pub(crate) static CONTEXT: Setting = Setting {
    key: "context",
    flag: "context",
    env: "BURSAR_CONTEXT",
    placeholder: "TOKENS",
    default: Fallback::Derived("what the model and the memory allow, 4096 at most"),
    read: value::tokens,
    help: "Longest one sequence, prompt and answer together, may become, in tokens",
};

/// Sequences that run at once.
pub(crate) static PARALLEL: Setting = Setting {
    key: "parallel",
    flag: "parallel",
    env: "BURSAR_PARALLEL",
    placeholder: "N",
    default: Fallback::Value("1"),
    read: value::sequences,
    help: "Sequences that run at once",
};

/// Most tokens in one pass.
pub(crate) static BATCH_TOKENS: Setting = Setting {
    key: "batch_tokens",
    flag: "batch-tokens",
    env: "BURSAR_BATCH_TOKENS",
    placeholder: "TOKENS",
    default: Fallback::Derived("512; 256 to serve; the longest text to embed"),
    read: value::tokens,
    help: "Most tokens in one pass through the model; more is faster and takes more memory",
};

/// How keys and values are stored.
pub(crate) static KV_DTYPE: Setting = Setting {
    key: "kv.dtype",
    flag: "kv-dtype",
    env: "BURSAR_KV_DTYPE",
    placeholder: "TYPE",
    default: Fallback::Value("f16"),
    read: value::kv_dtype,
    help: "How keys and values are stored: f32, f16, bf16 or q8_0",
};

/// Bytes for keys and values.
pub(crate) static KV_MEMORY: Setting = Setting {
    key: "kv.memory",
    flag: "kv-memory",
    env: "BURSAR_KV_MEMORY",
    placeholder: "SIZE",
    default: Fallback::Derived("what the preset says, else parallel x context"),
    read: value::memory,
    help: "Memory for keys and values; a share is of the whole budget",
};

/// Tokens in one block of keys and values.
pub(crate) static KV_BLOCK_TOKENS: Setting = Setting {
    key: "kv.block_tokens",
    flag: "kv-block-tokens",
    env: "BURSAR_KV_BLOCK_TOKENS",
    placeholder: "TOKENS",
    default: Fallback::Derived("what the preset says, else 16"),
    read: value::block_tokens,
    help: "Tokens in one block of keys and values, a multiple of 16",
};

/// How keys are stored.
pub(crate) static KV_DTYPE_K: Setting = Setting {
    key: "kv.dtype_k",
    flag: "kv-dtype-k",
    env: "BURSAR_KV_DTYPE_K",
    placeholder: "TYPE",
    default: Fallback::Derived("as kv.dtype"),
    read: value::kv_dtype,
    help: "How keys are stored, if not as --kv-dtype says",
};

/// How values are stored.
pub(crate) static KV_DTYPE_V: Setting = Setting {
    key: "kv.dtype_v",
    flag: "kv-dtype-v",
    env: "BURSAR_KV_DTYPE_V",
    placeholder: "TYPE",
    default: Fallback::Derived("as kv.dtype"),
    read: value::kv_dtype,
    help: "How values are stored, if not as --kv-dtype says",
};

/// A size of the cache that fits a kind of model.
pub(crate) static KV_PRESET: Setting = Setting {
    key: "kv.preset",
    flag: "kv-preset",
    env: "BURSAR_KV_PRESET",
    placeholder: "SIZE",
    default: Fallback::Value("custom"),
    read: value::preset,
    help: "Size of the cache of keys and values: small, medium, large, or custom as the other settings say",
};

/// Whether equal beginnings of requests are computed once.
pub(crate) static KV_PREFIX_CACHE: Setting = Setting {
    key: "kv.prefix_cache",
    flag: "kv-prefix-cache",
    env: "BURSAR_KV_PREFIX_CACHE",
    placeholder: "BOOL",
    default: Fallback::Value("true"),
    read: value::switch,
    help: "Compute what requests begin with alike once, and keep it while there is room",
};

/// Whether sequences get all their blocks side by side at once.
pub(crate) static KV_CONTIGUOUS: Setting = Setting {
    key: "kv.contiguous",
    flag: "kv-contiguous",
    env: "BURSAR_KV_CONTIGUOUS",
    placeholder: "BOOL",
    default: Fallback::Value("false"),
    read: value::switch,
    help: "Give each sequence all the blocks it may need at once and side by side, and share none, as engines without pages do: to compare with",
};

/// Where blocks go that no memory is left for.
pub(crate) static KV_SPILL: Setting = Setting {
    key: "kv.spill",
    flag: "kv-spill",
    env: "BURSAR_KV_SPILL",
    placeholder: "DIR",
    default: Fallback::Derived("sequences that lose their blocks are computed again"),
    read: value::path,
    help: "Folder for a file to which keys and values go that no memory is left for",
};

/// Most bytes of that file.
pub(crate) static KV_SPILL_BYTES: Setting = Setting {
    key: "kv.spill_bytes",
    flag: "kv-spill-bytes",
    env: "BURSAR_KV_SPILL_BYTES",
    placeholder: "SIZE",
    default: Fallback::Value("1.0 GiB"),
    read: value::memory,
    help: "Most bytes of the file in --kv-spill",
};

/// Where cached prefixes outlive the process.
pub(crate) static KV_KEEP: Setting = Setting {
    key: "kv.keep",
    flag: "kv-keep",
    env: "BURSAR_KV_KEEP",
    placeholder: "FILE",
    default: Fallback::Derived("cached prefixes end with the process"),
    read: value::path,
    help: "File in which cached prefixes are kept from one run of the server to the next",
};

/// Whether blocks are moved together.
pub(crate) static KV_COMPACTION_ENABLED: Setting = Setting {
    key: "kv.compaction.enabled",
    flag: "kv-compaction-enabled",
    env: "BURSAR_KV_COMPACTION_ENABLED",
    placeholder: "BOOL",
    default: Fallback::Value("true"),
    read: value::switch,
    help: "Move blocks together, so that whole slabs go back to the system",
};

/// The fragmentation at which blocks are moved together.
pub(crate) static KV_COMPACTION_FRAGMENTATION: Setting = Setting {
    key: "kv.compaction.fragmentation",
    flag: "kv-compaction-fragmentation",
    env: "BURSAR_KV_COMPACTION_FRAGMENTATION",
    placeholder: "SHARE",
    default: Fallback::Value("30%"),
    read: value::share,
    help: "Move blocks together where more than this share of the memory taken is in partly used slabs and holds nothing",
};

/// The efficiency at which blocks are moved together.
pub(crate) static KV_COMPACTION_EFFICIENCY: Setting = Setting {
    key: "kv.compaction.efficiency",
    flag: "kv-compaction-efficiency",
    env: "BURSAR_KV_COMPACTION_EFFICIENCY",
    placeholder: "SHARE",
    default: Fallback::Value("70%"),
    read: value::share,
    help: "Move blocks together where less than this share of the memory taken holds something",
};

/// Most bytes that one step moves.
pub(crate) static KV_COMPACTION_BYTES_PER_STEP: Setting = Setting {
    key: "kv.compaction.bytes_per_step",
    flag: "kv-compaction-bytes-per-step",
    env: "BURSAR_KV_COMPACTION_BYTES_PER_STEP",
    placeholder: "SIZE",
    default: Fallback::Value("16.0 MiB"),
    read: value::memory,
    help: "Most bytes of keys and values that are moved between two steps",
};

/// Threads that compute.
pub(crate) static THREADS: Setting = Setting {
    key: "threads",
    flag: "threads",
    env: "BURSAR_THREADS",
    placeholder: "N",
    default: Fallback::Derived("one for each core this process may use"),
    read: value::threads,
    help: "Threads that compute",
};

/// Which vector instructions to use.
pub(crate) static ISA: Setting = Setting {
    key: "isa",
    flag: "isa",
    env: "BURSAR_ISA",
    placeholder: "NAME",
    default: Fallback::Derived("the best that this machine has"),
    read: value::isa,
    help: "Vector instructions to use: scalar, avx2 or avx512",
};

/// Where model names are looked up.
pub(crate) static MODELS_DIR: Setting = Setting {
    key: "models.dir",
    flag: "models-dir",
    env: "BURSAR_MODELS_DIR",
    placeholder: "DIR",
    default: Fallback::Derived("bursar/models in the user's data folder"),
    read: value::path,
    help: "Folder in which a MODEL that is not a path is looked up; a server loads each of its models when somebody asks for it",
};

/// How long a model stays that nobody uses.
pub(crate) static MODELS_KEEP_ALIVE: Setting = Setting {
    key: "models.keep_alive",
    flag: "keep-alive",
    env: "BURSAR_KEEP_ALIVE",
    placeholder: "TIME",
    default: Fallback::Derived("5m; models that are named stay until their place is needed"),
    read: value::keep_alive,
    help: "How long a model stays that nobody uses: 5m, 0 for not at all, -1 for until its place is needed",
};

/// How long a model stays at least.
pub(crate) static MODELS_MIN_RESIDENCY: Setting = Setting {
    key: "models.min_residency",
    flag: "min-residency",
    env: "BURSAR_MIN_RESIDENCY",
    placeholder: "TIME",
    default: Fallback::Value("5s"),
    read: value::time,
    help: "How long a model stays at least before it goes for another",
};

/// Models that stay.
pub(crate) static MODELS_PIN: Setting = Setting {
    key: "models.pin",
    flag: "pin",
    env: "BURSAR_PIN",
    placeholder: "MODEL,...",
    default: Fallback::Derived("none"),
    read: value::names,
    help: "Models that are loaded at the start and never go for others, by name, with commas between",
};

/// Which models go for others.
pub(crate) static MODELS_EVICTION: Setting = Setting {
    key: "models.eviction",
    flag: "models-eviction",
    env: "BURSAR_MODELS_EVICTION",
    placeholder: "HOW",
    default: Fallback::Value("cheapest"),
    read: value::eviction,
    help: "Which models go for another: those that are cheapest to load again (cheapest), or those unused for longest (lru)",
};

/// How long a request waits for its model.
pub(crate) static MODELS_WAIT: Setting = Setting {
    key: "models.wait",
    flag: "models-wait",
    env: "BURSAR_MODELS_WAIT",
    placeholder: "TIME",
    default: Fallback::Value("60s"),
    read: value::time,
    help: "How long a request waits for its model to be loaded before it is told to come back",
};

/// How sequences are granted their blocks.
pub(crate) static ADMISSION: Setting = Setting {
    key: "admission",
    flag: "admission",
    env: "BURSAR_ADMISSION",
    placeholder: "HOW",
    default: Fallback::Value("grow"),
    read: value::admission,
    help: "Let a sequence in when its next step fits (grow), or when all of it will (reserve)",
};

/// Where the server listens.
pub(crate) static LISTEN: Setting = Setting {
    key: "listen",
    flag: "listen",
    env: "BURSAR_LISTEN",
    placeholder: "ADDRESS",
    default: Fallback::Value("127.0.0.1:8080"),
    read: value::address,
    help: "Address and port of the server; one that others can reach needs --api-key-file",
};

/// Who may ask the server.
pub(crate) static API_KEY_FILE: Setting = Setting {
    key: "api_key_file",
    flag: "api-key-file",
    env: "BURSAR_API_KEY_FILE",
    placeholder: "FILE",
    default: Fallback::Derived("no key is asked for"),
    read: value::path,
    help: "File with the keys that clients must have one of, one per line",
};

/// Who may ask the server, and as which tenant.
pub(crate) static TENANTS_FILE: Setting = Setting {
    key: "tenants_file",
    flag: "tenants-file",
    env: "BURSAR_TENANTS_FILE",
    placeholder: "FILE",
    default: Fallback::Derived("all clients are one tenant"),
    read: value::path,
    help: "File with tenants and their keys, a name and a key per line; tenants share no cached prefixes",
};

/// How long running requests may take to finish.
pub(crate) static DRAIN: Setting = Setting {
    key: "drain",
    flag: "drain",
    env: "BURSAR_DRAIN",
    placeholder: "TIME",
    default: Fallback::Value("30s"),
    read: value::time,
    help: "How long running requests may take to finish when the server is told to stop",
};

/// What models that write get of the time.
pub(crate) static TURNS_GENERATE: Setting = Setting {
    key: "turns.generate",
    flag: "turns-generate",
    env: "BURSAR_TURNS_GENERATE",
    placeholder: "N",
    default: Fallback::Value("4"),
    read: value::weight,
    help: "Parts of the time that models which write get while others make vectors",
};

/// What models that make vectors get of the time.
pub(crate) static TURNS_EMBED: Setting = Setting {
    key: "turns.embed",
    flag: "turns-embed",
    env: "BURSAR_TURNS_EMBED",
    placeholder: "N",
    default: Fallback::Value("1"),
    read: value::weight,
    help: "Parts of the time that models which make vectors get while others write",
};

/// Requests that may wait.
pub(crate) static LIMITS_QUEUE: Setting = Setting {
    key: "limits.queue",
    flag: "limits-queue",
    env: "BURSAR_LIMITS_QUEUE",
    placeholder: "N",
    default: Fallback::Value("64"),
    read: value::sequences,
    help: "Requests that may wait for each model; one more is told to come back later",
};

/// Most bytes of a request.
pub(crate) static LIMITS_BODY: Setting = Setting {
    key: "limits.body",
    flag: "limits-body",
    env: "BURSAR_LIMITS_BODY",
    placeholder: "SIZE",
    default: Fallback::Value("8.0 MiB"),
    read: value::memory,
    help: "Most bytes of one request's body",
};

/// Most headers of a request.
pub(crate) static LIMITS_HEADERS: Setting = Setting {
    key: "limits.headers",
    flag: "limits-headers",
    env: "BURSAR_LIMITS_HEADERS",
    placeholder: "N",
    default: Fallback::Value("64"),
    read: value::headers,
    help: "Most headers of one request",
};

/// Levels that JSON may be nested.
pub(crate) static LIMITS_JSON_DEPTH: Setting = Setting {
    key: "limits.json_depth",
    flag: "limits-json-depth",
    env: "BURSAR_LIMITS_JSON_DEPTH",
    placeholder: "N",
    default: Fallback::Value("64"),
    read: value::json_depth,
    help: "How deep the JSON of a request may be nested",
};

/// Texts that a batch takes however long it runs.
pub(crate) static MIN_BATCH: Setting = Setting {
    key: "embed.min_batch",
    flag: "min-batch",
    env: "BURSAR_MIN_BATCH",
    placeholder: "TEXTS",
    default: Fallback::Value("1"),
    read: value::texts,
    help: "Texts to embed that a batch takes even if it then runs for longer than others should wait",
};

/// Most texts of a batch.
pub(crate) static MAX_BATCH: Setting = Setting {
    key: "embed.max_batch",
    flag: "max-batch",
    env: "BURSAR_MAX_BATCH",
    placeholder: "TEXTS",
    default: Fallback::Derived("as many as fit the tokens"),
    read: value::texts,
    help: "Most texts to embed in one batch",
};

/// Bytes for the activations of a batch of texts.
pub(crate) static BATCH_MEMORY: Setting = Setting {
    key: "embed.batch_memory",
    flag: "batch-memory",
    env: "BURSAR_BATCH_MEMORY",
    placeholder: "SIZE",
    default: Fallback::Derived("what batch_tokens take"),
    read: value::memory,
    help: "Memory for the activations of a batch of texts to embed, which decides its tokens if --batch-tokens does not; a share is of the whole budget",
};

/// Whether batches of texts are kept short.
pub(crate) static YIELD_BETWEEN_BATCHES: Setting = Setting {
    key: "embed.yield_between_batches",
    flag: "yield-between-batches",
    env: "BURSAR_YIELD_BETWEEN_BATCHES",
    placeholder: "BOOL",
    default: Fallback::Value("true"),
    read: value::switch,
    help: "Hold each batch of texts to a tenth of a second, so that other requests run in between; if off, each is as large as its memory allows",
};

/// How often the monitor looks.
pub(crate) static MONITOR_INTERVAL: Setting = Setting {
    key: "monitor.interval",
    flag: "monitor-interval",
    env: "BURSAR_MONITOR_INTERVAL",
    placeholder: "TIME",
    default: Fallback::Value("1s"),
    read: value::time,
    help: "How often it is looked whether memory is short",
};

/// From which share on memory is elevated.
pub(crate) static MONITOR_ELEVATED: Setting = Setting {
    key: "monitor.elevated",
    flag: "monitor-elevated",
    env: "BURSAR_MONITOR_ELEVATED",
    placeholder: "SHARE",
    default: Fallback::Value("70%"),
    read: value::share,
    help: "From which share of a limit on memory counts as elevated: what costs nobody anything is given back",
};

/// From which share on memory is high.
pub(crate) static MONITOR_HIGH: Setting = Setting {
    key: "monitor.high",
    flag: "monitor-high",
    env: "BURSAR_MONITOR_HIGH",
    placeholder: "SHARE",
    default: Fallback::Value("85%"),
    read: value::share,
    help: "From which share of a limit on memory counts as high: what is not in use is given back",
};

/// From which share on memory is critical.
pub(crate) static MONITOR_CRITICAL: Setting = Setting {
    key: "monitor.critical",
    flag: "monitor-critical",
    env: "BURSAR_MONITOR_CRITICAL",
    placeholder: "SHARE",
    default: Fallback::Value("95%"),
    read: value::share,
    help: "From which share of a limit on memory counts as critical: new requests are refused",
};

/// How weights are held.
pub(crate) static WEIGHTS_DTYPE: Setting = Setting {
    key: "weights.dtype",
    flag: "weights-dtype",
    env: "BURSAR_WEIGHTS_DTYPE",
    placeholder: "TYPE",
    default: Fallback::Value("as-is"),
    read: value::weights_dtype,
    help: "How matrices are held: as-is, bf16, q8_0, q4_k (where that is smaller than the file's), or auto: the least lossy that fits",
};

/// Where weights are.
pub(crate) static WEIGHTS_RESIDENCY: Setting = Setting {
    key: "weights.residency",
    flag: "weights-residency",
    env: "BURSAR_WEIGHTS_RESIDENCY",
    placeholder: "WHERE",
    default: Fallback::Value("auto"),
    read: value::weights_residency,
    help: "Where weights are: resident, streamed (layers are read again in every pass), or auto: streamed where nothing else makes the model fit",
};

/// All settings, in the order in which they are printed.
pub(crate) static TABLE: [&Setting; 69] = [
    &MEMORY,
    &CONTEXT,
    &PARALLEL,
    &BATCH_TOKENS,
    &KV_DTYPE,
    &KV_DTYPE_K,
    &KV_DTYPE_V,
    &KV_PRESET,
    &KV_MEMORY,
    &KV_BLOCK_TOKENS,
    &KV_PREFIX_CACHE,
    &KV_CONTIGUOUS,
    &KV_SPILL,
    &KV_SPILL_BYTES,
    &KV_KEEP,
    &KV_COMPACTION_ENABLED,
    &KV_COMPACTION_FRAGMENTATION,
    &KV_COMPACTION_EFFICIENCY,
    &KV_COMPACTION_BYTES_PER_STEP,
    &MIN_BATCH,
    &MAX_BATCH,
    &BATCH_MEMORY,
    &YIELD_BETWEEN_BATCHES,
    &WEIGHTS_DTYPE,
    &WEIGHTS_RESIDENCY,
    &THREADS,
    &ISA,
    &MODELS_DIR,
    &MODELS_KEEP_ALIVE,
    &MODELS_MIN_RESIDENCY,
    &MODELS_PIN,
    &MODELS_EVICTION,
    &MODELS_WAIT,
    &ADMISSION,
    &LISTEN,
    &API_KEY_FILE,
    &TENANTS_FILE,
    &DRAIN,
    &TURNS_GENERATE,
    &TURNS_EMBED,
    &LIMITS_QUEUE,
    &LIMITS_BODY,
    &LIMITS_HEADERS,
    &LIMITS_JSON_DEPTH,
    &MONITOR_INTERVAL,
    &MONITOR_ELEVATED,
    &MONITOR_HIGH,
    &MONITOR_CRITICAL,
    &POOL_ENABLED,
    &POOL_HEAPS,
    &POOL_HEAP_SIZE,
    &POOL_MAX_HEAPS,
    &POOL_GROWTH_TRIGGER,
    &POOL_STRATEGY,
    &POOL_WARMUP_SIZES,
    &POOL_TRACK_STATISTICS,
    &POOL_LOG_EXHAUSTION,
    &POOL_CLEANUP_UTILISATION,
    &POOL_CLEANUP_INTERVAL,
    &POOL_COMPACTION_ENABLED,
    &POOL_COMPACTION_THRESHOLD,
    &POOL_COMPACTION_INTERVAL,
    &POOL_RECORD,
    &MEMBRANES_ENABLED,
    &MEMBRANES_DEPTH,
    &MEMBRANES_LIMIT,
    &PARAMS_POOL_CAPACITY,
    &PARAMS_POOL_MAX_AGE,
    &PARAMS_POOL_CLEANUP_INTERVAL,
];

/// Settings that are on or off: their flags need no value, and some have another that turns them
/// off.
pub(crate) static SWITCHES: [(&Setting, Option<&str>); 9] = [
    (&KV_PREFIX_CACHE, Some("no-prefix-cache")),
    (&KV_CONTIGUOUS, None),
    (&KV_COMPACTION_ENABLED, None),
    (&YIELD_BETWEEN_BATCHES, None),
    (&POOL_ENABLED, Some("no-pool")),
    (&POOL_TRACK_STATISTICS, None),
    (&POOL_LOG_EXHAUSTION, None),
    (&POOL_COMPACTION_ENABLED, None),
    (&MEMBRANES_ENABLED, None),
];

/// The setting of a file key.
pub(crate) fn by_key(key: &str) -> Option<&'static Setting> {
    TABLE.into_iter().find(|setting| setting.key == key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flag_and_variable_follow_from_the_key() {
        for setting in TABLE {
            // A flag may leave out the group where its own words say enough.
            let flag = setting.key.replace(['.', '_'], "-");
            let short = setting
                .key
                .split_once('.')
                .map(|(_, name)| name.replace('_', "-"));
            assert!(setting.flag == flag || Some(setting.flag) == short.as_deref());
            let env = format!("BURSAR_{}", setting.flag.to_uppercase().replace('-', "_"));
            assert_eq!(setting.env, env);
        }
    }

    #[test]
    fn default_values_can_be_read() {
        for setting in TABLE {
            if let Fallback::Value(text) = setting.default {
                assert_eq!(
                    (setting.read)(text).map(|value| value.to_string()),
                    Ok(text.into())
                );
            }
        }
    }
}
