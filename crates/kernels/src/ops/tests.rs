//! Every op against its naive twin in `f64`, at all sizes around lane edges; and the same bits on every
//! instruction set, in place or not, whatever rows stand beside.

use super::*;
use crate::isa::Isa;
use crate::lanes::{Kernel, LANES, Lanes, Vec16, run};
use crate::mat::{MatMut, MatRef};
use crate::testing::Random;

/// Sizes of rows.
fn sizes() -> impl Iterator<Item = usize> {
    (1..=66).chain([79, 80, 96, 127, 128, 129, 130, 1023, 1024, 1025, 4096])
}

/// Runs `op` on every instruction set: all give the same bits, each value within `bound` of `naive`'s,
/// relative to the larger of 1 and its magnitude.
#[track_caller]
fn check(what: &str, bound: f64, naive: &[f64], op: impl Fn(Isa) -> Vec<f32>) {
    let first = op(Isa::scalar());
    assert_eq!(first.len(), naive.len(), "{what}");
    for (i, (&got, &want)) in first.iter().zip(naive).enumerate() {
        let off = (f64::from(got) - want).abs() / want.abs().max(1.0);
        assert!(off <= bound, "{what}: value {i} is {got}, expected {want}");
    }
    for &isa in Isa::available() {
        for (i, (a, b)) in first.iter().zip(op(isa)).enumerate() {
            assert!(
                a.to_bits() == b.to_bits(),
                "{what}, {isa}: value {i} is {b}, not {a}"
            );
        }
    }
}

fn wide(row: &[f32]) -> Vec<f64> {
    row.iter().map(|&x| x.into()).collect()
}

/// Three rows of random values in -4..4 with a gap behind each.
struct Rows {
    data: Vec<f32>,
    cols: usize,
    stride: usize,
}

impl Rows {
    fn new(random: &mut Random, cols: usize) -> Self {
        let stride = cols + 3;
        Self {
            data: random.units(3 * stride).iter().map(|x| 4.0 * x).collect(),
            cols,
            stride,
        }
    }

    fn view(&self) -> MatRef<'_> {
        MatRef::new(&self.data, 3, self.cols, self.stride)
    }

    /// The values after `op` in place; what lies in the gaps must stay.
    fn after(&self, op: impl FnOnce(MatMut<'_>)) -> Vec<f32> {
        let mut data = self.data.clone();
        op(MatMut::new(&mut data, 3, self.cols, self.stride));
        let gap = |data: &[f32], row: usize| {
            data[row * self.stride + self.cols..(row + 1) * self.stride].to_vec()
        };
        assert!(
            (0..3).all(|row| gap(&data, row) == gap(&self.data, row)),
            "a gap was written"
        );
        let rows = MatRef::new(&data, 3, self.cols, self.stride);
        (0..3).flat_map(|i| rows.row(i).to_vec()).collect()
    }

    fn map(&self, f: impl Fn(&[f64]) -> Vec<f64>) -> Vec<f64> {
        (0..3).flat_map(|i| f(&wide(self.view().row(i)))).collect()
    }
}

#[test]
fn sums_and_products() {
    let mut random = Random::new(1);
    for cols in sizes() {
        let (x, y) = (Rows::new(&mut random, cols), Rows::new(&mut random, cols));
        let bias = random.units(cols);
        let pairs = |f: fn(f64, f64) -> f64| -> Vec<f64> {
            let (xs, ys) = (x.map(<[f64]>::to_vec), y.map(<[f64]>::to_vec));
            xs.into_iter().zip(ys).map(|(x, y)| f(x, y)).collect()
        };
        check("add", 1e-7, &pairs(|x, y| x + y), |isa| {
            x.after(|x| add(isa, y.view(), x))
        });
        let biased = x.map(|row| {
            row.iter()
                .zip(&bias)
                .map(|(x, &b)| x + f64::from(b))
                .collect()
        });
        check("add_bias", 1e-7, &biased, |isa| {
            x.after(|x| add_bias(isa, &bias, x))
        });
        let scaled = x.map(|row| row.iter().map(|x| x * 0.75).collect());
        check("scale", 1e-7, &scaled, |isa| {
            x.after(|x| scale(isa, 0.75, x))
        });
        let silu = pairs(|x, y| x / (1.0 + (-x).exp()) * y);
        check("silu_mul", 4e-7, &silu, |isa| {
            x.after(|x| silu_mul_in_place(isa, y.view(), x))
        });
        let apart = |isa| y.after(|out| silu_mul(isa, x.view(), y.view(), out));
        check("silu_mul apart", 4e-7, &silu, apart);
    }
}

