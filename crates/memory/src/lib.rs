//! The ledger and everything that holds bytes: regions, heaps, the counting allocator.
//!
//! | module | what lives there |
//! |---|---|
//! | [`bytes`] | sizes, and how a budget is written |
//! | [`ledger`] | the hard budget |
//! | [`account`] | accounts in a tree, reservations |
//! | [`refusal`] | what is said when bytes do not fit |
//! | [`snapshot`] | the books as plain data |
//! | [`faults`] | refusing the n-th reservation, for tests |
//! | [`region`] | the only mmap: address space, and memory charged to a reservation |

#![deny(unsafe_code)]

pub mod account;
pub mod bytes;
pub mod faults;
pub mod ledger;
mod node;
pub mod refusal;
pub mod region;
pub mod snapshot;

pub use account::{Account, AccountOptions, Lifetime, Reservation};
pub use bytes::{Bytes, MemorySpec};
pub use ledger::Ledger;
pub use refusal::Refusal;
pub use region::{HugePages, Mapping, Region};
