//! 256-bit kernels: a vector is one word of eight rows, so a panel is two halves.
//!
//! Without `vpdpbusd`, bytes are multiplied by `vpmaddubsw`, whose pairs are added in 16 bits; how many
//! products fit there before they must be widened is worked out beside each use. Functions here carry
//! `#[target_feature]`; the token [`Avx2`] in each entry proves the features.
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
use crate::isa::Avx2;
use crate::quant::Dtype;

/// An unpacked step: 256 values of 16 rows and what scales them.
#[repr(C, align(64))]
pub(crate) struct Tile {
    /// Quants without offset (Q8_0: signed), vector `v` holding values `4 * v..4 * v + 4`.
    q: [[u8; 64]; 64],
    /// K-quants: integer scale of each sub-block, twice over.
    scale: [Lanes<[i16; 2]>; 16],
    /// K-quants: pairs to be multiplied by pairs of sums (minima; in Q6_K `-32 * scale`).
    pairs: [Lanes<[i16; 2]>; 8],
    /// Scale of each block: one, or up to eight small ones.
    d: [Lanes<f32>; 8],
    /// Likewise the scale of the minima, or the minima.
    m: [Lanes<f32>; 8],
    /// Small blocks in the step.
    blocks: usize,
}

impl QuantProduct for Avx2 {
    type Tile = Tile;
    const ROWS: usize = 4;

    fn tile() -> Tile {
        Tile {
            q: [[0; 64]; 64],
            scale: [Lanes([[0; 2]; 16]); 16],
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
                Dtype::Q4K => kquant::unpack_q4::<false>(records, tile),
                Dtype::Q5K => kquant::unpack_q4::<true>(records, tile),
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
                Dtype::Q4K => kquant::rows::<8, 8, true>(tile, x, acc),
                Dtype::Q5K => kquant::rows::<8, 4, true>(tile, x, acc),
                Dtype::Q6K => kquant::rows::<16, 2, false>(tile, x, acc),
                Dtype::Q8_0 => small::rows_q8(tile, x, acc),
                Dtype::Q4_0 => small::rows::<8, false, 3>(tile, x, acc),
                Dtype::Q4_1 => small::rows::<8, true, 0>(tile, x, acc),
                Dtype::Q5_0 => small::rows::<4, false, 4>(tile, x, acc),
                Dtype::Q5_1 => small::rows::<4, true, 0>(tile, x, acc),
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
        // Unpacking keeps up with memory here, so that one row needs no code of its own.
        self.unpack(dtype, records, tile);
        self.rows(dtype, tile, ActRows::one(x), std::slice::from_mut(acc));
    }
}
