//! `bursar bench pool`: what a buffer costs that was used before, by one thread and by two, what the heap
//! behind costs, what counting adds, and the same of the process allocator; then recorded traces, by pools
//! and by the process allocator.
//!
//! Each figure is of batches of 64, the clock's cost taken off; p99 is over the batches.

use std::hint::black_box;
use std::path::Path;
use std::sync::mpsc::sync_channel;

use bursar_memory::pools::PoolsOptions;
use bursar_memory::region::HugePages;
use bursar_memory::span::{HeapMemory, SpanHeap};
use bursar_memory::trace::{Way, replay};
use bursar_memory::{Buffer, BufferPool, Bytes, Heap, Ledger, Lifetime, Mapping, PoolError, Pools};

use super::super::clock::{Clock, Spread};
use super::super::sheet::Sheet;
use super::membranes::Named;
use crate::failure::Failure;

/// Blocks in a batch.
const MANY: usize = 64;
/// Bytes of a buffer: a row of an embedding, a small body.
const LEN: usize = 4096;
/// Batches on their way between two threads.
const UNDER_WAY: usize = 4;
/// Beyond what any of it takes.
const BUDGET: Bytes = Bytes::mib(256);

/// Measures and prints it.
pub(super) fn run(traces: &[Named], batches: u32, json: Option<&Path>) -> Result<(), Failure> {
    let failure = |error: PoolError| Failure::failed(error.to_string());
    let options = PoolsOptions::default();
    let mut sheet = Sheet::new("pool");
    sheet.set("blocks_in_a_batch", MANY);
    sheet.set("block_bytes", LEN);
    sheet.set("batches", batches);
    sheet.set("heap_bytes", options.heap_size.0);
    let bench = Bench {
        clock: Clock::new(),
        batches: batches as usize,
        ledger: Ledger::new(BUDGET),
    };
    bench.one_thread(&mut sheet).map_err(failure)?;
    bench.two_threads(&mut sheet).map_err(failure)?;
    bench.heaps(&mut sheet).map_err(failure)?;
    bench.process_allocator(&mut sheet);
    for Named { name, trace } in traces {
        sheet.set(&format!("{name}_events"), trace.events.len());
        let pools = Way::Pools {
            strategy: options.strategy,
            membranes: None,
            buffers: true,
        };
        let done = replay(trace, pools, &options).map_err(failure)?;
        let words = "a take or a give of the trace, by pools";
        sheet.count(&format!("{name}_pool_ns"), "ns", words, done.event_ns);
        let plain = replay(trace, Way::ProcessAllocator, &options).map_err(failure)?;
        let words = "the same, by the process allocator";
        sheet.count(&format!("{name}_malloc_ns"), "ns", words, plain.event_ns);
        let words = "of its takes that reused a buffer";
        let hits = done.hit_ratio.unwrap_or(0.0);
        sheet.count(&format!("{name}_hit_ratio"), "", words, hits);
        sheet.goal(">= 0.75", |ratio| ratio >= 0.75);
    }
    sheet.finish(json)
}

struct Bench {
    clock: Clock,
    batches: usize,
    ledger: Ledger,
}

impl Bench {
    /// Nanoseconds of one of the `MANY` that `work` does.
    fn each(&self, work: impl FnOnce()) -> f64 {
        self.clock.nanoseconds(work) / MANY as f64
    }

    fn pool(&self, track_statistics: bool) -> Result<BufferPool, PoolError> {
        let options = PoolsOptions {
            track_statistics,
            ..PoolsOptions::default()
        };
        let pools = Pools::start(&options, &self.ledger.root())?;
        Ok(pools.buffers().clone())
    }

    /// Nanoseconds of a buffer that is taken and given back at once, which is there.
    fn pairs(&self, pool: &BufferPool) -> Result<f64, PoolError> {
        let mut refused = None;
        let time = self.each(|| {
            for _ in 0..MANY {
                match pool.acquire(black_box(LEN), Lifetime::Episodic) {
                    Ok(buffer) => drop(black_box(buffer)),
                    Err(error) => refused = Some(error),
                }
            }
        });
        refused.map_or(Ok(time), Err)
    }

