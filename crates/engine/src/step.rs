//! Generation step by step: what the engine's thread does with the sequences that it owns. No
//! thread and no clock is read here, so that `sim` can drive it from a seed.

use std::sync::Arc;
use std::time::Duration;

use bursar_kv::{KvCache, KvReport};

use crate::batch::{Batch, Decoder};
use crate::pace::Pace;
use crate::reply::PromptLogprob;
use crate::sample::Sampler;
use crate::schedule::{Admission, Candidate, Decision, Limits, Who, decide};
use crate::sequence::{Arrival, Outcome, Question, Sequence};
use crate::vocabulary::Vocabulary;

/// Counts since the start.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Steps.
    pub steps: u64,
    /// Requests taken.
    pub requests: u64,
    /// Requests that were cancelled before their end.
    pub cancelled: u64,
    /// Tokens of prompts computed, again after a preemption included.
    pub prefill_tokens: u64,
    /// Tokens generated, or vectors made.
    pub outputs: u64,
    /// Sequences that lost their blocks to others.
    pub preemptions: u64,
    /// Tokens that were computed once more for that.
    pub recomputed_tokens: u64,
    /// Tokens of prompts that were found stored and did not have to be computed.
    pub prefix_hit_tokens: u64,
    /// Sequences that took over all of another's prompt, the partly filled last block included.
    pub forks: u64,
    /// Cached blocks that gave way to others.
    pub evicted_blocks: u64,
    /// Times that a request of lower priority was passed by a later one of higher.
    pub overtakes: u64,
    /// Preempted sequences whose keys and values were written away.
    pub spills: u64,
    /// Bytes written for that.
    pub spilled_bytes: u64,
    /// Bytes of them that were read again.
    pub restored_bytes: u64,
    /// Blocks that could not be written or read again, and were computed instead.
    pub spill_failures: u64,
    /// Times that blocks were moved together.
    pub compactions: u64,
    /// Bytes moved for that.
    pub moved_bytes: u64,
    /// Bytes that the operating system got back, measured.
    pub returned_bytes: u64,
    /// Time spent on that, in microseconds.
    pub compaction_us: u64,
}

/// All sequences of a model, and what runs them.
pub(crate) struct Generation<D> {
    decoder: D,
    kv: KvCache,
    sampler: Sampler,
    vocabulary: Arc<Vocabulary>,
    batch_tokens: usize,
    parallel: usize,
    admission: Admission,
    running: Vec<Sequence>,
    /// Most senior first.
    waiting: Vec<Sequence>,
    pace: Pace,
    decision: Decision,
    batch: Batch,
    candidates: [Vec<Candidate>; 2],
    outcomes: Vec<(usize, Outcome)>,
    totals: Totals,
    arrived: u64,
}

/// How many sequences, and how they are let in.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) batch_tokens: usize,
    pub(crate) parallel: usize,
    pub(crate) admission: Admission,
}

impl<D: Decoder> Generation<D> {
    pub(crate) fn new(
        decoder: D,
        kv: KvCache,
        sampler: Sampler,
        vocabulary: Arc<Vocabulary>,
        rules: Rules,
    ) -> Self {
        Self {
            decoder,
            kv,
            sampler,
            vocabulary,
            batch_tokens: rules.batch_tokens,
            parallel: rules.parallel,
            admission: rules.admission,
            running: Vec::new(),
            waiting: Vec::new(),
            pace: Pace::new(rules.batch_tokens),
            decision: Decision::default(),
            batch: Batch::default(),
            candidates: Default::default(),
            outcomes: Vec::new(),
            totals: Totals::default(),
            arrived: 0,
        }
    }

    /// Takes a request.
    pub(crate) fn accept(&mut self, arrival: Arrival) {
        let sequence = Sequence::new(arrival, self.arrived, &self.vocabulary);
        self.arrived += 1;
        self.totals.requests += 1;
        self.wait(sequence);
    }

    /// Puts a sequence among the waiting, in order of seniority.
    fn wait(&mut self, sequence: Sequence) {
        let at = self
            .waiting
            .partition_point(|other| other.seniority().before(sequence.seniority()));
        self.waiting.insert(at, sequence);
    }

    /// Sequences that run.
    pub(crate) fn running(&self) -> usize {
        self.running.len()
    }

