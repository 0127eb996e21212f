//! One number, or one distribution, out of a row: softmax, log-sum-exp, argmax.

use super::elementwise::{Divide, Map, map_row};
use super::math;
use crate::isa::Isa;
use crate::lanes::{Kernel, LANES, Lanes, run};

/// The largest element, NaN aside; negative infinity of an empty row.
#[inline(always)]
fn largest<L: Lanes>(l: L, row: &[f32]) -> f32 {
    let (chunks, rest) = row.as_chunks::<LANES>();
    let mut most = l.splat(f32::NEG_INFINITY);
    for chunk in chunks {
        most = l.max(most, l.load(chunk));
    }
    if !rest.is_empty() {
        most = l.max(most, l.load_some(rest, f32::NEG_INFINITY));
    }
    l.largest(most)
}

/// Elements that are added in `f32` before their sum goes on in `f64`.
const SPAN: usize = 1024;

#[derive(Copy, Clone)]
struct ExpMinus(f32);
impl Map for ExpMinus {
    #[inline(always)]
    fn of<L: Lanes>(self, l: L, x: L::V) -> L::V {
        math::exp(l, l.sub(x, l.splat(self.0)))
    }
}

/// The sum of e^(x - top): spans of 1024 in the order of [`crate::ops`], spans in ascending order.
#[inline(always)]
fn exp_sum<L: Lanes>(l: L, row: &[f32], top: f32) -> f64 {
    let mut total = 0.0;
    for span in row.chunks(SPAN) {
        let (chunks, rest) = span.as_chunks::<LANES>();
        let mut sum = l.splat(0.0);
        for chunk in chunks {
            sum = l.add(sum, ExpMinus(top).of(l, l.load(chunk)));
        }
        if !rest.is_empty() {
            sum = l.add(
                sum,
                ExpMinus(top).of(l, l.load_some(rest, f32::NEG_INFINITY)),
            );
        }
        total += f64::from(l.sum(sum));
    }
    total
}

struct Softmax<'a>(&'a mut [f32]);

impl Kernel for Softmax<'_> {
    type Out = ();
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let top = largest(l, self.0);
        let total = exp_sum(l, self.0, top);
        map_row(l, self.0, ExpMinus(top));
        map_row(l, self.0, Divide(total as f32));
    }
}

/// `x = e^x / sum(e^x)`; at least one element must be finite, the others may be negative infinity.
pub fn softmax(isa: Isa, x: &mut [f32]) {
    run(isa, Softmax(x));
}

struct LogSumExp<'a>(&'a [f32]);

impl Kernel for LogSumExp<'_> {
    type Out = f32;
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) -> f32 {
        let top = largest(l, self.0);
        if top == f32::NEG_INFINITY {
            return top;
        }
        (f64::from(top) + exp_sum(l, self.0, top).ln()) as f32
    }
}

/// ln sum(e^x): what is taken from a logit to get its log-probability. Negative infinity of nothing.
pub fn log_sum_exp(isa: Isa, x: &[f32]) -> f32 {
    run(isa, LogSumExp(x))
}

struct ArgMax<'a>(&'a [f32]);

/// Indices counted in `f32` lanes are exact up to here.
const COUNT_MAX: usize = 1 << 24;

impl Kernel for ArgMax<'_> {
    type Out = (f32, usize);
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) -> (f32, usize) {
        let first: [f32; LANES] = std::array::from_fn(|i| i as f32);
        let (mut index, step) = (l.load(&first), l.splat(LANES as f32));
        let (mut most, mut place) = (l.splat(f32::NEG_INFINITY), index);
        let (chunks, rest) = self.0.as_chunks::<LANES>();
        let mut look = |x: L::V| {
            place = l.if_less(most, x, index, place);
            most = l.max(most, x);
            index = l.add(index, step);
        };
        for chunk in chunks {
            look(l.load(chunk));
        }
        if !rest.is_empty() {
            look(l.load_some(rest, f32::NEG_INFINITY));
        }
        let (mut values, mut places) = ([0.0; LANES], [0.0; LANES]);
        l.store(most, &mut values);
        l.store(place, &mut places);
        let mut best = (values[0], places[0]);
        for candidate in values.into_iter().zip(places) {
            if candidate.0 > best.0 || (candidate.0 == best.0 && candidate.1 < best.1) {
                best = candidate;
            }
        }
        (best.0, best.1 as usize)
    }
}

/// The place of the largest element, the first of equals; NaN is never the largest. `None` of an empty
/// row.
pub fn argmax(isa: Isa, x: &[f32]) -> Option<usize> {
    let mut best = None;
    for (i, part) in x.chunks(COUNT_MAX).enumerate() {
        let (value, place) = run(isa, ArgMax(part));
        if best.is_none_or(|(most, _)| most < value) {
            best = Some((value, i * COUNT_MAX + place));
        }
    }
    best.map(|(_, place)| place)
}
