//! Generation step by step: what the engine's thread does with the sequences that it owns. No
//! thread is started and no clock decides anything here, so that `sim` can drive it from a seed.

mod blocks;
mod reclaim;

use std::sync::Arc;
use std::time::Duration;

use bursar_kv::{KvCache, KvReport, PrefixHasher, Triggers};
use bursar_memory::{Bytes, ReclaimBooks};
use bursar_model::ModelError;
use bursar_profile::span;

use crate::EngineError;
use crate::batch::Decoder;
use crate::holdings::Holdings;
use crate::lists::{Lists, StepLists};
use crate::look::{Sight, Waits};
use crate::options::CompactionOptions;
use crate::pace::Pace;
use crate::request::GenerateRequest;
use crate::sample::Sampler;
use crate::schedule::{Admission, Limits, decide};
use crate::sequence::{Arrival, Outcome, Question, Sequence};
use crate::spill::{Rates, Spill};
use crate::vocabulary::Vocabulary;
use blocks::release;
pub use reclaim::WaitsFor;

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
    /// Bytes of events written to clients' rings: heads, texts and alternatives; or of vectors written to
    /// where they belong.
    pub reply_bytes: u64,
}

/// All sequences of a model, and what runs them.
pub(crate) struct Generation<D> {
    decoder: D,
    kv: KvCache,
    sampler: Sampler,
    vocabulary: Arc<Vocabulary>,
    rules: Rules,
    spill: Option<Spill>,
    clock: Clock,
    running: Vec<Sequence>,
    /// Most senior first.
    waiting: Vec<Sequence>,
    pace: Pace,
    rates: Rates,
    lists: StepLists,
    totals: Totals,
    arrived: u64,
    block_tokens: usize,
    /// Until then the cache does not grow.
    shrunk_until: Duration,
}

/// Time since some fixed moment: the engine's thread reads a clock, a simulation makes it up.
pub(crate) type Clock = Box<dyn FnMut() -> Duration + Send>;

/// How many sequences, how they are let in, and what they share.
#[derive(Clone, Debug)]
pub(crate) struct Rules {
    pub(crate) batch_tokens: usize,
    pub(crate) parallel: usize,
    /// Tokens that one sequence may become.
    pub(crate) longest: usize,
    pub(crate) admission: Admission,
    /// Whether sequences get all their blocks when they begin.
    pub(crate) contiguous: bool,
    /// What computes: keys and values are shared with what the same has computed; `None` to share
    /// nothing.
    pub(crate) fingerprint: Option<[u8; 32]>,
    /// Whose the requests are that do not say.
    pub(crate) salt: [u8; 32],
    pub(crate) compaction: Option<CompactionOptions>,
    /// Whether the lists of a step are kept for the next; not where pools are switched off.
    pub(crate) keeps_lists: bool,
    /// Where it is written down, as which model, who had to wait for memory.
    pub(crate) books: Option<(ReclaimBooks, String)>,
}

impl<D: Decoder> Generation<D> {
    pub(crate) fn new(
        decoder: D,
        kv: KvCache,
        sampler: Sampler,
        vocabulary: Arc<Vocabulary>,
        rules: Rules,
        spill: Option<Spill>,
        clock: Clock,
    ) -> Self {
        let most = Lists::writing(rules.batch_tokens, rules.parallel);
        let lists = match rules.keeps_lists {
            true => StepLists::with_capacity(most),
            false => StepLists::default(),
        };
        Self {
            block_tokens: kv.layout().block_tokens(),
            decoder,
            kv,
            sampler,
            vocabulary,
            pace: Pace::new(rules.batch_tokens),
            rules,
            spill,
            clock,
            running: Vec::with_capacity(most.sequences),
            waiting: Vec::new(),
            rates: Rates::default(),
            lists,
            totals: Totals::default(),
            arrived: 0,
            shrunk_until: Duration::ZERO,
        }
    }

    /// Takes a request.
    pub(crate) fn accept(&mut self, arrival: Arrival) {
        let salt = arrival.request.salt.unwrap_or(self.rules.salt);
        let hasher = self.rules.fingerprint.as_ref();
        let hasher = hasher.map(|fingerprint| PrefixHasher::new(fingerprint, &salt));
        let order = self.arrived;
        self.expect(&arrival.request);
        let sequence = Sequence::new(arrival, order, &self.vocabulary, hasher, self.block_tokens);
        self.arrived += 1;
        self.totals.requests += 1;
        self.wait(sequence);
    }

