//! An engine: one thread that steps all models, and the way to put models on it and to take them off.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, mpsc};
use std::thread::JoinHandle;

use bursar_kv::keep;
use bursar_memory::{Bytes, Freed, Ledger, Rung};
use bursar_model::{ModelError, ModelPlan};

use crate::EngineError;
use crate::arena::{Arena, ArenaBooks, ArenaClaim};
use crate::bell::Bell;
use crate::handle::{EngineHandle, Face};
use crate::inbox::lock;
use crate::load::{EngineModel, Job};
use crate::options::EngineOptions;
use crate::plan::MemoryPlan;
use crate::seat::Seat;
use crate::spill::Spill;
use crate::thread::{self, Message};
use crate::turns::{TurnWeights, Turns};
use crate::work::{self, Work};

/// Stack of the engine's thread; a step touches less than 128 KiB of it.
const STACK_BYTES: usize = 1 << 20;

/// What a model leaves behind.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Blocks in the file of kept prefixes; `None` if none was asked for.
    pub kept_blocks: Option<usize>,
}

/// What each model of an engine left behind, by name.
pub type Endings = Vec<(String, Result<Ended, EngineError>)>;

/// What the engine's thread and those who tell it what to do share.
pub(crate) struct Shared {
    pub(crate) bell: Arc<Bell>,
    /// `None` when it has been told to stop, or has ended.
    messages: Mutex<Option<VecDeque<Message>>>,
    pub(crate) arena: ArenaBooks,
}

impl Shared {
    /// Everything that the thread has been told since it last asked; `None` when it is to stop.
    pub(crate) fn take(&self) -> Option<VecDeque<Message>> {
        lock(&self.messages).as_mut().map(std::mem::take)
    }

    /// Takes no more messages; who waits for an answer to those left is told that there is none.
    pub(crate) fn close(&self) {
        let left = lock(&self.messages).take();
        drop(left);
        self.bell.ring();
    }

    fn tell(&self, message: Message) -> Result<(), EngineError> {
        match &mut *lock(&self.messages) {
            Some(messages) => messages.push_back(message),
            None => return Err(EngineError::Stopped),
        }
        self.bell.ring();
        Ok(())
    }
}

/// One thread that steps all models. Dropping it ends the thread, fails what is left, and unloads the
/// models.
pub struct Engine {
    controller: EngineController,
    thread: Option<JoinHandle<Endings>>,
}

/// The way to put models on an engine and to take them off; cheap to clone.
#[derive(Clone)]
pub struct EngineController {
    shared: Arc<Shared>,
}

impl Engine {
    /// Starts the thread, with no models yet. The arena that they will share is charged to an account
    /// `activations` below the ledger's root.
    ///
    /// # Errors
    /// When the system refuses the thread.
    pub fn start(ledger: &Ledger, weights: TurnWeights) -> Result<Engine, EngineError> {
        let shared = Arc::new(Shared {
            bell: Arc::default(),
            messages: Mutex::new(Some(VecDeque::new())),
            arena: ArenaBooks::open(ledger)?,
        });
        let arena = Arena::new(shared.arena.clone()).map_err(ModelError::from)?;
        let inner = Arc::clone(&shared);
        let thread = std::thread::Builder::new()
            .name("engine".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || thread::run(&inner, Turns::new(weights), arena))
            .map_err(EngineError::Thread)?;
        Ok(Engine {
            controller: EngineController { shared },
            thread: Some(thread),
        })
    }

    /// The way to put models on it.
    pub fn controller(&self) -> EngineController {
        self.controller.clone()
    }

    /// Ends the thread, fails what is left, unloads all models; says by name what each left behind that
    /// was still there.
    ///
    /// # Errors
    /// When the thread ended badly. A model's own error is that its file of kept prefixes could not be
    /// written.
    pub fn shut_down(mut self) -> Result<Endings, EngineError> {
        self.controller.shared.close();
        let Some(thread) = self.thread.take() else {
            return Err(EngineError::Stopped);
        };
        // A panic of the thread has been reported where it happened.
        thread.join().map_err(|_| EngineError::Stopped)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.controller.shared.close();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported where it happened; who wants to hear of the rest
            // shuts down.
            let _ = thread.join();
        }
    }
}

impl EngineController {
    /// Puts a model on the engine, from whatever thread. A file of kept prefixes that cannot be used is
    /// a warning: see [`EngineHandle::warnings`].
    ///
    /// # Errors
    /// When the arena cannot grow to what the model needs, the system refuses the file for preempted
    /// sequences, or the engine has stopped; the model is unloaded then, and nothing else has changed.
    pub fn add(
        &self,
        mut model: EngineModel,
        options: EngineOptions,
    ) -> Result<EngineHandle, EngineError> {
        let claim = self.claim(&model.plan)?;
        let mut warnings = Vec::new();
        let mut spill = None;
        if let Job::Generate {
            kv, fingerprint, ..
        } = &mut model.job
        {
            if let Some(options) = &options.spill {
                spill = Some(Spill::create(options, kv.layout().block_bytes())?);
            }
            if let Some(path) = &options.keep
                && let Err(error) = keep::load(path, fingerprint, kv)
            {
                warnings.push(format!("starting without kept prefixes: {error}"));
            }
        }
        let bell = Arc::clone(&self.shared.bell);
        let face = Arc::new(Face::new(&model, &options, warnings, bell));
        let work = work::begin(model, &options, spill);
        let seat = Box::new(Seat::new(work, claim, Arc::clone(&face)));
        let (reply, answer) = mpsc::channel();
        self.shared.tell(Message::Add(seat, reply))?;
        let fitted = answer.recv().map_err(|_| EngineError::Stopped)?;
        fitted.map_err(ModelError::from)?;
        Ok(EngineHandle::new(face))
    }

