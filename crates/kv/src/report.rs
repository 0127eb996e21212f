//! What a cache holds, as plain data, and as a page to read.

use std::fmt;

use bursar_memory::Bytes;

use crate::blocks::BlockStats;
use crate::compact::CompactionStats;

/// What a cache holds at one moment, and what it has done since the start.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct KvReport {
    /// Tokens of a block.
    pub block_tokens: usize,
    /// Bytes of a token's keys and values in all layers.
    pub bytes_per_token: Bytes,
    /// Blocks in all: used + cached + free + vacant.
    pub blocks_total: usize,
    /// Blocks that may be used at once: fewer than there are while memory is short.
    pub blocks_capacity: usize,
    /// Blocks that somebody holds.
    pub blocks_used: usize,
    /// Blocks that nobody holds, kept for what they store.
    pub blocks_cached: usize,
    /// Blocks that store nothing, in slabs that are committed.
    pub blocks_free: usize,
    /// Blocks of slabs that are not committed.
    pub blocks_vacant: usize,
    /// The most blocks that were ever used at once.
    pub blocks_peak: usize,
    /// Blocks as sequences count them: one that two share counts twice.
    pub logical_blocks: usize,
    /// Blocks that more than one holds.
    pub shared_blocks: usize,
    /// Slabs in all.
    pub slabs_total: usize,
    /// Slabs that are charged and may be written.
    pub slabs_committed: usize,
    /// Bytes of used blocks.
    pub bytes_used: Bytes,
    /// Bytes of cached blocks.
    pub bytes_cached: Bytes,
    /// Bytes charged for slabs now.
    pub bytes_committed: Bytes,
    /// Bytes of partly used slabs that store nothing.
    pub bytes_fragmented: Bytes,
    /// Bytes of all slabs.
    pub bytes_total: Bytes,
    /// Bytes that are promised to it, books included: as many are never refused.
    pub bytes_promised: Bytes,
    /// Bytes of the books.
    pub bytes_books: Bytes,
    /// Counts and times of blocks.
    pub stats: BlockStats,
    /// Counts of compactions.
    pub compactions: CompactionStats,
    /// Tokens that sequences found stored.
    pub prefix_hit_tokens: u64,
    /// Cached blocks that gave way to others.
    pub evictions: u64,
    /// Full blocks that turned out to be stored already, and were let go.
    pub deduplications: u64,
    /// Shared blocks that were copied because a sequence was about to write.
    pub copies: u64,
    /// Slabs that the ledger refused.
    pub refusals: u64,
}

impl KvReport {
    /// The share of committed bytes that lies empty in partly used slabs, 0 to 1.
    pub fn fragmentation(&self) -> f64 {
        ratio(self.bytes_fragmented, self.bytes_committed).unwrap_or(0.0)
    }

    /// The share of committed bytes that is used or cached, 0 to 1; 1 where nothing is committed.
    pub fn efficiency(&self) -> f64 {
        let stored = self.bytes_used.saturating_add(self.bytes_cached);
        ratio(stored, self.bytes_committed).unwrap_or(1.0)
    }

    /// Blocks that can be taken: free, vacant and cached, within the capacity.
    pub fn blocks_available(&self) -> usize {
        let there = self.blocks_free + self.blocks_vacant + self.blocks_cached;
        there.saturating_sub(self.blocks_total - self.blocks_capacity)
    }

    /// Bytes of the sequences' tables, with 4 bytes for each of their blocks, and of the books.
    pub fn bytes_metadata(&self) -> Bytes {
        let tables = Bytes(4 * self.logical_blocks as u64);
        self.bytes_books.saturating_add(tables)
    }
}

fn ratio(part: Bytes, whole: Bytes) -> Option<f64> {
    (!whole.is_zero()).then(|| part.0 as f64 / whole.0 as f64)
}

impl fmt::Display for KvReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let block = Bytes(self.bytes_per_token.0 * self.block_tokens as u64);
        writeln!(
            f,
            "block        {} tokens, {block}, {} per token",
            self.block_tokens, self.bytes_per_token
        )?;
        writeln!(
            f,
            "blocks       {} in all: {} used, {} cached, {} free, {} vacant",
            self.blocks_total,
            self.blocks_used,
            self.blocks_cached,
            self.blocks_free,
            self.blocks_vacant
        )?;
        if self.blocks_capacity < self.blocks_total {
            writeln!(
                f,
                "capacity     {} blocks while memory is short, {} promised",
                self.blocks_capacity, self.bytes_promised
            )?;
        }
        writeln!(
            f,
            "sequences    {} blocks, {} of them shared",
            self.logical_blocks, self.shared_blocks
        )?;
        writeln!(
            f,
            "memory       {} of {} committed in {} of {} slabs: {} used, {} cached",
            self.bytes_committed,
            self.bytes_total,
            self.slabs_committed,
            self.slabs_total,
            self.bytes_used,
            self.bytes_cached
        )?;
        writeln!(
            f,
            "shares       {:.1} % fragmentation, {:.1} % efficiency",
            self.fragmentation() * 100.0,
            self.efficiency() * 100.0
        )?;
        writeln!(f, "metadata     {}", self.bytes_metadata())?;
        let stats = &self.stats;
        writeln!(
            f,
            "allocations  {} in all, {} given back, {} now, {} at most",
            stats.allocations, stats.deallocations, self.blocks_used, stats.peak
        )?;
        writeln!(
            f,
            "prefixes     {} tokens found stored, {} blocks evicted, {} deduplicated, {} copied",
            self.prefix_hit_tokens, self.evictions, self.deduplications, self.copies
        )?;
        let compactions = &self.compactions;
        write!(
            f,
            "compactions  {}: {} moved, {} given back",
            compactions.count, compactions.moved_bytes, compactions.returned_bytes
        )?;
        if let Some(last) = compactions.last {
            let micros = last.duration.as_micros();
            write!(
                f,
                "; the last at unix time {} ms took {micros} us",
                last.unix_ms
            )?;
        }
        writeln!(f)?;
        let median = [&stats.age, &stats.idle, &stats.reuse_gap].map(|h| h.quantile_ms(0.5));
        let [age, idle, gap] = median.map(|ms| ms.map_or("-".to_owned(), |ms| format!("{ms} ms")));
        write!(
            f,
            "medians      age {age}, idle {idle}, reuse gap {gap} (at most)"
        )
    }
}
