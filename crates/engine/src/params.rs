//! How a request wants its tokens chosen, as one immutable value shared by all that ask the same.

use std::collections::HashMap;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, Weak};

use crate::inbox::lock;
use crate::sample::{SamplingError, SamplingParams};

/// Everything that decides which token comes next, besides the logits.
///
/// The order is vLLM's: bias, then tokens that may not end the answer yet, then penalties, then
/// temperature, top-k, top-p and min-p.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GenerateParams {
    /// Temperature, filters and seed.
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

    /// A value that equal parameters share: floats by their bits.
    fn key(&self) -> u64 {
        let mut hasher = std::hash::DefaultHasher::new();
        let SamplingParams {
            temperature,
            top_k,
            top_p,
            min_p,
            seed,
        } = self.sampling;
        let Penalties {
            presence,
            frequency,
            repetition,
        } = self.penalties;
        // Equal floats may differ in the sign of zero; adding zero makes them one.
        for value in [temperature, top_p, min_p, presence, frequency, repetition] {
            (value + 0.0).to_bits().hash(&mut hasher);
        }
        (top_k, seed, self.min_tokens).hash(&mut hasher);
        for (token, bias) in &self.logit_bias {
            (token, (bias + 0.0).to_bits()).hash(&mut hasher);
        }
        hasher.finish()
    }
}

/// Gives equal parameters one place in memory, for as long as somebody uses them.
#[derive(Debug, Default)]
pub struct ParamsPool {
    inner: Mutex<Interned>,
}

#[derive(Debug, Default)]
struct Interned {
    by_key: HashMap<u64, Vec<Weak<GenerateParams>>>,
    requests: u64,
    /// Entries at which the dead ones are swept out next.
    sweep_at: usize,
}

/// What a pool has done.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ParamsReport {
    /// Different parameters in use.
    pub unique: usize,
    /// Times that parameters were asked for.
    pub requests_total: u64,
}

impl ParamsPool {
    /// An empty pool.
    pub fn new() -> Self {
        Self::default()
    }

    /// The shared value equal to `params`.
    pub fn intern(&self, params: GenerateParams) -> Arc<GenerateParams> {
        let mut inner = lock(&self.inner);
        inner.requests += 1;
        if inner.by_key.len() >= inner.sweep_at.max(64) {
            inner.sweep();
        }
        let known = inner.by_key.entry(params.key()).or_default();
        known.retain(|entry| entry.strong_count() > 0);
        let equal = known.iter().filter_map(Weak::upgrade);
        if let Some(shared) = equal.into_iter().find(|entry| **entry == params) {
            return shared;
        }
        let shared = Arc::new(params);
        known.push(Arc::downgrade(&shared));
        shared
    }

    /// What it holds now.
    pub fn report(&self) -> ParamsReport {
        let inner = lock(&self.inner);
        let entries = inner.by_key.values().flatten();
        ParamsReport {
            unique: entries.filter(|entry| entry.strong_count() > 0).count(),
            requests_total: inner.requests,
        }
    }
}

impl Interned {
    fn sweep(&mut self) {
        self.by_key.retain(|_, entries| {
            entries.retain(|entry| entry.strong_count() > 0);
            !entries.is_empty()
        });
        self.sweep_at = 2 * self.by_key.len();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_parameters_share_one_value_while_in_use() {
        let pool = ParamsPool::new();
        let warm = || {
            GenerateParams::from(SamplingParams {
                temperature: 0.7,
                ..Default::default()
            })
        };
        let (a, b) = (pool.intern(warm()), pool.intern(warm()));
        assert!(Arc::ptr_eq(&a, &b));
        let c = pool.intern(GenerateParams::default());
        assert!(!Arc::ptr_eq(&a, &c));
        let report = pool.report();
        assert_eq!((report.unique, report.requests_total), (2, 3));
        drop((a, b));
        assert_eq!(pool.report().unique, 1);
        for seed in 0..1000 {
            let sampling = SamplingParams {
                seed,
                ..Default::default()
            };
            drop(pool.intern(sampling.into()));
        }
        assert!(lock(&pool.inner).by_key.len() <= 64, "the dead are swept");
    }

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
