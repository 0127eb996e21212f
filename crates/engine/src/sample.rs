//! From logits to the next token.
//!
//! Temperature first, then top-k, top-p and min-p, as vLLM orders them; bias and penalties before all
//! of them. Every choice is a pure function of the logits, the parameters, the tokens so far and their
//! number: the same seed gives the same text whatever else runs. Ties go to the lower id.

use std::cmp::Ordering;

use crate::params::GenerateParams;

/// How to choose.
#[derive(Clone, Debug, PartialEq)]
pub struct SamplingParams {
    /// Divides the logits; 0 takes the most likely token always.
    pub temperature: f32,
    /// Keep the `k` most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keep the smallest set of most likely tokens whose probabilities reach this; 1 keeps all.
    pub top_p: f32,
    /// Keep tokens at least this share as likely as the most likely one; 0 keeps all.
    pub min_p: f32,
}

impl Default for SamplingParams {
    /// Greedy.
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
        }
    }
}

/// A parameter out of its range.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("{name} is {got}; it must be {want}")]
pub struct SamplingError {
    /// The parameter.
    pub name: &'static str,
    /// What was given.
    pub got: f32,
    /// What is allowed.
    pub want: &'static str,
}

impl SamplingParams {
    /// Checks every range; NaN is in none.
    pub fn check(&self) -> Result<(), SamplingError> {
        let within = |name, got: f32, low: f32, high: f32, want| {
            if got >= low && got <= high {
                Ok(())
            } else {
                Err(SamplingError { name, got, want })
            }
        };
        within(
            "temperature",
            self.temperature,
            0.0,
            100.0,
            "between 0 and 100",
        )?;
        within(
            "top-p",
            self.top_p,
            f32::MIN_POSITIVE,
            1.0,
            "above 0 and at most 1",
        )?;
        within("min-p", self.min_p, 0.0, 1.0, "between 0 and 1")
    }
}

/// A sampler with its candidate list, sized once for a vocabulary.
#[derive(Debug)]
pub struct Sampler {
    candidates: Vec<(u32, f32)>,
    /// A bit per token, all zero between calls.
    seen: Vec<u64>,
}

/// The tokens so far, as penalties see them.
#[derive(Copy, Clone, Debug, Default)]
pub struct History<'a> {
    /// Of the prompt.
    pub prompt: &'a [u32],
    /// Of the answer.
    pub generated: &'a [u32],
}

/// What stands for the log-probability of a token that cannot be chosen at all: JSON has no infinity.
const LOGPROB_LEAST: f32 = -9999.0;

impl Sampler {
    /// A sampler for `vocab` tokens.
    pub fn new(vocab: usize) -> Self {
        Self {
            candidates: Vec::with_capacity(vocab),
            seen: vec![0; vocab.div_ceil(64)],
        }
    }

    /// Bytes that a sampler for `vocab` tokens holds.
    pub fn bytes(vocab: usize) -> usize {
        vocab * size_of::<(u32, f32)>() + vocab.div_ceil(64) * size_of::<u64>()
    }

    /// The token after `history`, from its logits; none of `never`. Random numbers are made from `seed`.
    pub fn choose(
        &mut self,
        logits: &[f32],
        params: &GenerateParams,
        seed: u64,
        history: History<'_>,
        never: &[&[u32]],
    ) -> u32 {
        let index = history.generated.len() as u64;
        if params.leaves_logits() && never.iter().all(|tokens| tokens.is_empty()) {
            return self.sample(logits, &params.sampling, seed, index);
        }
        self.candidates.clear();
        self.candidates.extend((0u32..).zip(logits.iter().copied()));
        self.adjust(params, history, never);
        if params.sampling.temperature == 0.0 {
            let best = self.candidates.iter().copied().min_by(by_likelihood);
            return best.map_or(0, |(token, _)| token);
        }
        self.draw(&params.sampling, seed, index)
    }

