//! `bursar serve [MODEL...]`: models over HTTP, all inside one budget, until SIGTERM.
//!
//! What can be refused is refused first: settings, address, files, plans. Then the port opens, and
//! the models are loaded while those who ask for them are told when to come back.
//!
//! - `load`: the thread that loads. `watch`: what the monitor is told, and says.

mod load;
mod watch;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use bursar_engine::{
    Engine, EngineOptions, Ladder, LoadOptions, MemoryPlan, Monitor, PlanRequest, ProcessBase,
    Purpose, Vocabulary,
};
use bursar_files::ModelFile;
use bursar_memory::pressure::Gauge;
use bursar_memory::{Bytes, Ledger, Lifetime, ReclaimBooks, counting};
use bursar_profile::{Level, spans};
use bursar_server::{
    Keys, KeysError, Limits, REQUESTS_FLOOR, Secret, SecretError, ServeError, Server,
    ServerOptions, Slot, requests_account,
};
use bursar_workers::Workers;
use clap::Args;

use crate::budget;
use crate::bundled;
use crate::config::table::{self, Setting};
use crate::config::{SettingFlags, Settings, TakesSettings};
use crate::failure::Failure;
use crate::model::{self, Found};
use crate::prepare;
use crate::sizing::{self, Otherwise};
use crate::verbs::Shared;
use load::{Loader, Planned};
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
    ];
}