    fn one_thread(&self, sheet: &mut Sheet) -> Result<(), PoolError> {
        let (tracked, untracked) = (self.pool(true)?, self.pool(false)?);
        let (mut with, mut without) = (Vec::new(), Vec::new());
        // Blocks of both, since a thread that goes from pool to pool changes its seat.
        const BLOCKS: usize = 64;
        for _ in 0..self.batches.div_ceil(BLOCKS) {
            for (pool, times) in [(&tracked, &mut with), (&untracked, &mut without)] {
                self.pairs(pool)?;
                for _ in 0..BLOCKS {
                    times.push(self.pairs(pool)?);
                }
            }
        }
        let late = percentile(&mut with, 99);
        let (with, without) = (Spread::of(with), Spread::of(without));
        let ratio = with.median / without.median;
        let words = "a buffer taken and given back, which was there";
        sheet.spread("cached_pair_ns", "ns", words, with);
        sheet.goal("<= 20", |ns| ns <= 20.0);
        let words = "the same in the slowest of 100 batches";
        sheet.count("cached_pair_p99_ns", "ns", words, late);
        sheet.goal("<= 100", |ns| ns <= 100.0);
        let words = "the same with statistics off";
        sheet.spread("untracked_pair_ns", "ns", words, without);
        let words = "with statistics of without";
        sheet.count("tracking_ratio", "", words, ratio);
        sheet.goal("<= 1.02", |ratio| ratio <= 1.02);

        let mut held = Vec::with_capacity(MANY);
        let (mut taken, mut given) = (Vec::new(), Vec::new());
        for _ in 0..self.batches {
            let mut refused = None;
            taken.push(self.each(|| refused = take(&tracked, &mut held).err()));
            given.push(self.each(|| held.clear()));
            refused.map_or(Ok(()), Err)?;
        }
        let words = "64 of them taken, each";
        sheet.spread("cached_acquire_ns", "ns", words, Spread::of(taken));
        let words = "64 of them given back, each";
        sheet.spread("cached_release_ns", "ns", words, Spread::of(given));
        Ok(())
    }

    /// One thread takes, another gives back.
    fn two_threads(&self, sheet: &mut Sheet) -> Result<(), PoolError> {
        let pool = self.pool(true)?;
        let (full, to_empty) = sync_channel::<Vec<Buffer>>(UNDER_WAY);
        let (empty, to_fill) = sync_channel::<Vec<Buffer>>(2 * UNDER_WAY);
        for _ in 0..=UNDER_WAY {
            // Not full: the channel holds as many.
            let _ = empty.send(Vec::with_capacity(MANY));
        }
        let (taken, given) = std::thread::scope(|scope| {
            let giver = scope.spawn(move || {
                let mut given = Vec::new();
                while let Ok(mut held) = to_empty.recv() {
                    given.push(self.each(|| held.clear()));
                    if empty.send(held).is_err() {
                        break;
                    }
                }
                given
            });
            let mut taken = Vec::new();
            let mut refused = None;
            for _ in 0..self.batches {
                let Ok(mut held) = to_fill.recv() else { break };
                taken.push(self.each(|| refused = take(&pool, &mut held).err()));
                if refused.is_some() || full.send(held).is_err() {
                    break;
                }
            }
            drop(full);
            let given = giver.join().unwrap_or_default();
            refused.map_or(Ok((taken, given)), Err)
        })?;
        let (taken, given) = (Spread::of(taken), Spread::of(given));
        let both = taken.median + given.median;
        let words = "taken by one thread while another gives back";
        sheet.spread("two_threads_acquire_ns", "ns", words, taken);
        let words = "given back by that other";
        sheet.spread("two_threads_release_ns", "ns", words, given);
        let words = "the two together";
        sheet.count("two_threads_pair_ns", "ns", words, both);
        sheet.goal("<= 60", |ns| ns <= 60.0);
        Ok(())
    }