    /// Bias, tokens that are out of the question, then penalties; the candidates are in order of
    /// their ids.
    fn adjust(&mut self, params: &GenerateParams, history: History<'_>, never: &[&[u32]]) {
        let Self { candidates, seen } = self;
        for &(token, bias) in &params.logit_bias {
            if let Some((_, logit)) = candidates.get_mut(token as usize) {
                *logit += bias;
            }
        }
        for &token in never.iter().copied().flatten() {
            if let Some((_, logit)) = candidates.get_mut(token as usize) {
                *logit = f32::NEG_INFINITY;
            }
        }
        let penalties = params.penalties;
        if penalties.none() {
            return;
        }
        let History { prompt, generated } = history;
        let all = || prompt.iter().chain(generated).copied();
        for token in all() {
            if let Some((_, logit)) = candidates.get_mut(token as usize)
                && first(seen, token)
            {
                *logit = if *logit > 0.0 {
                    *logit / penalties.repetition
                } else {
                    *logit * penalties.repetition
                };
            }
        }
        all().for_each(|token| clear(seen, token));
        for &token in generated {
            if let Some((_, logit)) = candidates.get_mut(token as usize) {
                if first(seen, token) {
                    *logit -= penalties.presence;
                }
                *logit -= penalties.frequency;
            }
        }
        all().for_each(|token| clear(seen, token));
    }

    /// The log-probability of `token` under the plain softmax of `logits`, and the `top` most likely
    /// tokens with theirs, best first, which are appended to `best`.
    pub fn logprobs(
        &mut self,
        logits: &[f32],
        token: u32,
        top: usize,
        best: &mut Vec<(u32, f32)>,
    ) -> f32 {
        let largest = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = logits
            .iter()
            .map(|&logit| f64::from(logit - largest).exp())
            .filter(|weight| !weight.is_nan())
            .sum();
        let logprob = |logit: f32| {
            let value = (f64::from(logit - largest) - sum.ln()) as f32;
            if value.is_finite() {
                value
            } else {
                LOGPROB_LEAST
            }
        };
        let own = logits
            .get(token as usize)
            .map_or(LOGPROB_LEAST, |&l| logprob(l));
        let top = top.min(logits.len());
        if top == 0 {
            return own;
        }
        let candidates = &mut self.candidates;
        candidates.clear();
        candidates.extend((0u32..).zip(logits.iter().copied()));
        candidates.select_nth_unstable_by(top - 1, by_likelihood);
        candidates.truncate(top);
        candidates.sort_unstable_by(by_likelihood);
        best.extend(candidates.iter().map(|&(token, l)| (token, logprob(l))));
        own
    }

    /// The token after `index` generated ones, from its logits. Random numbers are made from `seed`.
    pub fn sample(
        &mut self,
        logits: &[f32],
        params: &SamplingParams,
        seed: u64,
        index: u64,
    ) -> u32 {
        if params.temperature == 0.0 {
            return argmax(logits);
        }
        self.candidates.clear();
        self.candidates.extend((0u32..).zip(logits.iter().copied()));
        self.draw(params, seed, index)
    }

    /// Draws one of the candidates; the temperature is not 0.
    fn draw(&mut self, params: &SamplingParams, seed: u64, index: u64) -> u32 {
        let candidates = &mut self.candidates;
        if params.top_k > 0 && params.top_k < candidates.len() {
            candidates.select_nth_unstable_by(params.top_k - 1, by_likelihood);
            candidates.truncate(params.top_k);
        }
        candidates.sort_unstable_by(by_likelihood);

        let Some(&(_, best)) = candidates.first() else {
            return 0;
        };
        let mut sum = 0.0f32;
        for (_, value) in candidates.iter_mut() {
            *value = ((*value - best) / params.temperature).exp();
            sum += *value;
        }
        let mut kept = 0.0f32;
        let mut keep = 0;
        for &(_, weight) in candidates.iter() {
            // Relative to the best, whose weight is exactly 1.
            if keep > 0 && (weight < params.min_p || kept >= params.top_p * sum) {
                break;
            }
            kept += weight;
            keep += 1;
        }
        candidates.truncate(keep);

        let mut left = uniform(seed, index) * kept;
        for &(token, weight) in candidates.iter() {
            left -= weight;
            if left < 0.0 {
                return token;
            }
        }
        candidates.last().map_or(0, |&(token, _)| token)
    }
}

/// The index of the largest value, the lowest among equals; NaN never wins.
pub fn argmax(logits: &[f32]) -> u32 {
    let mut best = (0u32, f32::NEG_INFINITY);
    for (token, &value) in (0u32..).zip(logits) {
        if value > best.1 {
            best = (token, value);
        }
    }
    best.0
}

