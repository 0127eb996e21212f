//! Which sequences run in the next step, and how many tokens of each: a pure function of plain data.
//!
//! ```text
//! for each running sequence, most senior first:
//!     begin where the tokens end that are stored, for it or for others
//!     if a more senior one computes just that in this step: run nothing, it will be found stored
//!     take the tokens it can run: one if it is decoding, else a piece of its prompt
//!     while blocks are missing: preempt the most junior running sequence, if junior to this one
//!     run what the blocks hold; nothing if they hold nothing (it keeps its blocks and waits)
//! for each waiting sequence, most senior first, until one does not fit:
//!     let it in if there is a place, and room for it (all of its tokens so far that others do not
//!     hold anyway, and a block for each that runs already; or in `Reserve`, all that it may become);
//!     sequences of lower priority make room for it
//! ```
//!
//! Seniority is priority, then arrival; but whoever has been passed [`OVERTAKES_MAX`] times is senior
//! to all who have not. What follows from the rules, and is tested in `sim`: the most senior running
//! sequence always runs, because it may take the blocks of all others and none is let in that could
//! not fit alone; waiting sequences enter in order of seniority; so every sequence ends, even if ever
//! more come with a higher priority.
//!
//! What several sequences begin with is computed once: whoever needs a block that a more senior one
//! is filling waits for it, without a register of who fills what. The next decision sees it stored.

use std::cmp::{Ordering, Reverse};

/// A sequence that has been passed so often by later ones is not passed again.
pub const OVERTAKES_MAX: u32 = 32;

/// Who goes first: those who have been passed too often, then higher priority, then earlier arrival.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Seniority {
    /// As the request says.
    pub priority: i32,
    /// Counts arrivals.
    pub order: u64,
    /// Times that a later sequence was let in while this one waited.
    pub overtaken: u32,
}

impl Seniority {
    fn rank(self) -> (bool, Reverse<i32>, u64) {
        (!self.promoted(), Reverse(self.priority), self.order)
    }

    /// Whether this one goes before another.
    pub fn before(self, other: Self) -> bool {
        self.rank() < other.rank()
    }

    /// The order in which they go.
    pub fn order(self, other: Self) -> Ordering {
        self.rank().cmp(&other.rank())
    }

    /// Whether it has been passed so often that it goes before all who have not.
    pub fn promoted(self) -> bool {
        self.overtaken >= OVERTAKES_MAX
    }
}

/// A sequence as the scheduler sees it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// Tokens to run before it gives its next one; at least 1.
    pub pending: usize,
    /// Tokens whose keys and values are stored for it; 0 while it waits.
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

/// A sequence that holds or runs something in this step.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Which one.
    pub who: Who,
    /// Where it begins: what is stored before that for others, and not for it, is made its own first.
    pub from: usize,
    /// How many tokens it runs from there; none if it waits for what another one computes.
    pub tokens: usize,
    /// Blocks that it takes.
    pub blocks: usize,
}

/// A sequence by its place.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Who {
    /// Among those running.
    Running(usize),
    /// Among those waiting; it is let in.
    Waiting(usize),
}

/// What a sequence would find stored.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// The position of the first token that would have to be computed.
    pub tokens: usize,
    /// Blocks before it, beyond the sequence's own, that some sequence holds which stays: taking
    /// part in these takes nothing from those available.
    pub held: usize,
}

/// What a decision asks of those who keep the books of the blocks.
pub trait Books {
    /// Blocks that can be taken: free ones, and cached ones that nobody holds.
    fn available(&self) -> usize;
    /// How many more there would be if these of the running left; not those that `runs` would hold
    /// then.
    fn freed(&self, leaving: &[usize], runs: &[Run]) -> usize;
    /// What a sequence would find stored once these of the running have left. Never all of its
    /// tokens: one is left to be run.
    fn found(&self, who: Who, leaving: &[usize]) -> Found;
    /// Whether one of `runs`, all more senior, computes what `who` would compute from `from` on.
    fn computed_by(&self, who: Who, from: usize, runs: &[Run]) -> bool;
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
    /// Places of those who leave if all make room that may (scratch).
    leaving: Vec<usize>,
}

