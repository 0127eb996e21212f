//! The loops around the tiles of a quantised product, the same for every vector width.
//!
//! A *step* is up to 256 values along `k` of one panel. Its quants are unpacked once into a tile that
//! stays in the first-level cache, which then serves all rows of a chunk, a few rows at a time:
//!
//! ```text
//! for each chunk of rows              (its activations stay in the second-level cache)
//!   for each panel                    (streams from memory)
//!     for each step along k           (unpacked into the tile)
//!       for each few rows             acc[row][lane] <- acc + tile . row
//!     out <- acc
//! ```
#![allow(unsafe_code)]

use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};

use crate::acts::{ActLayout, Step, steps_of};
use crate::mat::MatMut;
use crate::matmul::Mode;
use crate::panel::{PANEL_ROWS, Panels, record_bytes, record_elems};
use crate::quant::{Dtype, SUPER_BLOCK};

/// One value per output row of a panel, as vectors lie in memory.
#[derive(Copy, Clone)]
#[repr(C, align(64))]
pub(crate) struct Lanes<T>(pub(super) [T; PANEL_ROWS]);

/// Rows of a chunk: with 16 floats each, 8 KiB of accumulators.
const CHUNK_ROWS: usize = 128;
/// A chunk's activations shall take no more than this, so that they stay in the second-level cache.
const CHUNK_BYTES: usize = 384 << 10;

/// One step of quantised rows.
#[derive(Copy, Clone)]
pub(crate) struct ActRows<'a> {
    steps: &'a [Step],
    per_row: usize,
}

impl<'a> ActRows<'a> {
    /// The step of a single row.
    #[inline(always)]
    pub(super) fn one(step: &'a Step) -> Self {
        Self {
            steps: std::slice::from_ref(step),
            per_row: 1,
        }
    }

    /// Row `m`.
    #[inline(always)]
    pub(super) fn row(&self, m: usize) -> &'a Step {
        &self.steps[m * self.per_row]
    }
}

/// What a vector width has to offer.
pub(crate) trait QuantProduct: Copy {
    /// An unpacked step.
    type Tile;
    /// The most rows that [`QuantProduct::rows`] takes at once.
    const ROWS: usize;

    /// An empty tile.
    fn tile() -> Self::Tile;

    /// Unpacks the records of one step.
    fn unpack(self, dtype: Dtype, records: &[u8], tile: &mut Self::Tile);

    /// Adds the step of `acc.len()` rows to their accumulators.
    fn rows(self, dtype: Dtype, tile: &Self::Tile, x: ActRows<'_>, acc: &mut [Lanes<f32>]);

    /// Adds the step of one row without storing the quants; `tile` is for scales and the like.
    fn one_row(
        self,
        dtype: Dtype,
        records: &[u8],
        tile: &mut Self::Tile,
        x: &Step,
        acc: &mut Lanes<f32>,
    );
}

/// The product with quantised weights; shapes were checked by the caller.
pub(super) fn quantized<Q: QuantProduct>(
    isa: Q,
    w: Panels<'_>,
    layout: &ActLayout,
    bytes: &[u8],
    mut out: MatMut<'_>,
    mode: Mode,
) {
    let dtype = w.dtype();
    let step_bytes = SUPER_BLOCK / record_elems(dtype) * record_bytes(dtype);
    let (per_row, steps) = (layout.steps(), steps_of(bytes));
    let rows = out.rows();
    let chunk = (CHUNK_BYTES / layout.row_bytes().max(1)).clamp(Q::ROWS, CHUNK_ROWS);
    let chunk = chunk - chunk % Q::ROWS;
    let mut tile = Q::tile();
    let mut acc = [Lanes([0.0; PANEL_ROWS]); CHUNK_ROWS];
    for from in (0..rows).step_by(chunk) {
        let to = rows.min(from + chunk);
        let steps = &steps[from * per_row..to * per_row];
        let acc = &mut acc[..to - from];
        for panel in 0..w.panels() {
            acc.fill(Lanes([0.0; PANEL_ROWS]));
            for (step, records) in w.panel(panel).chunks(step_bytes).enumerate() {
                prefetch(records);
                if let [acc] = &mut acc[..] {
                    isa.one_row(dtype, records, &mut tile, &steps[step], acc);
                    continue;
                }
                isa.unpack(dtype, records, &mut tile);
                let mut done = 0;
                while done < acc.len() {
                    let take = share(acc.len() - done, Q::ROWS);
                    let x = ActRows {
                        steps: &steps[done * per_row + step..],
                        per_row,
                    };
                    isa.rows(dtype, &tile, x, &mut acc[done..done + take]);
                    done += take;
                }
            }
            write(acc, &mut out, from, panel * PANEL_ROWS, mode);
        }
    }
}

/// Asks for all cache lines of a step, in order and before any is used: unpacking reads them in an
/// order that the hardware's prefetcher does not follow.
#[inline(always)]
fn prefetch(bytes: &[u8]) {
    for line in bytes.chunks(64) {
        // SAFETY: prefetching never faults, whatever the address.
        unsafe { _mm_prefetch::<_MM_HINT_T0>(line.as_ptr().cast()) };
    }
}

/// How many of `left` rows to take next: `most`, but the last two tiles share evenly.
pub(super) fn share(left: usize, most: usize) -> usize {
    if left > most && left < 2 * most {
        left.div_ceil(2)
    } else {
        left.min(most)
    }
}

/// Writes one panel's sums of rows `first_row..` to columns `first_col..`, up to the last column.
pub(super) fn write(
    acc: &[Lanes<f32>],
    out: &mut MatMut<'_>,
    first_row: usize,
    first_col: usize,
    mode: Mode,
) {
    for (i, acc) in acc.iter().enumerate() {
        let row = &mut out.row_mut(first_row + i)[first_col..];
        if let Some(row) = row.first_chunk_mut::<PANEL_ROWS>() {
            write_row(row, acc, mode);
        } else {
            write_row(row, acc, mode);
        }
    }
}

#[inline(always)]
fn write_row(row: &mut [f32], acc: &Lanes<f32>, mode: Mode) {
    for (out, sum) in row.iter_mut().zip(&acc.0) {
        *out = match mode {
            Mode::Store => *sum,
            Mode::Accumulate => *out + sum,
        };
    }
}
