//! Every kernel against its scalar twin bit for bit, and the twin against arithmetic in `f64`.

use super::{Mode, matmul};
use crate::acts::{ActKind, ActLayout, ActRow, Acts, quantize_acts};
use crate::isa::Isa;
use crate::mat::{MatMut, MatRef};
use crate::panel::{PanelLayout, Panels};
use crate::quant::{Dtype, dequantize_row};
use crate::testing::{Random, random_rows};

/// A weight matrix in both forms.
struct Weights {
    layout: PanelLayout,
    packed: Vec<u8>,
    plain: Vec<f32>,
}

impl Weights {
    fn new(dtype: Dtype, rows: usize, cols: usize, file: &[u8]) -> Self {
        let layout = PanelLayout::new(dtype, rows, cols).unwrap();
        let mut packed = vec![0; layout.bytes()];
        layout.pack(0, file, &mut packed);
        let mut plain = vec![0.0; rows * cols];
        for (bytes, row) in file.chunks(layout.row_bytes()).zip(plain.chunks_mut(cols)) {
            dequantize_row(dtype, bytes, row);
        }
        Self {
            layout,
            packed,
            plain,
        }
    }

    fn random(random: &mut Random, dtype: Dtype, rows: usize, cols: usize) -> Self {
        let file = random_rows(random, dtype, rows, cols);
        Self::new(dtype, rows, cols, &file)
    }

    fn panels(&self) -> Panels<'_> {
        Panels::new(self.layout, &self.packed)
    }
}

/// Rows of inputs, quantised if the weights want that.
struct Inputs {
    x: Vec<f32>,
    rows: usize,
    layout: ActLayout,
    bytes: Vec<u8>,
}

impl Inputs {
    fn new(isa: Isa, dtype: Dtype, x: Vec<f32>, cols: usize) -> Self {
        let (kind, rows) = (ActKind::of(dtype), x.len() / cols);
        let layout = ActLayout::new(kind, cols).unwrap();
        let mut bytes = Vec::new();
        if kind != ActKind::F32 {
            bytes = vec![0xAA; rows * layout.row_bytes()];
            quantize_acts(isa, kind, MatRef::dense(&x, rows, cols), &mut bytes);
        }
        Self {
            x,
            rows,
            layout,
            bytes,
        }
    }

    fn acts(&self, from: usize, to: usize) -> Acts<'_> {
        let cols = self.layout.cols();
        if self.layout.kind() == ActKind::F32 {
            return Acts::F32(MatRef::dense(&self.x, self.rows, cols).rows_in(from..to));
        }
        let size = self.layout.row_bytes();
        Acts::Quantized {
            layout: self.layout,
            rows: to - from,
            bytes: &self.bytes[from * size..to * size],
        }
    }

    /// What the product really multiplies by.
    fn value(&self, row: usize, k: usize) -> f64 {
        let cols = self.layout.cols();
        if self.layout.kind() == ActKind::F32 {
            return self.x[row * cols + k].into();
        }
        let size = self.layout.row_bytes();
        let act = ActRow::new(&self.layout, &self.bytes[row * size..][..size]);
        f64::from(quant(&act, k)) * f64::from(act.scale(k / self.layout.kind().block_elems()))
    }
}

fn quant(act: &ActRow<'_>, k: usize) -> i8 {
    act.quants(k - k % 4, 1)[0][k % 4].cast_signed()
}

fn product(isa: Isa, w: Panels<'_>, x: Acts<'_>, mode: Mode, out: &mut [f32]) {
    let out = MatMut::dense(out, x.rows(), w.rows().len());
    matmul(isa, w, x, out, mode);
}

/// `got` must equal the scalar product bit for bit.
#[track_caller]
fn check_equal(got: &[f32], want: &[f32], what: &str) {
    assert_eq!(got.len(), want.len());
    for (i, (g, w)) in got.iter().zip(want).enumerate() {
        assert!(
            g.to_bits() == w.to_bits(),
            "{what}: output {i} is {g:e}, the twin gives {w:e}"
        );
    }
}

/// Inputs along `k` around the edges of blocks.
fn edge_cols(dtype: Dtype) -> &'static [usize] {
    match dtype.block_elems() {
        1 => &[1, 2, 3, 7, 31, 32, 33, 255, 256, 257, 384],
        32 => &[32, 64, 96, 256, 288, 384],
        _ => &[256, 512, 768],
    }
}

