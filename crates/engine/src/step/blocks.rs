//! What a decision means for blocks: written away and freed, taken over from others, read back, grown,
//! and published.

use bursar_kv::{KvCache, KvError};
use bursar_profile::span;

use super::Generation;
use crate::batch::Decoder;
use crate::holdings::donor;
use crate::schedule::{Run, Who};
use crate::sequence::Sequence;
use crate::spill::{Spill, Spilled, worth_spilling};

impl<D: Decoder> Generation<D> {
    /// Preempts, lets in, and fills the batch; gives the tokens of prompts in it.
    pub(super) fn fill(&mut self) -> usize {
        let _span = span!("engine.fill");
        let mut decision = std::mem::take(&mut self.lists.decision);
        for &place in &decision.preempt {
            self.preempt(place);
        }
        self.enter(&mut decision.runs);
        // All take over what is stored before anything new is taken, which might be made of it.
        for run in &decision.runs {
            if let Who::Running(place) = run.who {
                self.adopt(place, run);
            }
        }
        let mut prompts = 0;
        let mut refused = None;
        self.lists.batch.clear();
        for run in &decision.runs {
            let Who::Running(place) = run.who else {
                continue;
            };
            match self.grow(place, run) {
                Ok(tokens) => prompts += tokens,
                // The decision left blocks for every run; the system may have refused the memory for
                // one all the same. It is tried again in the next step.
                Err(error) => {
                    refused.get_or_insert((place, error));
                }
            }
        }
        if self.lists.batch.len() == 0
            && let Some((place, error)) = refused
        {
            // With nothing running, nothing will come free.
            self.running[place].fail(error.into());
        }
        self.lists.decision = decision;
        prompts
    }

    /// Frees a running sequence's blocks, having written them away if that is worth it; it leaves when
    /// the step is over.
    pub(super) fn preempt(&mut self, place: usize) {
        let sequence = &mut self.running[place];
        self.totals.preemptions += 1;
        let own: usize = (sequence.table.blocks().iter())
            .filter(|&&block| self.kv.references(block) == 1)
            .count();
        let block_bytes = self.kv.layout().block_bytes();
        let stored = sequence.table.len();
        let tokens = stored.min(own * self.block_tokens);
        if let Some(spill) = &mut self.spill
            && worth_spilling(&self.rates, own * block_bytes, tokens)
        {
            let start = (self.clock)();
            let mut written = 0;
            for index in 0..sequence.table.blocks().len() {
                let block = sequence.table.blocks()[index];
                // What others hold is likely to be there still.
                if self.kv.references(block) > 1 || sequence.spilled(index).is_some() {
                    continue;
                }
                match spill.file.write(self.kv.block_bytes(block)) {
                    Ok(Some(slot)) => {
                        let tokens = self.block_tokens.min(stored - index * self.block_tokens);
                        sequence.keep(Spilled {
                            index,
                            tokens,
                            slot,
                        });
                        written += block_bytes;
                    }
                    Ok(None) => break,
                    Err(_) => {
                        self.totals.spill_failures += 1;
                        break;
                    }
                }
            }
            if written > 0 {
                let time = (self.clock)().saturating_sub(start);
                self.rates.write.observe(written, time);
                self.totals.spills += 1;
                self.totals.spilled_bytes += written as u64;
            }
        }
        self.kv.free(&mut sequence.table);
    }

    /// Lets in those of the waiting that run, and has them named by their new places. Places among the
    /// running stay as decided until the step is over: new ones go behind, and preempted ones leave at
    /// the end.
    fn enter(&mut self, runs: &mut [Run]) {
        let entering = |run: &&mut Run| matches!(run.who, Who::Waiting(_));
        let mut entered = 0;
        let first = self.running.len();
        for run in runs.iter_mut().filter(entering) {
            let Who::Waiting(place) = run.who else {
                continue;
            };
            // They are named in order, each once, and those before have left already.
            debug_assert_eq!(place, entered);
            let mut sequence = self.waiting.remove(place - entered);
            sequence.prepare(self.block_tokens, self.spill.is_some());
            if self.rules.contiguous {
                let longest = sequence.candidate().longest;
                // The decision left room for all of it; where the system refuses the memory, blocks are
                // taken one by one.
                let _ = self.kv.take_ahead(&mut sequence.table, longest);
            }
            self.running.push(sequence);
            run.who = Who::Running(first + entered);
            entered += 1;
        }
        let mut promoted = false;
        for waits in &mut self.waiting {
            let before = waits.seniority();
            let later = |s: &&Sequence| s.seniority().order > before.order;
            let times = self.running[first..].iter().filter(later).count() as u32;
            waits.overtake(times);
            self.totals.overtakes += u64::from(times);
            promoted |= before.promoted() != waits.seniority().promoted();
        }
        if promoted {
            self.waiting
                .sort_by(|a, b| a.seniority().order(b.seniority()));
        }
    }

