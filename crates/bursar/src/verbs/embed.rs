//! `bursar embed [MODEL] FILES...`: vectors of lines or files, in batches, resumable.
//!
//! - `input`: the texts, one at a time.
//! - `rows`: vectors as JSON Lines or as a NumPy array.
//! - `sink`: stdout, or a file that can be continued after an interruption.
//! - `digest`: what decides a run's rows, in a few bytes.

mod digest;
mod input;
mod rows;
mod sink;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::time::Instant;

use bursar_engine::{EmbedOptions, EmbedStats, Embedder, LoadOptions, Purpose, StreamFigures};
use bursar_memory::{Bytes, Ledger, counting};
use bursar_profile::Probe;
use clap::Args;
use serde_json::json;

use crate::bundled;
use crate::config::table::{self, Setting};
use crate::config::{SettingFlags, Settings, TakesSettings};
use crate::failure::Failure;
use crate::model::{self, Found};
use crate::output::{Out, grouped};
use crate::prepare;
use crate::progress::{Meter, Unit, duration};
use crate::verbs::Shared;
use input::{Input, Reader, Text};
use rows::{Format, Row};
use sink::Sink;

/// Bytes of vectors held at once. Together with the texts and their tokens it stays below what the
/// plan sets aside for the small heap.
const CHUNK_VECTOR_BYTES: usize = 512 << 10;
/// Bytes of texts held at once; a longer text is held alone.
const CHUNK_TEXT_BYTES: usize = 256 << 10;
/// Texts held at once, between these, as their vectors allow.
const CHUNK_TEXTS: std::ops::RangeInclusive<usize> = 16..=1024;
/// Tokens of a short text.
const SHORT_TEXT_TOKENS: usize = 32;
/// Bytes of rows gathered before they are written.
const WRITE_BYTES: usize = 64 << 10;

/// What can be given.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// A model (a .gguf file, a folder with .safetensors files, or a name in the models folder),
    /// then the files with the texts, one per line; without files, or with -, stdin
    #[arg(value_name = "MODEL|FILES")]
    names: Vec<PathBuf>,
    /// Take each file as one text, instead of each line
    #[arg(long)]
    files: bool,
    /// How vectors are written [default: as the output's name ends, else jsonl]
    #[arg(long, value_name = "FORMAT")]
    format: Option<Format>,
    /// The file to write, - for stdout; it appears when it is complete, and an interrupted run can
    /// be continued by the same command
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Start over instead of continuing an interrupted run
    #[arg(long, requires = "output")]
    restart: bool,
    /// Put one of the model's prompts before each text, such as query
    #[arg(long, value_name = "NAME")]
    prompt_name: Option<String>,
    /// Put nothing before the texts, even where the model has a default prompt
    #[arg(long, conflicts_with = "prompt_name")]
    no_prompt: bool,
    /// Keep only so many values of each vector
    #[arg(long, value_name = "N")]
    dimensions: Option<usize>,
    /// Scale each vector to length 1 even if the model would not
    #[arg(long)]
    normalize: bool,
    /// Print the figures as JSON; needs -o
    #[arg(long, requires = "output")]
    json: bool,
    #[command(flatten)]
    settings: SettingFlags<Takes>,
}

impl Arguments {
    /// The file to write; `None` for stdout.
    fn output(&self) -> Option<&Path> {
        self.output
            .as_deref()
            .filter(|path| *path != Path::new("-"))
    }
}

/// What decides how batches run.
#[derive(Debug)]
pub(crate) struct Takes;

impl TakesSettings for Takes {
    const SETTINGS: &'static [&'static Setting] = &[
        &table::MEMORY,
        &table::CONTEXT,
        &table::BATCH_TOKENS,
        &table::BATCH_MEMORY,
        &table::MAX_BATCH,
        &table::WEIGHTS_DTYPE,
        &table::WEIGHTS_RESIDENCY,
        &table::THREADS,
        &table::ISA,
        &table::MODELS_DIR,
    ];
}

