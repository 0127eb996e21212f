//! F32, F16 and BF16 weights in 512 bits: widened in registers, multiplied and added as `f32`.

use std::arch::x86_64::*;

use super::super::float::{FloatProduct, FloatTile};
use super::super::product::Lanes;
use super::vector::{load_floats, store_floats};
use crate::isa::Avx512;
use crate::quant::Dtype;

impl FloatProduct for Avx512 {
    /// With two panels: 24 accumulators, four vectors of weights, one of activations.
    const ROWS: usize = 12;
    const SIDE: usize = 2;
    const FEW_ROWS: usize = 3;

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
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn some_rows<W: Weights>(
    panels: usize,
    rows: usize,
    tile: &FloatTile,
    acc: &mut [Lanes<f32>],
) {
    macro_rules! pick {
        ($($p:literal: $($m:literal)*;)*) => {
            match (panels, rows) {
                // SAFETY: passed on from the caller.
                $($(($p, $m) => unsafe { tile_rows::<W, $p, $m>(tile, acc) },)*)*
                _ => unreachable!("no tile of {panels} panels and {rows} rows"),
            }
        };
    }
    pick! {
        1: 1 2 3 4 5 6 7 8 9 10 11 12;
        2: 1 2 3 4 5 6 7 8 9 10 11 12;
        4: 1 2 3;
    }
}

/// Adds `from..to` along `k` of `M` rows and `P` panels to `acc`, row-major.
///
/// # Safety
/// See [`FloatProduct::tile`]; the machine must have the features.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn tile_rows<W: Weights, const P: usize, const M: usize>(
    tile: &FloatTile,
    acc: &mut [Lanes<f32>],
) {
    let mut sums = [[_mm512_setzero_ps(); P]; M];
    for m in 0..M {
        for p in 0..P {
            sums[m][p] = load_floats(&acc[m * P + p]);
        }
    }
    let zero = _mm512_setzero_ps();
    let mut k = tile.from;
    while k + 2 <= tile.to {
        let (mut even, mut odd) = ([zero; P], [zero; P]);
        for p in 0..P {
            // SAFETY: `k` is even and `k + 1 < to`, within the panel.
            (even[p], odd[p]) = unsafe { W::pair(tile.w.add(p * tile.panel_bytes), k) };
        }
        for m in 0..M {
            // SAFETY: `k + 1 < to`, within the row.
            let (x0, x1) = unsafe {
                let x = tile.x.add(m * tile.stride + k);
                (*x, *x.add(1))
            };
            for p in 0..P {
                sums[m][p] = _mm512_fmadd_ps(even[p], _mm512_set1_ps(x0), sums[m][p]);
            }
            for p in 0..P {
                sums[m][p] = _mm512_fmadd_ps(odd[p], _mm512_set1_ps(x1), sums[m][p]);
            }
        }
        k += 2;
    }
    if k < tile.to {
        for p in 0..P {
            // SAFETY: `k < to`, within the panel.
            let w = unsafe { W::one(tile.w.add(p * tile.panel_bytes), k) };
            for m in 0..M {
                // SAFETY: `k < to`, within the row.
                let x = unsafe { *tile.x.add(m * tile.stride + k) };
                sums[m][p] = _mm512_fmadd_ps(w, _mm512_set1_ps(x), sums[m][p]);
            }
        }
    }
    for m in 0..M {
        for p in 0..P {
            store_floats(&mut acc[m * P + p], sums[m][p]);
        }
    }
}

/// How sixteen weights become floats.
trait Weights {
    /// Values `k` (even) and `k + 1`.
    ///
    /// # Safety
    /// `panel` must be a panel of more than `k + 1` values, the machine must have AVX-512.
    unsafe fn pair(panel: *const u8, k: usize) -> (__m512, __m512);

    /// Value `k` (even).
    ///
    /// # Safety
    /// `panel` must be a panel of more than `k` values, the machine must have AVX-512.
    unsafe fn one(panel: *const u8, k: usize) -> __m512;
}

struct F32;
impl Weights for F32 {
    #[inline(always)]
    unsafe fn pair(panel: *const u8, k: usize) -> (__m512, __m512) {
        // SAFETY: a vector per value; passed on from the caller.
        unsafe { (Self::one(panel, k), Self::one(panel, k + 1)) }
    }

    #[inline(always)]
    unsafe fn one(panel: *const u8, k: usize) -> __m512 {
        // SAFETY: a vector of 64 bytes per value.
        unsafe { _mm512_loadu_ps(panel.add(64 * k).cast()) }
    }
}

struct F16;
impl Weights for F16 {
    #[inline(always)]
    unsafe fn pair(panel: *const u8, k: usize) -> (__m512, __m512) {
        // SAFETY: passed on from the caller.
        unsafe { (Self::one(panel, k), Self::one(panel, k + 1)) }
    }

    #[inline(always)]
    unsafe fn one(panel: *const u8, k: usize) -> __m512 {
        // SAFETY: a vector of 32 bytes per value.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(panel.add(32 * k).cast())) }
    }
}

struct Bf16;
impl Weights for Bf16 {
    #[inline(always)]
    unsafe fn pair(panel: *const u8, k: usize) -> (__m512, __m512) {
        // SAFETY: a vector of 64 bytes per two values.
        unsafe {
            let both = _mm512_loadu_si512(panel.add(32 * k).cast());
            let odd = _mm512_and_si512(both, _mm512_set1_epi32(0xFFFF_0000u32.cast_signed()));
            (
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(both)),
                _mm512_castsi512_ps(odd),
            )
        }
    }

    #[inline(always)]
    unsafe fn one(panel: *const u8, k: usize) -> __m512 {
        // SAFETY: the last vector is whole even when its odd value is filling.
        unsafe { Self::pair(panel, k).0 }
    }
}
