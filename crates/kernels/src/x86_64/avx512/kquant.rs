//! Q4_K, Q5_K and Q6_K in 512 bits.

use std::arch::x86_64::*;

use super::super::product::{ActRows, Lanes};
use super::Tile;
use super::vector::{
    high_halves, load, load_floats, load_lanes, low_halves, splat, store, store_floats, store_lanes,
};

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
    for l in 0..8 {
        let mut bits = load(&w[4 + l]);
        // Bit 0 to bit 4; then bit after bit. What crosses into a neighbouring byte is masked off.
        bits = _mm512_rol_epi32::<4>(bits);
        for p in 0..4 {
            let raw = load(&w[12 + 8 * p + l]);
            let low = _mm512_and_si512(raw, nibble);
            // low | (bits & fifth)
            let low = _mm512_ternarylogic_epi32::<0xF8>(low, bits, fifth);
            store(&mut tile.q[16 * p + l], low);
            bits = _mm512_ror_epi32::<1>(bits);
            let high = _mm512_and_si512(_mm512_srli_epi16::<4>(raw), nibble);
            let high = _mm512_ternarylogic_epi32::<0xF8>(high, bits, fifth);
            store(&mut tile.q[16 * p + 8 + l], high);
            bits = _mm512_ror_epi32::<1>(bits);
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
    let nibble = _mm512_set1_epi8(0x0F);
    let upper = _mm512_set1_epi8(0x30);
    for half in 0..2 {
        for l in 0..8 {
            let bits = load(&w[32 + 8 * half + l]);
            let (a, b) = (load(&w[16 * half + l]), load(&w[16 * half + 8 + l]));
            let q = &mut tile.q[32 * half..32 * half + 32];
            // low | (bits & upper)
            let low = _mm512_and_si512(a, nibble);
            let high = _mm512_slli_epi16::<4>(bits);
            store(
                &mut q[l],
                _mm512_ternarylogic_epi32::<0xF8>(low, high, upper),
            );
            let low = _mm512_and_si512(b, nibble);
            let high = _mm512_slli_epi16::<2>(bits);
            store(
                &mut q[8 + l],
                _mm512_ternarylogic_epi32::<0xF8>(low, high, upper),
            );
            let low = _mm512_and_si512(_mm512_srli_epi16::<4>(a), nibble);
            store(
                &mut q[16 + l],
                _mm512_ternarylogic_epi32::<0xF8>(low, bits, upper),
            );
            let low = _mm512_and_si512(_mm512_srli_epi16::<4>(b), nibble);
            let high = _mm512_srli_epi16::<2>(bits);
            store(
                &mut q[24 + l],
                _mm512_ternarylogic_epi32::<0xF8>(low, high, upper),
            );
        }
    }
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

/// Adds super-block `block` of one to eight rows.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) fn rows<const SUBS: usize, const MINS: bool>(
    tile: &Tile,
    x: ActRows<'_>,
    block: usize,
    acc: &mut [Lanes<f32>],
) {
    match acc.len() {
        1 => some_rows::<1, SUBS, MINS>(tile, x, block, acc),
        2 => some_rows::<2, SUBS, MINS>(tile, x, block, acc),
        3 => some_rows::<3, SUBS, MINS>(tile, x, block, acc),
        4 => some_rows::<4, SUBS, MINS>(tile, x, block, acc),
        5 => some_rows::<5, SUBS, MINS>(tile, x, block, acc),
        6 => some_rows::<6, SUBS, MINS>(tile, x, block, acc),
        7 => some_rows::<7, SUBS, MINS>(tile, x, block, acc),
        _ => some_rows::<8, SUBS, MINS>(tile, x, block, acc),
    }
}

/// `SUBS` sub-blocks with a scale each; with minima, else with an offset in the same place.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn some_rows<const M: usize, const SUBS: usize, const MINS: bool>(
    tile: &Tile,
    x: ActRows<'_>,
    block: usize,
    acc: &mut [Lanes<f32>],
) {
    let acc: &mut [Lanes<f32>; M] = acc.first_chunk_mut().expect("one accumulator per row");
    let a: [&[[u8; 4]; 64]; M] = std::array::from_fn(|m| x.quants(m, 256 * block));
    let zero = _mm512_setzero_si512();
    let mut total = [zero; M];
    for j in 0..SUBS {
        let mut dot = [zero; M];
        for v in j * (64 / SUBS)..(j + 1) * (64 / SUBS) {
            let w = load(&tile.q[v]);
            for m in 0..M {
                dot[m] = _mm512_dpbusd_epi32(dot[m], w, splat(&a[m][v]));
            }
        }
        let scale = load_lanes(&tile.scale[j]);
        for m in 0..M {
            total[m] = _mm512_add_epi32(total[m], _mm512_mullo_epi32(dot[m], scale));
        }
    }
    let d = load_floats(&tile.d[0]);
    let dmin = load_floats(&tile.m[0]);
    for m in 0..M {
        let t = if MINS {
            let mut mins = zero;
            for (pair, sums) in tile.pairs.iter().zip(x.sums32(m, block)) {
                mins = _mm512_dpwssd_epi32(mins, load_lanes(pair), splat(sums));
            }
            let mins = _mm512_mul_ps(dmin, _mm512_cvtepi32_ps(mins));
            _mm512_fmsub_ps(d, _mm512_cvtepi32_ps(total[m]), mins)
        } else {
            let mut total = total[m];
            for (pair, sums) in tile.pairs.iter().zip(x.sums16(m, block)) {
                total = _mm512_dpwssd_epi32(total, load_lanes(pair), splat(sums));
            }
            _mm512_mul_ps(d, _mm512_cvtepi32_ps(total))
        };
        let scale = _mm512_set1_ps(x.scale(m, block));
        let sum = _mm512_fmadd_ps(t, scale, load_floats(&acc[m]));
        store_floats(&mut acc[m], sum);
    }
}
