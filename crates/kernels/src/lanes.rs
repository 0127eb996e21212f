//! Sixteen `f32` side by side: what the vector kernels outside the matrix product are written in.
//!
//! A kernel is written once, over [`Lanes`], and instantiated for every instruction set: as one AVX-512
//! register, two AVX2 registers or an array. Each operation here is exact or correctly rounded (and
//! [`Lanes::sum`] has one fixed tree), so all instances of a kernel give the same bits.
//!
//! A vector type's token proves that the machine has its instructions, so these methods are safe. They
//! only become single instructions inside a function that enables the instructions: that is what
//! [`run`] is for, and why everything on the way is `#[inline(always)]`.

use half::{bf16, f16};

use crate::isa::{Isa, Level};

/// Lanes of a logical vector, whatever the machine's registers hold.
pub(crate) const LANES: usize = 16;

/// One logical vector in memory.
pub(crate) type Vec16 = [f32; LANES];

/// Work written over [`Lanes`].
pub(crate) trait Kernel {
    /// What it gives back.
    type Out;
    /// Does the work; implementations are `#[inline(always)]`.
    fn run<L: Lanes>(self, lanes: L) -> Self::Out;
}

/// Runs `kernel` with the instructions of `isa`.
pub(crate) fn run<K: Kernel>(isa: Isa, kernel: K) -> K::Out {
    match isa.level() {
        Level::Scalar => kernel.run(Scalar),
        #[cfg(target_arch = "x86_64")]
        Level::Avx2(avx2) => crate::x86_64::ops_avx2::run(avx2, kernel),
        #[cfg(target_arch = "x86_64")]
        Level::Avx512(avx512) => crate::x86_64::ops_avx512::run(avx512, kernel),
    }
}

/// Arithmetic on sixteen lanes. `self` is the token of the instruction set.
pub(crate) trait Lanes: Copy {
    /// Sixteen `f32`.
    type V: Copy;
    /// Logical vectors that the machine's registers hold.
    const REGISTERS: usize;

    /// Runs `kernel` as a function of its own, so that a large one is not inlined where it is used.
    fn outline<K: Kernel>(self, kernel: K) -> K::Out;

