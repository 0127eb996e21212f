//! Several models on one engine: each answers as alone, whoever comes and goes; and what goes gives back
//! all that it held.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bursar_engine::{
    EmbedEvent, EmbedOptions, EmbedRequest, Engine, EngineError, EngineHandle, EngineModel,
    GenerateRequest, Purpose, Rejected, TokenStream, TurnWeights, VectorStream,
};
use bursar_files::ModelFile;
use bursar_memory::{Bytes, Ledger};
use bursar_workers::Workers;

use crate::fixtures::{cases, open};
use crate::load::{Answer, BUDGET, Setup, greedy, load, plan, read, start};

/// The model that a case of that name is about.
pub(crate) fn model(kind: &str, name: &str) -> ModelFile {
    let cases = cases(kind);
    let case = cases.iter().find(|case| case["name"] == name);
    open(case.unwrap_or_else(|| panic!("no case {name}")))
}

pub(crate) fn writes() -> Setup {
    Setup::default()
}

pub(crate) fn embeds() -> Setup {
    Setup {
        purpose: Purpose::Embed,
        parallel: 1,
        batch_tokens: 128,
        ..Setup::default()
    }
}

/// Prompts and how much is wanted; token ids that every fixture has.
fn requests() -> Vec<GenerateRequest> {
    let request = |(first, count, wants): (u32, u32, usize)| {
        let prompt: Vec<u32> = (0..count).map(|i| 3 + (first * 7 + i * 5) % 90).collect();
        GenerateRequest {
            logprobs: Some(2),
            ..greedy(&prompt, wants)
        }
    };
    let all = [
        (0, 1, 40),
        (1, 40, 20),
        (2, 17, 30),
        (3, 33, 12),
        (1, 40, 9),
    ];
    all.into_iter().map(request).collect()
}

const TEXTS: [&str; 6] = [
    "a small text",
    "memory is given back",
    "one",
    "two models, one budget, and a third that makes vectors of what is said",
    "the quick brown fox jumps over the lazy dog",
    "who waits is told why",
];

pub(crate) fn submit(handle: &EngineHandle) -> Vec<TokenStream> {
    let stream = |request| handle.submit(request).unwrap_or_else(|e| panic!("{e}"));
    requests().into_iter().map(stream).collect()
}

pub(crate) fn embed(handle: &EngineHandle) -> VectorStream {
    let encoder = handle.encoder().expect("an embedding model");
    let encoded = encoder.encode(&TEXTS, &EmbedOptions::default());
    let (tokens, _) = encoded.unwrap_or_else(|e| panic!("{e}"));
    let request = EmbedRequest {
        tokens,
        ..EmbedRequest::default()
    };
    handle.embed(request).unwrap_or_else(|e| panic!("{e}"))
}

pub(crate) fn vectors(mut stream: VectorStream) -> Vec<Vec<f32>> {
    let mut got = Vec::new();
    while let Some(event) = stream.recv_blocking() {
        match event {
            EmbedEvent::Vector { .. } => {}
            EmbedEvent::Done { vectors, .. } => got.extend(vectors.iter().map(<[f32]>::to_vec)),
            EmbedEvent::Failed(error) => panic!("{error}"),
        }
    }
    got
}

/// What a model says, to the bit.
pub(crate) fn words(
    answers: impl IntoIterator<Item = Answer>,
) -> Vec<(Vec<u32>, Vec<u32>, String)> {
    let words = |answer: Answer| {
        assert!(answer.end.is_some(), "{:?}", answer.failed);
        let logprobs = answer.logprobs.iter().flatten().map(|l| l.to_bits());
        (answer.tokens, logprobs.collect(), answer.text)
    };
    answers.into_iter().map(words).collect()
}

/// An engine without models, and what loads them.
pub(crate) struct Host {
    pub(crate) engine: Engine,
    pub(crate) ledger: Ledger,
    workers: Arc<Workers>,
}

impl Host {
    pub(crate) fn new() -> Self {
        let ledger = Ledger::new(BUDGET);
        let engine = Engine::start(&ledger, TurnWeights::default());
        Self {
            engine: engine.unwrap_or_else(|e| panic!("{e}")),
            ledger,
            workers: Arc::new(Workers::new(2)),
        }
    }

