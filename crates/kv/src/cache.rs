//! The owner of everything: blocks, the index of what they store, and the memory they stand for.
//!
//! Memory is charged slab by slab. The account that a cache opens has all of its bytes as a *floor*, so
//! that what was planned is there when it is needed, and what is *granted* follows what is really in use.
//! A slab that is refused all the same (by a test's faults) is a block that is not there now.
//!
//! Nothing is allocated after [`KvCache::new`], other than by tables that outgrow their capacity.

use std::ops::Range;

use bursar_kernels::kv_view::{KvLayout, KvView};
use bursar_memory::region::HUGE_PAGE_LEN;
use bursar_memory::{
    Account, AccountOptions, Bytes, HugePages, Lifetime, Refusal, Reservation, SparseMapping,
};

use crate::KvError;
use crate::blocks::{BlockId, Blocks, State};
use crate::compact::{CompactionStats, Scratch};
use crate::plan::KvPlan;
use crate::prefix::{BlockKey, PrefixIndex};
use crate::report::KvReport;
use crate::table::BlockTable;

/// How a cache works.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct KvOptions {
    /// Blocks that have a key are kept when they are let go, and found again. Without, keys are
    /// ignored.
    pub prefix_cache: bool,
}

impl Default for KvOptions {
    fn default() -> Self {
        Self { prefix_cache: true }
    }
}

/// What a search for keys finds.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Blocks with these keys, from the first on.
    pub blocks: usize,
    /// How many of them nobody holds: they count among those available until they are adopted.
    pub cached: usize,
}

/// Counts of the cache's own.
#[derive(Copy, Clone, Debug, Default)]
struct Counts {
    prefix_hit_tokens: u64,
    evictions: u64,
    deduplications: u64,
    copies: u64,
    refusals: u64,
}

/// The keys and values of all sequences of a model.
#[derive(Debug)]
pub struct KvCache {
    pub(crate) plan: KvPlan,
    options: KvOptions,
    pub(crate) blocks: Blocks,
    pub(crate) index: PrefixIndex,
    pub(crate) scratch: Scratch,
    pub(crate) compactions: CompactionStats,
    counts: Counts,
    pub(crate) memory: SparseMapping,
    _books: Reservation,
}

impl KvCache {
    /// Opens an account `kv` below `parent` with the planned bytes as its floor, and takes address space
    /// for them. The books are charged at once, slabs as they are needed.
    ///
    /// # Errors
    /// When the budget or the system refuses.
    pub fn new(plan: KvPlan, parent: &Account, options: KvOptions) -> Result<Self, KvError> {
        let floor = AccountOptions::new(Lifetime::Episodic).floor(plan.bytes());
        let account = parent.child_with("kv", floor)?;
        let books = account.reserve(plan.books_bytes())?;
        let layout = plan.layout();
        // Attention reads a block in pieces of a few KiB, one per head: with small pages each is a TLB
        // miss or two, a fifth of its time. A slab of whole huge pages is charged whole, so that a huge
        // page that is touched early costs nothing that was not granted.
        let huge = match layout.slab_bytes().is_multiple_of(HUGE_PAGE_LEN) {
            true => HugePages::Advise,
            false => HugePages::Never,
        };
        let memory = SparseMapping::new(&account, plan.address_bytes(), huge)?;
        let blocks = u32::try_from(plan.blocks()).expect("a plan counts blocks in u32");
        let per_slab = layout.blocks_per_slab();
        Ok(Self {
            plan,
            options,
            blocks: Blocks::new(blocks, per_slab),
            index: PrefixIndex::new(blocks),
            scratch: Scratch::new(blocks, per_slab),
            compactions: CompactionStats::default(),
            counts: Counts::default(),
            memory,
            _books: books,
        })
    }

    /// What it was made by.
    pub fn plan(&self) -> &KvPlan {
        &self.plan
    }

    /// Where things lie within a block, and blocks within slabs.
    pub fn layout(&self) -> &KvLayout {
        self.plan.layout()
    }

    /// How it works.
    pub fn options(&self) -> KvOptions {
        self.options
    }

    /// The account that it is charged to.
    pub fn account(&self) -> &Account {
        self.memory.account()
    }

    /// What time it is, in ms from any start that stays the same: nothing here reads a clock. Time that
    /// runs backwards stands still.
    pub fn tick(&mut self, now_ms: u64) {
        self.blocks.tick(now_ms);
    }

    /// Blocks that can be taken: free, vacant and cached ones, less those promised, and less those
    /// beyond the capacity.
    pub fn available(&self) -> usize {
        self.blocks.available()
    }

