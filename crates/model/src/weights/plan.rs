//! Where each tensor lies while the model runs: in memory for good, in a window that layers pass
//! through, or in the file alone; and the bytes of all that.

use std::ops::Range;

use bursar_kernels::panel::PANEL_ROWS;
use bursar_kernels::quant::Dtype;

use super::PIECE_BYTES_MAX;
use crate::ModelError;
use crate::arch::{TensorForm, TensorSpec};
use crate::graph::plan::ALIGN;
use crate::graph::{EmbedIndex, Op, Program, Stage};
use crate::recast::Recast;

/// Where weights are while a model runs.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Default)]
pub enum Residency {
    /// In memory, all of them.
    #[default]
    Resident,
    /// Layers are read again in every pass, ahead of the computation, into a window that is used in
    /// turn. Results are those of resident weights, bit for bit.
    Streamed {
        /// Layers that the window holds, at least 2: one that computes and one that is read.
        window: usize,
        /// Layers that stay in memory nevertheless, spread evenly among the others.
        held_layers: usize,
        /// Whether the table of token vectors stays in memory; its rows are read as tokens come
        /// otherwise. (One that also makes the logits always stays.)
        held_table: bool,
    },
}

/// Where a tensor lies.
#[derive(Clone, Debug)]
pub(super) enum Place {
    /// Among the weights that stay.
    Held(Range<usize>),
    /// In the window's slot, while its layer is there.
    Window(Range<usize>),
    /// In the file: rows are read one by one.
    File,
}

/// Where all tensors lie.
#[derive(Clone, Debug)]
pub(crate) struct WeightsPlan {
    pub(super) places: Vec<Place>,
    /// Bytes of those that stay.
    pub(super) held_bytes: usize,
    /// Bytes of the largest layer that does not.
    pub(super) slot_bytes: usize,
    /// Layers in the window.
    pub(super) slots: usize,
    /// Layers that pass through the window, ascending.
    pub(super) streamed: Vec<usize>,
    /// Bytes of the buffer that loading needs.
    staging_bytes: usize,
    /// Bytes of the buffer that the window's reader keeps.
    pub(super) reader_bytes: usize,
    /// Bytes that a pass reads of the file.
    pass_bytes: u64,
}

impl WeightsPlan {
    /// Places the tensors one after another on cache lines. `workers` pack at once while loading.
    pub(crate) fn new(
        tensors: &[TensorSpec],
        program: &Program,
        residency: Residency,
        workers: usize,
    ) -> Result<Self, ModelError> {
        let layers = layers(tensors);
        let (slots, held_layers, held_table) = match residency {
            Residency::Resident => (0, layers, true),
            Residency::Streamed {
                window,
                held_layers,
                held_table,
            } => (window.max(2), held_layers.min(layers), held_table),
        };
        let passing = layers - held_layers;
        let is_streamed =
            |layer: usize| (layer + 1) * passing / layers.max(1) > layer * passing / layers.max(1);
        let mut plan = Self {
            places: Vec::with_capacity(tensors.len()),
            held_bytes: 0,
            slot_bytes: 0,
            slots: if passing == 0 { 0 } else { slots },
            streamed: (0..layers).filter(|&layer| is_streamed(layer)).collect(),
            staging_bytes: 0,
            reader_bytes: 0,
            pass_bytes: 0,
        };
        let mut slot = (0, 0);
        for (index, tensor) in tensors.iter().enumerate() {
            let too_large = || ModelError::TooLarge {
                what: tensor.info.name.clone(),
            };
            let place = |end: &mut usize| {
                let start = *end;
                let behind = start.checked_add(tensor.form.bytes())?;
                *end = behind.checked_next_multiple_of(ALIGN)?;
                Some(start..behind)
            };
            let matrix = matches!(tensor.form, TensorForm::Matrix(_));
            let placed = match tensor.stage {
                Stage::Layer(layer) if matrix && is_streamed(layer) => {
                    if slot.0 != layer {
                        slot = (layer, 0);
                    }
                    let range = place(&mut slot.1).ok_or_else(too_large)?;
                    plan.slot_bytes = plan.slot_bytes.max(slot.1);
                    plan.reader_bytes = plan.reader_bytes.max(piece_bytes(tensor, 1)?);
                    plan.pass_bytes += tensor.info.bytes;
                    Place::Window(range)
                }
                _ if !held_table && is_token_table(program, index) => Place::File,
                _ => {
                    let range = place(&mut plan.held_bytes).ok_or_else(too_large)?;
                    plan.staging_bytes = plan.staging_bytes.max(piece_bytes(tensor, workers)?);
                    Place::Held(range)
                }
            };
            plan.places.push(placed);
        }
        plan.slot_bytes
            .checked_mul(plan.slots)
            .ok_or_else(|| ModelError::TooLarge {
                what: "a window of layers".into(),
            })?;
        Ok(plan)
    }