    fn load(&self, name: &str, file: &ModelFile, setup: &Setup) -> EngineModel {
        load(name, file, setup, &self.ledger, &self.workers)
    }

    pub(crate) fn add(&self, name: &str, file: &ModelFile, setup: &Setup) -> EngineHandle {
        let model = self.load(name, file, setup);
        let added = self.engine.controller().add(model, setup.options.clone());
        added.unwrap_or_else(|e| panic!("{name}: {e}"))
    }

    /// What is granted, when the leaves have been found to sum to it.
    pub(crate) fn granted(&self) -> Bytes {
        let books = self.ledger.snapshot();
        let leaves = books.leaves();
        let sum = leaves.iter().fold(Bytes::ZERO, |sum, leaf| sum + leaf.1);
        assert_eq!(sum, self.ledger.granted(), "{leaves:?}");
        sum
    }
}

#[test]
fn each_answers_as_alone_beside_the_others() {
    let files = [
        model("logits", "llama"),
        model("quantized", "qwen3-q4_k_m-gguf"),
    ];
    let bert = model("embedding", "bert-mean-gguf");
    let alone = files.each_ref().map(|file| {
        let (engine, _ledger) = start(file, writes());
        words(submit(&engine.handle()).into_iter().map(read))
    });
    let alone_vectors = {
        let (engine, _ledger) = start(&bert, embeds());
        vectors(embed(&engine.handle()))
    };
    let host = Host::new();
    let writers = [
        host.add("llama", &files[0], &writes()),
        host.add("qwen3", &files[1], &writes()),
    ];
    let embedder = host.add("bert", &bert, &embeds());
    for _ in 0..3 {
        // All are in before the first is read.
        let streams = writers.each_ref().map(submit);
        let made = [embed(&embedder), embed(&embedder)];
        for (streams, alone) in streams.into_iter().zip(&alone) {
            assert_eq!(words(streams.into_iter().map(read)), *alone);
        }
        for stream in made {
            assert_eq!(vectors(stream), alone_vectors);
        }
    }
    // One arena, as large as the largest needs.
    let needs = writers.iter().chain([&embedder]);
    let largest = needs.map(|handle| handle.plan().activations()).max();
    let arena = host.ledger.snapshot();
    let arena = arena.find("process/activations").map(|a| a.granted);
    assert_eq!(arena, largest);
    host.granted();
    let ends = host.engine.shut_down().unwrap_or_else(|e| panic!("{e}"));
    let names: Vec<&str> = ends.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["llama", "qwen3", "bert"]);
    assert!(ends.iter().all(|(_, ended)| ended.is_ok()));
    drop((writers, embedder));
    assert_eq!(host.ledger.granted(), Bytes::ZERO);
}

#[test]
fn models_come_and_go_beside_one_that_stays() {
    let stays = model("logits", "llama");
    let comes = [
        (model("logits", "qwen2"), writes()),
        (model("embedding", "bert-cls-gguf"), embeds()),
        (
            model("quantized", "llama-q8_0-gguf"),
            Setup {
                batch_tokens: 128,
                ..writes()
            },
        ),
    ];
    let long = greedy(&[5, 6, 7], 100);
    let alone = {
        let (engine, _ledger) = start(&stays, writes());
        let stream = engine.handle().submit(long.clone());
        words([read(stream.unwrap_or_else(|e| panic!("{e}")))])
    };
    let host = Host::new();
    let controller = host.engine.controller();
    let stays = host.add("stays", &stays, &writes());
    // The cache keeps slabs of what has been computed.
    let run = || stays.submit(long.clone()).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(words([read(run())]), alone);
    let (granted, arena) = (host.granted(), controller.arena_bytes());
    for round in 0..9 {
        let stream = run();
        let (file, setup) = &comes[round % comes.len()];
        let need = plan(file, setup).1.need(arena);
        let free = host.ledger.free();
        let handle = host.add("comes", file, setup);
        // Keys and values are promised at once and granted as they come.
        assert_eq!(free - host.ledger.free(), need.loaded, "round {round}");
        match setup.purpose {
            Purpose::Generate => {
                let streams = submit(&handle);
                words(streams.into_iter().map(read));
            }
            Purpose::Embed => drop(vectors(embed(&handle))),
        }
        // The last word is sent before the engine counts who is left.
        assert!(handle.wait_empty(Instant::now() + Duration::from_secs(60)));
        assert!(handle.idle_since().is_some());
        let ended = controller.remove(&handle);
        assert!(ended.is_ok(), "{ended:?}");
        assert!(!handle.snapshot().alive);
        drop(handle);
        assert_eq!(words([read(stream)]), alone, "round {round}");
        assert_eq!(host.granted(), granted, "round {round}");
        assert_eq!(controller.arena_bytes(), arena, "round {round}");
    }
}

