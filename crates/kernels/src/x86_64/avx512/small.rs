//! Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 in 512 bits.

use std::arch::x86_64::*;

use super::super::product::{ActRows, Lanes};
use super::Tile;
use super::vector::{
    high_halves, load, load_floats, low_halves, splat, splat_float, store, store_floats,
};
use crate::acts::{BLOCK_SCALES_AT, BLOCK_SUMS_AT, Step};
use crate::panel::VECTOR_BYTES;

/// Unpacks up to four records of four- or five-bit quants.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn unpack_nibbles<const FIVE: bool, const MINS: bool>(records: &[u8], tile: &mut Tile) {
    let words = 9 + 2 * usize::from(FIVE) + usize::from(MINS);
    tile.blocks = 0;
    for (i, record) in records
        .chunks_exact(words * VECTOR_BYTES)
        .enumerate()
        .take(4)
    {
        let w = record.as_chunks::<VECTOR_BYTES>().0;
        for b in 0..2 {
            let q = &mut tile.q[16 * i + 8 * b..][..8];
            for l in 0..4 {
                let (low, high) = nibbles::<FIVE>(w, b, l);
                store(&mut q[l], low);
                store(&mut q[l + 4], high);
            }
        }
        let d = load(&w[8 + 2 * usize::from(FIVE)]);
        store_floats(&mut tile.d[2 * i], low_halves(d));
        store_floats(&mut tile.d[2 * i + 1], high_halves(d));
        if MINS {
            let m = load(&w[9 + 2 * usize::from(FIVE)]);
            store_floats(&mut tile.m[2 * i], low_halves(m));
            store_floats(&mut tile.m[2 * i + 1], high_halves(m));
        }
        tile.blocks += 2;
    }
}

/// Unpacks up to four records of bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn unpack_q8(records: &[u8], tile: &mut Tile) {
    tile.blocks = 0;
    for (i, record) in records.chunks_exact(17 * VECTOR_BYTES).enumerate().take(4) {
        let w = record.as_chunks::<VECTOR_BYTES>().0;
        for (q, w) in tile.q[16 * i..16 * i + 16].iter_mut().zip(w) {
            store(q, load(w));
        }
        let d = load(&w[16]);
        store_floats(&mut tile.d[2 * i], low_halves(d));
        store_floats(&mut tile.d[2 * i + 1], high_halves(d));
        tile.blocks += 2;
    }
}

