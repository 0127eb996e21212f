//! Loading while the server already listens: on a thread of its own, one model after the other.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use bursar_engine::{Engine, EngineModel, EngineOptions, LoadOptions, MemoryPlan};
use bursar_memory::{Ledger, Reservation, counting};
use bursar_server::{Served, Slot, Stopper};
use bursar_workers::Workers;

use super::Opened;
use crate::failure::Failure;
use crate::progress::{Progress, Unit};

/// A model that fits, and its place in the server.
pub(super) struct Planned {
    pub(super) opened: Opened,
    pub(super) plan: MemoryPlan,
    /// All bytes of the plan but the process's own: nobody else gets them in the meantime.
    pub(super) promise: Reservation,
    pub(super) slot: Slot,
    /// Where its cached prefixes outlive the process.
    pub(super) keep: Option<PathBuf>,
}

/// What loading needs beside the models.
pub(super) struct Loader {
    pub(super) ledger: Ledger,
    pub(super) workers: Arc<Workers>,
    pub(super) options: LoadOptions,
    pub(super) engine: EngineOptions,
    pub(super) progress: Progress,
    pub(super) begun: Instant,
    /// Where the server listens, for the word that is said at the end.
    pub(super) address: std::net::SocketAddr,
    /// Ends the server if a model cannot be loaded.
    pub(super) stopper: Stopper,
}

/// Models that are being loaded, or have been; their engines live as long as this.
pub(super) struct Loading {
    thread: JoinHandle<Result<Vec<Engine>, Failure>>,
    /// Set before the server can have been told of a failure.
    ended: Arc<AtomicBool>,
}

impl Loading {
    /// Ends the engines, one after another. What is still being loaded is left to the end of the
    /// process: nobody waits for it.
    ///
    /// # Errors
    /// If a model could not be loaded, or what was to be kept of one could not be kept.
    pub(super) fn end(self) -> Result<(), Failure> {
        match self.ended.load(Ordering::Acquire) {
            // A panic of the thread has been reported where it happened.
            true => self.thread.join().map_or(Ok(()), |loaded| end(loaded?)),
            false => Ok(()),
        }
    }
}

/// Ends all of them, and tells the last thing that went wrong.
fn end(engines: Vec<Engine>) -> Result<(), Failure> {
    let mut outcome = Ok(());
    for engine in engines {
        if let Err(error) = engine.shut_down() {
            outcome = Err(error.into());
        }
    }
    outcome
}

impl Loader {
    /// Loads on a thread of its own.
    pub(super) fn start(self, models: Vec<Planned>) -> std::io::Result<Loading> {
        let ended = Arc::new(AtomicBool::new(false));
        let tell = Arc::clone(&ended);
        let thread = std::thread::Builder::new()
            .name("load".to_owned())
            .spawn(move || {
                let loaded = self.load(models);
                tell.store(true, Ordering::Release);
                if loaded.is_err() {
                    // Asked twice, a server ends without waiting for anybody.
                    self.stopper.stop();
                    self.stopper.stop();
                }
                loaded
            })?;
        Ok(Loading { thread, ended })
    }

    fn load(&self, models: Vec<Planned>) -> Result<Vec<Engine>, Failure> {
        let names: Vec<String> = models.iter().map(|m| m.opened.name.clone()).collect();
        let mut engines = Vec::with_capacity(models.len());
        for model in models {
            engines.push(self.load_one(model)?);
            counting::purge();
        }
        eprintln!(
            "serving {} at http://{} after {:.1} s, {} of {} granted",
            names.join(", "),
            self.address,
            self.begun.elapsed().as_secs_f64(),
            self.ledger.granted(),
            self.ledger.budget(),
        );
        Ok(engines)
    }

    fn load_one(&self, model: Planned) -> Result<Engine, Failure> {
        let Planned {
            opened,
            plan,
            promise,
            slot,
            keep,
        } = model;
        let total = opened.file.used_bytes();
        let label = format!("loading {}", opened.name);
        let mut meter = self.progress.meter(&label, Unit::Bytes, total);
        // Taken again at once by those who will hold it: all of it before the first weight is read.
        drop(promise);
        let loaded = EngineModel::load(
            &opened.name,
            &opened.file,
            opened.vocabulary,
            plan,
            &self.ledger,
            self.options,
            Arc::clone(&self.workers),
            &mut |done| {
                slot.progress(done, total);
                meter.set(done, String::new);
            },
        )?;
        meter.finish();
        let options = EngineOptions {
            keep,
            ..self.engine.clone()
        };
        let engine = Engine::start(loaded, options)?;
        for warning in engine.warnings() {
            eprintln!("warning: {warning}");
        }
        let defaults = opened.file.generation().clone();
        slot.fill(Served::new(engine.handle(), defaults));
        Ok(engine)
    }
}