#[test]
fn activations() {
    let mut random = Random::new(2);
    let each = |x: &Rows, f: fn(f64) -> f64| x.map(|row| row.iter().map(|&x| f(x)).collect());
    for cols in sizes() {
        let x = Rows::new(&mut random, cols);
        let exact = each(&x, |x| 0.5 * x * (1.0 + erf_exact(x / 2f64.sqrt())));
        check("gelu", 3e-7, &exact, |isa| x.after(|x| gelu(isa, x)));
        let tanh = each(&x, |x| {
            let u = (2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x);
            0.5 * x * (1.0 + u.tanh())
        });
        check("gelu_tanh", 3e-7, &tanh, |isa| {
            x.after(|x| gelu_tanh(isa, x))
        });
        let row = x.view().row(1);
        let naive: Vec<f64> = row.iter().map(|&x| f64::from(x).exp()).collect();
        check("exp", 2e-7, &naive, |isa| {
            let mut row = row.to_vec();
            exp(isa, &mut row);
            row
        });
    }
}

#[test]
fn norms() {
    let mut random = Random::new(3);
    for cols in sizes() {
        let x = Rows::new(&mut random, cols);
        let (w, b) = (random.units(cols), random.units(cols));
        let eps = 1e-6;
        let count = cols as f64;
        let rms = x.map(|row| {
            let mean = row.iter().map(|x| x * x).sum::<f64>() / count;
            row.iter()
                .zip(&w)
                .map(|(x, &w)| x / (mean + eps).sqrt() * f64::from(w))
                .collect()
        });
        let eps32 = eps as f32;
        let apart = |isa| x.after(|out| rms_norm(isa, x.view(), &w, eps32, out));
        check("rms_norm", 1e-6, &rms, apart);
        let whole = |isa| x.after(|x| rms_norm_heads(isa, &w, eps32, x));
        check("rms_norm in place", 1e-6, &rms, whole);

        // eps of BERT; a single column has no variance but that.
        let eps = 1e-12f32;
        let layer = x.map(|row| {
            let mean = row.iter().sum::<f64>() / count;
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / count;
            let factor = 1.0 / (variance + f64::from(eps)).sqrt();
            let affine = w.iter().zip(&b);
            row.iter()
                .zip(affine)
                .map(|(x, (&w, &b))| (x - mean) * factor * f64::from(w) + f64::from(b))
                .collect()
        });
        let apart = |isa| x.after(|out| layer_norm(isa, x.view(), &w, &b, eps, out));
        check("layer_norm", 2e-6, &layer, apart);
        let in_place = |isa| x.after(|x| layer_norm_in_place(isa, &w, &b, eps, x));
        check("layer_norm in place", 2e-6, &layer, in_place);

        let unit = x.map(|row| {
            let norm = row.iter().map(|x| x * x).sum::<f64>().sqrt();
            row.iter().map(|x| x / norm).collect()
        });
        check("l2_normalize", 4e-7, &unit, |isa| {
            x.after(|x| l2_normalize(isa, x))
        });
    }
    for head_dim in [1, 8, 20, 64, 128] {
        let x = Rows::new(&mut random, 3 * head_dim);
        let w = random.units(head_dim);
        let heads = x.map(|row| {
            let normed = row.chunks(head_dim).flat_map(|head| {
                let mean = head.iter().map(|x| x * x).sum::<f64>() / head_dim as f64;
                let factor = 1.0 / (mean + 1e-6).sqrt();
                head.iter()
                    .zip(&w)
                    .map(move |(x, &w)| x * factor * f64::from(w))
            });
            normed.collect()
        });
        check("rms_norm_heads", 1e-6, &heads, |isa| {
            x.after(|x| rms_norm_heads(isa, &w, 1e-6, x))
        });
    }
    let mut zeros = vec![0.0; 20];
    for &isa in Isa::available() {
        l2_normalize(isa, MatMut::dense(&mut zeros, 1, 20));
        assert_eq!(zeros, [0.0; 20]);
    }
}