fn by_likelihood(a: &(u32, f32), b: &(u32, f32)) -> Ordering {
    // NaN last: a broken logit must not be chosen, nor panic the sort.
    let value = |x: f32| if x.is_nan() { f32::NEG_INFINITY } else { x };
    value(b.1).total_cmp(&value(a.1)).then(a.0.cmp(&b.0))
}

/// Marks a token, which is in the vocabulary; whether it was not marked yet.
fn first(seen: &mut [u64], token: u32) -> bool {
    let (word, bit) = (token as usize / 64, 1u64 << (token % 64));
    let before = seen[word];
    seen[word] |= bit;
    before & bit == 0
}

fn clear(seen: &mut [u64], token: u32) {
    if let Some(word) = seen.get_mut(token as usize / 64) {
        *word &= !(1u64 << (token % 64));
    }
}

/// A number in [0, 1) for a seed and an index: SplitMix64 (Steele et al. 2014) as a hash, so that
/// no state has to be kept or restored.
fn uniform(seed: u64, index: u64) -> f32 {
    let mut z = seed.wrapping_add(index.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^= z >> 31;
    (z >> 40) as f32 / (1u64 << 24) as f32
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(logits: &[f32], params: &SamplingParams, seed: u64, n: u64) -> Vec<usize> {
        let mut sampler = Sampler::new(logits.len());
        let mut counts = vec![0; logits.len()];
        for index in 0..n {
            counts[sampler.sample(logits, params, seed, index) as usize] += 1;
        }
        counts
    }

    #[test]
    fn greedy_takes_the_first_of_equals_and_never_nan() {
        assert_eq!(argmax(&[1.0, 3.0, 3.0, f32::NAN]), 1);
        assert_eq!(
            counts(&[1.0, 3.0, 3.0], &SamplingParams::default(), 0, 5),
            [0, 5, 0]
        );
    }

    #[test]
    fn frequencies_follow_the_softmax() {
        let logits = [0.0, 1.0, 2.0, -1.0];
        let params = SamplingParams {
            temperature: 1.0,
            ..Default::default()
        };
        let sum: f32 = logits.iter().map(|l: &f32| l.exp()).sum();
        let n = 40_000;
        for (count, logit) in counts(&logits, &params, 7, n).iter().zip(logits) {
            let want = logit.exp() / sum;
            let got = *count as f32 / n as f32;
            assert!((got - want).abs() < 0.01, "{got} {want}");
        }
    }

    #[test]
    fn each_filter_keeps_what_it_says() {
        let logits = [0.0f32, 1.0, 2.0, -1.0];
        let base = SamplingParams {
            temperature: 1.0,
            ..Default::default()
        };
        let kept = |params: &SamplingParams| {
            counts(&logits, params, 3, 4000)
                .iter()
                .map(|&c| c > 0)
                .collect::<Vec<_>>()
        };
        let top_k = SamplingParams {
            top_k: 2,
            ..base.clone()
        };
        assert_eq!(kept(&top_k), [false, true, true, false]);
        // Probabilities 0.64, 0.24, 0.09, 0.03: two tokens reach 0.8.
        let top_p = SamplingParams {
            top_p: 0.8,
            ..base.clone()
        };
        assert_eq!(kept(&top_p), [false, true, true, false]);
        let min_p = SamplingParams {
            min_p: 0.2,
            ..base.clone()
        };
        assert_eq!(kept(&min_p), [false, true, true, false]);
        let tiny = SamplingParams {
            top_p: f32::MIN_POSITIVE,
            ..base
        };
        assert_eq!(kept(&tiny), [false, false, true, false]);
    }

    #[test]
    fn the_same_seed_and_index_choose_the_same_token() {
        let logits: Vec<f32> = (0..100).map(|i| ((i * 37) % 11) as f32 / 5.0).collect();
        let params = SamplingParams {
            temperature: 0.8,
            top_p: 0.9,
            ..Default::default()
        };
        let mut a = Sampler::new(100);
        let first: Vec<u32> = (0..50).map(|i| a.sample(&logits, &params, 42, i)).collect();
        let mut b = Sampler::new(100);
        for index in (0..50).rev() {
            assert_eq!(b.sample(&logits, &params, 42, index), first[index as usize]);
        }
    }

    /// Bias, exclusions and penalties as their definitions say, one token of the vocabulary at a
    /// time.
    fn adjusted(
        logits: &[f32],
        params: &GenerateParams,
        history: History<'_>,
        never: &[u32],
    ) -> Vec<f32> {
        let adjust = |(token, &logit): (u32, &f32)| {
            let count = |tokens: &[u32]| tokens.iter().filter(|&&t| t == token).count();
            let mut logit = logit;
            for (_, bias) in params.logit_bias.iter().filter(|(t, _)| *t == token) {
                logit += bias;
            }
            if never.contains(&token) {
                return f32::NEG_INFINITY;
            }
            let generated = count(history.generated);
            if generated + count(history.prompt) > 0 {
                logit = match logit > 0.0 {
                    true => logit / params.penalties.repetition,
                    false => logit * params.penalties.repetition,
                };
            }
            if generated > 0 {
                logit -= params.penalties.presence;
                (0..generated).for_each(|_| logit -= params.penalties.frequency);
            }
            logit
        };
        (0u32..).zip(logits).map(adjust).collect()
    }

    #[test]
    fn penalties_and_bias_do_what_their_definitions_say() {
        let mut random = 1u64;
        let mut below = |bound: u64| {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (random >> 33) % bound
        };
        let mut sampler = Sampler::new(70);
        for round in 0..300 {
            let logits: Vec<f32> = (0..70).map(|_| below(90) as f32 / 10.0 - 4.0).collect();
            let mut tokens =
                |most: u64| -> Vec<u32> { (0..below(most)).map(|_| below(75) as u32).collect() };
            // Prompts may hold ids that have no logit; they must disturb nothing.
            let (prompt, generated, never) = (tokens(40), tokens(40), tokens(5));
            let mut params = GenerateParams {
                logit_bias: vec![(below(70) as u32, 3.0), (below(70) as u32, -3.0)],
                ..GenerateParams::default()
            };
            params.penalties.presence = below(5) as f32 / 2.0 - 1.0;
            params.penalties.frequency = below(5) as f32 / 2.0 - 1.0;
            params.penalties.repetition = 0.8 + below(5) as f32 / 10.0;
            if round % 2 == 0 {
                params.sampling.temperature = 0.7;
            }
            let history = History {
                prompt: &prompt,
                generated: &generated,
            };
            let want = adjusted(&logits, &params, history, &never);
            let got = sampler.choose(&logits, &params, round, history, &[&never]);
            let index = generated.len() as u64;
            assert_eq!(got, sampler.sample(&want, &params.sampling, round, index));
            assert!(sampler.seen.iter().all(|word| *word == 0));
        }
    }

    #[test]
    fn log_probabilities_sum_to_one_and_stay_finite() {
        let logits = [2.0, -1.0, 0.5, f32::NEG_INFINITY];
        let mut sampler = Sampler::new(4);
        let mut all = Vec::new();
        let own = sampler.logprobs(&logits, 2, 10, &mut all);
        assert_eq!(all.iter().map(|t| t.0).collect::<Vec<_>>(), [0, 2, 1, 3]);
        assert_eq!(own, all[1].1);
        let sum: f32 = all.iter().map(|t| t.1.exp()).sum();
        assert!((sum - 1.0).abs() < 1e-6);
        assert_eq!(all[3].1, LOGPROB_LEAST);
        let own = sampler.logprobs(&[f32::NAN, 1.0], 0, 2, &mut all);
        assert!(own.is_finite());
    }

    #[test]
    fn ranges_are_checked() {
        let bad = |params: SamplingParams| params.check().expect_err("out of range").name;
        let base = SamplingParams::default();
        assert_eq!(
            bad(SamplingParams {
                temperature: f32::NAN,
                ..base.clone()
            }),
            "temperature"
        );
        assert_eq!(
            bad(SamplingParams {
                top_p: 0.0,
                ..base.clone()
            }),
            "top-p"
        );
        assert_eq!(
            bad(SamplingParams {
                min_p: 1.5,
                ..base.clone()
            }),
            "min-p"
        );
        assert_eq!(base.check(), Ok(()));
    }
}