/// Embeds every text.
pub(crate) fn run(arguments: &Arguments, shared: &Shared) -> Result<(), Failure> {
    let settings = shared.settings(&arguments.settings)?;
    let format = format_of(arguments)?;
    let (model, input) = sort(arguments, &settings, shared)?;
    let model = match model {
        Some(model) => model,
        None => Found::Bundled(bundled::embedding()?),
    };
    let file = model.open()?;
    let census = input.census()?;
    let settings = settings.with_one_sequence();
    let prepared = prepare::prepare(file, Purpose::Embed, &settings)?;
    prepared.require_fit()?;
    let ledger = Ledger::new(prepared.budget.bytes);
    let file = prepared.file;
    let mut meter = shared
        .progress
        .meter("loading", Unit::Bytes, file.used_bytes());
    let mut embedder = Embedder::load(
        &file,
        prepared.vocabulary,
        prepared.plan,
        &ledger,
        LoadOptions {
            isa: settings.isa(),
        },
        &mut |done| meter.set(done, String::new),
    )?;
    meter.finish();
    embedder.set_batches(settings.batches());
    counting::purge();

    let options = EmbedOptions {
        prompt_name: arguments.prompt_name.clone(),
        no_prompt: arguments.no_prompt,
        dimensions: arguments.dimensions,
        normalize: arguments.normalize,
    };
    let prefix = embedder.check(&options)?.to_owned();
    let dimensions = options.dimensions.unwrap_or(embedder.dimensions());
    let state = match &census {
        Some(census) => {
            let decides = digest::Decides {
                prefix: &prefix,
                dimensions,
                context: embedder.plan().context(),
                normalize: options.normalize,
                format,
            };
            Some(digest::state(&file, embedder.plan(), census, &decides)?)
        }
        None => None,
    };
    let (sink, done) = match arguments.output() {
        Some(path) => Sink::file(path, format, dimensions, state.as_ref(), arguments.restart)?,
        None => (Sink::stdout(), 0),
    };
    let total = census.map(|census| census.texts);
    if done > 0 {
        let total = total.map_or(String::new(), |total| format!(" of {}", grouped(total)));
        eprintln!("note: continuing after {}{total} texts", grouped(done));
    }
    let mut work = Work {
        embedder,
        options,
        input: &input,
        format,
        sink,
        dimensions,
        done,
        skipped: done,
        stats: EmbedStats::default(),
        begun: Instant::now(),
        meter: shared.progress.meter("embedding", Unit::Texts, total),
    };
    work.run()?;
    let figures = work.figures();
    let Work {
        sink, done, meter, ..
    } = work;
    meter.finish();
    sink.finish(done)?;
    figures.print(arguments, &ledger)
}

/// The format asked for, or the one that the output's name asks for.
fn format_of(arguments: &Arguments) -> Result<Format, Failure> {
    let npy = |path: &Path| path.extension().is_some_and(|extension| extension == "npy");
    let format = arguments
        .format
        .unwrap_or(match arguments.output().is_some_and(npy) {
            true => Format::Npy,
            false => Format::Jsonl,
        });
    if format == Format::Npy && arguments.output().is_none() {
        return Err(Failure::usage("an array cannot be written to stdout").help("give -o FILE.npy"));
    }
    Ok(format)
}

