//! The cache against a naive oracle: every operation in any order, and after each of them, that
//!
//! 1. every block is in exactly one state, and free + cached + used + vacant = all; the lists, bits and
//!    counts of the books agree with the states;
//! 2. a block's references are the entries of all tables plus the pins (blocks held outside of tables);
//! 3. no block that is about to be written is shared;
//! 4. a key finds a block as long as a holder or the order of eviction says so, and that block stores
//!    what the key says; the order of eviction is that in which blocks were let go, tails first;
//! 5. what a sequence reads is what was written for its tokens, whatever was forked, copied, adopted,
//!    deduplicated, evicted, moved or given back meanwhile; nothing is shared across owners;
//! 6. what is charged is what is committed, and what cannot be done changes nothing;
//! 7. never more is in use than the capacity, and what is promised follows it; more is promised only as
//!    far as others leave room;
//! 8. at the end, nothing is held, and nothing charged.
//!
//! A token's cell follows from its owner and all tokens up to it, as keys and values do.

use std::collections::{BTreeMap, BTreeSet};

use bursar_kernels::kv_view::{KvDtype, KvLayout, KvShape};
use bursar_memory::{Bytes, Ledger, Lifetime, Reservation};
use proptest::prelude::*;

use crate::*;

const BLOCK_TOKENS: usize = 16;
const SEQUENCES: usize = 6;
const CELL: usize = 8;

/// Steps of a case, and cases: 131,072 operations in all.
const STEPS: usize = 512;
const CASES: u32 = 256;

/// Four blocks of 1 KiB to a slab of a page.
fn layout() -> KvLayout {
    let shape = KvShape {
        layers: 1,
        kv_heads: 1,
        head_dim: 16,
        block_tokens: BLOCK_TOKENS,
        dtype_k: KvDtype::F16,
        dtype_v: KvDtype::F16,
    };
    let layout = KvLayout::in_slabs_of(shape, 4096).expect("a layout");
    assert_eq!((layout.blocks_per_slab(), layout.slab_bytes()), (4, 4096));
    layout
}

/// A sequence: whose it is, and what its cells must hold, one for each token.
#[derive(Default)]
struct Sequence {
    owner: usize,
    tokens: Vec<u32>,
    cells: Vec<u64>,
    keys: Vec<BlockKey>,
    table: BlockTable,
}

struct Oracle {
    ledger: Ledger,
    cache: KvCache,
    hashers: [PrefixHasher; 2],
    prefix_cache: bool,
    sequences: Vec<Sequence>,
    /// Blocks held outside of tables, each as often as it is here, all filled with one byte.
    pins: Vec<(BlockId, u8)>,
    /// Keys of cached blocks, least recently used first.
    cached: Vec<BlockKey>,
    /// What is stored under each key that was ever published.
    stored: BTreeMap<[u8; 32], Vec<u64>>,
    reserved: usize,
    now_ms: u64,
    /// Blocks that may be used.
    capacity: usize,
    /// What others took of the room that was left when it was lowered.
    others: Vec<Reservation>,
}

impl Oracle {
    fn new(blocks: usize, prefix_cache: bool) -> Self {
        let plan = KvPlan::for_context(layout(), blocks * BLOCK_TOKENS, 1).expect("a plan");
        let ledger = Ledger::new(plan.bytes());
        let options = KvOptions { prefix_cache };
        let cache = KvCache::new(plan, &ledger.root(), options).expect("fits exactly");
        Self {
            ledger,
            cache,
            hashers: [1, 2].map(|owner| PrefixHasher::new(&[0; 32], &[owner; 32])),
            prefix_cache,
            sequences: (0..SEQUENCES).map(|_| Sequence::default()).collect(),
            pins: Vec::new(),
            cached: Vec::new(),
            stored: BTreeMap::new(),
            reserved: 0,
            now_ms: 0,
            capacity: blocks,
            others: Vec::new(),
        }
    }

