//! Matrices held in another form than the file's: which, and how rows get there.

use bursar_kernels::panel::{PANEL_ROWS, PanelLayout};
use bursar_kernels::quant::{Dtype, dequantize_row};
use bursar_kernels::quantize::quantize_row;

use crate::graph::plan::ALIGN;

/// How matrices are held in memory. Vectors (norm scales, biases) are f32 always.
///
/// But for `F32`, a matrix is only ever held in fewer bytes than the file's: what is stored in as few
/// already stays as it is.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Default)]
pub enum WeightsDtype {
    /// As the file stores them.
    #[default]
    AsIs,
    /// As the f32 values that they stand for: what a quantised run is compared with.
    F32,
    /// f32 values as bfloat16.
    Bf16,
    /// Floats as 8-bit blocks of 32 with a scale.
    Q8_0,
    /// Anything larger as 4-bit super-blocks of 256; where a row is not whole super-blocks, as `Q8_0`.
    Q4K,
}

impl WeightsDtype {
    /// Those that take fewer bytes each than the one before, the least lossy first.
    pub const DESCENDING: [WeightsDtype; 4] = [
        WeightsDtype::AsIs,
        WeightsDtype::Bf16,
        WeightsDtype::Q8_0,
        WeightsDtype::Q4K,
    ];

    /// The name that settings give it.
    pub fn name(self) -> &'static str {
        match self {
            WeightsDtype::AsIs => "as-is",
            WeightsDtype::F32 => "f32",
            WeightsDtype::Bf16 => "bf16",
            WeightsDtype::Q8_0 => "q8_0",
            WeightsDtype::Q4K => "q4_k",
        }
    }

    /// How a matrix of `rows x cols` that is held as `dtype` is to be held.
    pub fn held(self, dtype: Dtype, rows: usize, cols: usize) -> Dtype {
        let candidates: &[Dtype] = match self {
            WeightsDtype::AsIs => &[],
            WeightsDtype::F32 => return Dtype::F32,
            WeightsDtype::Bf16 => &[Dtype::BF16],
            WeightsDtype::Q8_0 => &[Dtype::Q8_0],
            WeightsDtype::Q4K => &[Dtype::Q4K, Dtype::Q8_0],
        };
        let bytes = |dtype| PanelLayout::new(dtype, rows, cols).map(|layout| layout.bytes());
        let now = bytes(dtype);
        let smaller = |candidate: &&Dtype| bytes(**candidate).is_some_and(|new| Some(new) < now);
        candidates.iter().find(smaller).copied().unwrap_or(dtype)
    }
}

impl std::fmt::Display for WeightsDtype {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The way of rows of one type to panels of the same or another.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Recast {
    /// How the rows come.
    pub(crate) from: Dtype,
    /// What they become.
    pub(crate) to: PanelLayout,
}

impl Recast {
    /// Whether the values change their form.
    pub(crate) fn changes(&self) -> bool {
        self.from != self.to.dtype()
    }

    /// Bytes that [`Recast::pack_panel`] needs besides: one row of values, and a panel's rows in
    /// their new form.
    pub(crate) fn scratch_bytes(&self) -> usize {
        match self.changes() {
            false => 0,
            true => self.values_bytes() + self.rows_bytes(),
        }
    }

    fn values_bytes(&self) -> usize {
        (self.to.cols() * size_of::<f32>()).next_multiple_of(ALIGN)
    }

    fn rows_bytes(&self) -> usize {
        (PANEL_ROWS * self.to.row_bytes()).next_multiple_of(ALIGN)
    }

    /// Packs one panel from `src`, up to 16 rows as they come.
    pub(crate) fn pack_panel(&self, src: &[u8], scratch: &mut [u8], panel: &mut [u8]) {
        if !self.changes() {
            self.to.pack_panel(src, panel);
            return;
        }
        let from_bytes = self.from.row_bytes(self.to.cols());
        let from_bytes = from_bytes.expect("checked when the tensor was planned");
        let rows = src.chunks_exact(from_bytes);
        self.pack_values(rows.len(), scratch, panel, &mut |row, values| {
            dequantize_row(self.from, &src[row * from_bytes..][..from_bytes], values);
        });
    }

    /// Packs panel `index` of `old`, the same matrix in panels of the type it comes from.
    pub(crate) fn repack_panel(
        &self,
        old: (&PanelLayout, &[u8]),
        index: usize,
        scratch: &mut [u8],
        panel: &mut [u8],
    ) {
        let (layout, bytes) = old;
        let first = index * PANEL_ROWS;
        let rows = PANEL_ROWS.min(layout.rows() - first);
        self.pack_values(rows, scratch, panel, &mut |row, values| {
            layout.unpack_row(bytes, first + row, values);
        });
    }

    /// Packs one panel of `rows` rows whose values `fill` gives.
    fn pack_values(
        &self,
        rows: usize,
        scratch: &mut [u8],
        panel: &mut [u8],
        fill: &mut dyn FnMut(usize, &mut [f32]),
    ) {
        let (values, lines) = scratch.split_at_mut(self.values_bytes());
        let values: &mut [f32] = bytemuck::cast_slice_mut(values);
        let values = &mut values[..self.to.cols()];
        let row_bytes = self.to.row_bytes();
        let lines = &mut lines[..rows * row_bytes];
        for (row, line) in lines.chunks_exact_mut(row_bytes).enumerate() {
            fill(row, values);
            quantize_row(self.to.dtype(), values, line);
        }
        self.to.pack_panel(lines, panel);
    }

