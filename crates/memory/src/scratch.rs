//! Scratch memory of one request: a bump arena that is emptied in one go when the request ends.
//!
//! A request takes what it needs at its beginning, to the longest that it may become; nothing of it
//! is freed singly, and all of it at once. (The engine's `arena.rs` is something else: the activations
//! that all models share.)
//!
//! ```text
//! memory   |-- part --|-- part --|......... free .........|    one span or buffer
//! 0                            used        high water    capacity
//! ```
//!
//! Parts are handles, typed, so that the memory may be movable: [`Scratch::open`] pins it and turns
//! handles into slices. They know which request they are of: after [`Scratch::reset`] an old one is
//! refused, not another request's memory.
//!
//! ```
//! # use bursar_memory::scratch::{Scratch, ScratchFull};
//! # let memory: Box<[u8]> = vec![0; 4096].into(); // a Span, a Buffer, a MovableSpan
//! let mut scratch = Scratch::new(memory);
//! let tokens = scratch.take::<u32>(256)?;
//! let logits = scratch.take::<f32>(512)?;
//! let mut open = scratch.open();
//! open.slice_mut(tokens)[0] = 7;
//! assert_eq!(open.slice(logits), [0.0; 512]);
//! assert_eq!(scratch.reset(), 3072); // so many bytes had been taken
//! # Ok::<(), ScratchFull>(())
//! ```

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut, Range};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytemuck::Pod;

use crate::bytes::Bytes;
use crate::movable::{MovableSpan, Pinned};

/// Where every part starts: a multiple of so many bytes from the start of the memory. A cache line, so
/// that two parts written by two threads do not share one.
const PART_ALIGN: usize = 64;

/// What is said of a handle that is used too late.
const STALE: &str = "a part of scratch was kept over the end of its request";

/// Memory that a scratch can lie in: whatever is a slice of bytes while it is held, and what can be
/// moved between borrows.
pub trait Ground {
    /// The bytes while they are looked at.
    type Open<'a>: DerefMut<Target = [u8]>
    where
        Self: 'a;

    /// How many there are. Must not change.
    fn capacity(&self) -> usize;

    /// Holds on to them.
    fn open(&mut self) -> Self::Open<'_>;
}

impl<M: DerefMut<Target = [u8]>> Ground for M {
    type Open<'a>
        = &'a mut [u8]
    where
        M: 'a;

    fn capacity(&self) -> usize {
        self.len()
    }

    fn open(&mut self) -> &mut [u8] {
        self
    }
}

impl Ground for MovableSpan {
    type Open<'a> = Pinned<'a>;

    fn capacity(&self) -> usize {
        self.len()
    }

    fn open(&mut self) -> Pinned<'_> {
        self.pin()
    }
}

/// A part does not fit into what is left.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "a request's scratch has {} left of {}, a part of {} does not fit: the request needs more than \
     it was admitted with",
    Bytes::from(*.free), Bytes::from(*.capacity), Bytes(*.asked)
)]
pub struct ScratchFull {
    /// Bytes asked for (at most `u64::MAX`).
    pub asked: u64,
    /// Bytes that are left.
    pub free: usize,
    /// Bytes in all.
    pub capacity: usize,
}

/// Handle of `len` values of type `T` within a scratch.
#[derive(Debug)]
pub struct Part<T> {
    /// Bytes from the start of the memory.
    start: usize,
    /// Values.
    len: usize,
    request: u64,
    holds: PhantomData<fn() -> T>,
}

// By hand: a handle can be copied whatever it is of.
impl<T> Clone for Part<T> {
    fn clone(&self) -> Part<T> {
        *self
    }
}

impl<T> Copy for Part<T> {}

impl<T> Part<T> {
    /// Values.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    fn bytes(&self) -> Range<usize> {
        // No overflow: it was cut out of the memory.
        self.start..self.start + self.len * size_of::<T>()
    }
}

/// What many scratches came to, for who reports it. Shared by all of them.
#[derive(Debug, Default)]
pub struct ScratchTotals {
    resets: AtomicU64,
    refused: AtomicU64,
    high_water_bytes: AtomicU64,
}

/// [`ScratchTotals`] at one moment.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct ScratchReport {
    /// Requests that ended.
    pub resets_total: u64,
    /// Parts that did not fit.
    pub refused_total: u64,
    /// The most that one request had taken.
    pub high_water_bytes: u64,
}

impl ScratchTotals {
    /// The figures now.
    pub fn report(&self) -> ScratchReport {
        ScratchReport {
            resets_total: self.resets.load(Ordering::Relaxed),
            refused_total: self.refused.load(Ordering::Relaxed),
            high_water_bytes: self.high_water_bytes.load(Ordering::Relaxed),
        }
    }
}

