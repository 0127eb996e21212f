//! Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 in 256 bits.

use std::arch::x86_64::*;

use super::super::product::{ActRows, Lanes};
use super::Tile;
use super::vector::{
    fifth, high_halves, load, load_floats, low_halves, nibbles, splat, splat_float, store,
    store_floats, widen,
};
use crate::acts::{BLOCK_SCALES_AT, BLOCK_SUMS_AT};
use crate::panel::VECTOR_BYTES;

/// Unpacks up to four records of four- or five-bit quants.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn unpack_nibbles<const FIVE: bool, const MINS: bool>(records: &[u8], tile: &mut Tile) {
    let words = 9 + 2 * usize::from(FIVE) + usize::from(MINS);
    let records = records.chunks_exact(words * VECTOR_BYTES);
    tile.blocks = 2 * records.len();
    for (i, record) in records.enumerate().take(4) {
        let w = record.as_chunks::<VECTOR_BYTES>().0;
        for half in 0..2 {
            for b in 0..2 {
                let q = &mut tile.q[16 * i + 8 * b..][..8];
                for l in 0..4 {
                    let (mut low, mut high) = nibbles(load(&w[4 * b + l], half));
                    if FIVE {
                        // Bit `l` belongs to the low nibbles, bit `l + 4` to the high ones.
                        let bits = load(&w[8 + b], half);
                        low = _mm256_or_si256(low, fifth(bits, l));
                        high = _mm256_or_si256(high, fifth(bits, l + 4));
                    }
                    store(&mut q[l], half, low);
                    store(&mut q[l + 4], half, high);
                }
            }
            let d = load(&w[8 + 2 * usize::from(FIVE)], half);
            store_floats(&mut tile.d[2 * i], half, low_halves(d));
            store_floats(&mut tile.d[2 * i + 1], half, high_halves(d));
            if MINS {
                let m = load(&w[words - 1], half);
                store_floats(&mut tile.m[2 * i], half, low_halves(m));
                store_floats(&mut tile.m[2 * i + 1], half, high_halves(m));
            }
        }
    }
}

/// Unpacks up to four records of bytes, and makes them signed again.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn unpack_q8(records: &[u8], tile: &mut Tile) {
    let records = records.chunks_exact(17 * VECTOR_BYTES);
    tile.blocks = 2 * records.len();
    let sign = _mm256_set1_epi8(i8::MIN);
    for (i, record) in records.enumerate().take(4) {
        let w = record.as_chunks::<VECTOR_BYTES>().0;
        for half in 0..2 {
            for (q, w) in tile.q[16 * i..16 * i + 16].iter_mut().zip(w) {
                store(q, half, _mm256_xor_si256(load(w, half), sign));
            }
            let d = load(&w[16], half);
            store_floats(&mut tile.d[2 * i], half, low_halves(d));
            store_floats(&mut tile.d[2 * i + 1], half, high_halves(d));
        }
    }
}

/// Adds the step of one to four rows of nibbles; see [`some_rows`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn rows<const FIT: usize, const MINS: bool, const SHIFT: i32>(
    tile: &Tile,
    x: ActRows<'_>,
    acc: &mut [Lanes<f32>],
) {
    match acc.len() {
        1 => some_rows::<1, FIT, MINS, SHIFT, false>(tile, x, acc),
        2 => some_rows::<2, FIT, MINS, SHIFT, false>(tile, x, acc),
        3 => some_rows::<3, FIT, MINS, SHIFT, false>(tile, x, acc),
        _ => some_rows::<4, FIT, MINS, SHIFT, false>(tile, x, acc),
    }
}

/// Adds the step of one to four rows of Q8_0.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn rows_q8(tile: &Tile, x: ActRows<'_>, acc: &mut [Lanes<f32>]) {
    // No sum fits in 16 bits beside another.
    match acc.len() {
        1 => some_rows::<1, 1, false, 0, true>(tile, x, acc),
        2 => some_rows::<2, 1, false, 0, true>(tile, x, acc),
        3 => some_rows::<3, 1, false, 0, true>(tile, x, acc),
        _ => some_rows::<4, 1, false, 0, true>(tile, x, acc),
    }
}

/// Quants have an offset of `1 << SHIFT` (none for zero), or minima.
///
/// `FIT` is how many vectors may be added up in 16 bits: with quants of at most 15 or 31 a pair of
/// products is at most 3810 or 7874, of which 8 or 4 stay below 32768. With signed quants the
/// quant gives its sign to the activation, and a pair of products is at most 2 * 128 * 127 = 32512.
#[target_feature(enable = "avx2,fma,f16c")]
fn some_rows<
    const M: usize,
    const FIT: usize,
    const MINS: bool,
    const SHIFT: i32,
    const SIGNED: bool,
>(
    tile: &Tile,
    x: ActRows<'_>,
    acc: &mut [Lanes<f32>],
) {
    let acc: &mut [Lanes<f32>; M] = acc.first_chunk_mut().expect("one accumulator per row");
    // Closures would not be inlined: they have features that `array::from_fn` has not.
    let mut row = [x.row(0); M];
    for m in 1..M {
        row[m] = x.row(m);
    }
    let zero = _mm256_setzero_si256();
    for half in 0..2 {
        let mut sums = [load_floats(&acc[0], half); M];
        for m in 1..M {
            sums[m] = load_floats(&acc[m], half);
        }
        for b in 0..tile.blocks.min(8) {
            let mut dot = [zero; M];
            if SHIFT > 0 {
                for m in 0..M {
                    let sum = splat(&row[m][BLOCK_SUMS_AT + b]);
                    dot[m] = _mm256_sub_epi32(zero, _mm256_slli_epi32::<SHIFT>(sum));
                }
            }
            if SIGNED {
                for v in 8 * b..8 * b + 8 {
                    let w = load(&tile.q[v], half);
                    let size = _mm256_abs_epi8(w);
                    for m in 0..M {
                        let a = _mm256_sign_epi8(splat(&row[m][v]), w);
                        let product = _mm256_maddubs_epi16(size, a);
                        dot[m] = _mm256_add_epi32(dot[m], widen(product));
                    }
                }
            } else {
                for g in 0..8 / FIT {
                    let mut part = [zero; M];
                    for v in 8 * b + g * FIT..8 * b + (g + 1) * FIT {
                        let w = load(&tile.q[v], half);
                        for m in 0..M {
                            let product = _mm256_maddubs_epi16(w, splat(&row[m][v]));
                            part[m] = _mm256_add_epi16(part[m], product);
                        }
                    }
                    for m in 0..M {
                        dot[m] = _mm256_add_epi32(dot[m], widen(part[m]));
                    }
                }
            }
            let (d, min) = (load_floats(&tile.d[b], half), load_floats(&tile.m[b], half));
            for m in 0..M {
                let dot = _mm256_cvtepi32_ps(dot[m]);
                let t = if MINS {
                    let sum = _mm256_cvtepi32_ps(splat(&row[m][BLOCK_SUMS_AT + b]));
                    _mm256_fmadd_ps(d, dot, _mm256_mul_ps(min, sum))
                } else {
                    _mm256_mul_ps(d, dot)
                };
                sums[m] = _mm256_fmadd_ps(t, splat_float(&row[m][BLOCK_SCALES_AT + b]), sums[m]);
            }
        }
        for m in 0..M {
            store_floats(&mut acc[m], half, sums[m]);
        }
    }
}