impl Decision {
    /// With room for so many sequences.
    pub fn with_capacity(sequences: usize) -> Self {
        Self {
            preempt: Vec::with_capacity(sequences),
            runs: Vec::with_capacity(sequences),
            seniors: Vec::with_capacity(sequences),
            leaving: Vec::with_capacity(sequences),
        }
    }
}

/// What is left while a decision is made.
struct Left {
    blocks: usize,
    batch: usize,
    chunk: usize,
}

/// Decides a step. `waiting` is most senior first.
pub fn decide(
    running: &[Candidate],
    waiting: &[Candidate],
    books: &impl Books,
    limits: &Limits,
    decision: &mut Decision,
) {
    let Decision {
        preempt,
        runs,
        seniors,
        leaving,
    } = decision;
    preempt.clear();
    runs.clear();
    seniors.clear();
    seniors.extend(0..running.len());
    seniors.sort_unstable_by_key(|&i| running[i].seniority.rank());
    let blocks = |tokens: usize| tokens.div_ceil(limits.block_tokens);
    let mut left = Left {
        blocks: books.available(),
        batch: limits.batch_tokens,
        chunk: limits.chunk_tokens.max(1),
    };

    // Rows kept for those that decode behind a prompt.
    let mut decoding = running.iter().filter(|c| c.pending == 1).count();
    let mut at = 0;
    while at < seniors.len() {
        let index = seniors[at];
        at += 1;
        let (who, sequence) = (Who::Running(index), &running[index]);
        let end = sequence.cached + sequence.pending;
        let held = blocks(sequence.cached);
        let decodes = sequence.pending == 1;
        let mut found = match decodes {
            true => Found {
                tokens: sequence.cached,
                held: 0,
            },
            false => books.found(who, preempt),
        };
        let wanted = if decodes {
            decoding -= 1;
            1.min(left.batch)
        } else if books.computed_by(who, found.tokens, runs) {
            0
        } else {
            let beside = left.batch.saturating_sub(decoding).max(1);
            (end - found.tokens)
                .min(left.chunk)
                .min(beside)
                .min(left.batch)
        };
        if wanted == 0 && found.tokens == sequence.cached {
            continue;
        }
        let need = |found: &Found| blocks(found.tokens + wanted) - held - found.held;
        while wanted > 0 && need(&found) > left.blocks && at < seniors.len() {
            // In `Reserve` this does not happen: what it may need is kept for it.
            let Some(junior) = seniors.pop() else { break };
            let before = books.freed(preempt, runs);
            preempt.push(junior);
            left.blocks += books.freed(preempt, runs) - before;
            decoding -= usize::from(running[junior].pending == 1);
            if !decodes {
                // What only those held who leave has to be taken like any other block.
                found.held = books.found(who, preempt).held;
            }
        }
        let room = (held + found.held + left.blocks) * limits.block_tokens;
        let Some(room) = room.checked_sub(found.tokens) else {
            continue;
        };
        let tokens = wanted.min(room);
        if tokens == 0 && found.tokens == sequence.cached {
            continue;
        }
        let taken = blocks(found.tokens + tokens) - held - found.held;
        left.blocks -= taken;
        left.batch -= tokens;
        if !decodes {
            left.chunk -= tokens;
        }
        runs.push(Run {
            who,
            from: found.tokens,
            tokens,
            blocks: taken,
        });
    }

    // Blocks that those who run are to find free later.
    let later = |index: usize, runs: &[Run]| {
        let run = runs.iter().find(|run| run.who == Who::Running(index));
        let stored = run.map_or(running[index].cached, |run| run.from + run.tokens);
        expected(&running[index], limits) - blocks(stored)
    };
    let mut promised: usize = seniors.iter().map(|&i| later(i, runs)).sum();
    for (index, sequence) in waiting.iter().enumerate() {
        // Whoever was preempted comes back before anybody junior to it.
        let overtakes = |&i: &usize| running[i].seniority.before(sequence.seniority);
        if left.batch == 0 || left.chunk == 0 || preempt.iter().any(overtakes) {
            break;
        }
        let who = Who::Waiting(index);
        // A block of headroom for each other, so that none is preempted for this one at once.
        let short = |found: &Found, blocks: usize, promised: usize, others: usize| {
            let need = expected(sequence, limits) - found.held;
            match limits.admission {
                Admission::Grow if others == 0 => blocks < need,
                Admission::Grow => blocks < need + promised + others,
                Admission::Reserve => blocks < need + promised,
            }
        };
        let entered = runs
            .iter()
            .filter(|run| matches!(run.who, Who::Waiting(_)))
            .count();
        let mut found = books.found(who, preempt);
        let mut keep = seniors.len();
        let (mut free, mut kept) = (left.blocks, promised);
        if keep + entered >= limits.parallel || short(&found, free, kept, keep + entered) {
            // Lower priorities make room, most junior first, if that is enough.
            let below = |&i: &usize| {
                let runs = running[i].seniority;
                !runs.promoted() && runs.priority < sequence.seniority.priority
            };
            let lowest = seniors.iter().rev().take_while(|i| below(i)).count();
            let before = books.freed(preempt, runs);
            leaving.clear();
            leaving.extend_from_slice(preempt);
            leaving.extend(seniors[keep - lowest..].iter().rev());
            found = books.found(who, leaving);
            for gone in 1..=lowest {
                keep -= 1;
                let junior = seniors[keep];
                let run = runs.iter().find(|run| run.who == Who::Running(junior));
                free += run.map_or(0, |run| run.blocks);
                kept -= later(junior, runs);
                let freed = books.freed(&leaving[..preempt.len() + gone], runs) - before;
                if keep + entered < limits.parallel
                    && !short(&found, free + freed, kept, keep + entered)
                {
                    break;
                }
            }
            leaving.truncate(preempt.len() + seniors.len() - keep);
            free += books.freed(leaving, runs) - before;
            if keep + entered >= limits.parallel || short(&found, free, kept, keep + entered) {
                break;
            }
        }
        for junior in seniors.drain(keep..).rev() {
            preempt.push(junior);
            runs.retain(|run| {
                let stays = run.who != Who::Running(junior);
                if !stays {
                    left.batch += run.tokens;
                    left.chunk += match running[junior].pending {
                        1 => 0,
                        _ => run.tokens,
                    };
                }
                stays
            });
        }
        (left.blocks, promised) = (free, kept);
        let tokens = match books.computed_by(who, found.tokens, runs) {
            true => 0,
            false => (sequence.pending - found.tokens)
                .min(left.chunk)
                .min(left.batch),
        };
        let taken = blocks(found.tokens + tokens) - found.held;
        left.blocks -= taken;
        left.batch -= tokens;
        left.chunk -= tokens;
        promised += expected(sequence, limits) - blocks(found.tokens + tokens);
        runs.push(Run {
            who,
            from: found.tokens,
            tokens,
            blocks: taken,
        });
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
            seniority: Seniority {
                priority: 0,
                order,
                overtaken: 0,
            },
        }
    }

    fn at_priority(priority: i32, mut candidate: Candidate) -> Candidate {
        candidate.seniority.priority = priority;
        candidate
    }

    /// Books in which nothing is shared, unless it is said here.
    struct Shelf {
        available: usize,
        /// Blocks of each running sequence.
        held: Vec<usize>,
        /// What sequences find, waiting ones from 100 on.
        found: Vec<(usize, Found)>,
        /// Who waits for whom.
        computed: Vec<(usize, usize)>,
    }

    fn place(who: Who) -> usize {
        match who {
            Who::Running(i) => i,
            Who::Waiting(i) => 100 + i,
        }
    }

    impl Books for Shelf {
        fn available(&self) -> usize {
            self.available
        }

        fn freed(&self, leaving: &[usize], _: &[Run]) -> usize {
            leaving.iter().map(|&i| self.held[i]).sum()
        }

        fn found(&self, who: Who, leaving: &[usize]) -> Found {
            let found = self.found.iter().find(|(i, _)| *i == place(who));
            let mut found = found.map_or_else(Found::default, |(_, found)| *found);
            if let (Who::Running(i), 0) = (who, found.tokens) {
                found.tokens = self.held[i] * LIMITS.block_tokens;
            }
            // Whoever leaves was the only holder.
            found.held *= usize::from(leaving.is_empty());
            found
        }

        fn computed_by(&self, who: Who, _: usize, runs: &[Run]) -> bool {
            let others = self.computed.iter().filter(|(i, _)| *i == place(who));
            others.map(|(_, other)| other).any(|other| {
                runs.iter()
                    .any(|run| place(run.who) == *other && run.tokens > 0)
            })
        }
    }

    /// Runs as (place, first token, tokens), and who is preempted.
    fn check_shared(
        running: &[Candidate],
        waiting: &[Candidate],
        shelf: &Shelf,
        runs: &[(usize, usize, usize)],
        preempt: &[usize],
    ) {
        let mut decision = Decision::default();
        decide(running, waiting, shelf, &LIMITS, &mut decision);
        let got: Vec<_> = (decision.runs.iter())
            .map(|run| (place(run.who), run.from, run.tokens))
            .collect();
        assert_eq!(got, runs);
        assert_eq!(decision.preempt, preempt);
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
        let held = running.iter().map(|c| c.cached.div_ceil(16)).collect();
        let shelf = Shelf {
            available: free,
            held,
            found: Vec::new(),
            computed: Vec::new(),
        };
        decide(running, waiting, &shelf, &limits, &mut decision);
        let got: Vec<(usize, usize)> = (decision.runs.iter())
            .map(|run| (place(run.who), run.tokens))
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

    #[test]
    fn what_is_stored_is_not_computed() {
        // Of 100 tokens 96 are stored in 6 blocks that another holds: only the last is taken.
        let waiting = [candidate(7, 0, 100)];
        let mut shelf = Shelf {
            available: 2,
            held: vec![6],
            found: vec![(
                100,
                Found {
                    tokens: 96,
                    held: 6,
                },
            )],
            computed: Vec::new(),
        };
        let running = [candidate(0, 96, 1)];
        shelf.available = 3;
        check_shared(&running, &waiting, &shelf, &[(0, 96, 1), (100, 96, 4)], &[]);
        // The running one takes a block, and one is left for its next.
        shelf.available = 2;
        check_shared(&running, &waiting, &shelf, &[(0, 96, 1)], &[]);
        // Cached blocks that nobody holds count among those that are available, and are taken.
        shelf.found[0].1.held = 0;
        shelf.available = 9;
        check_shared(&running, &waiting, &shelf, &[(0, 96, 1), (100, 96, 4)], &[]);
        shelf.available = 8;
        check_shared(&running, &waiting, &shelf, &[(0, 96, 1)], &[]);
    }

    #[test]
    fn the_same_beginning_is_computed_once() {
        let found = |tokens| Found { tokens, held: 0 };
        let mut shelf = Shelf {
            available: 40,
            held: vec![0, 0],
            found: vec![(0, found(16)), (1, found(16)), (100, found(16))],
            computed: vec![(1, 0), (100, 0)],
        };
        let running = [candidate(0, 0, 40), candidate(1, 0, 60)];
        let waiting = [candidate(2, 0, 50)];
        // The first takes a cached block and computes the rest; the others wait for it, holding what
        // there is; a place among the running is no obstacle to those behind.
        let runs = [(0, 16, 24), (1, 16, 0), (100, 16, 0)];
        check_shared(&running, &waiting, &shelf, &runs, &[]);
        shelf.computed.clear();
        let runs = [(0, 16, 24), (1, 16, 8)];
        check_shared(&running, &waiting, &shelf, &runs, &[]);
    }

    #[test]
    fn who_has_been_passed_too_often_goes_first() {
        let mut passed = candidate(3, 0, 30);
        passed.seniority.priority = -1;
        passed.seniority.overtaken = OVERTAKES_MAX;
        assert!(passed.seniority.before(candidate(0, 0, 1).seniority));
        // It waits for room, and nobody enters before it.
        let waiting = [passed, at_priority(5, candidate(9, 0, 10))];
        let running = [candidate(0, 16, 1), candidate(1, 16, 1)];
        check(&running, &waiting, 4, LIMITS, &[(0, 1), (1, 1)], &[]);
        // Once it runs, higher priorities do not displace it.
        let running = [passed];
        check(&running, &waiting[1..], 2, LIMITS, &[(0, 30)], &[]);
    }
}
