//! `bursar search QUERY PATHS...`: finds pieces of files by their meaning.
//!
//! Files are cut into pieces, each piece becomes a vector, and the vectors nearest to that of the
//! question are shown. Vectors are kept on disk, so that a second search embeds only what changed.
//!
//! - `corpus`: from paths to pieces, from pieces to vectors.
//! - `results`: what is printed.

mod corpus;
mod results;

use std::path::PathBuf;
use std::time::Instant;

use bursar_engine::{EmbedOptions, Embedder, LoadOptions, Purpose};
use bursar_memory::{Ledger, Lifetime, counting};
use bursar_search::{Index, Reader, VectorStore, WalkOptions, best, walk};
use clap::Args;

use crate::bundled;
use crate::config::table::{self, Setting};
use crate::config::{SettingFlags, TakesSettings};
use crate::failure::Failure;
use crate::model::{self, Found};
use crate::prepare;
use crate::progress::Unit;
use crate::verbs::Shared;
use corpus::Corpus;
use results::Figures;

/// What can be given.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// What to look for, in words: "where the budget is detected"
    #[arg(value_name = "QUERY")]
    query: String,
    /// Files and folders to search
    #[arg(value_name = "PATHS", default_value = ".")]
    paths: Vec<PathBuf>,
    /// An embedding model: a .gguf file, a folder with .safetensors files, or a name in the models
    /// folder [default: pocket-embed, which comes with the program]
    #[arg(long, value_name = "MODEL")]
    model: Option<PathBuf>,
    /// How many pieces to show
    #[arg(long, value_name = "N", default_value_t = 10,
        value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1000))]
    limit: usize,
    /// How many lines of each to show
    #[arg(long, value_name = "N", default_value_t = 6)]
    lines: usize,
    /// Search hidden files and folders too
    #[arg(long)]
    hidden: bool,
    /// Search what .gitignore and .ignore files leave out too
    #[arg(long)]
    no_ignore: bool,
    /// Neither read nor write vectors in the cache folder
    #[arg(long)]
    no_cache: bool,
    /// Print one JSON object with the pieces and figures
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingFlags<Takes>,
}

/// What decides how pieces are embedded.
#[derive(Debug)]
pub(crate) struct Takes;

impl TakesSettings for Takes {
    const SETTINGS: &'static [&'static Setting] = &[
        &table::MEMORY,
        &table::BATCH_TOKENS,
        &table::WEIGHTS_DTYPE,
        &table::WEIGHTS_RESIDENCY,
        &table::THREADS,
        &table::ISA,
        &table::MODELS_DIR,
    ];
}

/// Searches.
pub(crate) fn run(arguments: &Arguments, shared: &Shared) -> Result<(), Failure> {
    let begun = Instant::now();
    let settings = shared.settings(&arguments.settings)?.with_one_sequence();
    if arguments.query.trim().is_empty() {
        return Err(Failure::usage("there is nothing to look for").help("give a QUERY in words"));
    }
    let found = match &arguments.model {
        Some(given) => model::find(given, &settings, &shared.surroundings)?,
        None => Found::Bundled(bundled::embedding()?),
    };
    let file = found.open()?;
    // Models that tell questions from answers know the former by this name.
    let asks = file.config().embedding.as_ref();
    let prompt = asks.and_then(|spec| spec.prompt("query").map(|_| "query".to_owned()));
    let prepared = prepare::prepare(file, Purpose::Embed, &settings)?;
    prepared.require_fit()?;
    let digest = model::digest_as_held(&prepared.file, &prepared.plan)?;
    let ledger = Ledger::new(prepared.budget.bytes);
    let account = ledger.root().child("search", Lifetime::Episodic);

    let options = WalkOptions {
        hidden: arguments.hidden,
        ignored: arguments.no_ignore,
    };
    let walked = walk(&arguments.paths, options)?;
    for words in &walked.unreadable {
        eprintln!("warning: {words}");
    }
    let width = prepared.plan.model().program().output_width;
    let mut corpus = Corpus {
        index: Index::new(walked.files, width, &account)?,
        reader: Reader::new(&account)?,
        store: None,
        bytes_max: corpus::piece_bytes(prepared.plan.context()),
        figures: Figures::default(),
    };
    corpus.cut(shared.progress)?;
    if !arguments.no_cache
        && let Some(folder) = shared.surroundings.xdg("XDG_CACHE_HOME", ".cache")
    {
        let folder = folder.join("bursar/search");
        let fingerprint = corpus::fingerprint(&digest, prepared.plan.context());
        corpus.take_kept(VectorStore::new(&folder, fingerprint));
    }

    let mut meter = shared
        .progress
        .meter("loading", Unit::Bytes, prepared.file.used_bytes());
    let mut embedder = Embedder::load(
        &prepared.file,
        prepared.vocabulary,
        prepared.plan,
        &ledger,
        LoadOptions {
            isa: settings.isa(),
        },
        &mut |done| meter.set(done, String::new),
    )?;
    meter.finish();
    counting::purge();
    corpus.embed(&mut embedder, shared.progress)?;

    let options = EmbedOptions {
        prompt_name: prompt,
        normalize: true,
        ..EmbedOptions::default()
    };
    let mut question = Vec::new();
    embedder.embed(&[&arguments.query], &options, &mut |_, vector| {
        question = vector.to_vec();
    })?;
    let hits = best(&corpus.index, &question, arguments.limit);
    let mut figures = corpus.figures;
    figures.finish(begun, &embedder, &corpus.index, &ledger);
    let shown = results::Shown {
        index: &corpus.index,
        lines: arguments.lines,
        query: &arguments.query,
        model: prepared.file.path(),
    };
    match arguments.json {
        true => shown.json(&hits, &mut corpus.reader, &figures),
        false => shown.text(&hits, &mut corpus.reader, &figures),
    }
}
