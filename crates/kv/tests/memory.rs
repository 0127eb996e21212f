//! The cache against the operating system and the allocator: what goes back really goes, what is
//! planned is what is taken, nothing is allocated once it is made, and a lack of memory at any moment
//! leaves nothing behind.
//!
//! One test, so that nothing else runs in the process while it is measured.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bursar_kernels::kv_view::{KvDtype, KvLayout, KvShape};
use bursar_kv::{
    BlockKey, BlockTable, KvCache, KvError, KvOptions, KvPlan, PrefixHasher, Triggers,
};
use bursar_memory::counting::{self, ProcessAllocator, left_by};
use bursar_memory::{Bytes, Ledger, for_each_fault};
use bursar_profile::Probe;

#[global_allocator]
static ALLOCATOR: ProcessAllocator = counting::process_allocator();

const BLOCK_TOKENS: usize = 16;

/// 32 KiB to a block, 64 blocks to a slab of 2 MiB.
fn layout() -> KvLayout {
    let shape = KvShape {
        layers: 4,
        kv_heads: 2,
        head_dim: 64,
        block_tokens: BLOCK_TOKENS,
        dtype_k: KvDtype::F16,
        dtype_v: KvDtype::F16,
    };
    let layout = KvLayout::in_slabs(shape).expect("a layout");
    assert_eq!(
        (layout.slab_bytes(), layout.blocks_per_slab()),
        (2 << 20, 64)
    );
    layout
}

fn plan(blocks: usize) -> KvPlan {
    KvPlan::for_context(layout(), blocks * BLOCK_TOKENS, 1).expect("a plan")
}

fn rss() -> u64 {
    let process = Probe::new(Path::new("/")).process();
    process.expect("/proc is there").rss_bytes
}

fn key(n: u32) -> BlockKey {
    PrefixHasher::new(&[0; 32], &[0; 32]).first(&[n])
}

/// Fills all blocks of a table with a byte.
fn write(cache: &mut KvCache, table: &BlockTable, fill: u8) {
    for &block in table.blocks() {
        cache.block_bytes_mut(block).fill(fill);
    }
}

#[test]
fn the_cache_and_its_memory() {
    compaction_lowers_rss_by_what_it_reports();
    books_take_what_is_planned();
    nothing_is_allocated_in_steady_state();
    refusals_at_any_moment_leave_nothing_behind();
}