    /// Makes room for a request, so that no step has to: among those who wait, all who run included,
    /// whom a step may make wait again; and for the alternatives that it wants to be told.
    fn expect(&mut self, request: &GenerateRequest) {
        let more = self.rules.parallel + 1;
        self.waiting.reserve(more);
        if !self.rules.keeps_lists {
            return;
        }
        let [_, candidates] = &mut self.lists.candidates;
        candidates.clear();
        candidates.reserve(self.waiting.len() + more);
        let top = request.logprobs.map_or(0, usize::from);
        let rows = match request.echo_logprobs {
            true => self.rules.batch_tokens,
            false => self.rules.parallel,
        };
        self.lists.tops.reserve(rows * top);
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
        Totals {
            evicted_blocks: self.kv.report().evictions,
            ..self.totals
        }
    }

    /// Tokens that sequences store, those that several share counted for each.
    pub(crate) fn stored_tokens(&self) -> usize {
        let lengths = self.running.iter().map(|sequence| sequence.table.len());
        lengths.sum()
    }

    pub(crate) fn kv(&self) -> KvReport {
        self.kv.report()
    }

    /// Notes on the cache's account how much of it is really there.
    pub(crate) fn measure(&self) {
        self.kv.measure();
    }

    /// Shows its sequences and blocks.
    pub(crate) fn look(&self, sight: &mut Sight) {
        for sequence in &self.running {
            sight.push(sequence.view(None));
        }
        let first = self.waits_for();
        for (before, sequence) in self.waiting.iter().enumerate() {
            let waits = Waits {
                before,
                first,
                displaced: sequence.displaced(),
            };
            sight.push(sequence.view(Some(waits)));
        }
        sight.shape = Some(self.kv.map(&mut sight.cells));
    }

    /// Tokens of prompts that the next step may take.
    pub(crate) fn chunk_tokens(&self) -> usize {
        self.pace.tokens()
    }

    /// Frees what cancelled requests hold.
    pub(crate) fn sweep(&mut self) {
        let (running, waiting) = (self.running.len(), self.waiting.len());
        let Self { kv, spill, .. } = self;
        let mut stays = |sequence: &mut Sequence| {
            let stays = !sequence.abandoned();
            if !stays {
                release(kv, spill, sequence);
            }
            stays
        };
        self.running.retain_mut(&mut stays);
        self.waiting.retain_mut(&mut stays);
        let left = running + waiting - self.running.len() - self.waiting.len();
        self.totals.cancelled += left as u64;
    }

    /// One step in `arena`; gives the tokens of prompts in it. Does nothing if there is nothing to do.
    pub(crate) fn step(&mut self, arena: &mut [u8]) -> usize {
        let now = (self.clock)();
        self.kv.tick(now.as_millis() as u64);
        self.sweep();
        if self.running.is_empty() && self.waiting.is_empty() {
            return 0;
        }
        self.grow_back(now);
        self.decide();
        let prompts = self.fill();
        self.note(now);
        let start = (self.clock)();
        let ran = self.run(arena);
        let time = (self.clock)().saturating_sub(start);
        self.pace.observe(prompts, time);
        // A few tokens take as long as one.
        if prompts >= 16 {
            self.rates.compute.observe(self.lists.batch.len(), time);
        }
        match ran {
            Ok(()) => self.publish(),
            Err(error) => self.fail(error),
        }
        self.deliver();
        if !self.rules.keeps_lists {
            self.lists = StepLists::default();
        }
        self.totals.steps += 1;
        prompts
    }

    /// Moves blocks together where that is due, within what fits between two steps; whether there may
    /// be more to do.
    pub(crate) fn tidy(&mut self) -> bool {
        if self.settle() {
            return true;
        }
        let Some(options) = &self.rules.compaction else {
            return false;
        };
        let triggers = Triggers {
            fragmentation: options.fragmentation,
            efficiency: options.efficiency,
        };
        if !self.kv.wants_compaction(&triggers) {
            return false;
        }
        let _span = span!("engine.compact");
        let start = (self.clock)();
        let (tables, budget) = (&mut self.running, options.bytes_per_step);
        let done = self.kv.compact(tables, budget, &triggers);
        if done.is_empty() {
            return false;
        }
        let end = (self.clock)();
        let time = end.saturating_sub(start);
        self.kv.compacted(end.as_millis() as u64, time);
        self.totals.compactions += 1;
        self.totals.moved_bytes += done.moved_bytes.0;
        self.totals.returned_bytes += done.bytes_returned.0;
        self.totals.compaction_us += time.as_micros() as u64;
        true
    }

    /// Lets go of everything but the cache.
    pub(crate) fn finish(mut self) -> KvCache {
        for mut sequence in self.running.drain(..).chain(self.waiting.drain(..)) {
            release(&mut self.kv, &mut self.spill, &mut sequence);
        }
        self.kv
    }

    /// All sequences: those that run, and those that wait.
    #[cfg(test)]
    pub(crate) fn sequences(&self) -> (&[Sequence], &[Sequence]) {
        (&self.running, &self.waiting)
    }

    /// What runs the batches.
    pub(crate) fn decoder(&self) -> &D {
        &self.decoder
    }