/// Adds the step of one to eight rows; quants have an offset of `1 << SHIFT`, or minima.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn rows<const MINS: bool, const SHIFT: u32>(
    tile: &Tile,
    x: ActRows<'_>,
    acc: &mut [Lanes<f32>],
) {
    match acc.len() {
        1 => some_rows::<1, MINS, SHIFT>(tile, x, acc),
        2 => some_rows::<2, MINS, SHIFT>(tile, x, acc),
        3 => some_rows::<3, MINS, SHIFT>(tile, x, acc),
        4 => some_rows::<4, MINS, SHIFT>(tile, x, acc),
        5 => some_rows::<5, MINS, SHIFT>(tile, x, acc),
        6 => some_rows::<6, MINS, SHIFT>(tile, x, acc),
        7 => some_rows::<7, MINS, SHIFT>(tile, x, acc),
        _ => some_rows::<8, MINS, SHIFT>(tile, x, acc),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn some_rows<const M: usize, const MINS: bool, const SHIFT: u32>(
    tile: &Tile,
    x: ActRows<'_>,
    acc: &mut [Lanes<f32>],
) {
    let acc: &mut [Lanes<f32>; M] = acc.first_chunk_mut().expect("one accumulator per row");
    // Closures would not be inlined: they have features that `array::from_fn` has not.
    let mut sums = [load_floats(&acc[0]); M];
    let mut row = [x.row(0); M];
    for m in 1..M {
        sums[m] = load_floats(&acc[m]);
        row[m] = x.row(m);
    }
    for b in 0..tile.blocks.min(8) {
        let mut dot = [_mm512_setzero_si512(); M];
        for v in 0..8 {
            let w = load(&tile.q[8 * b + v]);
            for m in 0..M {
                dot[m] = _mm512_dpbusd_epi32(dot[m], w, splat(&row[m][8 * b + v]));
            }
        }
        let (d, min) = (load_floats(&tile.d[b]), load_floats(&tile.m[b]));
        for m in 0..M {
            let sum = splat(&row[m][BLOCK_SUMS_AT + b]);
            let t = if MINS {
                let sum = _mm512_cvtepi32_ps(sum);
                _mm512_fmadd_ps(d, _mm512_cvtepi32_ps(dot[m]), _mm512_mul_ps(min, sum))
            } else {
                let dot = _mm512_sub_epi32(dot[m], _mm512_slli_epi32::<SHIFT>(sum));
                _mm512_mul_ps(d, _mm512_cvtepi32_ps(dot))
            };
            sums[m] = _mm512_fmadd_ps(t, splat_float(&row[m][BLOCK_SCALES_AT + b]), sums[m]);
        }
    }
    for m in 0..M {
        store_floats(&mut acc[m], sums[m]);
    }
}

/// Vectors `l` and `l + 4` of block `b` of a record.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn nibbles<const FIVE: bool>(w: &[[u8; 64]], b: usize, l: usize) -> (__m512i, __m512i) {
    let nibble = _mm512_set1_epi8(0x0F);
    let raw = load(&w[4 * b + l]);
    let mut low = _mm512_and_si512(raw, nibble);
    let mut high = _mm512_and_si512(_mm512_srli_epi16::<4>(raw), nibble);
    if FIVE {
        // Bit `l` belongs to the low nibbles, bit `l + 4` to the high ones.
        let fifth = _mm512_set1_epi8(0x10);
        let bits = load(&w[8 + b]);
        let up = _mm512_rolv_epi32(bits, _mm512_set1_epi32(4 - l as i32));
        low = _mm512_ternarylogic_epi32::<0xF8>(low, up, fifth);
        let down = _mm512_srlv_epi32(bits, _mm512_set1_epi32(l as i32));
        high = _mm512_ternarylogic_epi32::<0xF8>(high, down, fifth);
    }
    (low, high)
}

/// Adds the step of one row of four- or five-bit quants.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn one_row_nibbles<const FIVE: bool, const MINS: bool>(
    records: &[u8],
    x: &Step,
    acc: &mut Lanes<f32>,
) {
    let words = 9 + 2 * usize::from(FIVE) + usize::from(MINS);
    let mut total = load_floats(acc);
    for (i, record) in records
        .chunks_exact(words * VECTOR_BYTES)
        .enumerate()
        .take(4)
    {
        let w = record.as_chunks::<VECTOR_BYTES>().0;
        let d = load(&w[8 + 2 * usize::from(FIVE)]);
        let d = [low_halves(d), high_halves(d)];
        let min = load(&w[words - 1]);
        let min = [low_halves(min), high_halves(min)];
        for b in 0..2 {
            let a = &x[8 * (2 * i + b)..][..8];
            let sum = splat(&x[BLOCK_SUMS_AT + 2 * i + b]);
            let mut dots = [_mm512_setzero_si512(); 2];
            if !MINS {
                let offset = if FIVE {
                    _mm512_slli_epi32::<4>(sum)
                } else {
                    _mm512_slli_epi32::<3>(sum)
                };
                dots[0] = _mm512_sub_epi32(dots[0], offset);
            }
            for l in 0..4 {
                let (low, high) = nibbles::<FIVE>(w, b, l);
                dots[0] = _mm512_dpbusd_epi32(dots[0], low, splat(&a[l]));
                dots[1] = _mm512_dpbusd_epi32(dots[1], high, splat(&a[l + 4]));
            }
            let dot = _mm512_cvtepi32_ps(_mm512_add_epi32(dots[0], dots[1]));
            let t = if MINS {
                _mm512_fmadd_ps(d[b], dot, _mm512_mul_ps(min[b], _mm512_cvtepi32_ps(sum)))
            } else {
                _mm512_mul_ps(d[b], dot)
            };
            total = _mm512_fmadd_ps(t, splat_float(&x[BLOCK_SCALES_AT + 2 * i + b]), total);
        }
    }
    store_floats(acc, total);
}

/// Adds the step of one row of bytes.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn one_row_q8(records: &[u8], x: &Step, acc: &mut Lanes<f32>) {
    let mut total = load_floats(acc);
    for (i, record) in records.chunks_exact(17 * VECTOR_BYTES).enumerate().take(4) {
        let w = record.as_chunks::<VECTOR_BYTES>().0;
        let d = load(&w[16]);
        let d = [low_halves(d), high_halves(d)];
        for b in 0..2 {
            let a = &x[8 * (2 * i + b)..][..8];
            let offset = _mm512_slli_epi32::<7>(splat(&x[BLOCK_SUMS_AT + 2 * i + b]));
            let zero = _mm512_setzero_si512();
            let mut dots = [_mm512_sub_epi32(zero, offset), zero];
            for l in 0..4 {
                dots[0] = _mm512_dpbusd_epi32(dots[0], load(&w[8 * b + l]), splat(&a[l]));
                dots[1] = _mm512_dpbusd_epi32(dots[1], load(&w[8 * b + l + 4]), splat(&a[l + 4]));
            }
            let dot = _mm512_cvtepi32_ps(_mm512_add_epi32(dots[0], dots[1]));
            let t = _mm512_mul_ps(d[b], dot);
            total = _mm512_fmadd_ps(t, splat_float(&x[BLOCK_SCALES_AT + 2 * i + b]), total);
        }
    }
    store_floats(acc, total);
}