#[test]
fn the_twin_is_near_the_exact_product() {
    let mut random = Random::new(3);
    for dtype in Dtype::ALL {
        for &cols in edge_cols(dtype) {
            let (rows, m) = (19, 3);
            let w = Weights::random(&mut random, dtype, rows, cols);
            let x = Inputs::new(Isa::scalar(), dtype, random.units(m * cols), cols);
            let mut got = vec![0.0; m * rows];
            product(
                Isa::scalar(),
                w.panels(),
                x.acts(0, m),
                Mode::Store,
                &mut got,
            );
            for i in 0..m {
                for r in 0..rows {
                    let terms = (0..cols).map(|k| f64::from(w.plain[r * cols + k]) * x.value(i, k));
                    let want: f64 = terms.clone().sum();
                    let size: f64 = terms.map(f64::abs).sum();
                    let got = f64::from(got[i * rows + r]);
                    // A few roundings per block, each relative to the partial sums.
                    assert!(
                        (got - want).abs() <= 3e-6 * size + 1e-30,
                        "{dtype} {m}x{rows}x{cols}: {got} for {want}"
                    );
                }
            }
        }
    }
}

#[test]
fn every_isa_gives_the_bits_of_the_twin() {
    let mut random = Random::new(4);
    for dtype in Dtype::ALL {
        for &cols in edge_cols(dtype) {
            for rows in [1, 15, 16, 33, 71] {
                let w = Weights::random(&mut random, dtype, rows, cols);
                let m = if cols > 300 { 17 } else { 5 };
                let x = Inputs::new(Isa::scalar(), dtype, random.units(m * cols), cols);
                let before = random.units(m * rows);
                for mode in [Mode::Store, Mode::Accumulate] {
                    let mut want = before.clone();
                    product(Isa::scalar(), w.panels(), x.acts(0, m), mode, &mut want);
                    for &isa in Isa::available() {
                        let mut got = before.clone();
                        product(isa, w.panels(), x.acts(0, m), mode, &mut got);
                        check_equal(&got, &want, &format!("{dtype} {isa} {m}x{rows}x{cols}"));
                    }
                }
            }
        }
    }
}

#[test]
fn any_number_of_rows_and_any_panels_give_the_same_bits() {
    let mut random = Random::new(5);
    for dtype in Dtype::ALL {
        // Floats beyond one block along k, and odd.
        let cols = if dtype.is_float() { 1031 } else { 512 };
        let (rows, m) = (100, 150);
        let w = Weights::random(&mut random, dtype, rows, cols);
        let x = Inputs::new(Isa::scalar(), dtype, random.units(m * cols), cols);
        let mut want = vec![0.0; m * rows];
        product(
            Isa::scalar(),
            w.panels(),
            x.acts(0, m),
            Mode::Store,
            &mut want,
        );
        for &isa in Isa::available() {
            // The twin is slow, and equal to itself but for its own chunks of rows.
            let counts: Vec<usize> = match isa == Isa::scalar() {
                true => vec![1, 33],
                false => (1..=17).chain([31, 64, 127, 150]).collect(),
            };
            for count in counts {
                let mut got = vec![0.0; count * rows];
                for from in [0, m - count] {
                    got.fill(f32::NAN);
                    let acts = x.acts(from, from + count);
                    product(isa, w.panels(), acts, Mode::Store, &mut got);
                    let want = &want[from * rows..][..count * rows];
                    check_equal(&got, want, &format!("{dtype} {isa} {count} rows"));
                }
            }
            // Each range of panels writes its own columns only.
            let mut got = vec![0.0; m * rows];
            let mut rest = MatMut::dense(&mut got, m, rows);
            let mut done = 0;
            for range in [0..1, 1..3, 3..3, 3..6, 6..7] {
                let part = w.panels().range(range);
                let (out, after) = rest.split_at_col(part.rows().end - done);
                matmul(isa, part, x.acts(0, m), out, Mode::Store);
                (rest, done) = (after, part.rows().end);
            }
            check_equal(&got, &want, &format!("{dtype} {isa} by panels"));
        }
    }
}

