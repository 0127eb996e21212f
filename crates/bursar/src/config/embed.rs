//! The settings of batches of texts: how they are gathered, and what memory they get.

use bursar_engine::BatchOptions;
use bursar_memory::Bytes;

use super::resolve::Settings;
use super::table;

impl Settings {
    /// How texts to embed are gathered into batches.
    pub(crate) fn batches(&self) -> BatchOptions {
        let usual = BatchOptions::default();
        BatchOptions {
            texts_min: self.count(&table::MIN_BATCH).unwrap_or(usual.texts_min),
            texts_max: self.count(&table::MAX_BATCH).or(usual.texts_max),
            yields: self.switch(&table::YIELD_BETWEEN_BATCHES),
        }
    }

    /// Bytes for the activations of a batch of texts, where a share is of `budget`.
    pub(crate) fn batch_memory(&self, budget: Bytes) -> Option<Bytes> {
        self.size(&table::BATCH_MEMORY, budget)
    }
}