#[test]
fn models_come_and_go_from_several_threads_at_once() {
    let files = [
        (model("logits", "llama"), writes()),
        (model("logits", "qwen2"), writes()),
        (model("embedding", "bert-mean-gguf"), embeds()),
    ];
    let host = Host::new();
    std::thread::scope(|scope| {
        for (index, (file, setup)) in files.iter().enumerate() {
            let host = &host;
            scope.spawn(move || {
                for round in 0..6 {
                    let handle = host.add(&format!("model-{index}"), file, setup);
                    match setup.purpose {
                        Purpose::Generate if round % 2 == 0 => drop(submit(&handle)),
                        Purpose::Generate => {
                            words(submit(&handle).into_iter().map(read));
                        }
                        Purpose::Embed => drop(vectors(embed(&handle))),
                    }
                    let removed = host.engine.controller().remove(&handle);
                    assert!(removed.is_ok(), "{index} in round {round}: {removed:?}");
                }
            });
        }
    });
    assert_eq!(host.engine.controller().arena_bytes(), Bytes::ZERO);
    assert_eq!(host.granted(), Bytes::ZERO);
}

#[test]
fn what_is_inside_fails_and_what_is_gone_stays_gone() {
    let file = model("logits", "llama");
    let host = Host::new();
    let controller = host.engine.controller();
    let goes = host.add("goes", &file, &writes());
    let stays = host.add("stays", &file, &writes());
    let streams: Vec<TokenStream> = (0..20)
        .map(|i| goes.submit(greedy(&[3 + i], 100)))
        .map(|stream| stream.unwrap_or_else(|e| panic!("{e}")))
        .collect();
    controller.remove(&goes).unwrap_or_else(|e| panic!("{e}"));
    let failed = streams.into_iter().map(read);
    // One or another may have been done before.
    let failed = failed.filter(|answer| answer.end.is_none()).count();
    assert!(failed > 0);
    assert!(goes.is_empty() && !goes.snapshot().alive);
    let refused = goes.submit(greedy(&[3], 1));
    assert!(matches!(refused, Err(Rejected::Draining)));
    let again = controller.remove(&goes);
    assert!(matches!(again, Err(EngineError::Stopped)));
    words(submit(&stays).into_iter().map(read));
    drop(host.engine);
    let late = host.ledger.root().granted();
    assert!(matches!(
        controller.remove(&stays),
        Err(EngineError::Stopped)
    ));
    let model = load("late", &file, &writes(), &host.ledger, &host.workers);
    let added = controller.add(model, writes().options);
    assert!(matches!(added, Err(EngineError::Stopped)));
    assert_eq!(host.ledger.root().granted(), late);
}

#[test]
fn an_arena_that_cannot_grow_changes_nothing() {
    let file = model("logits", "llama");
    let host = Host::new();
    let controller = host.engine.controller();
    let small = host.add("small", &file, &writes());
    let large = Setup {
        batch_tokens: 256,
        ..writes()
    };
    let loaded = host.load("large", &file, &large);
    let free = host.ledger.free() - Bytes(1);
    let others = host.ledger.root().reserve(free).expect("it is free");
    let arena = controller.arena_bytes();
    assert!(loaded.plan().activations() > arena);
    assert!(controller.claim(loaded.plan()).is_err());
    let added = controller.add(loaded, large.options.clone());
    assert!(added.is_err_and(|error| error.does_not_fit()));
    assert_eq!(controller.arena_bytes(), arena);
    drop(others);
    words(submit(&small).into_iter().map(read));
    // What has been claimed beforehand is there.
    let (_, plan) = plan(&file, &large);
    let claim = controller.claim(&plan).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(controller.arena_bytes(), plan.activations());
    drop(claim);
    assert_eq!(controller.arena_bytes(), arena);
}
