//! The K-quants: sub-blocks fitted one by one, their scales quantised in turn, then the codes
//! chosen anew for the scales that are really stored.

use super::{Offset, affine_codes, fit_affine, fit_scale, half, inverse, nearest, scale_codes};
use crate::quant::{
    BlockQ4K, BlockQ5K, BlockQ6K, HalfBytes, K_SCALE_BYTES, SUPER_BLOCK, half_to_f32,
};

/// Sub-blocks of Q4_K and Q5_K.
const PARTS: usize = 8;
/// Values in one of them.
const PART: usize = SUPER_BLOCK / PARTS;
/// Sub-blocks of Q6_K.
const FINE_PARTS: usize = 16;
/// Values in one of them.
const FINE_PART: usize = SUPER_BLOCK / FINE_PARTS;
/// Largest of the six-bit scales and minima.
const SIX_BITS: i32 = 63;

pub(super) fn q4_k(x: &[f32; SUPER_BLOCK]) -> BlockQ4K {
    let Fitted {
        d,
        dmin,
        scales,
        codes,
    } = fit(x, 15);
    BlockQ4K {
        d,
        dmin,
        scales,
        qs: nibbles(&codes),
    }
}

pub(super) fn q5_k(x: &[f32; SUPER_BLOCK]) -> BlockQ5K {
    let Fitted {
        d,
        dmin,
        scales,
        codes,
    } = fit(x, 31);
    let mut qh = [0; SUPER_BLOCK / 8];
    for (part, codes) in codes.iter().enumerate() {
        for (bits, code) in qh.iter_mut().zip(codes) {
            *bits |= (code >> 4) << part;
        }
    }
    BlockQ5K {
        d,
        dmin,
        scales,
        qh,
        qs: nibbles(&codes),
    }
}

/// A Q4_K or Q5_K block before its codes are packed.
struct Fitted {
    d: HalfBytes,
    dmin: HalfBytes,
    scales: [u8; K_SCALE_BYTES],
    codes: [[u8; PART]; PARTS],
}

fn fit(x: &[f32; SUPER_BLOCK], most: u8) -> Fitted {
    let parts = x.as_chunks::<PART>().0;
    let mut codes = [[0; PART]; PARTS];
    let (mut scales, mut minima) = ([0f32; PARTS], [0f32; PARTS]);
    for (part, x) in parts.iter().enumerate() {
        let (scale, offset) = fit_affine(x, most, Offset::NotAbove0, &mut codes[part]);
        (scales[part], minima[part]) = (scale, -offset);
    }
    let largest = |values: &[f32; PARTS]| values.iter().fold(0f32, |most, v| most.max(*v));
    let d = half(largest(&scales) / SIX_BITS as f32);
    let dmin = half(largest(&minima) / SIX_BITS as f32);
    let six_bits = |values: [f32; PARTS], unit: HalfBytes| {
        let inverse = inverse(half_to_f32(unit));
        values.map(|v| nearest(v * inverse).clamp(0, SIX_BITS) as u8)
    };
    let (scales, minima) = (six_bits(scales, d), six_bits(minima, dmin));
    for (part, x) in parts.iter().enumerate() {
        let scale = half_to_f32(d) * f32::from(scales[part]);
        let offset = -half_to_f32(dmin) * f32::from(minima[part]);
        affine_codes(x, scale, offset, most, &mut codes[part]);
    }
    Fitted {
        d,
        dmin,
        scales: pack_scales(&scales, &minima),
        codes,
    }
}

/// Packs eight scales and eight minima of six bits; the inverse of [`crate::quant::k_scale_min`].
fn pack_scales(scales: &[u8; PARTS], minima: &[u8; PARTS]) -> [u8; K_SCALE_BYTES] {
    std::array::from_fn(|i| match i {
        // The first four of each, with the upper two bits of the last four.
        0..4 => scales[i] | (scales[i + 4] >> 4) << 6,
        4..8 => minima[i - 4] | (minima[i] >> 4) << 6,
        // The lower four bits of the last four.
        _ => (scales[i - 4] & 0x0F) | (minima[i - 4] & 0x0F) << 4,
    })
}

/// The low four bits: of sub-blocks `2p` and `2p + 1` in the halves of bytes `32 * p..`.
fn nibbles(codes: &[[u8; PART]; PARTS]) -> [u8; SUPER_BLOCK / 2] {
    std::array::from_fn(|i| {
        let (pair, at) = (i / PART, i % PART);
        (codes[2 * pair][at] & 0x0F) | codes[2 * pair + 1][at] << 4
    })
}

pub(super) fn q6_k(x: &[f32; SUPER_BLOCK]) -> BlockQ6K {
    const MOST: i32 = 32;
    let parts = x.as_chunks::<FINE_PART>().0;
    let mut codes = [[0; FINE_PART]; FINE_PARTS];
    let mut fitted = [0f32; FINE_PARTS];
    for (part, x) in parts.iter().enumerate() {
        fitted[part] = fit_scale(x, MOST, &mut codes[part]);
    }
    // Scales have a sign; the extreme one takes -128, the one code that has no opposite.
    let extreme = fitted
        .iter()
        .fold(0f32, |most, s| if s.abs() > most.abs() { *s } else { most });
    let d = half(extreme / -128.0);
    let unit = inverse(half_to_f32(d));
    let scales = fitted.map(|scale| nearest(scale * unit).clamp(-128, 127) as i8);
    let mut ql = [0; SUPER_BLOCK / 2];
    let mut qh = [0; SUPER_BLOCK / 4];
    for (part, x) in parts.iter().enumerate() {
        let scale = half_to_f32(d) * f32::from(scales[part]);
        scale_codes(x, scale, MOST, &mut codes[part]);
        for (i, code) in codes[part].iter().enumerate() {
            let code = (code + MOST) as u8;
            // Each half of 128 values is four runs of 32: runs 0 and 1 take the low nibbles of
            // its 64 bytes, runs 2 and 3 the high ones; run r takes bits 2r of its 32 bytes.
            let at = part * FINE_PART + i;
            let (half, run, lane) = (at / 128, at % 128 / 32, at % 32);
            ql[64 * half + 32 * (run % 2) + lane] |= (code & 0x0F) << (4 * (run / 2));
            qh[32 * half + lane] |= (code >> 4) << (2 * run);
        }
    }
    BlockQ6K { ql, qh, scales, d }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::k_scale_min;

    #[test]
    fn packed_scales_come_back() {
        let scales = [0, 63, 17, 48, 1, 62, 33, 16];
        let minima = [63, 0, 15, 31, 47, 2, 59, 20];
        let packed = pack_scales(&scales, &minima);
        for part in 0..PARTS {
            assert_eq!(k_scale_min(part, &packed), (scales[part], minima[part]));
        }
    }
}