    /// What a block is.
    pub fn state(&self, block: BlockId) -> State {
        self.blocks.state(block)
    }

    /// How many hold a block.
    pub fn references(&self, block: BlockId) -> u32 {
        self.blocks.references(block)
    }

    /// Promises `count` blocks: as many [`KvCache::acquire`]s will then succeed. Commits the slabs
    /// that they need.
    ///
    /// # Errors
    /// When so many are not available, or the ledger refuses their slabs; nothing is promised then.
    pub fn reserve(&mut self, count: usize) -> Result<(), KvError> {
        if count <= self.blocks.available() {
            let provided = self.provide(count);
            if self.blocks.reserve(count) {
                return Ok(());
            }
            provided?;
        }
        Err(KvError::Exhausted {
            asked: count,
            free: self.blocks.available(),
            total: self.capacity(),
        })
    }

    /// Takes back a promise of `count` blocks.
    ///
    /// # Panics
    /// When so many are not promised.
    pub fn unreserve(&mut self, count: usize) {
        self.blocks.unreserve(count);
    }

    /// Takes a promised block, held once: a free one, else the least recently used cached one. What it
    /// stores is undefined.
    ///
    /// # Panics
    /// When none is promised.
    pub fn acquire(&mut self) -> BlockId {
        self.blocks.unreserve(1);
        // Its slab may have been trimmed, or its block have been part of a run. Where another is
        // refused, a cached block gives way.
        let _ = self.provide(1);
        if let Some(block) = self.blocks.take_free() {
            return block;
        }
        self.drop_cached(1);
        self.blocks.take_free().expect("promised blocks are there")
    }

    /// Takes one block, held once.
    ///
    /// # Errors
    /// When none is available.
    pub fn allocate(&mut self) -> Result<BlockId, KvError> {
        self.reserve(1)?;
        Ok(self.acquire())
    }

    /// Holds a block in use once more.
    ///
    /// # Panics
    /// When it is not in use.
    pub fn share(&mut self, block: BlockId) {
        self.blocks.share(block);
    }

    /// Lets go of a block once. When the last holder does, it is cached if it has a key, else free.
    ///
    /// # Panics
    /// When nobody holds it.
    pub fn release(&mut self, block: BlockId) {
        self.blocks.release(block);
    }

    /// Makes room for `tokens` more tokens of a sequence, across block edges. If its last block is
    /// partly filled and shared, the sequence gets a copy of its own first.
    ///
    /// # Errors
    /// When there are not enough blocks; the table is as it was then.
    pub fn append(&mut self, table: &mut BlockTable, tokens: usize) -> Result<(), KvError> {
        let more = self.blocks_to_append(table, tokens);
        self.reserve(more)?;
        let fresh = more - self.own_partial(table, tokens);
        for _ in 0..fresh {
            let block = self.acquire();
            table.push(block);
        }
        table.grow(tokens);
        Ok(())
    }

    /// Blocks that appending `tokens` takes, a copy of a shared last block included.
    pub fn blocks_to_append(&self, table: &BlockTable, tokens: usize) -> usize {
        let copies = tokens > 0 && self.partial_is_shared(table);
        // An absurd sum is refused.
        let more = table.blocks_for(tokens, self.layout().block_tokens());
        more.saturating_add(usize::from(copies))
    }

    fn partial_is_shared(&self, table: &BlockTable) -> bool {
        let partial = table.partial(self.layout().block_tokens());
        partial.is_some_and(|block| self.references(block) > 1)
    }

    /// Makes the last block writable if it is about to be written. Gives the promised blocks it took.
    pub(crate) fn own_partial(&mut self, table: &mut BlockTable, tokens: usize) -> usize {
        let partial = table.partial(self.layout().block_tokens());
        let Some(shared) = partial.filter(|_| tokens > 0) else {
            return 0;
        };
        if self.references(shared) == 1 {
            // It may be full for another sequence that is gone: what that stored ends here.
            self.forget(shared);
            return 0;
        }
        let own = self.acquire();
        self.copy(shared, own);
        table.replace(table.len() / self.layout().block_tokens(), own);
        self.release(shared);
        self.counts.copies += 1;
        1
    }

    /// A sequence that begins with the first `tokens` of another's, in the same blocks.
    ///
    /// # Panics
    /// When the other has fewer.
    pub fn fork(&mut self, table: &BlockTable, tokens: usize) -> BlockTable {
        let mut forked = BlockTable::new();
        self.fork_into(table, tokens, &mut forked);
        forked
    }