    /// `x` in every lane.
    fn splat(self, x: f32) -> Self::V;
    /// The sixteen values.
    fn load(self, from: &Vec16) -> Self::V;
    /// The sixteen values, widened exactly.
    fn load_f16(self, from: &[f16; LANES]) -> Self::V;
    /// The sixteen values, widened exactly.
    fn load_bf16(self, from: &[bf16; LANES]) -> Self::V;
    /// The sixteen integers, exactly.
    fn load_i8(self, from: &[i8; LANES]) -> Self::V;
    /// `x` in every lane, widened exactly.
    fn splat_f16(self, x: f16) -> Self::V;
    /// Lane `i` to `to[i]`.
    fn store(self, v: Self::V, to: &mut Vec16);
    /// Rounded to nearest, ties to even.
    fn to_f16(self, v: Self::V) -> [f16; LANES];
    /// Rounded to nearest, ties to even; NaN stays NaN.
    fn to_bf16(self, v: Self::V) -> [bf16; LANES];
    /// Integral values in -128..=127.
    fn to_i8(self, v: Self::V) -> [i8; LANES];
    /// `a + b`
    fn add(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a - b`
    fn sub(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b`
    fn mul(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a / b`
    fn div(self, a: Self::V, b: Self::V) -> Self::V;
    /// `a * b + c`, rounded once.
    fn fma(self, a: Self::V, b: Self::V, c: Self::V) -> Self::V;
    /// `if a < b { yes } else { no }`; false when either is NaN.
    fn if_less(self, a: Self::V, b: Self::V, yes: Self::V, no: Self::V) -> Self::V;
    /// The nearest integer, ties to even.
    fn round(self, v: Self::V) -> Self::V;
    /// `p * 2^n` for integral `n` in -126..=254, rounded once.
    fn scale(self, p: Self::V, n: Self::V) -> Self::V;
    /// The magnitude of `v`.
    fn abs(self, v: Self::V) -> Self::V;
    /// `-v`
    fn neg(self, v: Self::V) -> Self::V;
    /// The magnitude of `v` with the sign of `sign`.
    fn copysign(self, v: Self::V, sign: Self::V) -> Self::V;
    /// Lanes 0 and 1 swapped, 2 and 3, and so on.
    fn swap_pairs(self, v: Self::V) -> Self::V;
    /// Each value in two neighbouring lanes.
    fn load_twice(self, from: &[f32; LANES / 2]) -> Self::V;
    /// All lanes added, as a tree: i with i + 8, then + 4, + 2, + 1.
    fn sum(self, v: Self::V) -> f32;

    /// Asks for the cache line of `at`, to be in the second-level cache soon; nothing where that cannot
    /// be asked.
    #[inline(always)]
    fn prefetch<T>(self, at: &T) {
        let _ = at;
    }

    /// `if a < b { b } else { a }`
    #[inline(always)]
    fn max(self, a: Self::V, b: Self::V) -> Self::V {
        self.if_less(a, b, b, a)
    }

    /// The largest lane, NaN aside; a NaN in lane 0 stays.
    #[inline(always)]
    fn largest(self, v: Self::V) -> f32 {
        let mut lanes = [0.0; LANES];
        self.store(v, &mut lanes);
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                if lanes[i] < lanes[i + width] {
                    lanes[i] = lanes[i + width];
                }
            }
            width /= 2;
        }
        lanes[0]
    }

    /// The first `from.len() < 16` lanes; the others hold `fill`.
    #[inline(always)]
    fn load_some(self, from: &[f32], fill: f32) -> Self::V {
        let mut lanes = [fill; LANES];
        lanes[..from.len()].copy_from_slice(from);
        self.load(&lanes)
    }

    /// The first `to.len() < 16` lanes.
    #[inline(always)]
    fn store_some(self, v: Self::V, to: &mut [f32]) {
        let mut lanes = [0.0; LANES];
        self.store(v, &mut lanes);
        to.copy_from_slice(&lanes[..to.len()]);
    }
}

/// Portable code.
#[derive(Copy, Clone)]
pub(crate) struct Scalar;

#[inline(always)]
fn each(f: impl Fn(usize) -> f32) -> Vec16 {
    std::array::from_fn(f)
}

impl Lanes for Scalar {
    type V = Vec16;
    const REGISTERS: usize = 8;

    #[inline(always)]
    fn outline<K: Kernel>(self, kernel: K) -> K::Out {
        kernel.run(self)
    }
    #[inline(always)]
    fn splat(self, x: f32) -> Vec16 {
        [x; LANES]
    }
    #[inline(always)]
    fn load(self, from: &Vec16) -> Vec16 {
        *from
    }
    #[inline(always)]
    fn load_f16(self, from: &[f16; LANES]) -> Vec16 {
        each(|i| from[i].to_f32())
    }
    #[inline(always)]
    fn load_bf16(self, from: &[bf16; LANES]) -> Vec16 {
        each(|i| from[i].to_f32())
    }
    #[inline(always)]
    fn load_i8(self, from: &[i8; LANES]) -> Vec16 {
        each(|i| f32::from(from[i]))
    }
    #[inline(always)]
    fn splat_f16(self, x: f16) -> Vec16 {
        [x.to_f32(); LANES]
    }
    #[inline(always)]
    fn store(self, v: Vec16, to: &mut Vec16) {
        *to = v;
    }
    #[inline(always)]
    fn to_f16(self, v: Vec16) -> [f16; LANES] {
        std::array::from_fn(|i| f16::from_f32(v[i]))
    }
    #[inline(always)]
    fn to_bf16(self, v: Vec16) -> [bf16; LANES] {
        std::array::from_fn(|i| bf16::from_f32(v[i]))
    }
    #[inline(always)]
    fn to_i8(self, v: Vec16) -> [i8; LANES] {
        std::array::from_fn(|i| v[i] as i8)
    }
    #[inline(always)]
    fn add(self, a: Vec16, b: Vec16) -> Vec16 {
        each(|i| a[i] + b[i])
    }
    #[inline(always)]
    fn sub(self, a: Vec16, b: Vec16) -> Vec16 {
        each(|i| a[i] - b[i])
    }
    #[inline(always)]
    fn mul(self, a: Vec16, b: Vec16) -> Vec16 {
        each(|i| a[i] * b[i])
    }
    #[inline(always)]
    fn div(self, a: Vec16, b: Vec16) -> Vec16 {
        each(|i| a[i] / b[i])
    }
    #[inline(always)]
    fn fma(self, a: Vec16, b: Vec16, c: Vec16) -> Vec16 {
        each(|i| a[i].mul_add(b[i], c[i]))
    }
    #[inline(always)]
    fn if_less(self, a: Vec16, b: Vec16, yes: Vec16, no: Vec16) -> Vec16 {
        each(|i| if a[i] < b[i] { yes[i] } else { no[i] })
    }
    #[inline(always)]
    fn round(self, v: Vec16) -> Vec16 {
        each(|i| v[i].round_ties_even())
    }
    #[inline(always)]
    fn scale(self, p: Vec16, n: Vec16) -> Vec16 {
        each(|i| {
            // Two steps, since 2^n itself may be beyond f32; the first is exact.
            let n = n[i] as i32;
            let half = n >> 1;
            p[i] * power_of_two(half) * power_of_two(n - half)
        })
    }
    #[inline(always)]
    fn abs(self, v: Vec16) -> Vec16 {
        each(|i| v[i].abs())
    }
    #[inline(always)]
    fn neg(self, v: Vec16) -> Vec16 {
        each(|i| -v[i])
    }
    #[inline(always)]
    fn copysign(self, v: Vec16, sign: Vec16) -> Vec16 {
        each(|i| v[i].copysign(sign[i]))
    }
    #[inline(always)]
    fn swap_pairs(self, v: Vec16) -> Vec16 {
        each(|i| v[i ^ 1])
    }
    #[inline(always)]
    fn load_twice(self, from: &[f32; LANES / 2]) -> Vec16 {
        each(|i| from[i / 2])
    }
    #[inline(always)]
    fn sum(self, v: Vec16) -> f32 {
        let mut lanes = v;
        let mut width = LANES / 2;
        while width > 0 {
            for i in 0..width {
                lanes[i] += lanes[i + width];
            }
            width /= 2;
        }
        lanes[0]
    }
}

/// 2^n for n in -126..=127; other n (of a NaN that was cast) give some number.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits((n.wrapping_add(127) as u32 & 0xff) << 23)
}
