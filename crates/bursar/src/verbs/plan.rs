//! `bursar plan MODEL`: the exact bytes a model would take, by part, before any weight is read; as a picture, too
//! (`drawing`).

mod drawing;

use std::path::{Path, PathBuf};

use bursar_engine::{Expected, MemoryPlan, Purpose, Rates};
use bursar_files::ModelFile;
use bursar_files::synth::Preset as Architecture;
use bursar_kv::Preset;
use bursar_memory::Bytes;
use clap::{Args, ValueEnum};
use serde_json::{Value as Json, json};

use crate::config::table::{self, Setting};
use crate::config::{SettingFlags, Settings, TakesSettings};
use crate::failure::Failure;
use crate::model;
use crate::output::{Out, grouped};
use crate::picture;
use crate::prepare::{self, Prepared};
use crate::verbs::Shared;

/// What can be given.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A model: a file, a folder, a name in the models folder, or an architecture such as
    /// qwen3-0.6b or nomic-embed-code:q5_k_s
    #[arg(value_name = "MODEL")]
    model: PathBuf,
    /// What for; by default embedding if the model is made for it
    #[arg(long, value_name = "PURPOSE")]
    purpose: Option<For>,
    /// Draw the parts beside the budget into FILE
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingFlags<Takes>,
}

/// What a model is planned for.
#[derive(Copy, Clone, Debug, PartialEq, Eq, ValueEnum)]
enum For {
    /// Text from prompts
    Generate,
    /// Vectors from texts
    Embed,
}

/// Everything that changes a plan.
#[derive(Debug)]
pub(crate) struct Takes;

impl TakesSettings for Takes {
    const SETTINGS: &'static [&'static Setting] = &[
        &table::MEMORY,
        &table::CONTEXT,
        &table::PARALLEL,
        &table::BATCH_TOKENS,
        &table::BATCH_MEMORY,
        &table::KV_PRESET,
        &table::KV_DTYPE,
        &table::KV_DTYPE_K,
        &table::KV_DTYPE_V,
        &table::KV_MEMORY,
        &table::KV_BLOCK_TOKENS,
        &table::WEIGHTS_DTYPE,
        &table::WEIGHTS_RESIDENCY,
        &table::THREADS,
        &table::MODELS_DIR,
    ];
}

/// Prints the plan; exit code 3 if it does not fit.
pub(crate) fn run(arguments: &Arguments, shared: &Shared) -> Result<(), Failure> {
    let settings = shared.settings(&arguments.settings)?;
    let file = open(&arguments.model, &settings, shared)?;
    let purpose = match arguments.purpose {
        Some(For::Generate) => Purpose::Generate,
        Some(For::Embed) => Purpose::Embed,
        None => prepare::purpose(&file),
    };
    if purpose == Purpose::Generate {
        prepare::require_generates(&file)?;
    }
    let prepared = prepare::prepare(file, purpose, &settings)?;
    if let Some(path) = &arguments.svg {
        let name = &prepared.file.config().name;
        let drawn = drawing::draw(name, &prepared.plan, &prepared.budget.source);
        picture::write(path, &drawn)?;
    }
    let mut out = Out::new();
    if arguments.json {
        out.json(&document(
            &prepared.file,
            &prepared.plan,
            prepared.preset,
            &prepared.budget.source,
            prepared.expected.as_ref(),
        ))?;
    } else {
        print(&prepared, &mut out)?;
    }
    out.flush()?;
    if prepared.plan.fits() {
        Ok(())
    } else {
        Err(prepared.does_not_fit())
    }
}

/// The model's file; of an architecture, the header that its file would have.
fn open(given: &Path, settings: &Settings, shared: &Shared) -> Result<ModelFile, Failure> {
    if let Some(found) = model::lookup(given, settings, &shared.surroundings) {
        return found.open();
    }
    let text = given.to_string_lossy();
    if model::is_meant_as_model(&text) || given.components().count() > 1 {
        // Says that there is no such file.
        model::find(given, settings, &shared.surroundings)?;
    }
    let preset = Architecture::parse(&text).map_err(|error| {
        Failure::from(error).help("or give a .gguf file, or a folder with .safetensors files")
    })?;
    Ok(ModelFile::from_preset(&preset)?)
}

fn purpose_name(purpose: Purpose) -> &'static str {
    match purpose {
        Purpose::Generate => "generate",
        Purpose::Embed => "embed",
    }
}

