//! Loading while the server already listens: on a thread of its own, one model after the other.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Instant;

use bursar_engine::{ArenaClaim, Engine, EngineModel, EngineOptions, LoadOptions, MemoryPlan};
use bursar_memory::{Ledger, Reservation, counting};
use bursar_server::{Served, Slot, Stopper};
use bursar_workers::Workers;

use super::Opened;
use super::watch::Loaded;
use crate::failure::Failure;
use crate::progress::{Progress, Unit};

/// A model that fits, and its place in the server.
pub(super) struct Planned {
    pub(super) opened: Opened,
    pub(super) plan: MemoryPlan,
    /// All bytes of the plan but the process's own and the arena's: nobody else gets them in the meantime.
    pub(super) promise: Reservation,
    /// The same of the arena.
    pub(super) claim: ArenaClaim,
    pub(super) slot: Slot,
    /// Where its cached prefixes outlive the process.
    pub(super) keep: Option<PathBuf>,
}

/// What loading needs beside the models.
pub(super) struct Loader {
    pub(super) ledger: Ledger,
    pub(super) workers: Arc<Workers>,
    /// Steps them all.
    pub(super) engine: Engine,
    pub(super) options: LoadOptions,
    /// Models that are there, as the monitor sees them.
    pub(super) loaded: Loaded,
    pub(super) served: EngineOptions,
    pub(super) progress: Progress,
    pub(super) begun: Instant,
    /// Where the server listens, for the word that is said at the end.
    pub(super) address: std::net::SocketAddr,
    /// Ends the server if a model cannot be loaded.
    pub(super) stopper: Stopper,
}

/// Models that are being loaded, or have been; their engine lives as long as this.
pub(super) struct Loading {
    thread: JoinHandle<Result<Engine, Failure>>,
    /// Set before the server can have been told of a failure.
    ended: Arc<AtomicBool>,
}

impl Loading {
    /// Ends the engine. What is still being loaded is left to the end of the
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

/// Ends all models, and tells the last thing that went wrong.
fn end(engine: Engine) -> Result<(), Failure> {
    let ends = engine.shut_down()?;
    let failed = ends.into_iter().filter_map(|(_, ended)| ended.err());
    failed.last().map_or(Ok(()), |error| Err(error.into()))
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
                loaded.map(|()| self.engine)
            })?;
        Ok(Loading { thread, ended })
    }

    fn load(&self, models: Vec<Planned>) -> Result<(), Failure> {
        let names: Vec<String> = models.iter().map(|m| m.opened.name.clone()).collect();
        for model in models {
            self.load_one(model)?;
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
        Ok(())
    }

    fn load_one(&self, model: Planned) -> Result<(), Failure> {
        let Planned {
            opened,
            plan,
            promise,
            claim: _claim,
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
            ..self.served.clone()
        };
        let handle = self.engine.controller().add(loaded, options)?;
        for warning in handle.warnings() {
            eprintln!("warning: {warning}");
        }
        let defaults = opened.file.generation().clone();
        self.loaded.push(handle.clone());
        slot.fill(Served::new(handle, defaults));
        Ok(())
    }
}