    /// Reserves what the arena has to grow by for a model of this plan. Whoever loads one claims first
    /// and lets go when the model has been added, which claims for itself: so it is not refused then.
    ///
    /// # Errors
    /// When it does not fit.
    pub fn claim(&self, plan: &MemoryPlan) -> Result<ArenaClaim, EngineError> {
        Ok(self.shared.arena.claim(plan.activations())?)
    }

    /// Bytes of the arena that all models share, those included that are claimed only.
    pub fn arena_bytes(&self) -> Bytes {
        self.shared.arena.bytes()
    }

    /// Takes a model off the engine and unloads it; blocks until its memory has been given back, but for
    /// what handles to it hold: its tokenizer. Requests inside fail.
    ///
    /// # Errors
    /// When the model is not there any more: it was removed, it failed, or the engine has stopped. When
    /// the file of kept prefixes could not be written; the model is unloaded all the same.
    pub fn remove(&self, handle: &EngineHandle) -> Result<Ended, EngineError> {
        let (reply, answer) = mpsc::channel();
        let face = Arc::clone(handle.face());
        self.shared.tell(Message::Remove(face, reply))?;
        let seat = answer.recv().map_err(|_| EngineError::Stopped)?;
        seat.end()
    }

    /// Gives back the memory of what the last step left in the arena; where there is something to do,
    /// which would touch it again, only if that is meant by `busy`. Says how many bytes went.
    pub(crate) fn trim_arena(&self, busy: bool) -> Bytes {
        let (reply, answer) = mpsc::channel();
        let told = self.shared.tell(Message::Trim { busy, reply });
        // An engine that has ended has no arena.
        let answer = told.ok().and_then(|()| answer.recv().ok());
        answer.unwrap_or(Bytes::ZERO)
    }

    /// Takes a rung of the ladder for a model's `bytes`, as far as it goes, between two of its steps.
    ///
    /// # Errors
    /// When the model is not there any more.
    pub fn reclaim(
        &self,
        handle: &EngineHandle,
        rung: Rung,
        bytes: Bytes,
    ) -> Result<Freed, EngineError> {
        self.lend(handle, |work| {
            let freed = work.reclaim(rung, bytes);
            // What is shown is what is there.
            work.measure();
            lock(&handle.face().published).kv = work.kv();
            freed
        })
    }

    /// Takes an idle model to the form of `plan`, and its share of the arena with it; gives the bytes of
    /// memory that went back.
    pub(crate) fn convert(
        &self,
        handle: &EngineHandle,
        plan: ModelPlan,
    ) -> Result<Bytes, EngineError> {
        let needs = plan.activation_bytes();
        let needed = self.lend(handle, |work| work.model().plan().activation_bytes())?;
        if needs > needed {
            self.claim_again(handle, needs)?;
        }
        let converted = self.lend(handle, |work| {
            let requests = work.running() + work.waiting();
            if requests > 0 {
                let model = handle.name().to_owned();
                return Err(EngineError::Busy { model, requests });
            }
            work.convert(plan, handle.account())
        })?;
        // As the model is now, whatever came of it.
        let needs = self.lend(handle, |work| work.model().plan().activation_bytes())?;
        self.claim_again(handle, needs)?;
        converted
    }

    /// Has a model's share of the arena be of so many bytes.
    fn claim_again(&self, handle: &EngineHandle, bytes: Bytes) -> Result<(), EngineError> {
        let claim = self.shared.arena.claim(bytes)?;
        let (reply, answer) = mpsc::channel();
        let face = Arc::clone(handle.face());
        self.shared.tell(Message::Claim(face, claim, reply))?;
        let fitted = answer.recv().map_err(|_| EngineError::Stopped)?;
        Ok(fitted.map_err(ModelError::from)?)
    }

    /// Lets the calling thread have a model's work between two of its steps. Meanwhile the other models
    /// go on, and requests for this one wait.
    ///
    /// # Errors
    /// When the model is not there any more.
    pub(crate) fn lend<R>(
        &self,
        handle: &EngineHandle,
        act: impl FnOnce(&mut dyn Work) -> R,
    ) -> Result<R, EngineError> {
        let (reply, answer) = mpsc::channel();
        let face = Arc::clone(handle.face());
        self.shared.tell(Message::Lend(face, reply))?;
        let mut lent = Lent {
            shared: &self.shared,
            face: handle.face(),
            work: Some(answer.recv().map_err(|_| EngineError::Stopped)?),
        };
        match &mut lent.work {
            Some(work) => Ok(act(&mut **work)),
            None => Err(EngineError::Stopped),
        }
    }
}

/// Work that goes back to the engine's thread, come what may.
struct Lent<'a> {
    shared: &'a Shared,
    face: &'a Arc<Face>,
    work: Option<Box<dyn Work>>,
}

impl Drop for Lent<'_> {
    fn drop(&mut self) {
        // Nobody knows what a panic has left of it.
        let work = self.work.take().filter(|_| !std::thread::panicking());
        // Where the engine has stopped, the work is dropped here.
        let _ = self
            .shared
            .tell(Message::Return(Arc::clone(self.face), work));
    }
}

#[cfg(test)]
mod tests;
