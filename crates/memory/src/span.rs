//! An owned piece of memory: what pools hand out, and the one place where memory is cut up.
//!
//! A [`SpanHeap`] is a piece of memory with the books of a [`Heap`] over it. A [`Span`] taken from it is
//! as good as a boxed slice: it owns its bytes alone, may go to any thread, and goes back when dropped.
//! A span can itself become the memory of a heap, so that hierarchies nest.
//!
//! ```text
//! mapping     |------------------------------------------|   charged, unmapped with its last span
//! heap        | span |  free  | span |      free         |   64-byte granules
//! heap of span               |s| free |
//! ```

#![allow(unsafe_code)]

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use crate::account::Reservation;
use crate::bytes::Bytes;
use crate::heap::{Block, Heap, HeapError, HeapFull, HeapStats};
use crate::mapping::Mapping;
use crate::node::lock;
use crate::region::RegionError;

/// Every span starts at a multiple of so many bytes and takes whole multiples of it: a cache line, and
/// the widest vector register.
pub const SPAN_ALIGN: usize = 64;

/// Bytes that belong to whoever holds it, at a multiple of [`SPAN_ALIGN`]. They are whatever the last
/// holder left there, never uninitialised.
pub struct Span {
    /// Points at `len` initialised bytes that nothing else reads or writes while this lives.
    base: NonNull<u8>,
    len: usize,
    home: Home,
}

// SAFETY: a span has its bytes to itself, and what `home` holds is `Send`.
unsafe impl Send for Span {}
// SAFETY: shared access only reads.
unsafe impl Sync for Span {}

/// What keeps the bytes of a span, and takes them back.
enum Home {
    Heap(Carved),
    /// A mapping of its own, counted by whoever made it.
    Mapping {
        _memory: Box<Mapping>,
        _count: Option<LiveCount>,
    },
    /// Memory of the process allocator, charged to the byte.
    Allocated {
        _memory: Vec<u8>,
        _reservation: Reservation,
    },
}

struct Carved {
    heap: Arc<SpanHeap>,
    _count: Option<LiveCount>,
    /// `None` once it has gone back.
    block: Option<Block>,
}

impl Drop for Carved {
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            self.heap.take_back(block);
        }
    }
}

impl Span {
    /// A mapping as one span.
    pub fn mapped(mapping: Mapping) -> Span {
        let len = mapping.len();
        Span::counted(mapping, len, None)
    }

    /// The first `len` bytes of a mapping as one span that is counted while it lives.
    pub(crate) fn counted(mapping: Mapping, len: usize, count: Option<LiveCount>) -> Span {
        assert!(
            len <= mapping.len(),
            "{len} bytes of a mapping of {}",
            mapping.len()
        );
        Span {
            // All of a mapping is usable and initialised, and its start is a page's. It is moved into
            // `home`, where nobody looks at it any more.
            base: mapping.base(),
            len,
            home: Home::Mapping {
                _memory: Box::new(mapping),
                _count: count,
            },
        }
    }

    /// As many zeroed bytes of the process allocator as the reservation holds, given back to both when
    /// dropped: what stands in for a pool that is switched off.
    pub fn allocated(reservation: Reservation) -> Result<Span, RegionError> {
        let bytes = reservation.bytes();
        let too_large = || RegionError::TooLarge(bytes);
        let len = bytes.to_usize().ok_or_else(too_large)?;
        let room = len
            .checked_add(SPAN_ALIGN - 1)
            .filter(|room| isize::try_from(*room).is_ok())
            .ok_or_else(too_large)?;
        let mut memory = vec![0; room];
        let base = memory.as_mut_ptr();
        let front = base.align_offset(SPAN_ALIGN);
        // SAFETY: less than SPAN_ALIGN, and the vector has that many bytes beyond `len`.
        let base = unsafe { base.add(front) };
        let base = NonNull::new(base).expect("a vector's pointer is never null");
        Ok(Span {
            base,
            len,
            home: Home::Allocated {
                _memory: memory,
                _reservation: reservation,
            },
        })
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Leaves it with the first `len` bytes, if it has more. What is cut off is kept until it goes back.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Counts a span of a heap, rounded as the heap rounds it, while it lives.
    pub(crate) fn count_by(&mut self, counts: &Arc<LiveCounts>) {
        if let Home::Heap(carved) = &mut self.home {
            let len = self.len.max(1).next_multiple_of(SPAN_ALIGN) as u64;
            carved._count = Some(LiveCount::new(counts, len));
        }
    }

    /// Whether it was cut out of that heap.
    pub fn is_of(&self, heap: &SpanHeap) -> bool {
        matches!(&self.home, Home::Heap(carved) if std::ptr::eq(&*carved.heap, heap))
    }

    /// The heap that it was cut out of, if it was.
    pub fn heap(&self) -> Option<&Arc<SpanHeap>> {
        match &self.home {
            Home::Heap(carved) => Some(&carved.heap),
            Home::Mapping { .. } | Home::Allocated { .. } => None,
        }
    }
}

impl Deref for Span {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `base` and `len` are initialised bytes of this span alone (see the fields), borrowed
        // with it.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl DerefMut for Span {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `&mut self` makes it the only access.
        unsafe { std::slice::from_raw_parts_mut(self.base.as_ptr(), self.len) }
    }
}

