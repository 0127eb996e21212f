//! Spin-then-park fork-join over borrowed slices; the caller is worker 0.
//!
//! - [`pool`]: [`Workers`], what the step holds and calls.
//! - `gate`: the one word of shared state by which a job is opened, entered, left and closed, and the
//!   waiting around it. All `unsafe` of the crate is in these two files.
#![deny(unsafe_code)]

mod gate;
pub mod pool;

pub use pool::{Options, Workers, WorkersError};
