//! From numbers to the stored formats: the inverse of [`crate::quant::dequantize_row`].
//!
//! Each block is fitted on its own for the least squared error: that is the objective that matters
//! when nothing is known of the activations, whose products with the errors then have a variance
//! proportional to it. The fit alternates between the two easy halves of the problem. Given a
//! scale, the best codes are the nearest integers; given codes, the best scale (and offset) is a
//! linear regression. As the first half decides which minimum is found, several scales around the
//! one that just covers the block are tried:
//!
//! ```text
//! for each candidate scale:
//!     codes  = round(x / scale), clamped
//!     scale' = regression of x on codes
//!     keep (scale', codes) if its squared error is the least so far
//! ```
//!
//! ggml's reference quantisers search in the same spirit with other weights; the tests below hold
//! this one to bounds that ggml's meets.
//!
//! Values should be finite and below half precision's 65,504 in magnitude. Others give
//! unspecified numbers, never a panic.

mod k;

use half::{bf16, f16};

use crate::quant::{
    BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockQ8_0, Dtype, HalfBytes, SMALL_BLOCK,
    half_to_f32,
};

/// Stores one row of numbers in a file's layout.
///
/// # Panics
/// When `out` is not exactly [`Dtype::row_bytes`] of `row.len()` long.
#[track_caller]
pub fn quantize_row(dtype: Dtype, row: &[f32], out: &mut [u8]) {
    assert_eq!(
        Some(out.len()),
        dtype.row_bytes(row.len()),
        "room for a row of {} values in {dtype}",
        row.len()
    );
    match dtype {
        Dtype::F32 => {
            for (x, b) in row.iter().zip(out.as_chunks_mut::<4>().0) {
                *b = x.to_le_bytes();
            }
        }
        Dtype::F16 => {
            for (x, b) in row.iter().zip(out.as_chunks_mut::<2>().0) {
                *b = f16::from_f32(*x).to_le_bytes();
            }
        }
        Dtype::BF16 => {
            for (x, b) in row.iter().zip(out.as_chunks_mut::<2>().0) {
                *b = bf16::from_f32(*x).to_le_bytes();
            }
        }
        Dtype::Q4_0 => blocks(row, out, q4_0),
        Dtype::Q4_1 => blocks(row, out, q4_1),
        Dtype::Q5_0 => blocks(row, out, q5_0),
        Dtype::Q5_1 => blocks(row, out, q5_1),
        Dtype::Q8_0 => blocks(row, out, q8_0),
        Dtype::Q4K => blocks(row, out, k::q4_k),
        Dtype::Q5K => blocks(row, out, k::q5_k),
        Dtype::Q6K => blocks(row, out, k::q6_k),
    }
}

/// Runs `quantize` over the blocks of a row.
fn blocks<const N: usize, B: bytemuck::Pod>(
    row: &[f32],
    out: &mut [u8],
    quantize: impl Fn(&[f32; N]) -> B,
) {
    for (x, bytes) in row
        .as_chunks::<N>()
        .0
        .iter()
        .zip(out.chunks_exact_mut(size_of::<B>()))
    {
        bytes.copy_from_slice(bytemuck::bytes_of(&quantize(x)));
    }
}

fn q4_0(x: &[f32; SMALL_BLOCK]) -> BlockQ4_0 {
    let mut codes = [0; SMALL_BLOCK];
    let d = half(fit_scale(x, 8, &mut codes));
    scale_codes(x, half_to_f32(d), 8, &mut codes);
    let unsigned = codes.map(|q| (q + 8) as u8);
    BlockQ4_0 {
        d,
        qs: nibbles(&unsigned),
    }
}

fn q4_1(x: &[f32; SMALL_BLOCK]) -> BlockQ4_1 {
    let (d, m, codes) = affine(x, 15);
    BlockQ4_1 {
        d,
        m,
        qs: nibbles(&codes),
    }
}

