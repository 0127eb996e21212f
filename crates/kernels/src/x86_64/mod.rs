//! Kernels for x86-64, by instruction set. All `unsafe` here rests on a token of [`crate::isa`].
#![allow(unsafe_code)]

pub(crate) mod avx2;
pub(crate) mod avx512;
mod float;
pub(crate) mod ops_avx2;
pub(crate) mod ops_avx512;
pub(crate) mod peak;
mod product;

use crate::acts::Acts;
use crate::mat::MatMut;
use crate::matmul::Mode;
use crate::panel::Panels;

/// The product by an instruction set; shapes were checked by the caller.
pub(crate) fn matmul<I>(isa: I, w: Panels<'_>, x: Acts<'_>, out: MatMut<'_>, mode: Mode)
where
    I: float::FloatProduct + product::QuantProduct,
{
    match x {
        Acts::F32(x) => float::float(isa, w, x, out, mode),
        Acts::Quantized { layout, bytes, .. } => {
            product::quantized(isa, w, &layout, bytes, out, mode);
        }
    }
}
