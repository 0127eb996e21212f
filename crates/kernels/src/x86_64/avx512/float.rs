//! F32, F16 and BF16 weights in 512 bits: widened in registers, multiplied and added as `f32`.

use std::arch::x86_64::*;

use super::super::product::{Lanes, share, write};
use crate::isa::Avx512;
use crate::mat::{MatMut, MatRef};
use crate::matmul::Mode;
use crate::panel::{PANEL_ROWS, Panels};
use crate::quant::Dtype;

/// Panels that run side by side for one to three rows, whose own chains would be too few.
const WIDE: usize = 4;
/// Most rows for which that is done.
const FEW_ROWS: usize = 3;
/// Rows in a register tile of two panels: 24 accumulators, four vectors of weights, one of activations.
const TILE_ROWS: usize = 12;
/// Rows of a chunk.
const CHUNK_ROWS: usize = 8 * TILE_ROWS;
/// Values along `k` between visits to the accumulators: two panels of them are 64 KiB.
const K_BLOCK: usize = 512;

/// The product with float weights; shapes were checked by the caller.
pub(crate) fn float(isa: Avx512, w: Panels<'_>, x: MatRef<'_>, out: MatMut<'_>, mode: Mode) {
    match w.dtype() {
        Dtype::F16 => all::<F16>(isa, w, x, out, mode),
        Dtype::BF16 => all::<Bf16>(isa, w, x, out, mode),
        _ => all::<F32>(isa, w, x, out, mode),
    }
}

