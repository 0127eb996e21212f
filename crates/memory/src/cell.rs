//! Two cells that the quick way through the buffer pool is made of: a latch, which is a lock that can be
//! had or not but is never slept on, and a place in the source, which is noted by a plain store.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};

/// Spins before the processor is offered to others.
const SPINS: u32 = 64;

/// A value that one thread at a time may touch. Taking and giving back is one exchange and one store,
/// half of what a mutex that can sleep takes; so it is for moments of a few nanoseconds.
#[derive(Debug, Default)]
pub(crate) struct Latch<T> {
    held: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: the value is reached through a guard alone, of which there is one at a time; so it is handed
// from thread to thread but never shared.
unsafe impl<T: Send> Sync for Latch<T> {}

impl<T> Latch<T> {
    pub(crate) fn new(value: T) -> Latch<T> {
        Latch {
            held: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// The value, unless another thread has it now.
    #[inline]
    pub(crate) fn try_lock(&self) -> Option<LatchGuard<'_, T>> {
        // Pairs with the release in `drop`: what the last holder wrote is seen.
        if self.held.swap(true, Ordering::Acquire) {
            // No guard may come into being here, not even for a moment: it would let go of the latch.
            return None;
        }
        Some(LatchGuard { latch: self })
    }

    /// The value, as soon as no other thread has it: for who looks at all of them now and then.
    pub(crate) fn lock(&self) -> LatchGuard<'_, T> {
        let mut spins = 0;
        loop {
            if let Some(guard) = self.try_lock() {
                return guard;
            }
            spins += 1;
            if spins % SPINS == 0 {
                std::thread::yield_now();
            }
            std::hint::spin_loop();
        }
    }
}

pub(crate) struct LatchGuard<'a, T> {
    latch: &'a Latch<T>,
}

impl<T> Deref for LatchGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: this guard is the only one (`try_lock`), borrowed as long as the reference.
        unsafe { &*self.latch.value.get() }
    }
}

impl<T> DerefMut for LatchGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and borrowed mutably.
        unsafe { &mut *self.latch.value.get() }
    }
}

impl<T> Drop for LatchGuard<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.latch.held.store(false, Ordering::Release);
    }
}

/// Where something was called, or nowhere yet. Noting it is one plain store.
#[derive(Debug, Default)]
pub(crate) struct PlaceCell(AtomicPtr<Location<'static>>);

impl PlaceCell {
    #[inline]
    pub(crate) fn note(&self, place: &'static Location<'static>) {
        self.0
            .store(ptr::from_ref(place).cast_mut(), Ordering::Relaxed);
    }

    pub(crate) fn get(&self) -> Option<&'static Location<'static>> {
        // SAFETY: null, or from a `&'static Location` by `note`: nothing is ever written through it.
        unsafe { self.0.load(Ordering::Relaxed).as_ref() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latch_is_held_by_one() {
        let latch = Latch::new(0_u64);
        let guard = latch.try_lock().unwrap();
        assert!(latch.try_lock().is_none());
        assert!(latch.try_lock().is_none(), "a vain try lets nobody in");
        drop(guard);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..10_000 {
                        *latch.lock() += 1;
                    }
                });
            }
        });
        assert_eq!(*latch.lock(), 40_000);
    }

    #[test]
    fn a_place_is_remembered() {
        let cell = PlaceCell::default();
        assert!(cell.get().is_none());
        let here = Location::caller();
        cell.note(here);
        assert_eq!(cell.get(), Some(here));
    }
}
