//! Memory charged to a reservation: what weights, caches and step arenas are made of.

use std::ops::Range;
use std::ptr::NonNull;

use crate::account::Reservation;
use crate::bytes::Bytes;
use crate::region::{HugePages, Region, RegionError, charge_of};

/// Zeroed memory, aligned to a page, charged to a reservation until it has been unmapped.
#[derive(Debug)]
pub struct Mapping {
    // Dropped in this order: unmapped first, released second.
    region: Region,
    reservation: Reservation,
}

impl Mapping {
    /// Maps as many bytes as the reservation holds. The reservation is grown to whole pages first;
    /// whoever plans with [`charge_of`] never sees that refused.
    ///
    /// # Errors
    /// Where the rest of the last page does not fit the budget, or the kernel refuses.
    pub fn new(mut reservation: Reservation, huge: HugePages) -> Result<Mapping, RegionError> {
        let bytes = reservation.bytes();
        reservation.grow(charge_of(bytes) - bytes)?;
        let len = bytes.to_usize().ok_or(RegionError::TooLarge(bytes))?;
        let mut region = Region::reserve(len, huge)?;
        region.commit(0..len)?;
        Ok(Mapping {
            region,
            reservation,
        })
    }

    /// Bytes, as asked for.
    pub fn len(&self) -> usize {
        self.region.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.region.is_empty()
    }

    /// Bytes charged: whole pages.
    pub fn charged(&self) -> Bytes {
        self.reservation.bytes()
    }

    /// The unit in which memory goes back.
    pub fn unit(&self) -> usize {
        self.region.unit()
    }

    /// All of it.
    pub fn as_slice(&self) -> &[u8] {
        self.region.as_slice()
    }

    /// All of it, to be written.
    pub fn as_mut_slice(&mut self) -> &mut [u8] {
        self.region.as_mut_slice()
    }

    /// Where it starts, for who cuts it up (`span.rs`).
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.region.base()
    }

    /// Gives memory back to the operating system and says how many bytes went; see
    /// [`Region::decommit`]. The charge stays: the bytes can be written again at any time.
    ///
    /// # Errors
    /// Where the range is outside, or the kernel refuses to release or to count.
    pub fn decommit(&mut self, range: Range<usize>) -> Result<Bytes, RegionError> {
        self.region.decommit(range)
    }

    /// Cuts it off behind `len` bytes. What lies beyond their last page goes back to the operating
    /// system and off the charge; says how many bytes of memory went, measured.
    ///
    /// # Errors
    /// Where it is shorter than that, or the kernel refuses to count.
    pub fn truncate(&mut self, len: usize) -> Result<Bytes, RegionError> {
        let gone = self.region.truncate(len)?;
        let keep = charge_of(Bytes::from(len));
        self.reservation.shrink(self.reservation.bytes() - keep);
        Ok(gone)
    }

    /// Backs a range with memory now instead of at first touch.
    ///
    /// # Errors
    /// Where the range is outside, or the kernel has no memory.
    pub fn populate(&mut self, range: Range<usize>) -> Result<(), RegionError> {
        self.region.populate(range)
    }

    /// How many bytes are backed by memory now.
    ///
    /// # Errors
    /// Where the kernel does not tell.
    pub fn resident(&self) -> Result<Bytes, RegionError> {
        self.region.resident(0..self.region.len())
    }

    /// Unmaps it and keeps the reservation.
    pub fn into_reservation(self) -> Reservation {
        let Mapping {
            region,
            reservation,
        } = self;
        drop(region);
        reservation
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::Lifetime;
    use crate::ledger::Ledger;
    use crate::region::page_len;

    #[test]
    fn a_mapping_is_charged_in_whole_pages_while_it_lives() {
        let page = page_len() as u64;
        let ledger = Ledger::new(Bytes(4 * page));
        let account = ledger.root().child("weights", Lifetime::Semantic);
        let reservation = account.reserve(Bytes(page + 1)).unwrap();
        let mut mapping = Mapping::new(reservation, HugePages::Never).unwrap();
        assert_eq!(mapping.len() as u64, page + 1);
        assert_eq!(account.granted(), Bytes(2 * page));
        mapping.as_mut_slice().fill(3);
        assert_eq!(mapping.resident().unwrap(), Bytes(2 * page));
        assert!(mapping.as_slice().iter().all(|byte| *byte == 3));
        assert_eq!(mapping.truncate(9).unwrap(), Bytes(page));
        assert_eq!((mapping.len(), account.granted()), (9, Bytes(page)));
        assert!(mapping.truncate(10).is_err());
        let reservation = mapping.into_reservation();
        assert_eq!(reservation.bytes(), Bytes(page));
        drop(reservation);
        assert_eq!(account.granted(), Bytes::ZERO);

        // The rest of the last page must fit too.
        let tight = Ledger::new(Bytes(page + 1));
        let reservation = tight.root().reserve(Bytes(page + 1)).unwrap();
        let refused = Mapping::new(reservation, HugePages::Never);
        assert!(matches!(refused, Err(RegionError::Refused(_))));
        assert_eq!(tight.granted(), Bytes::ZERO);

        let empty = Mapping::new(
            ledger.root().reserve(Bytes::ZERO).unwrap(),
            HugePages::Advise,
        );
        assert!(empty.unwrap().as_slice().is_empty());
    }
}
