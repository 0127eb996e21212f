//! The merge loop that byte-pair encoding shares with SentencePiece's BPE.
//!
//! ```text
//! symbols ← the word's characters or bytes
//! while some adjacent pair merges:
//!     take the pair of lowest rank, the leftmost among equals, and make it one symbol
//! ```
//!
//! A short word is scanned for its lowest rank at every step: at these lengths a scan of a few
//! cache lines beats a heap. A long one keeps its pairs in a heap, each entry a rank and a place;
//! an entry whose place has since changed its rank is stale and dropped. So a word of n symbols
//! costs O(n log n), and a megabyte of one letter is no worse than a megabyte of prose.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// The rank that no merge has.
pub(crate) const NO_RANK: u32 = u32::MAX;

/// Words up to this many symbols are scanned.
const SCAN_MAX: usize = 48;

/// A piece of the word: a token, or a character that is no token.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Symbol {
    /// The token's id, or [`NO_TOKEN`].
    pub(crate) id: u32,
    /// Start in the word, in bytes.
    pub(crate) start: u32,
    /// Length in bytes.
    pub(crate) len: u32,
    // Rank of the merge with the next symbol, or `NO_RANK`, and what it makes.
    rank: u32,
    merged: u32,
    // Places of the neighbours; only the heap's loop uses them. `NONE` at the ends.
    prev: u32,
    next: u32,
}

/// A symbol that is not in the vocabulary.
pub(crate) const NO_TOKEN: u32 = u32::MAX;
const NONE: u32 = u32::MAX;

/// Memory that one call to encode uses again for each word.
#[derive(Debug, Default)]
pub(crate) struct Scratch {
    pub(crate) symbols: Vec<Symbol>,
    heap: BinaryHeap<Reverse<u64>>,
    /// Text of a candidate piece, for models that must compose it.
    pub(crate) text: Vec<u8>,
}

impl Scratch {
    pub(crate) fn push(&mut self, id: u32, start: usize, len: usize) {
        // Words are below 4 GiB; `Tokenizer::encode` cuts longer ones.
        self.symbols.push(Symbol {
            id,
            start: start as u32,
            len: len as u32,
            rank: NO_RANK,
            merged: 0,
            prev: NONE,
            next: NONE,
        });
    }

    /// Merges `symbols` until no pair merges. `lookup` gives a pair's rank and product.
    pub(crate) fn merge(&mut self, lookup: impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>) {
        for at in 1..self.symbols.len() {
            rank_pair(&mut self.symbols, at - 1, at, &lookup);
        }
        if self.symbols.len() <= SCAN_MAX {
            self.merge_by_scan(lookup)
        } else {
            self.merge_by_heap(lookup)
        }
    }

    fn merge_by_scan(&mut self, lookup: impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>) {
        let symbols = &mut self.symbols;
        loop {
            let mut best = NO_RANK;
            let mut at = 0;
            for (place, symbol) in symbols.iter().enumerate() {
                if symbol.rank < best {
                    best = symbol.rank;
                    at = place;
                }
            }
            if best == NO_RANK {
                return;
            }
            symbols[at].id = symbols[at].merged;
            symbols[at].len += symbols[at + 1].len;
            symbols.remove(at + 1);
            if at + 1 < symbols.len() {
                rank_pair(symbols, at, at + 1, &lookup);
            } else {
                symbols[at].rank = NO_RANK;
            }
            if at > 0 {
                rank_pair(symbols, at - 1, at, &lookup);
            }
        }
    }

    fn merge_by_heap(&mut self, lookup: impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>) {
        let symbols = &mut self.symbols;
        let count = symbols.len();
        let mut entries = std::mem::take(&mut self.heap).into_vec();
        entries.clear();
        for (at, symbol) in symbols.iter_mut().enumerate() {
            symbol.prev = if at == 0 { NONE } else { at as u32 - 1 };
            symbol.next = if at + 1 == count { NONE } else { at as u32 + 1 };
            if symbol.rank != NO_RANK {
                entries.push(Reverse(entry(symbol.rank, at as u32)));
            }
        }
        let mut heap = BinaryHeap::from(entries);
        while let Some(Reverse(top)) = heap.pop() {
            let (rank, at) = ((top >> 32) as u32, top as u32 as usize);
            // A symbol that was merged away has no rank, one that changed has another.
            if symbols[at].rank != rank {
                continue;
            }
            let right = symbols[at].next as usize;
            let after = symbols[right].next;
            symbols[at].id = symbols[at].merged;
            symbols[at].len += symbols[right].len;
            symbols[at].next = after;
            symbols[right].len = 0;
            symbols[right].rank = NO_RANK;
            if after == NONE {
                symbols[at].rank = NO_RANK;
            } else {
                symbols[after as usize].prev = at as u32;
                let rank = rank_pair(symbols, at, after as usize, &lookup);
                if rank != NO_RANK {
                    heap.push(Reverse(entry(rank, at as u32)));
                }
            }
            let before = symbols[at].prev;
            if before != NONE {
                let rank = rank_pair(symbols, before as usize, at, &lookup);
                if rank != NO_RANK {
                    heap.push(Reverse(entry(rank, before)));
                }
            }
        }
        self.heap = heap;
        symbols.retain(|symbol| symbol.len != 0);
    }
}

/// Orders by rank, then by place.
fn entry(rank: u32, at: u32) -> u64 {
    u64::from(rank) << 32 | u64::from(at)
}

/// Sets the rank of the pair that starts at `left`, and returns it.
#[inline]
fn rank_pair(
    symbols: &mut [Symbol],
    left: usize,
    right: usize,
    lookup: &impl Fn(&Symbol, &Symbol) -> Option<(u32, u32)>,
) -> u32 {
    let (rank, merged) = lookup(&symbols[left], &symbols[right]).unwrap_or((NO_RANK, 0));
    symbols[left].rank = rank;
    symbols[left].merged = merged;
    rank
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Letters merge into runs of powers of two; ranks fall with length, so order matters.
    fn lookup(left: &Symbol, right: &Symbol) -> Option<(u32, u32)> {
        let len = left.len + right.len;
        (left.len == right.len && len.is_power_of_two() && len <= 16).then_some((len, len))
    }

    #[test]
    fn scan_and_heap_agree() {
        for count in 1..200 {
            let mut by_scan = Scratch::default();
            let mut by_heap = Scratch::default();
            for at in 0..count {
                by_scan.push(1, at, 1);
                by_heap.push(1, at, 1);
            }
            for at in 1..count {
                rank_pair(&mut by_scan.symbols, at - 1, at, &lookup);
                rank_pair(&mut by_heap.symbols, at - 1, at, &lookup);
            }
            by_scan.merge_by_scan(lookup);
            by_heap.merge_by_heap(lookup);
            let lens = |s: &Scratch| {
                s.symbols
                    .iter()
                    .map(|s| (s.start, s.len))
                    .collect::<Vec<_>>()
            };
            assert_eq!(lens(&by_scan), lens(&by_heap), "{count} symbols");
        }
    }
}
