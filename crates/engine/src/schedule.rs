//! Which sequences run in the next step, and how many tokens of each: a pure function of plain data.
//!
//! ```text
//! for each running sequence, most senior first:
//!     take the tokens it can run: one if it is decoding, else a piece of its prompt
//!     while blocks are missing: preempt the most junior running sequence, if junior to this one
//!     run what the blocks hold; nothing if they hold nothing (it keeps its blocks and waits)
//! for each waiting sequence, most senior first, until one does not fit:
//!     let it in if there is a place, and room for it (all of its tokens so far, and a block for
//!     each that runs already; or in `Reserve`, all that it may become);
//!     sequences of lower priority make room for it
//! ```
//!
//! Seniority is priority, then arrival. What follows from the rules, and is tested in `sim`:
//! the most senior running sequence always runs, because it may take the blocks of all others and
//! none is let in that could not fit alone; waiting sequences enter in order of seniority, and none
//! overtakes; so every sequence ends, as long as not ever more come with a higher priority.

use std::cmp::Reverse;

/// Who goes first: higher priority, then earlier arrival.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Seniority {
    /// As the request says.
    pub priority: i32,
    /// Counts arrivals.
    pub order: u64,
}

impl Seniority {
    fn rank(self) -> (Reverse<i32>, u64) {
        (Reverse(self.priority), self.order)
    }

    /// Whether this one goes before another.
    pub fn before(self, other: Self) -> bool {
        self.rank() < other.rank()
    }
}

/// A sequence as the scheduler sees it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Tokens to run before it gives its next one; at least 1.
    pub pending: usize,
    /// Tokens whose keys and values are stored; 0 while it waits.
    pub cached: usize,
    /// Most tokens that it may come to store.
    pub longest: usize,
    /// Who goes first.
    pub seniority: Seniority,
}

/// How a sequence's blocks are granted.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Admission {
    /// What the next step needs, step by step: more run at once, and some may have to be computed
    /// again.
    #[default]
    Grow,
    /// All that it may become before it starts: fewer run at once, none is computed again.
    Reserve,
}

/// What a step may not exceed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Tokens of a step.
    pub batch_tokens: usize,
    /// Tokens of prompts in a step: what can be computed in the time that others may wait.
    pub chunk_tokens: usize,
    /// Sequences that run at once.
    pub parallel: usize,
    /// Tokens of a block.
    pub block_tokens: usize,
    /// How blocks are granted.
    pub admission: Admission,
}

/// A sequence that runs in this step.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Which one.
    pub who: Who,
    /// How many of its pending tokens.
    pub tokens: usize,
}

/// A sequence by its place.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Among those running.
    Running(usize),
    /// Among those waiting; it is let in.
    Waiting(usize),
}

/// What a step does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Decision {
    /// Running sequences to be preempted: their blocks are freed first, and they wait again.
    pub preempt: Vec<usize>,
    /// What runs. Who is let in is named here and nowhere else.
    pub runs: Vec<Run>,
    /// Places of the running, most senior first (scratch).
    seniors: Vec<usize>,
}

/// What is left while a decision is made.
struct Left {
    blocks: usize,
    batch: usize,
    chunk: usize,
}

