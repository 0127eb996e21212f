//! What a single request can run into: refusals, ends, log-probabilities, leaving, and the engine's
//! own end.

use std::future::Future;
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Poll, Wake};
use std::time::{Duration, Instant};

use bursar_engine::{
    EmbedRequest, EngineError, EngineHandle, EngineOptions, FinishReason, GenerateParams,
    GenerateRequest, Purpose, Rejected, SamplingParams, StopRules,
};
use bursar_files::ModelFile;
use bursar_kernels::isa::Isa;
use serde_json::Value;

use crate::fixtures::{cases, generator, ids, logits, open};
use crate::load::{Answer, Setup, greedy, read, start};

fn case() -> (Value, ModelFile, Vec<u32>) {
    let all = cases("logits");
    let case = all.into_iter().find(|case| case["name"] == "qwen3");
    let case = case.expect("a small decoder");
    let (file, tokens) = (open(&case), ids(&case["token_ids"]));
    (case, file, tokens)
}

fn ask(handle: &EngineHandle, request: GenerateRequest) -> Answer {
    read(handle.submit(request).unwrap_or_else(|e| panic!("{e}")))
}

#[test]
fn what_can_never_be_served_is_refused_at_once() {
    let (_, file, tokens) = case();
    let setup = Setup {
        blocks: Some(4),
        ..Setup::default()
    };
    let (engine, _ledger) = start(&file, setup);
    let handle = engine.handle();
    assert_eq!(handle.longest(), 64);
    let refused = |request: GenerateRequest| match handle.submit(request) {
        Err(Rejected::Never(error)) => error,
        other => panic!("{other:?}"),
    };
    assert!(matches!(refused(greedy(&[], 1)), EngineError::PromptEmpty));
    let vocab = handle.vocab();
    assert!(matches!(
        refused(greedy(&[1, vocab as u32], 1)),
        EngineError::TokenUnknown { got, .. } if got as usize == vocab
    ));
    let long = tokens.repeat(2);
    assert!(matches!(
        refused(greedy(&long[..64], 1)),
        EngineError::PromptTooLong {
            got: 64,
            context: 64
        }
    ));
    let error = refused(greedy(&tokens[..60], 5));
    assert!(matches!(
        error,
        EngineError::RequestTooLong {
            prompt: 60,
            max_tokens: 5,
            limit: 64
        }
    ));
    assert!(error.to_string().contains("ask for at most 4"), "{error}");
    let warm = |sampling| GenerateRequest {
        params: Arc::new(GenerateParams::from(sampling)),
        ..greedy(&tokens[..3], 1)
    };
    let bad = SamplingParams {
        temperature: f32::NAN,
        ..SamplingParams::default()
    };
    assert!(matches!(refused(warm(bad)), EngineError::Sampling(_)));
    let biased = GenerateRequest {
        params: Arc::new(GenerateParams {
            logit_bias: vec![(u32::MAX, 1.0)],
            ..GenerateParams::default()
        }),
        ..greedy(&tokens[..3], 1)
    };
    assert!(matches!(refused(biased), EngineError::TokenUnknown { .. }));
    assert!(matches!(
        handle.embed(EmbedRequest::default()),
        Err(Rejected::Never(EngineError::Purpose { .. }))
    ));
    // All that is left of the context may be asked for, and is what comes without a bound.
    for max_tokens in [Some(4), None] {
        let request = GenerateRequest {
            max_tokens,
            ..greedy(&tokens[..60], 0)
        };
        let answer = ask(&handle, request);
        assert_eq!(answer.tokens.len(), 4);
        assert_eq!(answer.end.expect("the end").0, FinishReason::Length);
    }
    // A prompt that fills everything can still be computed.
    let answer = ask(&handle, greedy(&long[..64], 0));
    assert_eq!(answer.end.expect("the end").0, FinishReason::Length);
    assert!(answer.tokens.is_empty());
}

#[test]
fn an_embedding_model_refuses_too() {
    let all = cases("embedding");
    let file = open(&all[0]);
    let setup = Setup {
        purpose: Purpose::Embed,
        batch_tokens: 64,
        ..Setup::default()
    };
    let (engine, _ledger) = start(&file, setup);
    let handle = engine.handle();
    let refused = |request: EmbedRequest| match handle.embed(request) {
        Err(Rejected::Never(error)) => error,
        other => panic!("{other:?}"),
    };
    let request = |tokens: Vec<u32>, dimensions| EmbedRequest {
        tokens: vec![vec![1, 2], tokens],
        dimensions,
        ..EmbedRequest::default()
    };
    let long = vec![1; handle.longest() + 1];
    assert!(matches!(
        refused(request(long, None)),
        EngineError::TextTooLong { index: 1, .. }
    ));
    assert!(matches!(
        refused(request(vec![], None)),
        EngineError::PromptEmpty
    ));
    assert!(matches!(
        refused(request(vec![3], Some(1 << 20))),
        EngineError::Setting {
            name: "dimensions",
            ..
        }
    ));
    assert!(matches!(
        handle.submit(greedy(&[1], 1)),
        Err(Rejected::Never(EngineError::Purpose { .. }))
    ));
}

