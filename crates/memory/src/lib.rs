//! The ledger and everything that holds bytes: regions, heaps, the counting allocator.
//!
//! | module | what lives there |
//! |---|---|
//! | [`bytes`] | sizes, and how a budget is written |
//! | [`budget`] | how much there is to spend: said, or found in cgroups and machine |
//! | [`ledger`] | the hard budget |
//! | [`account`] | accounts in a tree, reservations |
//! | `node` | how bytes are claimed and released without locks |
//! | [`refusal`] | what is said when bytes do not fit |
//! | [`snapshot`] | the books as plain data |
//! | [`monitor`] | the books against the operating system |
//! | [`pressure`] | how short memory is: levels from samples of the books and the system |
//! | [`reclaim`] | the ladder on which memory is got back, and the books of it |
//! | [`faults`] | refusing the n-th reservation, for tests |
//! | [`region`] | the only mmap: address space, committed and given back |
//! | [`mapping`] | memory charged to a reservation |
//! | [`sparse`] | address space of which single ranges are charged |
//! | [`heap`] | sub-allocation in constant time over a range of offsets |
//! | [`counting`] | the process allocator, and what work leaves allocated |
//! | [`program`] | the program's own pages, made resident as they are counted |

#![deny(unsafe_code)]

pub mod account;
pub mod budget;
pub mod bytes;
pub mod counting;
pub mod faults;
pub mod heap;
pub mod ledger;
pub mod mapping;
pub mod monitor;
mod node;
pub mod pressure;
pub mod program;
pub mod reclaim;
pub mod refusal;
pub mod region;
pub mod snapshot;
pub mod sparse;

pub use account::{Account, AccountOptions, Lifetime, Reservation};
pub use bytes::{Bytes, MemorySpec};
pub use heap::{Block, Heap};
pub use ledger::Ledger;
pub use mapping::Mapping;
pub use reclaim::{
    Freed, RecentEvents, ReclaimBooks, ReclaimEvent, ReclaimReport, Rung, RungTotal,
};
pub use refusal::{Refusal, Verdict};
pub use region::{HugePages, Region};
pub use snapshot::AccountSnapshot;
pub use sparse::SparseMapping;
