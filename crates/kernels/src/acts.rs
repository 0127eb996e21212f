//! Activations quantised to bytes: the right-hand side of products with quantised weights.
//!
//! A block of activations is `x ~ scale * q`, with `scale = max |x| / 127` and `q` the nearest integer to
//! `x * (127 / max |x|)`, ties to even, so `-127 <= q <= 127`. Blocks are 256 long for the K-quants, whose
//! integer scales then make the dot product of a whole super-block exact, and 32 long for the small-block
//! types. A block whose largest value is below 1e-36 counts as zero: 127 divided by it could overflow.
//! Beside the bytes lie the sums of `q` that minima and offsets need.
//!
//! A row is a sequence of *steps* of 256 values (the last one filled up with zeros) and 320 bytes, which
//! hold everything that a product needs of these values, in words of four bytes:
//!
//! | kind | words of a step |
//! |---|---|
//! | `Q8x256` | quants (64), sums of 16 as pairs of `i16` (8), sums of 32 likewise (4), scale (1), zeros (3) |
//! | `Q8x32` | quants (64), scales of the blocks (8), sums of the blocks as `i32` (8) |

use crate::isa::{Isa, Level};
use crate::mat::MatRef;
use crate::quant::{Dtype, SMALL_BLOCK, SUPER_BLOCK};

/// Four bytes: quants, sums or a float; little-endian, at any address.
pub(crate) type Word = [u8; 4];

/// What one step of a row holds.
pub(crate) type Step = [Word; STEP_WORDS];

