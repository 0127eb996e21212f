//! What the monitor is told of the models that are served, and what it says on the terminal.

use std::sync::{Arc, Mutex, PoisonError};

use bursar_engine::{EngineHandle, Evicted, Listener, Residents};
use bursar_memory::Bytes;
use bursar_memory::pressure::{Assessment, Level};

/// The models that have been loaded. Clones are the same list.
#[derive(Clone, Default)]
pub(super) struct Loaded(Arc<Mutex<Vec<EngineHandle>>>);

impl Loaded {
    /// One more.
    pub(super) fn push(&self, handle: EngineHandle) {
        let mut handles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        handles.push(handle);
    }
}

impl Residents for Loaded {
    fn models(&self) -> Vec<EngineHandle> {
        let handles = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        handles.clone()
    }

    /// Who was named at the start stays.
    fn evict_idle(&self, _: Bytes, _: &str) -> Vec<Evicted> {
        Vec::new()
    }
}

/// Says when memory around the process becomes short, and when it is no more. That the budget is full
/// is no news.
pub(super) fn listener() -> Listener {
    let mut said = Level::Normal;
    Box::new(move |_, found: &Assessment| {
        if found.outside == said {
            return;
        }
        match found.outside {
            Level::Normal => eprintln!("memory is not short any more"),
            Level::Elevated | Level::High => {
                eprintln!(
                    "warning: memory is short ({}): {}",
                    found.outside.name(),
                    found.cause
                );
            }
            Level::Critical => eprintln!(
                "warning: memory is critical, and new requests are refused: {}",
                found.cause
            ),
        }
        said = found.outside;
    })
}
