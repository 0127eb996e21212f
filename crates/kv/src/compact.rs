//! Moving blocks together, so that whole slabs go back to the operating system.
//!
//! `plan` decides from the books alone which blocks move where: the slabs that hold least are emptied
//! into the gaps of those that hold most. [`KvCache::compact`] then copies, tells the tables, the index
//! and the books, and gives the idle slabs back. Only blocks all of whose holders are known move, and
//! since the cache is borrowed, no pass reads meanwhile.

use std::time::Duration;

use bursar_memory::Bytes;

use crate::bits::Bits;
use crate::blocks::{BlockId, Blocks, State};
use crate::cache::KvCache;
use crate::list::NONE;
use crate::table::BlockTable;

/// When compaction begins.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Triggers {
    /// When more than this share of the committed bytes lies empty in partly used slabs, 0 to 1.
    pub fragmentation: f64,
    /// When less than this share of the committed bytes is used or cached, 0 to 1.
    pub efficiency: f64,
}

impl Default for Triggers {
    fn default() -> Self {
        Self {
            fragmentation: 0.30,
            efficiency: 0.70,
        }
    }
}

impl Triggers {
    /// Begins whatever the shares are.
    pub const ALWAYS: Triggers = Triggers {
        fragmentation: -1.0,
        efficiency: 2.0,
    };
}

/// What one compaction did.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Compaction {
    /// Blocks that are elsewhere now.
    pub moved_blocks: usize,
    /// Bytes copied for that.
    pub moved_bytes: Bytes,
    /// Slabs that are vacant now.
    pub slabs_returned: usize,
    /// Bytes that the operating system got back, as it counts them.
    pub bytes_returned: Bytes,
}

impl Compaction {
    /// Whether it did anything.
    pub fn is_empty(&self) -> bool {
        self.moved_blocks == 0 && self.slabs_returned == 0
    }
}

/// When a compaction was, and how long it took.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct CompactionTime {
    /// Milliseconds since 1970.
    pub unix_ms: u64,
    /// How long.
    pub duration: Duration,
}

/// Counts since the start.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct CompactionStats {
    /// Compactions that did anything.
    pub count: u64,
    /// Blocks moved.
    pub moved_blocks: u64,
    /// Bytes moved.
    pub moved_bytes: Bytes,
    /// Slabs given back, by trimming too.
    pub returned_slabs: u64,
    /// Bytes that the operating system got back, as it counts them.
    pub returned_bytes: Bytes,
    /// Time they took together, as far as it was told.
    pub time: Duration,
    /// The last of which the time was told.
    pub last: Option<CompactionTime>,
}

/// A block and where it goes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Move {
    /// A used or cached block.
    pub from: BlockId,
    /// A free one.
    pub to: BlockId,
}

/// Room for the decision, made once.
#[derive(Debug)]
pub(crate) struct Scratch {
    /// How often the known tables have each block.
    entries: Box<[u32]>,
    /// Where each block goes, or `NONE`.
    targets: Box<[u32]>,
    moves: Vec<Move>,
    order: Vec<u32>,
    /// Slabs with a block that someone unknown holds.
    pinned: Bits,
}

impl Scratch {
    pub(crate) fn new(blocks: u32, per_slab: u32) -> Self {
        let slabs = blocks.div_ceil(per_slab);
        Self {
            entries: vec![0; blocks as usize].into(),
            targets: vec![NONE; blocks as usize].into(),
            moves: Vec::with_capacity(blocks as usize),
            order: Vec::with_capacity(slabs as usize),
            pinned: Bits::new(slabs),
        }
    }

    /// Bytes on the heap.
    pub(crate) const fn bytes(blocks: u32, per_slab: u32) -> usize {
        let slabs = blocks.div_ceil(per_slab);
        blocks as usize * (2 * size_of::<u32>() + size_of::<Move>())
            + slabs as usize * size_of::<u32>()
            + Bits::bytes(slabs)
    }

    /// Counts what the tables hold, and with it which slabs must stay.
    fn survey<T: AsMut<BlockTable>>(&mut self, blocks: &Blocks, tables: &mut [T]) {
        self.entries.fill(0);
        for table in tables {
            for &block in table.as_mut().blocks() {
                self.entries[block as usize] += 1;
            }
        }
        for slab in 0..blocks.slabs.count() {
            let known = |block: BlockId| self.entries[block as usize] == blocks.references(block);
            match blocks.slabs.blocks(slab).all(known) {
                true => self.pinned.remove(slab),
                false => self.pinned.insert(slab),
            }
        }
    }
}

