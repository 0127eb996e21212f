//! Blocks and the memory they stand for: one mapping, charged to an account, touched block by block.

use bursar_kernels::kv_view::{KvLayout, KvView};
use bursar_memory::{Account, Bytes, HugePages, Mapping, Reservation};

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
    books: Reservation,
    written_peak: usize,
}

/// What a cache holds.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct KvReport {
    /// Blocks in all.
    pub blocks_total: usize,
    /// Blocks that sequences hold.
    pub blocks_used: usize,
    /// The most blocks that were ever held at once, which is how many have been written: free blocks
    /// are taken most recently used first.
    pub blocks_peak: usize,
    /// Tokens of a block.
    pub block_tokens: usize,
    /// Bytes of a token's keys and values in all layers.
    pub bytes_per_token: Bytes,
    /// Bytes of the blocks that sequences hold.
    pub bytes_used: Bytes,
    /// Bytes of all blocks.
    pub bytes_total: Bytes,
    /// Bytes of the books.
    pub bytes_books: Bytes,
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
        // Attention reads a block in pieces of a few KiB, one per head: with small pages each is a TLB
        // miss or two, a fifth of its time. All of the mapping is charged, so that a huge page that is
        // touched early costs nothing that was not granted.
        let memory = Mapping::new(memory, HugePages::Advise)?;
        let blocks = u32::try_from(plan.blocks()).expect("a plan counts blocks in u32");
        Ok(Self {
            plan,
            blocks: Blocks::new(blocks),
            memory,
            books,
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

    /// Counts the bytes that are really there and notes them on the account, to be shown beside what
    /// was granted. Looks at every page: milliseconds for a gigabyte of small ones.
    pub fn measure(&self) {
        // Where the kernel does not tell, what was granted stands alone.
        if let Ok(resident) = self.memory.resident() {
            let bytes = resident.saturating_add(self.plan.books_bytes());
            self.books.account().set_measured(bytes);
        }
    }

    /// What it holds now.
    pub fn report(&self) -> KvReport {
        let block_bytes = self.plan.layout().block_bytes() as u64;
        KvReport {
            blocks_total: self.blocks.total(),
            blocks_used: self.blocks.used(),
            blocks_peak: self.written_peak,
            block_tokens: self.plan.layout().block_tokens(),
            bytes_per_token: self.plan.bytes_per_token(),
            bytes_used: Bytes(block_bytes * self.blocks.used() as u64),
            bytes_total: Bytes(block_bytes * self.blocks.total() as u64),
            bytes_books: self.plan.books_bytes(),
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
        assert_eq!(report.bytes_used, Bytes(0));
        assert_eq!(report.bytes_total.0, 4 * report.bytes_per_token.0 * 16);
        drop(cache);
        assert_eq!(ledger.granted(), Bytes(0));
    }

    #[test]
    fn absurd_appends_are_refused() {
        let (_, mut cache) = cache(4);
        let mut table = BlockTable::with_capacity(64, 16);
        cache.append(&mut table, 20).expect("room");
        assert!(cache.append(&mut table, usize::MAX).is_err());
        assert_eq!((table.len(), table.blocks().len()), (20, 2));
        cache.append(&mut table, 0).expect("nothing");
        cache.append(&mut table, 44).expect("the rest");
        cache.free(&mut table);
        assert!(table.is_empty());
    }

    #[test]
    fn a_view_shows_what_was_written() {
        use bursar_kernels::attention::{AttentionShape, attention, attention_scratch_len};
        use bursar_kernels::isa::Isa;
        use bursar_kernels::kv_view::kv_write;
        use bursar_kernels::mat::{MatMut, MatRef};

        let (_, mut cache) = cache(4);
        let (mut a, mut b) = (BlockTable::new(), BlockTable::new());
        // Two sequences grow in turns, so that their blocks alternate.
        let layout = *cache.layout();
        let mut expected = [0.0; 2];
        for token in 0..20u16 {
            for (table, sign) in [(&mut a, 1.0), (&mut b, -1.0)] {
                cache.append(table, 1).expect("room");
                let value = sign * f32::from(token);
                let row = [value; 32];
                let (k, v) = (MatRef::dense(&[0.0; 32], 1, 32), MatRef::dense(&row, 1, 32));
                let (blocks, pos) = (table.blocks(), table.len() - 1);
                kv_write(Isa::best(), layout, cache.bytes_mut(), blocks, 1, pos, k, v);
                expected[usize::from(sign < 0.0)] += value / 20.0;
            }
        }
        assert_ne!(a.blocks()[1], a.blocks()[0] + 1);
        let shape = AttentionShape {
            heads: 1,
            kv_heads: 1,
            head_dim: 32,
            scale: 1.0,
            causal: true,
            window: None,
        };
        let mut scratch = vec![0.0; attention_scratch_len(&shape)];
        for (table, expected) in [&a, &b].into_iter().zip(expected) {
            let mut out = [0.0; 32];
            let (q, to) = (
                MatRef::dense(&[0.0; 32], 1, 32),
                MatMut::dense(&mut out, 1, 32),
            );
            let kv = cache.view(table);
            attention(Isa::best(), &shape, kv, 1, 0..1, q, 19, to, &mut scratch);
            // Equal scores: the mean of the values.
            assert!(
                out.iter().all(|x| (x - expected).abs() < 1e-5),
                "{out:?} {expected}"
            );
        }
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
