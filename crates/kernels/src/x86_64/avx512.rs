//! 512-bit kernels: one vector is one word of all sixteen rows of a panel.
//!
//! Functions here carry `#[target_feature]`; the token [`Avx512`] in each entry proves the features.
#![allow(unsafe_code)]
#![allow(
    clippy::needless_range_loop,
    reason = "one index names a row, a lane or a sub-block in several arrays at once"
)]

mod acts;
mod float;
mod kquant;
mod small;
mod vector;

pub(crate) use acts::quantize_step;

use super::product::{ActRows, Lanes, QuantProduct};
use crate::acts::Step;
use crate::isa::Avx512;
use crate::quant::Dtype;

/// An unpacked step: 256 values of 16 rows and what scales them.
#[repr(C, align(64))]
pub(crate) struct Tile {
    /// Quants without offset, vector `v` holding values `4 * v..4 * v + 4`.
    q: [[u8; 64]; 64],
    /// K-quants: integer scale of each sub-block.
    scale: [Lanes<i32>; 16],
    /// K-quants: pairs of `i16`, to be multiplied by pairs of sums (minima; in Q6_K `-32 * scale`).
    pairs: [Lanes<[i16; 2]>; 8],
    /// Scale of each block: one, or up to eight small ones.
    d: [Lanes<f32>; 8],
    /// Likewise the scale of the minima, or the minima.
    m: [Lanes<f32>; 8],
    /// Small blocks in the step.
    blocks: usize,
}

impl QuantProduct for Avx512 {
    type Tile = Tile;
    const ROWS: usize = 8;

    fn tile() -> Tile {
        Tile {
            q: [[0; 64]; 64],
            scale: [Lanes([0; 16]); 16],
            pairs: [Lanes([[0; 2]; 16]); 8],
            d: [Lanes([0.0; 16]); 8],
            m: [Lanes([0.0; 16]); 8],
            blocks: 0,
        }
    }

    #[inline]
    fn unpack(self, dtype: Dtype, records: &[u8], tile: &mut Tile) {
        // SAFETY: the token proves that this machine has the features.
        unsafe {
            match dtype {
                Dtype::Q4K => kquant::unpack_q4(records, tile),
                Dtype::Q5K => kquant::unpack_q5(records, tile),
                Dtype::Q6K => kquant::unpack_q6(records, tile),
                Dtype::Q8_0 => small::unpack_q8(records, tile),
                Dtype::Q4_0 => small::unpack_nibbles::<false, false>(records, tile),
                Dtype::Q4_1 => small::unpack_nibbles::<false, true>(records, tile),
                Dtype::Q5_0 => small::unpack_nibbles::<true, false>(records, tile),
                Dtype::Q5_1 => small::unpack_nibbles::<true, true>(records, tile),
                Dtype::F32 | Dtype::F16 | Dtype::BF16 => {}
            }
        }
    }

    #[inline]
    fn rows(self, dtype: Dtype, tile: &Tile, x: ActRows<'_>, acc: &mut [Lanes<f32>]) {
        // SAFETY: the token proves that this machine has the features.
        unsafe {
            match dtype {
                Dtype::Q4K | Dtype::Q5K => kquant::rows::<8, true>(tile, x, acc),
                Dtype::Q6K => kquant::rows::<16, false>(tile, x, acc),
                Dtype::Q8_0 => small::rows::<false, 7>(tile, x, acc),
                Dtype::Q5_0 => small::rows::<false, 4>(tile, x, acc),
                Dtype::Q4_0 => small::rows::<false, 3>(tile, x, acc),
                Dtype::Q4_1 | Dtype::Q5_1 => small::rows::<true, 0>(tile, x, acc),
                Dtype::F32 | Dtype::F16 | Dtype::BF16 => {}
            }
        }
    }

    #[inline]
    fn one_row(
        self,
        dtype: Dtype,
        records: &[u8],
        tile: &mut Tile,
        x: &Step,
        acc: &mut Lanes<f32>,
    ) {
        // SAFETY: the token proves that this machine has the features.
        unsafe {
            match dtype {
                Dtype::Q4K => kquant::one_row_q4::<false>(records, tile, x, acc),
                Dtype::Q5K => kquant::one_row_q4::<true>(records, tile, x, acc),
                Dtype::Q6K => kquant::one_row_q6(records, tile, x, acc),
                Dtype::Q8_0 => small::one_row_q8(records, x, acc),
                Dtype::Q4_0 => small::one_row_nibbles::<false, false>(records, x, acc),
                Dtype::Q4_1 => small::one_row_nibbles::<false, true>(records, x, acc),
                Dtype::Q5_0 => small::one_row_nibbles::<true, false>(records, x, acc),
                Dtype::Q5_1 => small::one_row_nibbles::<true, true>(records, x, acc),
                Dtype::F32 | Dtype::F16 | Dtype::BF16 => {}
            }
        }
    }
}
