//! Packed weights: the layout that every kernel streams, whatever its instruction set.
//!
//! A *panel* is 16 output rows of a weight matrix; panels follow one another. Along `k` a panel is a
//! sequence of *records*, and a record is a sequence of 64-byte *vectors*: one 4-byte word of each of the
//! 16 rows, lane `r` being output row `16 * panel + r`. So one aligned load feeds 16 output rows, lanes
//! never mix, and the four bytes of a lane are four neighbours along `k`, which is what byte dot products
//! (AVX2 `maddubs`, AVX-512 `vpdpbusd`, AMX `tdpbsud`: a B tile is sixteen such vectors) want.
//!
//! | type | values per record | words of one row in a record, in order |
//! |---|---|---|
//! | F32 | 1 | the value |
//! | BF16 | 2 | two values, the even one in the low half |
//! | Q4_0 | 64 | nibbles of block 0 (4), of block 1 (4), `d0 \| d1 << 16` |
//! | Q4_1 | 64 | nibbles (4 + 4), `d0 \| d1 << 16`, `m0 \| m1 << 16` |
//! | Q5_0 | 64 | nibbles (4 + 4), fifth bits (1 + 1), `d0 \| d1 << 16` |
//! | Q5_1 | 64 | nibbles (4 + 4), fifth bits (1 + 1), `d0 \| d1 << 16`, `m0 \| m1 << 16` |
//! | Q8_0 | 64 | quants plus 128 (8 + 8), `d0 \| d1 << 16` |
//! | Q4_K | 256 | the 36 words of the file's block |
//! | Q5_K | 256 | the 44 words of the file's block |
//! | Q6_K | 256 | the 53 words of the file's block, the last half filled with zero |
//!
//! F16 alone has records of 32 bytes: one value of each row, ready for `vcvtph2ps`.
//!
//! Fifth bits of the small blocks are permuted so that bit `w` of byte `i` belongs to value `4 * w + i`:
//! then one rotation and one mask line up the bits of word `w`. Where `k` is not a multiple of 64, small
//! blocks are completed with a block of zeros; an odd BF16 value has a zero beside it. Rows beyond the
//! matrix in its last panel are zeros as well. Bytes are therefore those of the file for rows that are a
//! multiple of 16 and `k` of 64, except Q6_K: 212 bytes for 210 (+0.95 %).

use std::ops::Range;

use crate::quant::{
    BlockQ4_0, BlockQ4_1, BlockQ5_0, BlockQ5_1, BlockQ8_0, Dtype, HalfBytes, SMALL_BLOCK,
    SUPER_BLOCK, dequantize_row,
};

/// Output rows in a panel; also the number of lanes of the reduction rule.
pub const PANEL_ROWS: usize = 16;

/// Bytes of one vector: a 4-byte word of each row of a panel.
pub(crate) const VECTOR_BYTES: usize = 4 * PANEL_ROWS;

/// Words of one row in the largest record (Q6_K).
const RECORD_WORDS_MAX: usize = 53;

/// Values along `k` in a record.
pub(crate) const fn record_elems(dtype: Dtype) -> usize {
    match dtype {
        Dtype::F32 | Dtype::F16 => 1,
        Dtype::BF16 => 2,
        Dtype::Q4_0 | Dtype::Q4_1 | Dtype::Q5_0 | Dtype::Q5_1 | Dtype::Q8_0 => 2 * SMALL_BLOCK,
        Dtype::Q4K | Dtype::Q5K | Dtype::Q6K => SUPER_BLOCK,
    }
}

/// Bytes of a record of 16 rows.
pub(crate) const fn record_bytes(dtype: Dtype) -> usize {
    match dtype {
        Dtype::F32 | Dtype::BF16 => VECTOR_BYTES,
        Dtype::F16 => VECTOR_BYTES / 2,
        Dtype::Q4_0 => 9 * VECTOR_BYTES,
        Dtype::Q4_1 => 10 * VECTOR_BYTES,
        Dtype::Q5_0 => 11 * VECTOR_BYTES,
        Dtype::Q5_1 => 12 * VECTOR_BYTES,
        Dtype::Q8_0 => 17 * VECTOR_BYTES,
        Dtype::Q4K => 36 * VECTOR_BYTES,
        Dtype::Q5K => 44 * VECTOR_BYTES,
        Dtype::Q6K => RECORD_WORDS_MAX * VECTOR_BYTES,
    }
}

