//! The stored formats: what a row of weights looks like in a model file, and what numbers it means.
//!
//! The block layouts and the order of operations are those of ggml (`ggml-common.h`,
//! `ggml-quants.c`), so that a row dequantises to the very bits that ggml gives. Blocks are plain bytes
//! with an alignment of one: any row of a file can be viewed as blocks without copying.
#![allow(unsafe_code)]

use bytemuck::{Pod, Zeroable};
use half::{bf16, f16};

/// How a tensor's numbers are stored.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Dtype {
    /// IEEE single precision.
    F32,
    /// IEEE half precision.
    F16,
    /// The upper half of a single.
    BF16,
    /// 32 values: `d * (q - 8)`, q of 4 bits.
    Q4_0,
    /// 32 values: `d * q + m`, q of 4 bits.
    Q4_1,
    /// 32 values: `d * (q - 16)`, q of 5 bits.
    Q5_0,
    /// 32 values: `d * q + m`, q of 5 bits.
    Q5_1,
    /// 32 values: `d * q`, q a signed byte.
    Q8_0,
    /// 256 values in sub-blocks of 32: `d * scale * q - dmin * min`, q of 4 bits.
    Q4K,
    /// 256 values in sub-blocks of 32: `d * scale * q - dmin * min`, q of 5 bits.
    Q5K,
    /// 256 values in sub-blocks of 16: `d * scale * (q - 32)`, q of 6 bits.
    Q6K,
}

/// Values in a block of the `Q4_0` family.
pub const SMALL_BLOCK: usize = 32;
/// Values in a super-block of the K-quants.
pub const SUPER_BLOCK: usize = 256;
/// Bytes that hold the eight scales and eight minima, six bits each, of a Q4_K or Q5_K super-block.
pub const K_SCALE_BYTES: usize = 12;

impl Dtype {
    /// Every stored format.
    pub const ALL: [Dtype; 11] = [
        Dtype::F32,
        Dtype::F16,
        Dtype::BF16,
        Dtype::Q4_0,
        Dtype::Q4_1,
        Dtype::Q5_0,
        Dtype::Q5_1,
        Dtype::Q8_0,
        Dtype::Q4K,
        Dtype::Q5K,
        Dtype::Q6K,
    ];

    /// Values that are stored together; a row is a whole number of blocks.
    pub const fn block_elems(self) -> usize {
        match self {
            Dtype::F32 | Dtype::F16 | Dtype::BF16 => 1,
            Dtype::Q4_0 | Dtype::Q4_1 | Dtype::Q5_0 | Dtype::Q5_1 | Dtype::Q8_0 => SMALL_BLOCK,
            Dtype::Q4K | Dtype::Q5K | Dtype::Q6K => SUPER_BLOCK,
        }
    }