    /// Bytes of the weights that stay in memory.
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Bytes of the buffer that loading needs.
    pub(crate) fn staging_bytes(&self) -> usize {
        self.staging_bytes
    }

    /// Bytes of one slot of the window, how many there are, and bytes of their reader's own buffer.
    pub(crate) fn window(&self) -> (usize, usize, usize) {
        (self.slot_bytes, self.slots, self.reader_bytes)
    }

    /// Whether a layer passes through the window.
    pub(crate) fn is_streamed(&self, layer: usize) -> bool {
        self.streamed.binary_search(&layer).is_ok()
    }

    /// Layers that pass through the window.
    pub(crate) fn streamed_layers(&self) -> usize {
        self.streamed.len()
    }

    /// Bytes that a pass reads of the file, rows of the token table aside.
    pub(crate) fn pass_bytes(&self) -> u64 {
        self.pass_bytes
    }
}

fn layers(tensors: &[TensorSpec]) -> usize {
    let layer = |tensor: &TensorSpec| match tensor.stage {
        Stage::Layer(layer) => layer + 1,
        Stage::Embedding | Stage::Head => 0,
    };
    tensors.iter().map(layer).max().unwrap_or(0)
}

/// Whether a tensor is looked up by token and used for nothing else.
fn is_token_table(program: &Program, index: usize) -> bool {
    let mut looked_up = false;
    for op in program.ops() {
        match op {
            Op::Embed {
                table, index: by, ..
            } if table.0 as usize == index => {
                looked_up = *by == EmbedIndex::Token;
            }
            Op::MatMul { weight, .. } if weight.0 as usize == index => return false,
            _ => {}
        }
    }
    looked_up
}

/// Rows read at once: whole panels, as many as a piece holds.
pub(super) fn piece_rows(tensor: &TensorSpec) -> Result<usize, ModelError> {
    let row_bytes = row_bytes(tensor)?;
    let panels = (PIECE_BYTES_MAX / row_bytes.max(1)) / PANEL_ROWS;
    Ok((panels.max(1) * PANEL_ROWS).min(tensor.info.rows.max(1)))
}

/// Bytes of a buffer for a piece, and for packing it by as many workers at once.
fn piece_bytes(tensor: &TensorSpec, workers: usize) -> Result<usize, ModelError> {
    let scratch = recast(tensor).map_or(0, |recast| recast.scratch_bytes());
    Ok((piece_rows(tensor)? * row_bytes(tensor)?).next_multiple_of(ALIGN) + workers * scratch)
}

/// How a matrix gets from the file into memory; `None` for a vector.
pub(super) fn recast(tensor: &TensorSpec) -> Option<Recast> {
    match tensor.form {
        TensorForm::Matrix(to) => Some(Recast {
            from: tensor.info.dtype,
            to,
        }),
        TensorForm::Vector { .. } => None,
    }
}

pub(super) fn row_bytes(tensor: &TensorSpec) -> Result<usize, ModelError> {
    let dtype: Dtype = tensor.info.dtype;
    dtype
        .row_bytes(tensor.info.cols)
        .ok_or_else(|| ModelError::TooLarge {
            what: tensor.info.name.clone(),
        })
}