/// The shape of a packed weight matrix: `rows` outputs of `cols` inputs each.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct PanelLayout {
    dtype: Dtype,
    rows: usize,
    cols: usize,
    panel_bytes: usize,
    bytes: usize,
}

impl PanelLayout {
    /// The layout of a `rows x cols` matrix; `None` when `cols` is not a whole number of blocks, a
    /// dimension is zero, or a size overflows.
    pub fn new(dtype: Dtype, rows: usize, cols: usize) -> Option<Self> {
        if rows == 0 || cols == 0 {
            return None;
        }
        // The file's row and the floats of a row must be addressable too.
        dtype.row_bytes(cols)?;
        cols.checked_mul(4)?;
        let panel_bytes = cols
            .div_ceil(record_elems(dtype))
            .checked_mul(record_bytes(dtype))?
            .checked_next_multiple_of(VECTOR_BYTES)?;
        let bytes = rows.div_ceil(PANEL_ROWS).checked_mul(panel_bytes)?;
        isize::try_from(bytes).ok()?;
        Some(Self {
            dtype,
            rows,
            cols,
            panel_bytes,
            bytes,
        })
    }

    /// How the values are stored.
    pub fn dtype(&self) -> Dtype {
        self.dtype
    }

    /// Output rows of the matrix.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Values along `k` in each row.
    pub fn cols(&self) -> usize {
        self.cols
    }

    /// Panels, the last one filled up with zero rows.
    pub fn panels(&self) -> usize {
        self.rows.div_ceil(PANEL_ROWS)
    }

    /// Bytes of one panel: a multiple of 64.
    pub fn panel_bytes(&self) -> usize {
        self.panel_bytes
    }

    /// Bytes of the whole packed matrix: a multiple of 64.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of one row in a file.
    pub fn row_bytes(&self) -> usize {
        self.dtype
            .row_bytes(self.cols)
            .expect("checked when the layout was made")
    }

    /// Packs rows `first_row..` out of `src`, whole rows as they lie in the file, into their panels in
    /// `dst`, which is the packed matrix.
    ///
    /// # Panics
    /// When `first_row` is not a multiple of 16, `src` is not whole rows, the rows pass the end of the
    /// matrix, or neither fill whole panels nor reach its last row; when `dst` is not `bytes()` long.
    #[track_caller]
    pub fn pack(&self, first_row: usize, src: &[u8], dst: &mut [u8]) {
        let row_bytes = self.row_bytes();
        assert_eq!(dst.len(), self.bytes, "packed bytes of {self:?}");
        assert!(
            first_row.is_multiple_of(PANEL_ROWS) && first_row <= self.rows,
            "first row {first_row} of {self:?}"
        );
        let first = first_row / PANEL_ROWS * self.panel_bytes;
        let rows = src.len() / row_bytes;
        assert!(
            src.len().is_multiple_of(row_bytes)
                && rows <= self.rows - first_row
                && (rows.is_multiple_of(PANEL_ROWS) || first_row + rows == self.rows),
            "{} bytes from row {first_row} of {self:?}",
            src.len()
        );
        let panels = dst[first..].chunks_exact_mut(self.panel_bytes);
        for (src, panel) in src.chunks(PANEL_ROWS * row_bytes).zip(panels) {
            self.pack_panel(src, panel);
        }
    }

    /// Packs one panel: up to 16 rows as they lie in the file, the missing ones being zeros.
    ///
    /// # Panics
    /// When `src` is not at most 16 whole rows, or `panel` is not `panel_bytes()` long.
    #[track_caller]
    pub fn pack_panel(&self, src: &[u8], panel: &mut [u8]) {
        let row_bytes = self.row_bytes();
        assert!(
            src.len().is_multiple_of(row_bytes) && src.len() <= PANEL_ROWS * row_bytes,
            "{} bytes for a panel of {self:?}",
            src.len()
        );
        assert_eq!(panel.len(), self.panel_bytes, "a panel of {self:?}");
        match self.dtype {
            Dtype::F16 => pack_halves(src, row_bytes, panel),
            _ => self.pack_words(src, row_bytes, panel),
        }
    }

