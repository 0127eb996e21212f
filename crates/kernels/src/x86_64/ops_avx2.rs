//! [`Lanes`] as two 256-bit registers: lanes 0..8 and 8..16.

use std::arch::x86_64::*;

use half::{bf16, f16};

use crate::isa::Avx2;
use crate::lanes::{Kernel, LANES, Lanes, Vec16};

/// Runs `kernel` compiled with AVX2, FMA and F16C.
pub(crate) fn run<K: Kernel>(avx2: Avx2, kernel: K) -> K::Out {
    #[target_feature(enable = "avx2,fma,f16c")]
    fn with_features<K: Kernel>(avx2: Avx2, kernel: K) -> K::Out {
        kernel.run(avx2)
    }
    // SAFETY: the token proves that the machine has these instructions.
    unsafe { with_features(avx2, kernel) }
}

/// The same intrinsic on both halves; it only computes.
macro_rules! both {
    ($($v:ident),+ => $intrinsic:expr) => {{
        // SAFETY: a token (`self`) exists, so the machine has AVX2, FMA and F16C; the intrinsic has no
        // other condition.
        unsafe { [{ $(let $v = $v[0];)+ $intrinsic }, { $(let $v = $v[1];)+ $intrinsic }] }
    }};
}

impl Lanes for Avx2 {
    type V = [__m256; 2];
    const REGISTERS: usize = 8;

