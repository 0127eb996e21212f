//! How fast requests have been answered over the last minute, from counters and histograms that are
//! there anyway.
//!
//! Models come and go, and their counts with them: what each has counted is added up here every few
//! seconds, so that sums never fall. What a model counts between the last look at it and its end is
//! lost to them.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use bursar_engine::{ModelStatus, Purpose};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::app::lock;
use crate::served::Served;
use crate::timings::{BUCKETS, Histogram};

/// What rates are told of.
const WINDOW: Duration = Duration::from_secs(60);
/// Sums that are kept: one for every tick of the window, and one from before it.
const KEPT: usize = 13;

/// Counts of one model, or of all.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counted {
    pub(crate) requests: u64,
    /// Tokens of prompts computed.
    pub(crate) tokens_in: u64,
    /// Tokens generated.
    pub(crate) tokens_out: u64,
    pub(crate) vectors: u64,
    /// From a request's arrival to its first token.
    first_token: Counts,
    /// Between two tokens of an answer.
    between_tokens: Counts,
}

/// Counts of times, by bucket.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
struct Counts([u64; BUCKETS]);

impl Counts {
    fn of(histogram: &Histogram) -> Counts {
        let mut counts = Counts::default();
        for (count, (_, found)) in counts.0.iter_mut().zip(histogram.buckets()) {
            *count = found;
        }
        counts
    }

    fn each(self, other: Counts, of: fn(u64, u64) -> u64) -> Counts {
        let mut counts = self;
        for (count, other) in counts.0.iter_mut().zip(other.0) {
            *count = of(*count, other);
        }
        counts
    }

    /// What a share of the times does not pass, in seconds, as if those of a bucket lay evenly in it.
    fn quantile(&self, bounds_us: &[u64], share: f64) -> Option<f64> {
        let all: u64 = self.0.iter().sum();
        let wanted = share * all as f64;
        let mut before = 0.0;
        let mut floor = 0;
        for (count, bound) in self.0.iter().zip(bounds_us) {
            let count = *count as f64;
            if count > 0.0 && before + count >= wanted {
                let part = (wanted - before) / count;
                return Some((floor as f64 + part * (bound - floor) as f64) / 1e6);
            }
            before += count;
            floor = *bound;
        }
        // Those of the last bucket are longer than all bounds: so long at least.
        (all > 0).then_some(floor as f64 / 1e6)
    }

    fn seconds(&self, share: f64) -> Option<f64> {
        self.quantile(Histogram::time_bounds_us(), share)
    }

    fn report(&self) -> Value {
        json!({
            "count": self.0.iter().sum::<u64>(),
            "p50": self.seconds(0.5),
            "p95": self.seconds(0.95),
        })
    }
}

impl Counted {
    fn of(served: &Served) -> Counted {
        let totals = served.engine.snapshot().totals;
        let (tokens_out, vectors) = match served.engine.purpose() {
            Purpose::Generate => (totals.outputs, 0),
            Purpose::Embed => (0, totals.outputs),
        };
        Counted {
            requests: totals.requests,
            tokens_in: totals.prefill_tokens,
            tokens_out,
            vectors,
            first_token: Counts::of(&served.timings.first_token),
            between_tokens: Counts::of(&served.timings.between_tokens),
        }
    }

    fn each(self, other: Counted, of: fn(u64, u64) -> u64) -> Counted {
        Counted {
            requests: of(self.requests, other.requests),
            tokens_in: of(self.tokens_in, other.tokens_in),
            tokens_out: of(self.tokens_out, other.tokens_out),
            vectors: of(self.vectors, other.vectors),
            first_token: self.first_token.each(other.first_token, of),
            between_tokens: self.between_tokens.each(other.between_tokens, of),
        }
    }
}

/// What there is to be kept of a moment.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Moment {
    pub(crate) sum: Counted,
    /// Medians of the last minute, in seconds.
    pub(crate) first_token: Option<f64>,
    pub(crate) between_tokens: Option<f64>,
}

/// Sums over all models, and what they were within the last minute.
#[derive(Debug, Default)]
pub(crate) struct Rates(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// What was last counted of a model, and of which of its loads.
    models: BTreeMap<String, (u64, Counted)>,
    sum: Counted,
    past: VecDeque<(Instant, Counted)>,
}

impl State {
    fn look(&mut self, status: &[ModelStatus<Served>]) {
        let there = status.iter().filter_map(|status| {
            let served = status.model.as_deref()?;
            Some((status.id.as_str(), status.loads, Counted::of(served)))
        });
        self.count(there);
    }

