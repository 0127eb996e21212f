//! The process allocator and its counters: what the small heap holds, and what a piece of work leaves.
//!
//! Large memory is mapped and reserved by its owner. Everything else (strings, maps, vectors of a
//! vocabulary) comes from the allocator of the process, and is known by counting, not by guessing:
//! [`left_by`] says what building a tokenizer left allocated, so that it can be charged to the byte.
//!
//! The allocator chosen is the C library's with one arena, trimmed on demand; the decision record on
//! the process allocator has the figures.

#![allow(unsafe_code)]

mod watch;

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::bytes::Bytes;
use watch::Watch;
pub use watch::exempt_this_thread;

/// An allocator that can say what a block really takes.
///
/// # Safety
/// As for [`GlobalAlloc`]; and `held_len` must not allocate, and must answer the same for a block for
/// as long as it lives.
pub unsafe trait MeasuredAlloc: GlobalAlloc {
    /// Bytes of heap that a live block takes, its header and the rounding included; where the
    /// allocator does not tell, what was asked for.
    ///
    /// # Safety
    /// `block` was allocated here with `layout` and has not been freed.
    unsafe fn held_len(&self, block: *mut u8, layout: Layout) -> usize;
}

// SAFETY: the C library's function neither allocates nor changes its answer while a block lives.
unsafe impl MeasuredAlloc for System {
    #[cfg(target_os = "linux")]
    unsafe fn held_len(&self, block: *mut u8, _layout: Layout) -> usize {
        // SAFETY: the caller's promise; `System` is malloc on Linux.
        let usable = unsafe { libc::malloc_usable_size(block.cast()) };
        // glibc keeps a block's length in the word before it; musl has at least as much.
        usable + size_of::<usize>()
    }

    #[cfg(not(target_os = "linux"))]
    unsafe fn held_len(&self, _block: *mut u8, layout: Layout) -> usize {
        layout.size()
    }
}

/// An allocator that counts what it hands out. Counting neither locks nor allocates.
#[derive(Debug)]
pub struct CountingAllocator<A> {
    inner: A,
    live: AtomicU64,
    peak: AtomicU64,
    allocations: AtomicU64,
    deallocations: AtomicU64,
    /// Bytes of all blocks handed out so far.
    allocated: AtomicU64,
    /// Bytes copied from one block to another that takes its place.
    copied: AtomicU64,
    watch: Watch,
}

/// The allocator of the whole program. In `main.rs`:
///
/// ```ignore
/// #[global_allocator]
/// static ALLOCATOR: ProcessAllocator = counting::process_allocator();
///
/// fn main() {
///     counting::configure(); // before the first thread
///     // ... after loading or unloading a model:
///     counting::purge();
/// }
/// ```
pub type ProcessAllocator = CountingAllocator<System>;

/// The allocator of the whole program, to be made its `#[global_allocator]`.
pub const fn process_allocator() -> ProcessAllocator {
    CountingAllocator::new(System)
}

/// Blocks from this length on are mapped on their own: they leave with their last byte, and are put
/// elsewhere by the kernel without being copied.
const MAPPED_FROM_LEN: u32 = 128 << 10;

/// Sets the C library's allocator up to hold as little as it can: one arena for all threads, and
/// large blocks mapped on their own however often they are asked for. Does nothing with C libraries
/// that have no such settings.
pub fn configure() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: plain settings; mallopt takes the allocator's lock itself.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
        libc::mallopt(libc::M_MMAP_THRESHOLD, MAPPED_FROM_LEN as i32);
        libc::mallopt(libc::M_TRIM_THRESHOLD, MAPPED_FROM_LEN as i32);
    }
}

/// Gives every whole free page of the C library's allocator back to the operating system: about 2 ms
/// per 20 MiB. True where something went back.
pub fn purge() -> bool {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: may be called at any time; malloc_trim takes the allocator's locks itself.
    return unsafe { libc::malloc_trim(0) } == 1;
    #[cfg(not(all(target_os = "linux", target_env = "gnu")))]
    false
}