/// Words of a step.
pub(crate) const STEP_WORDS: usize = 80;
/// Words of quants, at the start of a step.
pub(crate) const QUANT_WORDS: usize = 64;
/// Where the sums of 16 lie in a step of [`ActKind::Q8x256`].
pub(crate) const SUMS16_AT: usize = 64;
/// Where the sums of 32 lie in a step of [`ActKind::Q8x256`].
pub(crate) const SUMS32_AT: usize = 72;
/// Where the scale lies in a step of [`ActKind::Q8x256`].
pub(crate) const SCALE_AT: usize = 76;
/// Where the scales lie in a step of [`ActKind::Q8x32`].
pub(crate) const BLOCK_SCALES_AT: usize = 64;
/// Where the sums lie in a step of [`ActKind::Q8x32`].
pub(crate) const BLOCK_SUMS_AT: usize = 72;

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
        let row_bytes = match kind {
            ActKind::F32 => cols.checked_mul(4)?.checked_next_multiple_of(64)?,
            _ => cols.div_ceil(SUPER_BLOCK).checked_mul(4 * STEP_WORDS)?,
        };
        Some(Self {
            kind,
            cols,
            row_bytes,
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

    /// Steps of a row.
    pub(crate) fn steps(&self) -> usize {
        self.cols.div_ceil(SUPER_BLOCK)
    }
}

/// The steps in the bytes of quantised rows.
pub(crate) fn steps_of(bytes: &[u8]) -> &[Step] {
    bytes.as_chunks().0.as_chunks().0
}

/// As [`steps_of`], to write.
fn steps_of_mut(bytes: &mut [u8]) -> &mut [Step] {
    bytes.as_chunks_mut().0.as_chunks_mut().0
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
    let per_row = layout.steps();
    for (i, steps) in steps_of_mut(out).chunks_exact_mut(per_row).enumerate() {
        for (x, step) in x.row(i).chunks(SUPER_BLOCK).zip(steps) {
            match isa.level() {
                #[cfg(target_arch = "x86_64")]
                Level::Avx512(isa) => crate::x86_64::avx512::quantize_step(isa, kind, x, step),
                #[cfg(target_arch = "x86_64")]
                Level::Avx2(isa) => crate::x86_64::avx2::quantize_step(isa, kind, x, step),
                Level::Scalar => quantize_step_scalar(kind, x, step),
            }
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

/// One step: 256 values, or what is left of a row.
fn quantize_step_scalar(kind: ActKind, x: &[f32], step: &mut Step) {
    *step = [[0; 4]; STEP_WORDS];
    let block = kind.block_elems();
    for (b, x) in x.chunks_exact(block).enumerate() {
        let max = x.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        let (scale, inverse) = block_scale(max);
        let quants = &mut step[b * block / 4..(b + 1) * block / 4];
        for (q, x) in quants.iter_mut().zip(x.as_chunks::<4>().0) {
            *q = x.map(|x| ((x * inverse).round_ties_even() as i8).cast_unsigned());
        }
        let at = match kind {
            ActKind::Q8x256 => SCALE_AT,
            _ => BLOCK_SCALES_AT + b,
        };
        step[at] = scale.to_le_bytes();
    }
    let (quants, rest) = step.split_at_mut(QUANT_WORDS);
    let sum = |words: &[Word]| -> i32 {
        let quants = words.as_flattened().iter();
        quants.map(|q| i32::from(q.cast_signed())).sum()
    };
    // At most 32 * 127 in magnitude: no narrowing loses anything.
    let pair = |a: &[Word], b: &[Word]| -> Word {
        let ([a, b], [c, d]) = ((sum(a) as i16).to_le_bytes(), (sum(b) as i16).to_le_bytes());
        [a, b, c, d]
    };
    match kind {
        ActKind::F32 => {}
        ActKind::Q8x32 => {
            let sums = &mut rest[BLOCK_SUMS_AT - QUANT_WORDS..];
            for (s, q) in sums.iter_mut().zip(quants.chunks_exact(8)) {
                *s = sum(q).to_le_bytes();
            }
        }
        ActKind::Q8x256 => {
            let sums16 = &mut rest[SUMS16_AT - QUANT_WORDS..SUMS32_AT - QUANT_WORDS];
            for (s, q) in sums16.iter_mut().zip(quants.chunks_exact(8)) {
                *s = pair(&q[..4], &q[4..]);
            }
            let sums32 = &mut rest[SUMS32_AT - QUANT_WORDS..SCALE_AT - QUANT_WORDS];
            for (s, q) in sums32.iter_mut().zip(quants.chunks_exact(16)) {
                *s = pair(&q[..8], &q[8..]);
            }
        }
    }
}

/// One row of quantised activations, taken apart (scalar twin and tests).
pub(crate) struct ActRow<'a> {
    kind: ActKind,
    steps: &'a [Step],
}

impl<'a> ActRow<'a> {
    pub(crate) fn new(layout: &ActLayout, row: &'a [u8]) -> Self {
        Self {
            kind: layout.kind(),
            steps: steps_of(row),
        }
    }

    /// Quants `k..k + 4 * words`, within one step.
    pub(crate) fn quants(&self, k: usize, words: usize) -> &'a [Word] {
        &self.steps[k / SUPER_BLOCK][k % SUPER_BLOCK / 4..][..words]
    }

    /// The scale of block `block`.
    pub(crate) fn scale(&self, block: usize) -> f32 {
        f32::from_le_bytes(match self.kind {
            ActKind::Q8x256 => self.steps[block][SCALE_AT],
            _ => self.steps[block / 8][BLOCK_SCALES_AT + block % 8],
        })
    }

    /// Sum of block `i` of [`ActKind::Q8x32`].
    pub(crate) fn block_sum(&self, i: usize) -> i32 {
        i32::from_le_bytes(self.steps[i / 8][BLOCK_SUMS_AT + i % 8])
    }

    /// Sum of sub-block `i` of 16 values of [`ActKind::Q8x256`].
    #[cfg(test)]
    pub(crate) fn sum16(&self, i: usize) -> i32 {
        half(self.steps[i / 16][SUMS16_AT + i % 16 / 2], i)
    }

    /// Sum of sub-block `i` of 32 values of [`ActKind::Q8x256`].
    pub(crate) fn sum32(&self, i: usize) -> i32 {
        half(self.steps[i / 8][SUMS32_AT + i % 8 / 2], i)
    }
}

/// The lower (even `i`) or upper half of a word, as a number.
fn half([a, b, c, d]: Word, i: usize) -> i32 {
    i16::from_le_bytes(if i.is_multiple_of(2) { [a, b] } else { [c, d] }).into()
}