/// A model that has been opened.
struct Opened {
    name: String,
    file: ModelFile,
    vocabulary: Vocabulary,
    purpose: Purpose,
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
    let opened = open(arguments, &settings, shared)?;
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
    let generates = |model: &&Opened| model.purpose == Purpose::Generate;
    let several = opened.iter().filter(generates).count() > 1;
    let mut planned = Vec::with_capacity(opened.len());
    for model in opened {
        // The rest of the budget, and the process's part, which every plan holds but which has
        // been reserved once for all.
        let process = base.bytes().saturating_sub(model.vocabulary.bytes());
        let left = ledger.free().saturating_add(process);
        let base = base.with_arena(controller.arena_bytes());
        let plan = plan(&model, base, &settings, budget.bytes, left)?;
        if !plan.fits() {
            eprintln!("{}", prepare::parts(&plan));
            return Err(Failure::does_not_fit(format!(
                "{} needs {}, and {left} of the budget of {} ({}) are left for it",
                model.name,
                plan.total(),
                budget.bytes,
                budget.source,
            ))
            .helps(&plan.remedies(budget.bytes.saturating_sub(left))));
        }
        let claim = controller.claim(&plan)?;
        let account = ledger.root().child(&*model.name, Lifetime::Semantic);
        let promise = account
            .reserve(plan.need(controller.arena_bytes()).loading)
            .map_err(|refusal| Failure::does_not_fit(refusal.to_string()))?;
        let keep = settings.kv_keep(&model.name, several);
        planned.push(Planned {
            keep: keep.filter(|_| model.purpose == Purpose::Generate),
            slot: Slot::loading(&model.name, model.purpose),
            opened: model,
            plan,
            promise,
            claim,
        });
    }
    let mut limits = Limits {
        headers: settings.limits_headers(),
        json_depth: settings.limits_json_depth(),
        ..Limits::default()
    };
    if let Some(body) = settings.limits_body(budget.bytes).and_then(Bytes::to_usize) {
        limits.body = body;
    }
    let (pressure, reclaim) = (Gauge::new(), ReclaimBooks::new());
    let served = EngineOptions {
        salt: secret.salt(),
        reclaim: Some(reclaim.clone()),
        ..settings.engine_options(budget.bytes)
    };
    let options = ServerOptions {
        listen,
        keys,
        secret,
        limits,
        drain: settings.drain(),
        pressure: pressure.clone(),
        reclaim: reclaim.clone(),
    };
    let slots = planned.iter().map(|model| model.slot.clone()).collect();
    let server = Server::bind(options, &ledger, account, slots).map_err(|e| failure(&e))?;
    eprintln!("listening on {}", server.address());
    let loaded = Loaded::default();
    let monitor = Monitor::start(
        watching,
        &ledger,
        Ladder::new(&ledger, &engine.controller(), &reclaim),
        Arc::new(loaded.clone()),
        pressure,
        watch::listener(),
    )?;
    let loader = Loader {
        ledger,
        workers,
        options: LoadOptions {
            isa: settings.isa(),
        },
        engine,
        loaded,
        served,
        progress: shared.progress,
        begun,
        address: server.address(),
        stopper: server.stopper(),
    };
    let loading = loader
        .start(planned)
        .map_err(|error| Failure::failed(format!("cannot start a thread: {error}")))?;
    server.run().map_err(|e| failure(&e))?;
    // It holds the models' tokenizers, and would ask an engine that has ended.
    drop(monitor);
    loading.end()
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

fn failure(error: &ServeError) -> Failure {
    match error {
        ServeError::Unprotected(_) => Failure::usage(error.to_string()),
        _ => Failure::failed(error.to_string()),
    }
}

/// Opens all models, those first that take a fixed number of bytes: the others share the rest.
fn open(
    arguments: &Arguments,
    settings: &Settings,
    shared: &Shared,
) -> Result<Vec<Opened>, Failure> {
    let mut found = Vec::new();
    for given in &arguments.models {
        found.push(model::find(given, settings, &shared.surroundings)?);
    }
    if found.is_empty() {
        found.push(Found::Bundled(bundled::chat()?));
        found.push(Found::Bundled(bundled::embedding()?));
    }
    let mut opened: Vec<Opened> = Vec::with_capacity(found.len());
    for found in &found {
        let name = match found {
            Found::Path(path) => name_of(path),
            Found::Bundled(bundled) => bundled.name.to_owned(),
        };
        if let Some(other) = opened.iter().find(|other| other.name == name) {
            let message = format!("two models would be called {}", other.name);
            return Err(Failure::usage(message).help("rename one of the files"));
        }
        let file = found.open()?;
        let vocabulary = Vocabulary::open(&file)?;
        let purpose = prepare::purpose(&file);
        opened.push(Opened {
            name,
            file,
            vocabulary,
            purpose,
        });
    }
    opened.sort_by_key(|model| model.purpose == Purpose::Generate);
    Ok(opened)
}

/// What clients call a model: its file or folder, without `.gguf`.
fn name_of(path: &Path) -> String {
    let path = path.canonicalize().unwrap_or_else(|_| path.to_owned());
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let name = name.strip_suffix(".gguf").unwrap_or(&name);
    name.strip_suffix(".safetensors").unwrap_or(name).to_owned()
}

/// Plans a model within `left` bytes. Where nobody says how many bytes keys and values get, they get
/// what is left, at most what all sequences need at their longest.
fn plan(
    model: &Opened,
    base: ProcessBase,
    settings: &Settings,
    budget: Bytes,
    left: Bytes,
) -> Result<MemoryPlan, Failure> {
    let parallel = match settings.parallel_is_given() {
        true => settings.parallel(),
        false => PARALLEL,
    };
    let mut request = sizing::request(settings, model.purpose, parallel, budget);
    if model.purpose == Purpose::Generate {
        request.batch_tokens.get_or_insert(BATCH_TOKENS);
    }
    let with = |request: &PlanRequest, bytes| {
        MemoryPlan::new(&model.file, &model.vocabulary, base, request, bytes)
    };
    if left < budget {
        // Others beside it do not make a model lossy or slow: what it is like alone decides.
        let parallel = 1;
        let alone = with(
            &PlanRequest {
                parallel,
                ..request
            },
            budget,
        )?;
        request.weights = alone.chosen_weights();
    }
    Ok(sizing::plan(
        request,
        settings,
        Otherwise::Leftover,
        left,
        |request| with(request, left),
    )?)
}
