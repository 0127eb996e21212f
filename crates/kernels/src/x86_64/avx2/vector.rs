//! Loads and stores of half panels through references, so that the kernels need no pointers.

use std::arch::x86_64::*;

use super::super::product::Lanes;

macro_rules! features {
    ($($(#[$doc:meta])* fn $name:ident$(<$t:ident: $b:ident>)?($($arg:ident: $ty:ty),*) $(-> $ret:ty)? $body:block)*) => {
        $($(#[$doc])* #[inline] #[target_feature(enable = "avx2,fma,f16c")]
        pub(super) fn $name$(<$t: $b>)?($($arg: $ty),*) $(-> $ret)? $body)*
    };
}

features! {
    /// Rows `8 * half..8 * half + 8` of a vector.
    fn load(bytes: &[u8; 64], half: usize) -> __m256i {
        let bytes = &bytes.as_chunks::<32>().0[half];
        // SAFETY: 32 readable bytes; no alignment needed.
        unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
    }

    /// Likewise.
    fn store(bytes: &mut [u8; 64], half: usize, v: __m256i) {
        let bytes = &mut bytes.as_chunks_mut::<32>().0[half];
        // SAFETY: 32 writable bytes; no alignment needed.
        unsafe { _mm256_storeu_si256(bytes.as_mut_ptr().cast(), v) }
    }

    /// Likewise.
    fn load_pairs(lanes: &Lanes<[i16; 2]>, half: usize) -> __m256i {
        let pairs = &lanes.0.as_chunks::<8>().0[half];
        // SAFETY: eight words of four bytes; no alignment needed.
        unsafe { _mm256_loadu_si256(pairs.as_ptr().cast()) }
    }

    /// Likewise.
    fn store_pairs(lanes: &mut Lanes<[i16; 2]>, half: usize, v: __m256i) {
        let pairs = &mut lanes.0.as_chunks_mut::<8>().0[half];
        // SAFETY: eight words of four bytes, valid whatever the bits; no alignment needed.
        unsafe { _mm256_storeu_si256(pairs.as_mut_ptr().cast(), v) }
    }

    /// Likewise.
    fn load_floats(lanes: &Lanes<f32>, half: usize) -> __m256 {
        let floats = &lanes.0.as_chunks::<8>().0[half];
        // SAFETY: eight floats; no alignment needed.
        unsafe { _mm256_loadu_ps(floats.as_ptr()) }
    }

    /// Likewise.
    fn store_floats(lanes: &mut Lanes<f32>, half: usize, v: __m256) {
        let floats = &mut lanes.0.as_chunks_mut::<8>().0[half];
        // SAFETY: eight floats; no alignment needed.
        unsafe { _mm256_storeu_ps(floats.as_mut_ptr(), v) }
    }

    /// The word in every lane.
    fn splat(word: &[u8; 4]) -> __m256i {
        _mm256_set1_epi32(i32::from_ne_bytes(*word))
    }

    /// The float in every lane.
    fn splat_float(word: &[u8; 4]) -> __m256 {
        _mm256_set1_ps(f32::from_ne_bytes(*word))
    }

    /// The lower halves of the lanes, as floats.
    fn low_halves(v: __m256i) -> __m256 {
        let v = _mm256_and_si256(v, _mm256_set1_epi32(0xFFFF));
        let (low, high) = (_mm256_castsi256_si128(v), _mm256_extracti128_si256::<1>(v));
        _mm256_cvtph_ps(_mm_packus_epi32(low, high))
    }

    /// The upper halves of the lanes, as floats.
    fn high_halves(v: __m256i) -> __m256 {
        low_halves(_mm256_srli_epi32::<16>(v))
    }

    /// Bit `bit` of every byte at bit 4, the others zero.
    fn fifth(bits: __m256i, bit: usize) -> __m256i {
        let up = _mm256_set1_epi32(4usize.saturating_sub(bit) as i32);
        let down = _mm256_set1_epi32(bit.saturating_sub(4) as i32);
        // One of the shifts is by zero; what crosses into a neighbouring byte is masked off.
        let bits = _mm256_srlv_epi32(_mm256_sllv_epi32(bits, up), down);
        _mm256_and_si256(bits, _mm256_set1_epi8(0x10))
    }

    /// The low and the high nibbles of every byte.
    fn nibbles(v: __m256i) -> (__m256i, __m256i) {
        let nibble = _mm256_set1_epi8(0x0F);
        let high = _mm256_and_si256(_mm256_srli_epi16::<4>(v), nibble);
        (_mm256_and_si256(v, nibble), high)
    }

    /// Pairs of products added up: 32 bits per lane.
    fn widen(sums: __m256i) -> __m256i {
        _mm256_madd_epi16(sums, _mm256_set1_epi16(1))
    }
}