/// Decides a step. `waiting` is most senior first; `free_blocks` are those that nobody holds.
pub fn decide(
    running: &[Candidate],
    waiting: &[Candidate],
    free_blocks: usize,
    limits: &Limits,
    decision: &mut Decision,
) {
    let Decision {
        preempt,
        runs,
        seniors,
    } = decision;
    preempt.clear();
    runs.clear();
    seniors.clear();
    seniors.extend(0..running.len());
    seniors.sort_unstable_by_key(|&i| running[i].seniority.rank());
    let blocks = |tokens: usize| tokens.div_ceil(limits.block_tokens);
    let mut left = Left {
        blocks: free_blocks,
        batch: limits.batch_tokens,
        chunk: limits.chunk_tokens.max(1),
    };

    // Rows kept for those that decode behind a prompt.
    let mut decoding = running.iter().filter(|c| c.pending == 1).count();
    let mut at = 0;
    while at < seniors.len() {
        let index = seniors[at];
        at += 1;
        let sequence = &running[index];
        let wanted = if sequence.pending == 1 {
            decoding -= 1;
            1.min(left.batch)
        } else {
            let beside = left.batch.saturating_sub(decoding).max(1);
            sequence.pending.min(left.chunk).min(beside).min(left.batch)
        };
        if wanted == 0 {
            continue;
        }
        let held = blocks(sequence.cached);
        while blocks(sequence.cached + wanted) - held > left.blocks && at < seniors.len() {
            // In `Reserve` this does not happen: what it may need is kept for it.
            let Some(junior) = seniors.pop() else { break };
            left.blocks += blocks(running[junior].cached);
            decoding -= usize::from(running[junior].pending == 1);
            preempt.push(junior);
        }
        let room = (held + left.blocks) * limits.block_tokens - sequence.cached;
        let tokens = wanted.min(room);
        if tokens == 0 {
            continue;
        }
        left.blocks -= blocks(sequence.cached + tokens) - held;
        left.batch -= tokens;
        if sequence.pending > 1 {
            left.chunk -= tokens;
        }
        let who = Who::Running(index);
        runs.push(Run { who, tokens });
    }

    // Blocks that those who run are to find free later.
    let mut promised: usize = seniors
        .iter()
        .map(|&i| {
            let run = runs.iter().find(|run| run.who == Who::Running(i));
            let stored = running[i].cached + run.map_or(0, |run| run.tokens);
            expected(&running[i], limits) - blocks(stored)
        })
        .sum();
    for (index, sequence) in waiting.iter().enumerate() {
        // Whoever was preempted comes back before anybody junior to it.
        let overtakes = |&i: &usize| running[i].seniority.before(sequence.seniority);
        if left.batch == 0 || left.chunk == 0 || preempt.iter().any(overtakes) {
            break;
        }
        let need = expected(sequence, limits);
        // A block of headroom for each other, so that none is preempted for this one at once.
        let short = |blocks: usize, promised: usize, others: usize| match limits.admission {
            Admission::Grow if others == 0 => blocks < need,
            Admission::Grow => blocks < need + promised + others,
            Admission::Reserve => blocks < need + promised,
        };
        let entered = runs
            .iter()
            .filter(|run| matches!(run.who, Who::Waiting(_)))
            .count();
        // Lower priorities make room, most junior first, if that is enough.
        let mut keep = seniors.len();
        let mut free = left.blocks;
        let mut kept = promised;
        while keep + entered >= limits.parallel || short(free, kept, keep + entered) {
            let junior = keep.checked_sub(1).map(|k| seniors[k]);
            let below = |&i: &usize| running[i].seniority.priority < sequence.seniority.priority;
            let Some(junior) = junior.filter(below) else {
                break;
            };
            let run = runs.iter().find(|run| run.who == Who::Running(junior));
            let stored = running[junior].cached + run.map_or(0, |run| run.tokens);
            free += blocks(stored);
            kept -= expected(&running[junior], limits) - blocks(stored);
            keep -= 1;
        }
        if keep + entered >= limits.parallel || short(free, kept, keep + entered) {
            break;
        }
        for junior in seniors.drain(keep..).rev() {
            preempt.push(junior);
            runs.retain(|run| {
                let stays = run.who != Who::Running(junior);
                if !stays {
                    left.batch += run.tokens;
                    left.chunk += if running[junior].pending > 1 {
                        run.tokens
                    } else {
                        0
                    };
                }
                stays
            });
        }
        (left.blocks, promised) = (free, kept);
        let tokens = sequence.pending.min(left.chunk).min(left.batch);
        left.blocks -= blocks(tokens);
        left.batch -= tokens;
        left.chunk -= tokens;
        promised += need - blocks(tokens);
        let who = Who::Waiting(index);
        runs.push(Run { who, tokens });
    }
}

