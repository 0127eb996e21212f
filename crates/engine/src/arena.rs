//! The one arena that all models of an engine run their steps in, one after the other: as large as the
//! largest of them needs, charged to one account.
//!
//! ```text
//! claims   |---- a ----|
//!          |--------- b ---------|              reserved: the largest claim
//!          |- c -|                              mapped: the largest claim of a model on the engine
//! ```
//!
//! A claim reserves before a model is loaded what the arena will have to grow by, so that nobody else
//! takes it in the meantime. What a step leaves in the arena means nothing to the next, of whichever
//! model.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use bursar_memory::region::{RegionError, charge_of};
use bursar_memory::{Bytes, HugePages, Ledger, Lifetime, Refusal, Region, Reservation};

use crate::inbox::lock;

/// Who needs how much of the arena; clones are the same books.
#[derive(Clone, Debug)]
pub(crate) struct ArenaBooks(Arc<Mutex<Books>>);

#[derive(Debug)]
struct Books {
    /// At least the largest claim, and what is mapped.
    reserved: Reservation,
    /// How many claims there are of each size, in whole pages.
    claims: BTreeMap<Bytes, usize>,
    mapped: Bytes,
}

impl Books {
    fn wanted(&self) -> Bytes {
        let claimed = self.claims.last_key_value().map(|(&bytes, _)| bytes);
        claimed.unwrap_or(Bytes::ZERO).max(self.mapped)
    }

    /// Gives back what nobody claims any more.
    fn settle(&mut self) {
        let more = self.reserved.bytes().saturating_sub(self.wanted());
        self.reserved.shrink(more);
    }
}

/// A model's claim to an arena of its size, given back when dropped.
#[derive(Debug)]
#[must_use = "a claim that is dropped is given back"]
pub struct ArenaClaim {
    books: ArenaBooks,
    bytes: Bytes,
}

impl ArenaClaim {
    /// Of how many bytes.
    pub fn bytes(&self) -> Bytes {
        self.bytes
    }
}

impl Drop for ArenaClaim {
    fn drop(&mut self) {
        let books = &mut *lock(&self.books.0);
        if let Some(count) = books.claims.get_mut(&self.bytes) {
            *count -= 1;
            if *count == 0 {
                books.claims.remove(&self.bytes);
            }
        }
        books.settle();
    }
}

impl ArenaBooks {
    /// Opens the account: `activations`, below the root.
    ///
    /// # Errors
    /// When the ledger grants nothing at all.
    pub(crate) fn open(ledger: &Ledger) -> Result<ArenaBooks, Refusal> {
        let account = ledger.root().child("activations", Lifetime::Procedural);
        let reserved = account.reserve(Bytes::ZERO)?;
        Ok(ArenaBooks(Arc::new(Mutex::new(Books {
            reserved,
            claims: BTreeMap::new(),
            mapped: Bytes::ZERO,
        }))))
    }

    /// Claims an arena of `bytes`, in whole pages.
    ///
    /// # Errors
    /// When what it has to grow by does not fit; nothing has changed then.
    pub(crate) fn claim(&self, bytes: Bytes) -> Result<ArenaClaim, Refusal> {
        let bytes = charge_of(bytes);
        let books = &mut *lock(&self.0);
        let more = bytes.saturating_sub(books.reserved.bytes());
        books.reserved.grow(more)?;
        *books.claims.entry(bytes).or_default() += 1;
        Ok(ArenaClaim {
            books: self.clone(),
            bytes,
        })
    }

    /// Bytes reserved.
    pub(crate) fn bytes(&self) -> Bytes {
        lock(&self.0).reserved.bytes()
    }
}

/// The arena itself, on the engine's thread.
#[derive(Debug)]
pub(crate) struct Arena {
    // Dropped in this order: unmapped first, released second.
    region: Region,
    books: ArenaBooks,
}

impl Arena {
    /// An arena of no bytes.
    ///
    /// # Errors
    /// None: nothing is mapped.
    pub(crate) fn new(books: ArenaBooks) -> Result<Arena, RegionError> {
        Ok(Arena {
            region: Region::reserve(0, HugePages::Never)?,
            books,
        })
    }

