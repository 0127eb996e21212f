//! Register-only loops for [`crate::peak`].
#![allow(unsafe_code)]

use std::arch::x86_64::*;
use std::hint::black_box;

use crate::isa::{Avx2, Avx512};

/// Chains side by side: more than latency times width of any core so far.
const CHAINS: usize = 12;

pub(crate) fn bytes_512(_: Avx512, rounds: usize) -> u64 {
    #[target_feature(enable = "avx512f,avx512vnni")]
    fn run(rounds: usize) {
        let (a, b) = (
            _mm512_set1_epi8(black_box(3)),
            _mm512_set1_epi8(black_box(2)),
        );
        let mut sums = [a; CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_dpbusd_epi32(*sum, a, b);
            }
        }
        black_box(sums);
    }
    // SAFETY: the token proves the features.
    unsafe { run(rounds) };
    rounds as u64 * (CHAINS * 64 * 2) as u64
}

pub(crate) fn bytes_256(_: Avx2, rounds: usize) -> u64 {
    #[target_feature(enable = "avx2")]
    fn run(rounds: usize) {
        let a = _mm256_set1_epi8(black_box(3));
        let mut sums = [a; CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                // Feeding the sum back keeps the product from being hoisted out of the loop.
                let product = _mm256_maddubs_epi16(a, *sum);
                *sum = _mm256_add_epi16(*sum, product);
            }
        }
        black_box(sums);
    }
    // SAFETY: the token proves the features.
    unsafe { run(rounds) };
    rounds as u64 * (CHAINS * 32 * 2) as u64
}

pub(crate) fn floats_512(_: Avx512, rounds: usize) -> u64 {
    #[target_feature(enable = "avx512f")]
    fn run(rounds: usize) {
        let (a, b) = (
            _mm512_set1_ps(black_box(0.5)),
            _mm512_set1_ps(black_box(0.25)),
        );
        let mut sums = [a; CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm512_fmadd_ps(*sum, a, b);
            }
        }
        black_box(sums);
    }
    // SAFETY: the token proves the features.
    unsafe { run(rounds) };
    rounds as u64 * (CHAINS * 16 * 2) as u64
}

pub(crate) fn floats_256(_: Avx2, rounds: usize) -> u64 {
    #[target_feature(enable = "avx2,fma")]
    fn run(rounds: usize) {
        let (a, b) = (
            _mm256_set1_ps(black_box(0.5)),
            _mm256_set1_ps(black_box(0.25)),
        );
        let mut sums = [a; CHAINS];
        for _ in 0..rounds {
            for sum in &mut sums {
                *sum = _mm256_fmadd_ps(*sum, a, b);
            }
        }
        black_box(sums);
    }
    // SAFETY: the token proves the features.
    unsafe { run(rounds) };
    rounds as u64 * (CHAINS * 8 * 2) as u64
}