/// Decides which blocks move where: at most `budget` of them.
///
/// Slabs are emptied in order of what they hold, least first, as long as all of it fits into the gaps
/// of those behind them; the gaps of the fullest are filled first. A slab that the budget does not reach
/// to the end of is begun only if it is the first, so that a small budget gets somewhere too. Slabs that
/// are idle are neither emptied nor filled, and those that are `pinned` are filled only.
fn plan(
    blocks: &Blocks,
    pinned: &Bits,
    budget: usize,
    order: &mut Vec<u32>,
    moves: &mut Vec<Move>,
) {
    let slabs = &blocks.slabs;
    moves.clear();
    order.clear();
    let partly = |slab: &u32| {
        let slab = slabs.get(*slab);
        slab.live() > 0 && slab.free.len > 0
    };
    order.extend((0..slabs.count()).filter(partly));
    let is_pinned = |slab: u32| pinned.contains(slab);
    // Of those that hold as much, higher ones are emptied: blocks are taken from the lowest.
    order.sort_unstable_by_key(|&slab| (is_pinned(slab), slabs.get(slab).live(), !slab));

    let in_state = |slab: u32, wanted: fn(State) -> bool| {
        let range = slabs.blocks(slab);
        range.filter(move |&block| wanted(blocks.state(block)))
    };
    let free = |slab: u32| in_state(slab, |state| state == State::Free);
    let live = |slab: u32| in_state(slab, |state| matches!(state, State::Used | State::Cached));
    // Gaps of the slabs behind those emptied, less those filled.
    let mut room: usize = order.iter().map(|&s| slabs.get(s).free.len as usize).sum();
    let mut gaps = order.iter().rev().flat_map(|&slab| free(slab));
    for &slab in order.iter() {
        let record = slabs.get(slab);
        let holds = record.live() as usize;
        room = room.saturating_sub(record.free.len as usize);
        let left = budget - moves.len();
        if is_pinned(slab) || holds > room || left == 0 || (holds > left && !moves.is_empty()) {
            break;
        }
        room -= holds;
        let pairs = live(slab).zip(&mut gaps).take(left.min(holds));
        moves.extend(pairs.map(|(from, to)| Move { from, to }));
    }
}

impl KvCache {
    /// Whether the shares of the books are past the triggers, and there are slabs to gain.
    pub fn wants_compaction(&self, triggers: &Triggers) -> bool {
        let report = self.report();
        let past = report.fragmentation() > triggers.fragmentation
            || report.efficiency() < triggers.efficiency;
        past && self.blocks.slabs.can_return_one()
    }

    /// If a trigger is past, moves at most `budget` bytes of blocks (at least one block) out of the
    /// slabs that hold least, and gives every idle slab back to the operating system.
    ///
    /// `tables` are the sequences whose blocks may move: those of others, and blocks that are held
    /// outside of tables, stay. The time it took is told by [`KvCache::compacted`].
    pub fn compact<T: AsMut<BlockTable>>(
        &mut self,
        tables: &mut [T],
        budget: Bytes,
        triggers: &Triggers,
    ) -> Compaction {
        if !self.wants_compaction(triggers) {
            return Compaction::default();
        }
        let block_bytes = self.layout().block_bytes() as u64;
        let budget = usize::try_from(budget.0 / block_bytes).unwrap_or(usize::MAX);
        self.scratch.survey(&self.blocks, tables);
        let Scratch {
            pinned,
            order,
            moves,
            ..
        } = &mut self.scratch;
        plan(&self.blocks, pinned, budget.max(1), order, moves);
        let moved_blocks = self.carry_out(tables);
        let (slabs_returned, bytes_returned) = self.trim();
        let compaction = Compaction {
            moved_blocks,
            moved_bytes: Bytes(moved_blocks as u64 * block_bytes),
            slabs_returned,
            bytes_returned,
        };
        let stats = &mut self.compactions;
        stats.count += u64::from(!compaction.is_empty());
        stats.moved_blocks += moved_blocks as u64;
        stats.moved_bytes = stats.moved_bytes.saturating_add(compaction.moved_bytes);
        compaction
    }

    /// Carries out the planned moves; gives how many.
    fn carry_out<T: AsMut<BlockTable>>(&mut self, tables: &mut [T]) -> usize {
        let count = self.scratch.moves.len();
        for i in 0..count {
            let Move { from, to } = self.scratch.moves[i];
            self.blocks.relocate(from, to);
            if self.blocks.is_keyed(to) {
                self.index.relocate(from, to);
            }
            self.copy(from, to);
            self.scratch.targets[from as usize] = to;
        }
        if count > 0 {
            for table in tables {
                for block in table.as_mut().blocks_mut() {
                    let target = self.scratch.targets[*block as usize];
                    *block = if target == NONE { *block } else { target };
                }
            }
        }
        for Move { from, .. } in &self.scratch.moves {
            self.scratch.targets[*from as usize] = NONE;
        }
        count
    }

