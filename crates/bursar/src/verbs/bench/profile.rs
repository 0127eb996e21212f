//! `bursar bench profile`: where the time goes, span by span: loading, steps of an engine that writes
//! for several clients, batches of texts; and what the spans themselves cost.

use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use bursar_engine::{
    EmbedOptions, Embedder, EngineModel, EngineOptions, Event, GenerateRequest, LoadOptions,
    MemoryPlan, PlanRequest, ProcessBase, Purpose, SoloEngine, StopRules, Vocabulary,
    WeightsRequest,
};
use bursar_files::ModelFile;
use bursar_kernels::kv_view::KvDtype;
use bursar_memory::{Bytes, Ledger, counting};
use bursar_profile::{Level, Probe, Summary, span, spans};
use bursar_workers::Workers;
use clap::Args;
use serde_json::{Value, json};

use super::clock::Spread;
use super::draw::Draw;
use super::tiny;
use crate::config::table::{self, Setting};
use crate::config::{SettingFlags, Settings, TakesSettings};
use crate::failure::Failure;
use crate::model;
use crate::output::Out;
use crate::verbs::Shared;
use crate::{budget, bundled, prepare};

/// Clients at once, tokens of each prompt, and of each answer.
const CLIENTS: usize = 8;
const PROMPT: usize = 128;
const ANSWER: usize = 32;
/// Texts to embed, and tokens of each.
const TEXTS: usize = 256;
const TEXT: usize = 32;
/// Spans in a batch by which their cost is measured, and batches.
const SPANS: u32 = 20_000;
const BATCHES: usize = 25;

/// What can be given.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A model to look at [default: a tiny one with random weights that writes, and pocket-embed]
    model: Option<PathBuf>,
    /// Write when each span was to FILE, as JSON for ui.perfetto.dev or chrome://tracing
    #[arg(long, value_name = "FILE")]
    trace: Option<PathBuf>,
    /// Write the figures to FILE as JSON; - for stdout
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    settings: SettingFlags<Takes>,
}

/// What decides how it runs.
#[derive(Debug)]
pub(crate) struct Takes;

impl TakesSettings for Takes {
    const SETTINGS: &'static [&'static Setting] = &[
        &table::MEMORY,
        &table::BATCH_TOKENS,
        &table::THREADS,
        &table::ISA,
        &table::MODELS_DIR,
    ];
}

/// Measures and prints it.
pub(crate) fn run(arguments: &Arguments, shared: &Shared) -> Result<(), Failure> {
    let settings = shared.settings(&arguments.settings)?;
    let costs = costs();
    spans::reset();
    spans::set_level(Level::Trace);
    gauge();
    match &arguments.model {
        Some(name) => {
            let file = model::find(name, &settings, &shared.surroundings)?.open()?;
            match prepare::purpose(&file) {
                Purpose::Generate => generate(&file, &settings)?,
                Purpose::Embed => embed(&file, &settings)?,
            }
        }
        None => {
            generate(&ModelFile::open(&tiny::model(shared)?)?, &settings)?;
            if let Some(bundled) = bundled::named("pocket-embed") {
                embed(&bundled.open()?, &settings)?;
            }
        }
    }
    spans::set_level(Level::Off);
    let summary = spans::summary();
    let trace = spans::trace();
    if let Some(path) = &arguments.trace {
        let failed = |error| Failure::io("write", path, &error);
        let mut file = BufWriter::new(std::fs::File::create(path).map_err(failed)?);
        trace
            .write(&mut file)
            .and_then(|()| file.flush())
            .map_err(failed)?;
        let (events, lost) = (trace.events(), trace.lost());
        eprintln!(
            "{}: {events} events, {lost} older ones were overwritten",
            path.display()
        );
    }
    let mut out = Out::new();
    let as_json = as_json(&summary, &costs);
    match arguments.json.as_deref() {
        Some(path) if path == Path::new("-") => {
            out.json(&as_json)?;
            return out.flush();
        }
        Some(path) => {
            let mut text = as_json.to_string();
            text.push('\n');
            std::fs::write(path, text).map_err(|error| Failure::io("write", path, &error))?;
        }
        None => {}
    }
    out.text(&summary)?;
    out.line("")?;
    for (name, spread) in &costs {
        out.line(format_args!(
            "a span costs {:.1} ns {name} ({:.1} to {:.1})",
            spread.median, spread.least, spread.most
        ))?;
    }
    out.flush()
}

/// What a span costs at each level, in nanoseconds.
fn costs() -> Vec<(&'static str, Spread)> {
    let levels = [
        ("when off", Level::Off),
        ("in a histogram", Level::Histograms),
        ("in a trace", Level::Trace),
    ];
    let costs = levels.map(|(name, level)| {
        spans::set_level(level);
        let batches = (0..BATCHES).map(|_| {
            let begun = std::time::Instant::now();
            for number in 0..SPANS {
                let _span = span!("cost", std::hint::black_box(number));
            }
            begun.elapsed().as_nanos() as f64 / f64::from(SPANS)
        });
        (name, Spread::of(batches.collect()))
    });
    spans::set_level(Level::Off);
    costs.into()
}

