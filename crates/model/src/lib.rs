//! Architectures as op lists over planned buffers, weights, and the CPU backend.
//!
//! - `arch`: a model file's config becomes a program and a tensor list.
//! - `graph`: ops, buffers, and the arena plan made from their lifetimes.
//! - `weights`: tensors packed into one mapping, read in bounded pieces; a window of layers where
//!   they do not all stay. `recast`: which form they take.
//! - `rates`: what this machine does with weights, measured, for plans that stream them.
//! - `rope`: rotary position angles.
//! - `backend`: what executes programs.
//! - `model`: plan first, load second, then run.

#![forbid(unsafe_code)]

pub mod arch;
pub mod backend;
mod error;
pub mod graph;
mod model;
mod rates;
mod recast;
mod rope;
mod weights;

pub use arch::Purpose;
pub use backend::cpu::{ForwardBatch, SequenceRows};
pub use error::ModelError;
pub use graph::StepLimits;
pub use model::{Model, ModelPlan, PlanOptions};
pub use rates::Rates;
pub use recast::WeightsDtype;
pub use rope::RopeAngles;
pub use weights::{PIECE_BYTES_MAX, Residency, StreamFigures};
