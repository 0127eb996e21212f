//! Where heaps get their memory: one face for the memory of this machine and of devices.
//!
//! A pool asks a source for memory and charges nothing itself: what a source hands out is charged to
//! the account that the source was made with, and stays so until it is dropped. Memory of a device
//! becomes another source, with a kind of its own in [`HeapMemory`].

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::account::{Account, Lifetime};
use crate::bytes::Bytes;
use crate::heap::HeapError;
use crate::mapping::Mapping;
use crate::membrane::MembranePlanError;
use crate::refusal::Refusal;
use crate::region::{HugePages, RegionError, charge_of};
use crate::span::{HeapMemory, Span};

/// Whose memory it is. Devices join here, with their number.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Device {
    /// This machine's.
    #[default]
    Host,
}

impl Device {
    /// The word as it appears in reports: `host`.
    pub const fn name(self) -> &'static str {
        match self {
            Device::Host => "host",
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why a pool cannot be made, or has no memory.
#[derive(Debug, thiserror::Error)]
pub enum PoolError {
    /// The budget has no room.
    #[error(transparent)]
    Refused(Refusal),
    /// The kernel refused.
    #[error(transparent)]
    Region(RegionError),
    /// There can be no such membranes.
    #[error(transparent)]
    Membranes(MembranePlanError),
    /// Heaps that cannot be kept books of.
    #[error("a heap of {len} (pool.heap_size): {source}")]
    Heap {
        /// Length of the heap.
        len: Bytes,
        /// What is wrong with it.
        source: HeapError,
    },
    /// A block to be warmed up is longer than any heap.
    #[error(
        "a warm-up size of {size} (pool.warmup_sizes) is longer than a heap of {heap} \
         (pool.heap_size): make heaps longer, or leave that size out"
    )]
    WarmUpTooLong {
        /// The size.
        size: Bytes,
        /// Length of a heap.
        heap: Bytes,
    },
    /// The blocks to be warmed up do not fit together.
    #[error(
        "the warm-up sizes (pool.warmup_sizes) come to {asked}, which {heaps} heaps of {heap} have no \
         room for (pool.heaps, pool.heap_size): raise those, or leave sizes out"
    )]
    WarmUpTooMuch {
        /// All sizes.
        asked: Bytes,
        /// Heaps at the start.
        heaps: usize,
        /// Length of a heap.
        heap: Bytes,
    },
    /// More bytes than there can be.
    #[error("a buffer of {what} is longer than the address space: ask for less")]
    TooLarge {
        /// What was asked for.
        what: String,
    },
    /// A buffer that has outlived its pool was to grow.
    #[error(
        "the pool of this buffer is closed, so that it cannot grow: keep the pool as long as it"
    )]
    Closed,
    /// A setting is outside its range.
    #[error("{key} is {value}: it must be {must}")]
    Setting {
        /// The setting.
        key: &'static str,
        /// What it is.
        value: String,
        /// What it may be.
        must: String,
    },
}

impl From<MembranePlanError> for PoolError {
    fn from(error: MembranePlanError) -> PoolError {
        PoolError::Membranes(error)
    }
}

impl From<Refusal> for PoolError {
    fn from(refusal: Refusal) -> PoolError {
        PoolError::Refused(refusal)
    }
}

impl From<RegionError> for PoolError {
    fn from(error: RegionError) -> PoolError {
        match error {
            RegionError::Refused(refusal) => PoolError::Refused(refusal),
            error => PoolError::Region(error),
        }
    }
}

impl PoolError {
    /// The refusal of the budget, if that is what it was.
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            PoolError::Refused(refusal) => Some(refusal),
            _ => None,
        }
    }
}

/// What heaps are made of.
pub trait HeapSource: Send + Sync + fmt::Debug {
    /// Whose memory it is.
    fn device(&self) -> Device;

    /// Memory of `len` bytes, charged until it is dropped.
    ///
    /// # Errors
    /// Where the budget or the device refuses; nothing is charged then.
    fn open(&self, len: usize) -> Result<HeapMemory, PoolError>;

    /// Memory of `len` bytes for one single block, charged until it is dropped: what a pool falls back
    /// to when its heaps are full.
    ///
    /// # Errors
    /// As [`HeapSource::open`].
    fn open_single(&self, len: usize) -> Result<Mapping, PoolError>;
}

/// What buffers are cut out of: heaps, membranes, or nothing that is kept.
pub trait SpanSource: Send + Sync + fmt::Debug {
    /// Whose memory it is.
    fn device(&self) -> Device;

    /// Takes `len` bytes that will live about so long.
    ///
    /// # Errors
    /// Where there is no room and the budget refuses more.
    fn take_span(&self, len: usize, lifetime: Lifetime) -> Result<Span, PoolError>;

    /// The share that is in use of what it has: where it nears 1, buffers that nobody uses are given up
    /// first. `None` where it keeps nothing.
    fn utilisation_ratio(&self) -> Option<f64>;

    /// Gives back what is not in use. Says how many bytes went to the operating system.
    fn trim_spans(&self) -> Bytes;
}

/// Fresh memory of the process allocator for every span, charged to the byte and given back at once:
/// what buffers are cut out of where pools are switched off.
#[derive(Clone, Debug)]
pub struct FreshSource {
    account: Account,
}

