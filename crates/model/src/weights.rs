//! Weights in memory: one mapping that holds every tensor in the form the kernels stream.
//!
//! Tensors are read from the file in pieces of at most `PIECE_BYTES_MAX` through a staging buffer
//! that the caller lends, packed, and dropped from the page cache behind: neither a second copy of
//! the file nor a mapping of it ever exists.

use std::ops::Range;

use bursar_files::{ModelFile, TensorInfo};
use bursar_kernels::panel::{PANEL_ROWS, PanelLayout, Panels};
use bursar_kernels::quant::dequantize_row;
use bursar_memory::Mapping;
use bursar_profile::span;
use bursar_workers::Workers;

use crate::ModelError;
use crate::arch::{TensorForm, TensorSpec};
use crate::graph::TensorId;
use crate::graph::plan::ALIGN;

/// The most that is read from a file at once.
pub const PIECE_BYTES_MAX: usize = 8 << 20;

/// Where each tensor lies among the weights.
#[derive(Clone, Debug)]
pub(crate) struct WeightsPlan {
    ranges: Vec<Range<usize>>,
    bytes: usize,
    staging_bytes: usize,
}

impl WeightsPlan {
    /// Places the tensors one after another on cache lines.
    pub(crate) fn new(tensors: &[TensorSpec]) -> Result<Self, ModelError> {
        let mut ranges = Vec::with_capacity(tensors.len());
        let mut end = 0usize;
        let mut staging_bytes = 0usize;
        for tensor in tensors {
            let start = end;
            let next = start
                .checked_add(tensor.form.bytes())
                .and_then(|n| n.checked_next_multiple_of(ALIGN))
                .ok_or_else(|| ModelError::TooLarge {
                    what: tensor.info.name.clone(),
                })?;
            ranges.push(start..start + tensor.form.bytes());
            staging_bytes = staging_bytes.max(piece_bytes(tensor)?);
            end = next;
        }
        Ok(Self {
            ranges,
            bytes: end,
            staging_bytes,
        })
    }

    /// Bytes of all weights.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Bytes of the staging buffer that loading needs.
    pub(crate) fn staging_bytes(&self) -> usize {
        self.staging_bytes
    }
}

/// Rows read at once: whole panels, as many as a piece holds.
fn piece_rows(tensor: &TensorSpec) -> Result<usize, ModelError> {
    let row_bytes = row_bytes(&tensor.info)?;
    let panels = (PIECE_BYTES_MAX / row_bytes.max(1)) / PANEL_ROWS;
    Ok((panels.max(1) * PANEL_ROWS).min(tensor.info.rows.max(1)))
}

fn piece_bytes(tensor: &TensorSpec) -> Result<usize, ModelError> {
    let widened = if is_widened(tensor) {
        PANEL_ROWS * tensor.info.cols * size_of::<f32>()
    } else {
        0
    };
    Ok((piece_rows(tensor)? * row_bytes(&tensor.info)?).next_multiple_of(ALIGN) + widened)
}

/// Whether a matrix is held in f32 though it is stored otherwise.
fn is_widened(tensor: &TensorSpec) -> bool {
    matches!(tensor.form, TensorForm::Matrix(layout) if layout.dtype() != tensor.info.dtype)
}

fn row_bytes(info: &TensorInfo) -> Result<usize, ModelError> {
    info.dtype
        .row_bytes(info.cols)
        .ok_or_else(|| ModelError::TooLarge {
            what: info.name.clone(),
        })
}

/// Loaded weights.
pub(crate) struct Weights {
    mapping: Mapping,
    plan: WeightsPlan,
    forms: Vec<TensorForm>,
    digest: [u8; 32],
}

/// Bytes that one hash covers while a file is read, so that workers share them whatever their number.
const DIGEST_PART: usize = 1 << 18;

