//! How a request wants its tokens chosen, as one immutable value shared by all that ask the same.
//!
//! - `form`: its compact binary form, by which values are compared.
//! - `pool`: the values that are shared.

mod form;
mod pool;

pub use pool::{ParamsPool, ParamsPoolOptions, ParamsReport};

use crate::sample::{SamplingError, SamplingParams};

/// Everything that decides which token comes next, besides the logits and the request's seed.
///
/// The order is vLLM's: bias, then tokens that may not end the answer yet, then penalties, then
/// temperature, top-k, top-p and min-p.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerateParams {
    /// Temperature and filters.
    pub sampling: SamplingParams,
    /// Against repetition.
    pub penalties: Penalties,
    /// Added to the logits of these tokens.
    pub logit_bias: Vec<(u32, f32)>,
    /// The model's end tokens and stop tokens are not chosen before so many tokens.
    pub min_tokens: usize,
}

/// What makes tokens less likely that were there before.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Penalties {
    /// Taken from the logit of every token generated so far, once.
    pub presence: f32,
    /// Taken from the logit of every token generated so far, as often as it was.
    pub frequency: f32,
    /// Divides positive logits, and multiplies negative ones, of every token of the prompt or the
    /// answer (Keskar et al. 2019); 1 changes nothing.
    pub repetition: f32,
}

impl Default for Penalties {
    /// None.
    fn default() -> Self {
        Self {
            presence: 0.0,
            frequency: 0.0,
            repetition: 1.0,
        }
    }
}

impl Penalties {
    /// Whether they change nothing.
    pub fn none(&self) -> bool {
        *self == Self::default()
    }
}

impl From<SamplingParams> for GenerateParams {
    fn from(sampling: SamplingParams) -> Self {
        Self {
            sampling,
            ..Self::default()
        }
    }
}

impl GenerateParams {
    /// Checks every range; NaN is in none.
    pub fn check(&self) -> Result<(), SamplingError> {
        self.sampling.check()?;
        let within = |name, got: f32, low: f32, high: f32, want| {
            if got >= low && got <= high {
                Ok(())
            } else {
                Err(SamplingError { name, got, want })
            }
        };
        let Penalties {
            presence,
            frequency,
            repetition,
        } = self.penalties;
        within("presence_penalty", presence, -2.0, 2.0, "between -2 and 2")?;
        within(
            "frequency_penalty",
            frequency,
            -2.0,
            2.0,
            "between -2 and 2",
        )?;
        within(
            "repetition_penalty",
            repetition,
            f32::MIN_POSITIVE,
            100.0,
            "above 0 and at most 100",
        )?;
        for &(_, bias) in &self.logit_bias {
            within("logit_bias", bias, -100.0, 100.0, "between -100 and 100")?;
        }
        Ok(())
    }

    /// Whether the logits can be used as they are.
    pub(crate) fn leaves_logits(&self) -> bool {
        self.penalties.none() && self.logit_bias.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_checked() {
        let bad = |change: fn(&mut GenerateParams)| {
            let mut params = GenerateParams::default();
            change(&mut params);
            params.check().expect_err("out of range").name
        };
        assert_eq!(bad(|p| p.penalties.presence = 2.5), "presence_penalty");
        assert_eq!(
            bad(|p| p.penalties.frequency = f32::NAN),
            "frequency_penalty"
        );
        assert_eq!(bad(|p| p.penalties.repetition = 0.0), "repetition_penalty");
        assert_eq!(bad(|p| p.logit_bias.push((1, 101.0))), "logit_bias");
        assert_eq!(bad(|p| p.sampling.min_p = 2.0), "min-p");
        assert_eq!(GenerateParams::default().check(), Ok(()));
    }
}
