//! What a model does on the engine's thread: writing and making vectors, behind one face.

use std::path::PathBuf;
use std::time::{Duration, Instant, SystemTime};

use bursar_kv::{KvReport, keep};
use bursar_memory::{Account, Bytes, Freed, Pools, Reservation, Rung};
use bursar_model::{Model, ModelPlan};

use crate::EngineError;
use crate::batch::LoadedModel;
use crate::fingerprint::{ConfigDigest, fingerprint};
use crate::host::Ended;
use crate::load::{EngineModel, Job};
use crate::look::Sight;
use crate::optimize;
use crate::options::EngineOptions;
use crate::schedule::Admission;
use crate::sequence::Arrival;
use crate::spill::Spill;
use crate::step::{Clock, Generation, Rules, Totals, WaitsFor};
use crate::turns::Class;
use crate::vectors::{EmbedArrival, Embedding};

/// A request on its way in.
pub(crate) enum Task {
    /// Much longer than the other, and moved from hand to hand.
    Generate(Box<Arrival>),
    Embed(EmbedArrival),
}

/// What a model does with tasks; those for the other kind are refused before they get here, and would
/// fail by being dropped. It goes from thread to thread, but is on one at a time.
pub(crate) trait Work: Send {
    fn class(&self) -> Class;
    fn accept(&mut self, task: Task);
    /// Frees what cancelled requests hold.
    fn sweep(&mut self);
    /// One step in the engine's arena, which is at least as long as the model's plan asks for.
    fn step(&mut self, arena: &mut [u8]);
    /// Puts memory in order between steps; whether there may be more to do.
    fn tidy(&mut self) -> bool;
    fn running(&self) -> usize;
    fn waiting(&self) -> usize;
    fn totals(&self) -> Totals;
    fn kv(&self) -> Option<KvReport>;
    /// Tokens whose keys and values sequences hold.
    fn stored_tokens(&self) -> usize;
    /// Notes how many bytes of the keys and values are really there.
    fn measure(&self);
    fn chunk_tokens(&self) -> usize;
    /// Shows its requests and blocks; `sight` is empty.
    fn look(&self, sight: &mut Sight);
    /// What the first of those who wait needs; `None` where nobody does.
    fn waits_for(&self) -> Option<WaitsFor>;
    /// Takes a rung of the ladder for `bytes`, as far as it goes.
    fn reclaim(&mut self, rung: Rung, bytes: Bytes) -> Freed;
    /// What computes.
    fn model(&self) -> &Model;
    /// Takes the model, which nobody asks now, to another form; gives the bytes of memory that went
    /// back.
    fn convert(&mut self, plan: ModelPlan, account: &Account) -> Result<Bytes, EngineError>;
    /// Fails what is left, keeps what is to be kept, and unloads the model.
    fn end(self: Box<Self>) -> Result<Ended, EngineError>;
}

/// Makes a loaded model ready to work.
pub(crate) fn begin(
    model: EngineModel,
    options: &EngineOptions,
    spill: Option<Spill>,
) -> Box<dyn Work> {
    let keeps_lists = options.pools.as_ref().is_none_or(Pools::are_on);
    let EngineModel {
        model,
        workers,
        vocabulary,
        plan,
        job,
        lists,
        name,
        ..
    } = model;
    match job {
        Job::Generate {
            kv,
            sampler,
            fingerprint,
            config,
            _sampling,
        } => {
            let contiguous = options.contiguous;
            let shares = options.prefix_cache && !contiguous;
            let rules = Rules {
                batch_tokens: plan.batch_tokens(),
                parallel: plan.parallel(),
                longest: plan.context().min(kv.plan().tokens()),
                admission: match contiguous {
                    true => Admission::Reserve,
                    false => options.admission,
                },
                contiguous,
                fingerprint: shares.then_some(fingerprint),
                salt: options.salt,
                compaction: options.compaction.filter(|_| !contiguous),
                keeps_lists,
                books: options.reclaim.clone().map(|books| (books, name)),
            };
            let spill = spill.filter(|_| !contiguous);
            let decoder = LoadedModel { model, workers };
            let generation =
                Generation::new(decoder, kv, sampler, vocabulary, rules, spill, clock());
            Box::new(Writing {
                generation,
                fingerprint,
                config,
                keep: options.keep.clone(),
                _sampling,
                _lists: lists,
            })
        }
        Job::Embed { encoder } => {
            let normalizes = encoder.normalizes();
            let batches = options.batches;
            Box::new(Embedding::new(
                model,
                workers,
                normalizes,
                batches,
                keeps_lists,
                lists,
            ))
        }
    }
}