    fn pack_words(&self, src: &[u8], row_bytes: usize, panel: &mut [u8]) {
        let file_bytes = self.record_file_bytes();
        let as_in_file = matches!(
            self.dtype,
            Dtype::F32 | Dtype::BF16 | Dtype::Q4K | Dtype::Q5K
        );
        if as_in_file && src.len() == PANEL_ROWS * row_bytes && panel.len() == src.len() {
            // A record's words are the file's, and so are a row's.
            transpose_words(src, row_bytes, panel);
            return;
        }
        let mut words = [0u32; RECORD_WORDS_MAX];
        let records = panel.chunks_exact_mut(record_bytes(self.dtype));
        for (i, record) in records.enumerate() {
            let vectors = record.as_chunks_mut::<VECTOR_BYTES>().0;
            for r in 0..PANEL_ROWS {
                // Empty beyond the last row: a record of zero blocks.
                let row = src.get(r * row_bytes..(r + 1) * row_bytes).unwrap_or(&[]);
                let at = (i * file_bytes).min(row.len());
                let blocks = &row[at..row.len().min(at + file_bytes)];
                words_of_blocks(self.dtype, blocks, &mut words[..vectors.len()]);
                for (vector, word) in vectors.iter_mut().zip(&words) {
                    vector.as_chunks_mut::<4>().0[r] = word.to_le_bytes();
                }
            }
        }
    }

    /// Bytes in a file of one row's part of a record.
    fn record_file_bytes(&self) -> usize {
        record_elems(self.dtype) / self.dtype.block_elems() * self.dtype.block_bytes()
    }

    /// The numbers of row `row` of the packed matrix: those of [`dequantize_row`], bit for bit.
    ///
    /// # Panics
    /// When there is no such row, or a length does not match.
    #[track_caller]
    pub fn unpack_row(&self, panels: &[u8], row: usize, out: &mut [f32]) {
        assert_eq!(panels.len(), self.bytes, "packed bytes of {self:?}");
        assert!(row < self.rows, "row {row} of {self:?}");
        assert_eq!(out.len(), self.cols, "values of a row of {self:?}");
        let panel = &panels[row / PANEL_ROWS * self.panel_bytes..][..self.panel_bytes];
        let r = row % PANEL_ROWS;
        if self.dtype == Dtype::F16 {
            let records = panel.as_chunks::<{ VECTOR_BYTES / 2 }>().0;
            for (out, record) in out.iter_mut().zip(records) {
                let half = &record.as_chunks::<2>().0[r];
                dequantize_row(self.dtype, half, std::slice::from_mut(out));
            }
            return;
        }
        let mut words = [0u32; RECORD_WORDS_MAX];
        let mut blocks = [0u8; 4 * RECORD_WORDS_MAX];
        let records = panel.chunks_exact(record_bytes(self.dtype));
        for (out, record) in out.chunks_mut(record_elems(self.dtype)).zip(records) {
            let vectors = record.as_chunks::<VECTOR_BYTES>().0;
            for (word, vector) in words.iter_mut().zip(vectors) {
                *word = u32::from_le_bytes(vector.as_chunks::<4>().0[r]);
            }
            blocks_of_words(self.dtype, &words[..vectors.len()], &mut blocks);
            let bytes = out.len() / self.dtype.block_elems() * self.dtype.block_bytes();
            dequantize_row(self.dtype, &blocks[..bytes], out);
        }
    }
}

/// Whole rows of words, 16 of them, as vectors: a panel whose words are those of the file.
fn transpose_words(src: &[u8], row_bytes: usize, panel: &mut [u8]) {
    let vectors = panel.as_chunks_mut::<VECTOR_BYTES>().0;
    let rows: [&[[u8; 4]]; PANEL_ROWS] = std::array::from_fn(|r| {
        let words = src[r * row_bytes..(r + 1) * row_bytes].as_chunks::<4>().0;
        &words[..vectors.len()]
    });
    for (w, vector) in vectors.iter_mut().enumerate() {
        for (lane, row) in vector.as_chunks_mut::<4>().0.iter_mut().zip(&rows) {
            *lane = row[w];
        }
    }
}

/// Panels of halves: `[k][16]`.
fn pack_halves(src: &[u8], row_bytes: usize, panel: &mut [u8]) {
    let vectors = panel.as_chunks_mut::<{ VECTOR_BYTES / 2 }>().0;
    for (k, vector) in vectors.iter_mut().enumerate() {
        for (r, half) in vector.as_chunks_mut::<2>().0.iter_mut().enumerate() {
            let at = r * row_bytes + 2 * k;
            let inside = 2 * k < row_bytes;
            *half = match src.get(at..at + 2) {
                Some(&[a, b]) if inside => [a, b],
                _ => [0, 0],
            };
        }
    }
}