fn q5_0(x: &[f32; SMALL_BLOCK]) -> BlockQ5_0 {
    let mut codes = [0; SMALL_BLOCK];
    let d = half(fit_scale(x, 16, &mut codes));
    scale_codes(x, half_to_f32(d), 16, &mut codes);
    let unsigned = codes.map(|q| (q + 16) as u8);
    BlockQ5_0 {
        d,
        qh: fifth_bits(&unsigned),
        qs: nibbles(&unsigned),
    }
}

fn q5_1(x: &[f32; SMALL_BLOCK]) -> BlockQ5_1 {
    let (d, m, codes) = affine(x, 31);
    BlockQ5_1 {
        d,
        m,
        qh: fifth_bits(&codes),
        qs: nibbles(&codes),
    }
}

fn q8_0(x: &[f32; SMALL_BLOCK]) -> BlockQ8_0 {
    // At 8 bits the covering scale is as good as any: the rounding error hardly depends on it.
    let d = half(x.iter().fold(0f32, |most, x| most.max(x.abs())) / 127.0);
    let inverse = inverse(half_to_f32(d));
    BlockQ8_0 {
        d,
        qs: x.map(|x| nearest(x * inverse).clamp(-127, 127) as i8),
    }
}

/// Scale, offset and codes of a block with an offset of any sign.
fn affine(x: &[f32; SMALL_BLOCK], most: u8) -> (HalfBytes, HalfBytes, [u8; SMALL_BLOCK]) {
    let mut codes = [0; SMALL_BLOCK];
    let (d, m) = fit_affine(x, most, Offset::Any, &mut codes);
    let (d, m) = (half(d), half(m));
    affine_codes(x, half_to_f32(d), half_to_f32(m), most, &mut codes);
    (d, m, codes)
}

/// The low four bits of 32 codes: code `i` in the low half of byte `i`, code `i + 16` in the high.
fn nibbles(codes: &[u8; SMALL_BLOCK]) -> [u8; SMALL_BLOCK / 2] {
    std::array::from_fn(|i| (codes[i] & 0x0F) | (codes[i + 16] << 4))
}

/// The fifth bits of 32 codes.
fn fifth_bits(codes: &[u8; SMALL_BLOCK]) -> [u8; 4] {
    let bits = codes
        .iter()
        .enumerate()
        .fold(0, |bits, (i, q)| bits | u32::from(q >> 4 & 1) << i);
    bits.to_le_bytes()
}

/// The nearest integer, for magnitudes below 2^22; anything for others.
///
/// Adding 1.5 * 2^23 leaves no fraction bits, so the sum is rounded and its low bits are the
/// integer. `f32::round` would be a call on processors before SSE 4.1.
#[inline]
fn nearest(x: f32) -> i32 {
    const MAGIC: f32 = 12_582_912.0;
    ((x + MAGIC).to_bits() & 0x007F_FFFF) as i32 - 0x0040_0000
}

/// Half precision, large values saturated.
fn half(x: f32) -> HalfBytes {
    f16::from_f32(x.clamp(-65504.0, 65504.0)).to_le_bytes()
}

/// `1 / x`, or 0 if that is no number to multiply with.
fn inverse(x: f32) -> f32 {
    let inverse = 1.0 / x;
    if inverse.is_finite() { inverse } else { 0.0 }
}

/// Finds the scale, and codes from `-most` to `most - 1`, with the least error of `scale * code`.
fn fit_scale<const N: usize>(x: &[f32; N], most: i32, codes: &mut [i32; N]) -> f32 {
    let extreme = x
        .iter()
        .fold(0f32, |most, x| if x.abs() > most.abs() { *x } else { most });
    codes.fill(0);
    if extreme.abs() <= 1e-30 {
        return 0.0;
    }
    // Codes reach one further below zero than above, so the extreme value takes the lowest.
    // Minimising the error of the best scale is maximising (sum of code * x)^2 / sum of code^2.
    let (mut best, mut best_scale) = (0f32, 0f32);
    for step in -9..=9 {
        let inverse = -(most as f32 + 0.1 * step as f32) / extreme;
        let (mut code_x, mut code_code) = (0f32, 0f32);
        for x in x {
            let code = nearest(x * inverse).clamp(-most, most - 1) as f32;
            code_x += code * x;
            code_code += code * code;
        }
        if code_code > 0.0 && code_x * code_x > best * code_code {
            best = code_x * code_x / code_code;
            best_scale = code_x / code_code;
        }
    }
    scale_codes(x, best_scale, most, codes);
    best_scale
}