#[test]
fn turning() {
    let mut random = Random::new(4);
    for style in [RopeStyle::Neox, RopeStyle::Interleaved] {
        for (head_dim, turned) in [
            (2, 2),
            (8, 8),
            (32, 32),
            (64, 64),
            (80, 32),
            (96, 20),
            (128, 128),
            (66, 66),
            (50, 0),
        ] {
            let x = Rows::new(&mut random, 2 * head_dim);
            let frequencies: Vec<f32> = (0..turned / 2)
                .map(|i| 10000f32.powf(-2.0 * i as f32 / turned as f32))
                .collect();
            let positions = [0, 7, 100_000];
            let half = turned / 2;
            let (mut cos, mut sin) = (vec![0.0; 3 * half], vec![0.0; 3 * half]);
            let tables =
                [&mut cos, &mut sin].map(|table| MatMut::dense(table.as_mut_slice(), 3, half));
            let [cos_out, sin_out] = tables;
            rope_angles(&positions, &frequencies, 1.0, cos_out, sin_out);
            let mut naive = x.map(<[f64]>::to_vec);
            for (row, &position) in naive.chunks_mut(2 * head_dim).zip(&positions) {
                for head in row.chunks_mut(head_dim) {
                    for (i, &frequency) in frequencies.iter().enumerate() {
                        let angle = f64::from(position as f32 * frequency);
                        let (a, b) = match style {
                            RopeStyle::Neox => (i, i + half),
                            RopeStyle::Interleaved => (2 * i, 2 * i + 1),
                        };
                        let (x, y) = (head[a], head[b]);
                        head[a] = x * angle.cos() - y * angle.sin();
                        head[b] = y * angle.cos() + x * angle.sin();
                    }
                }
            }
            check("rope", 3e-7, &naive, |isa| {
                let tables = [&cos, &sin].map(|table| MatRef::dense(table, 3, half));
                x.after(|x| rope(isa, style, head_dim, tables[0], tables[1], x))
            });
        }
    }
}

#[test]
fn sine_and_cosine() {
    let mut random = Random::new(5);
    let mut worst: f64 = 0.0;
    for i in 0..200_000 {
        let magnitude = [1.0, 100.0, 1e4, 1_048_576.0][i % 4];
        let x = f64::from(random.unit()) * magnitude;
        let (sin, cos) = math::sin_cos(x);
        worst = worst.max((sin - x.sin()).abs()).max((cos - x.cos()).abs());
    }
    assert!(worst < 4e-16, "{worst}");
    assert_eq!(math::sin_cos(0.0), (0.0, 1.0));
}

#[test]
fn distributions() {
    let mut random = Random::new(6);
    for cols in sizes() {
        let mut row: Vec<f32> = random.units(cols).iter().map(|x| 20.0 * x).collect();
        if cols > 3 {
            row[cols / 2] = f32::NEG_INFINITY;
            row[cols - 1] = -300.0;
        }
        let total: f64 = row.iter().map(|&x| f64::from(x).exp()).sum();
        let naive: Vec<f64> = row.iter().map(|&x| f64::from(x).exp() / total).collect();
        check("softmax", 1e-6, &naive, |isa| {
            let mut row = row.clone();
            softmax(isa, &mut row);
            row
        });
        check("log_sum_exp", 2e-7, &[total.ln()], |isa| {
            vec![log_sum_exp(isa, &row)]
        });
    }
    for &isa in Isa::available() {
        assert_eq!(log_sum_exp(isa, &[]), f32::NEG_INFINITY);
        assert_eq!(
            log_sum_exp(isa, &[f32::NEG_INFINITY; 20]),
            f32::NEG_INFINITY
        );
    }
}

#[test]
fn the_first_largest() {
    let mut random = Random::new(7);
    for cols in sizes() {
        // Few different values, so that equals are common.
        let mut row: Vec<f32> = (0..cols).map(|_| (random.next() % 5) as f32).collect();
        row[(random.next() % cols as u64) as usize] = f32::NAN;
        let naive = row.iter().enumerate().filter(|(_, x)| !x.is_nan()).fold(
            None,
            |best: Option<(usize, f32)>, (i, &x)| match best {
                Some((_, most)) if most >= x => best,
                _ => Some((i, x)),
            },
        );
        for &isa in Isa::available() {
            let want = naive.map_or(0, |(i, _)| i);
            assert_eq!(argmax(isa, &row), Some(want), "{isa}: {row:?}");
        }
    }
    for &isa in Isa::available() {
        assert_eq!(argmax(isa, &[]), None);
        assert_eq!(argmax(isa, &[f32::NEG_INFINITY; 20]), Some(0));
        let mut long = vec![0.0; 151_936];
        long[151_900] = 1.0;
        assert_eq!(argmax(isa, &long), Some(151_900));
    }
}