    /// As [`KvCache::fork`], into an empty table that may have its capacity already.
    ///
    /// # Panics
    /// When the other has fewer, or `to` is not empty.
    pub fn fork_into(&mut self, table: &BlockTable, tokens: usize, to: &mut BlockTable) {
        assert!(tokens <= table.len(), "{tokens} of {} tokens", table.len());
        assert!(to.blocks().is_empty(), "a table that is not empty");
        let count = tokens.div_ceil(self.layout().block_tokens());
        for &block in &table.blocks()[..count] {
            self.blocks.share(block);
            to.push(block);
        }
        to.grow(tokens);
    }

    /// The block that stores what a key says.
    pub fn find(&self, key: &BlockKey) -> Option<BlockId> {
        self.index.find(key)
    }

    /// The keys of consecutive blocks: how many [`KvCache::adopt`] would find.
    pub fn lookup(&self, keys: &[BlockKey]) -> Found {
        let mut found = Found::default();
        for block in keys.iter().map_while(|key| self.index.find(key)) {
            found.blocks += 1;
            found.cached += usize::from(self.state(block) == State::Cached);
        }
        found
    }

    /// Appends stored blocks to a sequence: the longest run of `keys`, which are those of the blocks
    /// after its last one. Gives the tokens in them.
    ///
    /// # Panics
    /// When the sequence ends within a block.
    pub fn adopt(&mut self, table: &mut BlockTable, keys: &[BlockKey]) -> usize {
        let block_tokens = self.layout().block_tokens();
        assert!(
            table.partial(block_tokens).is_none(),
            "{} tokens end within a block",
            table.len()
        );
        let before = table.len();
        for key in keys {
            let Some(block) = self.index.find(key) else {
                break;
            };
            if self.state(block) == State::Cached && !self.blocks.spares_cached() {
                break;
            }
            self.blocks.hold(block);
            table.push(block);
            table.grow(block_tokens);
        }
        let tokens = table.len() - before;
        self.counts.prefix_hit_tokens += tokens as u64;
        tokens
    }

    /// Says what a full block of a sequence stores. If another stores it already, the sequence takes
    /// that one and lets its own go; true then.
    ///
    /// # Panics
    /// When the block is not there, or not full.
    pub fn publish(&mut self, table: &mut BlockTable, index: usize, key: BlockKey) -> bool {
        let full = table.len() / self.layout().block_tokens();
        assert!(index < full, "block {index} of {full} full ones");
        if !self.options.prefix_cache {
            return false;
        }
        let own = table.blocks()[index];
        match self.index.find(&key) {
            Some(other) if other == own => false,
            Some(other) => {
                let cached = self.state(other) == State::Cached;
                if cached && !self.blocks.spares_cached() {
                    return false;
                }
                self.blocks.hold(other);
                table.replace(index, other);
                self.release(own);
                self.counts.deduplications += 1;
                true
            }
            None => {
                self.forget(own);
                self.index.insert(&key, own);
                self.blocks.key(own);
                false
            }
        }
    }

    /// Lets go of all of a sequence's blocks, from its end on: where all of it becomes cached, what
    /// comes first is the last to be evicted.
    pub fn free(&mut self, table: &mut BlockTable) {
        for block in table.drain() {
            self.blocks.release(block);
        }
    }

    /// Forgets the `count` least recently used cached blocks, or all there are; they are free then.
    /// Gives how many.
    pub fn drop_cached(&mut self, count: usize) -> usize {
        let mut dropped = 0;
        while dropped < count
            && let Some(block) = self.blocks.oldest_cached()
        {
            self.forget(block);
            dropped += 1;
        }
        self.counts.evictions += dropped as u64;
        dropped
    }

    /// Forgets all cached blocks; gives how many.
    pub fn drop_all_cached(&mut self) -> usize {
        self.drop_cached(usize::MAX)
    }

    /// Takes a block for something that is kept: never one that is in use for that already.
    pub(crate) fn take_to_keep(&mut self) -> Option<BlockId> {
        let _ = self.provide(1);
        let spare = self.options.prefix_cache && self.blocks.free() > self.blocks.reserved();
        spare.then(|| self.blocks.take_free()).flatten()
    }

    /// A block taken to keep is filled: it becomes cached, to be evicted before all others.
    pub(crate) fn shelve(&mut self, block: BlockId, key: &BlockKey) {
        self.index.insert(key, block);
        self.blocks.shelve(block);
    }

