//! Ten clients with different lengths, some of whom leave early, against solo runs.

use std::ops::ControlFlow;
use std::time::Duration;

use bursar_engine::schedule::Admission;
use bursar_engine::{EngineOptions, FinishReason, SamplingParams, StopRules, TokenStream};
use bursar_files::ModelFile;
use bursar_kernels::isa::Isa;
use serde_json::Value;

use crate::fixtures::{cases, generator, ids, open};
use crate::load::{Answer, Setup, greedy, read, start};

/// One client: where its prompt starts, how long it is, how much it wants, when it leaves.
struct Client {
    first: usize,
    prompt: usize,
    wants: usize,
    leaves_after: Option<usize>,
}

const fn client(first: usize, prompt: usize, wants: usize, leaves: Option<usize>) -> Client {
    Client {
        first,
        prompt,
        wants,
        leaves_after: leaves,
    }
}

const CLIENTS: [Client; 10] = [
    // These two run side by side for dozens of steps and end with four blocks each, so that six
    // blocks do not last however the others come and go.
    client(0, 1, 60, None),
    client(1, 1, 60, None),
    client(0, 30, 25, None),
    client(3, 1, 40, None),
    client(1, 17, 12, Some(4)),
    client(5, 33, 30, None),
    client(2, 16, 1, None),
    client(7, 9, 50, Some(9)),
    client(4, 31, 18, None),
    client(0, 2, 33, Some(1)),
];

/// The tokens and texts of each client alone.
fn solo(file: &ModelFile, tokens: &[u32]) -> Vec<(Vec<u32>, String)> {
    let mut generator = generator(file, Isa::best(), false);
    let run = |client: &Client| {
        let stop = StopRules {
            max_tokens: Some(client.wants),
            ignore_end: true,
            ..StopRules::default()
        };
        let mut text = String::new();
        let prompt = &tokens[client.first..client.first + client.prompt];
        let out = generator.generate(prompt, &SamplingParams::default(), 0, &stop, &mut |piece| {
            text.push_str(piece);
            ControlFlow::Continue(())
        });
        (out.unwrap_or_else(|e| panic!("{e}")).tokens, text)
    };
    CLIENTS.iter().map(run).collect()
}

/// All clients at once, each on a thread of its own; gives the preemptions that it took.
fn together(case: &Value, setup: Setup) -> u64 {
    let name = case["name"].as_str().expect("a name");
    let file = open(case);
    let tokens = ids(&case["token_ids"]);
    let want = solo(&file, &tokens);
    let (engine, ledger) = start(&file, setup);
    let handle = engine.handle();
    // All are in the inbox before the first reader starts, within a step or two of each other: that
    // they meet must not hang on how fast threads start.
    let submit = |client: &'static Client| {
        let prompt = &tokens[client.first..client.first + client.prompt];
        let stream = handle.submit(greedy(prompt, client.wants));
        (client, stream.unwrap_or_else(|e| panic!("{name}: {e}")))
    };
    let streams: Vec<_> = CLIENTS.iter().map(submit).collect();
    let answers: Vec<Answer> = std::thread::scope(|scope| {
        let run = |(client, mut stream): (&'static Client, TokenStream)| {
            scope.spawn(move || {
                let Some(leaves) = client.leaves_after else {
                    return read(stream);
                };
                let mut answer = Answer::default();
                while answer.tokens.len() < leaves {
                    let event = stream.recv_blocking().expect("not at its end");
                    answer.take(event);
                }
                answer
            })
        };
        let threads: Vec<_> = streams.into_iter().map(run).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, Answer>| thread.join();
        let answers: Result<Vec<_>, _> = threads.into_iter().map(join).collect();
        answers.unwrap_or_else(|e| std::panic::resume_unwind(e))
    });
    for (index, ((client, answer), (tokens, text))) in
        CLIENTS.iter().zip(&answers).zip(&want).enumerate()
    {
        match client.leaves_after {
            Some(leaves) => assert_eq!(answer.tokens, tokens[..leaves], "{name}: client {index}"),
            None => {
                assert_eq!(&answer.tokens, tokens, "{name}: client {index}");
                assert_eq!(&answer.text, text, "{name}: client {index}");
                let (finish, usage) = answer.end.expect("the end");
                assert_eq!(finish, FinishReason::Length);
                assert_eq!(usage.prompt_tokens, client.prompt);
                assert_eq!(usage.completion_tokens, client.wants);
            }
        }
    }
    assert!(engine.drain(Duration::from_secs(60)), "{name}: empty");
    let snapshot = handle.snapshot();
    assert_eq!((snapshot.running, snapshot.waiting), (0, 0));
    assert_eq!(snapshot.kv.expect("a decoder").blocks_used, 0, "{name}");
    // The last handle keeps the tokenizer.
    drop((engine, handle));
    assert_eq!(ledger.granted().0, 0, "{name}: the model is unloaded");
    snapshot.totals.preemptions
}

fn decoders() -> Vec<Value> {
    let mut all = cases("logits");
    all.extend(cases("quantized"));
    // The clients' prompts are up to 38 tokens of the case's own.
    all.retain(|case| case["token_ids"].as_array().expect("ids").len() >= 40);
    all
}

/// Every architecture and stored type.
#[test]
fn together_as_alone() {
    let cases = decoders();
    assert!(cases.len() > 20);
    for case in &cases {
        let preemptions = together(case, Setup::default());
        assert_eq!(preemptions, 0, "there is room for all");
    }
}

/// Fewer places than clients, and blocks for a third of what they hold together.
#[test]
fn preempted_and_recomputed_as_alone() {
    let wanted = [
        "llama",
        "qwen2",
        "qwen3",
        "llama-q4_k_m-gguf",
        "qwen3-q4_k_m-gguf",
    ];
    let cases = decoders();
    let mut preemptions = 0;
    for name in wanted {
        let case = cases.iter().find(|case| case["name"] == name);
        let setup = Setup {
            parallel: 5,
            // The longest takes 4.
            blocks: Some(6),
            ..Setup::default()
        };
        preemptions += together(case.expect("a case"), setup);
    }
    assert!(preemptions > 0, "blocks were to run out");
}

/// What is reserved up front is never taken away.
#[test]
fn reserved_as_alone() {
    let setup = Setup {
        blocks: Some(8),
        options: EngineOptions {
            admission: Admission::Reserve,
            ..EngineOptions::default()
        },
        ..Setup::default()
    };
    assert_eq!(together(&decoders()[0], setup), 0);
}
