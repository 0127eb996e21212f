//! The engine with many clients at once, over the fixtures' models.
//!
//! What must hold: each client's greedy tokens are those of its solo run, bit for bit, whatever else
//! runs, who cancels, and who is preempted; every stream ends once; and when all have ended, no block
//! is held.

mod clients;
mod edges;
#[path = "../parity/fixtures.rs"]
#[allow(dead_code, reason = "shared with the parity tests")]
mod fixtures;
mod ladder;
mod load;
mod prefixes;
mod several;
mod vectors;
mod weights;
