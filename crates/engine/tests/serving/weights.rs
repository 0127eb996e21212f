//! Weights of a served model: into a smaller form while it is idle, and streamed from a file that may go
//! away.

use bursar_engine::{DtypeChoice, EngineError, ResidencyChoice, WeightsDtype, WeightsRequest};
use bursar_files::ModelFile;
use bursar_memory::Bytes;

use crate::fixtures::root;
use crate::load::{Setup, greedy, read, start};
use crate::several::{Host, embed, embeds, model, submit, vectors, words, writes};

fn held(dtype: WeightsDtype) -> WeightsRequest {
    WeightsRequest {
        dtype: DtypeChoice::Held(dtype),
        residency: ResidencyChoice::Resident,
        held_layers: None,
    }
}

const STREAMED: WeightsRequest = WeightsRequest {
    dtype: DtypeChoice::Held(WeightsDtype::AsIs),
    residency: ResidencyChoice::Streamed,
    // Fixtures are tiny: all would stay.
    held_layers: Some(0),
};

#[test]
fn an_idle_model_answers_after_as_one_that_was_loaded_so() {
    let file = model("logits", "llama");
    let host = Host::new();
    let handle = host.add("llama", &file, &writes());
    let controller = host.engine.controller();
    let plain = words(submit(&handle).into_iter().map(read));
    let mut weights = None;
    for dtype in [WeightsDtype::Bf16, WeightsDtype::Q8_0] {
        let weights_of = |part: &[bursar_engine::HeldPart]| {
            let part = part.iter().find(|part| part.name == "weights");
            part.map(|part| (part.granted, part.measured))
        };
        let asked = controller.optimize(&handle, dtype, true);
        let asked = asked.unwrap_or_else(|e| panic!("{e}"));
        assert!(asked.converts && asked.returned.is_zero());
        assert_eq!(asked.before, asked.after);

        let before = host.granted();
        let done = controller.optimize(&handle, dtype, false);
        let done = done.unwrap_or_else(|e| panic!("{e}"));
        assert!(done.converts, "{}", done.note);
        assert_eq!(done.weights_before, asked.weights_before);
        assert_eq!(done.weights_after, asked.weights_after);
        // What went back is what was measured, and what the books say.
        assert_eq!(done.returned, done.weights_before - done.weights_after);
        assert_eq!(
            weights_of(&done.before),
            Some((done.weights_before, Some(done.weights_before)))
        );
        assert_eq!(
            weights_of(&done.after),
            Some((done.weights_after, Some(done.weights_after)))
        );
        assert!(host.granted() < before);
        assert!(weights.is_none_or(|weights| done.weights_after < weights));
        weights = Some(done.weights_after);

        let again = controller.optimize(&handle, dtype, false);
        let again = again.unwrap_or_else(|e| panic!("{e}"));
        assert!(
            !again.converts && again.note.contains("nothing to do"),
            "{}",
            again.note
        );
        let got = words(submit(&handle).into_iter().map(read));
        assert_ne!(got, plain, "{dtype} is lossy");
        if dtype == WeightsDtype::Bf16 {
            // It was there when it was loaded: its cached prefixes are not those of f32.
            let setup = Setup {
                weights: held(dtype),
                ..writes()
            };
            let (engine, _ledger) = start(&file, setup);
            assert_eq!(got, words(submit(&engine.handle()).into_iter().map(read)));
        }
    }
    drop(handle);
    host.engine.shut_down().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(host.ledger.granted(), Bytes::ZERO);
}

#[test]
fn vectors_after_are_those_of_a_model_that_was_loaded_so() {
    let file = model("embedding", "bert-mean");
    let host = Host::new();
    let handle = host.add("bert", &file, &embeds());
    let before = vectors(embed(&handle));
    let done = host
        .engine
        .controller()
        .optimize(&handle, WeightsDtype::Q8_0, false);
    assert!(done.unwrap_or_else(|e| panic!("{e}")).converts);
    let after = vectors(embed(&handle));
    assert_ne!(before, after);
    let setup = Setup {
        weights: held(WeightsDtype::Q8_0),
        ..embeds()
    };
    let (engine, _ledger) = start(&file, setup);
    assert_eq!(vectors(embed(&engine.handle())), after);
    // Quantised files are as small as half precision would make them, and smaller.
    let file = model("quantized", "qwen3-q4_k_m-gguf");
    let handle = host.add("qwen3", &file, &writes());
    let done = host
        .engine
        .controller()
        .optimize(&handle, WeightsDtype::Bf16, false);
    let done = done.unwrap_or_else(|e| panic!("{e}"));
    assert!(!done.converts && done.returned.is_zero(), "{}", done.note);
}

