//! What one request holds: a reservation that grows as its body is read and its answer is built,
//! and goes back when the request is over.

use bursar_memory::{Account, Bytes, Refusal, Reservation};

/// The ledger is asked for this much at a time.
const STEP: usize = 16 << 10;

/// A growing reservation.
#[derive(Debug)]
pub(crate) struct Charge {
    reservation: Option<Reservation>,
    /// Charged already, but not yet used.
    left: usize,
}

impl Charge {
    /// Nothing yet, of `account`.
    pub(crate) fn new(account: &Account) -> Result<Charge, Refusal> {
        Ok(Charge {
            reservation: Some(account.reserve(Bytes(STEP as u64))?),
            left: STEP,
        })
    }

    /// Bytes that nobody counts.
    #[cfg(test)]
    pub(crate) fn unlimited() -> Charge {
        Charge {
            reservation: None,
            left: 0,
        }
    }

    /// All of it, for work that may outlive the request; it is to be put back. In the meantime nothing
    /// is counted.
    pub(crate) fn lend(&mut self) -> Charge {
        let nothing = Charge {
            reservation: None,
            left: 0,
        };
        std::mem::replace(self, nothing)
    }

    /// Takes `bytes` more.
    ///
    /// # Errors
    /// Where the budget does not hold them; what was held before is still held.
    pub(crate) fn add(&mut self, bytes: usize) -> Result<(), Refusal> {
        if let Some(left) = self.left.checked_sub(bytes) {
            self.left = left;
            return Ok(());
        }
        let Some(reservation) = &mut self.reservation else {
            return Ok(());
        };
        let missing = bytes - self.left;
        let more = missing.checked_next_multiple_of(STEP).unwrap_or(missing);
        reservation.grow(Bytes(more as u64))?;
        self.left = more - missing;
        Ok(())
    }
}
