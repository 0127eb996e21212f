//! An engine with one model: what tests and measurements need.

use std::time::{Duration, Instant};

use bursar_memory::Ledger;

use crate::EngineError;
use crate::handle::EngineHandle;
use crate::host::{Ended, Engine, EngineController};
use crate::load::EngineModel;
use crate::options::EngineOptions;
use crate::turns::TurnWeights;

/// An engine with one model. Dropping it ends both.
pub struct SoloEngine {
    engine: Engine,
    handle: EngineHandle,
}

impl SoloEngine {
    /// Starts an engine for `model`, which was loaded within `ledger`.
    ///
    /// # Errors
    /// As for [`Engine::start`] and [`crate::EngineController::add`].
    pub fn start(
        model: EngineModel,
        options: EngineOptions,
        ledger: &Ledger,
    ) -> Result<SoloEngine, EngineError> {
        let engine = Engine::start(ledger, TurnWeights::default())?;
        let handle = engine.controller().add(model, options)?;
        Ok(SoloEngine { engine, handle })
    }

    /// The way to put other models beside it, and to have memory given back.
    pub fn controller(&self) -> EngineController {
        self.engine.controller()
    }

    /// A way to the model.
    pub fn handle(&self) -> EngineHandle {
        self.handle.clone()
    }

    /// Takes no more requests, and waits until those inside have ended; false if that takes longer
    /// than `longest`. What is left then fails when the engine is dropped.
    pub fn drain(&self, longest: Duration) -> bool {
        self.handle.drain();
        self.handle.wait_empty(Instant::now() + longest)
    }

    /// Ends both; says what was kept for the next start.
    ///
    /// # Errors
    /// As for [`crate::EngineController::remove`] and [`Engine::shut_down`].
    pub fn shut_down(self) -> Result<Ended, EngineError> {
        let ended = self.engine.controller().remove(&self.handle)?;
        self.engine.shut_down()?;
        Ok(ended)
    }
}
