//! `bursar bench embed`: texts and tokens per second in batches from one text to very many, and what
//! the activations of each take.

use std::path::PathBuf;
use std::time::Instant;

use bursar_engine::{
    BatchOptions, EmbedOptions, Embedder, LoadOptions, MemoryPlan, PlanRequest, ProcessBase,
    Purpose, Vocabulary, WeightsRequest,
};
use bursar_files::ModelFile;
use bursar_kernels::kv_view::KvDtype;
use bursar_memory::{Bytes, Ledger, counting};
use bursar_profile::Probe;
use clap::Args;

use super::clock::Spread;
use super::draw::Draw;
use super::sheet::Sheet;
use crate::config::table::{self, Setting};
use crate::config::{SettingFlags, Settings, TakesSettings};
use crate::failure::Failure;
use crate::model::{self, Found};
use crate::progress::Unit;
use crate::verbs::Shared;
use crate::{budget, bundled};

/// What a text's blocks take more than its tokens, on average.
const ROUNDING: usize = 8;

/// What can be given.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// An embedding model: a .gguf file, a folder with .safetensors files, or a name in the models
    /// folder [default: pocket-embed, which comes with the program]
    model: Option<PathBuf>,
    /// Texts in a batch, one size after another
    #[arg(long, value_name = "N,...", value_delimiter = ',', default_values_t = [1, 4, 16, 64, 256, 1024])]
    sizes: Vec<usize>,
    /// Texts embedded for each measurement
    #[arg(long, value_name = "N", default_value_t = 1024)]
    texts: usize,
    /// Tokens of a text on average; each has between half and one and a half times as many
    #[arg(long, value_name = "TOKENS", default_value_t = 32)]
    length: usize,
    /// Measurements of each size
    #[arg(long, value_name = "N", default_value_t = 3)]
    rounds: usize,
    /// Write the figures to FILE as JSON; - for stdout
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    settings: SettingFlags<Takes>,
}

/// What decides how batches run.
#[derive(Debug)]
pub(crate) struct Takes;

impl TakesSettings for Takes {
    const SETTINGS: &'static [&'static Setting] = &[
        &table::MEMORY,
        &table::THREADS,
        &table::ISA,
        &table::MODELS_DIR,
    ];
}

/// What one size came to.
struct Measured {
    seconds: Vec<f64>,
    batches: usize,
    /// Planned for activations.
    activations: Bytes,
    /// Resident after the last round.
    resident: Option<u64>,
}

/// Measures and prints it.
pub(crate) fn run(arguments: &Arguments, shared: &Shared) -> Result<(), Failure> {
    let settings = shared.settings(&arguments.settings)?;
    let found = match &arguments.model {
        Some(name) => model::find(name, &settings, &shared.surroundings)?,
        None => Found::Bundled(bundled::embedding()?),
    };
    let zero = |name: &str| Failure::usage(format!("--{name} is 0")).help("give 1 or more");
    let counts = [
        ("texts", arguments.texts),
        ("length", arguments.length),
        ("rounds", arguments.rounds),
    ];
    let sizes = arguments.sizes.iter().map(|&size| ("sizes", size));
    if let Some((name, _)) = counts.into_iter().chain(sizes).find(|(_, n)| *n == 0) {
        return Err(zero(name));
    }
    let file = found.open()?;
    let texts = texts(arguments, file.config().vocab);
    let tokens: usize = texts.iter().map(Vec::len).sum();
    let mut sheet = Sheet::new("embed");
    sheet.set("model", file.config().name.as_str());
    sheet.set("texts", texts.len());
    sheet.set("tokens", tokens);
    sheet.set("threads", settings.threads());
    sheet.set("isa", settings.isa().name());
    let mut meter =
        shared
            .progress
            .meter("measuring", Unit::Steps, Some(arguments.sizes.len() as u64));
    for (done, &size) in arguments.sizes.iter().enumerate() {
        let measured = measure(&file, size, &texts, arguments, &settings)?;
        meter.set(done as u64 + 1, String::new);
        let rate = |count: usize| {
            let rates = measured
                .seconds
                .iter()
                .map(|seconds| count as f64 / seconds);
            Spread::of(rates.collect())
        };
        let name = |what: &str| format!("batch_{size}_{what}");
        sheet.spread(
            &name("texts_per_second"),
            "/s",
            "texts per second",
            rate(texts.len()),
        );
        sheet.spread(
            &name("tokens_per_second"),
            "/s",
            "tokens per second",
            rate(tokens),
        );
        let mut count = |what, unit, words, value| sheet.count(&name(what), unit, words, value);
        let batches = measured.batches as f64;
        count(
            "texts_mean",
            "",
            "texts in a batch",
            texts.len() as f64 / batches,
        );
        count(
            "activations_bytes",
            "B",
            "planned for the batch's activations",
            measured.activations.get() as f64,
        );
        if let Some(resident) = measured.resident {
            let words = "resident of the whole process afterwards";
            count("resident_bytes", "B", words, resident as f64);
        }
    }
    meter.finish();
    sheet.finish(arguments.json.as_deref())
}