#[test]
fn a_model_at_work_is_left_alone() {
    let file = model("logits", "llama");
    let host = Host::new();
    let handle = host.add("llama", &file, &writes());
    let request = || handle.submit(greedy(&[5, 6, 7], 500));
    let streams: Vec<_> = (0..8)
        .map(|_| request().unwrap_or_else(|e| panic!("{e}")))
        .collect();
    let asked = host
        .engine
        .controller()
        .optimize(&handle, WeightsDtype::Q8_0, false);
    match asked {
        Err(EngineError::Busy { requests, .. }) => assert!((1..=8).contains(&requests)),
        // This thread slept through all of them.
        Ok(_) => assert_eq!(handle.snapshot().totals.requests, 8),
        Err(error) => panic!("{error}"),
    }
    drop(streams);
}

#[test]
fn streamed_models_answer_as_resident_ones() {
    let streamed = |setup: Setup| Setup {
        weights: STREAMED,
        ..setup
    };
    for (kind, name) in [
        ("logits", "llama"),
        ("logits", "llama-tied"),
        ("quantized", "qwen3-q4_k_m-gguf"),
    ] {
        let file = model(kind, name);
        let (resident, _ledger) = start(&file, writes());
        let want = words(submit(&resident.handle()).into_iter().map(read));
        let (engine, ledger) = start(&file, streamed(writes()));
        let streaming = engine.handle().plan().streaming();
        assert_eq!(streaming.map(|s| s.layers), Some(file.config().layers));
        let got = words(submit(&engine.handle()).into_iter().map(read));
        assert_eq!(got, want, "{name}");
        drop(engine);
        assert_eq!(ledger.granted(), Bytes::ZERO);
    }
    for name in ["bert-mean-gguf", "nomic-embed-code"] {
        let file = model("embedding", name);
        let (resident, _ledger) = start(&file, embeds());
        let want = vectors(embed(&resident.handle()));
        let (engine, _ledger) = start(&file, streamed(embeds()));
        assert_eq!(vectors(embed(&engine.handle())), want, "{name}");
    }
}

#[test]
fn a_file_that_goes_away_fails_the_requests_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap_or_else(|e| panic!("{e}"));
    let path = dir.path().join("model.gguf");
    let fixture = root().join("models/llama-q5_k_s.gguf");
    std::fs::copy(fixture, &path).unwrap_or_else(|e| panic!("{e}"));
    let file = ModelFile::open(&path).unwrap_or_else(|e| panic!("{e}"));
    let host = Host::new();
    let setup = Setup {
        weights: STREAMED,
        ..writes()
    };
    let streamed = host.add("streamed", &file, &setup);
    let other = host.add("other", &model("logits", "llama"), &writes());
    let whole = words(submit(&streamed).into_iter().map(read));
    assert!(!whole.is_empty());
    let cut = std::fs::OpenOptions::new().write(true).open(&path);
    let cut = cut.and_then(|file| file.set_len(1000));
    cut.unwrap_or_else(|e| panic!("{e}"));
    let answers: Vec<_> = submit(&streamed).into_iter().map(read).collect();
    for answer in &answers {
        let failed = answer.failed.as_ref();
        assert!(
            failed.is_some_and(|why| why.contains("model.gguf")),
            "{failed:?}"
        );
    }
    // Others go on, and so does the engine.
    assert!(words(submit(&other).into_iter().map(read)).len() > 1);
    assert_eq!(streamed.snapshot().running, 0);
    drop((streamed, other));
    host.engine.shut_down().unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(host.ledger.granted(), Bytes::ZERO);
}
