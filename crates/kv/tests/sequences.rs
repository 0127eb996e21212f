//! Many sequences in one cache, against an oracle that knows only their lengths.

use std::collections::BTreeSet;

use bursar_kernels::kv_view::{KvDtype, KvLayout, KvShape};
use bursar_kv::{BlockTable, KvCache, KvPlan};
use bursar_memory::{Bytes, Ledger};
use proptest::prelude::*;

const BLOCK_TOKENS: usize = 16;
const BLOCKS: usize = 12;

fn cache() -> (Ledger, KvCache) {
    let shape = KvShape {
        layers: 1,
        kv_heads: 1,
        head_dim: 16,
        block_tokens: BLOCK_TOKENS,
        dtype_k: KvDtype::F16,
        dtype_v: KvDtype::F16,
    };
    let layout = KvLayout::new(shape).expect("a layout");
    let plan = KvPlan::for_context(layout, BLOCKS * BLOCK_TOKENS, 1).expect("a plan");
    let ledger = Ledger::new(plan.bytes());
    let cache = KvCache::new(plan, &ledger.root()).expect("fits exactly");
    (ledger, cache)
}

proptest! {
    /// R6: a sequence has exactly the blocks that its length needs, no block is in two sequences, and
    /// used + free = total after every step; what does not fit changes nothing.
    #[test]
    fn sequences_never_share_what_they_did_not_agree_to(
        steps in proptest::collection::vec((0..5usize, 0..70usize, prop::bool::weighted(0.2)), 0..80)
    ) {
        let (ledger, mut cache) = cache();
        let mut tables: Vec<BlockTable> = (0..5).map(|_| BlockTable::new()).collect();
        let mut lens = [0usize; 5];
        let blocks_of = |len: usize| len.div_ceil(BLOCK_TOKENS);
        for (which, tokens, ends) in steps {
            if ends {
                cache.free(&mut tables[which]);
                lens[which] = 0;
            } else {
                let mut wanted = lens;
                wanted[which] += tokens;
                let fits = wanted.iter().map(|&len| blocks_of(len)).sum::<usize>() <= BLOCKS;
                prop_assert_eq!(cache.append(&mut tables[which], tokens).is_ok(), fits);
                if fits {
                    lens = wanted;
                }
            }
            let mut seen = BTreeSet::new();
            for (table, &len) in tables.iter().zip(&lens) {
                prop_assert_eq!(table.len(), len);
                prop_assert_eq!(table.blocks().len(), blocks_of(len));
                for &block in table.blocks() {
                    prop_assert!((block as usize) < BLOCKS && seen.insert(block));
                }
                prop_assert_eq!(cache.view(table).len, len);
                prop_assert!(table.lookup(len, BLOCK_TOKENS).is_none());
            }
            let report = cache.report();
            prop_assert_eq!(report.blocks_used, seen.len());
            prop_assert_eq!(report.blocks_total, BLOCKS);
            prop_assert!(report.blocks_peak >= report.blocks_used);
        }
        drop(cache);
        prop_assert_eq!(ledger.granted(), Bytes(0));
    }
}
