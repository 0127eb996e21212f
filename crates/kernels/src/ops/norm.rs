//! Rows brought to a common size: RMS norm, layer norm, L2 norm.

use super::elementwise::{Divide, map_row};
use crate::isa::Isa;
use crate::lanes::{Kernel, LANES, Lanes, run};
use crate::mat::{MatMut, MatRef};

/// A sum over a row of `f(x)` folded into an accumulator, in the order of [`crate::ops`].
#[inline(always)]
fn fold_row<L: Lanes>(l: L, row: &[f32], fill: f32, f: impl Fn(L::V, L::V) -> L::V) -> f32 {
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut sum = l.splat(0.0);
    for chunk in chunks {
        sum = f(l.load(chunk), sum);
    }
    if !rest.is_empty() {
        sum = f(l.load_some(rest, fill), sum);
    }
    l.sum(sum)
}

/// The sum of squares.
#[inline(always)]
fn square_sum<L: Lanes>(l: L, row: &[f32]) -> f32 {
    fold_row(l, row, 0.0, |x, sum| l.fma(x, x, sum))
}

/// `out[i] = f(x[i], w[i], b[i])`
#[inline(always)]
fn weigh_row<L: Lanes>(
    l: L,
    [x, w, b]: [&[f32]; 3],
    out: &mut [f32],
    f: impl Fn(L::V, L::V, L::V) -> L::V,
) {
    let (xs, x_rest) = x.as_chunks::<LANES>();
    let (ws, w_rest) = w.as_chunks::<LANES>();
    let (bs, b_rest) = b.as_chunks::<LANES>();
    let (outs, out_rest) = out.as_chunks_mut::<LANES>();
    for (((x, w), b), out) in xs.iter().zip(ws).zip(bs).zip(outs) {
        l.store(f(l.load(x), l.load(w), l.load(b)), out);
    }
    if !out_rest.is_empty() {
        let [x, w, b] = [x_rest, w_rest, b_rest].map(|rest| l.load_some(rest, 0.0));
        l.store_some(f(x, w, b), out_rest);
    }
}

/// `row[i] = f(row[i], w[i], b[i])`
#[inline(always)]
fn weigh_row_in_place<L: Lanes>(
    l: L,
    row: &mut [f32],
    [w, b]: [&[f32]; 2],
    f: impl Fn(L::V, L::V, L::V) -> L::V,
) {
    let (rows, row_rest) = row.as_chunks_mut::<LANES>();
    let (ws, w_rest) = w.as_chunks::<LANES>();
    let (bs, b_rest) = b.as_chunks::<LANES>();
    for ((x, w), b) in rows.iter_mut().zip(ws).zip(bs) {
        l.store(f(l.load(x), l.load(w), l.load(b)), x);
    }
    if !row_rest.is_empty() {
        let x = l.load_some(row_rest, 0.0);
        let value = f(x, l.load_some(w_rest, 0.0), l.load_some(b_rest, 0.0));
        l.store_some(value, row_rest);
    }
}

/// What a row is multiplied by so that its mean square becomes 1.
#[inline(always)]
fn rms_factor<L: Lanes>(l: L, row: &[f32], eps: f32) -> f32 {
    1.0 / (square_sum(l, row) / row.len() as f32 + eps).sqrt()
}

struct RmsNorm<'a> {
    x: MatRef<'a>,
    weight: &'a [f32],
    eps: f32,
    out: MatMut<'a>,
}

impl Kernel for RmsNorm<'_> {
    type Out = ();
    #[inline(always)]
    fn run<L: Lanes>(mut self, l: L) {
        for i in 0..self.x.rows() {
            let x = self.x.row(i);
            let factor = l.splat(rms_factor(l, x, self.eps));
            weigh_row(
                l,
                [x, self.weight, self.weight],
                self.out.row_mut(i),
                |x, w, _| l.mul(l.mul(x, factor), w),
            );
        }
    }
}

/// `out = x / sqrt(mean(x^2) + eps) * weight`, row by row (Zhang and Sennrich, 2019).
///
/// # Panics
/// When the shapes differ or `weight` is not as long as a row.
#[track_caller]
pub fn rms_norm(isa: Isa, x: MatRef<'_>, weight: &[f32], eps: f32, out: MatMut<'_>) {
    assert_eq!(
        (x.rows(), x.cols()),
        (out.rows(), out.cols()),
        "shapes differ"
    );
    assert_eq!(weight.len(), x.cols(), "one weight per column");
    run(
        isa,
        RmsNorm {
            x,
            weight,
            eps,
            out,
        },
    );
}

struct RmsNormHeads<'a> {
    x: MatMut<'a>,
    weight: &'a [f32],
    eps: f32,
}

impl Kernel for RmsNormHeads<'_> {
    type Out = ();
    #[inline(always)]
    fn run<L: Lanes>(mut self, l: L) {
        for i in 0..self.x.rows() {
            for head in self.x.row_mut(i).chunks_exact_mut(self.weight.len()) {
                let factor = l.splat(rms_factor(l, head, self.eps));
                weigh_row_in_place(l, head, [self.weight; 2], |x, w, _| {
                    l.mul(l.mul(x, factor), w)
                });
            }
        }
    }
}

