//! Which texts make up a batch, decided from their lengths alone: no padding, no text ever split, and
//! never more tokens or blocks than the plan gave bytes for. The command line's `Embedder` and the
//! server's `Embedding` pack by the same rules.
//!
//! A request's texts stand in order of their lengths, the longest first, window by window; a batch
//! takes the longest that still fits, so that little room is left over and texts that are alike run
//! together. The oldest request has a text in every batch, the others follow by turns: so all end, and
//! a request of one text does not wait for one of thousands.

use std::collections::VecDeque;

use bursar_model::ModelPlan;

use crate::options::BatchOptions;

/// Texts of a request among which the next are chosen.
const WINDOW: usize = 1024;

/// What one batch may hold.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct PackLimits {
    /// Rows that the arena was planned for.
    pub(crate) tokens: usize,
    /// Blocks of the batch's own keys and values that it was planned for; each text takes whole ones.
    pub(crate) blocks: usize,
    /// Tokens of a block.
    pub(crate) block_tokens: usize,
    /// Tokens that are computed in the time that others may wait.
    pub(crate) tokens_in_time: usize,
    /// Texts that are taken even if that takes longer.
    pub(crate) texts_min: usize,
    /// Most texts.
    pub(crate) texts_max: usize,
}

impl PackLimits {
    /// What a model's plan and the options allow, in batches of `tokens_in_time` at most.
    pub(crate) fn new(plan: &ModelPlan, options: &BatchOptions, tokens_in_time: usize) -> Self {
        Self {
            tokens: plan.options().batch_tokens,
            blocks: plan.scratch_blocks(),
            block_tokens: plan.kv().block_tokens(),
            tokens_in_time,
            texts_min: options.texts_min,
            texts_max: options.texts_max.unwrap_or(usize::MAX),
        }
    }
}

/// One text of a request.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Entry {
    /// Which of the request's texts.
    text: u32,
    /// Its length.
    tokens: u32,
}

/// The texts of a request that are still to be embedded.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pending {
    entries: VecDeque<Entry>,
    /// How many of the first are in order of their lengths and chosen from.
    window: usize,
}

impl AsMut<Pending> for Pending {
    fn as_mut(&mut self) -> &mut Pending {
        self
    }
}

/// A text chosen: of which request, and which of its texts.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pick {
    pub(crate) request: usize,
    pub(crate) text: usize,
}

/// What is still free of a batch.
struct Room {
    limits: PackLimits,
    tokens: usize,
    blocks: usize,
    texts: usize,
}

impl Room {
    /// Tokens of the longest text that still fits; `None` if none does.
    fn longest(&self) -> Option<usize> {
        let limits = &self.limits;
        if self.texts >= limits.texts_max.max(1) {
            return None;
        }
        let blocks = limits.blocks - self.blocks;
        let mut most =
            (limits.tokens - self.tokens).min(blocks.saturating_mul(limits.block_tokens));
        if self.texts >= limits.texts_min {
            most = most.min(limits.tokens_in_time.saturating_sub(self.tokens));
        }
        (most > 0).then_some(most)
    }

    fn take(&mut self, tokens: usize) {
        self.tokens += tokens;
        self.blocks += tokens.div_ceil(self.limits.block_tokens);
        self.texts += 1;
    }
}

impl Pending {
    /// Texts of these lengths.
    pub(crate) fn new(lengths: impl IntoIterator<Item = usize>) -> Pending {
        let entries = lengths.into_iter().enumerate().map(|(text, tokens)| Entry {
            // Ids and lengths are counts of things in memory, far below 2^32.
            text: text as u32,
            tokens: tokens as u32,
        });
        let mut pending = Pending {
            entries: entries.collect(),
            window: 0,
        };
        pending.refill();
        pending
    }

    /// Texts left.
    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Opens the next window once the last is used up.
    fn refill(&mut self) {
        if self.window > 0 {
            return;
        }
        self.window = self.entries.len().min(WINDOW);
        let entries = self.entries.make_contiguous();
        // Texts of one length stay in their order; in place, since a batch is waited for.
        entries[..self.window]
            .sort_unstable_by_key(|entry| (std::cmp::Reverse(entry.tokens), entry.text));
    }