impl fmt::Debug for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let home = match &self.home {
            Home::Heap(_) => "heap",
            Home::Mapping { .. } => "mapping",
            Home::Allocated { .. } => "allocator",
        };
        write!(f, "Span({} of a {home})", Bytes::from(self.len))
    }
}

/// Counts what is alive of something: one more when made, one less when dropped.
#[derive(Debug)]
pub(crate) struct LiveCount {
    counts: Arc<LiveCounts>,
    bytes: u64,
}

/// How many [`LiveCount`]s there are, and their bytes.
#[derive(Debug, Default)]
pub(crate) struct LiveCounts {
    pub(crate) live: AtomicU64,
    pub(crate) bytes: AtomicU64,
}

impl LiveCount {
    pub(crate) fn new(counts: &Arc<LiveCounts>, bytes: u64) -> LiveCount {
        counts.live.fetch_add(1, Ordering::Relaxed);
        counts.bytes.fetch_add(bytes, Ordering::Relaxed);
        LiveCount {
            counts: Arc::clone(counts),
            bytes,
        }
    }
}

impl Drop for LiveCount {
    fn drop(&mut self) {
        self.counts.live.fetch_sub(1, Ordering::Relaxed);
        self.counts.bytes.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Memory with the books of a heap over it.
pub struct SpanHeap {
    /// Points at `len` initialised bytes that `inner.memory` keeps and that only spans of this heap
    /// touch, each its own block.
    base: NonNull<u8>,
    len: usize,
    /// Bytes in use, as the books had them last: read without the lock, by who chooses among heaps.
    used: AtomicU64,
    inner: Mutex<Inner>,
}

struct Inner {
    books: Heap,
    memory: HeapMemory,
}

// SAFETY: the bytes behind `base` belong to spans, which are `Send` and disjoint; all else is behind
// the lock.
unsafe impl Send for SpanHeap {}
// SAFETY: as for `Send`.
unsafe impl Sync for SpanHeap {}

/// What a heap can be made of. Memory of a device joins here: it has books and charge as well, but its
/// bytes are not ours to read.
#[derive(Debug)]
pub enum HeapMemory {
    /// A mapping of this machine's memory.
    Host(Mapping),
    /// A span of another heap.
    Span(Span),
}

impl HeapMemory {
    /// Bytes.
    pub fn len(&self) -> usize {
        match self {
            HeapMemory::Host(mapping) => mapping.len(),
            HeapMemory::Span(span) => span.len(),
        }
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn base(&mut self) -> NonNull<u8> {
        match self {
            HeapMemory::Host(mapping) => mapping.base(),
            HeapMemory::Span(span) => span.base,
        }
    }
}

impl SpanHeap {
    /// A heap over all of `memory`, nothing taken.
    ///
    /// # Errors
    /// Where there are 2^31 granules or more.
    pub fn new(mut memory: HeapMemory) -> Result<Arc<SpanHeap>, HeapError> {
        let len = memory.len();
        let books = Heap::new(len as u64, SPAN_ALIGN as u64)?;
        let base = memory.base();
        Ok(Arc::new(SpanHeap {
            base,
            len,
            used: AtomicU64::new(0),
            inner: Mutex::new(Inner { books, memory }),
        }))
    }

    /// Takes `len` bytes.
    ///
    /// # Errors
    /// Where no free block is long enough.
    pub fn take(self: &Arc<Self>, len: usize) -> Result<Span, HeapFull> {
        let block = {
            let mut inner = lock(&self.inner);
            let block = inner.books.take(len as u64, SPAN_ALIGN as u64)?;
            self.used.store(inner.books.used(), Ordering::Relaxed);
            block
        };
        // No overflow: the block is within the heap, whose length is a usize.
        let offset = block.offset() as usize;
        assert!(
            offset <= self.len && len <= self.len - offset,
            "{block:?} is not within a heap of {} bytes",
            self.len
        );
        // SAFETY: within the heap's bytes, as just checked.
        let base = unsafe { self.base.add(offset) };
        Ok(Span {
            // The books give no byte to two blocks at once, and the heap's memory lives as long as the
            // span: `home` has an `Arc` of it.
            base,
            len,
            home: Home::Heap(Carved {
                heap: Arc::clone(self),
                _count: None,
                block: Some(block),
            }),
        })
    }

    fn take_back(&self, block: Block) {
        let mut inner = lock(&self.inner);
        inner.books.free(block);
        self.used.store(inner.books.used(), Ordering::Relaxed);
    }

    /// Bytes in all.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes in use. Takes no lock.
    pub fn used(&self) -> u64 {
        self.used.load(Ordering::Relaxed)
    }

    /// How it is filled.
    pub fn stats(&self) -> HeapStats {
        lock(&self.inner).books.stats()
    }

    /// Gives the free pages back to the operating system and says how many bytes went, measured. They
    /// stay charged, and can be taken again. A heap within a span has no pages of its own to give.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn trim(&self) -> Result<Bytes, RegionError> {
        let Inner { books, memory } = &mut *lock(&self.inner);
        let HeapMemory::Host(mapping) = memory else {
            return Ok(Bytes::ZERO);
        };
        let mut returned = Bytes::ZERO;
        // Free pages belong to no span, and while the lock is held none is cut out of them.
        for range in books.trim_list(mapping.unit() as u64) {
            let range = range.start as usize..range.end as usize;
            returned = returned.saturating_add(mapping.decommit(range)?);
        }
        Ok(returned)
    }
}

impl fmt::Debug for SpanHeap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "SpanHeap({} of {} used)",
            Bytes(self.used()),
            Bytes::from(self.len)
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;
    use crate::region::HugePages;

    fn heap(ledger: &Ledger, len: u64) -> Arc<SpanHeap> {
        let reservation = ledger.root().reserve(Bytes(len)).unwrap();
        let mapping = Mapping::new(reservation, HugePages::Never).unwrap();
        SpanHeap::new(HeapMemory::Host(mapping)).unwrap()
    }

    #[test]
    fn spans_own_their_bytes_and_go_back() {
        let ledger = Ledger::new(Bytes::mib(1));
        let heap = heap(&ledger, 64 << 10);
        let mut first = heap.take(100).unwrap();
        let mut second = heap.take(200).unwrap();
        first.fill(1);
        second.fill(2);
        assert!(first.iter().all(|byte| *byte == 1));
        assert_eq!((first.len(), second.len()), (100, 200));
        assert_eq!(first.as_ptr().align_offset(SPAN_ALIGN), 0);
        assert_eq!(second.as_ptr().align_offset(SPAN_ALIGN), 0);
        assert_eq!(heap.used(), 128 + 256);
        assert!(first.is_of(&heap));
        let full = heap.take(64 << 10).unwrap_err();
        assert_eq!(full.free, (64 << 10) - 128 - 256);
        // Another thread may hold and drop it.
        std::thread::spawn(move || drop(first)).join().unwrap();
        assert_eq!(heap.used(), 256);
        // The memory stays while a span of it lives.
        drop(heap);
        second.fill(3);
        assert_eq!(ledger.granted(), Bytes(64 << 10));
        drop(second);
        assert_eq!(ledger.granted(), Bytes::ZERO);
    }

    #[test]
    fn a_span_can_be_a_heap() {
        let ledger = Ledger::new(Bytes::mib(1));
        let outer = heap(&ledger, 64 << 10);
        let inner = SpanHeap::new(HeapMemory::Span(outer.take(4096).unwrap())).unwrap();
        let spans: Vec<Span> = (0..4).map(|_| inner.take(1024).unwrap()).collect();
        assert!(inner.take(1).is_err());
        assert_eq!(inner.trim().unwrap(), Bytes::ZERO);
        drop(inner);
        assert_eq!(outer.used(), 4096);
        drop(spans);
        assert_eq!(outer.used(), 0);
    }

    #[test]
    fn trimming_gives_free_pages_back() {
        let ledger = Ledger::new(Bytes::mib(1));
        let heap = heap(&ledger, 64 << 10);
        let mut kept = heap.take(4096).unwrap();
        let mut freed = heap.take(8 << 10).unwrap();
        kept.fill(1);
        freed.fill(2);
        drop(freed);
        assert_eq!(heap.trim().unwrap(), Bytes(8 << 10));
        assert!(kept.iter().all(|byte| *byte == 1));
        assert!(heap.take(8 << 10).unwrap().iter().all(|byte| *byte == 0));
    }

    #[test]
    fn spans_outside_heaps_are_charged_while_they_live() {
        let ledger = Ledger::new(Bytes::mib(1));
        let mut span = Span::allocated(ledger.root().reserve(Bytes(100)).unwrap()).unwrap();
        span.fill(7);
        assert_eq!(span.as_ptr().align_offset(SPAN_ALIGN), 0);
        assert_eq!((span.len(), ledger.granted()), (100, Bytes(100)));
        let reservation = ledger.root().reserve(Bytes(5000)).unwrap();
        let counts = Arc::new(LiveCounts::default());
        let mapping = Mapping::new(reservation, HugePages::Never).unwrap();
        let mut mapped = Span::counted(mapping, 5000, Some(LiveCount::new(&counts, 5000)));
        mapped.fill(8);
        assert!(span.iter().all(|byte| *byte == 7) && mapped.iter().all(|byte| *byte == 8));
        assert_eq!(counts.bytes.load(Ordering::Relaxed), 5000);
        drop((span, mapped));
        assert_eq!(counts.live.load(Ordering::Relaxed), 0);
        assert_eq!(ledger.granted(), Bytes::ZERO);
    }
}
