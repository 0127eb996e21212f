//! `bursar serve [MODEL...]`: models over HTTP, all inside one budget, until SIGTERM.
//!
//! What can be refused is refused first: settings, address, files, plans. Then the port opens, and
//! the models that are named are loaded as far as they fit, others when somebody asks for them.
//!
//! - `pools`: where buffers come from, made before models are planned.
//! - `start`: the models named on the command line: opened and planned before the port opens.
//! - `catalog`: all models that may be asked for, and how they are loaded.
//! - `outlook`: what models would take if settings were others.
//! - `watch`: what the monitor is told, and says.

mod catalog;
mod outlook;
mod pools;
mod start;
mod watch;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bursar_engine::{
    CacheOptions, Engine, EngineOptions, Keeper, Ladder, LoadOptions, ModelCache, Monitor,
    ParamsPool, ProcessBase, Purpose,
};
use bursar_memory::pressure::Gauge;
use bursar_memory::{Bytes, Ledger, Lifetime, ReclaimBooks, counting};
use bursar_profile::{Level, spans};
use bursar_server::{
    Keys, KeysError, Limits, REQUESTS_FLOOR, Secret, SecretError, ServeError, Server,
    ServerOptions, requests_account,
};
use bursar_workers::Workers;
use clap::Args;

use crate::budget;
use crate::bundled;
use crate::config::table::{self, Setting};
use crate::config::{SettingFlags, Settings, TakesSettings};
use crate::failure::Failure;
use crate::verbs::Shared;
use catalog::{Catalog, CatalogParts, Sizes};
use outlook::Outlook;
use watch::Loaded;

/// Sequences at once where nobody says.
const PARALLEL: usize = 4;
/// Tokens of a step where nobody says: steps are kept to a tenth of a second, so that only a machine
/// that reads prompts faster than 2,560 tokens/s could do with more, and twice as many would double the
/// activations.
const BATCH_TOKENS: usize = 256;
/// Threads beside those that compute, of which the engine's is one: the server's, the one that
/// tokenizes long texts, the one that loads, and the monitor's.
const THREADS_BESIDE: usize = 4;

/// What can be given.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Models: .gguf files, folders with .safetensors files, or names in the models folder; clients
    /// ask for them by their names without folder and suffix
    #[arg(value_name = "MODEL")]
    models: Vec<PathBuf>,
    #[command(flatten)]
    settings: SettingFlags<Takes>,
}

/// What decides how models are served.
#[derive(Debug)]
pub(crate) struct Takes;

impl TakesSettings for Takes {
    const SETTINGS: &'static [&'static Setting] = &[
        &table::LISTEN,
        &table::API_KEY_FILE,
        &table::TENANTS_FILE,
        &table::MEMORY,
        &table::CONTEXT,
        &table::PARALLEL,
        &table::KV_MEMORY,
        &table::KV_PRESET,
        &table::KV_DTYPE,
        &table::KV_DTYPE_K,
        &table::KV_DTYPE_V,
        &table::KV_BLOCK_TOKENS,
        &table::KV_PREFIX_CACHE,
        &table::KV_CONTIGUOUS,
        &table::KV_SPILL,
        &table::KV_SPILL_BYTES,
        &table::KV_KEEP,
        &table::KV_COMPACTION_ENABLED,
        &table::KV_COMPACTION_FRAGMENTATION,
        &table::KV_COMPACTION_EFFICIENCY,
        &table::KV_COMPACTION_BYTES_PER_STEP,
        &table::ADMISSION,
        &table::BATCH_TOKENS,
        &table::BATCH_MEMORY,
        &table::MIN_BATCH,
        &table::MAX_BATCH,
        &table::YIELD_BETWEEN_BATCHES,
        &table::LIMITS_QUEUE,
        &table::LIMITS_BODY,
        &table::LIMITS_HEADERS,
        &table::LIMITS_JSON_DEPTH,
        &table::DRAIN,
        &table::TURNS_GENERATE,
        &table::TURNS_EMBED,
        &table::MONITOR_INTERVAL,
        &table::MONITOR_ELEVATED,
        &table::MONITOR_HIGH,
        &table::MONITOR_CRITICAL,
        &table::WEIGHTS_DTYPE,
        &table::WEIGHTS_RESIDENCY,
        &table::THREADS,
        &table::ISA,
        &table::MODELS_DIR,
        &table::MODELS_KEEP_ALIVE,
        &table::MODELS_MIN_RESIDENCY,
        &table::MODELS_PIN,
        &table::MODELS_EVICTION,
        &table::MODELS_WAIT,
        &table::POOL_ENABLED,
        &table::POOL_HEAPS,
        &table::POOL_HEAP_SIZE,
        &table::POOL_MAX_HEAPS,
        &table::POOL_GROWTH_TRIGGER,
        &table::POOL_STRATEGY,
        &table::POOL_WARMUP_SIZES,
        &table::POOL_TRACK_STATISTICS,
        &table::POOL_LOG_EXHAUSTION,
        &table::POOL_CLEANUP_UTILISATION,
        &table::POOL_CLEANUP_INTERVAL,
        &table::POOL_COMPACTION_ENABLED,
        &table::POOL_COMPACTION_THRESHOLD,
        &table::POOL_COMPACTION_INTERVAL,
        &table::POOL_RECORD,
        &table::MEMBRANES_ENABLED,
        &table::MEMBRANES_DEPTH,
        &table::MEMBRANES_LIMIT,
        &table::PARAMS_POOL_CAPACITY,
        &table::PARAMS_POOL_MAX_AGE,
        &table::PARAMS_POOL_CLEANUP_INTERVAL,
    ];
}