impl Weights {
    /// Reads and packs every tensor into `mapping`, which must hold `plan.bytes()`; `staging` must
    /// hold `plan.staging_bytes()`. `progress` is told the file bytes read so far.
    pub(crate) fn load(
        file: &ModelFile,
        tensors: &[TensorSpec],
        plan: WeightsPlan,
        mut mapping: Mapping,
        staging: &mut [u8],
        workers: &Workers,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self, ModelError> {
        let mut done = 0u64;
        let mut digest = blake3::Hasher::new();
        for (tensor, range) in tensors.iter().zip(&plan.ranges) {
            let dst = &mut mapping.as_mut_slice()[range.clone()];
            let row_bytes = row_bytes(&tensor.info)?;
            let piece = piece_rows(tensor)?;
            let mut row = 0;
            while row < tensor.info.rows {
                let rows = piece.min(tensor.info.rows - row);
                let (src, widened) =
                    staging.split_at_mut((piece * row_bytes).next_multiple_of(ALIGN));
                let src = &mut src[..rows * row_bytes];
                let offset = row as u64 * row_bytes as u64;
                {
                    let _span = span!("load.read", src.len());
                    file.read_at(&tensor.info, offset, src)?;
                }
                {
                    let _span = span!("load.digest", src.len());
                    digest_parts(workers, src, &mut digest);
                }
                let _span = span!("load.pack", src.len());
                match tensor.form {
                    TensorForm::Matrix(layout) if is_widened(tensor) => {
                        let panel = &mut widened[..PANEL_ROWS * layout.row_bytes()];
                        for (i, src) in src.chunks(PANEL_ROWS * row_bytes).enumerate() {
                            let rows = src.len() / row_bytes;
                            let panel = &mut panel[..rows * layout.row_bytes()];
                            let cols = layout.cols();
                            let values: &mut [f32] = bytemuck::cast_slice_mut(panel);
                            for (src, out) in src
                                .chunks_exact(row_bytes)
                                .zip(values.chunks_exact_mut(cols))
                            {
                                dequantize_row(tensor.info.dtype, src, out);
                            }
                            layout.pack(row + i * PANEL_ROWS, panel, dst);
                        }
                    }
                    TensorForm::Matrix(layout) => pack(workers, layout, row, src, dst),
                    TensorForm::Vector { .. } => {
                        let cols = tensor.info.cols;
                        let values: &mut [f32] = bytemuck::cast_slice_mut(dst);
                        for (i, line) in src.chunks_exact(row_bytes).enumerate() {
                            let at = (row + i) * cols;
                            dequantize_row(tensor.info.dtype, line, &mut values[at..at + cols]);
                        }
                    }
                }
                done += src.len() as u64;
                progress(done);
                row += rows;
            }
            digest.update(format!("{} {:?}", tensor.info.name, tensor.form).as_bytes());
            file.drop_cache(&tensor.info, 0..tensor.info.bytes);
        }
        Ok(Self {
            mapping,
            plan,
            digest: digest.finalize().into(),
            forms: tensors.iter().map(|t| t.form).collect(),
        })
    }

    /// BLAKE3 over all that was read: each tensor's bytes, its name, and how it is held.
    pub(crate) fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// A packed matrix.
    pub(crate) fn panels(&self, tensor: TensorId) -> Panels<'_> {
        match self.forms[tensor.0 as usize] {
            TensorForm::Matrix(layout) => Panels::new(layout, self.bytes_of(tensor)),
            TensorForm::Vector { .. } => unreachable!("tensor {} is a vector", tensor.0),
        }
    }

    /// A vector of f32.
    pub(crate) fn vector(&self, tensor: TensorId) -> &[f32] {
        bytemuck::cast_slice(self.bytes_of(tensor))
    }

    fn bytes_of(&self, tensor: TensorId) -> &[u8] {
        &self.mapping.as_slice()[self.plan.ranges[tensor.0 as usize].clone()]
    }
}

/// Adds the hashes of the parts of `src` to `digest`.
fn digest_parts(workers: &Workers, src: &[u8], digest: &mut blake3::Hasher) {
    let mut parts: Vec<(&[u8], [u8; 32])> = src
        .chunks(DIGEST_PART)
        .map(|part| (part, [0; 32]))
        .collect();
    workers.for_each_mut(&mut parts, |_, (part, hash)| {
        *hash = blake3::hash(part).into();
    });
    for (_, hash) in &parts {
        digest.update(hash);
    }
}

/// Packs `src`, whole rows from `first_row` on, with the workers sharing the panels.
fn pack(workers: &Workers, layout: PanelLayout, first_row: usize, src: &[u8], dst: &mut [u8]) {
    let row_bytes = layout.row_bytes();
    let rows = src.len() / row_bytes;
    let panels = rows.div_ceil(PANEL_ROWS);
    let first = first_row / PANEL_ROWS * layout.panel_bytes();
    let dst = &mut dst[first..first + panels * layout.panel_bytes()];
    let share = panels.div_ceil(workers.threads() * 2).max(1);
    let mut parts: Vec<(&[u8], &mut [u8])> = src
        .chunks(share * PANEL_ROWS * row_bytes)
        .zip(dst.chunks_mut(share * layout.panel_bytes()))
        .collect();
    workers.for_each_mut(&mut parts, |_, (src, dst)| {
        let rows = src.len() / row_bytes;
        let part =
            PanelLayout::new(layout.dtype(), rows, layout.cols()).expect("a part of a layout");
        part.pack(0, src, dst);
    });
}