    /// Bytes of one block in a file.
    pub const fn block_bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::F16 | Dtype::BF16 => 2,
            Dtype::Q4_0 => size_of::<BlockQ4_0>(),
            Dtype::Q4_1 => size_of::<BlockQ4_1>(),
            Dtype::Q5_0 => size_of::<BlockQ5_0>(),
            Dtype::Q5_1 => size_of::<BlockQ5_1>(),
            Dtype::Q8_0 => size_of::<BlockQ8_0>(),
            Dtype::Q4K => size_of::<BlockQ4K>(),
            Dtype::Q5K => size_of::<BlockQ5K>(),
            Dtype::Q6K => size_of::<BlockQ6K>(),
        }
    }

    /// Bytes of a row of `k` values in a file; `None` when `k` is not a whole number of blocks, or the
    /// product overflows.
    pub const fn row_bytes(self, k: usize) -> Option<usize> {
        if !k.is_multiple_of(self.block_elems()) {
            return None;
        }
        (k / self.block_elems()).checked_mul(self.block_bytes())
    }

    /// Whether values are plain floats, so that products need no quantised activations.
    pub const fn is_float(self) -> bool {
        matches!(self, Dtype::F32 | Dtype::F16 | Dtype::BF16)
    }

    /// The usual name: `Q4_K`, `BF16`.
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "F32",
            Dtype::F16 => "F16",
            Dtype::BF16 => "BF16",
            Dtype::Q4_0 => "Q4_0",
            Dtype::Q4_1 => "Q4_1",
            Dtype::Q5_0 => "Q5_0",
            Dtype::Q5_1 => "Q5_1",
            Dtype::Q8_0 => "Q8_0",
            Dtype::Q4K => "Q4_K",
            Dtype::Q5K => "Q5_K",
            Dtype::Q6K => "Q6_K",
        }
    }

    /// The number of this format in GGUF files (`enum ggml_type`).
    pub const fn ggml_type(self) -> u32 {
        match self {
            Dtype::F32 => 0,
            Dtype::F16 => 1,
            Dtype::Q4_0 => 2,
            Dtype::Q4_1 => 3,
            Dtype::Q5_0 => 6,
            Dtype::Q5_1 => 7,
            Dtype::Q8_0 => 8,
            Dtype::Q4K => 12,
            Dtype::Q5K => 13,
            Dtype::Q6K => 14,
            Dtype::BF16 => 30,
        }
    }

    /// The format with this number in GGUF files, if it is one of ours.
    pub fn from_ggml_type(number: u32) -> Option<Dtype> {
        Dtype::ALL.into_iter().find(|d| d.ggml_type() == number)
    }

    /// The format of this name, in any case, with or without the underscore of the K-quants.
    pub fn from_name(name: &str) -> Option<Dtype> {
        let same = |d: &Dtype| {
            let plain = |s: &str| s.replace('_', "").to_ascii_uppercase();
            plain(d.name()) == plain(name)
        };
        Dtype::ALL.into_iter().find(same)
    }
}

impl std::fmt::Display for Dtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

/// An IEEE half as it lies in a file: little-endian, at any address.
pub type HalfBytes = [u8; 2];

/// The value of a half in a block.
#[inline]
pub fn half_to_f32(bytes: HalfBytes) -> f32 {
    f16::from_le_bytes(bytes).to_f32()
}

/// 32 values `d * (q - 8)`; the low nibble of `qs[i]` is value `i`, the high one value `i + 16`.
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ4_0 {
    /// Scale.
    pub d: HalfBytes,
    /// Nibbles.
    pub qs: [u8; SMALL_BLOCK / 2],
}

/// 32 values `d * q + m`; nibbles as in [`BlockQ4_0`].
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ4_1 {
    /// Scale.
    pub d: HalfBytes,
    /// Minimum.
    pub m: HalfBytes,
    /// Nibbles.
    pub qs: [u8; SMALL_BLOCK / 2],
}

/// 32 values `d * (q - 16)`; low four bits as in [`BlockQ4_0`], the fifth of value `i` is bit `i` of `qh`.
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ5_0 {
    /// Scale.
    pub d: HalfBytes,
    /// Fifth bits, little-endian.
    pub qh: [u8; 4],
    /// Nibbles.
    pub qs: [u8; SMALL_BLOCK / 2],
}

/// 32 values `d * q + m`; bits as in [`BlockQ5_0`].
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ5_1 {
    /// Scale.
    pub d: HalfBytes,
    /// Minimum.
    pub m: HalfBytes,
    /// Fifth bits, little-endian.
    pub qh: [u8; 4],
    /// Nibbles.
    pub qs: [u8; SMALL_BLOCK / 2],
}

/// 32 values `d * q`.
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ8_0 {
    /// Scale.
    pub d: HalfBytes,
    /// Signed quants.
    pub qs: [i8; SMALL_BLOCK],
}

/// 256 values in eight sub-blocks of 32, `d * scale * q - dmin * min`.
///
/// Sub-blocks `2p` and `2p + 1` are the low and the high nibbles of `qs[32 * p..][..32]`.
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ4K {
    /// Scale of the scales.
    pub d: HalfBytes,
    /// Scale of the minima.
    pub dmin: HalfBytes,
    /// Eight scales and eight minima, six bits each; see [`k_scale_min`].
    pub scales: [u8; K_SCALE_BYTES],
    /// Nibbles.
    pub qs: [u8; SUPER_BLOCK / 2],
}