    /// What comes behind the buffers: the books alone, a heap, the pool of heaps.
    fn heaps(&self, sheet: &mut Sheet) -> Result<(), PoolError> {
        let heap_len = PoolsOptions::default().heap_size;
        let mut books = Heap::new(heap_len.0, 64).map_err(|source| PoolError::Heap {
            len: heap_len,
            source,
        })?;
        let mut held = Vec::with_capacity(MANY);
        let (mut taken, mut given) = (Vec::new(), Vec::new());
        for _ in 0..self.batches {
            taken.push(self.each(|| {
                let blocks = (0..MANY).filter_map(|_| books.take(black_box(LEN as u64), 64).ok());
                held.extend(blocks);
            }));
            given.push(self.each(|| held.drain(..).for_each(|block| books.free(block))));
        }
        let words = "a block taken from a heap's books";
        sheet.spread("heap_take_ns", "ns", words, Spread::of(taken));
        sheet.goal("<= 60", |ns| ns <= 60.0);
        let words = "and given back";
        sheet.spread("heap_give_ns", "ns", words, Spread::of(given));

        let reservation = self.ledger.root().reserve(heap_len)?;
        let memory = HeapMemory::Host(Mapping::new(reservation, HugePages::Never)?);
        let heap = SpanHeap::new(memory).map_err(|source| PoolError::Heap {
            len: heap_len,
            source,
        })?;
        let words = "a span of one heap: lock, books, owner";
        self.spans(sheet, "span_take_ns", words, || {
            heap.take(black_box(LEN)).ok()
        });
        let pools = Pools::start(&PoolsOptions::default(), &self.ledger.root())?;
        if let Some(heaps) = pools.heaps() {
            let words = "a span of the pool of heaps";
            self.spans(sheet, "heap_pool_take_ns", words, || {
                heaps.take(black_box(LEN)).ok()
            });
        }
        Ok(())
    }

    fn spans<T>(
        &self,
        sheet: &mut Sheet,
        name: &str,
        words: &'static str,
        mut take: impl FnMut() -> Option<T>,
    ) {
        let mut held = Vec::with_capacity(MANY);
        let mut taken = Vec::new();
        for _ in 0..self.batches {
            taken.push(self.each(|| held.extend((0..MANY).filter_map(|_| take()))));
            held.clear();
        }
        sheet.spread(name, "ns", words, Spread::of(taken));
    }

    fn process_allocator(&self, sheet: &mut Sheet) {
        let fresh = || black_box(Vec::<u8>::with_capacity(black_box(LEN)));
        let mut pairs = Vec::new();
        let mut held = Vec::with_capacity(MANY);
        let (mut taken, mut given) = (Vec::new(), Vec::new());
        for _ in 0..self.batches {
            pairs.push(self.each(|| (0..MANY).for_each(|_| drop(fresh()))));
            taken.push(self.each(|| held.extend((0..MANY).map(|_| fresh()))));
            given.push(self.each(|| held.clear()));
        }
        let words = "as many bytes of the process allocator, taken and given back";
        sheet.spread("malloc_pair_ns", "ns", words, Spread::of(pairs));
        let words = "64 of them taken, each";
        sheet.spread("malloc_take_ns", "ns", words, Spread::of(taken));
        let words = "64 of them given back, each";
        sheet.spread("malloc_give_ns", "ns", words, Spread::of(given));
    }
}

/// Fills `held` with buffers of a pool.
fn take(pool: &BufferPool, held: &mut Vec<Buffer>) -> Result<(), PoolError> {
    for _ in 0..MANY {
        held.push(pool.acquire(black_box(LEN), Lifetime::Episodic)?);
    }
    Ok(())
}

/// What so many of a hundred do not exceed.
fn percentile(measured: &mut [f64], of_100: usize) -> f64 {
    measured.sort_unstable_by(f64::total_cmp);
    let place = (measured.len() * of_100 / 100).min(measured.len().saturating_sub(1));
    measured.get(place).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_what_so_many_do_not_exceed() {
        let mut measured: Vec<f64> = (1..=200).rev().map(f64::from).collect();
        assert_eq!(percentile(&mut measured, 99), 199.0);
        assert_eq!(percentile(&mut measured, 50), 101.0);
        assert!(percentile(&mut [], 99).is_nan());
    }
}
