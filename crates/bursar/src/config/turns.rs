//! The settings of how models share the time.

use bursar_engine::TurnWeights;

use super::resolve::Settings;
use super::table;

impl Settings {
    /// What kinds of models get of the time.
    pub(crate) fn turns(&self) -> TurnWeights {
        let usual = TurnWeights::default();
        let weight = |setting, usual| self.count(setting).map_or(usual, |weight| weight as f64);
        TurnWeights {
            generate: weight(&table::TURNS_GENERATE, usual.generate),
            embed: weight(&table::TURNS_EMBED, usual.embed),
        }
    }
}