    /// The values of one row as they are once it has been packed.
    pub(crate) fn row(&self, src: &[u8], line: &mut Vec<u8>, out: &mut [f32]) {
        dequantize_row(self.from, src, out);
        if self.changes() {
            line.resize(self.to.row_bytes(), 0);
            quantize_row(self.to.dtype(), out, line);
            dequantize_row(self.to.dtype(), line, out);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_matrix_is_held_in_no_more_bytes_than_before() {
        use Dtype as D;
        let held = |to: WeightsDtype, from, cols| to.held(from, 64, cols);
        assert_eq!(held(WeightsDtype::Bf16, D::F32, 96), D::BF16);
        assert_eq!(held(WeightsDtype::Bf16, D::F16, 96), D::F16);
        assert_eq!(held(WeightsDtype::Bf16, D::Q8_0, 96), D::Q8_0);
        assert_eq!(held(WeightsDtype::Q8_0, D::BF16, 96), D::Q8_0);
        assert_eq!(held(WeightsDtype::Q8_0, D::BF16, 100), D::BF16);
        assert_eq!(held(WeightsDtype::Q8_0, D::Q5K, 256), D::Q5K);
        assert_eq!(held(WeightsDtype::Q4K, D::Q5K, 256), D::Q4K);
        assert_eq!(held(WeightsDtype::Q4K, D::F32, 384), D::Q8_0);
        assert_eq!(held(WeightsDtype::Q4K, D::Q4_0, 256), D::Q4_0);
        assert_eq!(held(WeightsDtype::F32, D::Q4_0, 256), D::F32);
        for from in Dtype::ALL {
            for to in WeightsDtype::DESCENDING {
                for blocks in 1..4 {
                    let cols = blocks * from.block_elems();
                    let new = to.held(from, 17, cols);
                    let bytes = |dtype| PanelLayout::new(dtype, 17, cols).map(|l| l.bytes());
                    assert!(bytes(new) <= bytes(from), "{from} {to} {cols}");
                    assert_eq!(to.held(new, 17, cols), new, "twice changes no more");
                }
            }
        }
    }

    /// Rows packed piece by piece, and panels packed again, hold what quantising each row holds.
    #[test]
    fn panels_hold_what_each_row_quantised_alone_holds() {
        let mut state = 3u64;
        let mut next = || {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            ((state >> 40) as f32 / (1u64 << 23) as f32 - 1.0) * 0.1
        };
        let pairs = [
            (Dtype::F32, Dtype::BF16),
            (Dtype::F32, Dtype::Q8_0),
            (Dtype::BF16, Dtype::Q8_0),
            (Dtype::F32, Dtype::Q4K),
            (Dtype::Q8_0, Dtype::Q4K),
            (Dtype::Q5K, Dtype::Q4K),
            (Dtype::Q4_0, Dtype::F32),
        ];
        for (from, to) in pairs {
            let (rows, cols) = (37, 512);
            let from_bytes = from.row_bytes(cols).expect("whole blocks");
            let mut file = vec![0; rows * from_bytes];
            for line in file.chunks_exact_mut(from_bytes) {
                let values: Vec<f32> = (0..cols).map(|_| next()).collect();
                quantize_row(from, &values, line);
            }
            let layout = PanelLayout::new(to, rows, cols).expect("a layout");
            let old = PanelLayout::new(from, rows, cols).expect("a layout");
            let recast = Recast { from, to: layout };
            let mut scratch = vec![0; recast.scratch_bytes()];
            let mut packed = vec![0xAA; layout.bytes()];
            let sources = file.chunks(PANEL_ROWS * from_bytes);
            for (src, panel) in sources.zip(packed.chunks_exact_mut(layout.panel_bytes())) {
                recast.pack_panel(src, &mut scratch, panel);
            }
            let mut before = vec![0; old.bytes()];
            old.pack(0, &file, &mut before);
            let mut again = vec![0x55; layout.bytes()];
            for (i, panel) in again.chunks_exact_mut(layout.panel_bytes()).enumerate() {
                recast.repack_panel((&old, &before), i, &mut scratch, panel);
            }
            assert!(packed == again, "{from} to {to}");
            let (mut got, mut alone) = (vec![0.0f32; cols], vec![0.0f32; cols]);
            let (mut want, mut line) = (vec![0.0f32; cols], Vec::new());
            for (row, src) in file.chunks_exact(from_bytes).enumerate() {
                dequantize_row(from, src, &mut want);
                line.resize(to.row_bytes(cols).expect("whole blocks"), 0);
                quantize_row(to, &want, &mut line);
                dequantize_row(to, &line, &mut want);
                layout.unpack_row(&packed, row, &mut got);
                recast.row(src, &mut Vec::new(), &mut alone);
                let bits = |x: &[f32]| x.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
                assert_eq!(bits(&got), bits(&want), "{from} to {to}, row {row}");
                assert_eq!(bits(&alone), bits(&want), "{from} to {to}, row {row}");
            }
        }
    }
}
