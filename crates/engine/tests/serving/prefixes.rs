//! Prompts that begin alike: computed once, even when they come together; kept from one run to the
//! next; never shared between tenants.

use std::time::{Duration, Instant};

use bursar_engine::{EngineHandle, EngineOptions, GenerateRequest, SpillOptions, Totals, Usage};
use bursar_files::ModelFile;
use bursar_files::synth::{self, Preset};
use bursar_memory::Bytes;

use crate::load::{Answer, Setup, greedy, read, start};

/// A small model with room for long prompts, in a folder that goes with it.
pub(crate) struct Synth {
    dir: std::path::PathBuf,
    pub(crate) file: ModelFile,
}

impl Synth {
    pub(crate) fn new(name: &str) -> Self {
        let dir = std::env::temp_dir().join(format!("bursar-{name}-{}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("a temporary folder");
        let preset = Preset::parse("tiny-qwen3:q4_k").unwrap_or_else(|e| panic!("{e}"));
        let path = dir.join("model.gguf");
        synth::write(&preset, 1, &path, &mut |_| {}).unwrap_or_else(|e| panic!("{e}"));
        let file = ModelFile::open(&path).unwrap_or_else(|e| panic!("{e}"));
        Self { dir, file }
    }
}

impl Drop for Synth {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Tokens that follow from a number.
pub(crate) fn tokens(seed: u32, count: u32) -> Vec<u32> {
    (0..count)
        .map(|i| (i * 37 + seed * 101 + i * i * (seed + 3)) % 1000)
        .collect()
}

/// 512 tokens that all have in common, then 16 of one's own.
fn prompt(client: u32) -> Vec<u32> {
    let mut prompt = tokens(0, 512);
    prompt.extend(tokens(client + 1, 16));
    prompt
}

fn setup(options: EngineOptions) -> Setup {
    Setup {
        batch_tokens: 128,
        options,
        ..Setup::default()
    }
}

fn ask(request: GenerateRequest) -> GenerateRequest {
    GenerateRequest {
        logprobs: Some(1),
        ..request
    }
}

fn usage(answer: &Answer) -> Usage {
    answer.end.expect("the end").1
}

/// The counts once nobody is inside.
fn settled(handle: &EngineHandle) -> Totals {
    let start = Instant::now();
    while !handle.is_empty() {
        assert!(start.elapsed() < Duration::from_secs(60));
        std::thread::yield_now();
    }
    handle.snapshot().totals
}

#[test]
fn eight_at_once_compute_their_common_prefix_once() {
    let synth = Synth::new("eight");
    let cold = EngineOptions {
        prefix_cache: false,
        ..EngineOptions::default()
    };
    let (engine, _ledger) = start(&synth.file, setup(cold));
    let handle = engine.handle();
    let alone: Vec<Answer> = (0..8)
        .map(|client| {
            read(
                handle
                    .submit(ask(greedy(&prompt(client), 8)))
                    .expect("room"),
            )
        })
        .collect();
    assert_eq!(settled(&handle).prefill_tokens, 8 * 528);
    drop((engine, handle));

    let (engine, _ledger) = start(&synth.file, setup(EngineOptions::default()));
    let handle = engine.handle();
    let streams: Vec<_> = (0..8)
        .map(|client| {
            handle
                .submit(ask(greedy(&prompt(client), 8)))
                .expect("room")
        })
        .collect();
    let together: Vec<Answer> = streams.into_iter().map(read).collect();
    for (got, want) in together.iter().zip(&alone) {
        assert_eq!(got.tokens, want.tokens);
        assert_eq!(got.logprobs, want.logprobs);
        assert_eq!(got.tops, want.tops);
    }
    let cached: usize = together.iter().map(|a| usage(a).cached_tokens).sum();
    assert_eq!(cached, 7 * 512);
    let totals = settled(&handle);
    assert_eq!(totals.prefill_tokens, 512 + 8 * 16, "not 4,224");
    assert_eq!(totals.prefix_hit_tokens, 7 * 512);

    // Another tenant finds nothing of that, and only then something of its own.
    for cached in [0, 512] {
        let request = GenerateRequest {
            salt: Some([1; 32]),
            ..ask(greedy(&prompt(0), 8))
        };
        let answer = read(handle.submit(request).expect("room"));
        assert_eq!(answer.tokens, alone[0].tokens);
        assert_eq!(usage(&answer).cached_tokens, cached);
    }
    assert_eq!(settled(&handle).prefill_tokens, 640 + 528 + 16);
}

#[test]
fn prefixes_are_kept_from_one_run_to_the_next() {
    let synth = Synth::new("kept");
    let path = synth.dir.join("kept");
    let options = || EngineOptions {
        keep: Some(path.clone()),
        spill: Some(SpillOptions {
            dir: synth.dir.clone(),
            bytes: Bytes(1 << 20),
        }),
        ..EngineOptions::default()
    };
    let run = |warned: bool, cached: usize| {
        let (engine, _ledger) = start(&synth.file, setup(options()));
        assert_eq!(engine.handle().warnings().len(), usize::from(warned));
        let answer = read(
            engine
                .handle()
                .submit(ask(greedy(&prompt(3), 8)))
                .expect("room"),
        );
        assert_eq!(usage(&answer).cached_tokens, cached);
        let ended = engine.shut_down().unwrap_or_else(|e| panic!("{e}"));
        assert!(ended.kept_blocks.expect("asked for") >= 33);
        (answer.tokens, answer.logprobs)
    };
    let first = run(false, 0);
    assert_eq!(run(false, 512), first);
    // A damaged file is not used, and not in the way.
    let mut bytes = std::fs::read(&path).expect("it is there");
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(&path, bytes).expect("writable");
    assert_eq!(run(true, 0), first);
    assert_eq!(run(false, 512), first);
}