#[test]
fn extremes_give_the_same_bits_too() {
    let mut random = Random::new(6);
    for dtype in Dtype::ALL {
        let cols = 3 * dtype.block_elems().max(32);
        let (rows, m) = (18, 14);
        let mut file = random_rows(&mut random, dtype, rows, cols);
        // Saturated quants, zero blocks, halves and floats that are denormal.
        let bytes = dtype.row_bytes(cols).unwrap();
        for (row, fill) in [(1, 0x00), (2, 0xFF), (3, 0x80), (4, 0x7F)] {
            let row = &mut file[row * bytes..][..bytes];
            if dtype.is_float() {
                row.fill(if fill == 0x00 { 0 } else { 0x01 });
            } else {
                set_quants(dtype, row, fill);
            }
        }
        let w = Weights::new(dtype, rows, cols, &file);
        let mut x = random.units(m * cols);
        for (row, x) in x.chunks_mut(cols).enumerate() {
            let sign = |k: usize| if k.is_multiple_of(3) { -1.0 } else { 1.0 };
            match row {
                0 => x.fill(0.0),
                1 => x.fill(-0.0),
                2 => x.fill(1.0),
                3 => x.fill(-1.0),
                4 => x.iter_mut().for_each(|x| *x *= 1e30),
                5 => x.iter_mut().for_each(|x| *x *= 1e-30),
                6 => x.iter_mut().for_each(|x| *x *= 1e-40),
                7 => x.iter_mut().enumerate().for_each(|(k, x)| *x = sign(k)),
                8 => x[cols / 2..].fill(0.0),
                9 => x.iter_mut().for_each(|x| *x = x.signum() * 1.5 / 127.0),
                10 => x[0] = 1e35,
                _ => {}
            }
        }
        let x = Inputs::new(Isa::scalar(), dtype, x, cols);
        let mut want = vec![0.0; m * rows];
        product(
            Isa::scalar(),
            w.panels(),
            x.acts(0, m),
            Mode::Store,
            &mut want,
        );
        assert!(want.iter().all(|x| x.is_finite()), "{dtype}");
        for &isa in Isa::available() {
            let mut got = vec![0.0; m * rows];
            product(isa, w.panels(), x.acts(0, m), Mode::Store, &mut got);
            check_equal(&got, &want, &format!("{dtype} {isa} all rows"));
            for i in 0..m {
                let mut got = vec![0.0; rows];
                product(isa, w.panels(), x.acts(i, i + 1), Mode::Store, &mut got);
                let want = &want[i * rows..][..rows];
                check_equal(&got, want, &format!("{dtype} {isa} row {i}"));
            }
        }
    }
}

/// Fills the quants and integer scales of a row and leaves its halves alone.
fn set_quants(dtype: Dtype, row: &mut [u8], fill: u8) {
    for block in row.chunks_mut(dtype.block_bytes()) {
        let halves = match dtype {
            Dtype::Q4_0 | Dtype::Q5_0 | Dtype::Q8_0 => 0..2,
            Dtype::Q6K => 208..210,
            _ => 0..4,
        };
        for (i, b) in block.iter_mut().enumerate() {
            if !halves.contains(&i) {
                *b = fill;
            }
        }
    }
}

#[test]
fn activations_have_the_same_bytes_on_every_isa() {
    let mut random = Random::new(7);
    for kind in [ActKind::Q8x32, ActKind::Q8x256] {
        for blocks in [1, 2, 3, 8, 9] {
            let cols = blocks * kind.block_elems();
            let m = 9;
            let mut x = random.units(m * cols);
            for (row, x) in x.chunks_mut(cols).enumerate() {
                match row {
                    0 => x.fill(0.0),
                    1 => x.iter_mut().for_each(|x| *x *= 1e38),
                    2 => x.iter_mut().for_each(|x| *x *= 1e-36),
                    3 => x.iter_mut().for_each(|x| *x *= 1e-42),
                    // Halves between two integers: ties go to even.
                    4 => x
                        .iter_mut()
                        .enumerate()
                        .for_each(|(k, x)| *x = k as f32 % 127.0 - 63.5),
                    5 => x[cols / 2] = 127.0,
                    _ => {}
                }
            }
            let layout = ActLayout::new(kind, cols).unwrap();
            let mut want = vec![0x55; m * layout.row_bytes()];
            quantize_acts(Isa::scalar(), kind, MatRef::dense(&x, m, cols), &mut want);
            for &isa in Isa::available() {
                let mut got = vec![0xAA; m * layout.row_bytes()];
                quantize_acts(isa, kind, MatRef::dense(&x, m, cols), &mut got);
                assert!(got == want, "{kind:?} {isa} {cols} columns");
            }
        }
    }
}

#[test]
fn activations_are_near_their_values_and_their_sums_exact() {
    let mut random = Random::new(8);
    for kind in [ActKind::Q8x32, ActKind::Q8x256] {
        let (block, cols) = (kind.block_elems(), 3 * kind.block_elems());
        let x = random.units(cols);
        let layout = ActLayout::new(kind, cols).unwrap();
        let mut bytes = vec![0; layout.row_bytes()];
        quantize_acts(Isa::scalar(), kind, MatRef::dense(&x, 1, cols), &mut bytes);
        let act = ActRow::new(&layout, &bytes);
        for (k, x) in x.iter().enumerate() {
            let back = f32::from(quant(&act, k)) * act.scale(k / block);
            assert!((back - x).abs() <= 0.5001 * act.scale(k / block));
        }
        let sum = |from: usize, n: usize| -> i32 {
            (from..from + n).map(|k| i32::from(quant(&act, k))).sum()
        };
        match kind {
            ActKind::Q8x32 => (0..cols / 32).for_each(|b| {
                assert_eq!(act.block_sum(b), sum(32 * b, 32));
            }),
            _ => {
                (0..cols / 16).for_each(|b| assert_eq!(act.sum16(b), sum(16 * b, 16)));
                (0..cols / 32).for_each(|b| assert_eq!(act.sum32(b), sum(32 * b, 32)));
            }
        }
    }
}
