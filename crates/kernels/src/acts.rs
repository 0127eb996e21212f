//! Activations quantised to bytes: the right-hand side of products with quantised weights.
//!
//! A block of activations is `x ~ scale * q`, with `scale = max |x| / 127` and `q` the nearest integer to
//! `x * (127 / max |x|)`, ties to even, so `-127 <= q <= 127`. Blocks are 256 long for the K-quants, whose
//! integer scales then make the dot product of a whole super-block exact, and 32 long for the small-block
//! types. A block whose largest value is below 1e-36 counts as zero: 127 divided by it could overflow.
//! Beside the bytes lie the sums of `q` that minima and offsets need.
//!
//! One row, in order (every part starts at a multiple of four bytes, the row takes a multiple of 64):
//!
//! | kind | parts |
//! |---|---|
//! | `Q8x256` | `q: [i8; cols]`, `scale: [f32; cols / 256]`, sums of 16: `[i16; cols / 16]`, sums of 32: `[i16; cols / 32]` |
//! | `Q8x32` | `q: [i8; n]`, `scale: [f32; n / 32]`, sums of 32: `[i32; n / 32]`, with `n` = `cols` rounded up to 64 by zeros |

use crate::isa::{Isa, Level};
use crate::mat::MatRef;
use crate::quant::{Dtype, SMALL_BLOCK, SUPER_BLOCK};

/// Below this a block's largest magnitude counts as zero.
pub(crate) const SMALLEST_MAX: f32 = 1e-36;

/// What a product wants its activations to be.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum ActKind {
    /// Plain floats: for F32, F16 and BF16 weights.
    F32,
    /// Bytes with a scale per 32: for the small-block types.
    Q8x32,
    /// Bytes with a scale per 256: for the K-quants.
    Q8x256,
}

impl ActKind {
    /// What weights of this type want.
    pub const fn of(dtype: Dtype) -> ActKind {
        match dtype {
            Dtype::F32 | Dtype::F16 | Dtype::BF16 => ActKind::F32,
            Dtype::Q4_0 | Dtype::Q4_1 | Dtype::Q5_0 | Dtype::Q5_1 | Dtype::Q8_0 => ActKind::Q8x32,
            Dtype::Q4K | Dtype::Q5K | Dtype::Q6K => ActKind::Q8x256,
        }
    }

    /// Values that share a scale (1 for plain floats).
    pub const fn block_elems(self) -> usize {
        match self {
            ActKind::F32 => 1,
            ActKind::Q8x32 => SMALL_BLOCK,
            ActKind::Q8x256 => SUPER_BLOCK,
        }
    }
}

/// The shape of rows of activations, `cols` values each.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ActLayout {
    kind: ActKind,
    cols: usize,
    row_bytes: usize,
}

impl ActLayout {
    /// The layout; `None` when `cols` is not a whole number of blocks, or the size overflows.
    pub fn new(kind: ActKind, cols: usize) -> Option<Self> {
        if !cols.is_multiple_of(kind.block_elems()) {
            return None;
        }
        // Four times the columns is more than any kind takes per row.
        cols.checked_next_multiple_of(64)?.checked_mul(4)?;
        let bytes = match kind {
            ActKind::F32 => 4 * cols,
            ActKind::Q8x32 => {
                let padded = cols.next_multiple_of(2 * SMALL_BLOCK);
                padded + padded / SMALL_BLOCK * 8
            }
            ActKind::Q8x256 => cols + cols / SUPER_BLOCK * 4 + cols / 16 * 2 + cols / 32 * 2,
        };
        Some(Self {
            kind,
            cols,
            row_bytes: bytes.checked_next_multiple_of(64)?,
        })
    }

    /// The kind.
    pub fn kind(&self) -> ActKind {
        self.kind
    }

    /// Values in a row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Bytes of one row: a multiple of 64. (For plain floats nothing is stored; this is what they would
    /// take.)
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// Bytes of the quants of a row, padding included.
    pub(crate) fn quants(&self) -> usize {
        match self.kind {
            ActKind::Q8x32 => self.cols.next_multiple_of(2 * SMALL_BLOCK),
            _ => self.cols,
        }
    }

    /// Where the scales start in a row.
    pub(crate) fn scales_at(&self) -> usize {
        self.quants()
    }

    /// Where the first kind of sums starts in a row: of 32 as `i32`, or of 16 as `i16`.
    pub(crate) fn sums_at(&self) -> usize {
        self.quants() + self.quants() / self.kind.block_elems() * 4
    }

    /// Where the sums of 32 start in a row of [`ActKind::Q8x256`].
    pub(crate) fn sums32_at(&self) -> usize {
        self.sums_at() + self.cols / 16 * 2
    }
}

/// Activations as a product takes them.
#[derive(Copy, Clone)]
pub enum Acts<'a> {
    /// Plain floats, one row per output row.
    F32(MatRef<'a>),
    /// Rows made by [`quantize_acts`].
    Quantized {
        /// Shape of each row.
        layout: ActLayout,
        /// How many rows.
        rows: usize,
        /// `rows * layout.row_bytes()` bytes.
        bytes: &'a [u8],
    },
}

impl Acts<'_> {
    /// How many rows.
    pub fn rows(&self) -> usize {
        match self {
            Acts::F32(x) => x.rows(),
            Acts::Quantized { rows, .. } => *rows,
        }
    }

    /// Values in a row.
    pub fn cols(&self) -> usize {
        match self {
            Acts::F32(x) => x.cols(),
            Acts::Quantized { layout, .. } => layout.cols(),
        }
    }

    /// Which kind they are.
    pub fn kind(&self) -> ActKind {
        match self {
            Acts::F32(_) => ActKind::F32,
            Acts::Quantized { layout, .. } => layout.kind(),
        }
    }
}