/// Scratch memory of one request after the other. The memory goes back where it came from when this is
/// dropped.
#[derive(Debug)]
pub struct Scratch<M> {
    memory: M,
    capacity: usize,
    /// Bytes taken from the start.
    used: usize,
    /// The most that was taken by one request.
    high_water: usize,
    /// Counts requests, so that handles of earlier ones are known.
    request: u64,
    totals: Option<Arc<ScratchTotals>>,
}

impl<M: Ground> Scratch<M> {
    /// An empty scratch over all of `memory`. Allocates nothing.
    pub fn new(memory: M) -> Scratch<M> {
        Scratch {
            capacity: memory.capacity(),
            memory,
            used: 0,
            high_water: 0,
            request: 0,
            totals: None,
        }
    }

    /// The same, counted together with others.
    pub fn counted(memory: M, totals: &Arc<ScratchTotals>) -> Scratch<M> {
        Scratch {
            totals: Some(Arc::clone(totals)),
            ..Scratch::new(memory)
        }
    }

    /// Takes room for `len` values, all of them zero.
    ///
    /// # Errors
    /// Where less is left; nothing is taken then.
    pub fn take<T: Pod>(&mut self, len: usize) -> Result<Part<T>, ScratchFull> {
        // Pods are aligned to 16 bytes at most on any target there is, and the memory to 64.
        let start = self.used.next_multiple_of(PART_ALIGN).min(self.capacity);
        let free = self.capacity - start;
        let bytes = len.checked_mul(size_of::<T>());
        let Some(bytes) = bytes.filter(|bytes| *bytes <= free) else {
            if let Some(totals) = &self.totals {
                totals.refused.fetch_add(1, Ordering::Relaxed);
            }
            return Err(ScratchFull {
                asked: bytes.map_or(u64::MAX, |bytes| bytes as u64),
                free,
                capacity: self.capacity,
            });
        };
        // What an earlier request left there is nobody's to read.
        self.memory.open()[start..start + bytes].fill(0);
        self.used = start + bytes;
        self.high_water = self.high_water.max(self.used);
        Ok(Part {
            start,
            len,
            request: self.request,
            holds: PhantomData,
        })
    }

    /// Holds on to the memory, to read and write parts of it.
    pub fn open(&mut self) -> OpenScratch<'_, M> {
        OpenScratch {
            memory: self.memory.open(),
            request: self.request,
        }
    }

    /// Ends a request: everything is free again, and handles to it are void. Says how many bytes had
    /// been taken.
    pub fn reset(&mut self) -> usize {
        if let Some(totals) = &self.totals {
            totals.resets.fetch_add(1, Ordering::Relaxed);
            let high_water = self.high_water as u64;
            totals
                .high_water_bytes
                .fetch_max(high_water, Ordering::Relaxed);
        }
        self.request += 1;
        std::mem::take(&mut self.used)
    }

    /// Bytes that are taken, gaps between parts included.
    pub fn used(&self) -> usize {
        self.used
    }

    /// Bytes in all.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// The most bytes that one request had taken.
    pub fn high_water(&self) -> usize {
        self.high_water
    }

    /// Gives up the scratch for its memory.
    pub fn into_memory(self) -> M {
        self.memory
    }
}

impl<M: Ground + Deref<Target = [u8]>> Scratch<M> {
    /// The values of a part, where the memory stays where it is anyway.
    ///
    /// # Panics
    /// As [`OpenScratch::slice`].
    pub fn slice<T: Pod>(&self, part: Part<T>) -> &[T] {
        assert_eq!(part.request, self.request, "{STALE}");
        bytemuck::cast_slice(&self.memory[part.bytes()])
    }
}

/// A scratch that is looked at; its memory does not move meanwhile.
#[derive(Debug)]
pub struct OpenScratch<'a, M: Ground + 'a> {
    memory: M::Open<'a>,
    request: u64,
}

