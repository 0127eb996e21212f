//! `bursar bench alloc`: how often an engine asks the process allocator for memory, how long that takes,
//! and what it copies to its clients; with `--compare`, the same with pools, prefix cache and paged keys
//! and values off, each alone and all together.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use bursar_engine::{EngineOptions, Event, SoloEngine, TokenStream, Totals};
use bursar_files::ModelFile;
use bursar_memory::counting::ProcessAllocator;
use bursar_memory::{Bytes, Ledger, Lifetime, Pools, PoolsOptions};
use clap::Args;

use super::draw::Draw;
use super::sheet::Sheet;
use super::tiny;
use crate::failure::Failure;
use crate::verbs::Shared;

/// Requests at once.
const REQUESTS: usize = 8;
/// Times that so many are sent; the first is not counted.
const WAVES: usize = 9;
/// Tokens that all prompts begin with.
const COMMON: usize = 256;
/// Tokens of each prompt after them.
const OWN: usize = 32;
/// Tokens of each answer.
const GENERATED: usize = 64;
/// More than it all takes.
const BUDGET: Bytes = Bytes::gib(1);

/// What can be given.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Measure with the savings off as well, each alone and all together
    #[arg(long, conflicts_with = "mode")]
    compare: bool,
    /// What is on: all, all but one, or nothing
    #[arg(long, value_name = "MODE", default_value = "on",
          value_parser = MODES.map(|mode| mode.name))]
    mode: String,
    /// What tokens are drawn from
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Write the figures to FILE as JSON; - for stdout
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// What is on.
#[derive(Copy, Clone, Debug)]
struct Mode {
    name: &'static str,
    pools: bool,
    prefix_cache: bool,
    paged: bool,
}

const MODES: [Mode; 5] = [
    Mode {
        name: "on",
        pools: true,
        prefix_cache: true,
        paged: true,
    },
    Mode {
        name: "no_pool",
        pools: false,
        prefix_cache: true,
        paged: true,
    },
    Mode {
        name: "no_prefix_cache",
        pools: true,
        prefix_cache: false,
        paged: true,
    },
    Mode {
        name: "contiguous",
        pools: true,
        // Reservations in one piece share nothing.
        prefix_cache: false,
        paged: false,
    },
    Mode {
        name: "off",
        pools: false,
        prefix_cache: false,
        paged: false,
    },
];

/// What the counted waves came to.
#[derive(Copy, Clone, Debug)]
struct Counted {
    allocations: f64,
    allocated_bytes: f64,
    /// Bytes that lists copied because they grew.
    grown_bytes: f64,
    allocating: Duration,
    time: Duration,
    first_token: Duration,
    totals: Totals,
}

impl Counted {
    /// Bytes copied, wherever the engine copies any.
    fn copied(&self) -> f64 {
        self.grown_bytes + (self.totals.reply_bytes + self.totals.moved_bytes) as f64
    }
}

/// Measures and prints it.
pub(crate) fn run(arguments: &Arguments, shared: &Shared) -> Result<(), Failure> {
    let file = ModelFile::open(&tiny::model(shared)?)?;
    let mut sheet = Sheet::new("alloc");
    sheet.set("requests", REQUESTS * (WAVES - 1));
    sheet.set("at_once", REQUESTS);
    sheet.set("common_tokens", COMMON);
    sheet.set("own_tokens", OWN);
    sheet.set("generated_tokens", GENERATED);
    sheet.set("seed", arguments.seed);
    let wanted = |mode: &&Mode| arguments.compare || mode.name == arguments.mode;
    let mut counted = Vec::with_capacity(MODES.len());
    for mode in MODES.iter().filter(wanted) {
        let seen = measure(&file, *mode, arguments.seed, shared.allocator)?;
        let prefix = match arguments.compare {
            true => format!("{}_", mode.name),
            // Alone, so that sheets of two modes have the same names.
            false => String::new(),
        };
        write(&mut sheet, &prefix, &seen);
        counted.push(seen);
    }
    if !arguments.compare {
        sheet.set("mode", arguments.mode.as_str());
    }
    if let [on, .., off] = counted.as_slice() {
        ratios(&mut sheet, on, off);
    }
    sheet.finish(arguments.json.as_deref())
}

fn write(sheet: &mut Sheet, prefix: &str, seen: &Counted) {
    let requests = (REQUESTS * (WAVES - 1)) as f64;
    let tokens = requests * GENERATED as f64;
    let mut count = |name: &str, unit, words, value| {
        sheet.count(&format!("{prefix}{name}"), unit, words, value);
    };
    let words =
        "blocks asked for per request, by its caller and the engine, all its tokens included";
    count(
        "request_allocations",
        "allocations",
        words,
        seen.allocations / requests,
    );
    let words = "bytes of them";
    count("request_bytes", "B", words, seen.allocated_bytes / requests);
    let words = "blocks asked for per generated token";
    count(
        "token_allocations",
        "allocations",
        words,
        seen.allocations / tokens,
    );
    let words = "time in the allocator per generated token";
    let nanoseconds = seen.allocating.as_nanos() as f64 / tokens;
    count("token_allocating_ns", "ns", words, nanoseconds);
    let words =
        "bytes copied per generated token: to tell clients, and by lists and blocks that move";
    count("token_copied_bytes", "B", words, seen.copied() / tokens);
    let words = "tokens of prompts computed per request";
    let computed = seen.totals.prefill_tokens as f64 / requests;
    count("request_computed_tokens", "", words, computed);
    let words = "tokens generated in a second";
    let rate = tokens / seen.time.as_secs_f64();
    count("tokens_per_second", "1/s", words, rate);
    let words = "until the first token of a wave, on average";
    let first = seen.first_token.as_secs_f64() * 1e3;
    count("first_token_ms", "ms", words, first);
}

