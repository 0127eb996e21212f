//! Everything between the matrix products: norms, activations, rotary positions, softmax.
//!
//! | module | what lives there |
//! |---|---|
//! | [`elementwise`] | sums, biases, SiLU, GELU and the like |
//! | [`norm`] | RMS, layer and L2 norms |
//! | [`mod@rope`] | rotary position embedding and its angles |
//! | [`reduce`] | softmax, log-sum-exp, argmax |
//!
//! **The order of a sum.** Lane `l` of 16 adds the elements `l`, `l + 16`, `l + 32`, ... in ascending
//! order by fused multiply-add; then lane `i` takes lane `i + 8`, then `+ 4`, `+ 2`, `+ 1`. Elements
//! beyond the end count as zero. That, and functions of our own made of correctly rounded operations
//! only (see `math`), makes every instruction set give the same bits, and a row the same bits wherever
//! it stands in a batch.

pub mod elementwise;
pub(crate) mod math;
pub mod norm;
pub mod reduce;
pub mod rope;
#[cfg(test)]
mod tests;

pub use elementwise::{add, add_bias, exp, gelu, gelu_tanh, scale, silu_mul, silu_mul_in_place};
pub use norm::{l2_normalize, layer_norm, layer_norm_in_place, rms_norm, rms_norm_heads};
pub use reduce::{argmax, log_sum_exp, softmax};
pub use rope::{RopeStyle, rope, rope_angles};