/// [`rms_norm`] in place and for each head by itself, a head being `weight.len()` columns: the norm of
/// queries and keys in Qwen3. With a weight as long as a row it norms whole rows in place.
///
/// # Panics
/// When a row is not a whole number of heads.
#[track_caller]
pub fn rms_norm_heads(isa: Isa, weight: &[f32], eps: f32, x: MatMut<'_>) {
    assert!(
        !weight.is_empty() && x.cols().is_multiple_of(weight.len()),
        "{} columns are no whole number of heads of {}",
        x.cols(),
        weight.len()
    );
    run(isa, RmsNormHeads { x, weight, eps });
}

/// Mean, and what a centred row is multiplied by so that its variance becomes 1.
#[inline(always)]
fn moments<L: Lanes>(l: L, row: &[f32], eps: f32) -> (f32, f32) {
    let count = row.len() as f32;
    let mean = fold_row(l, row, 0.0, |x, sum| l.add(sum, x)) / count;
    let centre = l.splat(mean);
    // Lanes beyond the end hold the mean, so their distance from it is zero.
    let variance = fold_row(l, row, mean, |x, sum| {
        let distance = l.sub(x, centre);
        l.fma(distance, distance, sum)
    }) / count;
    (mean, 1.0 / (variance + eps).sqrt())
}

struct LayerNorm<'a> {
    x: MatRef<'a>,
    weight: &'a [f32],
    bias: &'a [f32],
    eps: f32,
    out: MatMut<'a>,
}

impl Kernel for LayerNorm<'_> {
    type Out = ();
    #[inline(always)]
    fn run<L: Lanes>(mut self, l: L) {
        for i in 0..self.x.rows() {
            let x = self.x.row(i);
            let (mean, factor) = moments(l, x, self.eps);
            let (mean, factor) = (l.splat(mean), l.splat(factor));
            weigh_row(
                l,
                [x, self.weight, self.bias],
                self.out.row_mut(i),
                |x, w, b| l.fma(l.mul(l.sub(x, mean), factor), w, b),
            );
        }
    }
}

struct LayerNormInPlace<'a> {
    x: MatMut<'a>,
    weight: &'a [f32],
    bias: &'a [f32],
    eps: f32,
}

impl Kernel for LayerNormInPlace<'_> {
    type Out = ();
    #[inline(always)]
    fn run<L: Lanes>(mut self, l: L) {
        for i in 0..self.x.rows() {
            let row = self.x.row_mut(i);
            let (mean, factor) = moments(l, row, self.eps);
            let (mean, factor) = (l.splat(mean), l.splat(factor));
            weigh_row_in_place(l, row, [self.weight, self.bias], |x, w, b| {
                l.fma(l.mul(l.sub(x, mean), factor), w, b)
            });
        }
    }
}

/// `out = (x - mean) / sqrt(variance + eps) * weight + bias`, row by row (Ba, Kiros and Hinton, 2016).
///
/// # Panics
/// When the shapes differ or `weight` or `bias` is not as long as a row.
#[track_caller]
pub fn layer_norm(
    isa: Isa,
    x: MatRef<'_>,
    weight: &[f32],
    bias: &[f32],
    eps: f32,
    out: MatMut<'_>,
) {
    assert_eq!(
        (x.rows(), x.cols()),
        (out.rows(), out.cols()),
        "shapes differ"
    );
    assert_eq!(
        [weight.len(), bias.len()],
        [x.cols(); 2],
        "one weight and bias per column"
    );
    run(
        isa,
        LayerNorm {
            x,
            weight,
            bias,
            eps,
            out,
        },
    );
}

/// [`layer_norm`] in place.
///
/// # Panics
/// When `weight` or `bias` is not as long as a row.
#[track_caller]
pub fn layer_norm_in_place(isa: Isa, weight: &[f32], bias: &[f32], eps: f32, x: MatMut<'_>) {
    assert_eq!(
        [weight.len(), bias.len()],
        [x.cols(); 2],
        "one weight and bias per column"
    );
    run(
        isa,
        LayerNormInPlace {
            x,
            weight,
            bias,
            eps,
        },
    );
}

struct L2Normalize<'a>(MatMut<'a>);

impl Kernel for L2Normalize<'_> {
    type Out = ();
    #[inline(always)]
    fn run<L: Lanes>(mut self, l: L) {
        for i in 0..self.0.rows() {
            let row = self.0.row_mut(i);
            let norm = square_sum(l, row).sqrt();
            map_row(l, row, Divide(if norm < 1e-12 { 1e-12 } else { norm }));
        }
    }
}

/// Each row divided by its Euclidean length (or by 1e-12, if that is shorter).
pub fn l2_normalize(isa: Isa, x: MatMut<'_>) {
    run(isa, L2Normalize(x));
}
