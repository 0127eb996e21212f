//! Models come and go for a long time, and the process stays as small as it was: in a process of its own,
//! because what others hold would be counted with it.

use std::sync::Arc;

use bursar_engine::{Engine, TurnWeights};
use bursar_files::ModelFile;
use bursar_files::synth::{self, Preset};
use bursar_memory::{Bytes, Ledger, counting};
use bursar_profile::Probe;
use bursar_workers::Workers;

#[path = "serving/load.rs"]
#[allow(dead_code, reason = "shared with the serving tests")]
mod load;

use load::{BUDGET, Setup, greedy, load, read};

/// What may differ from one time to another: tables of the allocator, pages of the program that are
/// touched late.
const SLACK: u64 = 2 << 20;
/// How often the model comes and goes.
const ROUNDS: usize = 50;

fn resident() -> u64 {
    counting::purge();
    let process = Probe::default().process().expect("mounted /proc");
    process.rss_anon_bytes.unwrap_or(process.rss_bytes)
}

/// A4: within 2 MiB of what there was before, every time, and no more the last times than the first.
#[test]
fn memory_goes_back_with_a_model() {
    let name = format!("bursar-coming-{}.gguf", std::process::id());
    let path = std::env::temp_dir().join(name);
    let preset = Preset::parse("tiny-llama:f32").unwrap_or_else(|e| panic!("{e}"));
    synth::write(&preset, 1, &path, &mut |_| {}).unwrap_or_else(|e| panic!("{e}"));
    let file = ModelFile::open(&path).unwrap_or_else(|e| panic!("{e}"));
    std::fs::remove_file(&path).expect("our own file");
    let ledger = Ledger::new(BUDGET);
    let engine = Engine::start(&ledger, TurnWeights::default()).unwrap_or_else(|e| panic!("{e}"));
    let controller = engine.controller();
    let workers = Arc::new(Workers::new(2));
    let setup = Setup {
        batch_tokens: 256,
        ..Setup::default()
    };
    let (mut held, mut after) = (0, Vec::new());
    for round in 0..ROUNDS {
        let model = load("comes", &file, &setup, &ledger, &workers);
        let handle = controller.add(model, setup.options.clone());
        let handle = handle.unwrap_or_else(|e| panic!("{e}"));
        let streams: Vec<_> = (0..8)
            .map(|i| handle.submit(greedy(&vec![3 + i; 300], 20)))
            .map(|stream| stream.unwrap_or_else(|e| panic!("{e}")))
            .collect();
        for stream in streams {
            assert!(read(stream).end.is_some());
        }
        held = held.max(resident());
        controller.remove(&handle).unwrap_or_else(|e| panic!("{e}"));
        drop(handle);
        assert_eq!(ledger.granted(), Bytes::ZERO, "round {round}");
        after.push(resident());
    }
    // The first time makes what stays: threads, tables, pages of the program.
    let before = after[0];
    let most = after[1..].iter().copied().max().unwrap_or(before);
    println!("{before} B before, {most} B at most after, {held} B with the model");
    assert!(held > most + 2 * SLACK, "{held} held, {after:?}");
    assert!(most <= before + SLACK, "{before} before, {after:?}");
    let mean = |rounds: &[u64]| rounds.iter().sum::<u64>() / rounds.len() as u64;
    let (first, last) = (mean(&after[1..11]), mean(&after[ROUNDS - 10..]));
    assert!(
        last <= first + SLACK / 4,
        "drift from {first} to {last}: {after:?}"
    );
}