impl<M: Ground> OpenScratch<'_, M> {
    /// The values of a part.
    ///
    /// # Panics
    /// Where the part is of an earlier request or of a larger scratch, or the memory starts where such
    /// values cannot (a span and a buffer never do).
    pub fn slice<T: Pod>(&self, part: Part<T>) -> &[T] {
        self.check(part);
        bytemuck::cast_slice(&self.memory[part.bytes()])
    }

    /// The values of a part, to be written.
    ///
    /// # Panics
    /// As [`OpenScratch::slice`].
    pub fn slice_mut<T: Pod>(&mut self, part: Part<T>) -> &mut [T] {
        self.check(part);
        bytemuck::cast_slice_mut(&mut self.memory[part.bytes()])
    }

    /// The values of two parts at once, to be written.
    ///
    /// # Panics
    /// As [`OpenScratch::slice`], and where both are the same part.
    pub fn pair_mut<T: Pod, U: Pod>(
        &mut self,
        one: Part<T>,
        other: Part<U>,
    ) -> (&mut [T], &mut [U]) {
        self.check(one);
        self.check(other);
        let [one, other] = self
            .memory
            .get_disjoint_mut([one.bytes(), other.bytes()])
            .expect("parts of one scratch do not overlap");
        (
            bytemuck::cast_slice_mut(one),
            bytemuck::cast_slice_mut(other),
        )
    }

    fn check<T>(&self, part: Part<T>) {
        assert_eq!(part.request, self.request, "{STALE}");
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ledger::Ledger;
    use crate::mapping::Mapping;
    use crate::region::HugePages;
    use crate::span::{HeapMemory, SpanHeap};

    fn heap(ledger: &Ledger) -> Arc<SpanHeap> {
        let reservation = ledger.root().reserve(Bytes::kib(16)).unwrap();
        let mapping = Mapping::new(reservation, HugePages::Never).unwrap();
        SpanHeap::new(HeapMemory::Host(mapping)).unwrap()
    }

    /// M6
    #[test]
    fn a_request_takes_parts_and_its_end_frees_them_all() {
        let ledger = Ledger::new(Bytes::mib(1));
        let heap = heap(&ledger);
        let totals = Arc::new(ScratchTotals::default());
        let mut scratch = Scratch::counted(heap.take(1000).unwrap(), &totals);
        let tokens = scratch.take::<u32>(10).unwrap();
        let scores = scratch.take::<f64>(100).unwrap();
        assert_eq!((scratch.used(), tokens.len()), (64 + 800, 10));
        let full = scratch.take::<u8>(105).unwrap_err();
        assert_eq!((full.asked, full.free, full.capacity), (105, 104, 1000));
        assert!(scratch.take::<u64>(usize::MAX).is_err());
        let mut open = scratch.open();
        let (a, b) = open.pair_mut(tokens, scores);
        a.fill(7);
        b.fill(0.5);
        assert_eq!(open.slice(tokens), [7; 10]);
        assert_eq!(open.slice(scores), [0.5; 100]);
        assert_eq!(scratch.reset(), 864);
        // The next request finds nothing of it.
        let next = scratch.take::<u8>(1000).unwrap();
        assert!(scratch.open().slice(next).iter().all(|byte| *byte == 0));
        scratch.reset();
        let report = ScratchReport {
            resets_total: 2,
            refused_total: 2,
            high_water_bytes: 1000,
        };
        assert_eq!(totals.report(), report);
        drop(scratch);
        assert_eq!(heap.used(), 0);
    }

    #[test]
    #[should_panic(expected = "kept over the end of its request")]
    fn a_part_ends_with_its_request() {
        let mut scratch = Scratch::new(vec![0; 64].into_boxed_slice());
        let part = scratch.take::<u8>(1).unwrap();
        scratch.reset();
        scratch.open().slice(part);
    }

    #[test]
    fn a_scratch_can_be_moved_between_looks() {
        let ledger = Ledger::new(Bytes::mib(1));
        let (from, to) = (heap(&ledger), heap(&ledger));
        let memory = MovableSpan::new(from.take(4096).unwrap());
        let place = Arc::clone(memory.place());
        let mut scratch = Scratch::new(memory);
        let part = scratch.take::<u32>(1000).unwrap();
        for (n, value) in scratch.open().slice_mut(part).iter_mut().enumerate() {
            *value = n as u32;
        }
        place.relocate(to.take(4096).unwrap()).unwrap();
        assert_eq!((from.used(), to.used()), (0, 4096));
        let open = scratch.open();
        assert!(
            open.slice(part)
                .iter()
                .zip(0..)
                .all(|(value, n)| *value == n)
        );
        assert_eq!(place.len_in(&to), None, "pinned");
        drop(open);
        assert_eq!(place.len_in(&to), Some(4096));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..Default::default() })]

        /// M6: against one vector per part.
        #[test]
        fn parts_keep_what_is_written_to_them(
            requests in prop::collection::vec(prop::collection::vec(0..500_usize, 0..12), 1..5),
        ) {
            let ledger = Ledger::new(Bytes::mib(1));
            let mut scratch = Scratch::new(heap(&ledger).take(4096).unwrap());
            for lens in requests {
                let mut parts: Vec<(Part<u16>, Vec<u16>)> = Vec::new();
                let mut room = 4096_usize;
                for len in lens {
                    let need = (len * 2).next_multiple_of(64);
                    match scratch.take::<u16>(len) {
                        Ok(part) => {
                            let values: Vec<u16> = (0..len).map(|n| (n * 31 + room) as u16).collect();
                            prop_assert!(scratch.open().slice(part).iter().all(|value| *value == 0));
                            scratch.open().slice_mut(part).copy_from_slice(&values);
                            parts.push((part, values));
                            room = room.saturating_sub(need);
                        }
                        Err(full) => {
                            prop_assert!(len * 2 > room);
                            prop_assert_eq!(full.free, room);
                        }
                    }
                }
                let open = scratch.open();
                for (part, values) in &parts {
                    prop_assert_eq!(open.slice(*part), &values[..]);
                }
                scratch.reset();
                prop_assert_eq!(scratch.used(), 0);
            }
        }
    }
}