    /// Takes a block out of the index, if it is in it.
    pub(crate) fn forget(&mut self, block: BlockId) {
        if self.blocks.is_keyed(block) {
            self.index.remove(block);
            self.blocks.unkey(block);
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

    /// The bytes of all blocks, to be written by a pass: only those that tables hold.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        self.memory.as_mut_slice()
    }

    /// What a block stores.
    ///
    /// # Panics
    /// When it is vacant.
    pub fn block_bytes(&self, block: BlockId) -> &[u8] {
        let range = self.block_range(block);
        &self.memory.as_slice()[range]
    }

    /// What a block stores, to be written: by its only holder.
    ///
    /// # Panics
    /// When it is not in use, or shared.
    pub fn block_bytes_mut(&mut self, block: BlockId) -> &mut [u8] {
        let references = self.references(block);
        assert!(references == 1, "block {block} is held by {references}");
        let range = self.block_range(block);
        &mut self.memory.as_mut_slice()[range]
    }

    fn block_range(&self, block: BlockId) -> Range<usize> {
        assert!(
            self.state(block) != State::Vacant,
            "block {block} is vacant"
        );
        let start = self.layout().block_offset(block);
        start..start + self.layout().block_bytes()
    }

    /// Copies what one block stores to another.
    pub(crate) fn copy(&mut self, from: BlockId, to: BlockId) {
        let (from, to) = (self.block_range(from), self.block_range(to));
        self.memory.as_mut_slice().copy_within(from, to.start);
    }

    /// Commits slabs until `count` blocks beyond those promised are free, or none is left.
    pub(crate) fn provide(&mut self, count: usize) -> Result<(), Refusal> {
        while self.blocks.free() < self.blocks.reserved() + count
            && let Some(slab) = self.blocks.vacant_slab()
            && self.commit(slab)?
        {}
        Ok(())
    }

    /// Charges a vacant slab; false if no more may be.
    pub(crate) fn commit(&mut self, slab: u32) -> Result<bool, Refusal> {
        if self.blocks.slabs.committed >= self.blocks.slabs.most {
            return Ok(false);
        }
        let charged = self.memory.charge(self.plan.slab_range(slab));
        match charged {
            Ok(()) => self.blocks.commit(slab),
            Err(_) => self.counts.refusals += 1,
        }
        charged.map(|()| true)
    }

    /// Bytes that are backed by memory now, as the operating system counts them.
    ///
    /// # Errors
    /// When it does not tell.
    pub fn resident(&self) -> Result<Bytes, KvError> {
        Ok(self.memory.resident()?)
    }

    /// Counts the bytes that are really there and notes them on the account, to be shown beside what
    /// was granted. Looks at every page: milliseconds for a gigabyte of small ones.
    pub fn measure(&self) {
        // Where the kernel does not tell, what was granted stands alone.
        if let Ok(resident) = self.memory.resident() {
            let bytes = resident.saturating_add(self.plan.books_bytes());
            self.account().set_measured(bytes);
        }
    }

    /// What it holds now.
    pub fn report(&self) -> KvReport {
        let layout = self.plan.layout();
        let bytes = |blocks: usize| Bytes(layout.block_bytes() as u64 * blocks as u64);
        let blocks = &self.blocks;
        KvReport {
            block_tokens: layout.block_tokens(),
            bytes_per_token: self.plan.bytes_per_token(),
            blocks_total: blocks.total(),
            blocks_capacity: self.capacity(),
            blocks_used: blocks.used(),
            blocks_cached: blocks.cached(),
            blocks_free: blocks.free(),
            blocks_vacant: blocks.vacant(),
            blocks_peak: blocks.stats.peak,
            logical_blocks: blocks.logical(),
            shared_blocks: blocks.shared(),
            slabs_total: blocks.slabs.count() as usize,
            slabs_committed: blocks.slabs.committed as usize,
            bytes_used: bytes(blocks.used()),
            bytes_cached: bytes(blocks.cached()),
            bytes_committed: self.memory.charged(),
            bytes_fragmented: bytes(blocks.slabs.fragmented() as usize),
            bytes_total: self.plan.blocks_bytes(),
            bytes_promised: self.promised(),
            bytes_books: self.plan.books_bytes(),
            stats: blocks.stats,
            compactions: self.compactions,
            prefix_hit_tokens: self.counts.prefix_hit_tokens,
            evictions: self.counts.evictions,
            deduplications: self.counts.deduplications,
            copies: self.counts.copies,
            refusals: self.counts.refusals,
        }
    }
}