    /// Takes the longest text of the window that has at most so many tokens.
    fn take(&mut self, most: usize) -> Option<Entry> {
        let (first, second) = self.entries.as_slices();
        let in_first = first.len().min(self.window);
        let too_long = |entry: &Entry| entry.tokens as usize > most;
        let mut at = first[..in_first].partition_point(too_long);
        if at == in_first {
            at += second[..self.window - in_first].partition_point(too_long);
        }
        if at >= self.window {
            return None;
        }
        let entry = self.entries.remove(at);
        self.window -= 1;
        self.refill();
        entry
    }

    /// Takes the first text, whatever its length.
    fn take_first(&mut self) -> Option<Entry> {
        let entry = self.entries.pop_front()?;
        self.window -= 1;
        self.refill();
        Some(entry)
    }
}

/// The next batch, taken out of what is pending of the requests, the oldest first; empty only if
/// nothing is pending. A text that is longer than the limits goes alone. `turn` says who comes after
/// the oldest, and is moved on for the next batch.
pub(crate) fn pack<R: AsMut<Pending>>(
    requests: &mut [R],
    limits: &PackLimits,
    turn: &mut usize,
    picks: &mut Vec<Pick>,
) {
    picks.clear();
    let mut room = Room {
        limits: *limits,
        tokens: 0,
        blocks: 0,
        texts: 0,
    };
    let mut pick = |request: usize, entry: Entry, room: &mut Room| {
        room.take(entry.tokens as usize);
        picks.push(Pick {
            request,
            text: entry.text as usize,
        });
    };
    let mut left = requests.iter_mut();
    let Some(oldest) = left.position(|request| !request.as_mut().is_empty()) else {
        return;
    };
    if let Some(entry) = requests[oldest].as_mut().take_first() {
        if entry.tokens as usize > limits.tokens {
            pick(oldest, entry, &mut room);
            return;
        }
        pick(oldest, entry, &mut room);
    }
    // Rounds of one text each, until nobody has one that fits.
    let count = requests.len();
    let mut refused = 0;
    let mut next = *turn % count;
    while refused < count {
        let Some(most) = room.longest() else { break };
        match requests[next].as_mut().take(most) {
            Some(entry) => {
                pick(next, entry, &mut room);
                refused = 0;
            }
            None => refused += 1,
        }
        next = (next + 1) % count;
    }
    *turn = next;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a batch takes: tokens, blocks, texts.
    fn sizes(picks: &[Pick], lengths: &[Vec<usize>], block: usize) -> (usize, usize, usize) {
        let tokens = picks.iter().map(|pick| lengths[pick.request][pick.text]);
        let blocks = tokens.clone().map(|n| n.div_ceil(block)).sum();
        (tokens.sum(), blocks, picks.len())
    }

    struct Draw(u64);

    impl Draw {
        fn below(&mut self, bound: usize) -> usize {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            ((self.0 >> 33) % bound.max(1) as u64) as usize
        }
    }

    fn limits(tokens: usize) -> PackLimits {
        PackLimits {
            tokens,
            blocks: tokens.div_ceil(16),
            block_tokens: 16,
            tokens_in_time: usize::MAX,
            texts_min: 1,
            texts_max: usize::MAX,
        }
    }

    fn all_batches(lengths: &[Vec<usize>], limits: &PackLimits) -> Vec<Vec<Pick>> {
        let mut pending: Vec<Pending> = lengths
            .iter()
            .map(|texts| Pending::new(texts.iter().copied()))
            .collect();
        let (mut turn, mut picks, mut batches) = (0, Vec::new(), Vec::new());
        loop {
            pack(&mut pending, limits, &mut turn, &mut picks);
            if picks.is_empty() {
                return batches;
            }
            batches.push(picks.clone());
        }
    }

    /// T3: for thousands of seeds: each text once, no batch beyond its limits, none that could have
    /// taken one text more, and the oldest request in all of them.
    #[test]
    fn batches_hold_every_text_once_within_the_limits() {
        for seed in 0..3_000 {
            let mut draw = Draw(seed);
            let tokens = 16 * (1 + draw.below(40));
            let longest = 1 + draw.below(tokens);
            let limits = PackLimits {
                tokens_in_time: match draw.below(3) {
                    0 => usize::MAX,
                    _ => 1 + draw.below(2 * tokens),
                },
                texts_min: 1 + draw.below(4),
                texts_max: 1 + draw.below(40),
                blocks: (tokens / 16) * (1 + draw.below(2)),
                ..limits(tokens)
            };
            let lengths: Vec<Vec<usize>> = (0..draw.below(6))
                .map(|_| {
                    let count = draw.below(60);
                    (0..count).map(|_| 1 + draw.below(longest)).collect()
                })
                .collect();
            let mut left: Vec<Vec<bool>> = lengths
                .iter()
                .map(|texts| vec![true; texts.len()])
                .collect();
            let batches = all_batches(&lengths, &limits);
            for batch in &batches {
                let oldest = left.iter().position(|texts| texts.contains(&true));
                assert_eq!(Some(batch[0].request), oldest, "seed {seed}");
                for pick in batch {
                    let place = &mut left[pick.request][pick.text];
                    assert!(std::mem::take(place), "seed {seed}: {pick:?} twice");
                }
                let (used, blocks, texts) = sizes(batch, &lengths, 16);
                assert!(used <= limits.tokens && blocks <= limits.blocks);
                assert!(texts <= limits.texts_max);
                let in_time = used <= limits.tokens_in_time;
                assert!(in_time || texts <= limits.texts_min.max(1), "seed {seed}");
                // The windows hold all that is left here, so nothing that fits was left out.
                let shortest = lengths.iter().zip(&left).flat_map(|(lengths, left)| {
                    lengths.iter().zip(left).filter(|(_, left)| **left)
                });
                if let Some((&shortest, _)) = shortest.min() {
                    let fits = used + shortest <= limits.tokens
                        && blocks + shortest.div_ceil(16) <= limits.blocks
                        && texts < limits.texts_max
                        && (texts < limits.texts_min || used + shortest <= limits.tokens_in_time);
                    assert!(!fits, "seed {seed}: {shortest} tokens would have fitted");
                }
            }
            assert!(left.iter().flatten().all(|left| !left), "seed {seed}");
        }
    }

    #[test]
    fn a_text_beyond_all_limits_goes_alone() {
        let batches = all_batches(&[vec![40, 8, 8]], &limits(32));
        let texts: Vec<Vec<usize>> = batches
            .iter()
            .map(|batch| batch.iter().map(|pick| pick.text).collect())
            .collect();
        assert_eq!(texts, [vec![0], vec![1, 2]]);
    }

    #[test]
    fn requests_share_batches_by_turns() {
        // A request of one text behind two of hundreds.
        let lengths = [vec![16; 300], vec![16; 300], vec![16]];
        let batches = all_batches(&lengths, &limits(64));
        let first = batches
            .iter()
            .position(|batch| batch.iter().any(|pick| pick.request == 2));
        assert!(first.is_some_and(|first| first <= 1), "{first:?}");
        assert_eq!(batches.len(), 601_usize.div_ceil(4));
        // As many of the second as of the first, but for the one that the oldest has ahead.
        let second = batches[..20]
            .iter()
            .flatten()
            .filter(|pick| pick.request == 1);
        assert!((26..=40).contains(&second.count()));
    }

    #[test]
    fn long_requests_are_sorted_window_by_window() {
        let lengths: Vec<usize> = (0..3 * WINDOW).map(|n| 1 + n % 16).collect();
        let mut latest = 0;
        for batch in all_batches(std::slice::from_ref(&lengths), &limits(256)) {
            for pick in batch {
                let window = pick.text / WINDOW;
                // One batch may end a window and begin the next.
                assert!(window >= latest || latest - window <= 1);
                latest = latest.max(window);
            }
        }
        assert_eq!(latest, 2);
    }
}
