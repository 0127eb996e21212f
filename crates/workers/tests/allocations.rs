//! A call allocates nothing: counted by this test's own allocator.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicUsize, Ordering};

use bursar_workers::Workers;

struct Counting;

static ALLOCATIONS: AtomicUsize = AtomicUsize::new(0);

// SAFETY: every call is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        // SAFETY: the caller's promises are passed on.
        unsafe { System.alloc(layout) }
    }
    unsafe fn dealloc(&self, ptr: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are passed on.
        unsafe { System.dealloc(ptr, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

#[test]
fn calls_allocate_nothing() {
    let workers = Workers::new(3);
    let mut items = [0_u64; 100];
    let mut locals = [0_u64; 3];
    // The threads start up with allocations of their own.
    workers.broadcast(|_| ());
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..1000 {
        workers.for_each_mut(&mut items, |i, item| *item += i as u64);
        workers.for_each_mut_with(&mut locals, &mut items, |local, _, item| *local += *item);
        workers.broadcast(|_| ());
    }
    assert_eq!(ALLOCATIONS.load(Ordering::Relaxed), before);
}
