//! Kernels for x86-64, by instruction set. All `unsafe` here rests on a token of [`crate::isa`].
#![allow(unsafe_code)]

pub(crate) mod avx512;
pub(crate) mod ops_avx2;
pub(crate) mod ops_avx512;
pub(crate) mod peak;
mod product;

use crate::acts::Acts;
use crate::isa::Avx512;
use crate::mat::MatMut;
use crate::matmul::Mode;
use crate::panel::Panels;

/// The product in 512 bits; shapes were checked by the caller.
pub(crate) fn matmul_avx512(isa: Avx512, w: Panels<'_>, x: Acts<'_>, out: MatMut<'_>, mode: Mode) {
    match x {
        Acts::F32(x) => avx512::float(isa, w, x, out, mode),
        Acts::Quantized { layout, bytes, .. } => {
            product::quantized(isa, w, &layout, bytes, out, mode);
        }
    }
}