    /// Makes a running sequence's own what the cache or another one stores of its tokens.
    fn adopt(&mut self, place: usize, run: &Run) {
        let from = self.running[place].table.len();
        if from >= run.from || !self.shares() {
            return;
        }
        let sequence = &mut self.running[place];
        let keys = from / self.block_tokens..run.from / self.block_tokens;
        let mut table = std::mem::take(&mut sequence.table);
        let last = keys.end.min(sequence.keys().len());
        self.kv
            .adopt(&mut table, &sequence.keys()[keys.start..last]);
        sequence.table = table;
        let covered = sequence.table.len();
        if run.from - covered < self.block_tokens
            && run.from > covered
            && run.tokens > 0
            && let Some(donor) = donor(&self.running, &self.running[place], &[])
        {
            let mut table = std::mem::take(&mut self.running[place].table);
            self.kv.free(&mut table);
            self.kv
                .fork_into(&self.running[donor].table, run.from, &mut table);
            self.running[place].table = table;
            self.totals.forks += 1;
        }
        self.totals.prefix_hit_tokens += self.running[place].adopted(from) as u64;
    }

    fn shares(&self) -> bool {
        self.rules.fingerprint.is_some()
    }

    /// Restores what is on disk of a running sequence, and adds its tokens to the batch; gives how many
    /// of them are scheduled as a prompt's.
    fn grow(&mut self, place: usize, run: &Run) -> Result<usize, KvError> {
        self.restore(place, run.from);
        let sequence = &mut self.running[place];
        let pending = sequence.candidate().pending;
        let tokens = run.tokens.min(pending);
        if tokens == 0 {
            return Ok(0);
        }
        self.kv.append(&mut sequence.table, tokens)?;
        self.totals.recomputed_tokens += sequence.computed(tokens) as u64;
        // One token alone may be the last of a prompt, where a piece of it ended just before. It is scheduled
        // like one of an answer.
        if pending > 1 || sequence.generated() == 0 {
            self.totals.prefill_tokens += tokens as u64;
        }
        self.lists.batch.push(place, sequence, tokens);
        self.forget(place);
        Ok(if pending > 1 { tokens } else { 0 })
    }

    /// Reads a running sequence's blocks from disk, up to the token at `to`.
    fn restore(&mut self, place: usize, to: usize) {
        let sequence = &mut self.running[place];
        let Some(spill) = &mut self.spill else {
            return;
        };
        let from = sequence.table.len();
        let start = (self.clock)();
        let mut bytes = 0;
        while sequence.table.len() < to && sequence.table.len().is_multiple_of(self.block_tokens) {
            let index = sequence.table.len() / self.block_tokens;
            let Some(spilled) = sequence.take_spilled(index) else {
                break;
            };
            let read = spill.file.read(&spilled.slot, &mut spill.block);
            spill.file.release(spilled.slot);
            let tokens = spilled.tokens.min(to - sequence.table.len());
            if read.is_err() || self.kv.append(&mut sequence.table, tokens).is_err() {
                self.totals.spill_failures += 1;
                break;
            }
            let block = sequence.table.blocks()[index];
            self.kv.block_bytes_mut(block).copy_from_slice(&spill.block);
            bytes += spill.block.len();
            if tokens == self.block_tokens
                && let Some(key) = sequence.key(index).copied()
            {
                self.kv.publish(&mut sequence.table, index, key);
            }
        }
        if bytes > 0 {
            let time = (self.clock)().saturating_sub(start);
            self.rates.read.observe(bytes, time);
            self.totals.restored_bytes += bytes as u64;
            sequence.adopted(from);
        }
    }

    /// Lets go of a running sequence's blocks on disk that are behind it now.
    fn forget(&mut self, place: usize) {
        let sequence = &mut self.running[place];
        let Some(spill) = &mut self.spill else {
            return;
        };
        let behind = |s: &Spilled| s.index * self.block_tokens < sequence.table.len();
        while sequence.spilled.front().is_some_and(behind) {
            if let Some(spilled) = sequence.spilled.pop_front() {
                spill.file.release(spilled.slot);
            }
        }
    }

    /// Lets others find the blocks that the step has filled.
    pub(super) fn publish(&mut self) {
        let _span = span!("engine.publish");
        if !self.shares() {
            return;
        }
        for run in &self.lists.decision.runs {
            let Who::Running(place) = run.who else {
                continue;
            };
            let sequence = &mut self.running[place];
            let full = sequence.table.len() / self.block_tokens;
            for index in run.from / self.block_tokens..full {
                if let Some(key) = sequence.key(index).copied() {
                    self.kv.publish(&mut sequence.table, index, key);
                }
            }
        }
    }
}

/// Lets go of all that a sequence holds, in memory and on disk.
pub(super) fn release(kv: &mut KvCache, spill: &mut Option<Spill>, sequence: &mut Sequence) {
    kv.free(&mut sequence.table);
    if let Some(spill) = spill {
        for spilled in sequence.spilled.drain(..) {
            spill.file.release(spilled.slot);
        }
    }
}
