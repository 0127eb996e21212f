//! Loads and stores of whole vectors through references, so that the kernels need no pointers.

use std::arch::x86_64::*;

use super::super::product::Lanes;

macro_rules! features {
    ($($item:item)*) => {
        $(#[inline] #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")] $item)*
    };
}

features! {
    pub(super) fn load(bytes: &[u8; 64]) -> __m512i {
        // SAFETY: 64 readable bytes; no alignment needed.
        unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
    }

    pub(super) fn store(bytes: &mut [u8; 64], v: __m512i) {
        // SAFETY: 64 writable bytes; no alignment needed.
        unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), v) }
    }

    pub(super) fn load_lanes<T: Word>(lanes: &Lanes<T>) -> __m512i {
        // SAFETY: sixteen words of four bytes, aligned to 64.
        unsafe { _mm512_load_si512(lanes.0.as_ptr().cast()) }
    }

    pub(super) fn store_lanes<T: Word>(lanes: &mut Lanes<T>, v: __m512i) {
        // SAFETY: sixteen words of four bytes, aligned to 64; any bits are valid words.
        unsafe { _mm512_store_si512(lanes.0.as_mut_ptr().cast(), v) }
    }

    pub(super) fn load_floats(lanes: &Lanes<f32>) -> __m512 {
        // SAFETY: sixteen floats, aligned to 64.
        unsafe { _mm512_load_ps(lanes.0.as_ptr()) }
    }

    pub(super) fn store_floats(lanes: &mut Lanes<f32>, v: __m512) {
        // SAFETY: sixteen floats, aligned to 64.
        unsafe { _mm512_store_ps(lanes.0.as_mut_ptr(), v) }
    }

    /// The word in every lane.
    pub(super) fn splat(word: &[u8; 4]) -> __m512i {
        _mm512_set1_epi32(i32::from_ne_bytes(*word))
    }

    /// The float in every lane.
    pub(super) fn splat_float(word: &[u8; 4]) -> __m512 {
        _mm512_set1_ps(f32::from_ne_bytes(*word))
    }

    /// The lower halves of the lanes, as floats.
    pub(super) fn low_halves(v: __m512i) -> __m512 {
        _mm512_cvtph_ps(_mm512_cvtepi32_epi16(v))
    }

    /// The upper halves of the lanes, as floats.
    pub(super) fn high_halves(v: __m512i) -> __m512 {
        low_halves(_mm512_srli_epi32::<16>(v))
    }
}

/// Plain types of four bytes.
pub(super) trait Word: Copy {}
impl Word for i32 {}
impl Word for [i16; 2] {}