/// What an allocator has handed out.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct HeapCounts {
    /// Bytes that live blocks take now.
    pub live: Bytes,
    /// The most that they took at one moment, since the last reset.
    pub peak: Bytes,
    /// Blocks handed out so far; a block that was moved counts again.
    pub allocations: u64,
    /// Blocks taken back so far.
    pub deallocations: u64,
    /// Bytes of all blocks handed out so far.
    pub allocated: Bytes,
    /// Bytes copied so far because a block that grew or shrank had to lie elsewhere.
    pub copied: Bytes,
}

impl<A> CountingAllocator<A> {
    /// Counts what `inner` hands out.
    pub const fn new(inner: A) -> CountingAllocator<A> {
        CountingAllocator {
            inner,
            live: AtomicU64::new(0),
            peak: AtomicU64::new(0),
            allocations: AtomicU64::new(0),
            deallocations: AtomicU64::new(0),
            allocated: AtomicU64::new(0),
            copied: AtomicU64::new(0),
            watch: Watch::new(),
        }
    }

    /// The counts of all threads. Each is exact; together they need not be of one moment.
    pub fn counts(&self) -> HeapCounts {
        let count = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        HeapCounts {
            live: Bytes(count(&self.live)),
            peak: Bytes(count(&self.peak)),
            allocations: count(&self.allocations),
            deallocations: count(&self.deallocations),
            allocated: Bytes(count(&self.allocated)),
            copied: Bytes(count(&self.copied)),
        }
    }

    /// Starts the peak again from what is live now.
    pub fn reset_peak(&self) {
        self.peak
            .store(self.live.load(Ordering::Relaxed), Ordering::Relaxed);
    }

    /// From now on, until [`CountingAllocator::unseal`], no thread is to ask for a block but those that
    /// are exempt ([`exempt_this_thread`]). Whoever does gets it all the same; `told` is called on its
    /// thread, to say where it was.
    pub fn seal(&self, told: Option<fn()>) {
        self.watch.seal(told);
    }

    /// Ends it, and gives how many blocks were asked for meanwhile.
    pub fn unseal(&self) -> u64 {
        self.watch.unseal()
    }

    /// Whether time in the allocator is measured from now on: two looks at the clock for each block.
    pub fn time(&self, on: bool) {
        self.watch.time(on);
    }

    /// How long all threads have been in the allocator while it was measured.
    pub fn timed(&self) -> Duration {
        self.watch.timed()
    }

    fn allocated(&self, len: usize) {
        let len = len as u64;
        // Wrapping is right here: overflow checks would panic inside the allocator.
        let live = self
            .live
            .fetch_add(len, Ordering::Relaxed)
            .wrapping_add(len);
        if live > self.peak.load(Ordering::Relaxed) {
            self.peak.fetch_max(live, Ordering::Relaxed);
        }
        self.allocations.fetch_add(1, Ordering::Relaxed);
        self.allocated.fetch_add(len, Ordering::Relaxed);
        THREAD.with(|thread| {
            let live = thread.live.get().wrapping_add_unsigned(len);
            thread.live.set(live);
            thread.peak.set(thread.peak.get().max(live));
            thread
                .allocations
                .set(thread.allocations.get().wrapping_add(1));
        });
    }

    fn deallocated(&self, len: usize) {
        let len = len as u64;
        self.live.fetch_sub(len, Ordering::Relaxed);
        self.deallocations.fetch_add(1, Ordering::Relaxed);
        THREAD.with(|thread| {
            thread
                .live
                .set(thread.live.get().wrapping_sub_unsigned(len));
            thread
                .deallocations
                .set(thread.deallocations.get().wrapping_add(1));
        });
    }
}

