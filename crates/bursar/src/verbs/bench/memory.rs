//! `bursar bench memory`: what requests that begin alike hold of keys and values, by a real engine on
//! a small model with random weights; with `--compare`, the same with sharing off, and with all that
//! each request may need taken at once, as engines without pages do it.

use std::path::PathBuf;

use bursar_engine::{EngineOptions, EngineSnapshot, Event, SoloEngine};
use bursar_files::ModelFile;
use bursar_memory::{Bytes, Ledger};
use clap::Args;

use super::draw::Draw;
use super::sheet::Sheet;
use super::tiny::{self, BLOCK_TOKENS};
use crate::failure::Failure;
use crate::progress::Unit;
use crate::verbs::Shared;

/// Requests at once.
const REQUESTS: usize = 8;
/// Tokens that all begin with.
const COMMON: usize = 512;
/// Tokens of a request when it ends, prompt and answer.
const LENGTHS: std::ops::RangeInclusive<usize> = 1017..=1031;
/// Tokens of each answer.
const GENERATED: usize = 64;
/// More than it all takes.
const BUDGET: Bytes = Bytes::gib(1);

/// What can be given.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Measure with the sharing off as well, and with contiguous reservations
    #[arg(long)]
    compare: bool,
    /// What lengths and tokens are drawn from
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Write the figures to FILE as JSON; - for stdout
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// How blocks are given to requests.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Mode {
    Shared,
    Separate,
    Contiguous,
}

impl Mode {
    const ALL: [Mode; 3] = [Mode::Shared, Mode::Separate, Mode::Contiguous];

    fn name(self) -> &'static str {
        match self {
            Mode::Shared => "shared",
            Mode::Separate => "separate",
            Mode::Contiguous => "contiguous",
        }
    }

    fn options(self) -> EngineOptions {
        EngineOptions {
            prefix_cache: self == Mode::Shared,
            contiguous: self == Mode::Contiguous,
            ..EngineOptions::default()
        }
    }
}

/// What the requests held when they held most tokens.
#[derive(Copy, Clone, Debug, Default)]
struct Held {
    /// Bytes of the blocks.
    bytes: u64,
    /// Tokens that sequences had stored, what they share counted for each.
    tokens: usize,
    /// Places for tokens in their blocks, what they share counted for each.
    places: usize,
    /// Places in the blocks there were.
    real_places: usize,
    /// Sequences that ran.
    running: usize,
    /// Tokens of prompts computed, in the end.
    computed: u64,
    /// Bytes of a token.
    token_bytes: u64,
}

/// Measures and prints it.
pub(crate) fn run(arguments: &Arguments, shared: &Shared) -> Result<(), Failure> {
    let file = ModelFile::open(&tiny::model(shared)?)?;
    let requests = requests(arguments.seed, file.config().vocab);
    let lengths: Vec<usize> = requests
        .iter()
        .map(|prompt| prompt.len() + GENERATED)
        .collect();
    let mut sheet = Sheet::new("memory");
    sheet.set("model", tiny::MODEL);
    sheet.set("requests", REQUESTS);
    sheet.set("common_tokens", COMMON);
    sheet.set("lengths", lengths.as_slice());
    sheet.set("generated_tokens", GENERATED);
    sheet.set("block_tokens", BLOCK_TOKENS);
    sheet.set("seed", arguments.seed);
    let modes = match arguments.compare {
        true => Mode::ALL.as_slice(),
        false => &Mode::ALL[..1],
    };
    let mut bytes = Vec::with_capacity(modes.len());
    let total = modes.len() as u64;
    let mut meter = shared.progress.meter("measuring", Unit::Steps, total);
    for (&mode, done) in modes.iter().zip(1..) {
        let held = measure(&file, mode, &requests)?;
        bytes.push(held.bytes as f64);
        let mut count = |name: &str, unit, words, value| {
            sheet.count(&format!("{}_{name}", mode.name()), unit, words, value);
        };
        count(
            "bytes",
            "B",
            "held when the most tokens were stored",
            held.bytes as f64,
        );
        count("running", "", "requests that ran then", held.running as f64);
        count(
            "tokens",
            "",
            "tokens stored then, common ones counted for each request",
            held.tokens as f64,
        );
        count(
            "computed_tokens",
            "",
            "tokens of prompts computed in all",
            held.computed as f64,
        );
        let empty = held.places.saturating_sub(held.tokens);
        let waste = empty as f64 / (held.real_places as f64).max(1.0);
        count(
            "waste_ratio",
            "",
            "places in its blocks that hold nothing",
            waste,
        );
        if mode == Mode::Shared {
            sheet.goal("< 0.04", |waste| waste < 0.04);
        }
        if mode == Mode::Contiguous {
            let exact = lengths.iter().sum::<usize>() as u64 * held.token_bytes;
            sheet.count(
                "contiguous_exact_bytes",
                "B",
                "the same reserved to the token, not in whole blocks",
                exact as f64,
            );
            bytes.push(exact as f64);
        }
        meter.set(done, || mode.name().to_owned());
    }
    meter.finish();
    if let [shared, separate, contiguous, exact] = bytes[..] {
        let words = "of what is held with sharing off";
        sheet.count("shared_to_separate_ratio", "", words, shared / separate);
        let words = "of what is held with contiguous reservations in whole blocks";
        sheet.count(
            "shared_to_contiguous_blocks_ratio",
            "",
            words,
            shared / contiguous,
        );
        let words = "of what contiguous reservations of prompt and longest answer hold";
        sheet.count("shared_to_contiguous_ratio", "", words, shared / exact);
        sheet.goal("<= 0.58", |ratio| ratio <= 0.58);
        // The engine's requests end within some steps of one another, not all in one.
        let (blocks, tokens) = at_full_length(&lengths);
        let ratio = (blocks * BLOCK_TOKENS) as f64 / tokens as f64;
        let words = "the same if all had been at their full length at once, from their lengths";
        sheet.count("shared_to_contiguous_full_ratio", "", words, ratio);
        sheet.goal("<= 0.58", |ratio| ratio <= 0.58);
    }
    sheet.finish(arguments.json.as_deref())
}