    /// Makes it as large as the largest of `claims`. What it held is lost. The old memory goes back
    /// before any of the new is touched, and the new is made resident at once: it is charged, and no step
    /// waits for its pages.
    ///
    /// # Errors
    /// When the kernel refuses; it stays as it was then.
    pub(crate) fn fit<'a>(
        &mut self,
        claims: impl Iterator<Item = &'a ArenaClaim>,
    ) -> Result<(), RegionError> {
        let bytes = claims.map(ArenaClaim::bytes).max().unwrap_or(Bytes::ZERO);
        let len = bytes.to_usize().ok_or(RegionError::TooLarge(bytes))?;
        if len == self.region.len() {
            return Ok(());
        }
        let mut region = Region::reserve(len, HugePages::Never)?;
        region.commit(0..len)?;
        self.region = region;
        // Where the kernel does not, pages are there once a step touches them.
        let _ = self.region.populate(0..len);
        {
            let books = &mut *lock(&self.books.0);
            books.mapped = bytes;
            books.settle();
        }
        self.measure();
        Ok(())
    }

    /// Gives back the memory of what the last step left, and says how many bytes went. What a step
    /// touches next is there again, as zeros.
    pub(crate) fn trim(&mut self) -> Bytes {
        let returned = self.region.decommit(0..self.region.len());
        self.measure();
        // Where the kernel refuses, everything stays.
        returned.unwrap_or(Bytes::ZERO)
    }

    /// Counts the bytes that are really there and notes them on the account.
    pub(crate) fn measure(&self) {
        if let Ok(resident) = self.region.resident(0..self.region.len()) {
            let books = lock(&self.books.0);
            books.reserved.account().set_measured(resident);
        }
    }

    pub(crate) fn as_mut_slice(&mut self) -> &mut [u8] {
        self.region.as_mut_slice()
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        let empty = Region::reserve(0, HugePages::Never);
        if let Ok(region) = empty {
            self.region = region;
            let books = &mut *lock(&self.books.0);
            books.mapped = Bytes::ZERO;
            books.settle();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::Random;

    #[test]
    fn it_is_there_at_once_goes_back_and_is_measured() {
        let page = charge_of(Bytes(1));
        let ledger = Ledger::new(Bytes(100 * page.0));
        let books = ArenaBooks::open(&ledger).expect("a granted account");
        let mut arena = Arena::new(books.clone()).expect("nothing to map");
        assert_eq!(arena.trim(), Bytes::ZERO);
        let claim = books.claim(Bytes(50 * page.0)).expect("it fits");
        arena.fit([&claim].into_iter()).expect("mapped");
        let measured = || lock(&books.0).reserved.account().measured();
        assert_eq!(measured(), Some(Bytes(50 * page.0)), "there at once");
        assert_eq!(arena.trim(), Bytes(50 * page.0));
        arena.as_mut_slice()[..20 * page.0 as usize].fill(1);
        arena.measure();
        assert_eq!(measured(), Some(Bytes(20 * page.0)));
        assert_eq!(arena.trim(), Bytes(20 * page.0));
        assert_eq!(measured(), Some(Bytes::ZERO));
        assert!(arena.as_mut_slice().iter().all(|&byte| byte == 0));
        assert_eq!(ledger.granted(), Bytes(50 * page.0));
    }

    #[test]
    fn the_arena_is_as_large_as_the_largest_claim_and_charged_for_no_more() {
        let page = charge_of(Bytes(1));
        let ledger = Ledger::new(Bytes(100 * page.0));
        let books = ArenaBooks::open(&ledger).expect("a granted account");
        let mut arena = Arena::new(books.clone()).expect("nothing to map");
        let mut random = Random(7);
        // Claims of models that are on the engine, and of some that are being loaded.
        let (mut here, mut loading) = (Vec::new(), Vec::new());
        for _ in 0..2000 {
            match random.below(5) {
                0 | 1 => {
                    let bytes = Bytes(1 + random.next() % (120 * page.0));
                    let before = books.bytes();
                    match books.claim(bytes) {
                        Ok(claim) => loading.push(claim),
                        Err(_) => {
                            assert!(bytes > Bytes(100 * page.0));
                            assert_eq!(books.bytes(), before);
                        }
                    }
                }
                2 if !loading.is_empty() => {
                    here.push(loading.swap_remove(random.below(loading.len())));
                    arena.fit(here.iter()).expect("mapped");
                }
                3 if !here.is_empty() => {
                    let gone = here.swap_remove(random.below(here.len()));
                    arena.fit(here.iter()).expect("mapped");
                    drop(gone);
                }
                4 if !loading.is_empty() => {
                    drop(loading.swap_remove(random.below(loading.len())));
                }
                _ => {}
            }
            let most = |claims: &[ArenaClaim]| claims.iter().map(ArenaClaim::bytes).max();
            let mapped = most(&here).unwrap_or(Bytes::ZERO);
            assert_eq!(Bytes::from(arena.as_mut_slice().len()), mapped);
            let reserved = mapped.max(most(&loading).unwrap_or(Bytes::ZERO));
            assert_eq!(books.bytes(), reserved);
            assert_eq!(ledger.granted(), reserved);
        }
        drop((here, loading));
        assert!(books.bytes() > Bytes::ZERO, "still mapped");
        drop(arena);
        assert_eq!(ledger.granted(), Bytes::ZERO);
    }
}