/// The first name is the model if there is such a model; all others are files.
fn sort(
    arguments: &Arguments,
    settings: &Settings,
    shared: &Shared,
) -> Result<(Option<Found>, Input), Failure> {
    let mut names = arguments.names.as_slice();
    let mut model = None;
    if let [first, rest @ ..] = names {
        let found = model::lookup(first, settings, &shared.surroundings);
        let meant = model::is_meant_as_model(&first.to_string_lossy());
        if found.as_ref().is_some_and(model::is_model) || (found.is_none() && meant) {
            model = Some(model::find(first, settings, &shared.surroundings)?);
            names = rest;
        }
    }
    let stdin = names.is_empty() || *names == [PathBuf::from("-")];
    if names.is_empty() && std::io::stdin().is_terminal() {
        return Err(Failure::usage("there is nothing to embed")
            .help("name files, pipe texts in, or give - to type them"));
    }
    let input = match (stdin, arguments.files) {
        (true, false) => Input::Stdin,
        (true, true) => {
            return Err(
                Failure::usage("--files takes each file as a text, but there is no file")
                    .help("name the files, or leave --files out to read lines from stdin"),
            );
        }
        (false, true) => Input::Files(names.to_vec()),
        (false, false) => Input::Lines(names.to_vec()),
    };
    if let Some(missing) = names.iter().find(|path| !stdin && !path.exists()) {
        let message = format!("there is no file {}", missing.display());
        return Err(Failure::failed(message).help("name files that exist, or - for stdin"));
    }
    Ok((model, input))
}

/// A run over an input.
struct Work<'a> {
    embedder: Embedder,
    options: EmbedOptions,
    input: &'a Input,
    format: Format,
    sink: Sink,
    dimensions: usize,
    /// Texts whose rows are written.
    done: u64,
    /// Texts whose rows were there before.
    skipped: u64,
    stats: EmbedStats,
    begun: Instant,
    meter: Meter,
}

impl Work<'_> {
    fn run(&mut self) -> Result<(), Failure> {
        let mut reader = self.input.open();
        for _ in 0..self.skipped {
            reader.next()?;
        }
        self.meter.set(self.done, String::new);
        let mut texts: Vec<Text> = Vec::new();
        let mut vectors = Vec::new();
        let mut bytes = Vec::with_capacity(WRITE_BYTES);
        while self.fill(&mut reader, &mut texts)? {
            self.embed(&texts, &mut vectors)?;
            for (text, vector) in texts.iter().zip(vectors.chunks_exact(self.dimensions)) {
                let name = self.input.name(text.file).map(Path::to_string_lossy);
                let row = Row {
                    index: self.done,
                    file: name.as_deref(),
                    line: text.line,
                    embedding: vector,
                };
                self.format.push_row(&row, &mut bytes);
                self.done += 1;
                if bytes.len() >= WRITE_BYTES {
                    self.sink.write(&bytes)?;
                    bytes.clear();
                }
            }
            // A chunk is whole in the file before the next is begun: it is what a resumed run
            // need not do again.
            self.sink.write(&bytes)?;
            bytes.clear();
        }
        Ok(())
    }

    /// Reads as many texts as are embedded together; false at the end of the input.
    fn fill(&self, reader: &mut Reader<'_>, texts: &mut Vec<Text>) -> Result<bool, Failure> {
        texts.clear();
        let by_vectors = CHUNK_VECTOR_BYTES / (self.dimensions * size_of::<f32>());
        let plan = self.embedder.plan();
        // Where each pass reads the weights again, a chunk is a whole batch of short texts.
        let whole = match plan.streaming() {
            Some(_) => plan.batch_tokens() / SHORT_TEXT_TOKENS,
            None => 0,
        };
        let most = by_vectors.max(whole);
        let most = most.clamp(*CHUNK_TEXTS.start(), *CHUNK_TEXTS.end());
        let mut bytes = 0;
        while texts.len() < most && bytes < CHUNK_TEXT_BYTES {
            let Some(text) = reader.next()? else { break };
            bytes += text.text.len();
            texts.push(text);
        }
        Ok(!texts.is_empty())
    }

    /// Embeds texts; `vectors` gets one row each, in the order of the texts.
    fn embed(&mut self, texts: &[Text], vectors: &mut Vec<f32>) -> Result<(), Failure> {
        let Work {
            embedder,
            options,
            meter,
            stats,
            dimensions,
            done,
            begun,
            ..
        } = self;
        vectors.clear();
        vectors.resize(texts.len() * *dimensions, 0.0);
        let words: Vec<&str> = texts.iter().map(|text| text.text.as_str()).collect();
        let tokens_so_far = stats.tokens;
        let mut embedded = 0;
        let chunk = embedder.embed(&words, options, &mut |index, vector| {
            vectors[index * *dimensions..][..*dimensions].copy_from_slice(vector);
            embedded += 1;
            meter.set(*done + embedded, || {
                note(tokens_so_far, begun.elapsed().as_secs_f64())
            });
        })?;
        stats.texts += chunk.texts;
        stats.tokens += chunk.tokens;
        stats.batches += chunk.batches;
        stats.truncated += chunk.truncated;
        stats.seconds += chunk.seconds;
        Ok(())
    }

    fn figures(&self) -> Figures {
        Figures {
            stats: self.stats,
            skipped: self.skipped,
            done: self.done,
            dimensions: self.dimensions,
            seconds: self.begun.elapsed().as_secs_f64(),
            plan: self.embedder.plan().total(),
            streaming: self.embedder.stream_figures(),
        }
    }
}

