//! The settings of weights: what form they take, and where they are.

use bursar_engine::{DtypeChoice, ResidencyChoice, WeightsRequest};

use super::resolve::Settings;
use super::table;
use super::value::Value;

impl Settings {
    /// What is asked of weights.
    pub(crate) fn weights(&self) -> WeightsRequest {
        WeightsRequest {
            dtype: match self.value(&table::WEIGHTS_DTYPE) {
                Some(Value::WeightsDtype(choice)) => *choice,
                _ => DtypeChoice::default(),
            },
            residency: match self.value(&table::WEIGHTS_RESIDENCY) {
                Some(Value::WeightsResidency(choice)) => *choice,
                _ => ResidencyChoice::Auto,
            },
            held_layers: None,
        }
    }
}
