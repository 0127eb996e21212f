//! The models that a server may load: those named on the command line and those in the models folder;
//! and how each is opened, planned, put on the engine and taken off again.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bursar_engine::{
    ArenaClaim, Climb, EngineController, EngineError, EngineHandle, EngineModel, EngineOptions,
    Footprint, Goal, Held, Ladder, LoadError, LoadOptions, MemoryPlan, ModelSource, PlanRequest,
    ProcessBase, Purpose, Vocabulary, Why, WhyKind, longest_of, unload,
};
use bursar_files::ModelFile;
use bursar_memory::{
    Bytes, Ledger, Lifetime, ReclaimBooks, ReclaimEvent, Reservation, Rung, counting,
};
use bursar_server::{Served, Stopper};
use bursar_workers::Workers;

use super::{BATCH_TOKENS, PARALLEL};
use crate::config::Settings;
use crate::failure::Failure;
use crate::model::{self, Found};
use crate::prepare;
use crate::progress::{Progress, Unit};
use crate::sizing::{self, Otherwise};

/// Bytes that a model takes at most while it is opened: a tokenizer of 151,936 entries takes 9 MB on the way
/// to the 6 MB that it comes to.
const OPENING: Bytes = Bytes::mib(12);

/// A model that has been opened.
pub(super) struct Opened {
    pub(super) name: String,
    pub(super) file: ModelFile,
    pub(super) vocabulary: Vocabulary,
    pub(super) purpose: Purpose,
}

impl Opened {
    /// Reads a model's header and builds its tokenizer.
    pub(super) fn of(name: &str, found: &Found) -> Result<Opened, Failure> {
        let file = found.open()?;
        let vocabulary = Vocabulary::open(&file)?;
        let purpose = prepare::purpose(&file);
        Ok(Opened {
            name: name.to_owned(),
            file,
            vocabulary,
            purpose,
        })
    }
}

/// A model that fits, with everything promised that it takes: nobody else gets it in the meantime.
pub(super) struct Planned {
    pub(super) opened: Opened,
    pub(super) plan: MemoryPlan,
    /// Its own bytes.
    pub(super) promise: Reservation,
    /// Those of the arena.
    pub(super) claim: ArenaClaim,
}

/// How models are sized.
pub(super) struct Sizes {
    pub(super) settings: Settings,
    pub(super) budget: Bytes,
    pub(super) base: ProcessBase,
    /// Of it, the tokenizers of the models that were named.
    pub(super) tokenizers: Bytes,
    /// Bytes that are free when no model is there.
    pub(super) room: Bytes,
    pub(super) ledger: Ledger,
    pub(super) controller: EngineController,
    /// The model that the settings are meant for, if only one was named: what it cannot do is an error.
    pub(super) only: Option<String>,
}

impl Sizes {
    fn request(&self, model: &Opened) -> Result<PlanRequest, EngineError> {
        let parallel = match self.settings.parallel_is_given() {
            true => self.settings.parallel(),
            false => PARALLEL,
        };
        let mut request = sizing::request(&self.settings, model.purpose, parallel, self.budget);
        if self.only.as_ref() != Some(&model.name) {
            // One setting for models of different kinds: each takes of it what it was made for.
            let longest = longest_of(model.file.config(), model.purpose);
            request.context = request.context.map(|context| context.min(longest));
        }
        if model.purpose == Purpose::Generate {
            request.batch_tokens.get_or_insert(BATCH_TOKENS);
        }
        // Others beside it do not make a model lossy or slow: what it is like alone decides.
        let base = self.base.with_arena(Bytes::ZERO);
        let alone = PlanRequest {
            parallel: 1,
            ..request
        };
        let left = self.left(model, self.room);
        let alone = MemoryPlan::new(&model.file, &model.vocabulary, base, &alone, left)?;
        request.weights = alone.chosen_weights();
        Ok(request)
    }

