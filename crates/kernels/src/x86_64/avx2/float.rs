//! F32, F16 and BF16 weights in 256 bits: widened in registers, multiplied and added as `f32`.

use std::arch::x86_64::*;

use super::super::float::{FloatProduct, FloatTile};
use super::super::product::Lanes;
use super::vector::{load_floats, store_floats};
use crate::isa::Avx2;
use crate::quant::Dtype;

impl FloatProduct for Avx2 {
    /// Ten accumulators, four vectors of weights, one of activations.
    const ROWS: usize = 5;
    const SIDE: usize = 1;
    const FEW_ROWS: usize = 1;

    unsafe fn tile(
        self,
        dtype: Dtype,
        panels: usize,
        rows: usize,
        tile: &FloatTile,
        acc: &mut [Lanes<f32>],
    ) {
        // SAFETY: the token proves the features; the rest is passed on from the caller.
        unsafe {
            match dtype {
                Dtype::F16 => some_rows::<F16>(panels, rows, tile, acc),
                Dtype::BF16 => some_rows::<Bf16>(panels, rows, tile, acc),
                _ => some_rows::<F32>(panels, rows, tile, acc),
            }
        }
    }
}

/// # Safety
/// See [`FloatProduct::tile`]; the machine must have the features.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn some_rows<W: Weights>(
    panels: usize,
    rows: usize,
    tile: &FloatTile,
    acc: &mut [Lanes<f32>],
) {
    // SAFETY: passed on from the caller.
    unsafe {
        match (panels, rows) {
            (1, 1) => tile_rows::<W, 1, 1>(tile, acc),
            (1, 2) => tile_rows::<W, 1, 2>(tile, acc),
            (1, 3) => tile_rows::<W, 1, 3>(tile, acc),
            (1, 4) => tile_rows::<W, 1, 4>(tile, acc),
            (1, 5) => tile_rows::<W, 1, 5>(tile, acc),
            (1, 6) => tile_rows::<W, 1, 6>(tile, acc),
            (4, 1) => tile_rows::<W, 4, 1>(tile, acc),
            _ => unreachable!("no tile of {panels} panels and {rows} rows"),
        }
    }
}

/// # Safety
/// See [`FloatProduct::tile`]; the machine must have the features.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile_rows<W: Weights, const P: usize, const M: usize>(
    tile: &FloatTile,
    acc: &mut [Lanes<f32>],
) {
    let mut sums = [[[_mm256_setzero_ps(); 2]; P]; M];
    for m in 0..M {
        for p in 0..P {
            for half in 0..2 {
                sums[m][p][half] = load_floats(&acc[m * P + p], half);
            }
        }
    }
    let mut k = tile.from;
    while k < tile.to {
        // The last pair may have one value only: then its second is not multiplied.
        let values = (tile.to - k).min(2);
        for p in 0..P {
            // SAFETY: `k` is even, and `k + values <= to` within the panel.
            let w = unsafe { W::pair(tile.w.add(p * tile.panel_bytes), k, values) };
            for (i, w) in w.iter().enumerate().take(values) {
                for m in 0..M {
                    // SAFETY: `k + i < to`, within the row.
                    let x = _mm256_set1_ps(unsafe { *tile.x.add(m * tile.stride + k + i) });
                    for half in 0..2 {
                        sums[m][p][half] = _mm256_fmadd_ps(w[half], x, sums[m][p][half]);
                    }
                }
            }
        }
        k += 2;
    }
    for m in 0..M {
        for p in 0..P {
            for half in 0..2 {
                store_floats(&mut acc[m * P + p], half, sums[m][p][half]);
            }
        }
    }
}

/// How sixteen weights become floats.
trait Weights {
    /// Both halves of values `k` (even) and, if `values` is 2, `k + 1`.
    ///
    /// # Safety
    /// `panel` must be a panel of at least `k + values` values, the machine must have AVX2 and F16C.
    unsafe fn pair(panel: *const u8, k: usize, values: usize) -> [[__m256; 2]; 2];
}

struct F32;
impl Weights for F32 {
    #[inline(always)]
    unsafe fn pair(panel: *const u8, k: usize, values: usize) -> [[__m256; 2]; 2] {
        // SAFETY: a vector of 64 bytes per value; the last is read twice if there is no other.
        unsafe {
            let at = panel.add(64 * k).cast::<f32>();
            let next = at.add(16 * (values - 1));
            [
                [_mm256_loadu_ps(at), _mm256_loadu_ps(at.add(8))],
                [_mm256_loadu_ps(next), _mm256_loadu_ps(next.add(8))],
            ]
        }
    }
}

struct F16;
impl Weights for F16 {
    #[inline(always)]
    unsafe fn pair(panel: *const u8, k: usize, values: usize) -> [[__m256; 2]; 2] {
        // SAFETY: a vector of 32 bytes per value; the last is read twice if there is no other.
        unsafe {
            let at = panel.add(32 * k).cast::<__m128i>();
            let next = at.add(2 * (values - 1));
            let float = |at| _mm256_cvtph_ps(_mm_loadu_si128(at));
            [
                [float(at), float(at.add(1))],
                [float(next), float(next.add(1))],
            ]
        }
    }
}

struct Bf16;
impl Weights for Bf16 {
    #[inline(always)]
    unsafe fn pair(panel: *const u8, k: usize, _: usize) -> [[__m256; 2]; 2] {
        // SAFETY: a vector of 64 bytes per two values, whole even when the last is filling.
        unsafe {
            let at = panel.add(32 * k).cast::<__m256i>();
            let both = [_mm256_loadu_si256(at), _mm256_loadu_si256(at.add(1))];
            // The even value is the lower half, the odd one the upper.
            let even = |v| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(v));
            let keep = _mm256_set1_epi32(0xFFFF_0000u32.cast_signed());
            let odd = |v| _mm256_castsi256_ps(_mm256_and_si256(v, keep));
            [[even(both[0]), even(both[1])], [odd(both[0]), odd(both[1])]]
        }
    }
}