fn as_json(summary: &Summary, costs: &[(&str, Spread)]) -> Value {
    let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
    let rows = summary.spans().iter().map(|span| {
        json!({
            "name": span.name,
            "count": span.count,
            "total_seconds": seconds(span.total_ns),
            "average_seconds": seconds(span.average_ns()),
            "min_seconds": seconds(span.min_ns),
            "p50_seconds": seconds(span.p50_ns),
            "p99_seconds": seconds(span.p99_ns),
            "max_seconds": seconds(span.max_ns),
        })
    });
    let spans: Vec<Value> = rows.collect();
    let [off, histogram, trace] = [0, 1, 2].map(|level: usize| costs[level].1.median / 1e9);
    json!({
        "bench": "profile",
        "spans": spans,
        "span_seconds": { "off": off, "histogram": histogram, "trace": trace },
    })
}

/// Notes what is resident now.
fn gauge() {
    if let Some(process) = Probe::default().process() {
        spans::gauge("resident_bytes", process.rss_bytes);
    }
}

fn request(settings: &Settings, purpose: Purpose, context: usize) -> PlanRequest {
    PlanRequest {
        purpose,
        context: Some(context),
        parallel: CLIENTS,
        batch_tokens: settings.batch_tokens(),
        batch_memory: None,
        kv_dtype_k: KvDtype::F16,
        kv_dtype_v: KvDtype::F16,
        kv_block_tokens: 16,
        kv_memory: None,
        threads: settings.threads(),
        weights: WeightsRequest::default(),
    }
}

fn plan(
    file: &ModelFile,
    settings: &Settings,
    request: &PlanRequest,
) -> Result<(Vocabulary, MemoryPlan, Ledger), Failure> {
    let budget: Bytes = budget::of_process(settings)?.bytes;
    let vocabulary = {
        let _span = span!("load.tokenizer");
        Vocabulary::open(file)?
    };
    counting::purge();
    let base = ProcessBase::measure()?
        .beside(bundled::bytes())
        .with_threads(settings.threads());
    let _span = span!("plan");
    let plan = MemoryPlan::new(file, &vocabulary, base, request, budget)?;
    Ok((vocabulary, plan, Ledger::new(budget)))
}

/// Several clients ask for texts at once.
fn generate(file: &ModelFile, settings: &Settings) -> Result<(), Failure> {
    let request = request(settings, Purpose::Generate, PROMPT + ANSWER + 1);
    let (vocabulary, plan, ledger) = plan(file, settings, &request)?;
    let workers = Workers::with_options(bursar_workers::Options {
        threads: settings.threads(),
        ..Default::default()
    });
    let workers = workers.map_err(|error| Failure::failed(error.to_string()))?;
    let isa = settings.isa();
    let name = file.config().name.clone();
    let model = {
        let _span = span!("load", file.used_bytes());
        EngineModel::load(
            &name,
            file,
            vocabulary,
            plan,
            &ledger,
            LoadOptions { isa },
            Arc::new(workers),
            &mut |_| gauge(),
        )?
    };
    let engine = SoloEngine::start(model, EngineOptions::default(), &ledger)?;
    gauge();
    let handle = engine.handle();
    let mut draw = Draw::new(0);
    let mut streams = Vec::with_capacity(CLIENTS);
    for _ in 0..CLIENTS {
        let request = GenerateRequest {
            prompt: draw.tokens(PROMPT, file.config().vocab),
            stop: StopRules {
                ignore_end: true,
                ..StopRules::default()
            },
            max_tokens: Some(ANSWER),
            ..GenerateRequest::default()
        };
        let stream = handle.submit(request);
        streams.push(stream.map_err(|rejected| Failure::failed(rejected.to_string()))?);
    }
    for stream in &mut streams {
        while let Some(event) = stream.recv_blocking() {
            match event {
                Event::Done { .. } => break,
                Event::Failed(error) => return Err(error.into()),
                _ => {}
            }
        }
    }
    gauge();
    Ok(())
}

/// Texts are embedded.
fn embed(file: &ModelFile, settings: &Settings) -> Result<(), Failure> {
    let config = file.config();
    let longest = config
        .embedding
        .as_ref()
        .map_or(config.context_max, |spec| spec.max_tokens);
    let request = request(settings, Purpose::Embed, longest.min(2 * TEXT));
    let (vocabulary, plan, ledger) = plan(file, settings, &request)?;
    let isa = settings.isa();
    let mut embedder = {
        let _span = span!("load", file.used_bytes());
        Embedder::load(
            file,
            vocabulary,
            plan,
            &ledger,
            LoadOptions { isa },
            &mut |_| gauge(),
        )?
    };
    let mut draw = Draw::new(1);
    let words: Vec<String> = (0..TEXTS)
        .map(|_| {
            (0..TEXT)
                .map(|_| format!("{:x} ", draw.below(4096)))
                .collect()
        })
        .collect();
    let mut seen = 0;
    embedder.embed(&words, &EmbedOptions::default(), &mut |_, _| {
        seen += 1;
        if seen % 64 == 0 {
            gauge();
        }
    })?;
    Ok(())
}