    /// What header and tokenizer of a model take while it is opened, charged for as long, so that nobody
    /// else takes it; where less is free, the rest comes out of what requests are guaranteed and seldom
    /// fill.
    pub(super) fn opening(&self) -> Option<Reservation> {
        let account = self.ledger.root().child("opening", Lifetime::Procedural);
        account.reserve(OPENING.min(self.ledger.free())).ok()
    }

    /// The process's part, which every plan holds but which has been reserved once for all.
    pub(super) fn process(&self, model: &Opened) -> Bytes {
        self.base.bytes().saturating_sub(model.vocabulary.bytes())
    }

    /// What a model may take when `free` bytes are.
    pub(super) fn left(&self, model: &Opened, free: Bytes) -> Bytes {
        free.saturating_add(self.process(model))
    }

    /// Plans a model within `free` bytes with keys and values for one sequence: the least that it is of
    /// use with. Where somebody said how many bytes those get, it is as many.
    pub(super) fn least(&self, model: &Opened, free: Bytes) -> Result<MemoryPlan, EngineError> {
        let request = PlanRequest {
            parallel: 1,
            ..self.request(model)?
        };
        let base = self.base.with_arena(self.controller.arena_bytes());
        let left = self.left(model, free);
        MemoryPlan::new(&model.file, &model.vocabulary, base, &request, left)
    }

    /// Plans it as it is wanted: with keys and values for all sequences, or as many as `free` leaves.
    pub(super) fn wanted(&self, model: &Opened, free: Bytes) -> Result<MemoryPlan, EngineError> {
        let base = self.base.with_arena(self.controller.arena_bytes());
        let left = self.left(model, free);
        let with = |request: &PlanRequest| {
            MemoryPlan::new(&model.file, &model.vocabulary, base, request, left)
        };
        let request = self.request(model)?;
        sizing::plan(request, &self.settings, Otherwise::Leftover, left, with)
    }

    /// Promises a model what its plan names.
    pub(super) fn promise(&self, opened: Opened, plan: MemoryPlan) -> Result<Planned, EngineError> {
        let claim = self.controller.claim(&plan)?;
        let account = self.ledger.root().child(&*opened.name, Lifetime::Semantic);
        let need = plan.need(self.controller.arena_bytes());
        let promise = account.reserve(need.loading)?;
        Ok(Planned {
            opened,
            plan,
            promise,
            claim,
        })
    }
}

/// The models, and everything that loading them takes.
pub(super) struct Catalog {
    pub(super) parts: CatalogParts,
    /// Where the server listens, and what ends it; set when it does.
    server: OnceLock<(SocketAddr, Stopper)>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Planned at the start, to be loaded first.
    planned: BTreeMap<String, Planned>,
    /// Models of the start that are not there yet, and all of them.
    awaited: Vec<String>,
    started: Vec<String>,
    purposes: BTreeMap<String, Purpose>,
    handles: Vec<EngineHandle>,
    /// The last thing that went wrong and that the server's end tells.
    failure: Option<Failure>,
}

/// What a catalog is made of.
pub(super) struct CatalogParts {
    pub(super) sizes: Sizes,
    pub(super) workers: Arc<Workers>,
    pub(super) options: LoadOptions,
    /// How models run; each has its own file of kept prefixes.
    pub(super) served: EngineOptions,
    /// Whether several of the models that are named write text, and share the setting of that file.
    pub(super) several: bool,
    pub(super) ladder: Ladder,
    pub(super) books: ReclaimBooks,
    pub(super) progress: Progress,
    /// Models named on the command line.
    pub(super) named: BTreeMap<String, Found>,
    /// The models folder.
    pub(super) folder: Option<PathBuf>,
    /// When the program began, for what is said when all models of the start are there.
    pub(super) begun: Instant,
}

impl Catalog {
    /// A catalog whose `planned` models are loaded first, from what was promised to them.
    pub(super) fn new(
        parts: CatalogParts,
        purposes: BTreeMap<String, Purpose>,
        planned: Vec<Planned>,
    ) -> Catalog {
        let started: Vec<String> = planned.iter().map(|m| m.opened.name.clone()).collect();
        let planned = planned.into_iter();
        let state = State {
            awaited: started.clone(),
            started,
            planned: planned.map(|m| (m.opened.name.clone(), m)).collect(),
            purposes,
            ..State::default()
        };
        Catalog {
            parts,
            server: OnceLock::new(),
            state: Mutex::new(state),
        }
    }