/// Moves the value at bit `4 * w + i` to bit `8 * i + w`.
fn spread_fifth_bits(bits: u32) -> u32 {
    unshuffle(unshuffle(bits))
}

/// The inverse of [`spread_fifth_bits`].
fn gather_fifth_bits(bits: u32) -> u32 {
    shuffle(shuffle(bits))
}

/// Even bits to the lower half, odd bits to the upper half (Hacker's Delight, 7-2).
fn unshuffle(x: u32) -> u32 {
    [
        (1, 0x2222_2222),
        (2, 0x0C0C_0C0C),
        (4, 0x00F0_00F0),
        (8, 0x0000_FF00),
    ]
    .into_iter()
    .fold(x, |x, (by, mask)| swap_bits(x, by, mask))
}

/// The inverse of [`unshuffle`].
fn shuffle(x: u32) -> u32 {
    [
        (8, 0x0000_FF00),
        (4, 0x00F0_00F0),
        (2, 0x0C0C_0C0C),
        (1, 0x2222_2222),
    ]
    .into_iter()
    .fold(x, |x, (by, mask)| swap_bits(x, by, mask))
}

/// Swaps the bits under `mask` with those `by` places above them.
fn swap_bits(x: u32, by: u32, mask: u32) -> u32 {
    let t = (x ^ (x >> by)) & mask;
    x ^ t ^ (t << by)
}

fn word(bytes: &[u8]) -> u32 {
    let mut all = [0; 4];
    all[..bytes.len()].copy_from_slice(bytes);
    u32::from_le_bytes(all)
}

fn halves(a: HalfBytes, b: HalfBytes) -> u32 {
    u32::from_le_bytes([a[0], a[1], b[0], b[1]])
}

fn low(word: u32) -> HalfBytes {
    [word.to_le_bytes()[0], word.to_le_bytes()[1]]
}

fn high(word: u32) -> HalfBytes {
    low(word >> 16)
}

fn put_words(bytes: &[u8], words: &mut [u32]) {
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = u32::from_le_bytes(*bytes);
    }
}

fn put_bytes(words: &[u32], bytes: &mut [u8]) {
    for (bytes, word) in bytes.as_chunks_mut::<4>().0.iter_mut().zip(words) {
        *bytes = word.to_le_bytes();
    }
}

/// Blocks `0` and `1` of a record, zeros where the row has ended.
fn pair<B: bytemuck::Pod>(bytes: &[u8]) -> [B; 2] {
    let blocks: &[B] = bytemuck::cast_slice(bytes);
    std::array::from_fn(|i| blocks.get(i).copied().unwrap_or(B::zeroed()))
}

/// One row's words of a record, from its blocks in the file (none or too few: zeros).
fn words_of_blocks(dtype: Dtype, blocks: &[u8], words: &mut [u32]) {
    match dtype {
        Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::Q4K | Dtype::Q5K | Dtype::Q6K => {
            words.fill(0);
            let (whole, rest) = blocks.as_chunks::<4>();
            put_words(whole.as_flattened(), words);
            if !rest.is_empty() {
                words[whole.len()] = word(rest);
            }
        }
        Dtype::Q4_0 => {
            let [a, b] = pair::<BlockQ4_0>(blocks);
            put_words(&a.qs, &mut words[..4]);
            put_words(&b.qs, &mut words[4..8]);
            words[8] = halves(a.d, b.d);
        }
        Dtype::Q4_1 => {
            let [a, b] = pair::<BlockQ4_1>(blocks);
            put_words(&a.qs, &mut words[..4]);
            put_words(&b.qs, &mut words[4..8]);
            words[8] = halves(a.d, b.d);
            words[9] = halves(a.m, b.m);
        }
        Dtype::Q5_0 => {
            let [a, b] = pair::<BlockQ5_0>(blocks);
            put_words(&a.qs, &mut words[..4]);
            put_words(&b.qs, &mut words[4..8]);
            words[8] = spread_fifth_bits(u32::from_le_bytes(a.qh));
            words[9] = spread_fifth_bits(u32::from_le_bytes(b.qh));
            words[10] = halves(a.d, b.d);
        }
        Dtype::Q5_1 => {
            let [a, b] = pair::<BlockQ5_1>(blocks);
            put_words(&a.qs, &mut words[..4]);
            put_words(&b.qs, &mut words[4..8]);
            words[8] = spread_fifth_bits(u32::from_le_bytes(a.qh));
            words[9] = spread_fifth_bits(u32::from_le_bytes(b.qh));
            words[10] = halves(a.d, b.d);
            words[11] = halves(a.m, b.m);
        }
        Dtype::Q8_0 => {
            let [a, b] = pair::<BlockQ8_0>(blocks);
            put_words(bytemuck::cast_slice(&a.qs), &mut words[..8]);
            put_words(bytemuck::cast_slice(&b.qs), &mut words[8..16]);
            words[..16].iter_mut().for_each(|w| *w ^= 0x8080_8080);
            words[16] = halves(a.d, b.d);
        }
    }
}