fn ratios(sheet: &mut Sheet, on: &Counted, off: &Counted) {
    let mut ratio = |name, words, on: f64, off: f64, goal: Option<f64>| {
        sheet.count(name, "", words, on / off.max(f64::MIN_POSITIVE));
        if let Some(most) = goal {
            sheet.goal(&format!("<= {most}"), |ratio| ratio <= most);
        }
    };
    let words = "blocks asked for, of those with all savings off";
    let (a, b) = (on.allocations, off.allocations);
    ratio("allocations_ratio", words, a, b, Some(0.7));
    let words = "bytes asked for, of those with all savings off";
    let (a, b) = (on.allocated_bytes, off.allocated_bytes);
    ratio("allocated_bytes_ratio", words, a, b, None);
    let words = "bytes copied, of those with all savings off";
    let (a, b) = (on.copied(), off.copied());
    ratio("copied_bytes_ratio", words, a, b, Some(0.85));
    let words = "time in the allocator, of that with all savings off";
    let (a, b) = (on.allocating.as_secs_f64(), off.allocating.as_secs_f64());
    ratio("allocating_ratio", words, a, b, Some(0.75));
    let words = "time for all of it, of that with all savings off";
    let (a, b) = (on.time.as_secs_f64(), off.time.as_secs_f64());
    ratio("time_ratio", words, a, b, None);
}

/// Runs the waves, one after the other.
fn measure(
    file: &ModelFile,
    mode: Mode,
    seed: u64,
    allocator: &'static ProcessAllocator,
) -> Result<Counted, Failure> {
    let ledger = Ledger::new(BUDGET);
    let engine = start(file, mode, &ledger)?;
    let handle = engine.handle();
    let mut draw = Draw::new(seed);
    let vocab = file.config().vocab;
    let common = draw.tokens(COMMON, vocab);
    let mut streams: Vec<TokenStream> = Vec::with_capacity(REQUESTS);
    let mut counted = None;
    let (mut first_token, mut begun) = (Duration::ZERO, Instant::now());
    for wave in 0..WAVES {
        if wave == 1 {
            // The first has made everything as large as it has to be.
            let before = (allocator.counts(), handle.snapshot().totals);
            allocator.time(true);
            counted = Some((before, allocator.timed()));
            (first_token, begun) = (Duration::ZERO, Instant::now());
        }
        let sent = Instant::now();
        for _ in 0..REQUESTS {
            let own = draw.tokens(OWN, vocab);
            let prompt = [common.as_slice(), &own].concat();
            streams.push(tiny::submit(&handle, prompt, GENERATED)?);
        }
        let mut heard = false;
        for mut stream in streams.drain(..) {
            while let Some(event) = stream.recv_blocking() {
                match event {
                    Event::Failed(error) => return Err(error.into()),
                    Event::Token { .. } if !heard => {
                        heard = true;
                        first_token += sent.elapsed();
                    }
                    _ => {}
                }
            }
        }
    }
    let time = begun.elapsed();
    allocator.time(false);
    let ((before, totals), timed) = counted.expect("there is more than one wave");
    let after = allocator.counts();
    let now = handle.snapshot().totals;
    Ok(Counted {
        allocations: after.allocations.wrapping_sub(before.allocations) as f64,
        allocated_bytes: after.allocated.saturating_sub(before.allocated).get() as f64,
        grown_bytes: after.copied.saturating_sub(before.copied).get() as f64,
        allocating: allocator.timed().saturating_sub(timed),
        time,
        first_token: first_token / (WAVES - 1) as u32,
        totals: Totals {
            reply_bytes: now.reply_bytes - totals.reply_bytes,
            moved_bytes: now.moved_bytes - totals.moved_bytes,
            prefill_tokens: now.prefill_tokens - totals.prefill_tokens,
            ..now
        },
    })
}

fn start(file: &ModelFile, mode: Mode, ledger: &Ledger) -> Result<SoloEngine, Failure> {
    let account = ledger.root().child("pools", Lifetime::Procedural);
    let pools = match mode.pools {
        true => Pools::start(&PoolsOptions::default(), &account)
            .map_err(|error| Failure::failed(error.to_string()))?,
        false => Pools::off(&account),
    };
    let longest = COMMON + OWN + GENERATED;
    let model = tiny::load(mode.name, file, longest, REQUESTS, ledger)?;
    let options = EngineOptions {
        prefix_cache: mode.prefix_cache,
        contiguous: !mode.paged,
        pools: Some(pools),
        ..EngineOptions::default()
    };
    Ok(SoloEngine::start(model, options, ledger)?)
}