    /// The server listens: what could be said before, is said now.
    pub(super) fn listening(&self, address: SocketAddr, stopper: Stopper) {
        eprintln!("listening on {address}");
        // There is but one server.
        let _ = self.server.set((address, stopper));
        self.announce(&self.state());
    }

    /// What is loaded before anybody asks: what is planned, and what is pinned.
    pub(super) fn at_start(&self, pinned: &[String]) -> Vec<String> {
        let mut names = self.state().started.clone();
        for pin in pinned {
            if !names.contains(pin) {
                names.push(pin.clone());
            }
        }
        names
    }

    /// What the server's end is to tell.
    pub(super) fn failure(&self) -> Option<Failure> {
        self.state().failure.take()
    }

    /// The models that are on the engine.
    pub(super) fn handles(&self) -> Vec<EngineHandle> {
        self.state().handles.clone()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that the models of the start are there, once they are.
    fn announce(&self, state: &State) {
        let Some((address, _)) = self.server.get() else {
            return;
        };
        if !state.awaited.is_empty() {
            return;
        }
        let names = match state.started.as_slice() {
            [] => "models as they are asked for".to_owned(),
            names => names.join(", "),
        };
        let ledger = &self.parts.sizes.ledger;
        eprintln!(
            "serving {names} at http://{address} after {:.1} s, {} of {} granted",
            self.parts.begun.elapsed().as_secs_f64(),
            ledger.granted(),
            ledger.budget(),
        );
    }

    pub(super) fn found(&self, id: &str) -> Option<Found> {
        if let Some(found) = self.parts.named.get(id) {
            return Some(found.clone());
        }
        model::in_folder(self.parts.folder.as_deref()?, id).map(Found::Path)
    }

    /// Opens a model and plans it within what is free; gives what it takes at least as well.
    fn prepare(&self, id: &str) -> Result<(Opened, MemoryPlan, Footprint), LoadError> {
        let found = self.found(id).ok_or(LoadError::Missing)?;
        let opening = self.parts.sizes.opening();
        let opened = Opened::of(id, &found).map_err(|failure| failed(failure.message()))?;
        drop(opening);
        self.state().purposes.insert(id.to_owned(), opened.purpose);
        let free = self.parts.sizes.ledger.free();
        let least = self.parts.sizes.least(&opened, free).map_err(failed)?;
        let footprint = Footprint::of(&least);
        if !least.fits() {
            return Err(LoadError::NeedsMore(footprint));
        }
        let wanted = self.parts.sizes.wanted(&opened, free).map_err(failed)?;
        let plan = if wanted.fits() { wanted } else { least };
        Ok((opened, plan, footprint))
    }

    fn put_on(
        &self,
        opened: Opened,
        plan: MemoryPlan,
        footprint: Footprint,
        progress: &mut dyn FnMut(u64, u64),
    ) -> Result<Served, LoadError> {
        let refused = |error: EngineError| match error.does_not_fit() {
            true => LoadError::NeedsMore(footprint),
            false => failed(error),
        };
        let Opened {
            name,
            file,
            vocabulary,
            purpose,
        } = opened;
        let _claim = self.parts.sizes.controller.claim(&plan).map_err(refused)?;
        let total = file.used_bytes();
        let mut meter = self
            .parts
            .progress
            .meter(&format!("loading {name}"), Unit::Bytes, total);
        let loaded = EngineModel::load(
            &name,
            &file,
            vocabulary,
            plan,
            &self.parts.sizes.ledger,
            self.parts.options,
            Arc::clone(&self.parts.workers),
            &mut |done| {
                progress(done, total);
                meter.set(done, String::new);
            },
        )
        .map_err(refused)?;
        meter.finish();
        // The one model that is named has the file as it is called.
        let several = self.parts.several || !self.parts.named.contains_key(&name);
        let keep = self.parts.sizes.settings.kv_keep(&name, several);
        let options = EngineOptions {
            keep: keep.filter(|_| purpose == Purpose::Generate),
            ..self.parts.served.clone()
        };
        let handle = self
            .parts
            .sizes
            .controller
            .add(loaded, options)
            .map_err(refused)?;
        for warning in handle.warnings() {
            eprintln!("warning: {warning}");
        }
        self.state().handles.push(handle.clone());
        let controller = self.parts.sizes.controller.clone();
        Ok(Served::new(handle, controller, file.generation().clone()))
    }
}

fn failed(error: impl Display) -> LoadError {
    LoadError::Failed(error.to_string())
}

impl ModelSource for Catalog {
    type Model = Served;