#[test]
fn too_many_wait_in_vain_and_a_draining_engine_takes_none() {
    let (_, file, tokens) = case();
    let setup = Setup {
        parallel: 1,
        options: EngineOptions {
            queue: 3,
            ..EngineOptions::default()
        },
        ..Setup::default()
    };
    let (engine, _ledger) = start(&file, setup);
    let handle = engine.handle();
    let request = || greedy(&tokens[..20], 200);
    let mut streams = Vec::new();
    let error = loop {
        match handle.submit(request()) {
            Ok(stream) => streams.push(stream),
            Err(error) => break error,
        }
        assert!(streams.len() < 10_000);
    };
    match error {
        Rejected::QueueFull {
            waiting,
            retry_after_ms,
            asked,
            free,
        } => {
            assert_eq!(waiting, 3);
            assert!((1000..=60_000).contains(&retry_after_ms));
            assert!(asked.0 > 0 && free.0 > 0);
        }
        other => panic!("{other:?}"),
    }
    handle.drain();
    assert!(matches!(handle.submit(request()), Err(Rejected::Draining)));
    assert!(handle.snapshot().draining);
    for stream in streams {
        assert_eq!(read(stream).tokens.len(), 200);
    }
    assert!(engine.drain(Duration::from_secs(60)));
    assert!(handle.is_empty());
    assert_eq!(handle.snapshot().last_progress_ms, 0);
}

#[test]
fn leaving_frees_memory_soon_and_stopping_ends_streams() {
    let (_, file, tokens) = case();
    let (engine, _ledger) = start(&file, Setup::default());
    let handle = engine.handle();
    let most = handle.longest() - 20;
    let stay = handle.submit(greedy(&tokens[..20], most));
    let mut stay = stay.unwrap_or_else(|e| panic!("{e}"));
    let leave = handle.submit(greedy(&tokens[..20], most));
    let mut leave = leave.unwrap_or_else(|e| panic!("{e}"));
    leave.recv_blocking();
    drop(leave);
    let start = Instant::now();
    while handle.snapshot().running > 1 {
        assert!(start.elapsed() < Duration::from_secs(20));
        std::thread::yield_now();
    }
    let mut answer = Answer::default();
    answer.take(stay.recv_blocking().expect("an event"));
    drop(engine);
    while let Some(event) = stay.recv_blocking() {
        answer.take(event);
    }
    // A fast machine may have finished it.
    assert!(answer.end.is_some() || answer.failed.expect("an error").contains("stopped"));
    assert!(!handle.snapshot().alive);
    assert!(matches!(
        handle.submit(greedy(&tokens[..20], 1)),
        Err(Rejected::Draining)
    ));
}

#[test]
fn log_probabilities_are_those_of_the_logits() {
    let (_, file, tokens) = case();
    let tokens = &tokens[..45];
    let rows = logits(&mut generator(&file, Isa::best(), false), tokens);
    let (engine, _ledger) = start(&file, Setup::default());
    let handle = engine.handle();
    let vocab = handle.vocab();
    let logprob = |position: usize, token: u32| {
        let row = &rows[position * vocab..][..vocab];
        let sum: f64 = row.iter().map(|&l| f64::from(l).exp()).sum();
        (f64::from(row[token as usize]) - sum.ln()) as f32
    };
    let close = |a: f32, b: f32| (a - b).abs() < 1e-4;
    for max_tokens in [0, 5] {
        let request = GenerateRequest {
            logprobs: Some(3),
            echo_logprobs: true,
            ..greedy(tokens, max_tokens)
        };
        let answer = ask(&handle, request);
        assert_eq!(answer.tokens.len(), max_tokens);
        assert_eq!(answer.prompt.len(), tokens.len());
        assert_eq!(answer.prompt[0].logprob, None);
        for (position, found) in answer.prompt.iter().enumerate() {
            assert_eq!(found.token, tokens[position]);
            if position > 0 {
                let got = found.logprob.expect("all but the first");
                assert!(close(got, logprob(position - 1, found.token)), "{position}");
                assert_eq!(found.top.len(), 3);
                assert!(found.top.is_sorted_by(|a, b| a.1 >= b.1));
                assert!(found.top[0].1 >= got);
            }
        }
        // Greedy: the token chosen is the first of the alternatives.
        for (&token, (own, top)) in answer
            .tokens
            .iter()
            .zip(answer.logprobs.iter().zip(&answer.tops))
        {
            assert_eq!((Some(top[0].1), top[0].0), (*own, token));
        }
        if let Some(own) = answer.logprobs.first() {
            let last = logprob(tokens.len() - 1, answer.tokens[0]);
            assert!(close(own.expect("asked for"), last));
        }
    }
}

