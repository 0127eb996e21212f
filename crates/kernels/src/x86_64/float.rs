//! The loops around the tiles of a product with float weights, the same for every vector width.
//!
//! ```text
//! for each chunk of rows
//!   for each few panels side by side
//!     for each block along k            (its weights stay in the second-level cache)
//!       for each few rows               acc[row][panel][lane] in registers
//!     out <- acc
//! ```
#![allow(unsafe_code)]

use super::product::{Lanes, share, write};
use crate::mat::{MatMut, MatRef};
use crate::matmul::Mode;
use crate::panel::{PANEL_ROWS, Panels};
use crate::quant::Dtype;

/// Panels that run side by side when rows are so few that their own chains cannot fill the pipeline.
pub(super) const WIDE: usize = 4;
/// Values along `k` between visits to the accumulators: two panels of them are 64 KiB.
const K_BLOCK: usize = 512;
/// Most rows of a chunk.
const CHUNK_ROWS: usize = 96;

/// What a vector width has to offer.
pub(crate) trait FloatProduct: Copy {
    /// Most rows in a register tile.
    const ROWS: usize;
    /// Panels in a register tile of many rows: one or two.
    const SIDE: usize;
    /// Most rows in a register tile of [`WIDE`] panels.
    const FEW_ROWS: usize;

    /// Adds `tile.from..tile.to` along `k` of `rows` rows and `panels` panels to `acc`, row-major.
    ///
    /// # Safety
    /// `tile.w` must be the start of `panels` panels of `dtype` (a float type), `tile.x` of `rows` rows,
    /// all at least `tile.to` long, and `tile.from` even. `acc` has `rows * panels` elements; there are
    /// at most `ROWS` rows and `SIDE` panels, or `FEW_ROWS` rows and `WIDE` panels.
    unsafe fn tile(
        self,
        dtype: Dtype,
        panels: usize,
        rows: usize,
        tile: &FloatTile,
        acc: &mut [Lanes<f32>],
    );
}

/// Rows and panels of one register tile.
pub(crate) struct FloatTile {
    /// Start of the first panel.
    pub(super) w: *const u8,
    /// From one panel to the next.
    pub(super) panel_bytes: usize,
    /// Start of the first row.
    pub(super) x: *const f32,
    /// From one row to the next.
    pub(super) stride: usize,
    /// The range along `k`.
    pub(super) from: usize,
    pub(super) to: usize,
}

/// The product with float weights; shapes were checked by the caller.
pub(super) fn float<F: FloatProduct>(
    isa: F,
    w: Panels<'_>,
    x: MatRef<'_>,
    mut out: MatMut<'_>,
    mode: Mode,
) {
    let mut acc = [Lanes([0.0; PANEL_ROWS]); 2 * CHUNK_ROWS];
    let panel_bytes = w.layout().panel_bytes();
    let (cols, stride) = (w.cols(), x.stride());
    for from in (0..x.rows()).step_by(CHUNK_ROWS) {
        let rows = (x.rows() - from).min(CHUNK_ROWS);
        let x = x.rows_in(from..from + rows);
        let mut panel = 0;
        while panel < w.panels() {
            let side = match w.panels() - panel {
                left if rows <= F::FEW_ROWS && left >= WIDE => WIDE,
                left => left.min(F::SIDE),
            };
            let acc = &mut acc[..rows * side];
            acc.fill(Lanes([0.0; PANEL_ROWS]));
            let group = &w.bytes()[panel * panel_bytes..(panel + side) * panel_bytes];
            // One tile of rows visits its accumulators once anyway.
            let block = if rows <= F::ROWS { cols } else { K_BLOCK };
            for k in (0..cols).step_by(block.next_multiple_of(2)) {
                let mut done = 0;
                while done < rows {
                    let take = share(rows - done, F::ROWS);
                    let tile = FloatTile {
                        w: group.as_ptr(),
                        panel_bytes,
                        x: x.rows_in(done..done + take).as_ptr(),
                        stride,
                        from: k,
                        to: cols.min(k + block),
                    };
                    let acc = &mut acc[done * side..(done + take) * side];
                    // SAFETY: `group` is `side` panels of `cols` values, `tile.x` starts `take` rows of
                    // as many, `k` is even as a multiple of an even block, and `to` at most `cols`.
                    unsafe { isa.tile(w.dtype(), side, take, &tile, acc) };
                    done += take;
                }
            }
            for p in 0..side {
                for m in 0..rows {
                    let acc = &acc[m * side + p..][..1];
                    write(acc, &mut out, from + m, (panel + p) * PANEL_ROWS, mode);
                }
            }
            panel += side;
        }
    }
}