    /// How often each block is held.
    fn held(&self) -> BTreeMap<BlockId, usize> {
        let mut held = BTreeMap::new();
        let tables = self.sequences.iter().flat_map(|s| s.table.blocks());
        for &block in tables.chain(self.pins.iter().map(|(block, _)| block)) {
            *held.entry(block).or_default() += 1;
        }
        held
    }

    fn available(&self) -> usize {
        self.capacity - self.held().len() - self.reserved
    }

    /// The keys of held blocks.
    fn keys_held(&self) -> BTreeSet<[u8; 32]> {
        let held = self.held();
        let keyed = held
            .keys()
            .filter(|&&block| self.cache.blocks.is_keyed(block));
        keyed.map(|&block| self.cache.index.key(block).0).collect()
    }

    /// Taking so many blocks evicts the oldest as far as neither free ones are left nor slabs that may
    /// be committed.
    fn evict_for(&mut self, taken: usize) {
        let report = self.cache.report();
        let slabs = &self.cache.blocks.slabs;
        let vacant: usize = (0..slabs.count())
            .filter(|&slab| !slabs.get(slab).committed)
            .take(slabs.most.saturating_sub(slabs.committed) as usize)
            .map(|slab| slabs.blocks(slab).len())
            .sum();
        let others = report.blocks_free + vacant;
        let evicted = taken.saturating_sub(others);
        self.cached.drain(..evicted);
    }

    /// Notes which of the blocks, in this order, are cached once their holders are gone.
    fn let_go(&mut self, blocks: Vec<BlockId>, release: impl FnOnce(&mut Self)) {
        let keys: Vec<_> = blocks
            .iter()
            .map(|&block| {
                let keyed = self.cache.blocks.is_keyed(block);
                (block, keyed.then(|| *self.cache.index.key(block)))
            })
            .collect();
        release(self);
        for (block, key) in keys {
            if let Some(key) = key
                && self.cache.references(block) == 0
            {
                self.cached.push(key);
            }
        }
    }

