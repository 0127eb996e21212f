//! Quantising activations in 512 bits.

use std::arch::x86_64::*;

use crate::acts::{ActKind, ActLayout, block_scale};
use crate::isa::Avx512;

/// One row; `x` has the layout's columns, `out` its bytes.
pub(crate) fn quantize_row(_: Avx512, layout: &ActLayout, x: &[f32], out: &mut [u8]) {
    // SAFETY: the token proves that this machine has the features.
    unsafe {
        match layout.kind() {
            ActKind::F32 => {}
            ActKind::Q8x32 => by_32(layout, x, out),
            ActKind::Q8x256 => by_256(layout, x, out),
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

/// Sixteen quants.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn quants(x: &[f32; 16], inverse: __m512, q: &mut [u8; 16]) -> __m512i {
    // The rounding of the control register: nearest, ties to even.
    let all = _mm512_cvtps_epi32(_mm512_mul_ps(load(x), inverse));
    // SAFETY: sixteen writable bytes; no alignment needed.
    unsafe { _mm_storeu_si128(q.as_mut_ptr().cast(), _mm512_cvtepi32_epi8(all)) };
    all
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn by_32(layout: &ActLayout, x: &[f32], out: &mut [u8]) {
    let (q, rest) = out.split_at_mut(layout.quants());
    let (scales, sums) = rest.split_at_mut(layout.sums_at() - layout.scales_at());
    q[layout.cols()..].fill(0);
    scales.fill(0);
    sums.fill(0);
    let blocks = x.as_chunks::<16>().0.as_chunks::<2>().0;
    let blocks = blocks
        .iter()
        .zip(q.as_chunks_mut::<16>().0.as_chunks_mut::<2>().0);
    let scales = scales.as_chunks_mut::<4>().0.iter_mut();
    let sums = sums.as_chunks_mut::<4>().0.iter_mut();
    for (((x, q), scale), sum) in blocks.zip(scales).zip(sums) {
        let (s, inverse) = block_scale(max_abs(x));
        let inverse = _mm512_set1_ps(inverse);
        let low = quants(&x[0], inverse, &mut q[0]);
        let high = quants(&x[1], inverse, &mut q[1]);
        *scale = s.to_le_bytes();
        *sum = _mm512_reduce_add_epi32(_mm512_add_epi32(low, high)).to_le_bytes();
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
fn by_256(layout: &ActLayout, x: &[f32], out: &mut [u8]) {
    let (q, rest) = out.split_at_mut(layout.quants());
    let (scales, rest) = rest.split_at_mut(layout.sums_at() - layout.scales_at());
    let (sums16, sums32) = rest.split_at_mut(layout.sums32_at() - layout.sums_at());
    // What fills the row up to a multiple of 64 bytes.
    sums32[layout.cols() / 32 * 2..].fill(0);
    let blocks = x.as_chunks::<16>().0.as_chunks::<16>().0;
    let q = q.as_chunks_mut::<16>().0.as_chunks_mut::<16>().0;
    let sums16 = sums16.as_chunks_mut::<32>().0.iter_mut();
    let sums32 = sums32.as_chunks_mut::<16>().0.iter_mut();
    let scales = scales.as_chunks_mut::<4>().0.iter_mut();
    let outs = q.iter_mut().zip(scales).zip(sums16).zip(sums32);
    for (x, (((q, scale), sums16), sums32)) in blocks.iter().zip(outs) {
        let (s, inverse) = block_scale(max_abs(x));
        *scale = s.to_le_bytes();
        let inverse = _mm512_set1_ps(inverse);
        for (j, (x, q)) in x
            .as_chunks::<2>()
            .0
            .iter()
            .zip(q.as_chunks_mut::<2>().0)
            .enumerate()
        {
            let low = _mm512_reduce_add_epi32(quants(&x[0], inverse, &mut q[0]));
            let high = _mm512_reduce_add_epi32(quants(&x[1], inverse, &mut q[1]));
            // At most 32 * 127 in magnitude: no narrowing loses anything.
            let sixteens = &mut sums16.as_chunks_mut::<2>().0[2 * j..2 * j + 2];
            sixteens[0] = (low as i16).to_le_bytes();
            sixteens[1] = (high as i16).to_le_bytes();
            sums32.as_chunks_mut::<2>().0[j] = ((low + high) as i16).to_le_bytes();
        }
    }
}
