//! Address space of which single ranges are charged: what holds slabs that come and go.

use std::ops::Range;

use crate::account::{Account, Reservation};
use crate::bytes::Bytes;
use crate::refusal::Refusal;
use crate::region::{HugePages, Region, RegionError, page_len};

/// Zeroed memory, aligned to a page (a huge page where it is that long), of which only the ranges
/// that are in use are charged.
///
/// Who owns it keeps the books of its ranges: each is [charged](SparseMapping::charge) before it is
/// written, and [given back](SparseMapping::give_back) when nothing in it is needed any more.
#[derive(Debug)]
pub struct SparseMapping {
    // Dropped in this order: unmapped first, released second.
    region: Region,
    reservation: Reservation,
}

impl SparseMapping {
    /// Takes `len` bytes of address space, none of them charged to `account` yet.
    ///
    /// # Errors
    /// Where the kernel refuses.
    pub fn new(
        account: &Account,
        len: usize,
        huge: HugePages,
    ) -> Result<SparseMapping, RegionError> {
        let reservation = account.reserve(Bytes::ZERO)?;
        let mut region = Region::reserve(len, huge)?;
        // Pages that nobody touches take no memory, so all may be usable from the start.
        region.commit(0..len)?;
        Ok(SparseMapping {
            region,
            reservation,
        })
    }

    /// Bytes of address space.
    pub fn len(&self) -> usize {
        self.region.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.region.is_empty()
    }

    /// Bytes charged now.
    pub fn charged(&self) -> Bytes {
        self.reservation.bytes()
    }

    /// The account that is charged.
    pub fn account(&self) -> &Account {
        self.reservation.account()
    }

    /// Charges a range that is about to be written: whole pages.
    ///
    /// # Errors
    /// Where the budget refuses; nothing is charged then.
    ///
    /// # Panics
    /// Where the range does not start at a page, or neither ends at one nor at the mapping's end.
    pub fn charge(&mut self, range: Range<usize>) -> Result<(), Refusal> {
        let bytes = self.pages(&range);
        self.reservation.grow(bytes)
    }

    /// Gives the memory of a charged range back to the operating system, and its bytes to the account.
    /// Says how many bytes went back, as [`Region::decommit`] does: measured. Where the kernel refuses,
    /// the range stays charged.
    ///
    /// # Errors
    /// Where the range is outside, or the kernel refuses to release or to count.
    ///
    /// # Panics
    /// As [`SparseMapping::charge`], and where less than the range is charged.
    pub fn give_back(&mut self, range: Range<usize>) -> Result<Bytes, RegionError> {
        let bytes = self.pages(&range);
        let returned = self.region.decommit(range)?;
        self.reservation.shrink(bytes);
        Ok(returned)
    }

    /// All bytes; those of ranges that are not charged read as zero.
    pub fn as_slice(&self) -> &[u8] {
        self.region.as_slice()
    }

    /// All bytes, of which those of charged ranges may be written.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.region.as_mut_slice()
    }

    /// How many bytes are backed by memory now.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn resident(&self) -> Result<Bytes, RegionError> {
        self.region.resident(0..self.region.len())
    }

    fn pages(&self, range: &Range<usize>) -> Bytes {
        let page = page_len();
        let ends = range.end.is_multiple_of(page) || range.end == self.region.len();
        assert!(
            range.start.is_multiple_of(page) && ends && range.start <= range.end,
            "bytes {range:?} are not whole pages"
        );
        // Within the mapping, which is within whole pages: no overflow.
        Bytes::from(range.end.next_multiple_of(page) - range.start)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::{AccountOptions, Lifetime};
    use crate::ledger::Ledger;

    #[test]
    fn the_charge_follows_the_ranges_in_use() {
        let page = page_len();
        let len = 8 * page + 1;
        let ledger = Ledger::new(Bytes::from(9 * page));
        let options = AccountOptions::new(Lifetime::Episodic).floor(Bytes::from(9 * page));
        let account = ledger.root().child_with("slabs", options).unwrap();
        let mut mapping = SparseMapping::new(&account, len, HugePages::Never).unwrap();
        assert_eq!((mapping.len(), mapping.charged()), (len, Bytes::ZERO));

        mapping.charge(0..4 * page).unwrap();
        mapping.charge(6 * page..len).unwrap();
        assert_eq!(account.granted(), Bytes::from(7 * page));
        mapping.as_mut_slice()[..3 * page].fill(1);
        mapping.as_mut_slice()[8 * page] = 2;
        assert_eq!(mapping.resident().unwrap(), Bytes::from(4 * page));

        // What was never written gives nothing back, but is not charged any more either.
        let returned = mapping.give_back(0..4 * page).unwrap();
        assert_eq!(returned, Bytes::from(3 * page));
        assert_eq!(account.granted(), Bytes::from(3 * page));
        assert!(mapping.as_slice()[..8 * page].iter().all(|byte| *byte == 0));
        assert_eq!(mapping.as_slice()[8 * page], 2);

        mapping.charge(0..6 * page).unwrap();
        assert_eq!(account.free(), Bytes::ZERO);
        assert!(mapping.charge(0..page).is_err());
        drop(mapping);
        assert_eq!(account.granted(), Bytes::ZERO);
    }

    #[test]
    #[should_panic(expected = "are not whole pages")]
    fn parts_of_pages_are_not_charged() {
        let ledger = Ledger::new(Bytes::mib(1));
        let account = ledger.root();
        let mut mapping = SparseMapping::new(&account, 1 << 16, HugePages::Never).unwrap();
        let _ = mapping.charge(0..1);
    }
}