/// Texts of tokens that mean nothing, always the same.
fn texts(arguments: &Arguments, vocab: usize) -> Vec<Vec<u32>> {
    let mut draw = Draw::new(0);
    let (least, span) = (arguments.length.div_ceil(2), arguments.length + 1);
    (0..arguments.texts)
        .map(|_| {
            let length = least + draw.below(span);
            draw.tokens(length, vocab)
        })
        .collect()
}

fn measure(
    file: &ModelFile,
    size: usize,
    texts: &[Vec<u32>],
    arguments: &Arguments,
    settings: &Settings,
) -> Result<Measured, Failure> {
    let budget = budget::of_process(settings)?.bytes;
    let vocabulary = Vocabulary::open(file)?;
    counting::purge();
    let longest = texts.iter().map(Vec::len).max();
    let request = PlanRequest {
        purpose: Purpose::Embed,
        context: longest,
        parallel: 1,
        batch_tokens: Some(size.saturating_mul(arguments.length.saturating_add(ROUNDING))),
        batch_memory: None,
        kv_dtype_k: KvDtype::F16,
        kv_dtype_v: KvDtype::F16,
        kv_block_tokens: 16,
        kv_memory: None,
        threads: settings.threads(),
        weights: WeightsRequest::default(),
    };
    let base = ProcessBase::measure()?
        .beside(bundled::bytes())
        .with_threads(settings.threads());
    let plan = MemoryPlan::new(file, &vocabulary, base, &request, budget)?;
    if !plan.fits() {
        let (need, remedy) = (plan.total(), "give smaller --sizes, or more --memory");
        return Err(Failure::does_not_fit(format!(
            "batches of {size} texts need {need} in all, more than the budget of {budget}"
        ))
        .help(remedy));
    }
    let activations = plan.model().activation_bytes();
    let options = LoadOptions {
        isa: settings.isa(),
    };
    let ledger = Ledger::new(budget);
    let mut embedder = Embedder::load(file, vocabulary, plan, &ledger, options, &mut |_| {})?;
    embedder.set_batches(BatchOptions {
        texts_max: Some(size),
        ..BatchOptions::default()
    });
    let (mut seconds, mut batches) = (Vec::with_capacity(arguments.rounds), 0);
    // The first round touches every page for the first time, and does not count.
    for round in 0..=arguments.rounds {
        let begun = Instant::now();
        let done = embedder.embed_tokens(texts, &EmbedOptions::default(), &mut |_, _| {})?;
        if round > 0 {
            seconds.push(begun.elapsed().as_secs_f64());
        }
        batches = done.batches;
    }
    let resident = Probe::default().process().map(|process| process.rss_bytes);
    Ok(Measured {
        seconds,
        batches,
        activations,
        resident,
    })
}
