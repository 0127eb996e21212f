//! What handles cannot reach: work that is lent, and models that panic.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::Instant;

use bursar_files::ModelFile;
use bursar_files::synth::{self, Preset};
use bursar_kernels::isa::Isa;
use bursar_kernels::kv_view::KvDtype;
use bursar_model::Purpose;
use bursar_workers::Workers;

use super::*;
use crate::generate::LoadOptions;
use crate::plan::{PlanRequest, WeightsRequest};
use crate::process::ProcessBase;
use crate::reply::{self, Event, Lag, TokenStream};
use crate::request::GenerateRequest;
use crate::sequence::Arrival;
use crate::stop::StopRules;
use crate::vocabulary::Vocabulary;
use crate::words::Words;
use crate::work::Task;

/// An engine with the same small model twice.
struct Twins {
    engine: Engine,
    ledger: Ledger,
    handles: [EngineHandle; 2],
    path: PathBuf,
}

impl Drop for Twins {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

impl Twins {
    fn new(name: &str) -> Self {
        let name = format!("bursar-host-{name}-{}.gguf", std::process::id());
        let path = std::env::temp_dir().join(name);
        let preset = Preset::parse("tiny-llama:q8_0").unwrap_or_else(|e| panic!("{e}"));
        synth::write(&preset, 1, &path, &mut |_| {}).unwrap_or_else(|e| panic!("{e}"));
        let file = ModelFile::open(&path).unwrap_or_else(|e| panic!("{e}"));
        let ledger = Ledger::new(Bytes::gib(1));
        let engine = Engine::start(&ledger, TurnWeights::default());
        let engine = engine.unwrap_or_else(|e| panic!("{e}"));
        let workers = Arc::new(Workers::new(1));
        let handles = ["first", "second"].map(|name| {
            let model = load(name, &file, &ledger, &workers);
            let added = engine.controller().add(model, EngineOptions::default());
            added.unwrap_or_else(|e| panic!("{e}"))
        });
        Self {
            engine,
            ledger,
            handles,
            path,
        }
    }
}

fn load(name: &str, file: &ModelFile, ledger: &Ledger, workers: &Arc<Workers>) -> EngineModel {
    let vocabulary = Vocabulary::open(file).unwrap_or_else(|e| panic!("{e}"));
    let base = ProcessBase::measure().unwrap_or_else(|e| panic!("{e}"));
    let request = PlanRequest {
        purpose: Purpose::Generate,
        context: Some(128),
        parallel: 2,
        batch_tokens: Some(32),
        batch_memory: None,
        kv_dtype_k: KvDtype::F16,
        kv_dtype_v: KvDtype::F16,
        kv_block_tokens: 16,
        kv_memory: None,
        threads: 1,
        weights: WeightsRequest::default(),
    };
    let plan = MemoryPlan::new(file, &vocabulary, base, &request, ledger.budget());
    let model = EngineModel::load(
        name,
        file,
        vocabulary,
        plan.unwrap_or_else(|e| panic!("{e}")),
        ledger,
        LoadOptions { isa: Isa::best() },
        Arc::clone(workers),
        &mut |_| {},
    );
    model.unwrap_or_else(|e| panic!("{e}"))
}

fn submit(handle: &EngineHandle) -> TokenStream {
    let request = GenerateRequest {
        prompt: vec![5, 6, 7],
        stop: StopRules {
            ignore_end: true,
            ..StopRules::default()
        },
        max_tokens: Some(8),
        ..GenerateRequest::default()
    };
    handle.submit(request).unwrap_or_else(|e| panic!("{e}"))
}

/// Whether it came to its end as it should.
fn ends(mut stream: TokenStream) -> bool {
    while let Some(event) = stream.recv_blocking() {
        match event {
            Event::Done { .. } => return true,
            Event::Failed(_) => return false,
            _ => {}
        }
    }
    panic!("a stream without an end");
}

#[test]
fn requests_wait_for_work_that_is_lent_and_others_go_on() {
    let twins = Twins::new("lent");
    let [first, second] = &twins.handles;
    let controller = twins.engine.controller();
    let lent = controller.lend(first, |work| {
        let stream = submit(first);
        assert!(ends(submit(second)));
        assert_eq!((work.running(), work.waiting()), (0, 0));
        assert_eq!(first.inside(), 1);
        stream
    });
    assert!(ends(lent.unwrap_or_else(|e| panic!("{e}"))));
    // Taken off while it is lent: when it comes back.
    std::thread::scope(|scope| {
        let lent = controller.lend(first, |_| scope.spawn(|| controller.remove(first)));
        let removed = lent.unwrap_or_else(|e| panic!("{e}")).join();
        assert!(removed.is_ok_and(|removed| removed.is_ok()));
    });
    assert!(!first.snapshot().alive);
    let gone = controller.lend(first, |_| ());
    assert!(matches!(gone, Err(EngineError::Stopped)));
    assert!(ends(submit(second)));
}

#[test]
fn who_panics_goes_alone() {
    let twins = Twins::new("panic");
    let [first, second] = &twins.handles;
    let controller = twins.engine.controller();
    let granted = twins.ledger.granted();
    // A token that handles never let in.
    let (sender, stream) = reply::tokens(reply::RingSource::Heap, Lag::default());
    let arrival = Arrival {
        request: GenerateRequest::default(),
        words: Words::new(&[u32::MAX], 1, None).expect("the heap has room"),
        longest: 1,
        arrived: Instant::now(),
        reply: sender,
    };
    let pushed = first
        .face()
        .inbox
        .push(1, || Task::Generate(Box::new(arrival)));
    assert!(pushed.is_ok());
    assert!(!ends(stream));
    assert!(ends(submit(second)));
    assert!(!first.snapshot().alive && first.is_empty());
    let removed = controller.remove(first);
    assert!(matches!(removed, Err(EngineError::Stopped)));
    assert!(twins.ledger.granted() < granted);

    // The same on the thread that it is lent to.
    let stream = submit(second);
    let lent = catch_unwind(AssertUnwindSafe(|| {
        controller.lend(second, |_| panic!("for the test"))
    }));
    assert!(lent.is_err());
    let gone = controller.remove(second);
    assert!(matches!(gone, Err(EngineError::Stopped)));
    // It may have ended before.
    ends(stream);
    assert!(second.is_empty());
}