impl FreshSource {
    /// Memory charged to `account`.
    pub fn new(account: &Account) -> FreshSource {
        FreshSource {
            account: account.clone(),
        }
    }
}

impl SpanSource for FreshSource {
    fn device(&self) -> Device {
        Device::Host
    }

    fn take_span(&self, len: usize, _lifetime: Lifetime) -> Result<Span, PoolError> {
        let reservation = self.account.reserve(Bytes::from(len))?;
        Ok(Span::allocated(reservation)?)
    }

    fn utilisation_ratio(&self) -> Option<f64> {
        None
    }

    fn trim_spans(&self) -> Bytes {
        Bytes::ZERO
    }
}

/// This machine's memory, charged to an account.
#[derive(Clone, Debug)]
pub struct HostSource {
    account: Account,
}

impl HostSource {
    /// Memory charged to `account`.
    pub fn new(account: &Account) -> HostSource {
        HostSource {
            account: account.clone(),
        }
    }

    fn map(&self, len: usize) -> Result<Mapping, PoolError> {
        let reservation = self.account.reserve(charge_of(Bytes::from(len)))?;
        // The reservation is of whole pages, and the mapping as long as it; whoever asked for less does
        // not mind. Pages go back one by one, so none of them may be huge.
        Ok(Mapping::new(reservation, HugePages::Never)?)
    }
}

impl HeapSource for HostSource {
    fn device(&self) -> Device {
        Device::Host
    }

    fn open(&self, len: usize) -> Result<HeapMemory, PoolError> {
        self.map(len).map(HeapMemory::Host)
    }

    fn open_single(&self, len: usize) -> Result<Mapping, PoolError> {
        self.map(len)
    }
}

/// A source that refuses on purpose, so that a test can walk every path that a lack of memory can take.
/// (`faults` does the same to a whole ledger; this one strikes a single pool, and stands in for a
/// kernel that refuses what the budget would allow.)
#[derive(Debug)]
pub struct FaultySource<S> {
    inner: S,
    asks: Arc<AtomicU64>,
    refused: RefusedAsks,
}

/// Which asks a [`FaultySource`] refuses; the first ask is 1.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum RefusedAsks {
    /// None: they are only counted.
    None,
    /// That one.
    Once(u64),
    /// That one and all after it.
    From(u64),
}

impl<S: HeapSource> FaultySource<S> {
    /// A source that refuses some of what `inner` is asked for.
    pub fn new(inner: S, refused: RefusedAsks) -> FaultySource<S> {
        FaultySource {
            inner,
            asks: Arc::default(),
            refused,
        }
    }

    /// How often it has been asked, to be read while a pool owns it.
    pub fn asks(&self) -> Arc<AtomicU64> {
        Arc::clone(&self.asks)
    }

    fn ask(&self, len: usize) -> Result<(), PoolError> {
        let ask = self.asks.fetch_add(1, Ordering::Relaxed) + 1;
        let strikes = match self.refused {
            RefusedAsks::None => false,
            RefusedAsks::Once(n) => ask == n,
            RefusedAsks::From(n) => ask >= n,
        };
        if !strikes {
            return Ok(());
        }
        Err(PoolError::Region(RegionError::Os {
            what: "mapping (refused on purpose, by a test)",
            len: Bytes::from(len),
            source: std::io::ErrorKind::OutOfMemory.into(),
        }))
    }
}

impl<S: HeapSource> HeapSource for FaultySource<S> {
    fn device(&self) -> Device {
        self.inner.device()
    }

    fn open(&self, len: usize) -> Result<HeapMemory, PoolError> {
        self.ask(len)?;
        self.inner.open(len)
    }

    fn open_single(&self, len: usize) -> Result<Mapping, PoolError> {
        self.ask(len)?;
        self.inner.open_single(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Ledger;

    /// P8
    #[test]
    fn the_host_charges_what_it_hands_out() {
        let ledger = Ledger::new(Bytes::mib(1));
        let source = HostSource::new(&ledger.root());
        assert_eq!(source.device().to_string(), "host");
        let heap = source.open(512 << 10).unwrap();
        let single = source.open_single(5000).unwrap();
        assert_eq!(ledger.granted(), Bytes((512 << 10) + 8192));
        let refused = source.open(1 << 20).unwrap_err();
        assert!(refused.refusal().is_some(), "{refused}");
        drop((heap, single));
        assert_eq!(ledger.granted(), Bytes::ZERO);
    }

    #[test]
    fn a_faulty_source_refuses_as_told() {
        let ledger = Ledger::new(Bytes::mib(1));
        for (refused, expected) in [
            (RefusedAsks::None, [true, true, true]),
            (RefusedAsks::Once(2), [true, false, true]),
            (RefusedAsks::From(2), [true, false, false]),
        ] {
            let source = FaultySource::new(HostSource::new(&ledger.root()), refused);
            let answers = [
                source.open(4096).is_ok(),
                source.open_single(4096).is_ok(),
                source.open(4096).is_ok(),
            ];
            assert_eq!(answers, expected);
            assert_eq!(source.asks().load(Ordering::Relaxed), 3);
        }
        assert_eq!(ledger.granted(), Bytes::ZERO);
    }
}