/// As [`BlockQ4K`] with a fifth bit: that of value `l` of sub-block `j` is bit `j` of `qh[l]`.
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ5K {
    /// Scale of the scales.
    pub d: HalfBytes,
    /// Scale of the minima.
    pub dmin: HalfBytes,
    /// Eight scales and eight minima, six bits each; see [`k_scale_min`].
    pub scales: [u8; K_SCALE_BYTES],
    /// Fifth bits.
    pub qh: [u8; SUPER_BLOCK / 8],
    /// Nibbles.
    pub qs: [u8; SUPER_BLOCK / 2],
}

/// 256 values in sixteen sub-blocks of 16, `d * scale * (q - 32)`; see [`dequantize_row`] for the bits.
#[derive(Copy, Clone, Debug, Pod, Zeroable)]
#[repr(C)]
pub struct BlockQ6K {
    /// Low four bits.
    pub ql: [u8; SUPER_BLOCK / 2],
    /// High two bits.
    pub qh: [u8; SUPER_BLOCK / 4],
    /// Scales of the sub-blocks.
    pub scales: [i8; SUPER_BLOCK / 16],
    /// Scale of the scales.
    pub d: HalfBytes,
}

// The sizes that files have; a padded or reordered struct would read garbage.
const _: () = {
    assert!(size_of::<BlockQ4_0>() == 18 && align_of::<BlockQ4_0>() == 1);
    assert!(size_of::<BlockQ4_1>() == 20 && align_of::<BlockQ4_1>() == 1);
    assert!(size_of::<BlockQ5_0>() == 22 && align_of::<BlockQ5_0>() == 1);
    assert!(size_of::<BlockQ5_1>() == 24 && align_of::<BlockQ5_1>() == 1);
    assert!(size_of::<BlockQ8_0>() == 34 && align_of::<BlockQ8_0>() == 1);
    assert!(size_of::<BlockQ4K>() == 144 && align_of::<BlockQ4K>() == 1);
    assert!(size_of::<BlockQ5K>() == 176 && align_of::<BlockQ5K>() == 1);
    assert!(size_of::<BlockQ6K>() == 210 && align_of::<BlockQ6K>() == 1);
};

/// Scale and minimum of sub-block `j` (0..8) out of the twelve packed bytes of a Q4_K or Q5_K block.
#[inline]
pub fn k_scale_min(j: usize, packed: &[u8; K_SCALE_BYTES]) -> (u8, u8) {
    if j < 4 {
        (packed[j] & 63, packed[j + 4] & 63)
    } else {
        (
            (packed[j + 4] & 0x0F) | ((packed[j - 4] >> 6) << 4),
            (packed[j + 4] >> 4) | ((packed[j] >> 6) << 4),
        )
    }
}