    /// What runs the batches, to be changed.
    pub(crate) fn decoder_mut(&mut self) -> &mut D {
        &mut self.decoder
    }

    /// Forgets what was cached, and shares by another fingerprint from now on: what runs the batches
    /// computes something else now.
    pub(crate) fn computes_otherwise(&mut self, fingerprint: [u8; 32]) {
        self.kv.return_cached(Bytes(u64::MAX));
        if let Some(shared) = &mut self.rules.fingerprint {
            *shared = fingerprint;
        }
    }

    /// The cache.
    #[cfg(test)]
    pub(crate) fn cache(&mut self) -> &mut KvCache {
        &mut self.kv
    }

    fn decide(&mut self) {
        let _span = span!("engine.schedule", self.running.len() + self.waiting.len());
        let StepLists {
            candidates: [running, waiting],
            decision,
            ..
        } = &mut self.lists;
        running.clear();
        running.extend(self.running.iter().map(Sequence::candidate));
        waiting.clear();
        waiting.extend(self.waiting.iter().map(Sequence::candidate));
        let limits = Limits {
            batch_tokens: self.rules.batch_tokens,
            chunk_tokens: self.pace.tokens(),
            parallel: self.rules.parallel,
            block_tokens: self.block_tokens,
            admission: self.rules.admission,
        };
        let books = Holdings {
            kv: &self.kv,
            running: &self.running,
            waiting: &self.waiting,
            block_tokens: self.block_tokens,
        };
        decide(running, waiting, &books, &limits, decision);
    }

    fn run(&mut self, arena: &mut [u8]) -> Result<(), ModelError> {
        if self.lists.batch.len() == 0 {
            return Ok(());
        }
        let _span = span!("engine.forward", self.lists.batch.len());
        let Self {
            decoder,
            kv,
            sampler,
            vocabulary,
            running,
            lists,
            ..
        } = self;
        let StepLists {
            batch,
            outcomes,
            tops,
            ..
        } = lists;
        batch.run(
            decoder,
            running,
            arena,
            kv.bytes_mut(),
            &mut |output, logits| {
                let _span = span!("engine.sample");
                let sequence = &running[output.sequence];
                let before = tops.len();
                let (token, logprob, prompt) = match sequence.question(output.position) {
                    Question::Prompt { token, top } => {
                        let logprob = sampler.logprobs(logits, token, top, tops);
                        (token, Some(logprob), true)
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
                        let token = sampler.choose(
                            logits,
                            &sequence.params,
                            sequence.seed,
                            history,
                            &never,
                        );
                        let found = logprobs.map(|top| sampler.logprobs(logits, token, top, tops));
                        (token, found, false)
                    }
                };
                let outcome = Outcome {
                    token,
                    logprob,
                    top: tops.len() - before,
                    prompt,
                };
                outcomes.push((output.sequence, outcome));
            },
        )
    }

    /// Ends all sequences of a pass that could not be finished. They leave with the next sweep, and
    /// none of their blocks is published: what is in them is unknown.
    fn fail(&mut self, error: ModelError) {
        self.lists.outcomes.clear();
        self.lists.tops.clear();
        let error = Arc::new(error);
        for place in self.lists.batch.places() {
            self.running[place].fail(EngineError::Pass(Arc::clone(&error)));
        }
    }

    /// Tells the clients; frees what has ended, and lets those that were preempted wait.
    fn deliver(&mut self) {
        let _span = span!("engine.deliver", self.lists.outcomes.len());
        let lists = &mut self.lists;
        let mut tops = lists.tops.as_slice();
        lists.ended.clear();
        for (place, outcome) in &lists.outcomes {
            let sequence = &mut self.running[*place];
            let (top, rest) = tops.split_at(outcome.top);
            tops = rest;
            if outcome.prompt {
                self.totals.reply_bytes += sequence.echo(outcome, top) as u64;
                continue;
            }
            let before = sequence.generated();
            let (ends, copied) = sequence.take(&self.vocabulary, self.block_tokens, outcome, top);
            if ends {
                lists.ended.push(*place);
            }
            self.totals.reply_bytes += copied as u64;
            self.totals.outputs += (sequence.generated() - before) as u64;
        }
        lists.outcomes.clear();
        lists.tops.clear();
        // From the back, so that places stay what they are.
        lists.leaving.clear();
        lists.leaving.extend_from_slice(&lists.decision.preempt);
        lists.leaving.extend_from_slice(&lists.ended);
        lists.leaving.sort_unstable();
        while let Some(place) = self.lists.leaving.pop() {
            let mut sequence = self.running.remove(place);
            if self.lists.ended.contains(&place) {
                release(&mut self.kv, &mut self.spill, &mut sequence);
            } else {
                self.wait(sequence);
            }
        }
    }
}
