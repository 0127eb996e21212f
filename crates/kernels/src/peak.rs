//! What one core can do at best: loops that touch registers (or memory) only.
//!
//! Figures of kernels mean little by themselves; as a share of these they say what is left to gain.

use std::hint::black_box;

use crate::isa::{Isa, Level};

/// Multiplies and adds bytes in registers, about `rounds` times a few vectors, and says how many
/// operations that was (a multiply-add counts as two). Time the call to get the core's peak.
pub fn byte_ops(isa: Isa, rounds: usize) -> u64 {
    let rounds = black_box(rounds);
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512(isa) => crate::x86_64::peak::bytes_512(isa, rounds),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2(isa) => crate::x86_64::peak::bytes_256(isa, rounds),
        Level::Scalar => {
            let mut sums = [black_box(1i32); 8];
            for _ in 0..rounds {
                for sum in &mut sums {
                    *sum = sum.wrapping_mul(3).wrapping_add(5);
                }
            }
            black_box(sums);
            rounds as u64 * 16
        }
    }
}

/// As [`byte_ops`], with fused multiply-adds of `f32`.
pub fn f32_ops(isa: Isa, rounds: usize) -> u64 {
    let rounds = black_box(rounds);
    match isa.level() {
        #[cfg(target_arch = "x86_64")]
        Level::Avx512(isa) => crate::x86_64::peak::floats_512(isa, rounds),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2(isa) => crate::x86_64::peak::floats_256(isa, rounds),
        Level::Scalar => {
            let mut sums = [black_box(1f32); 8];
            for _ in 0..rounds {
                for sum in &mut sums {
                    *sum = sum.mul_add(0.5, 0.25);
                }
            }
            black_box(sums);
            rounds as u64 * 16
        }
    }
}

/// Reads every word of `data` once; time the call to get the core's bandwidth.
pub fn read(data: &[u64]) -> u64 {
    let mut sums = [0u64; 32];
    for words in data.as_chunks::<32>().0 {
        for (sum, word) in sums.iter_mut().zip(words) {
            *sum ^= word;
        }
    }
    black_box(sums.iter().fold(0, |a, b| a ^ b))
}