    /// The cell and keys that follow `sequence` with one more token.
    fn extend(&mut self, which: usize, token: u32) {
        let sequence = &mut self.sequences[which];
        let before = sequence.cells.last().copied();
        let before = before.unwrap_or(1 + sequence.owner as u64);
        let cell = (before ^ u64::from(token)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        sequence.cells.push(cell ^ (cell >> 29));
        sequence.tokens.push(token);
        if sequence.tokens.len().is_multiple_of(BLOCK_TOKENS) {
            let block = &sequence.tokens[sequence.tokens.len() - BLOCK_TOKENS..];
            let hasher = &self.hashers[sequence.owner];
            let key = match sequence.keys.last() {
                Some(parent) => hasher.next(parent, block),
                None => hasher.first(block),
            };
            sequence.keys.push(key);
        }
    }

    /// Appends, writes, and publishes what has become full.
    fn append(&mut self, which: usize, count: usize, seed: u32, consecutive: bool) {
        let sequence = &mut self.sequences[which];
        let (len, blocks) = (sequence.table.len(), sequence.table.blocks().to_vec());
        let partial = len % BLOCK_TOKENS != 0 && count > 0;
        let shared = partial && self.cache.references(blocks[blocks.len() - 1]) > 1;
        let more = (len + count).div_ceil(BLOCK_TOKENS) - blocks.len() + usize::from(shared);
        let fits = more <= self.available();
        if fits {
            self.evict_for(more);
        }
        let table = &mut self.sequences[which].table;
        assert_eq!(self.cache.blocks_to_append(table, count), more);
        let result = match consecutive {
            false => self.cache.append(table, count).map(|()| false),
            true => self.cache.append_consecutive(table, count),
        };
        assert_eq!(result.is_ok(), fits);
        let Ok(contiguous) = result else {
            assert_eq!((table.len(), table.blocks()), (len, &blocks[..]));
            return;
        };
        if contiguous {
            let fresh = &table.blocks()[blocks.len()..];
            assert!(fresh.windows(2).all(|pair| pair[1] == pair[0] + 1));
        }
        for i in 0..count {
            // Few different beginnings, so that sequences meet again.
            let at = self.sequences[which].tokens.len();
            let token = if at < 8 {
                at as u32 + seed % 2
            } else {
                seed >> (i % 8) & u32::from(at % 16 == 9)
            };
            self.extend(which, token);
        }
        let sequence = &self.sequences[which];
        for position in len..len + count {
            let (block, within) = sequence
                .table
                .lookup(position, BLOCK_TOKENS)
                .expect("there");
            assert_eq!(
                self.cache.references(block),
                1,
                "block {block} is shared and written"
            );
            assert!(
                !self.cache.blocks.is_keyed(block),
                "block {block} is known and written"
            );
            let cell = sequence.cells[position].to_le_bytes();
            let bytes = self.cache.block_bytes_mut(block);
            bytes[within * CELL..][..CELL].copy_from_slice(&cell);
        }
        for index in len / BLOCK_TOKENS..(len + count) / BLOCK_TOKENS {
            // Now and then one stays unknown.
            if (seed >> (8 + index % 8)) & 7 > 0 {
                self.publish(which, index);
            }
        }
    }

    fn publish(&mut self, which: usize, index: usize) {
        let sequence = &mut self.sequences[which];
        let key = sequence.keys[index];
        let cells = sequence.cells[index * BLOCK_TOKENS..][..BLOCK_TOKENS].to_vec();
        let own = sequence.table.blocks()[index];
        let known = self.cache.find(&key);
        let was_cached = known.is_some_and(|block| self.cache.state(block) == State::Cached);
        let full = self.cache.report();
        let spare = full.blocks_free + full.blocks_cached > self.reserved && self.available() > 0;
        let table = &mut self.sequences[which].table;
        let deduplicated = self.cache.publish(table, index, key);
        let other = known.is_some_and(|block| block != own) && (spare || !was_cached);
        assert_eq!(deduplicated, other && self.prefix_cache);
        if deduplicated {
            self.cached.retain(|cached| *cached != key);
        } else if self.prefix_cache && known.is_none() {
            self.stored.insert(key.0, cells);
        }
    }

    fn free(&mut self, which: usize) {
        let mut blocks = self.sequences[which].table.blocks().to_vec();
        blocks.reverse();
        self.let_go(blocks, |oracle| {
            let mut sequence = std::mem::take(&mut oracle.sequences[which]);
            oracle.cache.free(&mut sequence.table);
            assert!(sequence.table.is_empty() && sequence.table.blocks().is_empty());
        });
    }

    /// A new sequence of the tokens of another, or of its own owner, as far as they are stored.
    fn adopt(&mut self, which: usize, from: usize, owner: usize, blocks: usize) {
        if !self.sequences[which].table.is_empty() {
            return;
        }
        let tokens: Vec<u32> = self.sequences[from].tokens.clone();
        self.sequences[which].owner = owner;
        let whole = tokens.len() / BLOCK_TOKENS;
        for &token in &tokens[..whole.min(blocks) * BLOCK_TOKENS] {
            self.extend(which, token);
        }
        let keys = self.sequences[which].keys.clone();
        let held = self.keys_held();
        let known = |key: &&BlockKey| held.contains(&key.0) || self.cached.contains(key);
        let run: Vec<_> = keys.iter().take_while(known).collect();
        let of_cached = run.iter().filter(|key| !held.contains(&key.0)).count();
        let found = self.cache.lookup(&keys);
        assert_eq!((found.blocks, found.cached), (run.len(), of_cached));
        let report = self.cache.report();
        let spare = report.blocks_free + report.blocks_cached - self.reserved;
        let spare = spare.min(self.available());
        let sequence = &mut self.sequences[which];
        let tokens = self.cache.adopt(&mut sequence.table, &keys);
        assert!(of_cached > spare || tokens == found.blocks * BLOCK_TOKENS);
        assert_eq!(sequence.table.len(), tokens);
        sequence.tokens.truncate(tokens);
        sequence.cells.truncate(tokens);
        sequence.keys.truncate(tokens / BLOCK_TOKENS);
        let adopted = &keys[..tokens / BLOCK_TOKENS];
        self.cached.retain(|key| !adopted.contains(key));
    }

    fn fork(&mut self, which: usize, from: usize, tokens: usize) {
        if !self.sequences[which].table.is_empty() || which == from {
            return;
        }
        let source = &self.sequences[from];
        let tokens = tokens % (source.table.len() + 1);
        self.sequences[which] = Sequence {
            owner: source.owner,
            tokens: source.tokens[..tokens].to_vec(),
            cells: source.cells[..tokens].to_vec(),
            keys: source.keys[..tokens / BLOCK_TOKENS].to_vec(),
            table: self.cache.fork(&source.table, tokens),
        };
    }

    fn pin(&mut self, blocks: &[BlockId], fill: u8) {
        for &block in blocks {
            self.cache.block_bytes_mut(block).fill(fill);
            self.pins.push((block, fill));
        }
    }

    fn compact(&mut self, budget: u32, all: bool) {
        let before = self.cache.report();
        let granted = self.ledger.granted();
        let tables = self.sequences.iter_mut().map(|s| &mut s.table);
        let mut tables: Vec<_> = tables.skip(usize::from(!all)).collect();
        let budget = Bytes(u64::from(budget % 12) * 1024);
        let done = self.cache.compact(&mut tables, budget, &Triggers::ALWAYS);
        let after = self.cache.report();
        assert!(done.moved_bytes <= budget.max(Bytes(1024)));
        assert_eq!(done.moved_bytes, Bytes(1024 * done.moved_blocks as u64));
        let slabs = before.slabs_committed - after.slabs_committed;
        assert_eq!(done.slabs_returned, slabs);
        assert_eq!(
            granted.saturating_sub(self.ledger.granted()),
            Bytes(4096 * slabs as u64)
        );
        assert!(done.bytes_returned <= Bytes(4096 * slabs as u64));
        assert_eq!(before.blocks_cached, after.blocks_cached);
        if self.reserved == 0 {
            let idle =
                (0..after.slabs_total as u32).any(|slab| self.cache.blocks.slabs.is_idle(slab));
            assert!(!idle, "an idle slab stays");
        }
    }

    fn set_capacity(&mut self, wanted: usize) {
        let total = self.cache.plan.blocks();
        let busy = self.held().len() + self.reserved;
        // One slab always stays.
        let at_least = wanted.max(busy).max(1).min(total);
        let free = self.ledger.free();
        let before = self.capacity;
        let promised = self.cache.promised();
        self.capacity = self.cache.set_capacity(wanted);
        if at_least <= before {
            // Whole slabs, and no more than that takes.
            assert!(
                (at_least..=before).contains(&self.capacity),
                "{at_least} of {before}: {}",
                self.capacity
            );
            assert!(self.capacity < at_least + 4 || self.capacity == before);
            assert!(self.cache.promised() <= promised);
        } else {
            assert!(self.capacity >= before);
            let all = free >= Bytes(4096 * (at_least - before).div_ceil(4) as u64);
            assert!(!all || self.capacity >= at_least, "{free} were free");
            let most = promised.max(self.cache.account().granted()) + free;
            assert!(self.cache.promised() <= most);
        }
    }

    fn settle(&mut self, moves: bool, budget: u32) {
        let before = self.cache.report();
        let over = self.cache.is_over();
        let stored = before.blocks_used + before.blocks_cached;
        let tables = self.sequences.iter_mut().map(|s| &mut s.table);
        let mut tables: Vec<_> = tables.collect();
        let budget = Bytes(u64::from(budget % 12) * 1024);
        let done = self.cache.settle(&mut tables, moves.then_some(budget));
        let after = self.cache.report();
        assert_eq!(before.slabs_committed - after.slabs_committed, done.slabs);
        assert!(done.dropped_blocks <= stored.saturating_sub(self.capacity));
        assert!(over || done == Returned::default());
        assert!(done.moved_bytes <= budget.max(Bytes(1024)));
        self.cached.drain(..done.dropped_blocks);
        if self.pins.is_empty() && moves && budget.0 >= 1024 * stored as u64 && self.reserved == 0 {
            assert!(!self.cache.is_over(), "everything could be moved");
        }
    }

    fn return_cached(&mut self, bytes: u64) {
        let before = self.cache.report();
        let done = self.cache.return_cached(Bytes(bytes));
        let after = self.cache.report();
        self.cached.drain(..done.dropped_blocks);
        assert_eq!(before.slabs_committed - after.slabs_committed, done.slabs);
        assert!(done.bytes <= Bytes(4096 * done.slabs as u64));
        let enough = done.slabs as u64 * 4096 >= bytes;
        assert!(enough || self.cached.is_empty() || self.reserved > 0);
    }

    fn step(&mut self, what: u8, a: u32, b: u32) {
        let which = a as usize % SEQUENCES;
        let other = b as usize % SEQUENCES;
        self.now_ms += u64::from(b % 50);
        self.cache.tick(self.now_ms);
        match what % 24 {
            0..=4 => self.append(which, b as usize % 40, a >> 3, false),
            5 => self.append(which, b as usize % 40, a >> 3, true),
            6..=7 => self.free(which),
            8..=9 => self.fork(which, other, a as usize >> 4),
            10..=12 => {
                // Mostly of the same owner.
                let owner = match b & 0x300 {
                    0 => 1 - self.sequences[other].owner,
                    _ => self.sequences[other].owner,
                };
                self.adopt(which, other, owner, a as usize >> 4 & 7);
            }
            13 => {
                let count = b as usize % 5;
                let fits = count <= self.available();
                self.evict_for(if fits { count } else { 0 });
                let taken = self.cache.allocate_consecutive(count);
                assert_eq!(taken.is_some(), fits);
                if let Some(taken) = taken {
                    let neighbours = taken.blocks.windows(2).all(|pair| pair[1] == pair[0] + 1);
                    assert_eq!(taken.contiguous, neighbours);
                    self.pin(&taken.blocks, a as u8);
                }
            }
            14 => {
                let count = b as usize % 3;
                let fits = count <= self.available();
                assert_eq!(self.cache.reserve(count).is_ok(), fits);
                self.reserved += if fits { count } else { 0 };
            }
            15 if self.reserved > 0 => {
                if b.is_multiple_of(3) {
                    self.cache.unreserve(1);
                } else {
                    // Promised ones are not available, but there.
                    self.evict_for(1);
                    let block = self.cache.acquire();
                    self.pin(&[block], b as u8);
                }
                self.reserved -= 1;
            }
            16 | 17 if !self.pins.is_empty() => {
                let place = a as usize % self.pins.len();
                let (block, fill) = self.pins[place];
                if b.is_multiple_of(4) {
                    self.cache.share(block);
                    self.pins.push((block, fill));
                } else {
                    self.pins.remove(place);
                    self.cache.release(block);
                }
            }
            18 => self.compact(a, b.is_multiple_of(2)),
            19 if b.is_multiple_of(4) => {
                let count = a as usize % 5;
                let dropped = self.cache.drop_cached(count);
                assert_eq!(dropped, count.min(self.cached.len()));
                self.cached.drain(..dropped);
            }
            19 => {
                self.cache.trim();
            }
            20 => self.set_capacity(a as usize % (self.cache.plan.blocks() + 4)),
            21 => self.settle(b.is_multiple_of(2), a),
            22 => self.return_cached(u64::from(a % 20_000)),
            23 if b.is_multiple_of(3) => self.others.clear(),
            23 => {
                // Others take what is free, or a part of it.
                let bytes = Bytes(self.ledger.free().0 * u64::from(a % 5) / 4);
                let account = self.ledger.root().child("others", Lifetime::Episodic);
                self.others
                    .push(account.reserve(bytes).expect("it is free"));
            }
            _ => {}
        }
    }

    fn check(&self) {
        let cache = &self.cache;
        cache.blocks.check();
        let held = self.held();
        for block in 0..cache.plan.blocks() as u32 {
            let want = held.get(&block).copied().unwrap_or(0);
            assert_eq!(
                cache.references(block) as usize,
                want,
                "references of block {block}"
            );
        }
        let report = cache.report();
        let states = [
            report.blocks_used,
            report.blocks_cached,
            report.blocks_free,
            report.blocks_vacant,
        ];
        assert_eq!(states.iter().sum::<usize>(), report.blocks_total);
        assert_eq!((states[0], states[1]), (held.len(), self.cached.len()));
        assert_eq!(cache.available(), self.available());
        let charged = report.bytes_committed.saturating_add(report.bytes_books);
        let others: Bytes = self.others.iter().map(Reservation::bytes).sum();
        assert_eq!(self.ledger.granted(), charged + others);
        assert_eq!(cache.capacity(), self.capacity);
        assert!(held.len() + self.reserved <= self.capacity);
        assert!(self.capacity <= report.blocks_total);
        // Its capacity has memory, whatever others take.
        let committed = report.slabs_committed as u64;
        let most = u64::from(cache.blocks.slabs.most);
        assert!(cache.promised() <= report.bytes_books + Bytes(4096 * most));
        assert!(
            cache.account().free()
                >= Bytes(4096 * most.saturating_sub(committed).saturating_sub(1))
        );

        let mut order: Vec<_> = cache.blocks.cached_newest_first().collect();
        order.reverse();
        let keys: Vec<_> = order.iter().map(|&block| *cache.index.key(block)).collect();
        assert_eq!(keys, self.cached);
        let mut known = self.keys_held();
        known.extend(self.cached.iter().map(|key| key.0));
        assert_eq!(cache.index.len(), known.len());
        for key in &known {
            let block = cache.find(&BlockKey(*key)).expect("known");
            let want = self.stored.get(key).expect("published once");
            self.check_cells(block, want);
        }
        for sequence in &self.sequences {
            assert_eq!(sequence.table.len(), sequence.tokens.len());
            let blocks = sequence.table.blocks();
            assert_eq!(blocks.len(), sequence.cells.len().div_ceil(BLOCK_TOKENS));
            for (&block, cells) in blocks.iter().zip(sequence.cells.chunks(BLOCK_TOKENS)) {
                self.check_cells(block, cells);
            }
        }
        for &(block, fill) in &self.pins {
            assert!(cache.block_bytes(block).iter().all(|&byte| byte == fill));
        }
    }

    fn check_cells(&self, block: BlockId, want: &[u64]) {
        let bytes = self.cache.block_bytes(block);
        for (got, want) in bytes.chunks_exact(CELL).zip(want) {
            assert_eq!(*got, want.to_le_bytes(), "what block {block} stores");
        }
    }

    fn end(mut self) {
        (0..SEQUENCES).for_each(|which| self.free(which));
        for (block, _) in std::mem::take(&mut self.pins) {
            self.cache.release(block);
        }
        self.cache.unreserve(std::mem::take(&mut self.reserved));
        self.check();
        self.others.clear();
        self.capacity = self.cache.set_capacity(usize::MAX);
        assert_eq!(self.capacity, self.cache.plan.blocks());
        assert_eq!(self.cache.promised(), self.cache.plan.bytes());
        assert_eq!(self.cache.drop_all_cached(), self.cached.len());
        self.cached.clear();
        self.cache.trim();
        self.check();
        assert_eq!(self.cache.report().bytes_committed, Bytes::ZERO);
        drop(self.cache);
        assert_eq!(self.ledger.granted(), Bytes::ZERO);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: CASES, ..ProptestConfig::default() })]

    /// R1, R2, R4, R6: see the top of the file.
    #[test]
    fn the_cache_agrees_with_a_naive_oracle(
        blocks in 3..40usize,
        prefix_cache in prop::bool::weighted(0.9),
        steps in proptest::collection::vec((any::<u8>(), any::<u32>(), any::<u32>()), STEPS),
    ) {
        let mut oracle = Oracle::new(blocks, prefix_cache);
        for (what, a, b) in steps {
            oracle.step(what, a, b);
            oracle.check();
        }
        oracle.end();
    }
}