/// The inverse of [`words_of_blocks`]; writes the blocks of a whole record to the start of `bytes`.
fn blocks_of_words(dtype: Dtype, words: &[u32], bytes: &mut [u8]) {
    let qs = |at: usize| -> [u8; 16] {
        let mut qs = [0; 16];
        put_bytes(&words[at..at + 4], &mut qs);
        qs
    };
    match dtype {
        Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::Q4K | Dtype::Q5K | Dtype::Q6K => {
            put_bytes(words, bytes);
        }
        Dtype::Q4_0 => put_pair(bytes, |i| BlockQ4_0 {
            d: half_of(words[8], i),
            qs: qs(4 * i),
        }),
        Dtype::Q4_1 => put_pair(bytes, |i| BlockQ4_1 {
            d: half_of(words[8], i),
            m: half_of(words[9], i),
            qs: qs(4 * i),
        }),
        Dtype::Q5_0 => put_pair(bytes, |i| BlockQ5_0 {
            d: half_of(words[10], i),
            qh: gather_fifth_bits(words[8 + i]).to_le_bytes(),
            qs: qs(4 * i),
        }),
        Dtype::Q5_1 => put_pair(bytes, |i| BlockQ5_1 {
            d: half_of(words[10], i),
            m: half_of(words[11], i),
            qh: gather_fifth_bits(words[8 + i]).to_le_bytes(),
            qs: qs(4 * i),
        }),
        Dtype::Q8_0 => put_pair(bytes, |i| {
            let mut unbiased = [0u32; 8];
            for (u, w) in unbiased.iter_mut().zip(&words[8 * i..]) {
                *u = w ^ 0x8080_8080;
            }
            let mut bytes = [0u8; SMALL_BLOCK];
            put_bytes(&unbiased, &mut bytes);
            BlockQ8_0 {
                d: half_of(words[16], i),
                qs: bytes.map(u8::cast_signed),
            }
        }),
    }
}

fn half_of(word: u32, i: usize) -> HalfBytes {
    if i == 0 { low(word) } else { high(word) }
}

fn put_pair<B: bytemuck::Pod>(bytes: &mut [u8], block: impl Fn(usize) -> B) {
    for i in 0..2 {
        let b = block(i);
        bytes[i * size_of::<B>()..][..size_of::<B>()].copy_from_slice(bytemuck::bytes_of(&b));
    }
}

/// Packed weights, or a range of their panels.
#[derive(Copy, Clone)]
pub struct Panels<'a> {
    layout: PanelLayout,
    first: usize,
    count: usize,
    bytes: &'a [u8],
}

impl<'a> Panels<'a> {
    /// All panels of a packed matrix.
    ///
    /// # Panics
    /// When `bytes` is not `layout.bytes()` long.
    #[track_caller]
    pub fn new(layout: PanelLayout, bytes: &'a [u8]) -> Self {
        assert_eq!(bytes.len(), layout.bytes(), "packed bytes of {layout:?}");
        Self {
            layout,
            first: 0,
            count: layout.panels(),
            bytes,
        }
    }

