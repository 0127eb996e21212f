//! What the monitor is told of the models that are served, and what it says on the terminal.

use std::sync::Arc;
use std::time::Instant;

use bursar_engine::{EngineHandle, Evicted, Listener, ModelCache, ParamsPool, Residents};
use bursar_memory::pressure::{Assessment, Level};
use bursar_memory::{Bytes, Pools};
use bursar_server::Served;

use super::catalog::Catalog;

/// The models that are there.
pub(super) struct Loaded {
    pub(super) catalog: Arc<Catalog>,
    pub(super) cache: ModelCache<Served>,
    /// Parameters that requests share.
    pub(super) params: ParamsPool,
    /// Where buffers come from.
    pub(super) pools: Pools,
}

impl Residents for Loaded {
    fn models(&self) -> Vec<EngineHandle> {
        self.catalog.handles()
    }

    fn evict_idle(&self, missing: Bytes, why: &str) -> Vec<Evicted> {
        let gone = self.cache.shed(missing, why).into_iter();
        gone.map(|gone| Evicted {
            model: gone.id,
            bytes: gone.bytes,
            reason: "nobody uses it".to_owned(),
        })
        .collect()
    }

    fn tidy(&self) {
        self.params.tidy();
        if let Some(exhausted) = self.pools.look_after(Instant::now()).warning {
            eprintln!("warning: {exhausted}");
        }
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
