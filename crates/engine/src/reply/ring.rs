//! The bytes of events that wait to be read: one ring per request, made when the request comes in, so
//! that a step sends a token without asking anybody for memory. A reader that lags further behind than
//! the ring reaches makes it grow; once he has caught up it is as it was.

use bursar_memory::{Account, Bytes, Pools, Reservation};

use crate::EngineError;
use crate::ground::Ground;

/// Where the memory of a ring comes from.
#[derive(Clone, Debug)]
pub(crate) enum RingSource {
    /// The heap; nobody is charged.
    Heap,
    /// The heap; an account is charged.
    Charged(Account),
    /// Pools, which charge it.
    Pooled(Pools),
}

/// A ring of bytes that is charged for as long as it is.
#[derive(Debug)]
pub(crate) struct Ring {
    /// `[..tail: newer bytes..|..free..|head: older bytes..]`, or the used bytes in one piece.
    storage: Ground,
    /// Where the oldest byte is.
    head: usize,
    len: usize,
    /// How long it is unless a reader lags.
    first: usize,
    source: RingSource,
    /// What `storage` is charged to, if to anybody.
    charge: Option<Reservation>,
}

impl Ring {
    /// A ring of `first` bytes, in whole words. Where its source has no room for it, it begins without any
    /// and asks again for the first event.
    pub(crate) fn new(first: usize, source: RingSource) -> Self {
        let first = first.next_multiple_of(size_of::<u64>());
        let mut ring = Self {
            storage: Ground::default(),
            head: 0,
            len: 0,
            first,
            source,
            charge: None,
        };
        let _ = ring.move_to(first);
        ring
    }

    /// Bytes that wait to be read.
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Makes room for `more` bytes.
    ///
    /// # Errors
    /// When its source has none.
    pub(crate) fn make_room(&mut self, more: usize) -> Result<(), EngineError> {
        let needed = self.len + more;
        if needed <= self.storage.len() {
            return Ok(());
        }
        let doubled = self.storage.len().saturating_mul(2);
        self.move_to(needed.max(doubled).max(self.first))
    }

    /// Puts what it holds into a storage of so many bytes, in whole words.
    fn move_to(&mut self, len: usize) -> Result<(), EngineError> {
        let storage_len = len.next_multiple_of(size_of::<u64>());
        let (mut storage, charge) = match &self.source {
            _ if storage_len == 0 => (Ground::default(), None),
            RingSource::Heap => (Ground::on_heap(storage_len), None),
            RingSource::Charged(account) => {
                let charge = account.reserve(Bytes(storage_len as u64))?;
                (Ground::on_heap(storage_len), Some(charge))
            }
            RingSource::Pooled(pools) => (Ground::pooled(storage_len, pools)?, None),
        };
        let len = self.len;
        self.read(&mut storage[..len]);
        (self.storage, self.head, self.len) = (storage, 0, len);
        self.charge = charge;
        Ok(())
    }

    /// Appends bytes that there is room for.
    pub(crate) fn write(&mut self, bytes: &[u8]) {
        let end = self.storage.len();
        let mut at = self.head + self.len;
        if at >= end {
            at -= end;
        }
        let front = bytes.len().min(end - at);
        self.storage[at..at + front].copy_from_slice(&bytes[..front]);
        self.storage[..bytes.len() - front].copy_from_slice(&bytes[front..]);
        self.len += bytes.len();
    }

    /// Takes the oldest bytes, as many as `bytes` has room for; there are as many.
    pub(crate) fn read(&mut self, bytes: &mut [u8]) {
        let end = self.storage.len();
        let front = bytes.len().min(end - self.head);
        let (first, rest) = bytes.split_at_mut(front);
        first.copy_from_slice(&self.storage[self.head..self.head + front]);
        rest.copy_from_slice(&self.storage[..rest.len()]);
        self.head += bytes.len();
        if self.head >= end {
            self.head -= end;
        }
        self.len -= bytes.len();
    }

    /// Lets go of what a reader who lagged made it take, if he has caught up.
    pub(crate) fn settle(&mut self) {
        if self.len == 0 && self.storage.len() > self.first {
            // Refused, it stays as long as it is.
            let _ = self.move_to(self.first);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use bursar_memory::{Ledger, Lifetime};

    use super::*;

    /// What comes out is what went in, however the pieces lie around the end; and what is charged is
    /// what is there.
    #[test]
    fn it_agrees_with_a_queue() {
        let mut state = 1_u64;
        let mut below = |bound: usize| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 33) as usize % bound
        };
        for _ in 0..300 {
            let first = below(5);
            let ledger = Ledger::new(Bytes::mib(1));
            let account = ledger.root().child("requests", Lifetime::Episodic);
            let first = first * size_of::<u64>();
            let mut ring = Ring::new(first, RingSource::Charged(account));
            let mut queue: VecDeque<u8> = VecDeque::new();
            for _ in 0..100 {
                let writes = below(2) == 0;
                if writes {
                    let bytes: Vec<u8> = (0..below(30)).map(|_| below(256) as u8).collect();
                    ring.make_room(bytes.len()).expect("within the budget");
                    ring.write(&bytes);
                    queue.extend(&bytes);
                } else {
                    let mut bytes = vec![0; below(30).min(queue.len())];
                    ring.read(&mut bytes);
                    let count = bytes.len();
                    assert!(bytes.into_iter().eq(queue.drain(..count)));
                    ring.settle();
                }
                assert_eq!(ring.len(), queue.len());
                assert_eq!(ledger.granted(), Bytes::from(ring.storage.len()));
                assert!(!queue.is_empty() || writes || ring.storage.len() <= first);
            }
        }
    }
}
