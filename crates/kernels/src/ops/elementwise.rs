//! Operations that treat every element alike. All work row by row on views, in place where the result
//! may overwrite an operand.

use super::math;
use crate::isa::Isa;
use crate::lanes::{Kernel, LANES, Lanes, run};
use crate::mat::{MatMut, MatRef};

/// A function of one element.
pub(super) trait Map: Copy {
    fn of<L: Lanes>(self, l: L, x: L::V) -> L::V;
}

/// A function of two elements of the same place.
trait Zip: Copy {
    fn of<L: Lanes>(self, l: L, x: L::V, y: L::V) -> L::V;
}

/// `x = f(x)`
#[inline(always)]
pub(super) fn map_row<L: Lanes>(l: L, row: &mut [f32], f: impl Map) {
    let (chunks, rest) = row.as_chunks_mut::<LANES>();
    for chunk in chunks {
        l.store(f.of(l, l.load(chunk)), chunk);
    }
    if !rest.is_empty() {
        let x = l.load_some(rest, 0.0);
        l.store_some(f.of(l, x), rest);
    }
}

/// `x = f(x, y)`
#[inline(always)]
fn zip_row<L: Lanes>(l: L, x: &mut [f32], y: &[f32], f: impl Zip) {
    let (xs, x_rest) = x.as_chunks_mut::<LANES>();
    let (ys, y_rest) = y.as_chunks::<LANES>();
    for (x, y) in xs.iter_mut().zip(ys) {
        l.store(f.of(l, l.load(x), l.load(y)), x);
    }
    if !x_rest.is_empty() {
        let value = f.of(l, l.load_some(x_rest, 0.0), l.load_some(y_rest, 0.0));
        l.store_some(value, x_rest);
    }
}

struct MapRows<'a, F> {
    x: MatMut<'a>,
    f: F,
}

impl<F: Map> Kernel for MapRows<'_, F> {
    type Out = ();
    #[inline(always)]
    fn run<L: Lanes>(mut self, l: L) {
        if let Some(all) = self.x.as_mut_slice() {
            return map_row(l, all, self.f);
        }
        for i in 0..self.x.rows() {
            map_row(l, self.x.row_mut(i), self.f);
        }
    }
}

struct ZipRows<'a, F> {
    x: MatMut<'a>,
    y: MatRef<'a>,
    /// Use row 0 of `y` for every row of `x`.
    broadcast: bool,
    f: F,
}

impl<F: Zip> Kernel for ZipRows<'_, F> {
    type Out = ();
    #[inline(always)]
    fn run<L: Lanes>(mut self, l: L) {
        for i in 0..self.x.rows() {
            let y = self.y.row(if self.broadcast { 0 } else { i });
            zip_row(l, self.x.row_mut(i), y, self.f);
        }
    }
}

#[track_caller]
fn same_shape(x: MatRef<'_>, y: MatRef<'_>) {
    assert_eq!((x.rows(), x.cols()), (y.rows(), y.cols()), "shapes differ");
}

#[derive(Copy, Clone)]
struct Add;
impl Zip for Add {
    #[inline(always)]
    fn of<L: Lanes>(self, l: L, x: L::V, y: L::V) -> L::V {
        l.add(x, y)
    }
}

/// `out += x`
///
/// # Panics
/// When the shapes differ.
#[track_caller]
pub fn add(isa: Isa, x: MatRef<'_>, out: MatMut<'_>) {
    same_shape(x, out.as_ref());
    run(
        isa,
        ZipRows {
            x: out,
            y: x,
            broadcast: false,
            f: Add,
        },
    );
}

/// Adds `bias` to every row of `out`.
///
/// # Panics
/// When `bias` is not as long as a row.
#[track_caller]
pub fn add_bias(isa: Isa, bias: &[f32], out: MatMut<'_>) {
    let y = MatRef::dense(bias, 1, out.cols());
    run(
        isa,
        ZipRows {
            x: out,
            y,
            broadcast: true,
            f: Add,
        },
    );
}

#[derive(Copy, Clone)]
struct Scale(f32);
impl Map for Scale {
    #[inline(always)]
    fn of<L: Lanes>(self, l: L, x: L::V) -> L::V {
        l.mul(x, l.splat(self.0))
    }
}

/// `x *= factor`
pub fn scale(isa: Isa, factor: f32, x: MatMut<'_>) {
    run(
        isa,
        MapRows {
            x,
            f: Scale(factor),
        },
    );
}

#[derive(Copy, Clone)]
pub(super) struct Divide(pub(super) f32);
impl Map for Divide {
    #[inline(always)]
    fn of<L: Lanes>(self, l: L, x: L::V) -> L::V {
        l.div(x, l.splat(self.0))
    }
}

#[derive(Copy, Clone)]
struct SiluMul;
impl Zip for SiluMul {
    #[inline(always)]
    fn of<L: Lanes>(self, l: L, x: L::V, y: L::V) -> L::V {
        l.mul(math::silu(l, x), y)
    }
}

/// `gate = silu(gate) * up`, where silu(x) = x / (1 + e^-x): the gated linear unit of Llama and Qwen.
///
/// # Panics
/// When the shapes differ.
#[track_caller]
pub fn silu_mul_in_place(isa: Isa, up: MatRef<'_>, gate: MatMut<'_>) {
    same_shape(up, gate.as_ref());
    run(
        isa,
        ZipRows {
            x: gate,
            y: up,
            broadcast: false,
            f: SiluMul,
        },
    );
}

/// `out = silu(gate) * up`; see [`silu_mul_in_place`].
///
/// # Panics
/// When the shapes differ.
#[track_caller]
pub fn silu_mul(isa: Isa, gate: MatRef<'_>, up: MatRef<'_>, mut out: MatMut<'_>) {
    out.copy_from(gate);
    silu_mul_in_place(isa, up, out);
}

#[derive(Copy, Clone)]
struct Gelu;
impl Map for Gelu {
    #[inline(always)]
    fn of<L: Lanes>(self, l: L, x: L::V) -> L::V {
        math::gelu(l, x)
    }
}

/// `x = x Phi(x)`, Phi being the normal distribution's cumulative function: GELU as BERT has it. At most
/// 1.2e-7 |x| off.
pub fn gelu(isa: Isa, x: MatMut<'_>) {
    run(isa, MapRows { x, f: Gelu });
}

#[derive(Copy, Clone)]
struct GeluTanh;
impl Map for GeluTanh {
    #[inline(always)]
    fn of<L: Lanes>(self, l: L, x: L::V) -> L::V {
        math::gelu_tanh(l, x)
    }
}

/// GELU by its approximation through a hyperbolic tangent (Hendrycks and Gimpel, 2016).
pub fn gelu_tanh(isa: Isa, x: MatMut<'_>) {
    run(isa, MapRows { x, f: GeluTanh });
}

#[derive(Copy, Clone)]
struct Exp;
impl Map for Exp {
    #[inline(always)]
    fn of<L: Lanes>(self, l: L, x: L::V) -> L::V {
        math::exp(l, x)
    }
}

/// `x = e^x`, at most 1 unit in the last place off; 0 below -87.33654, where the result would be
/// denormal.
pub fn exp(isa: Isa, x: &mut [f32]) {
    let cols = x.len();
    run(
        isa,
        MapRows {
            x: MatMut::dense(x, 1, cols),
            f: Exp,
        },
    );
}
