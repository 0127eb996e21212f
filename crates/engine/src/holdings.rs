//! What a decision is told about blocks: who holds which, what is stored already, and what would
//! come free.

use bursar_kv::KvCache;

use crate::schedule::{Books, Found, Run, Who};
use crate::sequence::Sequence;

/// The sequences and the cache, between two steps.
pub(crate) struct Holdings<'a> {
    pub(crate) kv: &'a KvCache,
    pub(crate) running: &'a [Sequence],
    pub(crate) waiting: &'a [Sequence],
    pub(crate) block_tokens: usize,
}

impl Holdings<'_> {
    fn sequence(&self, who: Who) -> &Sequence {
        match who {
            Who::Running(place) => &self.running[place],
            Who::Waiting(place) => &self.waiting[place],
        }
    }

    /// The blocks that a running sequence's tokens lie in, without those taken ahead.
    fn needed(&self, place: usize) -> &[u32] {
        let table = &self.running[place].table;
        &table.blocks()[..table.len().div_ceil(self.block_tokens)]
    }

    /// Whether a block, the one at `index` of all tables that have it, stays held.
    fn stays(&self, block: u32, index: usize, leaving: &[usize]) -> bool {
        let has = |&&place: &&usize| self.running[place].table.blocks().get(index) == Some(&block);
        let gone = leaving.iter().filter(has).count();
        self.kv.references(block) as usize > gone
    }

    /// Whether a run makes the block with the key that `owner` has at `index` its own.
    fn adopted(&self, owner: &Sequence, index: usize, run: &Run) -> bool {
        let sequence = self.sequence(run.who);
        let blocks = sequence.table.len() / self.block_tokens..run.from / self.block_tokens;
        blocks.contains(&index)
            && sequence.key(index).is_some()
            && sequence.key(index) == owner.key(index)
    }
}

/// A running sequence that stores all of this one's prompt but its last token; senior to it, so that
/// no decision takes it away first.
pub(crate) fn donor(running: &[Sequence], sequence: &Sequence, leaving: &[usize]) -> Option<usize> {
    let (most, rest) = sequence.rest()?;
    if most != sequence.adoptable() {
        return None;
    }
    running.iter().enumerate().position(|(place, other)| {
        other.rest() == Some((most, rest))
            && other.table.len() >= most
            && other.seniority().before(sequence.seniority())
            && !leaving.contains(&place)
    })
}

impl Books for Holdings<'_> {
    fn available(&self) -> usize {
        // What sequences took ahead is there for them: they count as not having it yet.
        let ahead = self.running.iter().map(|sequence| {
            let needed = sequence.table.len().div_ceil(self.block_tokens);
            sequence.table.blocks().len() - needed
        });
        self.kv.available() + ahead.sum::<usize>()
    }

    fn freed(&self, leaving: &[usize], runs: &[Run]) -> usize {
        let stays = |run: &&Run| match run.who {
            Who::Running(place) => !leaving.contains(&place),
            Who::Waiting(_) => true,
        };
        let free = |order: usize, index: usize, block: u32| {
            // Of those who leave and have it, the first counts it: where several do, it is at the same
            // index of all.
            let before = leaving[..order].iter();
            let after = leaving[order + 1..].iter();
            let has = |place: &&usize| self.needed(**place).get(index) == Some(&block);
            let references = self.kv.references(block) as usize;
            let alone = references == 1
                || (before.filter(has).count() == 0 && references == 1 + after.filter(has).count());
            let owner = &self.running[leaving[order]];
            let mut runs = runs.iter().filter(stays);
            alone && !runs.any(|run| self.adopted(owner, index, run))
        };
        let blocks = leaving.iter().enumerate().flat_map(|(order, &place)| {
            let needed = self.needed(place).iter().enumerate();
            needed.map(move |(index, &block)| (order, index, block))
        });
        blocks
            .filter(|&(order, index, block)| free(order, index, block))
            .count()
    }

    fn found(&self, who: Who, leaving: &[usize]) -> Found {
        let sequence = self.sequence(who);
        let stored = sequence.table.len();
        let mut found = Found {
            tokens: stored,
            held: 0,
        };
        if !stored.is_multiple_of(self.block_tokens) {
            return found;
        }
        let most = sequence.adoptable();
        let whole = most / self.block_tokens;
        let mut index = stored / self.block_tokens;
        while index < whole {
            let key = sequence.key(index);
            let Some(block) = key.and_then(|key| self.kv.find(key)) else {
                break;
            };
            found.held += usize::from(self.stays(block, index, leaving));
            index += 1;
        }
        found.tokens = index * self.block_tokens;
        if index == whole && donor(self.running, sequence, leaving).is_some() {
            found.tokens = most;
            return found;
        }
        while let Some(tokens) = sequence.spilled(index) {
            found.tokens = index * self.block_tokens + tokens;
            index += 1;
            if tokens < self.block_tokens || found.tokens > most {
                break;
            }
        }
        // What was written away may be all that is to be run.
        if found.tokens > most {
            found.tokens = most.max(stored);
        }
        found
    }

    fn computed_by(&self, who: Who, from: usize, runs: &[Run]) -> bool {
        if !from.is_multiple_of(self.block_tokens) {
            return false;
        }
        let sequence = self.sequence(who);
        let index = from / self.block_tokens;
        let whole = sequence.adoptable() / self.block_tokens;
        runs.iter().any(|run| {
            let end = run.from + run.tokens;
            let touches = (run.from / self.block_tokens..end.div_ceil(self.block_tokens))
                .contains(&index)
                && run.tokens > 0;
            if !touches {
                return false;
            }
            let other = self.sequence(run.who);
            if index < whole {
                sequence.key(index).is_some() && sequence.key(index) == other.key(index)
            } else {
                // Taken over from the other as long as that one runs.
                let rest = sequence.rest();
                rest.is_some_and(|(most, _)| from < most && most == sequence.adoptable())
                    && rest == other.rest()
                    && other.runs_on()
            }
        })
    }
}