/// Quantises the rows of `x` into `out`, row after row; the same bits for every `isa`.
///
/// Values must be finite; others give unspecified (but memory-safe) numbers.
///
/// # Panics
/// When `kind` is [`ActKind::F32`], the columns are not a whole number of blocks, or `out` is not
/// `rows * row_bytes` long.
#[track_caller]
pub fn quantize_acts(isa: Isa, kind: ActKind, x: MatRef<'_>, out: &mut [u8]) {
    assert_ne!(kind, ActKind::F32, "plain floats are used as they are");
    let layout = ActLayout::new(kind, x.cols())
        .unwrap_or_else(|| panic!("{} columns are not whole blocks of {kind:?}", x.cols()));
    assert_eq!(
        Some(out.len()),
        x.rows().checked_mul(layout.row_bytes()),
        "bytes for {} rows of {layout:?}",
        x.rows()
    );
    if layout.cols() == 0 {
        return;
    }
    for (i, row) in out.chunks_exact_mut(layout.row_bytes()).enumerate() {
        match isa.level() {
            #[cfg(target_arch = "x86_64")]
            Level::Avx512(isa) => {
                crate::x86_64::avx512::quantize_row(isa, &layout, x.row(i), row);
            }
            _ => quantize_row_scalar(&layout, x.row(i), row),
        }
    }
}

/// Scale and its inverse of a block whose largest magnitude is `max`.
#[inline]
pub(crate) fn block_scale(max: f32) -> (f32, f32) {
    if max < SMALLEST_MAX {
        (0.0, 0.0)
    } else {
        (max / 127.0, 127.0 / max)
    }
}

fn quantize_row_scalar(layout: &ActLayout, x: &[f32], out: &mut [u8]) {
    let block = layout.kind.block_elems();
    let (quants, rest) = out.split_at_mut(layout.quants());
    let (scales, sums) = rest.split_at_mut(layout.sums_at() - layout.scales_at());
    quants[layout.cols..].fill(0);
    scales.fill(0);
    sums.fill(0);
    let scales = scales.as_chunks_mut::<4>().0;
    for ((x, q), scale) in x
        .chunks_exact(block)
        .zip(quants.chunks_exact_mut(block))
        .zip(scales)
    {
        let max = x.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        let (s, inverse) = block_scale(max);
        *scale = s.to_le_bytes();
        for (q, x) in q.iter_mut().zip(x) {
            *q = ((x * inverse).round_ties_even() as i8).cast_unsigned();
        }
    }
    let sum = |q: &[u8]| q.iter().map(|q| i32::from(q.cast_signed())).sum::<i32>();
    match layout.kind {
        ActKind::F32 => {}
        ActKind::Q8x32 => {
            for (q, s) in quants
                .as_chunks::<32>()
                .0
                .iter()
                .zip(sums.as_chunks_mut::<4>().0)
            {
                *s = sum(q).to_le_bytes();
            }
        }
        ActKind::Q8x256 => {
            let (sums16, sums32) = sums.split_at_mut(layout.sums32_at() - layout.sums_at());
            // At most 32 * 127 in magnitude: no narrowing loses anything.
            for (q, s) in quants
                .as_chunks::<16>()
                .0
                .iter()
                .zip(sums16.as_chunks_mut::<2>().0)
            {
                *s = (sum(q) as i16).to_le_bytes();
            }
            for (q, s) in quants
                .as_chunks::<32>()
                .0
                .iter()
                .zip(sums32.as_chunks_mut::<2>().0)
            {
                *s = (sum(q) as i16).to_le_bytes();
            }
        }
    }
}

/// One row of quantised activations, taken apart (scalar twin and tests).
pub(crate) struct ActRow<'a> {
    pub(crate) q: &'a [i8],
    scales: &'a [[u8; 4]],
    sums: &'a [u8],
    sums32: &'a [u8],
}

impl<'a> ActRow<'a> {
    pub(crate) fn new(layout: &ActLayout, row: &'a [u8]) -> Self {
        let sums32 = match layout.kind {
            ActKind::Q8x256 => &row[layout.sums32_at()..],
            _ => &[],
        };
        Self {
            q: bytemuck::cast_slice(&row[..layout.quants()]),
            scales: row[layout.scales_at()..layout.sums_at()].as_chunks().0,
            sums: &row[layout.sums_at()..],
            sums32,
        }
    }

    pub(crate) fn scale(&self, block: usize) -> f32 {
        f32::from_le_bytes(self.scales[block])
    }

    /// Sum of block `i` of [`ActKind::Q8x32`].
    pub(crate) fn block_sum(&self, i: usize) -> i32 {
        i32::from_le_bytes(self.sums.as_chunks().0[i])
    }

    /// Sum of sub-block `i` of 16 values of [`ActKind::Q8x256`].
    #[cfg(test)]
    pub(crate) fn sum16(&self, i: usize) -> i32 {
        i16::from_le_bytes(self.sums.as_chunks().0[i]).into()
    }

    /// Sum of sub-block `i` of 32 values of [`ActKind::Q8x256`].
    pub(crate) fn sum32(&self, i: usize) -> i32 {
        i16::from_le_bytes(self.sums32.as_chunks().0[i]).into()
    }
}