    #[inline(always)]
    fn outline<K: Kernel>(self, kernel: K) -> K::Out {
        #[inline(never)]
        #[target_feature(enable = "avx2,fma,f16c")]
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
    fn splat(self, x: f32) -> [__m256; 2] {
        // SAFETY: AVX by the token.
        unsafe { [_mm256_set1_ps(x); 2] }
    }
    #[inline(always)]
    fn load(self, from: &Vec16) -> [__m256; 2] {
        // SAFETY: reads 2 x 32 bytes at any alignment, which `from` has; AVX by the token.
        unsafe {
            [
                _mm256_loadu_ps(from.as_ptr()),
                _mm256_loadu_ps(from.as_ptr().add(8)),
            ]
        }
    }
    #[inline(always)]
    fn load_f16(self, from: &[f16; LANES]) -> [__m256; 2] {
        let at = from.as_ptr().cast::<__m128i>();
        // SAFETY: reads 2 x 16 bytes at any alignment, which `from` has; F16C by the token.
        unsafe {
            [
                _mm256_cvtph_ps(_mm_loadu_si128(at)),
                _mm256_cvtph_ps(_mm_loadu_si128(at.add(1))),
            ]
        }
    }
    #[inline(always)]
    fn load_bf16(self, from: &[bf16; LANES]) -> [__m256; 2] {
        let at = from.as_ptr().cast::<__m128i>();
        // SAFETY: reads 2 x 16 bytes at any alignment, which `from` has; AVX2 by the token.
        unsafe {
            [at, at.add(1)].map(|at| {
                let bits = _mm256_cvtepu16_epi32(_mm_loadu_si128(at));
                _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bits))
            })
        }
    }
    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> [__m256; 2] {
        let at = from.as_ptr().cast::<u8>();
        // SAFETY: reads 2 x 8 bytes at any alignment, which `from` has; AVX2 by the token.
        unsafe {
            [at, at.add(8)]
                .map(|at| _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(at.cast()))))
        }
    }
    #[inline(always)]
    fn splat_f16(self, x: f16) -> [__m256; 2] {
        // SAFETY: AVX2 and F16C by the token.
        [unsafe { _mm256_cvtph_ps(_mm_set1_epi16(x.to_bits() as i16)) }; 2]
    }
    #[inline(always)]
    fn store(self, v: [__m256; 2], to: &mut Vec16) {
        // SAFETY: writes 2 x 32 bytes at any alignment, which `to` has; AVX by the token.
        unsafe {
            _mm256_storeu_ps(to.as_mut_ptr(), v[0]);
            _mm256_storeu_ps(to.as_mut_ptr().add(8), v[1]);
        }
    }
    #[inline(always)]
    fn to_f16(self, v: [__m256; 2]) -> [f16; LANES] {
        let mut out = [f16::ZERO; LANES];
        let at = out.as_mut_ptr().cast::<__m128i>();
        // SAFETY: writes 2 x 16 bytes at any alignment, which `out` has; F16C by the token.
        unsafe {
            let [low, high] = v;
            _mm_storeu_si128(at, _mm256_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT }>(low));
            _mm_storeu_si128(
                at.add(1),
                _mm256_cvtps_ph::<{ _MM_FROUND_TO_NEAREST_INT }>(high),
            );
        }
        out
    }
    #[inline(always)]
    fn to_bf16(self, v: [__m256; 2]) -> [bf16; LANES] {
        let [low, high] = both!(v => {
            let bits = _mm256_castps_si256(v);
            let odd = _mm256_and_si256(_mm256_srli_epi32::<16>(bits), _mm256_set1_epi32(1));
            let up = _mm256_add_epi32(odd, _mm256_set1_epi32(0x7fff));
            let rounded = _mm256_add_epi32(bits, up);
            let quiet = _mm256_or_si256(bits, _mm256_set1_epi32(0x40 << 16));
            let nan = _mm256_castps_si256(_mm256_cmp_ps::<_CMP_UNORD_Q>(v, v));
            _mm256_srli_epi32::<16>(_mm256_blendv_epi8(rounded, quiet, nan))
        });
        let mut out = [bf16::ZERO; LANES];
        // SAFETY: writes 32 bytes at any alignment, which `out` has; AVX2 by the token. (Packing works
        // within 128-bit halves, which the permutation puts in order.)
        unsafe {
            let packed = _mm256_packus_epi32(low, high);
            let ordered = _mm256_permute4x64_epi64::<0b11_01_10_00>(packed);
            _mm256_storeu_si256(out.as_mut_ptr().cast(), ordered);
        }
        out
    }
    #[inline(always)]
    fn to_i8(self, v: [__m256; 2]) -> [i8; LANES] {
        let mut out = [0; LANES];
        // SAFETY: writes 16 bytes at any alignment, which `out` has; AVX2 by the token. (Packing works
        // within 128-bit halves, which the permutation puts in order.)
        unsafe {
            let packed = _mm256_packs_epi32(_mm256_cvtps_epi32(v[0]), _mm256_cvtps_epi32(v[1]));
            let ordered = _mm256_permute4x64_epi64::<0b11_01_10_00>(packed);
            let (low, high) = (
                _mm256_castsi256_si128(ordered),
                _mm256_extracti128_si256::<1>(ordered),
            );
            _mm_storeu_si128(out.as_mut_ptr().cast(), _mm_packs_epi16(low, high));
        }
        out
    }
    #[inline(always)]
    fn add(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(a, b => _mm256_add_ps(a, b))
    }
    #[inline(always)]
    fn sub(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(a, b => _mm256_sub_ps(a, b))
    }
    #[inline(always)]
    fn mul(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(a, b => _mm256_mul_ps(a, b))
    }
    #[inline(always)]
    fn div(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        both!(a, b => _mm256_div_ps(a, b))
    }
    #[inline(always)]
    fn fma(self, a: [__m256; 2], b: [__m256; 2], c: [__m256; 2]) -> [__m256; 2] {
        both!(a, b, c => _mm256_fmadd_ps(a, b, c))
    }
    #[inline(always)]
    fn if_less(
        self,
        a: [__m256; 2],
        b: [__m256; 2],
        yes: [__m256; 2],
        no: [__m256; 2],
    ) -> [__m256; 2] {
        both!(a, b, yes, no => _mm256_blendv_ps(no, yes, _mm256_cmp_ps::<_CMP_LT_OQ>(a, b)))
    }
    #[inline(always)]
    fn round(self, v: [__m256; 2]) -> [__m256; 2] {
        both!(v => _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(v))
    }
    #[inline(always)]
    fn scale(self, p: [__m256; 2], n: [__m256; 2]) -> [__m256; 2] {
        // Two steps, since 2^n itself may be beyond f32; the first is exact.
        both!(p, n => {
            let n = _mm256_cvtps_epi32(n);
            let half = _mm256_srai_epi32::<1>(n);
            let p = _mm256_mul_ps(p, power_of_two(half));
            _mm256_mul_ps(p, power_of_two(_mm256_sub_epi32(n, half)))
        })
    }
    #[inline(always)]
    fn abs(self, v: [__m256; 2]) -> [__m256; 2] {
        both!(v => _mm256_andnot_ps(_mm256_set1_ps(-0.0), v))
    }
    #[inline(always)]
    fn neg(self, v: [__m256; 2]) -> [__m256; 2] {
        both!(v => _mm256_xor_ps(v, _mm256_set1_ps(-0.0)))
    }
    #[inline(always)]
    fn copysign(self, v: [__m256; 2], sign: [__m256; 2]) -> [__m256; 2] {
        both!(v, sign => {
            let bit = _mm256_set1_ps(-0.0);
            _mm256_or_ps(_mm256_andnot_ps(bit, v), _mm256_and_ps(bit, sign))
        })
    }
    #[inline(always)]
    fn swap_pairs(self, v: [__m256; 2]) -> [__m256; 2] {
        both!(v => _mm256_permute_ps::<0b10_11_00_01>(v))
    }
    #[inline(always)]
    fn load_twice(self, from: &[f32; LANES / 2]) -> [__m256; 2] {
        // SAFETY: reads 32 bytes at any alignment, which `from` has; AVX2 by the token.
        unsafe {
            let all = _mm256_loadu_ps(from.as_ptr());
            let low = _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3);
            let high = _mm256_setr_epi32(4, 4, 5, 5, 6, 6, 7, 7);
            [
                _mm256_permutevar8x32_ps(all, low),
                _mm256_permutevar8x32_ps(all, high),
            ]
        }
    }
    #[inline(always)]
    fn sum(self, v: [__m256; 2]) -> f32 {
        // SAFETY: AVX by the token.
        unsafe { sum_eight(_mm256_add_ps(v[0], v[1])) }
    }
    #[inline(always)]
    fn max(self, a: [__m256; 2], b: [__m256; 2]) -> [__m256; 2] {
        // The second operand comes back when they are equal or one is NaN, as in `if a < b`.
        both!(a, b => _mm256_max_ps(b, a))
    }
    #[inline(always)]
    fn largest(self, v: [__m256; 2]) -> f32 {
        // SAFETY: AVX by the token.
        unsafe { largest_of_eight(_mm256_max_ps(v[1], v[0])) }
    }
}

