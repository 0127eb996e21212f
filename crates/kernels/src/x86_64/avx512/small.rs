//! Q4_0, Q4_1, Q5_0, Q5_1 and Q8_0 in 512 bits.

use std::arch::x86_64::*;

use super::super::product::{ActRows, Lanes};
use super::Tile;
use super::vector::{high_halves, load, load_floats, low_halves, splat, store, store_floats};
use crate::panel::VECTOR_BYTES;

/// Unpacks up to four records of four- or five-bit quants.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn unpack_nibbles<const FIVE: bool, const MINS: bool>(records: &[u8], tile: &mut Tile) {
    let words = 9 + 2 * usize::from(FIVE) + usize::from(MINS);
    let nibble = _mm512_set1_epi8(0x0F);
    let fifth = _mm512_set1_epi8(0x10);
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
                let raw = load(&w[4 * b + l]);
                let mut low = _mm512_and_si512(raw, nibble);
                let mut high = _mm512_and_si512(_mm512_srli_epi16::<4>(raw), nibble);
                if FIVE {
                    // Bit `l` belongs to the low nibbles, bit `l + 4` to the high ones.
                    let bits = load(&w[8 + b]);
                    let up = _mm512_rolv_epi32(bits, _mm512_set1_epi32(4 - l as i32));
                    low = _mm512_ternarylogic_epi32::<0xF8>(low, up, fifth);
                    let down = _mm512_srlv_epi32(bits, _mm512_set1_epi32(l as i32));
                    high = _mm512_ternarylogic_epi32::<0xF8>(high, down, fifth);
                }
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

/// Adds step `step` of one to eight rows; quants have an offset of `1 << SHIFT`, or minima.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn rows<const MINS: bool, const SHIFT: u32>(
    tile: &Tile,
    x: ActRows<'_>,
    step: usize,
    acc: &mut [Lanes<f32>],
) {
    match acc.len() {
        1 => some_rows::<1, MINS, SHIFT>(tile, x, step, acc),
        2 => some_rows::<2, MINS, SHIFT>(tile, x, step, acc),
        3 => some_rows::<3, MINS, SHIFT>(tile, x, step, acc),
        4 => some_rows::<4, MINS, SHIFT>(tile, x, step, acc),
        5 => some_rows::<5, MINS, SHIFT>(tile, x, step, acc),
        6 => some_rows::<6, MINS, SHIFT>(tile, x, step, acc),
        7 => some_rows::<7, MINS, SHIFT>(tile, x, step, acc),
        _ => some_rows::<8, MINS, SHIFT>(tile, x, step, acc),
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn some_rows<const M: usize, const MINS: bool, const SHIFT: u32>(
    tile: &Tile,
    x: ActRows<'_>,
    step: usize,
    acc: &mut [Lanes<f32>],
) {
    let acc: &mut [Lanes<f32>; M] = acc.first_chunk_mut().expect("one accumulator per row");
    let mut sums = [_mm512_setzero_ps(); M];
    for m in 0..M {
        sums[m] = load_floats(&acc[m]);
    }
    for b in 0..tile.blocks.min(8) {
        let block = 8 * step + b;
        let a: [&[[u8; 4]; 8]; M] = std::array::from_fn(|m| x.quants(m, 32 * block));
        let mut dot = [_mm512_setzero_si512(); M];
        if !MINS {
            for m in 0..M {
                let sum = _mm512_set1_epi32(x.block_sum(m, block));
                let offset = _mm512_slli_epi32::<SHIFT>(sum);
                dot[m] = _mm512_sub_epi32(dot[m], offset);
            }
        }
        for v in 0..8 {
            let w = load(&tile.q[8 * b + v]);
            for m in 0..M {
                dot[m] = _mm512_dpbusd_epi32(dot[m], w, splat(&a[m][v]));
            }
        }
        let (d, min) = (load_floats(&tile.d[b]), load_floats(&tile.m[b]));
        for m in 0..M {
            let dot = _mm512_cvtepi32_ps(dot[m]);
            let t = if MINS {
                let sum = _mm512_set1_ps(x.block_sum(m, block) as f32);
                _mm512_fmadd_ps(d, dot, _mm512_mul_ps(min, sum))
            } else {
                _mm512_mul_ps(d, dot)
            };
            sums[m] = _mm512_fmadd_ps(t, _mm512_set1_ps(x.scale(m, block)), sums[m]);
        }
    }
    for m in 0..M {
        store_floats(&mut acc[m], sums[m]);
    }
}