/// Turns one row as it lies in a file into numbers.
///
/// `out` gets `out.len()` values; the arithmetic is ggml's `dequantize_row_*`, without fused steps.
///
/// # Panics
/// When `row` is not exactly [`Dtype::row_bytes`] of `out.len()` long.
#[track_caller]
pub fn dequantize_row(dtype: Dtype, row: &[u8], out: &mut [f32]) {
    assert_eq!(
        Some(row.len()),
        dtype.row_bytes(out.len()),
        "a row of {} values in {dtype}",
        out.len()
    );
    match dtype {
        Dtype::F32 => {
            for (o, b) in out.iter_mut().zip(row.as_chunks::<4>().0) {
                *o = f32::from_le_bytes(*b);
            }
        }
        Dtype::F16 => {
            for (o, b) in out.iter_mut().zip(row.as_chunks::<2>().0) {
                *o = half_to_f32(*b);
            }
        }
        Dtype::BF16 => {
            for (o, b) in out.iter_mut().zip(row.as_chunks::<2>().0) {
                *o = bf16::from_le_bytes(*b).to_f32();
            }
        }
        Dtype::Q4_0 => blocks(row, out, |b: &BlockQ4_0, y: &mut [f32; SMALL_BLOCK]| {
            let d = half_to_f32(b.d);
            for (i, q) in b.qs.iter().enumerate() {
                y[i] = (i32::from(q & 0x0F) - 8) as f32 * d;
                y[i + 16] = (i32::from(q >> 4) - 8) as f32 * d;
            }
        }),
        Dtype::Q4_1 => blocks(row, out, |b: &BlockQ4_1, y: &mut [f32; SMALL_BLOCK]| {
            let (d, m) = (half_to_f32(b.d), half_to_f32(b.m));
            for (i, q) in b.qs.iter().enumerate() {
                y[i] = f32::from(q & 0x0F) * d + m;
                y[i + 16] = f32::from(q >> 4) * d + m;
            }
        }),
        Dtype::Q5_0 => blocks(row, out, |b: &BlockQ5_0, y: &mut [f32; SMALL_BLOCK]| {
            let (d, high) = (half_to_f32(b.d), u32::from_le_bytes(b.qh));
            for (i, q) in b.qs.iter().enumerate() {
                let (lo, hi) = five_bits(*q, high, i);
                y[i] = (i32::from(lo) - 16) as f32 * d;
                y[i + 16] = (i32::from(hi) - 16) as f32 * d;
            }
        }),
        Dtype::Q5_1 => blocks(row, out, |b: &BlockQ5_1, y: &mut [f32; SMALL_BLOCK]| {
            let (d, m) = (half_to_f32(b.d), half_to_f32(b.m));
            let high = u32::from_le_bytes(b.qh);
            for (i, q) in b.qs.iter().enumerate() {
                let (lo, hi) = five_bits(*q, high, i);
                y[i] = f32::from(lo) * d + m;
                y[i + 16] = f32::from(hi) * d + m;
            }
        }),
        Dtype::Q8_0 => blocks(row, out, |b: &BlockQ8_0, y: &mut [f32; SMALL_BLOCK]| {
            let d = half_to_f32(b.d);
            for (y, q) in y.iter_mut().zip(b.qs) {
                *y = f32::from(q) * d;
            }
        }),
        Dtype::Q4K => blocks(row, out, |b: &BlockQ4K, y: &mut [f32; SUPER_BLOCK]| {
            sub_blocks(b.d, b.dmin, &b.scales, y, |j, l| {
                (b.qs[32 * (j / 2) + l] >> (4 * (j % 2))) & 0x0F
            });
        }),
        Dtype::Q5K => blocks(row, out, |b: &BlockQ5K, y: &mut [f32; SUPER_BLOCK]| {
            sub_blocks(b.d, b.dmin, &b.scales, y, |j, l| {
                let low = (b.qs[32 * (j / 2) + l] >> (4 * (j % 2))) & 0x0F;
                low | (((b.qh[l] >> j) & 1) << 4)
            });
        }),
        Dtype::Q6K => blocks(row, out, |b: &BlockQ6K, y: &mut [f32; SUPER_BLOCK]| {
            let d = half_to_f32(b.d);
            for (k, y) in y.iter_mut().enumerate() {
                // Each half of 128 values is four runs of 32: runs 0 and 1 are the low nibbles of the
                // half's 64 bytes, runs 2 and 3 the high ones; run r has bits 2r of the half's qh.
                let (half, run, l) = (k / 128, k % 128 / 32, k % 32);
                let low = (b.ql[64 * half + 32 * (run % 2) + l] >> (4 * (run / 2))) & 0x0F;
                let high = (b.qh[32 * half + l] >> (2 * run)) & 3;
                let q = i32::from(low | (high << 4)) - 32;
                *y = d * f32::from(b.scales[k / 16]) * q as f32;
            }
        }),
    }
}

/// The five-bit quants `i` and `i + 16` of a block whose nibbles `i` are `q`.
#[inline]
fn five_bits(q: u8, high: u32, i: usize) -> (u8, u8) {
    let lo = ((high >> i) & 1) as u8;
    let hi = ((high >> (i + 16)) & 1) as u8;
    ((q & 0x0F) | (lo << 4), (q >> 4) | (hi << 4))
}

/// The eight sub-blocks of a Q4_K or Q5_K block whose quant `l` of sub-block `j` is `quant(j, l)`.
#[inline]
fn sub_blocks(
    d: HalfBytes,
    dmin: HalfBytes,
    scales: &[u8; K_SCALE_BYTES],
    y: &mut [f32; SUPER_BLOCK],
    quant: impl Fn(usize, usize) -> u8,
) {
    let (d, dmin) = (half_to_f32(d), half_to_f32(dmin));
    for (j, y) in y.as_chunks_mut::<32>().0.iter_mut().enumerate() {
        let (scale, min) = k_scale_min(j, scales);
        let (d1, m1) = (d * f32::from(scale), dmin * f32::from(min));
        for (l, y) in y.iter_mut().enumerate() {
            *y = d1 * f32::from(quant(j, l)) - m1;
        }
    }
}

