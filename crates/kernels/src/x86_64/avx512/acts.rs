//! Quantising activations in 512 bits.

use std::arch::x86_64::*;

use crate::acts::{
    ActKind, BLOCK_SCALES_AT, BLOCK_SUMS_AT, SCALE_AT, STEP_WORDS, SUMS16_AT, SUMS32_AT, Step,
    block_scale,
};
use crate::isa::Avx512;

/// One step: 256 values, or what is left of a row.
pub(crate) fn quantize_step(_: Avx512, kind: ActKind, x: &[f32], step: &mut Step) {
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
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn load(x: &[f32; 16]) -> __m512 {
    // SAFETY: sixteen readable floats; no alignment needed.
    unsafe { _mm512_loadu_ps(x.as_ptr()) }
}

/// Largest magnitude of whole vectors.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn max_abs(x: &[[f32; 16]]) -> f32 {
    let mut max = _mm512_setzero_ps();
    for x in x {
        max = _mm512_max_ps(max, _mm512_abs_ps(load(x)));
    }
    _mm512_reduce_max_ps(max)
}

/// Quants `16 * i..` of a step.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn quants(x: &[f32; 16], inverse: __m512, step: &mut Step, i: usize) -> __m512i {
    // The rounding of the control register: nearest, ties to even.
    let all = _mm512_cvtps_epi32(_mm512_mul_ps(load(x), inverse));
    let q = step[4 * i..4 * i + 4].as_flattened_mut();
    // SAFETY: sixteen writable bytes; no alignment needed.
    unsafe { _mm_storeu_si128(q.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(all)) };
    all
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn by_32(x: &[f32], step: &mut Step) {
    *step = [[0; 4]; STEP_WORDS];
    for (b, x) in x
        .as_chunks::<16>()
        .0
        .as_chunks::<2>()
        .0
        .iter()
        .enumerate()
        .take(8)
    {
        let (scale, inverse) = block_scale(max_abs(x));
        let inverse = _mm512_set1_ps(inverse);
        let mut sum = _mm512_setzero_si512();
        for (i, x) in x.iter().enumerate() {
            sum = _mm512_add_epi32(sum, quants(x, inverse, step, 2 * b + i));
        }
        step[BLOCK_SCALES_AT + b] = scale.to_le_bytes();
        step[BLOCK_SUMS_AT + b] = _mm512_reduce_add_epi32(sum).to_le_bytes();
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn by_256(x: &[f32], step: &mut Step) {
    let x: &[[f32; 16]; 16] = x.as_chunks().0.first_chunk().expect("whole super-blocks");
    let (scale, inverse) = block_scale(max_abs(x));
    let inverse = _mm512_set1_ps(inverse);
    let mut sums = [0i32; 16];
    for (i, (x, sum)) in x.iter().zip(&mut sums).enumerate() {
        *sum = _mm512_reduce_add_epi32(quants(x, inverse, step, i));
    }
    // At most 32 * 127 in magnitude: no narrowing loses anything.
    let pair = |a: i32, b: i32| {
        let ([a, b], [c, d]) = ((a as i16).to_le_bytes(), (b as i16).to_le_bytes());
        [a, b, c, d]
    };
    for (word, s) in step[SUMS16_AT..SUMS32_AT]
        .iter_mut()
        .zip(sums.as_chunks::<2>().0)
    {
        *word = pair(s[0], s[1]);
    }
    for (word, s) in step[SUMS32_AT..SCALE_AT]
        .iter_mut()
        .zip(sums.as_chunks::<4>().0)
    {
        *word = pair(s[0] + s[1], s[2] + s[3]);
    }
    step[SCALE_AT] = scale.to_le_bytes();
    step[SCALE_AT + 1..].fill([0; 4]);
}