    /// Adds what models have counted since the last look.
    fn count<'a>(&mut self, found: impl Iterator<Item = (&'a str, u64, Counted)>) {
        let mut models = BTreeMap::new();
        for (id, loads, counted) in found {
            let before = self.models.get(id).filter(|before| before.0 == loads);
            let before = before.map_or(Counted::default(), |(_, counted)| *counted);
            let more = counted.each(before, u64::saturating_sub);
            self.sum = self.sum.each(more, u64::saturating_add);
            models.insert(id.to_owned(), (loads, counted));
        }
        self.models = models;
    }

    fn keep(&mut self, now: Instant) {
        if self.past.len() == KEPT {
            self.past.pop_front();
        }
        self.past.push_back((now, self.sum));
    }

    /// What was counted within the window, and how many seconds that is.
    fn window(&self, now: Instant) -> (Counted, f64) {
        let within = |(at, _): &&(Instant, Counted)| now - *at <= WINDOW;
        let first = self.past.iter().find(within);
        let (seconds, before) = first.map_or((0.0, self.sum), |(at, sum)| {
            ((now - *at).as_secs_f64(), *sum)
        });
        (self.sum.each(before, u64::saturating_sub), seconds)
    }

    fn report(&self, now: Instant) -> Value {
        let (found, seconds) = self.window(now);
        let rate = |count: u64| match seconds {
            seconds if seconds > 0.0 => count as f64 / seconds,
            _ => 0.0,
        };
        json!({
            "window_seconds": seconds,
            "requests_per_second": rate(found.requests),
            "tokens_in_per_second": rate(found.tokens_in),
            "tokens_out_per_second": rate(found.tokens_out),
            "vectors_per_second": rate(found.vectors),
            "first_token_seconds": found.first_token.report(),
            "between_tokens_seconds": found.between_tokens.report(),
            "requests_total": self.sum.requests,
            "tokens_in_total": self.sum.tokens_in,
            "tokens_out_total": self.sum.tokens_out,
            "vectors_total": self.sum.vectors,
        })
    }
}

impl Rates {
    /// Looks at all models, and keeps the sums as a moment of the window.
    pub(crate) fn tick(&self, status: &[ModelStatus<Served>]) -> Moment {
        let mut state = lock(&self.0);
        let now = Instant::now();
        state.look(status);
        let (found, _) = state.window(now);
        state.keep(now);
        Moment {
            sum: state.sum,
            first_token: found.first_token.seconds(0.5),
            between_tokens: found.between_tokens.seconds(0.5),
        }
    }

    /// Rates over the last minute, or since the server began.
    pub(crate) fn report(&self, status: &[ModelStatus<Served>]) -> Value {
        let mut state = lock(&self.0);
        state.look(status);
        state.report(Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(requests: u64) -> Counted {
        Counted {
            requests,
            tokens_out: 10 * requests,
            ..Counted::default()
        }
    }

    #[test]
    fn sums_never_fall_though_models_go() {
        let mut state = State::default();
        state.count([("a", 1, counted(5)), ("b", 1, counted(2))].into_iter());
        state.count([("a", 1, counted(6))].into_iter());
        assert_eq!(state.sum, counted(8));
        // Loaded again, it counts from the start.
        state.count([("a", 2, counted(3)), ("b", 2, counted(1))].into_iter());
        assert_eq!(state.sum, counted(12));
    }

    #[test]
    fn rates_are_those_of_the_last_minute() {
        let start = Instant::now();
        let mut state = State::default();
        assert_eq!(state.report(start)["tokens_out_per_second"], 0.0);
        for second in (0..=120).step_by(5) {
            state.count([("a", 1, counted(second))].into_iter());
            state.keep(start + Duration::from_secs(second));
        }
        assert_eq!(state.past.len(), KEPT);
        let told = state.report(start + Duration::from_secs(120));
        assert_eq!(told["window_seconds"], 60.0);
        assert_eq!(told["requests_per_second"], 1.0);
        assert_eq!(told["tokens_out_per_second"], 10.0);
        assert_eq!(told["tokens_out_total"], 1200);
    }

    #[test]
    fn quantiles_lie_within_their_buckets() {
        let bounds = [1000, 2000, 4000];
        let mut counts = Counts::default();
        assert_eq!(counts.quantile(&bounds, 0.5), None);
        counts.0[..3].copy_from_slice(&[2, 6, 2]);
        assert_eq!(counts.quantile(&bounds, 0.5), Some(0.0015));
        assert_eq!(counts.quantile(&bounds, 1.0), Some(0.004));
        let mut long = Counts::default();
        long.0[BUCKETS - 1] = 1;
        assert_eq!(long.quantile(&bounds, 0.5), Some(0.004));
    }
}