fn print(prepared: &Prepared, out: &mut Out) -> Result<(), Failure> {
    let (plan, config) = (&prepared.plan, prepared.file.config());
    out.line(format_args!(
        "{} ({}, {} in its file), to {}",
        config.name,
        config.arch.name(),
        bursar_memory::Bytes(prepared.file.file_bytes()),
        purpose_name(plan.request().purpose)
    ))?;
    let kv = match plan.kv() {
        Some(_) => format!(
            ", {} at once, keys in {}, values in {}",
            plan.parallel(),
            plan.request().kv_dtype_k.name(),
            plan.request().kv_dtype_v.name(),
        ),
        None => String::new(),
    };
    out.line(format_args!(
        "context {}{kv}, {} tokens per batch, {} threads\n",
        plan.context(),
        plan.batch_tokens(),
        plan.request().threads
    ))?;
    out.line(prepare::parts(plan))?;
    if let Some(kv) = plan.kv() {
        let preset = match prepared.preset {
            Some(preset) => format!(" (preset {})", preset.name()),
            None => String::new(),
        };
        let tokens = kv.tokens() as u64;
        out.line(format_args!(
            "\nkeys and values{preset}: {} blocks of {} tokens hold {} tokens, {} sequences of {}; \
             a token takes {} bytes ({})",
            grouped(kv.blocks() as u64),
            kv.layout().block_tokens(),
            grouped(tokens),
            tokens / plan.context() as u64,
            grouped(plan.context() as u64),
            grouped(kv.bytes_per_token().get()),
            kv.bytes_per_token(),
        ))?;
    }
    for note in prepared.notes() {
        out.line(format_args!("\n{note}"))?;
    }
    if let Some((rates, _)) = &prepared.expected {
        out.line(format_args!(
            "measured: the file is read at {} a second, a thread packs {} a second, {} threads \
             multiply at {:.0} GFLOP/s",
            Bytes(rates.read_bytes_per_second as u64),
            Bytes(rates.pack_bytes_per_second as u64),
            plan.request().threads,
            rates.operations_per_second / 1e9,
        ))?;
    }
    if plan.fits() {
        let left = plan.budget().saturating_sub(plan.total());
        let source = &prepared.budget.source;
        out.line(format_args!(
            "\nfits: {left} of the budget are left ({source})"
        ))?;
    }
    Ok(())
}

/// A plan as JSON: `source` says where its budget comes from, `expected` what streaming its layers makes of
/// it.
pub(crate) fn document(
    file: &ModelFile,
    plan: &MemoryPlan,
    preset: Option<Preset>,
    source: &str,
    expected: Option<&(Rates, Expected)>,
) -> Json {
    let config = file.config();
    let request = plan.request();
    let parts: Vec<Json> = plan
        .parts()
        .iter()
        .map(|part| json!({ "name": part.name, "bytes": part.bytes.get(), "note": part.note }))
        .collect();
    json!({
        "model": config.name,
        "path": file.path().to_string_lossy(),
        "architecture": config.arch.name(),
        "file_bytes": file.file_bytes(),
        "purpose": purpose_name(request.purpose),
        "context": plan.context(),
        "parallel": plan.parallel(),
        "batch_tokens": plan.batch_tokens(),
        "kv": plan.kv().map(|kv| json!({
            "preset": preset.map(Preset::name),
            "dtype_k": request.kv_dtype_k.name(),
            "dtype_v": request.kv_dtype_v.name(),
            "block_tokens": request.kv_block_tokens,
            "blocks": kv.blocks(),
            "tokens": kv.tokens(),
            "bytes_per_token": kv.bytes_per_token().get(),
            "blocks_bytes": kv.blocks_bytes().get(),
            "metadata_bytes": kv.books_bytes().get(),
            "bytes": kv.bytes().get(),
        })),
        "weights": {
            "dtype": plan.model().options().weights.name(),
            "converts": plan.converts(),
            "streaming": plan.streaming().map(|streaming| json!({
                "layers": streaming.layers,
                "layers_of": streaming.of,
                "window_layers": streaming.window,
                "window_bytes": streaming.window_bytes.get(),
                "pass_bytes": streaming.pass_bytes.get(),
                "measured": expected.map(|(rates, expected)| json!({
                    "read_bytes_per_second": rates.read_bytes_per_second,
                    "pack_bytes_per_second": rates.pack_bytes_per_second,
                    "operations_per_second": rates.operations_per_second,
                    "batch_tokens_per_second": expected.batch_tokens_per_second,
                    "single_tokens_per_second": expected.single_tokens_per_second,
                })),
            })),
        },
        "threads": request.threads,
        "parts": parts,
        "total_bytes": plan.total().get(),
        "budget_bytes": plan.budget().get(),
        "budget_source": source,
        "fits": plan.fits(),
        "remedies": plan.remedies(Bytes(0)),
    })
}
