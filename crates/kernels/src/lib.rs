//! Block formats, packed panels, matrix products and attention for CPUs; plain data in, plain data out.
//!
//! Nothing here allocates, spawns a thread or keeps state. Every function takes the [`isa::Isa`] to use,
//! and every instruction set gives the same bits for matrix products (see [`matmul`]).
//!
//! | module | what lives there |
//! |---|---|
//! | [`quant`] | the stored formats and what their bytes mean |
//! | [`panel`] | packed weights: 16 output rows interleaved |
//! | [`acts`] | activations quantised to bytes |
//! | [`mod@matmul`] | the product and its one reduction rule |
//! | [`mat`] | views of `f32` matrices |
//! | [`isa`] | which vector instructions this machine has |
#![deny(unsafe_code)]

pub mod acts;
pub mod isa;
pub mod mat;
pub mod matmul;
pub mod panel;
pub mod quant;

#[cfg(test)]
mod testing;