/// Applies `f` block by block; lengths were checked by the caller.
#[inline]
fn blocks<B: Pod, const N: usize>(row: &[u8], out: &mut [f32], f: impl Fn(&B, &mut [f32; N])) {
    let blocks: &[B] = bytemuck::cast_slice(row);
    for (b, y) in blocks.iter().zip(out.as_chunks_mut::<N>().0) {
        f(b, y);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_numbers_lead_back() {
        for d in Dtype::ALL {
            assert_eq!(Dtype::from_ggml_type(d.ggml_type()), Some(d));
            assert_eq!(Dtype::from_name(d.name()), Some(d));
            assert_eq!(
                Dtype::from_name(&d.name().to_lowercase().replace('_', "")),
                Some(d)
            );
        }
        assert_eq!(Dtype::from_ggml_type(9), None);
        assert_eq!(Dtype::from_name("Q3_K"), None);
    }

    #[test]
    fn rows_are_whole_blocks() {
        assert_eq!(Dtype::Q4K.row_bytes(512), Some(288));
        assert_eq!(Dtype::Q4K.row_bytes(384), None);
        assert_eq!(Dtype::Q8_0.row_bytes(64), Some(68));
        assert_eq!(Dtype::BF16.row_bytes(3), Some(6));
        assert_eq!(Dtype::F32.row_bytes(usize::MAX), None);
    }

    #[test]
    fn small_blocks_by_hand() {
        let half = f16::from_f32(0.5).to_le_bytes();
        let mut out = [0.0; 32];

        let mut b = BlockQ4_0::zeroed();
        (b.d, b.qs[1]) = (half, 0xF2);
        dequantize_row(Dtype::Q4_0, bytemuck::bytes_of(&b), &mut out);
        assert_eq!((out[0], out[1], out[17]), (-4.0, -3.0, 3.5));

        let mut b = BlockQ5_1::zeroed();
        (b.d, b.m, b.qs[1]) = (half, f16::from_f32(3.0).to_le_bytes(), 0x21);
        b.qh = (1u32 << 1 | 1 << 31).to_le_bytes();
        dequantize_row(Dtype::Q5_1, bytemuck::bytes_of(&b), &mut out);
        assert_eq!((out[0], out[1], out[17], out[31]), (3.0, 11.5, 4.0, 11.0));
    }

    #[test]
    fn six_bit_scales_are_spread_as_ggml_does() {
        // scale j = 4j + 1, min j = 63 - j, packed by ggml's formula.
        let mut p = [0u8; K_SCALE_BYTES];
        let (scale, min) = (|j: u8| 4 * j + 1, |j: u8| 63 - j);
        for j in 0..4u8 {
            let i = usize::from(j);
            p[i] = scale(j) | (scale(j + 4) >> 4) << 6;
            p[i + 4] = min(j) | (min(j + 4) >> 4) << 6;
            p[i + 8] = scale(j + 4) & 15 | (min(j + 4) & 15) << 4;
        }
        for j in 0..8u8 {
            assert_eq!(k_scale_min(usize::from(j), &p), (scale(j), min(j)));
        }
    }

    #[test]
    fn a_super_block_of_six_bits_by_hand() {
        let mut b = BlockQ6K::zeroed();
        b.d = f16::from_f32(1.0).to_le_bytes();
        b.scales = std::array::from_fn(|i| i as i8 - 8);
        // Value 128 + 64 + 5: half 1, run 2, high nibble of ql[64 + 5], bits 4..6 of qh[32 + 5].
        b.ql[69] = 0xA0;
        b.qh[37] = 0b10_0000;
        let mut out = [0.0; 256];
        dequantize_row(Dtype::Q6K, bytemuck::bytes_of(&b), &mut out);
        assert_eq!(out[197], (12 - 8) as f32 * (0x2A - 32) as f32);
        assert_eq!(out[0], -8.0 * -32.0);
    }
}
