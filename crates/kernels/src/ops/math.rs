//! exp, the error function, sine and cosine, of exact and correctly rounded operations only: the same
//! bits on every machine, which a system's own library does not promise.
//!
//! The polynomials are minimax fits (Remez exchange in 40 digits) rounded to `f32`; the tests hold the
//! errors stated here.

// The constants are given as fitted; rounding them to `f32` is meant.
#![allow(clippy::excessive_precision, clippy::approx_constant)]

use crate::lanes::Lanes;

/// Below this, e^x is less than the smallest normal number and [`exp`] gives 0.
pub(crate) const EXP_MIN: f32 = -87.336_54;

/// e^x. At most 1 unit in the last place off for every `f32` above [`EXP_MIN`], below it 0 (no
/// denormals); 1 exactly at 0; infinite where e^x exceeds `f32`; NaN stays NaN.
///
/// x = n ln 2 + r with |r| <= ln 2 / 2 and a polynomial of degree 6 for e^r (after Cody and Waite).
#[inline(always)]
pub(crate) fn exp<L: Lanes>(l: L, x: L::V) -> L::V {
    let top = l.splat(88.8);
    let x = l.if_less(top, x, top, x);
    let n = l.round(l.mul(x, l.splat(std::f32::consts::LOG2_E)));
    // ln 2 in two parts; each fma rounds once.
    let r = l.fma(n, l.splat(-std::f32::consts::LN_2), x);
    let r = l.fma(n, l.splat(1.904_654_3e-9), r);
    let mut p = l.splat(0.001_381_431_6);
    for c in [
        0.008_368_850_7,
        0.041_668_4,
        0.166_665_2,
        0.499_999_94,
        1.0,
        1.0,
    ] {
        p = l.fma(p, r, l.splat(c));
    }
    l.if_less(x, l.splat(EXP_MIN), l.splat(0.0), l.scale(p, n))
}

/// x / (1 + e^-x), that is x times the logistic function of x.
#[inline(always)]
pub(crate) fn silu<L: Lanes>(l: L, x: L::V) -> L::V {
    l.div(x, l.add(l.splat(1.0), exp(l, l.neg(x))))
}

/// The error function, at most 1.2e-7 off.
///
/// Below 1 an odd polynomial, above it 1 - e^-q(x) with a polynomial q for -ln erfc.
#[inline(always)]
pub(crate) fn erf<L: Lanes>(l: L, x: L::V) -> L::V {
    let magnitude = l.abs(x);
    let square = l.mul(x, x);
    let mut small = l.splat(7.677_304_5e-5);
    for c in [
        -0.000_795_261_93,
        0.005_181_108_1,
        -0.026_849_471,
        0.112_834_588,
        -0.376_126_11,
        1.128_379_106_5,
    ] {
        small = l.fma(small, square, l.splat(c));
    }
    let small = l.mul(small, x);
    // From 4 on, erf rounds to 1.
    let four = l.splat(4.0);
    let t = l.if_less(four, magnitude, four, magnitude);
    let mut q = l.splat(-0.000_185_572_89);
    for c in [
        0.002_939_596_5,
        -0.021_805_275,
        0.103_037_283,
        0.638_225_79,
        1.127_040_03,
        0.000_353_733_31,
    ] {
        q = l.fma(q, t, l.splat(c));
    }
    let large = l.copysign(l.sub(l.splat(1.0), exp(l, l.neg(q))), x);
    l.if_less(magnitude, l.splat(1.0), small, large)
}

/// x times the normal distribution's cumulative function, by [`erf`].
#[inline(always)]
pub(crate) fn gelu<L: Lanes>(l: L, x: L::V) -> L::V {
    let half = l.mul(x, l.splat(0.5));
    let erf = erf(l, l.mul(x, l.splat(std::f32::consts::FRAC_1_SQRT_2)));
    l.fma(half, erf, half)
}

/// The approximation of GELU by a hyperbolic tangent: x / (1 + e^-2u), u = sqrt(2 / pi) (x + 0.044715
/// x^3). (Half of 1 + tanh u is the logistic function of 2u.)
#[inline(always)]
pub(crate) fn gelu_tanh<L: Lanes>(l: L, x: L::V) -> L::V {
    let square = l.mul(x, x);
    // -2 sqrt(2 / pi) x (1 + 0.044715 x^2)
    let inner = l.fma(square, l.splat(0.044_715), l.splat(1.0));
    let minus_2u = l.mul(l.mul(x, l.splat(-1.595_769_1)), inner);
    l.div(x, l.add(l.splat(1.0), exp(l, minus_2u)))
}

/// 1 / ((2k + first) (2k + first + 1)): one over the ratios of a Taylor sum's neighbouring terms.
const fn ratios(first: usize) -> [f64; 8] {
    let mut out = [0.0; 8];
    let mut k = 0;
    while k < out.len() {
        out[k] = 1.0 / ((2 * k + first) * (2 * k + first + 1)) as f64;
        k += 1;
    }
    out
}

const SIN_RATIOS: [f64; 8] = ratios(2);
const COS_RATIOS: [f64; 8] = ratios(1);

/// Sine and cosine of `x` radians, |x| up to 2^20, at most 3e-16 off (absolutely).
///
/// The quarter turns are taken off by pi/2 in three parts, the first two of 33 bits (Cody and Waite); the
/// rest goes into Taylor sums of degree 17 and 16.
pub(crate) fn sin_cos(x: f64) -> (f64, f64) {
    /// The first 33 bits of pi/2, the next 33, and the rest.
    const HALF_PI: [f64; 3] = [
        1.570_796_326_734_125_6,
        6.077_100_506_303_966e-11,
        2.022_266_248_795_950_6e-21,
    ];
    let n = (x * std::f64::consts::FRAC_2_PI).round_ties_even();
    // The first two products are exact: n has at most 20 bits.
    let r = ((x - n * HALF_PI[0]) - n * HALF_PI[1]) - n * HALF_PI[2];
    let z = r * r;
    // sin r = r (1 - z / (2 3) (1 - z / (4 5) (1 - ...))), and likewise for the cosine.
    let (mut sin, mut cos) = (1.0, 1.0);
    for k in (0..8).rev() {
        sin = 1.0 - z * SIN_RATIOS[k] * sin;
        cos = 1.0 - z * COS_RATIOS[k] * cos;
    }
    let sin = r * sin;
    match (n as i64) & 3 {
        0 => (sin, cos),
        1 => (cos, -sin),
        2 => (-sin, -cos),
        _ => (-cos, sin),
    }
}