/// erf by its series, or by the continued fraction of erfc.
fn erf_exact(x: f64) -> f64 {
    let z = x.abs();
    let value = if z < 2.5 {
        let (mut term, mut sum) = (z, z);
        for n in 1..200 {
            term *= -z * z / n as f64;
            sum += term / (2 * n + 1) as f64;
        }
        sum * 2.0 / std::f64::consts::PI.sqrt()
    } else {
        let mut fraction = z;
        for n in (1..200).rev() {
            fraction = z + n as f64 / 2.0 / fraction;
        }
        1.0 - (-z * z).exp() / (std::f64::consts::PI.sqrt() * fraction)
    };
    value.copysign(x)
}

/// A function of [`math`] as an op.
struct Apply<'a, F>(F, &'a mut [f32]);

trait Function {
    fn of<L: Lanes>(&self, l: L, x: L::V) -> L::V;
}

struct ExpOf;
impl Function for ExpOf {
    #[inline(always)]
    fn of<L: Lanes>(&self, l: L, x: L::V) -> L::V {
        math::exp(l, x)
    }
}

struct ErfOf;
impl Function for ErfOf {
    #[inline(always)]
    fn of<L: Lanes>(&self, l: L, x: L::V) -> L::V {
        math::erf(l, x)
    }
}

impl<F: Function> Kernel for Apply<'_, F> {
    type Out = ();
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        for x in self.1.as_chunks_mut::<LANES>().0 {
            l.store(self.0.of(l, l.load(x)), x);
        }
    }
}

/// The distance of `got` from `want` in units of `want`'s last place.
fn ulps(got: f32, want: f64) -> f64 {
    let near = want as f32;
    let unit = f64::from(near.next_up()) - f64::from(near);
    (f64::from(got) - want).abs() / unit
}

/// The largest error of exp over every `step`th `f32` from [`math::EXP_MIN`] to the top, in units in the
/// last place.
fn exp_error(isa: Isa, step: usize) -> f64 {
    let mut worst: f64 = 0.0;
    for (first, last) in [(0.0f32, 88.722_83f32), (-0.0, math::EXP_MIN)] {
        for start in (first.to_bits()..=last.to_bits()).step_by(step * LANES) {
            let x: Vec16 = std::array::from_fn(|i| {
                f32::from_bits((start + (i * step) as u32).min(last.to_bits()))
            });
            let mut got = x;
            run(isa, Apply(ExpOf, &mut got));
            for (x, got) in x.into_iter().zip(got) {
                worst = worst.max(ulps(got, f64::from(x).exp()));
            }
        }
    }
    worst
}

#[test]
fn exp_is_within_a_unit_in_the_last_place() {
    let worst = exp_error(Isa::best(), 4099);
    assert!(worst <= 1.0, "{worst}");
    for &isa in Isa::available() {
        let mut x = [
            0.0,
            -0.0,
            f32::INFINITY,
            f32::NEG_INFINITY,
            f32::NAN,
            88.73,
            -87.337,
            -87.336,
            1e-30,
            -1e-30,
            1e30,
            -1e30,
            -100.0,
            f32::MIN,
            f32::MAX,
            1.0,
        ];
        run(isa, Apply(ExpOf, &mut x));
        assert_eq!(x[..4], [1.0, 1.0, f32::INFINITY, 0.0]);
        assert!(x[4].is_nan());
        assert_eq!((x[5], x[6]), (f32::INFINITY, 0.0));
        assert!(x[7] >= f32::MIN_POSITIVE);
        assert_eq!(
            x[8..15],
            [1.0, 1.0, f32::INFINITY, 0.0, 0.0, 0.0, f32::INFINITY]
        );
    }
}

/// All 2.2 thousand million arguments; minutes. The figure stands at [`math::exp`].
#[test]
#[ignore = "minutes"]
fn exp_everywhere() {
    let worst = exp_error(Isa::best(), 1);
    println!("exp is at most {worst} units in the last place off");
    assert!(worst <= 1.0);
}

#[test]
fn erf_is_within_its_bound() {
    let mut worst: f64 = 0.0;
    for start in (0..0x40e0_0000u32).step_by(16 * 20_011) {
        let x: Vec16 = std::array::from_fn(|i| {
            let x = f32::from_bits(start + 20_011 * i as u32);
            if i % 2 == 0 { x } else { -x }
        });
        let mut got = x;
        run(Isa::best(), Apply(ErfOf, &mut got));
        for (x, got) in x.into_iter().zip(got) {
            worst = worst.max((f64::from(got) - erf_exact(x.into())).abs());
        }
    }
    assert!(worst <= 1.2e-7, "{worst}");
}