/// Loads the models and serves them.
pub(crate) fn run(arguments: &Arguments, shared: &Shared) -> Result<(), Failure> {
    let settings = shared.settings(&arguments.settings)?;
    let begun = Instant::now();
    let keys = keys(&settings)?;
    let watching = settings.monitor_options();
    let watching = watching.map_err(|error| Failure::usage(error.to_string()))?;
    let secret = secret(shared)?;
    // What cannot be served is said before models are loaded for minutes.
    let listen = settings.listen();
    drop(bursar_server::listener(listen, keys.is_some()).map_err(|e| failure(&e))?);
    // For `/metrics`: spans of milliseconds cost a tenth of a microsecond each.
    spans::set_level(Level::Histograms);
    let budget = budget::of_process(&settings)?;
    let ledger = Ledger::new(budget.bytes);
    let account = requests_account(&ledger).map_err(|refusal| {
        Failure::does_not_fit(refusal.to_string()).help(format!(
            "requests alone are guaranteed {REQUESTS_FLOOR}; give more with --memory"
        ))
    })?;
    let pools = pools::start(&settings, &ledger)?;
    let named = start::named(arguments, &settings, shared)?;
    let opened = start::open(&named)?;
    counting::purge();
    let threads = settings.threads();
    let base = ProcessBase::measure()?
        .beside(bundled::bytes())
        .with_threads(threads + THREADS_BESIDE);
    let tokenizers = opened.iter().fold(Bytes(0), |sum, model| {
        sum.saturating_add(model.vocabulary.bytes())
    });
    let _process = base
        .reserve(&ledger, tokenizers)
        .map_err(|refusal| Failure::does_not_fit(refusal.to_string()))?;
    let workers = Workers::with_options(bursar_workers::Options {
        threads,
        ..Default::default()
    });
    let workers = Arc::new(workers.map_err(|error| Failure::failed(error.to_string()))?);
    let engine = Engine::start(&ledger, settings.turns())?;
    let controller = engine.controller();
    let room = ledger.free();
    let purposes: BTreeMap<String, Purpose> = opened
        .iter()
        .map(|model| (model.name.clone(), model.purpose))
        .collect();
    let sizes = Sizes {
        settings: settings.clone(),
        budget: budget.bytes,
        base,
        tokenizers,
        room,
        ledger: ledger.clone(),
        controller: controller.clone(),
        only: match named.as_slice() {
            [(name, _)] => Some(name.clone()),
            _ => None,
        },
    };
    let planned = start::plan(opened, &sizes, &budget)?;
    let mut limits = Limits {
        headers: settings.limits_headers(),
        json_depth: settings.limits_json_depth(),
        wait: settings.models_wait(),
        ..Limits::default()
    };
    if let Some(body) = settings.limits_body(budget.bytes).and_then(Bytes::to_usize) {
        limits.body = body;
    }
    let (pressure, books) = (Gauge::new(), ReclaimBooks::new());
    let served = EngineOptions {
        salt: secret.salt(),
        pools: Some(pools.clone()),
        reclaim: Some(books.clone()),
        ..settings.engine_options(budget.bytes)
    };
    let options = CacheOptions {
        kept: match settings.keep_alive() {
            // Who names models and no time wants them there.
            None => named.iter().map(|(name, _)| name.clone()).collect(),
            Some(_) => Vec::new(),
        },
        queue: settings.limits_queue(),
        room,
        ..settings.cache_options()
    };
    let folder = settings.models_dir(&shared.surroundings);
    let writers = purposes.values().filter(|p| **p == Purpose::Generate);
    let several = writers.count() > 1;
    let catalog = Arc::new(Catalog::new(
        CatalogParts {
            sizes,
            workers,
            options: LoadOptions {
                isa: settings.isa(),
            },
            served,
            several,
            ladder: Ladder::new(&ledger, &controller, &books).with_pools(&pools),
            books: books.clone(),
            progress: shared.progress,
            named: named.into_iter().collect(),
            folder,
            begun,
        },
        purposes,
        planned,
    ));
    let cache = ModelCache::new(Arc::clone(&catalog) as Arc<_>, &ledger, options);
    start::check_pins(&settings, &cache)?;
    let shared_params = account.child("params", Lifetime::Semantic);
    let params = ParamsPool::new(settings.params_pool(), &shared_params);
    let options = ServerOptions {
        listen,
        keys,
        secret,
        limits,
        drain: settings.drain(),
        pressure: pressure.clone(),
        reclaim: books.clone(),
        params: params.clone(),
        pools: pools.clone(),
        planner: Some(Arc::new(Outlook(Arc::clone(&catalog)))),
        heap: Some(shared.heap),
    };
    #[cfg_attr(
        not(feature = "otel"),
        allow(unused_mut, reason = "changed by that alone")
    )]
    let mut server =
        Server::bind(options, &ledger, account, cache.clone()).map_err(|e| failure(&e))?;
    #[cfg(feature = "otel")]
    trace(&mut server, shared)?;
    for model in catalog.at_start(&settings.pinned()) {
        cache.preload(&model);
    }
    catalog.listening(server.address(), server.stopper());
    let keeper = Keeper::start(&cache)
        .map_err(|error| Failure::failed(format!("cannot start a thread: {error}")))?;
    let residents = Loaded {
        catalog: Arc::clone(&catalog),
        cache,
        params,
        pools: pools.clone(),
    };
    let monitor = Monitor::start(
        watching,
        &ledger,
        Ladder::new(&ledger, &controller, &books).with_pools(&pools),
        Arc::new(residents),
        pressure,
        watch::listener(),
    )?;
    server.run().map_err(|e| failure(&e))?;
    // It has the keeper unload models, and would ask an engine that has ended.
    drop(monitor);
    // A load that is under way is left to the end of the process: nobody waits for it.
    keeper.end();
    let mut failure = catalog.failure();
    for (_, ended) in engine.shut_down()? {
        if let Err(error) = ended {
            failure = Some(error.into());
        }
    }
    // Nobody is left who could still give something back.
    pools::tell_leaks(&pools);
    pools::write_trace(&settings, &pools)?;
    failure.map_or(Ok(()), Err)
}