/// Blocks that a sequence is let in for: its tokens so far and the next, or all it may become.
fn expected(sequence: &Candidate, limits: &Limits) -> usize {
    let tokens = match limits.admission {
        Admission::Grow => sequence.cached + sequence.pending,
        Admission::Reserve => sequence.longest,
    };
    tokens.div_ceil(limits.block_tokens)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        batch_tokens: 64,
        chunk_tokens: 32,
        parallel: 4,
        block_tokens: 16,
        admission: Admission::Grow,
    };

    fn candidate(order: u64, cached: usize, pending: usize) -> Candidate {
        Candidate {
            pending,
            cached,
            longest: 160,
            seniority: Seniority { priority: 0, order },
        }
    }

    fn at_priority(priority: i32, mut candidate: Candidate) -> Candidate {
        candidate.seniority.priority = priority;
        candidate
    }

    /// The runs as (place, tokens), waiting ones at 100 and on, and who is preempted.
    fn check(
        running: &[Candidate],
        waiting: &[Candidate],
        free: usize,
        limits: Limits,
        runs: &[(usize, usize)],
        preempt: &[usize],
    ) {
        let mut decision = Decision::default();
        decide(running, waiting, free, &limits, &mut decision);
        let got: Vec<(usize, usize)> = decision
            .runs
            .iter()
            .map(|run| match run.who {
                Who::Running(i) => (i, run.tokens),
                Who::Waiting(i) => (100 + i, run.tokens),
            })
            .collect();
        assert_eq!(got, runs);
        assert_eq!(decision.preempt, preempt);
    }

    #[test]
    fn all_decode_beside_one_piece_of_a_prompt() {
        let running = [
            candidate(0, 20, 1),
            candidate(1, 0, 100),
            candidate(2, 30, 1),
        ];
        check(&running, &[], 20, LIMITS, &[(0, 1), (1, 32), (2, 1)], &[]);
        // The piece leaves rows for those that decode after it.
        let limits = Limits {
            batch_tokens: 16,
            ..LIMITS
        };
        check(&running, &[], 20, limits, &[(0, 1), (1, 14), (2, 1)], &[]);
    }

    #[test]
    fn the_youngest_gives_its_blocks_to_the_oldest() {
        let running = [
            candidate(5, 16, 1),
            candidate(3, 32, 1),
            candidate(4, 31, 1),
        ];
        check(&running, &[], 0, LIMITS, &[(1, 1), (2, 1)], &[0]);
        // With one block free nobody has to go.
        check(&running, &[], 2, LIMITS, &[(1, 1), (2, 1), (0, 1)], &[]);
        // The youngest waits when there is nobody younger.
        check(&running, &[], 1, LIMITS, &[(1, 1), (2, 1)], &[]);
    }

    #[test]
    fn nobody_overtakes() {
        let waiting = [candidate(7, 0, 100), candidate(8, 0, 10)];
        let running = [candidate(0, 16, 1)];
        // The first needs 7 blocks and 1 of headroom, beside the one taken now.
        check(&running, &waiting, 9, LIMITS, &[(0, 1), (100, 32)], &[]);
        check(&running, &waiting, 8, LIMITS, &[(0, 1)], &[]);
        // Alone it needs no headroom.
        check(&[], &waiting, 7, LIMITS, &[(100, 32)], &[]);
        // Neither does anybody enter before one that was preempted.
        let running = [candidate(0, 32, 1), candidate(1, 32, 1)];
        check(&running, &waiting, 0, LIMITS, &[(0, 1)], &[1]);
    }

    #[test]
    fn several_enter_within_the_step() {
        let waiting = [
            candidate(7, 0, 10),
            candidate(8, 0, 12),
            candidate(9, 0, 20),
        ];
        let runs = [(100, 10), (101, 12), (102, 10)];
        check(&[], &waiting, 20, LIMITS, &runs, &[]);
        let limits = Limits {
            parallel: 2,
            ..LIMITS
        };
        check(&[], &waiting, 20, limits, &runs[..2], &[]);
    }

    #[test]
    fn reserving_counts_what_they_may_become() {
        let limits = Limits {
            admission: Admission::Reserve,
            ..LIMITS
        };
        let waiting = [candidate(7, 0, 10)];
        let running = [candidate(0, 16, 1)];
        // The running one holds 1 of 10 blocks; the waiting one may need 10.
        check(&running, &waiting, 18, limits, &[(0, 1)], &[]);
        check(&running, &waiting, 19, limits, &[(0, 1), (100, 10)], &[]);
    }

    #[test]
    fn higher_priority_makes_room() {
        let running = [candidate(0, 16, 1), at_priority(-1, candidate(1, 64, 1))];
        let waiting = [at_priority(1, candidate(9, 0, 30))];
        let limits = Limits {
            parallel: 2,
            ..LIMITS
        };
        check(&running, &waiting, 20, limits, &[(0, 1), (100, 30)], &[1]);
        // Not if it would not help.
        let waiting = [at_priority(0, candidate(9, 0, 160))];
        check(&running, &waiting, 2, limits, &[(0, 1), (1, 1)], &[]);
    }
}