/// The codes nearest to the values for a given scale.
fn scale_codes<const N: usize>(x: &[f32; N], scale: f32, most: i32, codes: &mut [i32; N]) {
    let inverse = inverse(scale);
    for (code, x) in codes.iter_mut().zip(x) {
        *code = nearest(x * inverse).clamp(-most, most - 1);
    }
}

/// Which offsets a format can hold.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Offset {
    /// Any.
    Any,
    /// 0 or below (the K-quants subtract a minimum without a sign).
    NotAbove0,
}

/// Finds scale and offset, and codes from 0 to `most`, with the least error of
/// `scale * code + offset`. The scale is 0 or above.
fn fit_affine<const N: usize>(
    x: &[f32; N],
    most: u8,
    offsets: Offset,
    codes: &mut [u8; N],
) -> (f32, f32) {
    let (mut low, mut high) = x
        .iter()
        .fold((f32::MAX, f32::MIN), |(l, h), x| (l.min(*x), h.max(*x)));
    if offsets == Offset::NotAbove0 {
        low = low.min(0.0);
        high = high.max(low);
    }
    codes.fill(0);
    if high - low <= 1e-30 {
        return (0.0, if low.is_finite() { low } else { 0.0 });
    }
    let n = N as f32;
    let sum_x: f32 = x.iter().sum();
    let (mut best, mut best_fit) = (f32::MAX, ((high - low) / f32::from(most), low));
    let mut trial = [0f32; N];
    for step in -6..=12 {
        // From somewhat wider than the block to cutting its ends off.
        let inverse = (f32::from(most) + 0.15 * step as f32) / (high - low);
        let (mut sum_code, mut code_code, mut code_x) = (0f32, 0f32, 0f32);
        for (code, x) in trial.iter_mut().zip(x) {
            *code = nearest((x - low) * inverse).clamp(0, most.into()) as f32;
            sum_code += *code;
            code_code += *code * *code;
            code_x += *code * x;
        }
        let spread = n * code_code - sum_code * sum_code;
        if spread <= 0.0 {
            // All codes are the same: no line through them.
            continue;
        }
        let mut scale = (n * code_x - sum_x * sum_code) / spread;
        let mut offset = (code_code * sum_x - sum_code * code_x) / spread;
        if offsets == Offset::NotAbove0 && offset > 0.0 {
            offset = 0.0;
            scale = code_x / code_code;
        }
        let error: f32 = x
            .iter()
            .zip(&trial)
            .map(|(x, code)| {
                let miss = scale * code + offset - x;
                miss * miss
            })
            .sum();
        if error < best && scale >= 0.0 {
            best = error;
            best_fit = (scale, offset);
        }
    }
    affine_codes(x, best_fit.0, best_fit.1, most, codes);
    best_fit
}

