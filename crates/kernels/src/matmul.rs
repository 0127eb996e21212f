//! Matrix products with packed weights, and the one rule by which every kernel adds up.
//!
//! `out[m][r] = sum over k of W[r][k] * x[m][k]`, stored or added.
//!
//! # The reduction rule
//! Lane = output row: outputs never mix, and each is one chain of fused multiply-adds starting at zero.
//! `f(i)` is the integer as `f32`, rounded to nearest even; `fma` rounds once.
//!
//! - **Float weights**: `acc = fma(w[k], x[k], acc)` for ascending `k`, `w` widened exactly to `f32`. There
//!   is no tail: any `k` will do.
//! - **Small blocks** (`Q4_0`, `Q5_0`, `Q8_0`; `Q4_1`, `Q5_1` with minima), blocks ascending:
//!   `dot = sum q * a` exactly in integers, `q` with its offset (8, 16, none) taken off;
//!   without minima `t = d * f(dot)`; with them `t = fma(d, f(dot), m * f(sum a))`; then
//!   `acc = fma(t, scale_a, acc)`. A row whose blocks are odd in number is followed by a block of zeros
//!   (which can turn a sum of `-0.0` into `0.0`, nothing else).
//! - **K-quants**, super-blocks ascending: `dot = sum over sub-blocks j of scale_j * sum q * a` exactly in
//!   integers, `q` without its offset of 32 in Q6_K; in Q4_K and Q5_K `mins = sum of min_j * sum_j a`
//!   likewise. Q6_K: `t = d * f(dot)`; else `t = fma(d, f(dot), -(dmin * f(mins)))`; then
//!   `acc = fma(t, scale_a, acc)`. Rows are whole super-blocks, so there is no tail.
//!
//! Then `out = acc` or `out = out + acc`.
//!
//! Integers may be added in any order and by any instruction: `|dot| < 2^28` for every type, so nothing
//! wraps. Hence one row and 512, any split into panels or row tiles, any thread count and any instruction
//! set give the same bits. Inputs must be finite.

mod scalar;

use crate::acts::{ActKind, Acts};
use crate::isa::{Isa, Level};
use crate::mat::MatMut;
use crate::panel::Panels;

/// What becomes of the outputs.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// `out = product`
    Store,
    /// `out = out + product`
    Accumulate,
}

/// Multiplies the rows of `x` by the weights `w`; see the module for the rule and its bits.
///
/// `out` has a row per row of `x` and a column per output row of `w`'s panel range.
///
/// # Panics
/// When the shapes do not fit together, or `x` is not of the kind that the weights want
/// ([`ActKind::of`]).
#[track_caller]
pub fn matmul(isa: Isa, w: Panels<'_>, x: Acts<'_>, out: MatMut<'_>, mode: Mode) {
    assert_eq!(x.cols(), w.cols(), "columns of the activations");
    assert_eq!(x.kind(), ActKind::of(w.dtype()), "kind of activations");
    assert_eq!(
        (out.rows(), out.cols()),
        (x.rows(), w.rows().len()),
        "shape of the output"
    );
    if let Acts::Quantized {
        layout,
        rows,
        bytes,
    } = x
    {
        assert_eq!(
            Some(bytes.len()),
            layout.row_bytes().checked_mul(rows),
            "bytes of {rows} rows of {layout:?}"
        );
    }
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512(isa) => crate::x86_64::matmul(isa, w, x, out, mode),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2(isa) => crate::x86_64::matmul(isa, w, x, out, mode),
        Level::Scalar => scalar::matmul(w, x, out, mode),
    }
}

#[cfg(test)]
mod tests;
