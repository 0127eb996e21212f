//! [`Lanes`] as one 512-bit register.

use std::arch::x86_64::*;

use half::{bf16, f16};

use crate::isa::Avx512;
use crate::lanes::{Kernel, LANES, Lanes, Vec16};

/// Runs `kernel` compiled with AVX-512.
pub(crate) fn run<K: Kernel>(avx512: Avx512, kernel: K) -> K::Out {
    #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
    fn with_features<K: Kernel>(avx512: Avx512, kernel: K) -> K::Out {
        kernel.run(avx512)
    }
    // SAFETY: the token proves that the machine has these instructions.
    unsafe { with_features(avx512, kernel) }
}

/// One intrinsic that only computes.
macro_rules! pure {
    ($intrinsic:expr) => {{
        // SAFETY: a token (`self`) exists, so the machine has AVX-512 F, BW, DQ and VL, AVX2, FMA and
        // F16C; the intrinsic has no other condition.
        unsafe { $intrinsic }
    }};
}

impl Lanes for Avx512 {
    type V = __m512;
    const REGISTERS: usize = 32;

    #[inline(always)]
    fn outline<K: Kernel>(self, kernel: K) -> K::Out {
        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c,avx512f,avx512bw,avx512dq,avx512vl")]
        fn with_features<L: Lanes, K: Kernel>(lanes: L, kernel: K) -> K::Out {
            kernel.run(lanes)
        }
        // SAFETY: the token proves that the machine has these instructions.
        unsafe { with_features(self, kernel) }
    }
    #[inline(always)]
    fn prefetch<T>(self, at: &T) {
        // SAFETY: a hint; it may be given for any address. SSE is part of x86-64.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(std::ptr::from_ref(at).cast()) }
    }
    #[inline(always)]
    fn splat(self, x: f32) -> __m512 {
        pure!(_mm512_set1_ps(x))
    }
    #[inline(always)]
    fn load(self, from: &Vec16) -> __m512 {
        // SAFETY: reads 64 bytes at any alignment, which `from` has; AVX-512 by the token.
        unsafe { _mm512_loadu_ps(from.as_ptr()) }
    }
    #[inline(always)]
    fn load_f16(self, from: &[f16; LANES]) -> __m512 {
        // SAFETY: reads 32 bytes at any alignment, which `from` has; AVX-512 by the token.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.as_ptr().cast())) }
    }
    #[inline(always)]
    fn load_bf16(self, from: &[bf16; LANES]) -> __m512 {
        // SAFETY: reads 32 bytes at any alignment, which `from` has; AVX-512 by the token.
        unsafe {
            let bits = _mm512_cvtepu16_epi32(_mm256_loadu_si256(from.as_ptr().cast()));
            _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bits))
        }
    }
    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> __m512 {
        // SAFETY: reads 16 bytes at any alignment, which `from` has; AVX-512 by the token.
        unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.as_ptr().cast()))) }
    }
    #[inline(always)]
    fn splat_f16(self, x: f16) -> __m512 {
        pure!(_mm512_cvtph_ps(_mm256_set1_epi16(x.to_bits() as i16)))
    }
    #[inline(always)]
    fn store(self, v: __m512, to: &mut Vec16) {
        // SAFETY: writes 64 bytes at any alignment, which `to` has; AVX-512 by the token.
        unsafe { _mm512_storeu_ps(to.as_mut_ptr(), v) }
    }
    #[inline(always)]
    fn to_f16(self, v: __m512) -> [f16; LANES] {
        let mut out = [f16::ZERO; LANES];
        // SAFETY: writes 32 bytes at any alignment, which `out` has; AVX-512 by the token.
        unsafe {
            let bits = _mm512_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v);
            _mm256_storeu_si256(out.as_mut_ptr().cast(), bits);
        }
        out
    }
    #[inline(always)]
    fn to_bf16(self, v: __m512) -> [bf16; LANES] {
        let mut out = [bf16::ZERO; LANES];
        // SAFETY: writes 32 bytes at any alignment, which `out` has; AVX-512 by the token.
        unsafe {
            let bits = _mm512_castps_si512(v);
            let odd = _mm512_and_si512(_mm512_srli_epi32::<16>(bits), _mm512_set1_epi32(1));
            let up = _mm512_add_epi32(odd, _mm512_set1_epi32(0x7fff));
            let rounded = _mm512_add_epi32(bits, up);
            let quiet = _mm512_or_si512(bits, _mm512_set1_epi32(0x40 << 16));
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(v, v);
            let upper = _mm512_srli_epi32::<16>(_mm512_mask_mov_epi32(rounded, nan, quiet));
            _mm256_storeu_si256(out.as_mut_ptr().cast(), _mm512_cvtepi32_epi16(upper));
        }
        out
    }
    #[inline(always)]
    fn to_i8(self, v: __m512) -> [i8; LANES] {
        let mut out = [0; LANES];
        // SAFETY: writes 16 bytes at any alignment, which `out` has; AVX-512 by the token.
        unsafe {
            let bytes = _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(v));
            _mm_storeu_si128(out.as_mut_ptr().cast(), bytes);
        }
        out
    }
    #[inline(always)]
    fn add(self, a: __m512, b: __m512) -> __m512 {
        pure!(_mm512_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: __m512, b: __m512) -> __m512 {
        pure!(_mm512_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: __m512, b: __m512) -> __m512 {
        pure!(_mm512_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: __m512, b: __m512) -> __m512 {
        pure!(_mm512_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: __m512, b: __m512, c: __m512) -> __m512 {
        pure!(_mm512_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn if_less(self, a: __m512, b: __m512, yes: __m512, no: __m512) -> __m512 {
        pure!(_mm512_mask_blend_ps(
            _mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b),
            no,
            yes
        ))
    }
    #[inline(always)]
    fn round(self, v: __m512) -> __m512 {
        pure!(_mm512_roundscale_ps::<
            { _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC },
        >(v))
    }
    #[inline(always)]
    fn scale(self, p: __m512, n: __m512) -> __m512 {
        pure!(_mm512_scalef_ps(p, n))
    }
    #[inline(always)]
    fn abs(self, v: __m512) -> __m512 {
        pure!(_mm512_abs_ps(v))
    }
    #[inline(always)]
    fn neg(self, v: __m512) -> __m512 {
        pure!(_mm512_xor_ps(v, _mm512_set1_ps(-0.0)))
    }
    #[inline(always)]
    fn copysign(self, v: __m512, sign: __m512) -> __m512 {
        pure!({
            let bit = _mm512_set1_ps(-0.0);
            _mm512_or_ps(_mm512_andnot_ps(bit, v), _mm512_and_ps(bit, sign))
        })
    }
    #[inline(always)]
    fn swap_pairs(self, v: __m512) -> __m512 {
        pure!(_mm512_permute_ps::<0b10_11_00_01>(v))
    }
    #[inline(always)]
    fn load_twice(self, from: &[f32; LANES / 2]) -> __m512 {
        // SAFETY: reads 32 bytes at any alignment, which `from` has; AVX-512 by the token.
        unsafe {
            let low = _mm512_castps256_ps512(_mm256_loadu_ps(from.as_ptr()));
            let twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
            _mm512_permutexvar_ps(twice, low)
        }
    }
    #[inline(always)]
    fn sum(self, v: __m512) -> f32 {
        pure!({
            let low = _mm512_castps512_ps256(v);
            super::ops_avx2::sum_eight(_mm256_add_ps(low, _mm512_extractf32x8_ps::<1>(v)))
        })
    }
    #[inline(always)]
    fn max(self, a: __m512, b: __m512) -> __m512 {
        // The second operand comes back when they are equal or one is NaN, as in `if a < b`.
        pure!(_mm512_max_ps(b, a))
    }
    #[inline(always)]
    fn largest(self, v: __m512) -> f32 {
        pure!({
            let low = _mm512_castps512_ps256(v);
            super::ops_avx2::largest_of_eight(_mm256_max_ps(_mm512_extractf32x8_ps::<1>(v), low))
        })
    }
    #[inline(always)]
    fn load_some(self, from: &[f32], fill: f32) -> __m512 {
        assert!(from.len() < LANES);
        // SAFETY: the mask reads the first `from.len()` values only; AVX-512 by the token.
        unsafe {
            let some = (1u16 << from.len()) - 1;
            _mm512_mask_loadu_ps(_mm512_set1_ps(fill), some, from.as_ptr())
        }
    }
    #[inline(always)]
    fn store_some(self, v: __m512, to: &mut [f32]) {
        assert!(to.len() < LANES);
        // SAFETY: the mask writes the first `to.len()` values only; AVX-512 by the token.
        unsafe { _mm512_mask_storeu_ps(to.as_mut_ptr(), (1u16 << to.len()) - 1, v) }
    }
}
