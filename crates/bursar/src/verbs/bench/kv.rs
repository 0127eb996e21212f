//! `bursar bench kv`: what the cache of keys and values costs. Books are measured on small blocks, of
//! which no byte is touched; compaction on blocks of the size that qwen3-0.6b has.
//!
//! Every operation goes through a mutex, taken and let go for each call, as callers on several
//! threads would have to: that many blocks in one call are cheaper than one by one is half of it.

use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use bursar_kernels::kv_view::{KvDtype, KvLayout, KvShape};
use bursar_kv::{
    BlockKey, BlockTable, KvCache, KvError, KvOptions, KvPlan, PrefixHasher, Triggers,
};
use bursar_memory::{Bytes, Ledger, Lifetime};
use bursar_profile::Probe;
use clap::Args;

use super::clock::{Clock, Spread};
use super::sheet::Sheet;
use crate::failure::Failure;

/// Blocks of the cache whose books are measured.
const BLOCKS: usize = 4096;
/// Blocks taken at once.
const MANY: usize = 64;
/// Tokens of the prefix that is looked up, in whole blocks.
const PREFIX_TOKENS: usize = 1008;
/// Times that the books are measured, unless told otherwise.
const BATCHES: u32 = 501;
/// Times that blocks are moved together.
const COMPACTIONS: usize = 9;
/// Blocks that are there before each of them; one in four stays.
const MOVED_FROM: usize = 128;
/// Beyond what any of it takes.
const BUDGET: Bytes = Bytes::gib(2);

/// Blocks of a few KiB.
const SMALL: KvShape = KvShape {
    layers: 2,
    kv_heads: 1,
    head_dim: 32,
    block_tokens: 16,
    dtype_k: KvDtype::F16,
    dtype_v: KvDtype::F16,
};
/// Blocks of 1.75 MiB: those of qwen3-0.6b.
const LARGE: KvShape = KvShape {
    layers: 28,
    kv_heads: 8,
    head_dim: 128,
    ..SMALL
};

/// What can be given.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Measurements of each figure
    #[arg(long, value_name = "N", default_value_t = BATCHES,
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    batches: u32,
    /// Write the figures to FILE as JSON; - for stdout
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
}

/// Measures and prints it.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    let mut sheet = Sheet::new("kv");
    sheet.set("blocks", BLOCKS);
    sheet.set("taken_at_once", MANY);
    sheet.set("prefix_tokens", PREFIX_TOKENS);
    sheet.set("batches", arguments.batches);
    let clock = Clock::new();
    let batches = arguments.batches as usize;
    books(&mut sheet, clock, batches).map_err(failure)?;
    prefixes(&mut sheet, clock, batches).map_err(failure)?;
    compaction(&mut sheet, clock, COMPACTIONS.min(batches)).map_err(failure)?;
    sheet.finish(arguments.json.as_deref())
}

fn failure(error: KvError) -> Failure {
    Failure::failed(error.to_string())
}

/// A cache behind a lock, and the ledger that it is charged to.
struct Locked {
    cache: Mutex<KvCache>,
    ledger: Ledger,
}

impl Locked {
    fn new(shape: KvShape, blocks: usize) -> Result<Locked, KvError> {
        let layout = KvLayout::in_slabs(shape).ok_or(KvError::TooLarge {
            tokens: blocks * shape.block_tokens,
        })?;
        let plan = KvPlan::for_context(layout, blocks * shape.block_tokens, 1)?;
        let ledger = Ledger::new(BUDGET);
        let account = ledger.root().child("bench", Lifetime::Episodic);
        let cache = KvCache::new(plan, &account, KvOptions::default())?;
        Ok(Locked {
            cache: Mutex::new(cache),
            ledger,
        })
    }