/// 2^n for n in -126..=127.
///
/// # Safety
/// The machine has AVX2.
#[inline(always)]
unsafe fn power_of_two(n: __m256i) -> __m256 {
    // SAFETY: AVX2, by the caller.
    unsafe {
        let biased = _mm256_add_epi32(n, _mm256_set1_epi32(127));
        _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_and_si256(
            biased,
            _mm256_set1_epi32(0xff),
        )))
    }
}

/// Lanes added as i with i + 4, then + 2, + 1.
///
/// # Safety
/// The machine has AVX.
#[inline(always)]
pub(super) unsafe fn sum_eight(v: __m256) -> f32 {
    // SAFETY: AVX, by the caller.
    unsafe {
        let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
        let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
        _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
    }
}

/// The largest of i and i + 4, then + 2, + 1, the lower one when they do not compare.
///
/// # Safety
/// The machine has AVX.
#[inline(always)]
pub(super) unsafe fn largest_of_eight(v: __m256) -> f32 {
    // SAFETY: AVX, by the caller.
    unsafe {
        let four = _mm_max_ps(_mm256_extractf128_ps::<1>(v), _mm256_castps256_ps128(v));
        let two = _mm_max_ps(_mm_movehl_ps(four, four), four);
        _mm_cvtss_f32(_mm_max_ss(_mm_movehdup_ps(two), two))
    }
}
