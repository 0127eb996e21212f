//! Two cells that the quick way through the buffer pool is made of: seats, each of which one thread uses
//! at no cost while others may look at all of them now and then, and a place in the source, which is
//! noted by a plain store.
//!
//! Seats are an asymmetric Dekker lock (Dice, Huang, Yang: "Asymmetric Dekker Synchronization", 2001;
//! Linux has had `membarrier(2)` for it since 4.14). Whoever has a seat enters it by two plain
//! instructions; the full barrier between them, which would cost as much as all else, is run on its
//! behalf by whoever wants to look:
//!
//! ```text
//! owner:  inside := true    (compiler barrier)  wanted? no: go in; yes: inside := false, go elsewhere
//! others: wanted := true    membarrier          wait until not inside, look, wanted := false
//! ```
//!
//! The barrier falls before or after the owner's question. Before: the owner sees `wanted`. After: the
//! others see `inside`. Where the kernel has no such barrier, owners run it themselves.

#![allow(unsafe_code)]

use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering, compiler_fence, fence};
use std::sync::{Arc, Mutex};

use rustix::thread::{MembarrierCommand, membarrier};

use crate::node::lock;

/// Spins before the processor is offered to others.
const SPINS: u32 = 64;

/// Values of which each belongs to one thread at a time, and all to whoever looks at them.
#[derive(Debug)]
pub(crate) struct Seats<T> {
    slots: Box<[Slot<T>]>,
    /// Held by who looks at all.
    looking: Mutex<()>,
    /// Whether owners run the barrier themselves.
    fenced: bool,
}

/// On cache lines of its own (two, since processors fetch them in pairs).
#[derive(Debug)]
#[repr(align(128))]
struct Slot<T> {
    taken: AtomicBool,
    /// The owner is at it.
    inside: AtomicBool,
    /// Somebody wants to look, or does.
    wanted: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: a value is reached by the one owner of its seat while nobody looks, or by the one who looks
// while the owner is not inside (see the top); so it goes from thread to thread but is never shared.
unsafe impl<T: Send> Sync for Slot<T> {}

/// A seat that is this holder's alone.
#[derive(Debug)]
pub(crate) struct Seat<T> {
    /// One of `seats`, which keeps it where it is.
    slot: NonNull<Slot<T>>,
    fenced: bool,
    _seats: Arc<Seats<T>>,
}

// SAFETY: a seat is its slot's only owner, wherever it goes, and the slot's value may go with it.
unsafe impl<T: Send> Send for Seat<T> {}

/// The owner at its value.
#[derive(Debug)]
pub(crate) struct Inside<'a, T> {
    slot: &'a Slot<T>,
}

impl<T> Seats<T> {
    /// So many seats with the values that `value` makes.
    pub(crate) fn new(count: usize, mut value: impl FnMut() -> T) -> Arc<Seats<T>> {
        let registered = membarrier(MembarrierCommand::RegisterPrivateExpedited)
            .and_then(|()| membarrier(MembarrierCommand::PrivateExpedited));
        let mut slot = || Slot {
            taken: AtomicBool::new(false),
            inside: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
            value: UnsafeCell::new(value()),
        };
        Arc::new(Seats {
            slots: (0..count).map(|_| slot()).collect(),
            looking: Mutex::new(()),
            fenced: registered.is_err(),
        })
    }

    /// A seat that nobody has, with what its last owner left there. `None` where all are taken.
    pub(crate) fn claim(self: &Arc<Self>) -> Option<Seat<T>> {
        let free = |slot: &Slot<T>| {
            // Pairs with the release of the last owner, so that its changes are seen.
            let (acquire, relaxed) = (Ordering::Acquire, Ordering::Relaxed);
            (slot.taken)
                .compare_exchange(false, true, acquire, relaxed)
                .is_ok()
        };
        let slot = self.slots.iter().find(|slot| free(slot))?;
        Some(Seat {
            slot: NonNull::from(slot),
            fenced: self.fenced,
            _seats: Arc::clone(self),
        })
    }

    /// Runs `look` with all values while no owner is at any. The caller must not be inside one.
    pub(crate) fn look<R>(&self, look: impl FnOnce(&mut [&mut T]) -> R) -> R {
        struct Wanted<'a, T>(&'a [Slot<T>]);

