//! An engine with three models in a ledger with faults, and what each way to load, change and unload them
//! must leave behind when it is refused.

use std::sync::Arc;
use std::time::{Duration, Instant};

use bursar_engine::{
    Engine, EngineController, EngineError, EngineHandle, EngineModel, EngineOptions, LoadOptions,
    Purpose, TurnWeights, WeightsDtype,
};
use bursar_files::ModelFile;
use bursar_files::synth::{self, Preset};
use bursar_kernels::isa::Isa;
use bursar_memory::faults::Faults;
use bursar_memory::{Account, Bytes, Ledger, Lifetime, PoolError, Pools, PoolsOptions};
use bursar_workers::Workers;

use crate::fixtures::{cases, open};
use crate::load::{BUDGET, Setup, plan};

/// The models: one that writes fast, one whose keys and values take several slabs, one that embeds.
pub(crate) const NAMES: [&str; 3] = ["small", "large", "embeds"];

pub(crate) struct Files(Vec<(ModelFile, Setup)>);

impl Files {
    pub(crate) fn new() -> Self {
        let fixture = |kind: &str, name: &str| {
            let cases = cases(kind);
            open(cases.iter().find(|c| c["name"] == name).expect("a case"))
        };
        let path = std::env::temp_dir().join(format!("bursar-faults-{}.gguf", std::process::id()));
        let preset = Preset::parse("tiny-llama:f32").unwrap_or_else(|e| panic!("{e}"));
        synth::write(&preset, 1, &path, &mut |_| {}).unwrap_or_else(|e| panic!("{e}"));
        let large = ModelFile::open(&path).unwrap_or_else(|e| panic!("{e}"));
        std::fs::remove_file(&path).expect("our own file");
        let writes = || {
            let mut setup = Setup {
                batch_tokens: 64,
                ..Setup::default()
            };
            setup.options.queue = 256;
            setup
        };
        let embeds = Setup {
            purpose: Purpose::Embed,
            parallel: 1,
            batch_tokens: 128,
            ..writes()
        };
        // Blocks for half of those who run at once: some lose theirs, and are computed again.
        let tight = Setup {
            blocks: Some(16),
            ..writes()
        };
        Self(vec![
            (fixture("quantized", "qwen3-q4_k_m-gguf"), tight),
            (large, writes()),
            (fixture("embedding", "bert-mean-gguf"), embeds),
        ])
    }
}

pub(crate) struct House {
    ledger: Ledger,
    faults: Arc<Faults>,
    engine: Engine,
    workers: Arc<Workers>,
    /// Too small for a wave of requests: some get mappings of their own while they run.
    pub(crate) pools: Pools,
    pub(crate) models: Vec<EngineHandle>,
    /// What requests are charged to.
    pub(crate) account: Account,
}

impl House {
    pub(crate) fn new(faults: &Arc<Faults>) -> Self {
        let ledger = Ledger::with_faults(BUDGET, Arc::clone(faults));
        let account = ledger.root().child("requests", Lifetime::Episodic);
        let options = PoolsOptions {
            heaps: 1,
            heap_size: Bytes::kib(16),
            max_heaps: 1,
            ..PoolsOptions::default()
        };
        let pools = ledger.root().child("pools", Lifetime::Procedural);
        let open = || {
            Pools::start(&options, &pools).map_err(|error| match error {
                PoolError::Refused(refusal) => EngineError::Refused(refusal),
                error => panic!("{error}"),
            })
        };
        let pools = again(&ledger, faults, open);
        let start = || Engine::start(&ledger, TurnWeights::default());
        Self {
            engine: again(&ledger, faults, start),
            pools,
            account,
            ledger,
            faults: Arc::clone(faults),
            workers: Arc::new(Workers::new(2)),
            models: Vec::new(),
        }
    }

    /// Loads all models and puts them on the engine, each once more where it was refused.
    pub(crate) fn bring(&mut self, files: &Files) {
        for (name, (file, setup)) in NAMES.iter().zip(&files.0) {
            let handle = again(&self.ledger, &self.faults, || self.load(name, file, setup));
            self.models.push(handle);
        }
    }

    fn load(
        &self,
        name: &str,
        file: &ModelFile,
        setup: &Setup,
    ) -> Result<EngineHandle, EngineError> {
        let (vocabulary, plan) = plan(file, setup);
        let controller: EngineController = self.engine.controller();
        let claim = controller.claim(&plan)?;
        let model = EngineModel::load(
            name,
            file,
            vocabulary,
            plan,
            &self.ledger,
            LoadOptions { isa: Isa::best() },
            Arc::clone(&self.workers),
            &mut |_| {},
        )?;
        let options = EngineOptions {
            // One model's requests are charged to their account, the others' are drawn from pools.
            pools: (name != NAMES[0]).then(|| self.pools.clone()),
            ..setup.options.clone()
        };
        let handle = controller.add(model, options);
        drop(claim);
        handle
    }

    /// Takes the large model to half precision, once more where that was refused.
    pub(crate) fn convert(&self) {
        let large = &self.models[1];
        assert!(large.wait_empty(Instant::now() + Duration::from_secs(60)));
        let controller = self.engine.controller();
        let convert = || controller.optimize(large, WeightsDtype::Bf16, false);
        let report = again(&self.ledger, &self.faults, convert);
        assert!(report.converts && report.weights_after < report.weights_before);
    }

    /// Unloads everything; nothing is left.
    pub(crate) fn end(self) {
        let controller = self.engine.controller();
        for handle in &self.models {
            // What is cancelled leaves with the next step.
            assert!(handle.wait_empty(Instant::now() + Duration::from_secs(60)));
            let blocks = handle.snapshot().kv.map_or(0, |kv| kv.blocks_used);
            assert_eq!(blocks, 0, "{}", handle.name());
        }
        let first = &self.models[0];
        controller.remove(first).unwrap_or_else(|e| panic!("{e}"));
        let ends = self.engine.shut_down().unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(ends.len(), 2);
        let heaps = self.pools.report().pools[0].clone();
        assert!(heaps.acquired_total > 0, "{heaps:?}");
        drop((self.models, controller, self.account, self.pools));
        assert_eq!(self.ledger.granted(), Bytes::ZERO);
        let books = self.ledger.snapshot();
        assert!(books.children.is_empty(), "{books:?}");
    }
}

/// Does something that may be refused, but not twice; a refusal leaves the books as they were.
fn again<T>(
    ledger: &Ledger,
    faults: &Faults,
    mut act: impl FnMut() -> Result<T, EngineError>,
) -> T {
    let before = ledger.granted();
    let error = match act() {
        Ok(done) => return done,
        Err(error) => error,
    };
    assert!(error.does_not_fit(), "{error:?}");
    assert!(error.to_string().contains("asked for"), "{error}");
    assert!(faults.struck() > 0, "{error}");
    assert_eq!(ledger.granted(), before, "{error}");
    faults.lift();
    act().unwrap_or_else(|e| panic!("once there is memory: {e}"))
}
