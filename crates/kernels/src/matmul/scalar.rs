//! The product in portable code: the twin whose bits all other kernels must give.
#![allow(
    clippy::needless_range_loop,
    reason = "one index names a row, a lane or a sub-block in several arrays at once"
)]

use super::Mode;
use crate::acts::{ActRow, Acts, Word};
use crate::mat::{MatMut, MatRef};
use crate::panel::{PANEL_ROWS, Panels, VECTOR_BYTES, record_bytes};
use crate::quant::{BlockQ4K, BlockQ6K, Dtype, half_to_f32, k_scale_min};

/// One value per output row of a panel.
type Lanes<T> = [T; PANEL_ROWS];

/// Rows of activations that share one unpacking of a record.
const ROW_CHUNK: usize = 32;

pub(super) fn matmul(w: Panels<'_>, x: Acts<'_>, mut out: MatMut<'_>, mode: Mode) {
    for panel in 0..w.panels() {
        let bytes = w.panel(panel);
        let first = panel * PANEL_ROWS;
        let mut sums = [[0.0; PANEL_ROWS]; ROW_CHUNK];
        for from in (0..x.rows()).step_by(ROW_CHUNK) {
            let rows = from..x.rows().min(from + ROW_CHUNK);
            let sums = &mut sums[..rows.len()];
            sums.fill([0.0; PANEL_ROWS]);
            match x {
                Acts::F32(x) => {
                    float_panel(w.dtype(), w.cols(), bytes, x.rows_in(rows.clone()), sums)
                }
                Acts::Quantized {
                    layout, bytes: x, ..
                } => {
                    let mut acts = x[rows.start * layout.row_bytes()..]
                        .chunks_exact(layout.row_bytes())
                        .map(|row| ActRow::new(&layout, row));
                    let acts: [Option<ActRow<'_>>; ROW_CHUNK] =
                        std::array::from_fn(|i| if i < rows.len() { acts.next() } else { None });
                    quantized_panel(w.dtype(), bytes, &acts, sums);
                }
            }
            for (sums, m) in sums.iter().zip(rows) {
                let row = &mut out.row_mut(m)[first..];
                for (out, sum) in row.iter_mut().zip(sums) {
                    *out = match mode {
                        Mode::Store => *sum,
                        Mode::Accumulate => *out + sum,
                    };
                }
            }
        }
    }
}

fn float_panel(dtype: Dtype, cols: usize, panel: &[u8], x: MatRef<'_>, sums: &mut [Lanes<f32>]) {
    let weights = |k: usize| -> Lanes<f32> {
        let word = |r: usize, at: usize| -> u32 {
            u32::from_le_bytes(panel[at..at + VECTOR_BYTES].as_chunks().0[r])
        };
        std::array::from_fn(|r| match dtype {
            Dtype::F32 => f32::from_bits(word(r, k * VECTOR_BYTES)),
            Dtype::F16 => half_to_f32(panel[k * VECTOR_BYTES / 2..].as_chunks().0[r]),
            _ => {
                let pair = word(r, k / 2 * VECTOR_BYTES);
                f32::from_bits(if k.is_multiple_of(2) {
                    pair << 16
                } else {
                    pair & 0xFFFF_0000
                })
            }
        })
    };
    for k in 0..cols {
        let w = weights(k);
        for (m, sums) in sums.iter_mut().enumerate() {
            let x = x.row(m)[k];
            for (sum, w) in sums.iter_mut().zip(w) {
                *sum = w.mul_add(x, *sum);
            }
        }
    }
}

/// A record with its quants as plain bytes, and what scales them.
struct Unpacked {
    /// Vectors of four values along `k` for each of the 16 rows, without offset.
    q: [Lanes<[u8; 4]>; 64],
    /// What is to be taken off each quant.
    offset: i32,
    /// Per block (small blocks: two; K-quants: one).
    d: [Lanes<f32>; 2],
    m: [Lanes<f32>; 2],
    /// K-quants: per sub-block of 16 (Q6_K) or 32.
    scale: [Lanes<i32>; 16],
    min: [Lanes<i32>; 8],
}

fn quantized_panel(
    dtype: Dtype,
    panel: &[u8],
    acts: &[Option<ActRow<'_>>; ROW_CHUNK],
    sums: &mut [Lanes<f32>],
) {
    let mut tile = Unpacked {
        q: [[[0; 4]; PANEL_ROWS]; 64],
        offset: 0,
        d: [[0.0; PANEL_ROWS]; 2],
        m: [[0.0; PANEL_ROWS]; 2],
        scale: [[0; PANEL_ROWS]; 16],
        min: [[0; PANEL_ROWS]; 8],
    };
    for (i, record) in panel.chunks_exact(record_bytes(dtype)).enumerate() {
        unpack(dtype, record, &mut tile);
        for (act, sums) in acts.iter().flatten().zip(&mut *sums) {
            match dtype {
                Dtype::Q4K | Dtype::Q5K | Dtype::Q6K => super_block(dtype, &tile, act, i, sums),
                _ => small_blocks(dtype, &tile, act, i, sums),
            }
        }
    }
}

/// Adds `sum q * a` over the vectors in `range` to each lane of `dot`; vector 0 is at `a[0]`.
#[inline]
fn dot(q: &[Lanes<[u8; 4]>], a: &[Word], offset: i32) -> Lanes<i32> {
    let mut dot = [0; PANEL_ROWS];
    for (q, a) in q.iter().zip(a) {
        for (dot, q) in dot.iter_mut().zip(q) {
            for (q, a) in q.iter().zip(a) {
                *dot += (i32::from(*q) - offset) * i32::from(a.cast_signed());
            }
        }
    }
    dot
}

fn small_blocks(
    dtype: Dtype,
    tile: &Unpacked,
    act: &ActRow<'_>,
    record: usize,
    sums: &mut Lanes<f32>,
) {
    for b in 0..2 {
        let block = 2 * record + b;
        let dot = dot(
            &tile.q[8 * b..8 * b + 8],
            act.quants(32 * block, 8),
            tile.offset,
        );
        let (scale, sum) = (act.scale(block), act.block_sum(block) as f32);
        for r in 0..PANEL_ROWS {
            let t = match dtype {
                Dtype::Q4_1 | Dtype::Q5_1 => {
                    tile.d[b][r].mul_add(dot[r] as f32, tile.m[b][r] * sum)
                }
                _ => tile.d[b][r] * dot[r] as f32,
            };
            sums[r] = t.mul_add(scale, sums[r]);
        }
    }
}

fn super_block(
    dtype: Dtype,
    tile: &Unpacked,
    act: &ActRow<'_>,
    block: usize,
    sums: &mut Lanes<f32>,
) {
    let (mut total, mut mins) = ([0i32; PANEL_ROWS], [0i32; PANEL_ROWS]);
    let per = if dtype == Dtype::Q6K { 4 } else { 8 };
    for j in 0..64 / per {
        let a = act.quants(256 * block + 4 * per * j, per);
        let dot = dot(&tile.q[per * j..per * (j + 1)], a, tile.offset);
        for r in 0..PANEL_ROWS {
            total[r] += dot[r] * tile.scale[j][r];
        }
    }
    if dtype != Dtype::Q6K {
        for j in 0..8 {
            for r in 0..PANEL_ROWS {
                mins[r] += act.sum32(8 * block + j) * tile.min[j][r];
            }
        }
    }
    for r in 0..PANEL_ROWS {
        let t = match dtype {
            Dtype::Q6K => tile.d[0][r] * total[r] as f32,
            _ => tile.d[0][r].mul_add(total[r] as f32, -(tile.m[0][r] * mins[r] as f32)),
        };
        sums[r] = t.mul_add(act.scale(block), sums[r]);
    }
}

fn unpack(dtype: Dtype, record: &[u8], tile: &mut Unpacked) {
    let words: &[Lanes<[u8; 4]>] = bytemuck::cast_slice(record);
    let halves = |word: &Lanes<[u8; 4]>| -> [Lanes<f32>; 2] {
        [
            word.map(|w| half_to_f32([w[0], w[1]])),
            word.map(|w| half_to_f32([w[2], w[3]])),
        ]
    };
    match dtype {
        Dtype::F32 | Dtype::F16 | Dtype::BF16 => {}
        Dtype::Q4_0 | Dtype::Q4_1 | Dtype::Q5_0 | Dtype::Q5_1 => {
            let five = matches!(dtype, Dtype::Q5_0 | Dtype::Q5_1);
            let mins = matches!(dtype, Dtype::Q4_1 | Dtype::Q5_1);
            for b in 0..2 {
                for w in 0..8 {
                    for r in 0..PANEL_ROWS {
                        for i in 0..4 {
                            let low = (words[4 * b + w % 4][r][i] >> (4 * (w / 4))) & 0x0F;
                            let fifth = if five {
                                (words[8 + b][r][i] >> w) & 1
                            } else {
                                0
                            };
                            tile.q[8 * b + w][r][i] = low | (fifth << 4);
                        }
                    }
                }
            }
            tile.offset = match dtype {
                Dtype::Q4_0 => 8,
                Dtype::Q5_0 => 16,
                _ => 0,
            };
            tile.d = halves(&words[if five { 10 } else { 8 }]);
            if mins {
                tile.m = halves(&words[if five { 11 } else { 9 }]);
            }
        }
        Dtype::Q8_0 => {
            tile.q[..16].copy_from_slice(&words[..16]);
            tile.offset = 128;
            tile.d = halves(&words[16]);
        }
        Dtype::Q4K | Dtype::Q5K => {
            let nibbles = if dtype == Dtype::Q4K { 4 } else { 12 };
            for r in 0..PANEL_ROWS {
                for (v, q) in tile.q.iter_mut().enumerate() {
                    let (j, l) = (v / 8, v % 8);
                    for (i, q) in q[r].iter_mut().enumerate() {
                        let low = (words[nibbles + 8 * (j / 2) + l][r][i] >> (4 * (j % 2))) & 0x0F;
                        let fifth = match dtype {
                            Dtype::Q5K => (words[4 + l][r][i] >> j) & 1,
                            _ => 0,
                        };
                        *q = low | (fifth << 4);
                    }
                }
                let mut packed = [0; 12];
                for (i, b) in packed.iter_mut().enumerate() {
                    *b = words[1 + i / 4][r][i % 4];
                }
                for j in 0..8 {
                    let (scale, min) = k_scale_min(j, &packed);
                    tile.scale[j][r] = scale.into();
                    tile.min[j][r] = min.into();
                }
            }
            const { assert!(size_of::<BlockQ4K>() == 4 * 36) };
            [tile.d[0], tile.m[0]] = halves(&words[0]);
            tile.offset = 0;
        }
        Dtype::Q6K => {
            const { assert!(size_of::<BlockQ6K>() == 4 * 53 - 2) };
            for (v, q) in tile.q.iter_mut().enumerate() {
                let (half, run, l) = (v / 32, v % 32 / 8, v % 8);
                for r in 0..PANEL_ROWS {
                    for i in 0..4 {
                        let low = words[16 * half + 8 * (run % 2) + l][r][i] >> (4 * (run / 2));
                        let high = (words[32 + 8 * half + l][r][i] >> (2 * run)) & 3;
                        q[r][i] = (low & 0x0F) | (high << 4);
                    }
                }
            }
            for (j, scale) in tile.scale.iter_mut().enumerate() {
                *scale = words[48 + j / 4].map(|w| w[j % 4].cast_signed().into());
            }
            tile.offset = 32;
            tile.d[0] = halves(&words[52])[0];
        }
    }
}