/// The codes nearest to the values for a given scale and offset.
fn affine_codes<const N: usize>(
    x: &[f32; N],
    scale: f32,
    offset: f32,
    most: u8,
    codes: &mut [u8; N],
) {
    let inverse = inverse(scale);
    for (code, x) in codes.iter_mut().zip(x) {
        *code = nearest((x - offset) * inverse).clamp(0, most.into()) as u8;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::quant::dequantize_row;

    const K: usize = 1024;

    /// Uniform in 0..1, the same on every machine.
    fn uniform(state: &mut u64) -> f32 {
        *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = *state;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32
    }

    fn gaussian(state: &mut u64) -> f32 {
        (0..12).map(|_| uniform(state)).sum::<f32>() - 6.0
    }

    /// Gaussian with one value in 64 eight times as large.
    fn heavy(state: &mut u64) -> f32 {
        let x = gaussian(state);
        if uniform(state) < 1.0 / 64.0 {
            8.0 * x
        } else {
            x
        }
    }

    fn round_trip(dtype: Dtype, row: &[f32]) -> Vec<f32> {
        let mut bytes = vec![0; dtype.row_bytes(row.len()).unwrap()];
        quantize_row(dtype, row, &mut bytes);
        let mut back = vec![0.0; row.len()];
        dequantize_row(dtype, &bytes, &mut back);
        back
    }

    /// Root of the mean squared error over that of the values, for 64 rows.
    fn relative_error(dtype: Dtype, draw: fn(&mut u64) -> f32) -> f64 {
        let mut state = 7;
        let (mut error, mut power) = (0f64, 0f64);
        for _ in 0..64 {
            let row: Vec<f32> = (0..K).map(|_| 0.03 * draw(&mut state)).collect();
            for (x, y) in row.iter().zip(round_trip(dtype, &row)) {
                error += f64::from(x - y).powi(2);
                power += f64::from(*x).powi(2);
            }
        }
        (error / power).sqrt()
    }

    /// Bounds are a few percent above what this quantiser reaches, and below what ggml's reaches on
    /// the same distributions for the types without a K (for those the two agree within 1 %).
    #[test]
    fn errors_stay_within_bounds() {
        for (dtype, gauss, tails) in [
            (Dtype::F32, 0.0, 0.0),
            (Dtype::F16, 0.0003, 0.0003),
            (Dtype::BF16, 0.0018, 0.0018),
            (Dtype::Q4_0, 0.082, 0.142),
            (Dtype::Q4_1, 0.071, 0.092),
            (Dtype::Q5_0, 0.0405, 0.072),
            (Dtype::Q5_1, 0.0345, 0.0445),
            (Dtype::Q8_0, 0.0054, 0.0093),
            (Dtype::Q4K, 0.0725, 0.0945),
            (Dtype::Q5K, 0.0364, 0.0475),
            (Dtype::Q6K, 0.0175, 0.0267),
        ] {
            let (g, t) = (
                relative_error(dtype, gaussian),
                relative_error(dtype, heavy),
            );
            assert!(g <= gauss && t <= tails, "{dtype}: {g:.5} and {t:.5}");
        }
    }

    #[test]
    fn special_rows_come_back_closely() {
        let spike = |at: usize, height: f32| {
            let mut row = vec![0.0; 256];
            row[at] = height;
            row
        };
        for dtype in Dtype::ALL {
            for row in [
                vec![0.0; 256],
                vec![1.0; 256],
                vec![-3.5; 256],
                spike(0, 100.0),
                spike(255, -100.0),
                (0..256).map(|i| i as f32).collect(),
                (0..256).map(|i| -(i as f32) / 256.0).collect(),
            ] {
                let largest = row.iter().fold(0f32, |most, x| most.max(x.abs()));
                // One step of the coarsest format, 4 bits over both signs.
                let bound = if dtype == Dtype::F32 {
                    0.0
                } else {
                    largest / 8.0
                };
                for (x, y) in row.iter().zip(round_trip(dtype, &row)) {
                    assert!((x - y).abs() <= bound, "{dtype}: {x} came back as {y}");
                }
            }
            assert!(
                round_trip(dtype, &vec![0.0; 256]).iter().all(|x| *x == 0.0),
                "{dtype}"
            );
        }
    }

    #[test]
    fn values_that_no_format_holds_do_not_panic() {
        for dtype in Dtype::ALL {
            for odd in [
                f32::NAN,
                f32::INFINITY,
                f32::NEG_INFINITY,
                f32::MAX,
                f32::MIN,
                1e-40,
                -0.0,
            ] {
                let mut row = vec![0.5; 256];
                row[3] = odd;
                row[200] = -odd;
                round_trip(dtype, &row);
                round_trip(dtype, &[odd; 256]);
            }
        }
    }

    #[test]
    fn nearest_rounds() {
        for i in -2000..2000 {
            let x = i as f32 / 8.0;
            assert!((nearest(x) as f32 - x).abs() <= 0.5, "{x}");
        }
        assert_eq!(nearest(4_000_000.0), 4_000_000);
        assert_eq!(nearest(-4_000_000.0), -4_000_000);
    }
}
