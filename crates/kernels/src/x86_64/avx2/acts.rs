//! Quantising activations in 256 bits.

use std::arch::x86_64::*;

use crate::acts::{
    ActKind, BLOCK_SCALES_AT, BLOCK_SUMS_AT, SCALE_AT, STEP_WORDS, SUMS16_AT, SUMS32_AT, Step,
    block_scale,
};
use crate::isa::Avx2;

/// One step: 256 values, or what is left of a row.
pub(crate) fn quantize_step(_: Avx2, kind: ActKind, x: &[f32], step: &mut Step) {
    // SAFETY: the token proves that this machine has the features.
    unsafe {
        match kind {
            ActKind::F32 => {}
            ActKind::Q8x32 => by_32(x, step),
            ActKind::Q8x256 => by_256(x, step),
        }
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load(x: &[f32; 8]) -> __m256 {
    // SAFETY: eight readable floats; no alignment needed.
    unsafe { _mm256_loadu_ps(x.as_ptr()) }
}

/// Largest magnitude of whole vectors.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn max_abs(x: &[[f32; 8]]) -> f32 {
    let sign = _mm256_set1_ps(-0.0);
    let mut max = _mm256_setzero_ps();
    for x in x {
        max = _mm256_max_ps(max, _mm256_andnot_ps(sign, load(x)));
    }
    let max = _mm_max_ps(_mm256_castps256_ps128(max), _mm256_extractf128_ps::<1>(max));
    let max = _mm_max_ps(max, _mm_movehl_ps(max, max));
    _mm_cvtss_f32(_mm_max_ss(max, _mm_shuffle_ps::<1>(max, max)))
}

/// Quants `16 * i..` of a step, and their sum.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn quants(x: &[[f32; 8]; 2], inverse: __m256, step: &mut Step, i: usize) -> i32 {
    // The rounding of the control register: nearest, ties to even.
    let low = _mm256_cvtps_epi32(_mm256_mul_ps(load(&x[0]), inverse));
    let high = _mm256_cvtps_epi32(_mm256_mul_ps(load(&x[1]), inverse));
    // Packing interleaves the 128-bit lanes; the permutation puts them in order again.
    let words = _mm256_permute4x64_epi64::<0b11_01_10_00>(_mm256_packs_epi32(low, high));
    let bytes = _mm_packs_epi16(
        _mm256_castsi256_si128(words),
        _mm256_extracti128_si256::<1>(words),
    );
    let q = step[4 * i..4 * i + 4].as_flattened_mut();
    // SAFETY: sixteen writable bytes; no alignment needed.
    unsafe { _mm_storeu_si128(q.as_mut_ptr().cast(), bytes) };
    let sum = _mm256_add_epi32(low, high);
    let sum = _mm_add_epi32(
        _mm256_castsi256_si128(sum),
        _mm256_extracti128_si256::<1>(sum),
    );
    let sum = _mm_add_epi32(sum, _mm_shuffle_epi32::<0b01_00_11_10>(sum));
    _mm_cvtsi128_si32(_mm_add_epi32(sum, _mm_shuffle_epi32::<1>(sum)))
}

#[target_feature(enable = "avx2,fma,f16c")]
fn by_32(x: &[f32], step: &mut Step) {
    *step = [[0; 4]; STEP_WORDS];
    let blocks = x.as_chunks::<8>().0.as_chunks::<4>().0;
    for (b, x) in blocks.iter().enumerate().take(8) {
        let (scale, inverse) = block_scale(max_abs(x));
        let inverse = _mm256_set1_ps(inverse);
        let mut sum = 0;
        for (i, x) in x.as_chunks::<2>().0.iter().enumerate() {
            sum += quants(x, inverse, step, 2 * b + i);
        }
        step[BLOCK_SCALES_AT + b] = scale.to_le_bytes();
        step[BLOCK_SUMS_AT + b] = sum.to_le_bytes();
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
fn by_256(x: &[f32], step: &mut Step) {
    let x: &[[f32; 8]; 32] = x.as_chunks().0.first_chunk().expect("whole super-blocks");
    let (scale, inverse) = block_scale(max_abs(x));
    let inverse = _mm256_set1_ps(inverse);
    let mut sums = [0i32; 16];
    for (i, (x, sum)) in x.as_chunks::<2>().0.iter().zip(&mut sums).enumerate() {
        *sum = quants(x, inverse, step, i);
    }
    // At most 32 * 127 in magnitude: no narrowing loses anything.
    let pair = |a: i32, b: i32| {
        let ([a, b], [c, d]) = ((a as i16).to_le_bytes(), (b as i16).to_le_bytes());
        [a, b, c, d]
    };
    let sixteens = step[SUMS16_AT..SUMS32_AT].iter_mut();
    for (word, s) in sixteens.zip(sums.as_chunks::<2>().0) {
        *word = pair(s[0], s[1]);
    }
    let thirty_twos = step[SUMS32_AT..SCALE_AT].iter_mut();
    for (word, s) in thirty_twos.zip(sums.as_chunks::<4>().0) {
        *word = pair(s[0] + s[1], s[2] + s[3]);
    }
    step[SCALE_AT] = scale.to_le_bytes();
    step[SCALE_AT + 1..].fill([0; 4]);
}