    fn list(&self) -> Vec<String> {
        let mut names: Vec<String> = self.parts.named.keys().cloned().collect();
        let folder = self.parts.folder.as_deref().map(model::names_in);
        for name in folder.into_iter().flatten() {
            if !names.contains(&name) {
                names.push(name);
            }
        }
        names
    }

    fn purpose(&self, id: &str) -> Option<Purpose> {
        self.state().purposes.get(id).copied()
    }

    fn load(&self, id: &str, progress: &mut dyn FnMut(u64, u64)) -> Result<Served, LoadError> {
        let planned = self.state().planned.remove(id);
        let served = match planned {
            Some(planned) => {
                // Taken again at once by those who will hold it: all of it before the first weight is
                // read.
                drop(planned.promise);
                let footprint = Footprint::of(&planned.plan);
                let loaded = self.put_on(planned.opened, planned.plan, footprint, progress);
                drop(planned.claim);
                loaded
            }
            None => {
                let (opened, plan, footprint) = self.prepare(id)?;
                self.put_on(opened, plan, footprint, progress)
            }
        };
        counting::purge();
        let served = served?;
        let mut state = self.state();
        if let Some(place) = state.awaited.iter().position(|name| name == id) {
            state.awaited.remove(place);
            self.announce(&state);
        }
        Ok(served)
    }

    fn unload(&self, id: &str, model: Arc<Served>, why: &Why) {
        let handle = model.engine().clone();
        drop(model);
        self.state().handles.retain(|other| other.name() != id);
        let ledger = &self.parts.sizes.ledger;
        let before = ledger.free();
        if let Err(error) = unload(&self.parts.sizes.controller, handle, ledger) {
            match why.kind {
                WhyKind::End => self.state().failure = Some(error.into()),
                _ => eprintln!("warning: {id}: {error}"),
            }
        }
        if why.kind == WhyKind::Room {
            let since = SystemTime::now().duration_since(UNIX_EPOCH);
            self.parts.books.record(ReclaimEvent {
                unix_ms: since.map_or(0, |since| since.as_millis() as u64),
                rung: Rung::EvictModel,
                model: Some(id.to_owned()),
                bytes: ledger.free().saturating_sub(before),
                reason: why.words.clone(),
            });
        }
    }

    fn held(&self, model: &Served) -> Held {
        Held::of(model.engine())
    }

    fn reclaim(&self, bytes: Bytes, why: &str) {
        let climb = Climb {
            bytes: self.parts.sizes.ledger.free().saturating_add(bytes),
            goal: Goal::Budget,
            up_to: Rung::ShrinkKv,
            reason: why,
        };
        let handles = self.handles();
        self.parts
            .ladder
            .climb(&climb, &handles, &mut |_| Vec::new());
    }

    fn failed(&self, id: &str, why: &str) {
        let mut state = self.state();
        if !state.awaited.iter().any(|name| name == id) {
            eprintln!("warning: {id} could not be loaded: {why}");
            return;
        }
        // A model of the start that cannot be loaded is an error of who started the server.
        state.failure = Some(Failure::failed(format!("{id} could not be loaded: {why}")));
        if let Some((_, stopper)) = self.server.get() {
            // Asked twice, a server ends without waiting for anybody.
            stopper.stop();
            stopper.stop();
        }
    }
}
