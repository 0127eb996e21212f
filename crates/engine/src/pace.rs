//! How many tokens of prompts a step may take, so that no step keeps others waiting for long.

use std::time::Duration;

/// A step with prompt tokens is to take so long at most: what a cancelled request, or the next
/// token of another, may have to wait.
const STEP_LONGEST: Duration = Duration::from_millis(100);
/// Fewer tokens are not worth a pass over the weights; with as many, a token costs hardly more than
/// among hundreds (qwen3-0.6b Q4_K_M on two cores: 8 ms at 16, 7 ms at 128).
const TOKENS_MIN: usize = 16;

/// Learns from the steps measured how many tokens fit.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    tokens: f64,
    /// What a step can hold.
    holds: usize,
    /// What it may take: less while memory is short.
    most: usize,
}

impl Pace {
    /// Starts with the fewest: nothing is known yet, and a large model takes long over many. `most`
    /// is what a step can hold.
    pub(crate) fn new(most: usize) -> Self {
        Self {
            tokens: TOKENS_MIN.min(most) as f64,
            holds: most,
            most,
        }
    }

    /// Tokens of prompts for the next step.
    pub(crate) fn tokens(&self) -> usize {
        (self.tokens as usize).clamp(TOKENS_MIN.min(self.most), self.most)
    }

    /// A step may take half as many from now on; `None` where it takes the fewest already.
    pub(crate) fn shorten(&mut self) -> Option<usize> {
        let half = (self.most / 2).max(TOKENS_MIN.min(self.holds));
        let shorter = half < self.most;
        self.most = half;
        self.tokens = self.tokens.min(half as f64);
        shorter.then_some(half)
    }

    /// A step may take all that it can hold again.
    pub(crate) fn lengthen(&mut self) {
        self.most = self.holds;
    }

    /// A step took `time` with so many prompt tokens.
    pub(crate) fn observe(&mut self, tokens: usize, time: Duration) {
        if tokens < TOKENS_MIN.min(self.most) {
            // Too few tokens: the step's time says nothing about theirs.
            return;
        }
        let share = STEP_LONGEST.as_secs_f64() / time.as_secs_f64().max(1e-6);
        let fit = tokens as f64 * share;
        // Down at once, twice as many at most: one fast step may be luck.
        let next = fit.min(self.tokens * 2.0);
        // A short piece that was fast does not lower what a full one may be.
        let next = if share >= 1.0 {
            next.max(self.tokens)
        } else {
            next
        };
        self.tokens = next.clamp(TOKENS_MIN.min(self.most) as f64, self.most as f64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settles_where_a_step_takes_its_time() {
        for per_token in [1e-5, 1e-4, 1e-3, 1e-2] {
            let mut pace = Pace::new(512);
            for _ in 0..30 {
                let tokens = pace.tokens();
                pace.observe(
                    tokens,
                    Duration::from_secs_f64(0.002 + per_token * tokens as f64),
                );
            }
            let time = 0.002 + per_token * pace.tokens() as f64;
            let settled = pace.tokens();
            assert!(
                (time > 0.08 && time <= 0.105) || settled == 512 || settled == TOKENS_MIN,
                "{per_token}: {settled} tokens in {time}"
            );
        }
    }

    #[test]
    fn pieces_are_shortened_to_the_fewest_and_lengthened_again() {
        let mut pace = Pace::new(100);
        (0..20).for_each(|_| pace.observe(pace.tokens(), Duration::from_millis(1)));
        assert_eq!(pace.tokens(), 100);
        let pieces = [Some(50), Some(25), Some(16), None, None];
        assert_eq!(pieces.map(|_| pace.shorten()), pieces);
        assert_eq!(pace.tokens(), 16);
        pace.lengthen();
        (0..20).for_each(|_| pace.observe(pace.tokens(), Duration::from_millis(1)));
        assert_eq!(pace.tokens(), 100);
        assert_eq!(Pace::new(4).shorten(), None);
    }

    #[test]
    fn small_batches_are_taken_whole() {
        let mut pace = Pace::new(4);
        assert_eq!(pace.tokens(), 4);
        pace.observe(4, Duration::from_secs(1));
        assert_eq!(pace.tokens(), 4);
    }
}