fn all<W: Weights>(_: Avx512, w: Panels<'_>, x: MatRef<'_>, mut out: MatMut<'_>, mode: Mode) {
    let mut acc = [Lanes([0.0; PANEL_ROWS]); 2 * CHUNK_ROWS];
    let panel_bytes = w.layout().panel_bytes();
    let (cols, stride) = (w.cols(), x.stride());
    for from in (0..x.rows()).step_by(CHUNK_ROWS) {
        let rows = (x.rows() - from).min(CHUNK_ROWS);
        let few = rows <= FEW_ROWS;
        let x = x.rows_in(from..from + rows);
        let mut panel = 0;
        while panel < w.panels() {
            let side = match w.panels() - panel {
                left if few && left >= WIDE => WIDE,
                left => left.min(2),
            };
            let acc = &mut acc[..rows * side];
            acc.fill(Lanes([0.0; PANEL_ROWS]));
            let group = &w.bytes()[panel * panel_bytes..(panel + side) * panel_bytes];
            // One tile of rows visits its accumulators once anyway.
            let block = if rows <= TILE_ROWS { cols } else { K_BLOCK };
            for k in (0..cols).step_by(block.max(2)) {
                let to = cols.min(k + block);
                let mut done = 0;
                while done < rows {
                    let take = share(rows - done, TILE_ROWS);
                    let x = x.rows_in(done..done + take);
                    let tile = Tile {
                        w: group.as_ptr(),
                        panel_bytes,
                        x: x.as_ptr(),
                        stride,
                        from: k,
                        to,
                    };
                    let acc = &mut acc[done * side..(done + take) * side];
                    // SAFETY: the token proves the features; `group` is `side` panels of `cols` values,
                    // `x` is `take` rows of as many, `k` is even and `to` at most `cols`.
                    unsafe { some_rows::<W>(side, take, &tile, acc) };
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

/// Rows and panels of one register tile.
struct Tile {
    w: *const u8,
    panel_bytes: usize,
    x: *const f32,
    stride: usize,
    from: usize,
    to: usize,
}

/// # Safety
/// See [`tile_rows`]; the machine must have the features.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn some_rows<W: Weights>(panels: usize, rows: usize, tile: &Tile, acc: &mut [Lanes<f32>]) {
    macro_rules! pick {
        ($($p:literal: $($m:literal)*;)*) => {
            match (panels, rows) {
                // SAFETY: passed on from the caller.
                $($(($p, $m) => unsafe { tile_rows::<W, $p, $m>(tile, acc) },)*)*
                _ => unreachable!("no tile of {panels} panels and {rows} rows"),
            }
        };
    }
    pick! {
        1: 1 2 3 4 5 6 7 8 9 10 11 12;
        2: 1 2 3 4 5 6 7 8 9 10 11 12;
        4: 1 2 3;
    }
}

/// Adds `from..to` along `k` of `M` rows and `P` panels to `acc`, row-major.
///
/// # Safety
/// `tile.w` must be the start of `P` panels, `tile.x` of `M` rows, all at least `tile.to` long, and
/// `tile.from` even.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn tile_rows<W: Weights, const P: usize, const M: usize>(
    tile: &Tile,
    acc: &mut [Lanes<f32>],
) {
    let mut sums = [[_mm512_setzero_ps(); P]; M];
    for m in 0..M {
        for p in 0..P {
            sums[m][p] = super::vector::load_floats(&acc[m * P + p]);
        }
    }
    let zero = _mm512_setzero_ps();
    let mut k = tile.from;
    while k + 2 <= tile.to {
        let (mut even, mut odd) = ([zero; P], [zero; P]);
        for p in 0..P {
            // SAFETY: `k` is even and `k + 1 < to`, within the panel.
            (even[p], odd[p]) = unsafe { W::pair(tile.w.add(p * tile.panel_bytes), k) };
        }
        for m in 0..M {
            // SAFETY: `k + 1 < to`, within the row.
            let (x0, x1) = unsafe {
                let x = tile.x.add(m * tile.stride + k);
                (*x, *x.add(1))
            };
            for p in 0..P {
                sums[m][p] = _mm512_fmadd_ps(even[p], _mm512_set1_ps(x0), sums[m][p]);
            }
            for p in 0..P {
                sums[m][p] = _mm512_fmadd_ps(odd[p], _mm512_set1_ps(x1), sums[m][p]);
            }
        }
        k += 2;
    }
    if k < tile.to {
        for p in 0..P {
            // SAFETY: `k < to`, within the panel.
            let w = unsafe { W::one(tile.w.add(p * tile.panel_bytes), k) };
            for m in 0..M {
                // SAFETY: `k < to`, within the row.
                let x = unsafe { *tile.x.add(m * tile.stride + k) };
                sums[m][p] = _mm512_fmadd_ps(w, _mm512_set1_ps(x), sums[m][p]);
            }
        }
    }
    for m in 0..M {
        for p in 0..P {
            super::vector::store_floats(&mut acc[m * P + p], sums[m][p]);
        }
    }
}

/// How sixteen weights become floats.
trait Weights {
    /// Values `k` (even) and `k + 1`.
    ///
    /// # Safety
    /// `panel` must be a panel of more than `k + 1` values, the machine must have AVX-512.
    unsafe fn pair(panel: *const u8, k: usize) -> (__m512, __m512);

    /// Value `k` (even).
    ///
    /// # Safety
    /// `panel` must be a panel of more than `k` values, the machine must have AVX-512.
    unsafe fn one(panel: *const u8, k: usize) -> __m512;
}

struct F32;
impl Weights for F32 {
    #[inline(always)]
    unsafe fn pair(panel: *const u8, k: usize) -> (__m512, __m512) {
        // SAFETY: a vector per value; passed on from the caller.
        unsafe { (Self::one(panel, k), Self::one(panel, k + 1)) }
    }

    #[inline(always)]
    unsafe fn one(panel: *const u8, k: usize) -> __m512 {
        // SAFETY: a vector of 64 bytes per value.
        unsafe { _mm512_loadu_ps(panel.add(64 * k).cast()) }
    }
}

struct F16;
impl Weights for F16 {
    #[inline(always)]
    unsafe fn pair(panel: *const u8, k: usize) -> (__m512, __m512) {
        // SAFETY: passed on from the caller.
        unsafe { (Self::one(panel, k), Self::one(panel, k + 1)) }
    }

    #[inline(always)]
    unsafe fn one(panel: *const u8, k: usize) -> __m512 {
        // SAFETY: a vector of 32 bytes per value.
        unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(panel.add(32 * k).cast())) }
    }
}

struct Bf16;
impl Weights for Bf16 {
    #[inline(always)]
    unsafe fn pair(panel: *const u8, k: usize) -> (__m512, __m512) {
        // SAFETY: a vector of 64 bytes per two values.
        unsafe {
            let both = _mm512_loadu_si512(panel.add(32 * k).cast());
            let odd = _mm512_and_si512(both, _mm512_set1_epi32(0xFFFF_0000u32.cast_signed()));
            (
                _mm512_castsi512_ps(_mm512_slli_epi32::<16>(both)),
                _mm512_castsi512_ps(odd),
            )
        }
    }

    #[inline(always)]
    unsafe fn one(panel: *const u8, k: usize) -> __m512 {
        // SAFETY: the last vector is whole even when its odd value is filling.
        unsafe { Self::pair(panel, k).0 }
    }
}
