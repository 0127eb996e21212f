//! The ledger and everything that holds bytes: regions, heaps, the counting allocator.
//!
//! | module | what lives there |
//! |---|---|
//! | [`bytes`] | sizes, and how a budget is written |
//! | [`budget`] | how much there is to spend: said, or found in cgroups and machine |
//! | [`ledger`] | the hard budget |
//! | [`advisor`] | what to change about pools, from their figures |
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
//! | [`span`] | an owned piece of memory: where heaps are cut up |
//! | [`source`] | where heaps and buffers get their memory: one face for host and devices |
//! | [`movable`] | spans that compaction may move |
//! | [`heap_pool`] | several heaps as one: strategies, growth, compaction, fallback |
//! | [`buffer_pool`] | buffers that are used again: magazines, shelves, leaks |
//! | [`pools`] | the pools of a server as one |
//! | [`membrane`] | a hierarchy of heaps weighted by the numbers of rooted trees |
//! | [`scratch`] | the scratch memory of a request, freed in one go |
//! | [`trace`] | what was taken and given back: recorded, replayed, drawn |
//! | `cell` | seats and a place: what the quick way of the buffer pool is made of |
//! | [`counting`] | the process allocator, and what work leaves allocated |
//! | [`program`] | the program's own pages, made resident as they are counted |

#![deny(unsafe_code)]

pub mod account;
pub mod advisor;
pub mod budget;
pub mod buffer_pool;
pub mod bytes;
mod cell;
pub mod counting;
pub mod faults;
pub mod heap;
pub mod heap_pool;
pub mod ledger;
pub mod mapping;
pub mod membrane;
pub mod monitor;
pub mod movable;
mod node;
pub mod pools;
pub mod pressure;
pub mod program;
pub mod reclaim;
pub mod refusal;
pub mod region;
pub mod scratch;
pub mod snapshot;
pub mod source;
pub mod span;
pub mod sparse;
pub mod trace;

pub use account::{Account, AccountOptions, Lifetime, Reservation};
pub use buffer_pool::{Buffer, BufferPool, Leak, TypedBuffer};
pub use bytes::{Bytes, MemorySpec};
pub use heap::{Block, Heap};
pub use heap_pool::{HeapPool, PoolReport};
pub use ledger::Ledger;
pub use mapping::Mapping;
pub use membrane::Membranes;
pub use movable::MovableSpan;
pub use pools::{Pools, PoolsOptions, PoolsReport};
pub use reclaim::{
    Freed, RecentEvents, ReclaimBooks, ReclaimEvent, ReclaimReport, Rung, RungTotal,
};
pub use refusal::{Refusal, Verdict};
pub use region::{HugePages, Region};
pub use scratch::Scratch;
pub use snapshot::AccountSnapshot;
pub use source::{Device, PoolError};
pub use span::Span;
pub use sparse::SparseMapping;