/// Who may ask; `None` if all may.
fn keys(settings: &Settings) -> Result<Option<Keys>, Failure> {
    let read = || {
        let keys = settings.api_key_file().map(Keys::read).transpose()?;
        match settings.tenants_file() {
            Some(path) => Keys::with_tenants(keys, path).map(Some),
            None => Ok(keys),
        }
    };
    read().map_err(|error: KeysError| Failure::failed(error.to_string()))
}

/// What keeps tenants apart: kept in the user's state folder, so that cached prefixes that outlive
/// the process are found again.
fn secret(shared: &Shared) -> Result<Secret, Failure> {
    let folder = shared.surroundings.xdg("XDG_STATE_HOME", ".local/state");
    let opened = match folder {
        Some(folder) => Secret::open(&folder.join("bursar/secret")),
        None => return unkept("there is no home folder"),
    };
    match opened {
        Ok(secret) => Ok(secret),
        // A file system that cannot be written to is no reason not to serve.
        Err(error @ SecretError::System { .. }) => unkept(&error.to_string()),
        Err(error) => Err(Failure::failed(error.to_string())),
    }
}

fn unkept(why: &str) -> Result<Secret, Failure> {
    eprintln!("note: {why}; prefixes cached by this server are of no use to the next");
    Secret::unkept().map_err(|error| Failure::failed(format!("no randomness: {error}")))
}

/// Has requests told to a collector, where the environment names one as OpenTelemetry's programs have it.
#[cfg(feature = "otel")]
fn trace(server: &mut Server, shared: &Shared) -> Result<(), Failure> {
    let variable = |name: &str| shared.surroundings.variable(name);
    let collector = bursar_server::Collector::from_environment(&variable);
    match collector.map_err(|error| Failure::usage(error.to_string()))? {
        Some(collector) => server.trace_to(collector).map_err(|e| failure(&e)),
        None => Ok(()),
    }
}

fn failure(error: &ServeError) -> Failure {
    match error {
        ServeError::Unprotected(_) => Failure::usage(error.to_string()),
        _ => Failure::failed(error.to_string()),
    }
}