        impl<T> Drop for Wanted<'_, T> {
            fn drop(&mut self) {
                for slot in self.0 {
                    // Pairs with the owner's question: it sees what was changed.
                    slot.wanted.store(false, Ordering::Release);
                }
            }
        }

        let _looking = lock(&self.looking);
        for slot in &self.slots {
            slot.wanted.store(true, Ordering::Relaxed);
        }
        let _wanted = Wanted(&self.slots);
        self.barrier();
        for slot in &self.slots {
            let mut spins = 0_u32;
            // Pairs with the owner's leaving.
            while slot.inside.load(Ordering::Acquire) {
                spins = spins.wrapping_add(1);
                if spins.is_multiple_of(SPINS) {
                    std::thread::yield_now();
                }
                std::hint::spin_loop();
            }
        }
        // SAFETY: `looking` makes this the only look, and no owner is inside or comes in until
        // `wanted` falls, after these references are gone.
        let value = |slot: &Slot<T>| unsafe { &mut *slot.value.get() };
        let mut values: Vec<&mut T> = self.slots.iter().map(value).collect();
        look(&mut values)
    }

    /// A full barrier here and, in effect, between any owner's two instructions.
    fn barrier(&self) {
        fence(Ordering::SeqCst);
        // It worked when the seats were made. Should it be refused for a moment, there is no going on
        // without it.
        while !self.fenced && membarrier(MembarrierCommand::PrivateExpedited).is_err() {
            std::thread::yield_now();
        }
    }
}

impl<T> Seat<T> {
    #[inline]
    fn slot(&self) -> &Slot<T> {
        // SAFETY: a slot of `_seats`, which are kept alive and never move.
        unsafe { self.slot.as_ref() }
    }

    /// Goes to the value, unless somebody looks at all of them now.
    #[inline]
    pub(crate) fn enter(&mut self) -> Option<Inside<'_, T>> {
        let fenced = self.fenced;
        let slot = self.slot();
        slot.inside.store(true, Ordering::Relaxed);
        if fenced {
            fence(Ordering::SeqCst);
        } else {
            compiler_fence(Ordering::SeqCst);
        }
        if slot.wanted.load(Ordering::Acquire) {
            slot.inside.store(false, Ordering::Release);
            return None;
        }
        Some(Inside { slot })
    }
}

impl<T> Drop for Seat<T> {
    fn drop(&mut self) {
        self.slot().taken.store(false, Ordering::Release);
    }
}

impl<T> Deref for Inside<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        // SAFETY: one owner has the seat (`taken`) and one guard at a time (`enter` borrows the seat
        // mutably); nobody looks, since `wanted` was not set after `inside` was (see the top).
        unsafe { &*self.slot.value.get() }
    }
}

impl<T> DerefMut for Inside<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: as in `deref`, and borrowed mutably.
        unsafe { &mut *self.slot.value.get() }
    }
}

impl<T> Drop for Inside<'_, T> {
    #[inline]
    fn drop(&mut self) {
        self.slot.inside.store(false, Ordering::Release);
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
    fn a_seat_has_one_owner_and_keeps_its_value() {
        let seats = Seats::new(2, || 0);
        let mut first = seats.claim().unwrap();
        let second = seats.claim().unwrap();
        assert!(seats.claim().is_none());
        *first.enter().unwrap() += 5;
        seats.look(|values| {
            assert_eq!((*values[0], *values[1]), (5, 0));
            assert!(first.enter().is_none(), "while somebody looks");
            assert!(first.enter().is_none(), "a vain try lets nobody in");
            *values[0] += 1;
        });
        drop((first, second));
        assert_eq!(*seats.claim().unwrap().enter().unwrap(), 6);
    }

    fn check(seats: &Arc<Seats<(u64, u64)>>) {
        const ROUNDS: u64 = 20_000;
        let counted: u64 = std::thread::scope(|scope| {
            let owners: Vec<_> = (0..2)
                .map(|_| {
                    let mut seat = seats.claim().unwrap();
                    scope.spawn(move || {
                        let mut entered = 0;
                        for _ in 0..ROUNDS {
                            if let Some(mut value) = seat.enter() {
                                value.0 += 1;
                                assert_eq!(value.0, value.1 + 1, "somebody else is here");
                                value.1 += 1;
                                entered += 1;
                            }
                        }
                        entered
                    })
                })
                .collect();
            for _ in 0..500 {
                seats.look(|values| {
                    for value in values {
                        assert_eq!(value.0, value.1, "the owner is here");
                        value.0 += 1;
                        value.1 += 1;
                    }
                });
            }
            owners.into_iter().map(|owner| owner.join().unwrap()).sum()
        });
        let sum: u64 = seats.look(|values| values.iter().map(|value| value.0).sum());
        assert_eq!(sum, counted + 2 * 500);
    }

    #[test]
    fn owners_and_lookers_exclude_each_other() {
        check(&Seats::new(2, Default::default));
        // As on a kernel without the barrier.
        let seats = Arc::into_inner(Seats::new(2, Default::default)).unwrap();
        check(&Arc::new(Seats {
            fenced: true,
            ..seats
        }));
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