    /// Gives every idle slab back to the operating system, bar those that promises need: how many, and
    /// how many bytes went back, as the system counts them. A slab that it refuses to take stays.
    pub fn trim(&mut self) -> (usize, Bytes) {
        let (mut slabs, mut bytes) = (0, Bytes::ZERO);
        for slab in 0..self.blocks.slabs.count() {
            let free = self.blocks.slabs.get(slab).free.len as usize;
            let spare = self.blocks.free() + self.blocks.cached() - self.blocks.reserved();
            if !self.blocks.slabs.is_idle(slab) || free > spare {
                continue;
            }
            if let Ok(returned) = self.memory.give_back(self.plan.slab_range(slab)) {
                self.blocks.vacate(slab);
                slabs += 1;
                bytes = bytes.saturating_add(returned);
            }
        }
        self.compactions.returned_slabs += slabs as u64;
        self.compactions.returned_bytes = self.compactions.returned_bytes.saturating_add(bytes);
        (slabs, bytes)
    }

    /// The last compaction ended at `unix_ms`, in milliseconds since 1970, and took `duration`.
    pub fn compacted(&mut self, unix_ms: u64, duration: Duration) {
        self.compactions.time += duration;
        self.compactions.last = Some(CompactionTime { unix_ms, duration });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PER_SLAB: u32 = 4;

    /// Slabs with that many used blocks each, the lowest ones.
    fn blocks(used: &[u32]) -> Blocks {
        let slabs = used.len() as u32;
        let mut blocks = Blocks::new(slabs * PER_SLAB, PER_SLAB);
        (0..slabs).for_each(|slab| blocks.commit(slab));
        blocks.take_run(0, slabs * PER_SLAB);
        for (slab, &used) in (0..).zip(used) {
            let first = slab * PER_SLAB;
            (first + used..first + PER_SLAB).for_each(|block| blocks.release(block));
        }
        blocks.check();
        blocks
    }

    /// The moves, as slabs: from, to.
    fn planned(used: &[u32], pinned: &[u32], budget: usize) -> Vec<(u32, u32)> {
        let blocks = blocks(used);
        let mut pins = Bits::new(used.len() as u32);
        pinned.iter().for_each(|&slab| pins.insert(slab));
        let (mut order, mut moves) = (Vec::new(), Vec::new());
        plan(&blocks, &pins, budget, &mut order, &mut moves);
        let slab = |block| blocks.slabs.of(block);
        for Move { from, to } in &moves {
            assert_eq!(blocks.state(*from), State::Used);
            assert_eq!(blocks.state(*to), State::Free);
        }
        moves.iter().map(|m| (slab(m.from), slab(m.to))).collect()
    }

    #[test]
    fn the_sparsest_slabs_are_emptied_into_the_fullest() {
        assert_eq!(planned(&[3, 1, 4, 2], &[], 99), [(1, 0)]);
        // Of two that hold as much, the higher one goes.
        assert_eq!(planned(&[2, 3, 2], &[], 99), [(2, 1), (2, 0)]);
        assert_eq!(planned(&[1, 1, 1, 1, 1], &[], 99), [(4, 0), (3, 0), (2, 0)]);
        // No gap is left for a second one; idle slabs are no targets.
        assert_eq!(planned(&[3, 0, 1, 3], &[], 99), [(2, 0)]);
        assert_eq!(planned(&[3, 3, 0], &[], 99), []);
        assert_eq!(planned(&[4, 4, 1], &[], 99), []);
    }

    #[test]
    fn pinned_slabs_are_filled_only() {
        assert_eq!(planned(&[2, 1, 3], &[1], 99), [(0, 1), (0, 1)]);
        assert_eq!(planned(&[1, 1], &[0, 1], 99), []);
    }

    #[test]
    fn the_budget_bounds_what_is_begun() {
        // The second slab would be begun and not ended.
        assert_eq!(planned(&[1, 2, 3, 3, 3], &[], 2), [(0, 2)]);
        // The first one is, so that something happens.
        assert_eq!(planned(&[3, 3, 3, 3], &[], 2), [(3, 0), (3, 1)]);
        assert_eq!(planned(&[3, 3, 3, 3], &[], 3).len(), 3);
    }

    #[test]
    fn nothing_to_gain_is_seen_before_it_is_planned() {
        for (used, gain) in [
            (&[1][..], false),
            (&[4, 4], false),
            (&[3, 3], false),
            (&[2, 2], true),
            (&[3, 1, 4], true),
            (&[4, 0], true),
            (&[0], true),
            (&[3, 3, 3], false),
        ] {
            let blocks = blocks(used);
            assert_eq!(blocks.slabs.can_return_one(), gain, "{used:?}");
            let idle = used.contains(&0);
            assert!(
                idle || gain != planned(used, &[], 99).is_empty(),
                "{used:?}"
            );
        }
    }
}
