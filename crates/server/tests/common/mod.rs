//! A real server with real tiny models, on a port of its own.

pub(crate) mod client;
mod source;
pub(crate) mod watcher;

use std::net::SocketAddr;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use bursar_engine::{
    CacheOptions, Engine, EngineHandle, Eviction, Keeper, ModelCache, ModelState, ParamsPool,
    ParamsPoolOptions, Purpose, TurnWeights,
};
use bursar_memory::counting::HeapCounts;
use bursar_memory::faults::Faults;
use bursar_memory::pressure::Gauge;
use bursar_memory::{Bytes, Ledger, Lifetime, Pools, PoolsOptions, ReclaimBooks, Refusal};
use bursar_server::{
    Keys, Limits, Secret, Served, Server, ServerOptions, Stopper, requests_account,
};
use source::{Fixtures, Nothing};

/// The stack of the thread that serves: whatever is sent, it must be enough.
const STACK_BYTES: usize = 256 << 10;

/// A model of a test: what it is called, its fixture, what it is for.
pub(crate) type Fixture = (&'static str, &'static str, Purpose);

/// What a test's server is like.
pub(crate) struct Setup {
    pub(crate) keys: Option<Keys>,
    pub(crate) limits: Limits,
    pub(crate) drain: Duration,
    pub(crate) budget: Bytes,
    pub(crate) queue: usize,
    pub(crate) parallel: usize,
    /// Whether the models wait for the test before they are loaded: see [`Running::let_load`].
    pub(crate) late: bool,
    /// How short memory is.
    pub(crate) pressure: Gauge,
    pub(crate) models: &'static [Fixture],
    /// Models that are loaded when somebody asks for them.
    pub(crate) more: &'static [Fixture],
    pub(crate) keep_alive: Option<Duration>,
    /// Whether memory is kept in pools, which take their share of the budget.
    pub(crate) pooled: bool,
    /// Which asks for memory are refused on purpose.
    pub(crate) faults: Arc<Faults>,
    /// What the process allocator has handed out.
    pub(crate) heap: Option<fn() -> HeapCounts>,
    /// Who is told of requests.
    #[cfg(feature = "otel")]
    pub(crate) collector: Option<bursar_server::Collector>,
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
            more: &[],
            keep_alive: None,
            pooled: true,
            faults: Arc::new(Faults::none()),
            heap: None,
            #[cfg(feature = "otel")]
            collector: None,
        }
    }

    /// Listens, serves, and loads the models.
    pub(crate) fn start(self) -> Running {
        self.try_start().unwrap()
    }

    /// The same where memory may be refused at once.
    pub(crate) fn try_start(self) -> Result<Running, Refusal> {
        let ledger = Ledger::with_faults(self.budget, self.faults);
        let account = requests_account(&ledger)?;
        let engine = Engine::start(&ledger, TurnWeights::default()).unwrap();
        let allowed = if self.late { 0 } else { usize::MAX };
        let models = [self.models, self.more].concat();
        let source = Fixtures::new(
            &ledger,
            engine.controller(),
            models,
            self.parallel,
            self.queue,
        );
        let source = Arc::new(source.allowing(allowed));
        let options = CacheOptions {
            keep_alive: self.keep_alive,
            queue: self.queue,
            ..cache_options(&ledger)
        };
        let cache = ModelCache::new(Arc::clone(&source) as Arc<_>, &ledger, options);
        let pools = Pools::start(
            &PoolsOptions {
                enabled: self.pooled,
                ..PoolsOptions::default()
            },
            &ledger.root().child("pools", Lifetime::Procedural),
        );
        let pools = pools.map_err(|error| error.refusal().unwrap().clone())?;
        let options = ServerOptions {
            listen: "127.0.0.1:0".parse().unwrap(),
            keys: self.keys,
            secret: Secret::unkept().unwrap(),
            limits: self.limits,
            drain: self.drain,
            pressure: self.pressure,
            reclaim: ReclaimBooks::new(),
            params: ParamsPool::new(
                ParamsPoolOptions::default(),
                &account.child("params", Lifetime::Semantic),
            ),
            pools,
            planner: None,
            heap: self.heap,
        };
        #[cfg_attr(
            not(feature = "otel"),
            allow(unused_mut, reason = "changed by that alone")
        )]
        let mut server = Server::bind(options, &ledger, account, cache.clone()).unwrap();
        #[cfg(feature = "otel")]
        if let Some(collector) = self.collector {
            server.trace_to(collector).unwrap();
        }
        for (name, ..) in self.models {
            cache.preload(name);
        }
        let running = Running {
            address: server.address(),
            stopper: server.stopper(),
            thread: std::thread::Builder::new()
                .stack_size(STACK_BYTES)
                .spawn(move || server.run().unwrap())
                .unwrap(),
            keeper: Keeper::start(&cache).unwrap(),
            cache,
            source,
            engine,
            ledger,
        };
        if !self.late {
            for (name, ..) in self.models {
                running.until_loaded(name);
            }
        }
        Ok(running)
    }
}

fn cache_options(ledger: &Ledger) -> CacheOptions {
    CacheOptions {
        min_residency: Duration::ZERO,
        eviction: Eviction::Cheapest,
        keep_alive: None,
        pinned: Vec::new(),
        kept: Vec::new(),
        queue: 64,
        room: ledger.free(),
    }
}

/// A cache in which there is nothing.
pub(crate) fn no_models(ledger: &Ledger) -> ModelCache<Served> {
    ModelCache::new(Arc::new(Nothing), ledger, cache_options(ledger))
}

/// A server that answers.
pub(crate) struct Running {
    pub(crate) address: SocketAddr,
    pub(crate) stopper: Stopper,
    pub(crate) thread: JoinHandle<()>,
    pub(crate) cache: ModelCache<Served>,
    keeper: Keeper<Served>,
    source: Arc<Fixtures>,
    engine: Engine,
    pub(crate) ledger: Ledger,
}

impl Running {
    /// Lets one more model be loaded that waits for it.
    pub(crate) fn let_load(&self) {
        self.source.let_load();
    }

    pub(crate) fn until_loaded(&self, name: &str) {
        let loaded = |state| state == ModelState::Loaded;
        while !self
            .cache
            .status_of(name)
            .is_some_and(|status| loaded(status.state))
        {
            std::thread::yield_now();
        }
    }

    /// The engine's handle of a model that is there.
    pub(crate) fn engine_of(&self, name: &str) -> EngineHandle {
        let model = self.cache.status_of(name).unwrap().model.unwrap();
        model.engine().clone()
    }

    /// Lets it finish, and looks whether it left anything.
    pub(crate) fn stop(self) {
        self.stopper.stop();
        self.thread.join().unwrap();
        assert!(self.keeper.end());
        drop(self.cache);
        drop(self.source);
        drop(self.engine);
        assert!(self.ledger.granted_peak() <= self.ledger.budget());
        assert_eq!(
            self.ledger.granted(),
            Bytes(0),
            "{:?}",
            self.ledger.snapshot()
        );
    }
}