// SAFETY: every call goes to `inner` unchanged, and its answer comes back unchanged.
unsafe impl<A: MeasuredAlloc> GlobalAlloc for CountingAllocator<A> {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        let block = self
            .watch
            .around(true, || unsafe { self.inner.alloc(layout) });
        if !block.is_null() {
            // SAFETY: just allocated with this layout.
            self.allocated(unsafe { self.inner.held_len(block, layout) });
        }
        block
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promise.
        let block = self
            .watch
            .around(true, || unsafe { self.inner.alloc_zeroed(layout) });
        if !block.is_null() {
            // SAFETY: just allocated with this layout.
            self.allocated(unsafe { self.inner.held_len(block, layout) });
        }
        block
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller's promise; still allocated.
        self.deallocated(unsafe { self.inner.held_len(block, layout) });
        // SAFETY: the caller's promise.
        self.watch
            .around(false, || unsafe { self.inner.dealloc(block, layout) });
    }

    unsafe fn realloc(&self, block: *mut u8, layout: Layout, new_len: usize) -> *mut u8 {
        // SAFETY: the caller's promise; still allocated.
        let before = unsafe { self.inner.held_len(block, layout) };
        // SAFETY: the caller's promise.
        let moved = self.watch.around(true, || unsafe {
            self.inner.realloc(block, layout, new_len)
        });
        if !moved.is_null() {
            let copied = layout.size().min(new_len);
            if !std::ptr::eq(moved, block) && copied < MAPPED_FROM_LEN as usize {
                let copied = copied as u64;
                self.copied.fetch_add(copied, Ordering::Relaxed);
            }
            // SAFETY: the caller promises that `new_len` makes a valid layout with this alignment.
            let layout = unsafe { Layout::from_size_align_unchecked(new_len, layout.align()) };
            self.deallocated(before);
            // SAFETY: just allocated with this layout.
            self.allocated(unsafe { self.inner.held_len(moved, layout) });
        }
        moved
    }
}

/// What one thread has allocated and freed. Blocks may be freed by another thread than took them, so
/// `live` can be negative.
struct ThreadCounts {
    live: Cell<i64>,
    peak: Cell<i64>,
    allocations: Cell<u64>,
    deallocations: Cell<u64>,
}

thread_local! {
    // Constant and without a destructor: reaching it never allocates, at any time of a thread's life.
    static THREAD: ThreadCounts = const {
        ThreadCounts {
            live: Cell::new(0),
            peak: Cell::new(0),
            allocations: Cell::new(0),
            deallocations: Cell::new(0),
        }
    };
}

/// What a piece of work left allocated by this thread when it ended.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Left {
    /// Bytes of heap that the blocks left behind take; negative where it freed more than it took.
    pub bytes: i64,
    /// Blocks left behind; negative likewise.
    pub blocks: i64,
    /// The most that it held at one moment beyond what was held when it began, in bytes.
    pub peak: Bytes,
    /// How often it asked the allocator for memory.
    pub allocations: u64,
}

impl Left {
    /// The bytes left behind, to be charged; none where it freed more than it took.
    pub fn held(&self) -> Bytes {
        Bytes(u64::try_from(self.bytes).unwrap_or(0))
    }
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.bytes < 0 { "-" } else { "" };
        let bytes = Bytes(self.bytes.unsigned_abs());
        write!(
            f,
            "{sign}{bytes} in {} blocks, at most {} on the way",
            self.blocks, self.peak
        )
    }
}

/// Runs `work` and says what it left allocated. Counts this thread only; what `work` has other
/// threads allocate is not seen. Without a [`CountingAllocator`] as the global allocator
/// ([`is_counting`]) everything is zero.
pub fn left_by<T>(work: impl FnOnce() -> T) -> (T, Left) {
    let read = || {
        THREAD.with(|thread| {
            (
                thread.live.get(),
                thread.allocations.get(),
                thread.deallocations.get(),
            )
        })
    };
    let (live_before, allocations_before, deallocations_before) = read();
    let outer_peak = THREAD.with(|thread| thread.peak.replace(live_before));
    let made = work();
    let (live, allocations, deallocations) = read();
    let peak = THREAD.with(|thread| {
        let peak = thread.peak.get();
        thread.peak.set(peak.max(outer_peak));
        peak
    });
    let allocations = allocations.wrapping_sub(allocations_before);
    let deallocations = deallocations.wrapping_sub(deallocations_before);
    let left = Left {
        bytes: live.wrapping_sub(live_before),
        blocks: allocations.wrapping_sub(deallocations) as i64,
        peak: Bytes(u64::try_from(peak.wrapping_sub(live_before)).unwrap_or(0)),
        allocations,
    };
    (made, left)
}

/// Whether this program's global allocator counts.
pub fn is_counting() -> bool {
    let (_, left) = left_by(|| std::hint::black_box(Box::new(0_u8)));
    left.allocations > 0
}
