//! Q4_K, Q5_K and Q6_K in 512 bits.

use std::arch::x86_64::*;

use super::super::product::{ActRows, Lanes};
use super::Tile;
use super::vector::{
    high_halves, load, load_floats, load_lanes, low_halves, splat, splat_float, store,
    store_floats, store_lanes,
};
use crate::acts::{SCALE_AT, SUMS16_AT, SUMS32_AT, Step};

/// The vectors of one record.
fn vectors<const N: usize>(record: &[u8]) -> &[[u8; 64]; N] {
    record
        .as_chunks()
        .0
        .first_chunk()
        .expect("a whole record of its type")
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn unpack_q4(record: &[u8], tile: &mut Tile) {
    let w = vectors::<36>(record);
    scales(&w[..4], tile);
    let nibble = _mm512_set1_epi8(0x0F);
    for (raw, i) in w[4..].iter().zip(0..32) {
        let raw = load(raw);
        let v = 16 * (i / 8) + i % 8;
        store(&mut tile.q[v], _mm512_and_si512(raw, nibble));
        let high = _mm512_srli_epi16::<4>(raw);
        store(&mut tile.q[v + 8], _mm512_and_si512(high, nibble));
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn unpack_q5(record: &[u8], tile: &mut Tile) {
    let w = vectors::<44>(record);
    scales(&w[..4], tile);
    let nibble = _mm512_set1_epi8(0x0F);
    let fifth = _mm512_set1_epi8(0x10);
    for p in 0..4 {
        for l in 0..8 {
            let raw = load(&w[12 + 8 * p + l]);
            // Bits 2p and 2p + 1 to bit 4; what crosses into a neighbouring byte is masked off.
            let bits = load(&w[4 + l]);
            let bits = _mm512_rolv_epi32(bits, _mm512_set1_epi32(4 - 2 * p as i32));
            let low = _mm512_and_si512(raw, nibble);
            let low = _mm512_ternarylogic_epi32::<0xF8>(low, bits, fifth);
            store(&mut tile.q[16 * p + l], low);
            let bits = _mm512_ror_epi32::<1>(bits);
            let high = _mm512_and_si512(_mm512_srli_epi16::<4>(raw), nibble);
            let high = _mm512_ternarylogic_epi32::<0xF8>(high, bits, fifth);
            store(&mut tile.q[16 * p + 8 + l], high);
        }
    }
}

/// Scales and minima of Q4_K and Q5_K from the four words before the quants.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn scales(w: &[[u8; 64]], tile: &mut Tile) {
    let (d, a, b, c) = (load(&w[0]), load(&w[1]), load(&w[2]), load(&w[3]));
    store_floats(&mut tile.d[0], low_halves(d));
    store_floats(&mut tile.m[0], high_halves(d));
    let (six, four, two) = (
        _mm512_set1_epi8(0x3F),
        _mm512_set1_epi8(0x0F),
        _mm512_set1_epi8(0x30),
    );
    // Bytes 0..4 of a lane: sub-blocks 0..4 or 4..8, as `k_scale_min` has it.
    let scales = [
        _mm512_and_si512(a, six),
        _mm512_or_si512(
            _mm512_and_si512(c, four),
            _mm512_and_si512(_mm512_srli_epi16::<2>(a), two),
        ),
    ];
    let mins = [
        _mm512_and_si512(b, six),
        _mm512_or_si512(
            _mm512_and_si512(_mm512_srli_epi16::<4>(c), four),
            _mm512_and_si512(_mm512_srli_epi16::<2>(b), two),
        ),
    ];
    let byte = _mm512_set1_epi32(0xFF);
    for (h, (scales, mins)) in scales.into_iter().zip(mins).enumerate() {
        let tile_scales = &mut tile.scale[4 * h..4 * h + 4];
        store_lanes(&mut tile_scales[0], _mm512_and_si512(scales, byte));
        let s = _mm512_srli_epi32::<8>(scales);
        store_lanes(&mut tile_scales[1], _mm512_and_si512(s, byte));
        let s = _mm512_srli_epi32::<16>(scales);
        store_lanes(&mut tile_scales[2], _mm512_and_si512(s, byte));
        store_lanes(&mut tile_scales[3], _mm512_srli_epi32::<24>(scales));
        // Bytes 0, 1 and 2, 3 of each lane, widened to 16 bits.
        let lower = _mm512_shuffle_epi8(mins, in_lanes([0, -1, 1, -1]));
        let upper = _mm512_shuffle_epi8(mins, in_lanes([2, -1, 3, -1]));
        store_lanes(&mut tile.pairs[2 * h], lower);
        store_lanes(&mut tile.pairs[2 * h + 1], upper);
    }
}

/// A byte shuffle that does the same in every 4-byte lane; -1 gives zero.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn in_lanes(bytes: [i8; 4]) -> __m512i {
    let quad: [i8; 16] = std::array::from_fn(|i| {
        let b = bytes[i % 4];
        if b < 0 { b } else { b + (i / 4 * 4) as i8 }
    });
    let quad = i128::from_le_bytes(quad.map(i8::cast_unsigned));
    let (low, high) = (quad as i64, (quad >> 64) as i64);
    _mm512_broadcast_i32x4(_mm_set_epi64x(high, low))
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn unpack_q6(record: &[u8], tile: &mut Tile) {
    let w = vectors::<53>(record);
    scales_q6(w, tile);
    for half in 0..2 {
        for l in 0..8 {
            let q = runs_q6(w, half, l);
            for r in 0..4 {
                store(&mut tile.q[32 * half + 8 * r + l], q[r]);
            }
        }
    }
}

/// Vector `l` of each of the four runs of 32 values in a half.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn runs_q6(w: &[[u8; 64]; 53], half: usize, l: usize) -> [__m512i; 4] {
    let nibble = _mm512_set1_epi8(0x0F);
    let upper = _mm512_set1_epi8(0x30);
    let (a, b) = (load(&w[16 * half + l]), load(&w[16 * half + 8 + l]));
    let bits = load(&w[32 + 8 * half + l]);
    let low = [
        _mm512_and_si512(a, nibble),
        _mm512_and_si512(b, nibble),
        _mm512_and_si512(_mm512_srli_epi16::<4>(a), nibble),
        _mm512_and_si512(_mm512_srli_epi16::<4>(b), nibble),
    ];
    // Bits 2r and 2r + 1 to bits 4 and 5; what crosses into a neighbouring byte is masked off.
    [
        _mm512_ternarylogic_epi32::<0xF8>(low[0], _mm512_slli_epi16::<4>(bits), upper),
        _mm512_ternarylogic_epi32::<0xF8>(low[1], _mm512_slli_epi16::<2>(bits), upper),
        _mm512_ternarylogic_epi32::<0xF8>(low[2], bits, upper),
        _mm512_ternarylogic_epi32::<0xF8>(low[3], _mm512_srli_epi16::<2>(bits), upper),
    ]
}

/// Scales of Q6_K, and the pairs that take its offset off.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn scales_q6(w: &[[u8; 64]; 53], tile: &mut Tile) {
    for i in 0..4 {
        let s = load(&w[48 + i]);
        let all = [
            _mm512_srai_epi32::<24>(_mm512_slli_epi32::<24>(s)),
            _mm512_srai_epi32::<24>(_mm512_slli_epi32::<16>(s)),
            _mm512_srai_epi32::<24>(_mm512_slli_epi32::<8>(s)),
            _mm512_srai_epi32::<24>(s),
        ];
        for (lanes, s) in tile.scale[4 * i..4 * i + 4].iter_mut().zip(all) {
            store_lanes(lanes, s);
        }
        for p in 0..2 {
            // -32 * scale of two sub-blocks side by side: within 16 bits.
            let low = _mm512_and_si512(all[2 * p], _mm512_set1_epi32(0xFFFF));
            let pair = _mm512_or_si512(low, _mm512_slli_epi32::<16>(all[2 * p + 1]));
            let zero = _mm512_setzero_si512();
            let pair = _mm512_sub_epi16(zero, _mm512_slli_epi16::<5>(pair));
            store_lanes(&mut tile.pairs[2 * i + p], pair);
        }
    }
    store_floats(&mut tile.d[0], low_halves(load(&w[52])));
}