    /// Sequences that wait.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    pub(crate) fn kv(&self) -> KvReport {
        self.kv.report()
    }

    /// Notes on the cache's account how much of it is really there.
    pub(crate) fn measure(&self) {
        self.kv.measure();
    }

    /// Tokens of prompts that the next step may take.
    pub(crate) fn chunk_tokens(&self) -> usize {
        self.pace.tokens()
    }

    /// Frees what cancelled requests hold.
    pub(crate) fn sweep(&mut self) {
        let (kv, cancelled) = (&mut self.kv, &mut self.totals.cancelled);
        self.running.retain_mut(|sequence| {
            let stays = !sequence.abandoned();
            if !stays {
                kv.free(&mut sequence.table);
                *cancelled += 1;
            }
            stays
        });
        self.waiting.retain(|sequence| {
            let stays = !sequence.abandoned();
            *cancelled += u64::from(!stays);
            stays
        });
    }

    /// One step; gives the tokens of prompts in it. Does nothing if there is nothing to do.
    pub(crate) fn step(&mut self) -> usize {
        self.sweep();
        if self.running.is_empty() && self.waiting.is_empty() {
            return 0;
        }
        self.decide();
        let prompts = self.fill();
        self.run();
        self.deliver();
        self.totals.steps += 1;
        self.totals.prefill_tokens += prompts as u64;
        prompts
    }

    /// The last step took `time` with so many tokens of prompts.
    pub(crate) fn observe(&mut self, prompts: usize, time: Duration) {
        self.pace.observe(prompts, time);
    }

    /// All sequences: those that run, and those that wait.
    #[cfg(test)]
    pub(crate) fn sequences(&self) -> (&[Sequence], &[Sequence]) {
        (&self.running, &self.waiting)
    }

    /// What runs the batches.
    #[cfg(test)]
    pub(crate) fn decoder(&mut self) -> &mut D {
        &mut self.decoder
    }

    fn decide(&mut self) {
        let [running, waiting] = &mut self.candidates;
        running.clear();
        running.extend(self.running.iter().map(Sequence::candidate));
        waiting.clear();
        waiting.extend(self.waiting.iter().map(Sequence::candidate));
        let report = self.kv.report();
        let limits = Limits {
            batch_tokens: self.batch_tokens,
            chunk_tokens: self.pace.tokens(),
            parallel: self.parallel,
            block_tokens: report.block_tokens,
            admission: self.admission,
        };
        let free = self.kv.available();
        decide(running, waiting, free, &limits, &mut self.decision);
    }

    /// Preempts, lets in, and fills the batch; gives the tokens of prompts in it.
    fn fill(&mut self) -> usize {
        let Decision { preempt, runs, .. } = &mut self.decision;
        for &place in preempt.iter() {
            let table = &mut self.running[place].table;
            self.totals.preemptions += 1;
            self.totals.recomputed_tokens += table.len() as u64;
            self.kv.free(table);
        }
        // Places among the running stay as decided until the batch is filled: new ones go behind, and
        // preempted ones leave at the end.
        let mut entering = 0;
        let mut prompts = 0;
        self.batch.clear();
        for run in runs.iter() {
            let place = match run.who {
                Who::Running(place) => place,
                Who::Waiting(place) => {
                    // They are named in order, each once, and those before have left already.
                    debug_assert_eq!(place, entering);
                    self.running.push(self.waiting.remove(place - entering));
                    entering += 1;
                    self.running.len() - 1
                }
            };
            let sequence = &mut self.running[place];
            let pending = sequence.candidate().pending;
            self.batch.push(place, sequence, run.tokens);
            // The decision counted blocks with these very numbers.
            self.kv
                .append(&mut sequence.table, run.tokens)
                .expect("the decision left blocks for every run");
            prompts += if pending > 1 { run.tokens } else { 0 };
        }
        prompts
    }

    fn run(&mut self) {
        if self.batch.len() == 0 {
            return;
        }
        let Self {
            decoder,
            kv,
            sampler,
            vocabulary,
            running,
            batch,
            outcomes,
            ..
        } = self;
        batch.run(decoder, running, kv.bytes_mut(), &mut |output, logits| {
            let sequence = &running[output.sequence];
            let outcome = match sequence.question(output.position) {
                Question::Prompt { token, top } => {
                    let (logprob, top) = sampler.logprobs(logits, token, top);
                    let logprob = Some(logprob);
                    Outcome::Prompt(PromptLogprob {
                        token,
                        logprob,
                        top,
                    })
                }
                Question::Next {
                    history,
                    logprobs,
                    may_end,
                    stop_tokens,
                } => {
                    let never = match may_end {
                        true => [&[][..], &[]],
                        false => [vocabulary.end_tokens(), stop_tokens],
                    };
                    let token = sampler.choose(logits, &sequence.params, history, &never);
                    let found = logprobs.map(|top| sampler.logprobs(logits, token, top));
                    let (logprob, top) = found.map_or((None, Vec::new()), |(l, t)| (Some(l), t));
                    Outcome::Next {
                        token,
                        logprob,
                        top,
                    }
                }
            };
            outcomes.push((output.sequence, outcome));
        });
    }

    /// Tells the clients; frees what has ended, and lets those that were preempted wait.
    fn deliver(&mut self) {
        let mut ended: Vec<usize> = Vec::new();
        let mut echo: Vec<PromptLogprob> = Vec::new();
        let mut outcomes = self.outcomes.drain(..).peekable();
        while let Some((place, outcome)) = outcomes.next() {
            let sequence = &mut self.running[place];
            match outcome {
                Outcome::Prompt(found) => {
                    echo.push(found);
                    let more = outcomes
                        .peek()
                        .is_some_and(|(next, o)| *next == place && matches!(o, Outcome::Prompt(_)));
                    if !more {
                        sequence.echo(std::mem::take(&mut echo));
                    }
                }
                Outcome::Next {
                    token,
                    logprob,
                    top,
                } => {
                    let before = sequence.generated();
                    if sequence.take(&self.vocabulary, token, logprob, top) {
                        ended.push(place);
                    }
                    self.totals.outputs += (sequence.generated() - before) as u64;
                }
            }
        }
        drop(outcomes);
        // From the back, so that places stay what they are.
        let mut leaving = self.decision.preempt.clone();
        leaving.extend_from_slice(&ended);
        leaving.sort_unstable();
        for &place in leaving.iter().rev() {
            let mut sequence = self.running.remove(place);
            if ended.contains(&place) {
                self.kv.free(&mut sequence.table);
            } else {
                self.wait(sequence);
            }
        }
    }
}
