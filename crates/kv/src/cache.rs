//! Blocks and the memory they stand for: one mapping, charged to an account, touched block by block.

use bursar_kernels::kv_view::{KvLayout, KvView};
use bursar_memory::{Account, HugePages, Mapping, Reservation};

use crate::KvError;
use crate::blocks::Blocks;
use crate::plan::KvPlan;
use crate::table::BlockTable;

/// The keys and values of all sequences of a model.
#[derive(Debug)]
pub struct KvCache {
    plan: KvPlan,
    blocks: Blocks,
    memory: Mapping,
    _books: Reservation,
    written_peak: usize,
}

/// What a cache holds.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct KvReport {
    /// Blocks in all.
    pub blocks_total: usize,
    /// Blocks that sequences hold.
    pub blocks_used: usize,
    /// The most blocks that were ever held at once.
    pub blocks_peak: usize,
}

impl KvCache {
    /// Reserves the planned bytes from `account` and maps them. Memory is taken by the operating
    /// system's account only as blocks are first written.
    ///
    /// # Errors
    /// When the budget or the system refuses.
    pub fn new(plan: KvPlan, account: &Account) -> Result<Self, KvError> {
        let books = account.reserve(plan.books_bytes())?;
        let memory = account.reserve(plan.blocks_bytes())?;
        // Without huge pages: a block is smaller than one, and the first write to a huge page would
        // take all of it.
        let memory = Mapping::new(memory, HugePages::Never)?;
        let blocks = u32::try_from(plan.blocks()).expect("a plan counts blocks in u32");
        Ok(Self {
            plan,
            blocks: Blocks::new(blocks),
            memory,
            _books: books,
            written_peak: 0,
        })
    }

    /// Where things lie within a block.
    pub fn layout(&self) -> &KvLayout {
        self.plan.layout()
    }

    /// Makes room for `tokens` more tokens of a sequence, across block edges.
    ///
    /// # Errors
    /// When there are not enough free blocks; the table is as it was then.
    pub fn append(&mut self, table: &mut BlockTable, tokens: usize) -> Result<(), KvError> {
        let more = table.blocks_for(tokens, self.plan.layout().block_tokens());
        self.blocks.reserve(more)?;
        for _ in 0..more {
            table.push(self.blocks.acquire());
        }
        table.grow(tokens);
        self.written_peak = self.written_peak.max(self.blocks.used());
        Ok(())
    }

    /// Lets go of all of a sequence's blocks.
    pub fn free(&mut self, table: &mut BlockTable) {
        for block in table.drain() {
            self.blocks.release(block);
        }
    }

    /// A sequence as attention reads it.
    pub fn view<'a>(&'a self, table: &'a BlockTable) -> KvView<'a> {
        KvView {
            layout: *self.plan.layout(),
            bytes: self.memory.as_slice(),
            blocks: table.blocks(),
            len: table.len(),
        }
    }

    /// The bytes of all blocks, to be written by a pass.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.as_mut_slice()
    }

    /// What it holds now.
    pub fn report(&self) -> KvReport {
        KvReport {
            blocks_total: self.blocks.total(),
            blocks_used: self.blocks.used(),
            blocks_peak: self.written_peak,
        }
    }
}

#[cfg(test)]
mod tests {
    use bursar_kernels::kv_view::{KvDtype, KvShape};
    use bursar_memory::{Bytes, Ledger, Lifetime};

    use super::*;

    fn cache(blocks: usize) -> (Ledger, KvCache) {
        let shape = KvShape {
            layers: 2,
            kv_heads: 1,
            head_dim: 32,
            block_tokens: 16,
            dtype_k: KvDtype::F16,
            dtype_v: KvDtype::F16,
        };
        let layout = KvLayout::new(shape).expect("a layout");
        let plan = KvPlan::for_context(layout, blocks * 16, 1).expect("a plan");
        let ledger = Ledger::new(Bytes(1 << 24));
        let account = ledger.root().child("kv", Lifetime::Episodic);
        let cache = KvCache::new(plan, &account).expect("fits");
        assert_eq!(
            ledger.granted(),
            plan.bytes(),
            "the plan is what is charged"
        );
        (ledger, cache)
    }

    #[test]
    fn sequences_grow_across_blocks_and_give_them_back() {
        let (ledger, mut cache) = cache(4);
        let (mut a, mut b) = (BlockTable::new(), BlockTable::new());
        cache.append(&mut a, 15).expect("room");
        cache.append(&mut b, 17).expect("room");
        cache.append(&mut a, 1).expect("room in its block");
        assert_eq!((a.blocks().len(), b.blocks().len()), (1, 2));
        cache.append(&mut a, 1).expect("the last block");
        assert_eq!(cache.report().blocks_used, 4);
        let error = cache.append(&mut b, 16).expect_err("no block is left");
        assert!(
            matches!(
                error,
                KvError::Exhausted {
                    asked: 1,
                    free: 0,
                    total: 4
                }
            ),
            "{error}"
        );
        assert_eq!(b.len(), 17, "a refusal changes nothing");
        assert_eq!(a.lookup(16, 16).map(|(_, within)| within), Some(0));
        assert_eq!(a.lookup(17, 16), None);
        cache.free(&mut a);
        cache.append(&mut b, 16).expect("room again");
        cache.free(&mut b);
        let report = cache.report();
        assert_eq!((report.blocks_used, report.blocks_peak), (0, 4));
        drop(cache);
        assert_eq!(ledger.granted(), Bytes(0));
    }

    #[test]
    fn a_budget_too_small_is_refused_before_anything_is_mapped() {
        let (_, cache) = cache(4);
        let plan = cache.plan;
        let ledger = Ledger::new(Bytes(plan.bytes().0 - 1));
        let error = KvCache::new(plan, &ledger.root()).expect_err("one byte short");
        assert!(matches!(error, KvError::Refused(_)), "{error}");
        assert_eq!(ledger.granted(), Bytes(0));
    }
}
