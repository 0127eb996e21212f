//! How tokens are chosen: flags, else what the model's makers recommend, else common defaults.

use std::time::{SystemTime, UNIX_EPOCH};

use bursar_engine::SamplingParams;
use bursar_files::GenerationDefaults;
use clap::Args;

/// Where neither flags nor the model say otherwise: lively, without the unlikely tail.
const TEMPERATURE: f32 = 0.7;
const TOP_K: usize = 40;
const TOP_P: f32 = 0.95;

/// What can be given.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Sampling")]
pub(super) struct SamplingFlags {
    /// 0 takes the most likely token always; higher is livelier [default: the model's, else 0.7]
    #[arg(long, value_name = "T", allow_negative_numbers = true)]
    temperature: Option<f32>,
    /// Choose among so many most likely tokens; 0: all [default: the model's, else 40]
    #[arg(long, value_name = "K")]
    top_k: Option<usize>,
    /// Choose among the most likely tokens that make up this probability [default: the model's,
    /// else 0.95]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    top_p: Option<f32>,
    /// Leave out tokens less than this share as likely as the most likely [default: the model's,
    /// else 0]
    #[arg(long, value_name = "P", allow_negative_numbers = true)]
    min_p: Option<f32>,
    /// The same seed gives the same answer [default: from the clock]
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
}

impl SamplingFlags {
    /// The parameters for a model with these defaults; ranges are checked by the engine.
    pub(super) fn params(&self, model: &GenerationDefaults) -> SamplingParams {
        let greedy = (model.greedy == Some(true)).then_some(0.0);
        // Each of these exists for its own reason: a model that recommends a temperature but no
        // top-k was tuned without one.
        let tuned = model.temperature.is_some() || model.top_p.is_some() || model.top_k.is_some();
        let or = |plain: f32, off: f32| if tuned { off } else { plain };
        SamplingParams {
            temperature: self
                .temperature
                .or(greedy)
                .or(model.temperature)
                .unwrap_or(or(TEMPERATURE, 1.0)),
            top_k: self
                .top_k
                .or(model.top_k.map(|k| k as usize))
                .unwrap_or(if tuned { 0 } else { TOP_K }),
            top_p: self.top_p.or(model.top_p).unwrap_or(or(TOP_P, 1.0)),
            min_p: self.min_p.or(model.min_p).unwrap_or(0.0),
        }
    }

    /// What random numbers are made from.
    pub(super) fn seed(&self) -> u64 {
        self.seed.unwrap_or_else(from_clock)
    }
}

/// A seed that differs from run to run; `--json` prints it, so that any answer can be had again.
fn from_clock() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    // Within 53 bits, so that JSON keeps it exactly.
    (since.as_nanos() as u64) & ((1 << 53) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_beat_the_model_and_the_model_beats_us() {
        let flags = SamplingFlags {
            temperature: Some(0.1),
            seed: Some(7),
            ..Default::default()
        };
        let model = GenerationDefaults {
            temperature: Some(0.6),
            top_k: Some(20),
            ..GenerationDefaults::default()
        };
        let params = flags.params(&model);
        let expected = SamplingParams {
            temperature: 0.1,
            top_k: 20,
            top_p: 1.0,
            min_p: 0.0,
        };
        assert_eq!((params, flags.seed()), (expected, 7));
        let params = flags.params(&GenerationDefaults::default());
        assert_eq!((params.top_k, params.top_p), (TOP_K, TOP_P));
        let greedy = GenerationDefaults {
            greedy: Some(true),
            ..GenerationDefaults::default()
        };
        assert_eq!(SamplingFlags::default().params(&greedy).temperature, 0.0);
    }
}