#[test]
fn answers_end_where_they_should() {
    let (_, file, tokens) = case();
    let (engine, _ledger) = start(&file, Setup::default());
    let handle = engine.handle();
    let whole = ask(&handle, greedy(&tokens[..20], 40));
    // A stop token is not part of the answer.
    let stop = whole.tokens[10];
    let first = whole.tokens.iter().position(|&t| t == stop).expect("there");
    let mut request = greedy(&tokens[..20], 40);
    request.stop.tokens = vec![stop];
    let answer = ask(&handle, request.clone());
    assert_eq!(answer.tokens, whole.tokens[..first]);
    let (finish, usage) = answer.end.expect("the end");
    assert_eq!(finish, FinishReason::Stop);
    assert_eq!(usage.completion_tokens, first);
    // Unless too few tokens have come.
    request.params = Arc::new(GenerateParams {
        min_tokens: first + 3,
        ..GenerateParams::default()
    });
    let answer = ask(&handle, request);
    assert!(answer.tokens.len() >= first + 3);
    assert_eq!(answer.tokens[..first], whole.tokens[..first]);
    assert!(!answer.tokens.contains(&stop));
    // A stop string is not part of the text, wherever it starts.
    let chars: Vec<(usize, char)> = whole.text.char_indices().collect();
    let at = chars[chars.len() / 2].0;
    let end = chars[chars.len() / 2 + 3].0;
    let string = &whole.text[at..end];
    let mut request = greedy(&tokens[..20], 40);
    request.stop.strings = vec![string.to_owned()];
    let answer = ask(&handle, request);
    let want = whole.text.find(string).expect("there");
    assert_eq!(answer.text, whole.text[..want]);
    assert_eq!(answer.end.expect("the end").0, FinishReason::Stop);
}

#[test]
fn bias_and_penalties_change_what_comes() {
    let (_, file, tokens) = case();
    let (engine, _ledger) = start(&file, Setup::default());
    let handle = engine.handle();
    let with = |params: GenerateParams| GenerateRequest {
        params: Arc::new(params),
        ..greedy(&tokens[..20], 30)
    };
    let forced = ask(
        &handle,
        with(GenerateParams {
            logit_bias: vec![(11, 100.0)],
            ..GenerateParams::default()
        }),
    );
    assert_eq!(forced.tokens, [11; 30]);
    let mut params = GenerateParams {
        logit_bias: vec![(11, 50.0), (12, 49.0), (13, 48.5)],
        ..GenerateParams::default()
    };
    params.penalties.presence = 2.0;
    params.penalties.frequency = 2.0;
    let varied = ask(&handle, with(params));
    for token in [11, 12, 13] {
        assert!(varied.tokens.contains(&token), "{:?}", varied.tokens);
    }
}

/// The same seed gives the same text, alone and among others.
#[test]
fn seeds_hold_in_company() {
    let (_, file, tokens) = case();
    let mut alone = generator(&file, Isa::best(), false);
    let stop = StopRules {
        max_tokens: Some(30),
        ignore_end: true,
        ..StopRules::default()
    };
    let sampling = SamplingParams {
        temperature: 1.2,
        top_p: 0.95,
        ..SamplingParams::default()
    };
    let setup = Setup {
        parallel: 3,
        blocks: Some(8),
        ..Setup::default()
    };
    let (engine, _ledger) = start(&file, setup);
    let handle = engine.handle();
    let streams: Vec<_> = (0..6)
        .map(|seed| {
            let request = GenerateRequest {
                params: Arc::new(sampling.clone().into()),
                seed,
                ..greedy(&tokens[..25], 30)
            };
            handle.submit(request).unwrap_or_else(|e| panic!("{e}"))
        })
        .collect();
    let mut different = std::collections::BTreeSet::new();
    for (seed, stream) in (0..).zip(streams) {
        let want = alone.generate(&tokens[..25], &sampling, seed, &stop, &mut |_| {
            ControlFlow::Continue(())
        });
        let answer = read(stream);
        assert_eq!(answer.tokens, want.unwrap_or_else(|e| panic!("{e}")).tokens);
        different.insert(answer.tokens);
    }
    assert!(different.len() > 1);
}

/// Streams wake a task that polls them.
#[test]
fn streams_can_be_awaited() {
    struct Unpark(std::thread::Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    fn block_on<F: Future>(future: F) -> F::Output {
        let waker = Arc::new(Unpark(std::thread::current())).into();
        let mut future = pin!(future);
        loop {
            match future.as_mut().poll(&mut Context::from_waker(&waker)) {
                Poll::Ready(output) => return output,
                Poll::Pending => std::thread::park(),
            }
        }
    }
    let (_, file, tokens) = case();
    let (engine, _ledger) = start(&file, Setup::default());
    let stream = engine.handle().submit(greedy(&tokens[..20], 20));
    let mut stream = stream.unwrap_or_else(|e| panic!("{e}"));
    let answer = block_on(async {
        let mut answer = Answer::default();
        while let Some(event) = stream.recv().await {
            answer.take(event);
        }
        answer
    });
    assert_eq!(answer.tokens.len(), 20);
}
