//! Block formats, packed panels, matrix products and attention for CPUs; plain data in, plain data out.
//!
//! Nothing here allocates, spawns a thread or keeps state. Every function takes the [`isa::Isa`] to use,
//! and every instruction set gives the same bits for matrix products (see [`matmul`]).
//!
//! | module | what lives there |
//! |---|---|
//! | [`quant`] | the stored formats and what their bytes mean |
//! | [`quantize`] | from numbers to the stored formats |
//! | [`panel`] | packed weights: 16 output rows interleaved |
//! | [`acts`] | activations quantised to bytes |
//! | [`mod@matmul`] | the product and its one reduction rule |
//! | [`ops`] | norms, activations, rotary positions, softmax |
//! | [`kv_view`] | keys and values in blocks of tokens |
//! | [`mod@attention`] | attention over them |
//! | [`mat`] | views of `f32` matrices |
//! | [`peak`] | what the machine can do at best, to compare with |
//! | [`isa`] | which vector instructions this machine has |
#![deny(unsafe_code)]

/// Goes up with every change after which some kernel gives other bits for the same input: keys and
/// values computed before are not to be mixed with those computed after.
pub const RESULTS_VERSION: u32 = 1;

pub mod acts;
pub mod attention;
pub mod isa;
pub mod kv_view;
mod lanes;
pub mod mat;
pub mod matmul;
pub mod ops;
pub mod panel;
pub mod peak;
pub mod quant;
pub mod quantize;
#[cfg(target_arch = "x86_64")]
mod x86_64;

#[cfg(test)]
mod testing;
