//! Fixtures as a cache loads them.

use std::path::Path;
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use bursar_engine::{
    EngineController, EngineModel, EngineOptions, Footprint, Held, LoadError, LoadOptions,
    MemoryPlan, ModelSource, PlanRequest, ProcessBase, Purpose, Vocabulary, WeightsRequest, Why,
    unload,
};
use bursar_files::ModelFile;
use bursar_kernels::isa::Isa;
use bursar_kernels::kv_view::KvDtype;
use bursar_memory::{Bytes, Ledger};
use bursar_server::Served;
use bursar_workers::Workers;

use super::Fixture;

/// Loads fixtures onto an engine.
pub(crate) struct Fixtures {
    ledger: Ledger,
    controller: EngineController,
    workers: Arc<Workers>,
    models: Vec<Fixture>,
    parallel: usize,
    queue: usize,
    /// Loads that may still be done.
    allowed: (Mutex<usize>, Condvar),
}

impl Fixtures {
    pub(crate) fn new(
        ledger: &Ledger,
        controller: EngineController,
        models: Vec<Fixture>,
        parallel: usize,
        queue: usize,
    ) -> Fixtures {
        let workers = Workers::with_options(bursar_workers::Options {
            threads: 1,
            ..Default::default()
        });
        Fixtures {
            ledger: ledger.clone(),
            controller,
            workers: Arc::new(workers.unwrap()),
            models,
            parallel,
            queue,
            allowed: (Mutex::new(usize::MAX), Condvar::new()),
        }
    }

    pub(crate) fn allowing(mut self, loads: usize) -> Fixtures {
        self.allowed.0 = Mutex::new(loads);
        self
    }

    pub(crate) fn let_load(&self) {
        *self.allowed.0.lock().unwrap() += 1;
        self.allowed.1.notify_all();
    }

    fn wait_until_allowed(&self) {
        let mut allowed = self.allowed.0.lock().unwrap();
        while *allowed == 0 {
            allowed = self.allowed.1.wait(allowed).unwrap();
        }
        *allowed -= 1;
    }

    fn request(&self, file: &ModelFile, purpose: Purpose) -> PlanRequest {
        let config = file.config();
        let longest = config
            .embedding
            .as_ref()
            .map_or(config.context_max, |e| e.max_tokens);
        PlanRequest {
            purpose,
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
        }
    }
}

impl ModelSource for Fixtures {
    type Model = Served;

    fn list(&self) -> Vec<String> {
        self.models.iter().map(|model| model.0.to_owned()).collect()
    }

    fn purpose(&self, id: &str) -> Option<Purpose> {
        let model = self.models.iter().find(|model| model.0 == id);
        model.map(|model| model.2)
    }

    fn load(&self, id: &str, progress: &mut dyn FnMut(u64, u64)) -> Result<Served, LoadError> {
        progress(1, 2);
        self.wait_until_allowed();
        let model = self.models.iter().find(|model| model.0 == id);
        let (_, file, purpose) = model.ok_or(LoadError::Missing)?;
        let failed = |error: &dyn std::fmt::Display| LoadError::Failed(error.to_string());
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models");
        let file = ModelFile::open(&root.join(file)).map_err(|e| failed(&e))?;
        let vocabulary = Vocabulary::open(&file).map_err(|e| failed(&e))?;
        let base = ProcessBase::measure().unwrap();
        let request = self.request(&file, *purpose);
        let plan = MemoryPlan::new(&file, &vocabulary, base, &request, Bytes::gib(64));
        let plan = plan.map_err(|e| failed(&e))?;
        let footprint = Footprint::of(&plan);
        let refused = |error: bursar_engine::EngineError| match error.does_not_fit() {
            true => LoadError::NeedsMore(footprint),
            false => failed(&error),
        };
        let _claim = self.controller.claim(&plan).map_err(refused)?;
        let total = file.used_bytes();
        let model = EngineModel::load(
            id,
            &file,
            vocabulary,
            plan,
            &self.ledger,
            LoadOptions { isa: Isa::best() },
            Arc::clone(&self.workers),
            &mut |read| progress(read, total),
        );
        let options = EngineOptions {
            queue: self.queue,
            ..EngineOptions::default()
        };
        let engine = self.controller.add(model.map_err(refused)?, options);
        let defaults = file.generation().clone();
        let controller = self.controller.clone();
        Ok(Served::new(engine.map_err(refused)?, controller, defaults))
    }

    fn unload(&self, _id: &str, model: Arc<Served>, why: &Why) {
        let engine = model.engine().clone();
        // What was cancelled may still be inside; what was not would take longer.
        let deadline = Instant::now() + Duration::from_secs(1);
        assert!(engine.wait_empty(deadline), "in use: {why:?}");
        drop(model);
        unload(&self.controller, engine, &self.ledger).unwrap();
    }

    fn held(&self, model: &Served) -> Held {
        Held::of(model.engine())
    }

    fn reclaim(&self, _bytes: Bytes, _why: &str) {}

    fn failed(&self, _id: &str, _why: &str) {}
}

/// No models at all.
pub(crate) struct Nothing;

impl ModelSource for Nothing {
    type Model = Served;

    fn list(&self) -> Vec<String> {
        Vec::new()
    }

    fn purpose(&self, _id: &str) -> Option<Purpose> {
        None
    }

    fn load(&self, _id: &str, _progress: &mut dyn FnMut(u64, u64)) -> Result<Served, LoadError> {
        Err(LoadError::Missing)
    }

    fn unload(&self, _id: &str, _model: Arc<Served>, _why: &Why) {}

    fn held(&self, model: &Served) -> Held {
        Held::of(model.engine())
    }

    fn reclaim(&self, _bytes: Bytes, _why: &str) {}

    fn failed(&self, _id: &str, _why: &str) {}
}