/// Adds a super-block of one to eight rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn rows<const SUBS: usize, const MINS: bool>(
    tile: &Tile,
    x: ActRows<'_>,
    acc: &mut [Lanes<f32>],
) {
    match acc.len() {
        1 => some_rows::<1, SUBS, MINS>(tile, x, acc),
        2 => some_rows::<2, SUBS, MINS>(tile, x, acc),
        3 => some_rows::<3, SUBS, MINS>(tile, x, acc),
        4 => some_rows::<4, SUBS, MINS>(tile, x, acc),
        5 => some_rows::<5, SUBS, MINS>(tile, x, acc),
        6 => some_rows::<6, SUBS, MINS>(tile, x, acc),
        7 => some_rows::<7, SUBS, MINS>(tile, x, acc),
        _ => some_rows::<8, SUBS, MINS>(tile, x, acc),
    }
}

/// `SUBS` sub-blocks with a scale each; with minima, else with an offset in the same place.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn some_rows<const M: usize, const SUBS: usize, const MINS: bool>(
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
    let zero = _mm512_setzero_si512();
    let mut total = [zero; M];
    for j in 0..SUBS {
        let mut dot = [zero; M];
        for v in j * (64 / SUBS)..(j + 1) * (64 / SUBS) {
            let w = load(&tile.q[v]);
            for m in 0..M {
                dot[m] = _mm512_dpbusd_epi32(dot[m], w, splat(&row[m][v]));
            }
        }
        let scale = load_lanes(&tile.scale[j]);
        for m in 0..M {
            total[m] = _mm512_add_epi32(total[m], _mm512_mullo_epi32(dot[m], scale));
        }
    }
    finish::<M, MINS>(tile, &row, &total, acc);
}