    /// Panels `range.start..range.end` of these.
    ///
    /// # Panics
    /// When the range passes the end.
    #[track_caller]
    pub fn range(&self, range: Range<usize>) -> Panels<'a> {
        assert!(
            range.start <= range.end && range.end <= self.count,
            "panels {range:?} of {}",
            self.count
        );
        let size = self.layout.panel_bytes();
        Panels {
            layout: self.layout,
            first: self.first + range.start,
            count: range.len(),
            bytes: &self.bytes[range.start * size..range.end * size],
        }
    }

    /// The layout of the whole matrix.
    pub fn layout(&self) -> &PanelLayout {
        &self.layout
    }

    /// How the values are stored.
    pub fn dtype(&self) -> Dtype {
        self.layout.dtype()
    }

    /// Values along `k` in each row.
    pub fn cols(&self) -> usize {
        self.layout.cols()
    }

    /// Panels in the range.
    pub fn panels(&self) -> usize {
        self.count
    }

    /// The output rows that the range holds, without the zero rows that fill the last panel.
    pub fn rows(&self) -> Range<usize> {
        let clip = |panel: usize| (panel * PANEL_ROWS).min(self.layout.rows());
        clip(self.first)..clip(self.first + self.count)
    }

    /// The bytes of panel `i` of the range.
    ///
    /// # Panics
    /// When there is no such panel.
    #[track_caller]
    pub fn panel(&self, i: usize) -> &'a [u8] {
        assert!(i < self.count, "panel {i} of {}", self.count);
        &self.bytes[i * self.layout.panel_bytes()..][..self.layout.panel_bytes()]
    }

    /// The bytes of all panels of the range.
    pub fn bytes(&self) -> &'a [u8] {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, random_rows};

    #[test]
    fn rows_come_back_bit_for_bit() {
        let mut random = Random::new(1);
        for dtype in Dtype::ALL {
            for rows in [1, 15, 16, 17, 40] {
                for blocks in [1, 2, 3, 5] {
                    let cols = blocks * dtype.block_elems();
                    let layout = PanelLayout::new(dtype, rows, cols).unwrap();
                    let file = random_rows(&mut random, dtype, rows, cols);
                    let mut packed = vec![0xAA; layout.bytes()];
                    layout.pack(0, &file, &mut packed);
                    let (mut got, mut want) = (vec![0.0f32; cols], vec![0.0f32; cols]);
                    for (row, bytes) in file.chunks(layout.row_bytes()).enumerate() {
                        dequantize_row(dtype, bytes, &mut want);
                        layout.unpack_row(&packed, row, &mut got);
                        let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                        assert_eq!(
                            bits(&got),
                            bits(&want),
                            "{dtype} row {row} of {rows}x{cols}"
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn pieces_pack_to_the_same_bytes() {
        let mut random = Random::new(2);
        for dtype in Dtype::ALL {
            let (rows, cols) = (70, 3 * dtype.block_elems());
            let layout = PanelLayout::new(dtype, rows, cols).unwrap();
            let file = random_rows(&mut random, dtype, rows, cols);
            let mut whole = vec![0xAA; layout.bytes()];
            layout.pack(0, &file, &mut whole);
            let mut pieces = vec![0x55; layout.bytes()];
            for (from, to) in [(48, 70), (0, 16), (16, 48)] {
                let bytes = layout.row_bytes();
                layout.pack(from, &file[from * bytes..to * bytes], &mut pieces);
            }
            assert!(whole == pieces, "{dtype}");
        }
    }

    #[test]
    fn sizes_are_those_of_the_file_but_for_q6_k() {
        for dtype in Dtype::ALL {
            let layout = PanelLayout::new(dtype, 4096, 2560).unwrap();
            let file = 4096 * layout.row_bytes();
            match dtype {
                Dtype::Q6K => assert_eq!(layout.bytes() * 210, file * 212),
                _ => assert_eq!(layout.bytes(), file),
            }
        }
    }

    #[test]
    fn impossible_layouts_are_refused() {
        assert!(PanelLayout::new(Dtype::Q4K, 16, 384).is_none());
        assert!(PanelLayout::new(Dtype::F32, 0, 384).is_none());
        assert!(PanelLayout::new(Dtype::F32, 16, 0).is_none());
        assert!(PanelLayout::new(Dtype::F32, usize::MAX, usize::MAX / 8).is_none());
        assert!(PanelLayout::new(Dtype::Q8_0, usize::MAX / 2, 32).is_none());
    }

    #[test]
    fn ranges_of_ranges_know_their_rows() {
        let layout = PanelLayout::new(Dtype::F32, 70, 3).unwrap();
        let bytes = vec![0; layout.bytes()];
        let all = Panels::new(layout, &bytes);
        assert_eq!((all.panels(), all.rows()), (5, 0..70));
        let some = all.range(1..5).range(2..4);
        assert_eq!((some.panels(), some.rows()), (2, 48..70));
        assert_eq!(all.range(5..5).rows(), 70..70);
        assert_eq!(some.panel(1).len(), 192);
    }

    #[test]
    fn fifth_bits_go_where_the_words_are() {
        for bit in 0..32 {
            let spread = spread_fifth_bits(1 << bit);
            assert_eq!(spread, 1 << (8 * (bit % 4) + bit / 4));
            assert_eq!(gather_fifth_bits(spread), 1 << bit);
        }
    }
}
