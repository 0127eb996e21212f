//! A step that asks the heap for nothing: once an engine is warm, a decode step, a chunk of a prompt and
//! a batch of texts allocate no block on the engine's thread, nor on any worker. In a process of its own,
//! because the seal is on all of its threads; only this one, which plays the clients, is exempt.

use std::backtrace::Backtrace;
use std::sync::atomic::{AtomicUsize, Ordering};

use bursar_engine::{
    EmbedEvent, EmbedRequest, EngineHandle, Event, GenerateRequest, Purpose, TokenStream,
};
use bursar_files::ModelFile;
use bursar_files::synth::{self, Preset};
use bursar_memory::counting::{self, ProcessAllocator, exempt_this_thread};

#[path = "serving/load.rs"]
#[allow(dead_code, reason = "shared with the serving tests")]
mod load;

use load::{Setup, greedy, start};

#[global_allocator]
static ALLOCATOR: ProcessAllocator = counting::process_allocator();

/// Places that are told of; the first is what one wants to see.
const TOLD: usize = 4;
static BREACHES: AtomicUsize = AtomicUsize::new(0);

/// Says where a block was asked for that nobody should ask for.
fn tell() {
    if BREACHES.fetch_add(1, Ordering::Relaxed) < TOLD {
        eprintln!("a block was asked for at\n{}", Backtrace::force_capture());
    }
}

/// The blocks that other threads ask for while this one does `work`.
fn asked_during(work: impl FnOnce()) -> u64 {
    BREACHES.store(0, Ordering::Relaxed);
    ALLOCATOR.seal(Some(tell));
    work();
    ALLOCATOR.unseal()
}

fn model(preset: &str) -> ModelFile {
    let name = format!("bursar-allocations-{}.gguf", std::process::id());
    let path = std::env::temp_dir().join(name);
    let preset = Preset::parse(preset).unwrap_or_else(|e| panic!("{e}"));
    synth::write(&preset, 1, &path, &mut |_| {}).unwrap_or_else(|e| panic!("{e}"));
    let file = ModelFile::open(&path).unwrap_or_else(|e| panic!("{e}"));
    std::fs::remove_file(&path).expect("our own file");
    file
}

/// Reads `count` tokens, those of the prompt among them.
fn take(stream: &mut TokenStream, count: usize) {
    for _ in 0..count {
        let event = stream.recv_blocking().expect("not at its end");
        assert!(
            matches!(event, Event::Token { .. } | Event::PromptToken { .. }),
            "{event:?}"
        );
    }
}

fn submit(handle: &EngineHandle, request: GenerateRequest) -> TokenStream {
    handle.submit(request).unwrap_or_else(|e| panic!("{e}"))
}

/// Prompts that differ from their first token on.
fn prompt(first: u32, len: usize) -> Vec<u32> {
    (0..len as u32)
        .map(|i| 3 + (first * 31 + i) % 200)
        .collect()
}

fn decoding(handle: &EngineHandle) {
    let with = |index: u32| GenerateRequest {
        // Half of them want to know how likely other tokens were.
        logprobs: index.is_multiple_of(2).then_some(5),
        ..greedy(&prompt(index, 20), 300)
    };
    let mut streams: Vec<_> = (0..4).map(|i| submit(handle, with(i))).collect();
    streams.iter_mut().for_each(|stream| take(stream, 40));
    let steps = handle.snapshot().totals.steps;
    // Over several blocks of keys and values of every sequence.
    let asked = asked_during(|| streams.iter_mut().for_each(|stream| take(stream, 200)));
    let steps = handle.snapshot().totals.steps - steps;
    assert!(steps >= 150, "{steps} steps");
    assert_eq!(asked, 0, "blocks asked for in {steps} decode steps");
}

fn prompts(handle: &EngineHandle) {
    let request = GenerateRequest {
        // One event for each token of the prompt says how far it is.
        logprobs: Some(2),
        echo_logprobs: true,
        ..greedy(&prompt(77, 1500), 1)
    };
    let mut stream = submit(handle, request);
    take(&mut stream, 200);
    let done = handle.snapshot().totals.prefill_tokens;
    let asked = asked_during(|| take(&mut stream, 1000));
    let done = handle.snapshot().totals.prefill_tokens - done;
    assert!(done >= 500, "{done} tokens of the prompt");
    assert_eq!(asked, 0, "blocks asked for in chunks of a prompt");
}

fn texts(handle: &EngineHandle) {
    let texts: Vec<Vec<u32>> = (0..600).map(|i| prompt(i, 4 + (i % 13) as usize)).collect();
    let request = EmbedRequest {
        tokens: texts,
        ..EmbedRequest::default()
    };
    let mut stream = handle.embed(request).unwrap_or_else(|e| panic!("{e}"));
    let mut take = |count: usize| {
        for _ in 0..count {
            let event = stream.recv_blocking().expect("not at its end");
            assert!(matches!(event, EmbedEvent::Vector { .. }), "{event:?}");
        }
    };
    take(200);
    let asked = asked_during(|| take(300));
    assert_eq!(asked, 0, "blocks asked for in batches of texts");
}

/// M1
#[test]
fn nothing_is_allocated_by_a_step() {
    exempt_this_thread(true);
    let file = model("tiny-llama:f32");
    let setup = Setup {
        batch_tokens: 32,
        ..Setup::default()
    };
    let (engine, _ledger) = start(&file, setup);
    decoding(&engine.handle());
    prompts(&engine.handle());
    drop(engine);

    let file = model("tiny-bert:f32");
    let setup = Setup {
        purpose: Purpose::Embed,
        batch_tokens: 64,
        ..Setup::default()
    };
    let (engine, _ledger) = start(&file, setup);
    texts(&engine.handle());

    // That the seal notices is known by breaking it.
    let broken = asked_during(|| {
        std::thread::spawn(|| drop(std::hint::black_box(vec![1_u8; 100])))
            .join()
            .expect("it does nothing else");
    });
    assert!(
        broken > 0,
        "a block that another thread asks for is noticed"
    );
}