/// From the integer totals of rows to their sums.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn finish<const M: usize, const MINS: bool>(
    tile: &Tile,
    rows: &[&Step; M],
    totals: &[__m512i; M],
    acc: &mut [Lanes<f32>; M],
) {
    let (d, dmin) = (load_floats(&tile.d[0]), load_floats(&tile.m[0]));
    for m in 0..M {
        let (x, mut total) = (rows[m], totals[m]);
        let t = if MINS {
            let mut mins = _mm512_setzero_si512();
            for (pair, sums) in tile.pairs.iter().zip(&x[SUMS32_AT..SCALE_AT]) {
                mins = _mm512_dpwssd_epi32(mins, load_lanes(pair), splat(sums));
            }
            let mins = _mm512_mul_ps(dmin, _mm512_cvtepi32_ps(mins));
            _mm512_fmsub_ps(d, _mm512_cvtepi32_ps(total), mins)
        } else {
            for (pair, sums) in tile.pairs.iter().zip(&x[SUMS16_AT..SUMS32_AT]) {
                total = _mm512_dpwssd_epi32(total, load_lanes(pair), splat(sums));
            }
            _mm512_mul_ps(d, _mm512_cvtepi32_ps(total))
        };
        let sum = _mm512_fmadd_ps(t, splat_float(&x[SCALE_AT]), load_floats(&acc[m]));
        store_floats(&mut acc[m], sum);
    }
}

/// Adds a super-block of one row of Q4_K, or Q5_K.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn one_row_q4<const FIVE: bool>(
    record: &[u8],
    tile: &mut Tile,
    x: &Step,
    acc: &mut Lanes<f32>,
) {
    let (head, w) = record
        .as_chunks::<64>()
        .0
        .split_at(if FIVE { 12 } else { 4 });
    scales(&head[..4], tile);
    let w: &[[u8; 64]; 32] = w.first_chunk().expect("a whole record of its type");
    let nibble = _mm512_set1_epi8(0x0F);
    let fifth = _mm512_set1_epi8(0x10);
    let mut total = _mm512_setzero_si512();
    for p in 0..4 {
        let mut dots = [_mm512_setzero_si512(); 2];
        for l in 0..8 {
            let raw = load(&w[8 * p + l]);
            let mut low = _mm512_and_si512(raw, nibble);
            let mut high = _mm512_and_si512(_mm512_srli_epi16::<4>(raw), nibble);
            if FIVE {
                // Bits 2p and 2p + 1 to bit 4; what crosses into a neighbouring byte is masked off.
                let bits = load(&head[4 + l]);
                let bits = _mm512_rolv_epi32(bits, _mm512_set1_epi32(4 - 2 * p as i32));
                low = _mm512_ternarylogic_epi32::<0xF8>(low, bits, fifth);
                let bits = _mm512_ror_epi32::<1>(bits);
                high = _mm512_ternarylogic_epi32::<0xF8>(high, bits, fifth);
            }
            dots[0] = _mm512_dpbusd_epi32(dots[0], low, splat(&x[16 * p + l]));
            dots[1] = _mm512_dpbusd_epi32(dots[1], high, splat(&x[16 * p + 8 + l]));
        }
        for h in 0..2 {
            let part = _mm512_mullo_epi32(dots[h], load_lanes(&tile.scale[2 * p + h]));
            total = _mm512_add_epi32(total, part);
        }
    }
    finish::<1, true>(tile, &[x], &[total], std::array::from_mut(acc));
}

/// Adds a super-block of one row of Q6_K.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn one_row_q6(record: &[u8], tile: &mut Tile, x: &Step, acc: &mut Lanes<f32>) {
    let w = vectors::<53>(record);
    scales_q6(w, tile);
    let mut total = _mm512_setzero_si512();
    for half in 0..2 {
        for part in 0..2 {
            let mut dots = [_mm512_setzero_si512(); 4];
            for l in 4 * part..4 * part + 4 {
                let q = runs_q6(w, half, l);
                for r in 0..4 {
                    let a = splat(&x[32 * half + 8 * r + l]);
                    dots[r] = _mm512_dpbusd_epi32(dots[r], q[r], a);
                }
            }
            for r in 0..4 {
                let scale = load_lanes(&tile.scale[8 * half + 2 * r + part]);
                total = _mm512_add_epi32(total, _mm512_mullo_epi32(dots[r], scale));
            }
        }
    }
    finish::<1, false>(tile, &[x], &[total], std::array::from_mut(acc));
}
