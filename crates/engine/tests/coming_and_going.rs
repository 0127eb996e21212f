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

fn resident() -> u64 {
    counting::purge();
    let process = Probe::default().process().expect("mounted /proc");
    process.rss_anon_bytes.unwrap_or(process.rss_bytes)
}

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
    let (mut before, mut held) = (0, 0);
    for round in 0..12 {
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
        if round == 1 {
            before = resident();
        }
    }
    let after = resident();
    assert!(held > after + 2 * SLACK, "{held} held, {after} after");
    assert!(after <= before + SLACK, "{before} before, {after} after");
}