    fn lock(&self) -> MutexGuard<'_, KvCache> {
        // Whoever panicked with it, panicked this thread.
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Taking blocks and letting go of them.
fn books(sheet: &mut Sheet, clock: Clock, batches: usize) -> Result<(), KvError> {
    let locked = Locked::new(SMALL, BLOCKS)?;
    // All slabs are taken once: what the system and the ledger cost is not the books' cost.
    let all = locked.lock().allocate_consecutive(BLOCKS);
    if let Some(all) = all {
        locked.lock().release_all(&all.blocks);
    }
    let each = 1.0 / MANY as f64;
    let mut blocks = Vec::with_capacity(MANY);
    let (mut single, mut freed, mut together, mut freed_together) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut contiguous = true;
    for _ in 0..batches {
        let mut error = None;
        single.push(
            each * clock.nanoseconds(|| {
                for _ in 0..MANY {
                    match locked.lock().allocate() {
                        Ok(block) => blocks.push(block),
                        Err(refused) => error = Some(refused),
                    }
                }
            }),
        );
        freed.push(
            each * clock.nanoseconds(|| {
                for block in blocks.drain(..).rev() {
                    locked.lock().release(block);
                }
            }),
        );
        if let Some(error) = error {
            return Err(error);
        }
        let mut taken = None;
        together
            .push(each * clock.nanoseconds(|| taken = locked.lock().allocate_consecutive(MANY)));
        let taken = taken.map_or(Vec::new(), |taken| {
            contiguous &= taken.contiguous;
            taken.blocks
        });
        freed_together.push(each * clock.nanoseconds(|| locked.lock().release_all(&taken)));
    }
    let (single, together) = (Spread::of(single), Spread::of(together));
    let ratio = single.median / together.median;
    let words = "a block taken alone, by a call of its own";
    sheet.spread("allocate_single_ns", "ns", words, single);
    let words = "a block of allocate_consecutive(64)";
    sheet.spread("allocate_consecutive_ns", "ns", words, together);
    sheet.set("consecutive_were_neighbours", contiguous);
    sheet.count("single_to_consecutive_ratio", "", "of the two", ratio);
    sheet.goal(">= 5", |ratio| ratio >= 5.0);
    let words = "a block let go alone, by a call of its own";
    sheet.spread("free_ns", "ns", words, Spread::of(freed));
    let words = "a block of 64 let go by one call";
    sheet.spread("free_together_ns", "ns", words, Spread::of(freed_together));
    scattered(sheet, clock, &locked, batches)
}

/// Many blocks at once where there are no neighbours to be had.
fn scattered(
    sheet: &mut Sheet,
    clock: Clock,
    locked: &Locked,
    batches: usize,
) -> Result<(), KvError> {
    let all = locked.lock().allocate_consecutive(BLOCKS);
    let all = all.map_or(Vec::new(), |all| all.blocks);
    let (even, odd): (Vec<_>, Vec<_>) = all.iter().partition(|block| **block % 2 == 0);
    locked.lock().release_all(&odd);
    let mut times = Vec::new();
    for _ in 0..batches {
        let mut taken = None;
        let time = clock.nanoseconds(|| taken = locked.lock().allocate_consecutive(MANY));
        times.push(time / MANY as f64);
        if let Some(taken) = taken {
            locked.lock().release_all(&taken.blocks);
        }
    }
    locked.lock().release_all(&even);
    let words = "a block of allocate_consecutive(64) where every other block is in use";
    sheet.spread("allocate_scattered_ns", "ns", words, Spread::of(times));
    Ok(())
}

/// Finding the blocks that a prompt begins with.
fn prefixes(sheet: &mut Sheet, clock: Clock, batches: usize) -> Result<(), KvError> {
    let locked = Locked::new(SMALL, BLOCKS)?;
    let hasher = PrefixHasher::new(&[1; 32], &[2; 32]);
    let block_tokens = SMALL.block_tokens;
    let prompts: Vec<Vec<u32>> = (0..32u32)
        .map(|prompt| {
            (0..PREFIX_TOKENS as u32)
                .map(|token| token * 31 + prompt)
                .collect()
        })
        .collect();
    let keys = |tokens: &[u32], keys: &mut Vec<BlockKey>| {
        keys.clear();
        for block in tokens.chunks_exact(block_tokens) {
            let key = match keys.last() {
                Some(parent) => hasher.next(parent, block),
                None => hasher.first(block),
            };
            keys.push(key);
        }
    };
    let mut chain = Vec::with_capacity(PREFIX_TOKENS / block_tokens);
    for prompt in &prompts {
        keys(prompt, &mut chain);
        let mut cache = locked.lock();
        let mut table = BlockTable::new();
        cache.append(&mut table, PREFIX_TOKENS)?;
        for (index, key) in chain.iter().enumerate() {
            cache.publish(&mut table, index, *key);
        }
        cache.free(&mut table);
    }
    let thousand = 1000.0 / PREFIX_TOKENS as f64;
    let (mut hashing, mut finding, mut adopting) = (Vec::new(), Vec::new(), Vec::new());
    let mut found = 0;
    for prompt in prompts.iter().cycle().take(batches) {
        hashing.push(thousand * clock.nanoseconds(|| keys(prompt, &mut chain)));
        finding.push(thousand * clock.nanoseconds(|| found += locked.lock().lookup(&chain).blocks));
        let mut table = BlockTable::with_capacity(PREFIX_TOKENS, block_tokens);
        adopting.push(
            thousand
                * clock.nanoseconds(|| {
                    locked.lock().adopt(&mut table, &chain);
                }),
        );
        locked.lock().free(&mut table);
    }
    sheet.set("blocks_found", found / batches);
    let (hash, find) = (Spread::of(hashing), Spread::of(finding));
    let words = "finding the blocks of 1,000 tokens by their keys";
    sheet.spread("lookup_1000_tokens_ns", "ns", words, find);
    let words = "making the keys of 1,000 tokens, once per request";
    sheet.spread("keys_1000_tokens_ns", "ns", words, hash);
    let words = "taking those blocks over";
    sheet.spread("adopt_1000_tokens_ns", "ns", words, Spread::of(adopting));
    Ok(())
}

/// Moving the blocks of sequences together, and giving slabs back.
fn compaction(sheet: &mut Sheet, clock: Clock, rounds: usize) -> Result<(), KvError> {
    let locked = Locked::new(LARGE, MOVED_FROM)?;
    let mut cache = locked.lock();
    let block_bytes = cache.layout().block_bytes();
    sheet.set("moved_block_bytes", block_bytes);
    let (mut rates, mut times, mut returned, mut fallen) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut moved = Bytes(0);
    for _ in 0..rounds {
        let mut tables: Vec<BlockTable> = (0..MOVED_FROM).map(|_| BlockTable::new()).collect();
        for table in &mut tables {
            cache.append(table, LARGE.block_tokens)?;
            let block = table.blocks()[0];
            cache.block_bytes_mut(block).fill(1);
        }
        // One of every four stays, so that every slab is sparse.
        for (_, table) in tables.iter_mut().enumerate().filter(|(i, _)| i % 4 != 0) {
            cache.free(table);
        }
        let before = resident();
        let mut done = None;
        let mut held: Vec<&mut BlockTable> = tables.iter_mut().collect();
        let time = clock.nanoseconds(|| {
            done = Some(cache.compact(&mut held, BUDGET, &Triggers::ALWAYS));
        });
        let Some(done) = done else { continue };
        moved = done.moved_bytes;
        times.push(time / 1e6);
        rates.push(done.moved_bytes.get() as f64 / time);
        returned.push(done.bytes_returned.get() as f64);
        if let (Some(before), Some(after)) = (before, resident()) {
            let fell = before.saturating_sub(after) as f64;
            fallen.push(fell / (done.bytes_returned.get() as f64).max(1.0));
        }
        for table in &mut tables {
            cache.free(table);
        }
        cache.trim();
    }
    sheet.set("moved_bytes", moved.get());
    let words = "bytes moved per time of compaction, giving slabs back included";
    sheet.spread("compaction_gb_per_s", "GB/s", words, Spread::of(rates));
    sheet.spread(
        "compaction_ms",
        "ms",
        "one such compaction",
        Spread::of(times),
    );
    let words = "given back to the system, as compaction reports it";
    sheet.spread(
        "compaction_returned_bytes",
        "B",
        words,
        Spread::of(returned),
    );
    let words = "fall of the process's resident bytes, of what was reported";
    sheet.spread("compaction_rss_ratio", "", words, Spread::of(fallen));
    sheet.goal(">= 0.9", |ratio| ratio >= 0.9);
    drop(cache);
    debug_assert!(locked.ledger.granted() <= BUDGET);
    Ok(())
}

/// Bytes that are resident of this process.
fn resident() -> Option<u64> {
    Probe::default().process().map(|process| process.rss_bytes)
}