/// R4
fn compaction_lowers_rss_by_what_it_reports() {
    let plan = plan(64 * 64);
    let ledger = Ledger::new(plan.bytes());
    let mut cache = KvCache::new(plan, &ledger.root(), KvOptions::default()).expect("fits");
    let granted = ledger.granted();
    assert_eq!(
        granted,
        plan.books_bytes(),
        "slabs are charged as they come"
    );
    // 128 MiB in sequences of four blocks, of which every fifth stays.
    let mut tables: Vec<BlockTable> = Vec::new();
    for i in 0..1024usize {
        let mut table = BlockTable::new();
        cache
            .append(&mut table, 4 * BLOCK_TOKENS - 3)
            .expect("room");
        write(&mut cache, &table, i as u8);
        tables.push(table);
    }
    for (i, table) in tables.iter_mut().enumerate() {
        if i % 5 > 0 {
            cache.free(table);
        }
    }
    let sparse = cache.report();
    assert_eq!((sparse.slabs_committed, sparse.blocks_used), (64, 4 * 205));
    assert!((sparse.fragmentation() - 0.8).abs() < 0.01, "{sparse}");

    let before = rss();
    let mut returned = Bytes::ZERO;
    let mut steps = 0;
    while cache.wants_compaction(&Triggers::default()) {
        let mut known: Vec<_> = tables.iter_mut().collect();
        let done = cache.compact(&mut known, Bytes::mib(1), &Triggers::default());
        assert!(
            done.moved_bytes <= Bytes::mib(1) && !done.is_empty(),
            "{done:?}"
        );
        returned = returned.saturating_add(done.bytes_returned);
        steps += 1;
    }
    let fallen = before.saturating_sub(rss());
    assert!(
        fallen as f64 >= 0.9 * returned.0 as f64,
        "RSS fell by {fallen} bytes of {returned}"
    );
    let dense = cache.report();
    // 205 sequences of 4 blocks take 13 slabs; the default triggers stop at a third more.
    assert!(dense.slabs_committed <= 19 && steps >= 10, "{dense}");
    assert_eq!(returned, dense.compactions.returned_bytes);
    assert_eq!(
        returned.0 as usize,
        (64 - dense.slabs_committed) * (2 << 20)
    );
    assert_eq!(
        ledger.granted(),
        plan.books_bytes().saturating_add(dense.bytes_committed)
    );
    for (i, table) in tables.iter().enumerate() {
        let stored = |&block: &u32| cache.block_bytes(block).iter().all(|&b| b == i as u8);
        assert!(table.blocks().iter().all(stored), "sequence {i}");
    }
    cache.compacted(1_700_000_000_000, Duration::from_millis(3));
    let text = cache.report().to_string();
    for part in [
        "820 used",
        "KiB per token",
        "unix time 1700000000000",
        "took 3000 us",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    tables.iter_mut().for_each(|table| cache.free(table));
    cache.trim();
    assert_eq!(ledger.granted(), plan.books_bytes());
}

/// R5: the books are exact. What one block and one slab more take is what is allocated more.
fn books_take_what_is_planned() {
    let allocated = |blocks: usize| {
        let plan = plan(blocks);
        let ledger = Ledger::new(plan.bytes());
        let account = ledger.root();
        let (_cache, left) =
            left_by(|| KvCache::new(plan, &account, KvOptions::default()).expect("fits"));
        left.bytes - plan.books_bytes().0 as i64
    };
    let others = allocated(64);
    assert!(
        (0..2000).contains(&others),
        "{others} bytes beside the books"
    );
    for blocks in [1, 63, 65, 1000] {
        let differs = (allocated(blocks) - others).abs();
        // Blocks of the heap are rounded up to 16 bytes each, large ones to pages.
        assert!(differs <= 12 * 16, "{blocks} blocks: {differs}");
    }
}

/// M1
fn nothing_is_allocated_in_steady_state() {
    let plan = plan(256);
    let ledger = Ledger::new(plan.bytes());
    let mut cache = KvCache::new(plan, &ledger.root(), KvOptions::default()).expect("fits");
    let with_room = || BlockTable::with_capacity(64 * BLOCK_TOKENS, BLOCK_TOKENS);
    let (mut a, mut b, mut c) = (with_room(), with_room(), with_room());
    let keys: Vec<BlockKey> = (0..64).map(key).collect();
    let mut round = |n: u64| {
        cache.tick(n);
        cache.adopt(&mut a, &keys[..20]);
        cache.append(&mut a, 30 * BLOCK_TOKENS).expect("room");
        let full = a.len() / BLOCK_TOKENS;
        for (index, key) in keys.iter().enumerate().take(full.min(40)) {
            cache.publish(&mut a, index, *key);
        }
        cache.fork_into(&a, 7 * BLOCK_TOKENS + 3, &mut b);
        cache.append(&mut b, 40).expect("room");
        cache
            .append_consecutive(&mut c, 60 * BLOCK_TOKENS)
            .expect("room");
        cache.free(&mut a);
        let done = cache.compact(&mut [&mut b, &mut c], Bytes::mib(64), &Triggers::ALWAYS);
        cache.free(&mut b);
        cache.free(&mut c);
        cache.drop_cached(3);
        cache.report().blocks_used + done.moved_blocks
    };
    round(0);
    let (moved, left) = left_by(|| (1..50).map(&mut round).sum::<usize>());
    assert!(moved > 0, "blocks were moved");
    assert_eq!(left.allocations, 0, "{left}");
}

/// Every ask of the ledger refused, once and for good.
fn refusals_at_any_moment_leave_nothing_behind() {
    let swept = for_each_fault!(|faults| {
        let plan = plan(64 * 6);
        let ledger = Ledger::with_faults(plan.bytes(), Arc::clone(faults));
        let result = churn(plan, &ledger);
        assert_eq!(ledger.granted(), Bytes::ZERO);
        // The account and the books come first.
        let asks = faults.asks();
        match (result, faults.struck()) {
            (Ok(refused), 0) => assert_eq!(refused, 0, "nothing is refused without faults"),
            (Ok(refused), struck) => assert!(asks > 2 && refused == struck, "{asks}: {refused}"),
            (Err(KvError::Refused(_)), 1) => assert!(asks <= 2, "{asks}"),
            (Err(error), struck) => panic!("{struck}: {error}"),
        }
    });
    assert!(swept.asks >= 10, "{swept:?}");
    assert_eq!((swept.runs, swept.struck), (2 * swept.asks, 2 * swept.asks));
}

/// Fills, shares, compacts and frees; gives how many slabs were refused.
fn churn(plan: KvPlan, ledger: &Ledger) -> Result<u64, KvError> {
    let mut cache = KvCache::new(plan, &ledger.root(), KvOptions::default())?;
    let mut tables: Vec<BlockTable> = (0..12).map(|_| BlockTable::new()).collect();
    for round in 0..3u32 {
        for (i, table) in (0u8..).zip(&mut tables) {
            let (len, count) = (table.len(), table.blocks().len());
            let result = match round {
                1 => cache.append_consecutive(table, 100).map(|_| ()),
                _ => cache.append(table, 200),
            };
            match result {
                Ok(()) => write(&mut cache, table, i),
                Err(KvError::Exhausted { .. } | KvError::Refused(_)) => {
                    assert_eq!((table.len(), table.blocks().len()), (len, count));
                }
                Err(error) => return Err(error),
            }
            if !table.is_empty() {
                let index = table.len() / BLOCK_TOKENS - 1;
                cache.publish(table, index, key(u32::from(i) * 100 + round));
            }
        }
        for (i, table) in tables.iter_mut().enumerate() {
            if (i as u32 + round).is_multiple_of(3) {
                cache.free(table);
            }
        }
        let mut known: Vec<_> = tables.iter_mut().collect();
        cache.compact(&mut known, Bytes::mib(64), &Triggers::ALWAYS);
        for (i, table) in (0u8..).zip(&tables) {
            let stored = |&block: &u32| cache.block_bytes(block).iter().all(|&b| b == i);
            assert!(table.blocks().iter().all(stored), "sequence {i}");
        }
        if let Some(taken) = cache.allocate_consecutive(70) {
            cache.release_all(&taken.blocks);
        }
    }
    tables.iter_mut().for_each(|table| cache.free(table));
    assert_eq!(cache.report().blocks_used, 0);
    Ok(cache.report().refusals)
}
