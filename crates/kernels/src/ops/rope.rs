//! Rotary position embedding (Su et al., 2021): pairs of a head's columns turned by an angle that grows
//! with the position.

use super::math;
use crate::isa::Isa;
use crate::lanes::{Kernel, LANES, Lanes, Vec16, run};
use crate::mat::{MatMut, MatRef};

/// Which columns of a head make a pair, of `d` columns that are turned.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum RopeStyle {
    /// `i` and `i + d / 2`: as Hugging Face's checkpoints and GPT-NeoX have it.
    Neox,
    /// `2 i` and `2 i + 1`: as GGUF files of the Llama family have it.
    Interleaved,
}

/// The cosines and sines of `positions[row] * frequencies[i]`, times `magnitude`, for [`rope`].
///
/// The angle is rounded to `f32` first, as the models' own code does. `cos` and `sin` have a row per
/// position and a column per frequency. `magnitude` is 1 but for yarn.
///
/// # Panics
/// When a shape is another.
#[track_caller]
pub fn rope_angles(
    positions: &[u32],
    frequencies: &[f32],
    magnitude: f32,
    mut cos: MatMut<'_>,
    mut sin: MatMut<'_>,
) {
    let shape = (positions.len(), frequencies.len());
    assert_eq!(
        (cos.rows(), cos.cols()),
        shape,
        "a row per position, a column per frequency"
    );
    assert_eq!(
        (sin.rows(), sin.cols()),
        shape,
        "a row per position, a column per frequency"
    );
    for (i, &position) in positions.iter().enumerate() {
        let (cos, sin) = (cos.row_mut(i), sin.row_mut(i));
        for ((frequency, cos), sin) in frequencies.iter().zip(cos).zip(sin) {
            let (s, c) = math::sin_cos(f64::from(position as f32 * frequency));
            *cos = c as f32 * magnitude;
            *sin = s as f32 * magnitude;
        }
    }
}

struct Rope<'a> {
    x: MatMut<'a>,
    head_dim: usize,
    cos: MatRef<'a>,
    sin: MatRef<'a>,
    style: RopeStyle,
}

/// `(x c - y s, y c + x s)`
#[inline(always)]
fn turn<L: Lanes>(l: L, [x, y]: [L::V; 2], c: L::V, s: L::V) -> [L::V; 2] {
    [l.fma(x, c, l.neg(l.mul(y, s))), l.fma(y, c, l.mul(x, s))]
}

#[inline(always)]
fn turn_halves<L: Lanes>(l: L, x: &mut [f32], y: &mut [f32], cos: &[f32], sin: &[f32]) {
    let (xs, x_rest) = x.as_chunks_mut::<LANES>();
    let (ys, y_rest) = y.as_chunks_mut::<LANES>();
    let (cs, c_rest) = cos.as_chunks::<LANES>();
    let (ss, s_rest) = sin.as_chunks::<LANES>();
    for (((x, y), c), s) in xs.iter_mut().zip(ys).zip(cs).zip(ss) {
        let [new_x, new_y] = turn(l, [l.load(x), l.load(y)], l.load(c), l.load(s));
        l.store(new_x, x);
        l.store(new_y, y);
    }
    if !x_rest.is_empty() {
        let [x, y] = [&*x_rest, &*y_rest].map(|rest| l.load_some(rest, 0.0));
        let [c, s] = [c_rest, s_rest].map(|rest| l.load_some(rest, 0.0));
        let [new_x, new_y] = turn(l, [x, y], c, s);
        l.store_some(new_x, x_rest);
        l.store_some(new_y, y_rest);
    }
}

/// Turns neighbours: each lane times its cosine plus its neighbour times the sine, negated in even lanes.
#[inline(always)]
fn turn_pairs<L: Lanes>(l: L, x: &mut [f32], cos: &[f32], sin: &[f32]) {
    const HALF: usize = LANES / 2;
    let signs: Vec16 = std::array::from_fn(|i| if i % 2 == 0 { -1.0 } else { 1.0 });
    let signs = l.load(&signs);
    let pairs = |x: L::V, c: &[f32; HALF], s: &[f32; HALF]| {
        let (c, s) = (l.load_twice(c), l.load_twice(s));
        l.fma(x, c, l.mul(signs, l.mul(l.swap_pairs(x), s)))
    };
    let (xs, x_rest) = x.as_chunks_mut::<LANES>();
    let (cs, c_rest) = cos.as_chunks::<HALF>();
    let (ss, s_rest) = sin.as_chunks::<HALF>();
    for ((x, c), s) in xs.iter_mut().zip(cs).zip(ss) {
        l.store(pairs(l.load(x), c, s), x);
    }
    if !x_rest.is_empty() {
        let (mut c, mut s) = ([0.0; HALF], [0.0; HALF]);
        c[..c_rest.len()].copy_from_slice(c_rest);
        s[..s_rest.len()].copy_from_slice(s_rest);
        let new = pairs(l.load_some(x_rest, 0.0), &c, &s);
        l.store_some(new, x_rest);
    }
}

impl Kernel for Rope<'_> {
    type Out = ();
    #[inline(always)]
    fn run<L: Lanes>(mut self, l: L) {
        let half = self.cos.cols();
        for i in 0..self.x.rows() {
            let (cos, sin) = (self.cos.row(i), self.sin.row(i));
            for head in self.x.row_mut(i).chunks_exact_mut(self.head_dim) {
                let turned = &mut head[..2 * half];
                match self.style {
                    RopeStyle::Neox => {
                        let (x, y) = turned.split_at_mut(half);
                        turn_halves(l, x, y, cos, sin);
                    }
                    RopeStyle::Interleaved => turn_pairs(l, turned, cos, sin),
                }
            }
        }
    }
}

/// Turns the pairs of every head of every row in place, by the angles whose cosines and sines stand in the
/// row of the same number (see [`rope_angles`]).
///
/// `x` has rows of heads of `head_dim` columns; `cos` and `sin` have half as many columns as are turned
/// (the first ones of each head; the others stay).
///
/// # Panics
/// When a shape does not fit the others.
#[track_caller]
pub fn rope(
    isa: Isa,
    style: RopeStyle,
    head_dim: usize,
    cos: MatRef<'_>,
    sin: MatRef<'_>,
    x: MatMut<'_>,
) {
    assert!(
        head_dim > 0 && x.cols().is_multiple_of(head_dim),
        "{} columns are no whole number of heads of {head_dim}",
        x.cols()
    );
    assert_eq!(
        (cos.rows(), cos.cols()),
        (sin.rows(), sin.cols()),
        "cosines and sines differ"
    );
    assert_eq!(cos.rows(), x.rows(), "a row of angles per row");
    assert!(
        2 * cos.cols() <= head_dim,
        "{} pairs in a head of {head_dim}",
        cos.cols()
    );
    run(
        isa,
        Rope {
            x,
            head_dim,
            cos,
            sin,
            style,
        },
    );
}