/// Milliseconds of this clock are those since 1970, and never go back.
fn clock() -> Clock {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let (since, start) = (since.unwrap_or(Duration::ZERO), Instant::now());
    Box::new(move || since + start.elapsed())
}

/// A model that writes.
struct Writing {
    generation: Generation<LoadedModel>,
    /// What computes.
    fingerprint: [u8; 32],
    config: ConfigDigest,
    /// Where cached prefixes outlive it.
    keep: Option<PathBuf>,
    _sampling: Reservation,
    _lists: Reservation,
}

impl Work for Writing {
    fn class(&self) -> Class {
        Class::Generate
    }

    fn accept(&mut self, task: Task) {
        if let Task::Generate(arrival) = task {
            self.generation.accept(*arrival);
        }
    }

    fn sweep(&mut self) {
        self.generation.sweep();
    }

    fn step(&mut self, arena: &mut [u8]) {
        self.generation.step(arena);
    }

    fn tidy(&mut self) -> bool {
        self.generation.tidy()
    }

    fn running(&self) -> usize {
        self.generation.running()
    }

    fn waiting(&self) -> usize {
        self.generation.waiting()
    }

    fn totals(&self) -> Totals {
        self.generation.totals()
    }

    fn kv(&self) -> Option<KvReport> {
        Some(self.generation.kv())
    }

    fn stored_tokens(&self) -> usize {
        self.generation.stored_tokens()
    }

    fn measure(&self) {
        self.generation.measure();
    }

    fn chunk_tokens(&self) -> usize {
        self.generation.chunk_tokens()
    }

    fn look(&self, sight: &mut Sight) {
        self.generation.look(sight);
    }

    fn waits_for(&self) -> Option<WaitsFor> {
        self.generation.waits_for()
    }

    fn reclaim(&mut self, rung: Rung, bytes: Bytes) -> Freed {
        self.generation.reclaim(rung, bytes)
    }

    fn model(&self) -> &Model {
        &self.generation.decoder().model
    }

    fn convert(&mut self, plan: ModelPlan, account: &Account) -> Result<Bytes, EngineError> {
        let LoadedModel { model, workers } = self.generation.decoder_mut();
        let returned = optimize::convert(model, plan, workers, account);
        // Whatever came of it, the model is as its own plan says.
        self.fingerprint = fingerprint(&self.config, model);
        self.generation.computes_otherwise(self.fingerprint);
        returned
    }

    fn end(self: Box<Self>) -> Result<Ended, EngineError> {
        let kv = self.generation.finish();
        let Some(path) = &self.keep else {
            return Ok(Ended::default());
        };
        let kept = keep::save(path, &self.fingerprint, &kv)?;
        Ok(Ended {
            kept_blocks: Some(kept.blocks),
        })
    }
}

impl Work for Embedding {
    fn class(&self) -> Class {
        Class::Embed
    }

    fn accept(&mut self, task: Task) {
        if let Task::Embed(arrival) = task {
            self.accept(arrival);
        }
    }

    fn sweep(&mut self) {
        self.sweep();
    }

    fn step(&mut self, arena: &mut [u8]) {
        self.step(arena);
    }

    fn tidy(&mut self) -> bool {
        false
    }

    fn running(&self) -> usize {
        self.running()
    }

    fn waiting(&self) -> usize {
        self.waiting()
    }

    fn totals(&self) -> Totals {
        self.totals()
    }

    fn kv(&self) -> Option<KvReport> {
        None
    }

    fn stored_tokens(&self) -> usize {
        0
    }

    fn measure(&self) {}

    fn chunk_tokens(&self) -> usize {
        self.chunk_tokens()
    }

    fn look(&self, sight: &mut Sight) {
        self.look(sight);
    }

    fn waits_for(&self) -> Option<WaitsFor> {
        (self.waiting() > 0).then_some(WaitsFor::Step)
    }

    /// It keeps nothing from one batch to the next.
    fn reclaim(&mut self, _: Rung, _: Bytes) -> Freed {
        Freed::default()
    }

    fn model(&self) -> &Model {
        self.model()
    }

    fn convert(&mut self, plan: ModelPlan, account: &Account) -> Result<Bytes, EngineError> {
        self.convert(plan, account)
    }

    fn end(self: Box<Self>) -> Result<Ended, EngineError> {
        Ok(Ended::default())
    }
}