/// Tokens per second and memory, for the progress display.
fn note(tokens: usize, seconds: f64) -> String {
    let rate = if tokens == 0 {
        String::new()
    } else {
        format!("{:.0} tokens/s, ", per_second(tokens, seconds))
    };
    let rss = Probe::default()
        .process()
        .map(|process| Bytes(process.rss_bytes));
    format!(
        "{rate}{} resident",
        rss.map_or("unknown".to_owned(), |rss| rss.to_string())
    )
}

fn per_second(count: usize, seconds: f64) -> f64 {
    if seconds > 0.0 {
        count as f64 / seconds
    } else {
        0.0
    }
}

/// What a run came to.
struct Figures {
    stats: EmbedStats,
    skipped: u64,
    done: u64,
    dimensions: usize,
    seconds: f64,
    plan: Bytes,
    streaming: Option<StreamFigures>,
}

impl Figures {
    /// On stdout as JSON where asked for; otherwise on stderr, where the vectors went to a file.
    fn print(&self, arguments: &Arguments, ledger: &Ledger) -> Result<(), Failure> {
        let Some(output) = arguments.output() else {
            return Ok(());
        };
        let stats = &self.stats;
        if !arguments.json {
            let cut = match stats.truncated {
                0 => String::new(),
                cut => format!(", {} cut to the longest length", grouped(cut as u64)),
            };
            eprintln!(
                "{}: {} vectors of {} values in {} ({:.1} texts/s, {:.0} tokens/s{cut})",
                output.display(),
                grouped(self.done),
                self.dimensions,
                duration(self.seconds),
                per_second(stats.texts, self.seconds),
                per_second(stats.tokens, self.seconds),
            );
            return Ok(());
        }
        let process = Probe::default().process();
        let mut out = Out::new();
        out.json(&json!({
            "path": output.to_string_lossy(),
            "texts": self.done,
            "texts_resumed": self.skipped,
            "texts_truncated": stats.truncated,
            "dimensions": self.dimensions,
            "tokens": stats.tokens,
            "batches": stats.batches,
            "seconds": self.seconds,
            "texts_per_second": per_second(stats.texts, self.seconds),
            "tokens_per_second": per_second(stats.tokens, self.seconds),
            "plan_bytes": self.plan.get(),
            "streaming": self.streaming.map(|figures| json!({
                "layers_read": figures.layers,
                "bytes_read": figures.bytes,
                "reading_seconds": figures.reading.as_secs_f64(),
                "packing_seconds": figures.packing.as_secs_f64(),
                "waiting_seconds": figures.waiting.as_secs_f64(),
            })),
            "budget_bytes": ledger.budget().get(),
            "granted_bytes": ledger.granted().get(),
            "rss_bytes": process.map(|process| process.rss_bytes),
            "rss_peak_bytes": process.and_then(|process| process.hwm_bytes),
        }))?;
        out.flush()
    }
}
