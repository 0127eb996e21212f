//! A real server with real tiny models, on a port of its own.

pub(crate) mod client;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bursar_engine::{
    Engine, EngineHandle, EngineModel, EngineOptions, LoadOptions, MemoryPlan, PlanRequest,
    ProcessBase, Purpose, TurnWeights, Vocabulary, WeightsRequest,
};
use bursar_files::ModelFile;
use bursar_kernels::isa::Isa;
use bursar_kernels::kv_view::KvDtype;
use bursar_memory::pressure::Gauge;
use bursar_memory::{Bytes, Ledger, ReclaimBooks};
use bursar_server::{
    Keys, Limits, Secret, Served, Server, ServerOptions, Slot, Stopper, requests_account,
};
use bursar_workers::Workers;

/// What a test's server is like.
pub(crate) struct Setup {
    pub(crate) keys: Option<Keys>,
    pub(crate) limits: Limits,
    pub(crate) drain: Duration,
    pub(crate) budget: Bytes,
    pub(crate) queue: usize,
    pub(crate) parallel: usize,
    /// Whether the models are announced only, to be filled in by the test.
    pub(crate) late: bool,
    /// How short memory is.
    pub(crate) pressure: Gauge,
    pub(crate) models: &'static [(&'static str, &'static str, Purpose)],
}

impl Setup {
    /// A model that writes and one that makes vectors.
    pub(crate) fn new() -> Setup {
        Setup {
            keys: None,
            limits: Limits::default(),
            drain: Duration::from_secs(10),
            budget: Bytes::gib(1),
            queue: 64,
            parallel: 4,
            late: false,
            pressure: Gauge::new(),
            models: &[
                ("llama", "llama-f16.gguf", Purpose::Generate),
                ("embedding", "qwen3-embedding", Purpose::Embed),
            ],
        }
    }

    /// Loads the models, listens, serves.
    pub(crate) fn start(self) -> Running {
        let ledger = Ledger::new(self.budget);
        let account = requests_account(&ledger).unwrap();
        let workers = Workers::with_options(bursar_workers::Options {
            threads: 1,
            ..Default::default()
        });
        let workers = Arc::new(workers.unwrap());
        let engine = Engine::start(&ledger, TurnWeights::default()).unwrap();
        let controller = engine.controller();
        let (mut slots, mut late, mut handles) = (Vec::new(), Vec::new(), Vec::new());
        for (name, file, purpose) in self.models {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models");
            let file = ModelFile::open(&root.join(file)).unwrap();
            let vocabulary = Vocabulary::open(&file).unwrap();
            let base = ProcessBase::measure().unwrap();
            let config = file.config();
            let longest = config
                .embedding
                .as_ref()
                .map_or(config.context_max, |e| e.max_tokens);
            let request = PlanRequest {
                purpose: *purpose,
                context: Some(512.min(longest)),
                parallel: self.parallel,
                batch_tokens: Some(64),
                batch_memory: None,
                kv_dtype_k: KvDtype::F32,
                kv_dtype_v: KvDtype::F32,
                kv_block_tokens: 16,
                kv_memory: None,
                threads: 1,
                weights: WeightsRequest::default(),
            };
            let plan = MemoryPlan::new(&file, &vocabulary, base, &request, self.budget).unwrap();
            let model = EngineModel::load(
                name,
                &file,
                vocabulary,
                plan,
                &ledger,
                LoadOptions { isa: Isa::best() },
                Arc::clone(&workers),
                &mut |_| {},
            );
            let options = EngineOptions {
                queue: self.queue,
                ..EngineOptions::default()
            };
            let handle = controller.add(model.unwrap(), options).unwrap();
            handles.push(handle.clone());
            let model = Served::new(handle, file.generation().clone());
            if self.late {
                slots.push(Slot::loading(name, *purpose));
                late.push(model);
            } else {
                slots.push(Slot::loaded(model));
            }
        }
        let options = ServerOptions {
            listen: "127.0.0.1:0".parse().unwrap(),
            keys: self.keys,
            secret: Secret::unkept().unwrap(),
            limits: self.limits,
            drain: self.drain,
            pressure: self.pressure,
            reclaim: ReclaimBooks::new(),
        };
        let server = Server::bind(options, &ledger, account, slots.clone()).unwrap();
        Running {
            address: server.address(),
            stopper: server.stopper(),
            thread: std::thread::spawn(move || server.run().unwrap()),
            late: slots.into_iter().zip(late).collect(),
            handles,
            engine,
            ledger,
        }
    }
}

/// A server that answers.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) stopper: Stopper,
    pub(crate) thread: JoinHandle<()>,
    /// Models that are still to be filled in, with their places.
    pub(crate) late: Vec<(Slot, Served)>,
    /// All of them, in the order of the setup.
    pub(crate) handles: Vec<EngineHandle>,
    engine: Engine,
    pub(crate) ledger: Ledger,
}

impl Running {
    /// Lets it finish, and looks whether it left anything.
    pub(crate) fn stop(self) {
        self.stopper.stop();
        self.thread.join().unwrap();
        drop(self.late);
        drop(self.handles);
        drop(self.engine);
        assert_eq!(
            self.ledger.granted(),
            Bytes(0),
            "{:?}",
            self.ledger.snapshot()
        );
    }
}