/// Blocks that requests of these lengths share and hold for themselves, and their tokens, those that
/// they share counted for each.
fn at_full_length(lengths: &[usize]) -> (usize, usize) {
    let common = COMMON / BLOCK_TOKENS;
    let own = lengths
        .iter()
        .map(|length| length.div_ceil(BLOCK_TOKENS) - common);
    (common + own.sum::<usize>(), lengths.iter().sum())
}

/// The prompts: all begin alike, each goes on for itself.
fn requests(seed: u64, vocab: usize) -> Vec<Vec<u32>> {
    let mut draw = Draw::new(seed);
    let common = draw.tokens(COMMON, vocab);
    let span = LENGTHS.end() - LENGTHS.start() + 1;
    (0..REQUESTS)
        .map(|_| {
            let length = LENGTHS.start() + draw.below(span);
            let own = draw.tokens(length - GENERATED - COMMON, vocab);
            [common.as_slice(), &own].concat()
        })
        .collect()
}

/// Runs all requests at once.
fn measure(file: &ModelFile, mode: Mode, prompts: &[Vec<u32>]) -> Result<Held, Failure> {
    let engine = start(file, mode)?;
    let handle = engine.handle();
    let mut streams = Vec::with_capacity(prompts.len());
    for prompt in prompts {
        streams.push(tiny::submit(&handle, prompt.clone(), GENERATED)?);
    }
    let mut held = Held::default();
    for stream in &mut streams {
        // Whatever this one hears, all others have come as far.
        while let Some(event) = stream.recv_blocking() {
            held.look(&handle.snapshot());
            match event {
                Event::Done { .. } => break,
                Event::Failed(error) => return Err(error.into()),
                _ => {}
            }
        }
    }
    held.computed = handle.snapshot().totals.prefill_tokens;
    Ok(held)
}

impl Held {
    /// Keeps what is seen if it is more than has been.
    fn look(&mut self, seen: &EngineSnapshot) {
        let Some(kv) = seen
            .kv
            .as_ref()
            .filter(|_| seen.stored_tokens > self.tokens)
        else {
            return;
        };
        let block_bytes = kv.bytes_per_token.get() * kv.block_tokens as u64;
        *self = Held {
            bytes: kv.blocks_used as u64 * block_bytes,
            tokens: seen.stored_tokens,
            places: kv.logical_blocks * kv.block_tokens,
            real_places: kv.blocks_used * kv.block_tokens,
            running: seen.running,
            computed: 0,
            token_bytes: kv.bytes_per_token.get(),
        };
    }
}

fn start(file: &ModelFile, mode: Mode) -> Result<SoloEngine, Failure> {
    let ledger = Ledger::new(BUDGET);
    let model = tiny::load(mode.name(), file, *LENGTHS.end(), REQUESTS, &ledger)?;
    Ok(SoloEngine::start(model, mode.options(), &ledger)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_of_1024_tokens_hold_what_nine_halves_would() {
        assert_eq!(at_full_length(&[1024; 8]), (32 + 8 * 32, 8192));
        assert_eq!(at_full_length(&[1025, 1017]), (32 + 33 + 32, 2042));
    }

    #[test]
    fn requests_are_the_same_from_the_same_seed() {
        let prompts = requests(7, 1000);
        assert_eq!(prompts, requests(7, 1000));
        assert_ne!(prompts, requests(8, 1000));
        for prompt in &prompts {
            assert!(LENGTHS.contains(&(prompt.len() + GENERATED)));
            assert_eq!(prompt[..COMMON], prompts[0][..COMMON]);
            assert!(prompt.iter().all(|&token| token < 1000));
        }
        assert_ne!(prompts[0][COMMON..], prompts[1][COMMON..]);
    }
}
