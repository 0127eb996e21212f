//! Q4_K, Q5_K and Q6_K in 256 bits.

use std::arch::x86_64::*;

use super::super::product::{ActRows, Lanes};
use super::Tile;
use super::vector::{
    fifth, high_halves, load, load_floats, load_pairs, low_halves, nibbles, splat, splat_float,
    store, store_floats, store_pairs,
};
use crate::acts::{SCALE_AT, SUMS16_AT, SUMS32_AT};

/// Q4_K, or Q5_K.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn unpack_q4<const FIVE: bool>(record: &[u8], tile: &mut Tile) {
    let (head, w) = record
        .as_chunks::<64>()
        .0
        .split_at(if FIVE { 12 } else { 4 });
    let w: &[[u8; 64]; 32] = w.first_chunk().expect("a whole record of its type");
    for half in 0..2 {
        scales(&head[..4], half, tile);
        for p in 0..4 {
            for l in 0..8 {
                let (mut low, mut high) = nibbles(load(&w[8 * p + l], half));
                if FIVE {
                    let bits = load(&head[4 + l], half);
                    low = _mm256_or_si256(low, fifth(bits, 2 * p));
                    high = _mm256_or_si256(high, fifth(bits, 2 * p + 1));
                }
                store(&mut tile.q[16 * p + l], half, low);
                store(&mut tile.q[16 * p + 8 + l], half, high);
            }
        }
    }
}

/// Scales and minima of Q4_K and Q5_K from the four words before the quants.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn scales(w: &[[u8; 64]], half: usize, tile: &mut Tile) {
    let d = load(&w[0], half);
    let (a, b, c) = (load(&w[1], half), load(&w[2], half), load(&w[3], half));
    store_floats(&mut tile.d[0], half, low_halves(d));
    store_floats(&mut tile.m[0], half, high_halves(d));
    let (six, two) = (_mm256_set1_epi8(0x3F), _mm256_set1_epi8(0x30));
    let upper = |v| _mm256_and_si256(_mm256_srli_epi16::<2>(v), two);
    let (scale, min) = nibbles(c);
    // Bytes 0..4 of a lane: sub-blocks 0..4 or 4..8, as `k_scale_min` has it.
    let scales = [_mm256_and_si256(a, six), _mm256_or_si256(scale, upper(a))];
    let mins = [_mm256_and_si256(b, six), _mm256_or_si256(min, upper(b))];
    for h in 0..2 {
        for j in 0..4 {
            // The byte widened to 16 bits, twice.
            let both = _mm256_shuffle_epi8(scales[h], in_lanes([j, -1, j, -1]));
            store_pairs(&mut tile.scale[4 * h + j as usize], half, both);
        }
        let lower = _mm256_shuffle_epi8(mins[h], in_lanes([0, -1, 1, -1]));
        store_pairs(&mut tile.pairs[2 * h], half, lower);
        let upper = _mm256_shuffle_epi8(mins[h], in_lanes([2, -1, 3, -1]));
        store_pairs(&mut tile.pairs[2 * h + 1], half, upper);
    }
}

/// A byte shuffle that does the same in every 4-byte lane; -1 gives zero.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn in_lanes(bytes: [i8; 4]) -> __m256i {
    let at = |i: i8| {
        let b = |k: usize| if bytes[k] < 0 { -1 } else { bytes[k] + 4 * i };
        i32::from_le_bytes([b(0), b(1), b(2), b(3)].map(i8::cast_unsigned))
    };
    _mm256_setr_epi32(at(0), at(1), at(2), at(3), at(0), at(1), at(2), at(3))
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn unpack_q6(record: &[u8], tile: &mut Tile) {
    let w: &[[u8; 64]; 53] = record
        .as_chunks()
        .0
        .first_chunk()
        .expect("a whole record of its type");
    let upper = _mm256_set1_epi8(0x30);
    for half in 0..2 {
        // Halves along `k` here; `half` is of the rows.
        for part in 0..2 {
            for l in 0..8 {
                let bits = load(&w[32 + 8 * part + l], half);
                let (a, c) = nibbles(load(&w[16 * part + l], half));
                let (b, d) = nibbles(load(&w[16 * part + 8 + l], half));
                // Bits 2r and 2r + 1 to bits 4 and 5; what crosses into a neighbouring byte is masked.
                let bits = [
                    _mm256_slli_epi16::<4>(bits),
                    _mm256_slli_epi16::<2>(bits),
                    bits,
                    _mm256_srli_epi16::<2>(bits),
                ];
                for (r, low) in [a, b, c, d].into_iter().enumerate() {
                    let q = _mm256_or_si256(low, _mm256_and_si256(bits[r], upper));
                    store(&mut tile.q[32 * part + 8 * r + l], half, q);
                }
            }
        }
        for i in 0..4 {
            let s = load(&w[48 + i], half);
            let all = [
                _mm256_srai_epi32::<24>(_mm256_slli_epi32::<24>(s)),
                _mm256_srai_epi32::<24>(_mm256_slli_epi32::<16>(s)),
                _mm256_srai_epi32::<24>(_mm256_slli_epi32::<8>(s)),
                _mm256_srai_epi32::<24>(s),
            ];
            for j in 0..4 {
                store_pairs(
                    &mut tile.scale[4 * i + j],
                    half,
                    side_by_side(all[j], all[j]),
                );
            }
            for p in 0..2 {
                // -32 * scale of two sub-blocks: within 16 bits.
                let pair = side_by_side(all[2 * p], all[2 * p + 1]);
                let pair = _mm256_sub_epi16(_mm256_setzero_si256(), _mm256_slli_epi16::<5>(pair));
                store_pairs(&mut tile.pairs[2 * i + p], half, pair);
            }
        }
        store_floats(&mut tile.d[0], half, low_halves(load(&w[52], half)));
    }
}

/// The lower 16 bits of each lane of `a`, and above them those of `b`.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn side_by_side(a: __m256i, b: __m256i) -> __m256i {
    let low = _mm256_and_si256(a, _mm256_set1_epi32(0xFFFF));
    _mm256_or_si256(low, _mm256_slli_epi32::<16>(b))
}

/// Adds a super-block of one to four rows; see [`some_rows`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn rows<const SUBS: usize, const FIT: usize, const MINS: bool>(
    tile: &Tile,
    x: ActRows<'_>,
    acc: &mut [Lanes<f32>],
) {
    match acc.len() {
        1 => some_rows::<1, SUBS, FIT, MINS>(tile, x, acc),
        2 => some_rows::<2, SUBS, FIT, MINS>(tile, x, acc),
        3 => some_rows::<3, SUBS, FIT, MINS>(tile, x, acc),
        _ => some_rows::<4, SUBS, FIT, MINS>(tile, x, acc),
    }
}

/// `SUBS` sub-blocks with a scale each; with minima, else with an offset in the same place.
///
/// `FIT` is how many vectors may be added up in 16 bits: with quants of at most 15, 31 or 63 a pair of
/// products is at most 3810, 7874 or 16002, of which 8, 4 or 2 stay below 32768.
#[target_feature(enable = "avx2,fma,f16c")]
fn some_rows<const M: usize, const SUBS: usize, const FIT: usize, const MINS: bool>(
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
        let mut total = [zero; M];
        for g in 0..64 / FIT {
            let mut dot = [zero; M];
            for v in g * FIT..(g + 1) * FIT {
                let w = load(&tile.q[v], half);
                for m in 0..M {
                    let product = _mm256_maddubs_epi16(w, splat(&row[m][v]));
                    dot[m] = _mm256_add_epi16(dot[m], product);
                }
            }
            let scale = load_pairs(&tile.scale[g * FIT * SUBS / 64], half);
            for m in 0..M {
                total[m] = _mm256_add_epi32(total[m], _mm256_madd_epi16(dot[m], scale));
            }
        }
        let (d, dmin) = (load_floats(&tile.d[0], half), load_floats(&tile.m[0], half));
        for m in 0..M {
            let mut rest = if MINS { zero } else { total[m] };
            let sums = if MINS {
                &row[m][SUMS32_AT..SCALE_AT]
            } else {
                &row[m][SUMS16_AT..SUMS32_AT]
            };
            for (pair, sums) in tile.pairs.iter().zip(sums) {
                let part = _mm256_madd_epi16(load_pairs(pair, half), splat(sums));
                rest = _mm256_add_epi32(rest, part);
            }
            let t = if MINS {
                let mins = _mm256_mul_ps(dmin, _mm256_cvtepi32_ps(rest));
                _mm256_fmsub_ps(d, _mm256_cvtepi32_ps(total[m]), mins)
            } else {
                _mm256_mul_ps(d, _mm256_cvtepi32_ps(rest))
            };
            let scale = splat_float(&row[m][SCALE_AT]);
            let sum = _mm256_fmadd_ps(t, scale, load_floats(&acc[m], half));
            store_floats(&mut acc[m], half, sum);
        }
    }
}
