//! What architectures build with: tensors by role, buffers and ops. Products are over f32 rows here;
//! `graph::lower` quantises them for quantised weights.

use bursar_files::{LayerRole, ModelFile, Role, TensorInfo};
use bursar_kernels::panel::PanelLayout;

use crate::ModelError;
use crate::graph::{Buffer, BufferId, Op, Program, Rows, Stage, TensorId};
use crate::recast::WeightsDtype;

/// The form that a tensor takes in memory.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum TensorForm {
    /// Packed panels, of the stored type or another.
    Matrix(PanelLayout),
    /// f32 values (norm scales, biases), whatever the stored type.
    Vector {
        /// Values.
        len: usize,
    },
}

impl TensorForm {
    /// Bytes in memory.
    pub fn bytes(&self) -> usize {
        match self {
            TensorForm::Matrix(layout) => layout.bytes(),
            TensorForm::Vector { len } => len * size_of::<f32>(),
        }
    }
}

/// A tensor that the program reads.
#[derive(Clone, Debug)]
pub struct TensorSpec {
    /// Where it lies in the file.
    pub info: TensorInfo,
    /// What it becomes in memory.
    pub form: TensorForm,
    /// The stage that reads it (the first one, for a tied output).
    pub stage: Stage,
}

/// Collects a program while an architecture walks through its layers.
pub(super) struct Builder<'a> {
    pub(super) file: &'a ModelFile,
    weights: WeightsDtype,
    pub(super) tensors: Vec<TensorSpec>,
    buffers: Vec<Buffer>,
    ops: Vec<Op>,
    stage: Stage,
}

impl<'a> Builder<'a> {
    pub(super) fn new(file: &'a ModelFile, weights: WeightsDtype) -> Self {
        Self {
            file,
            weights,
            tensors: Vec::new(),
            buffers: Vec::new(),
            ops: Vec::new(),
            stage: Stage::Embedding,
        }
    }

    /// Opens a stage: its weights are fetched here.
    pub(super) fn fetch(&mut self, stage: Stage) {
        self.stage = stage;
        self.ops.push(Op::Fetch(stage));
    }

    /// Closes the current stage.
    pub(super) fn release(&mut self) {
        self.ops.push(Op::Release(self.stage));
    }

    pub(super) fn push(&mut self, op: Op) {
        self.ops.push(op);
    }

    /// Ops pushed so far, taken out (the body; what follows is the head).
    pub(super) fn take_ops(&mut self) -> Vec<Op> {
        std::mem::take(&mut self.ops)
    }

    /// Declares a buffer of `cols` f32 values per row.
    pub(super) fn f32s(&mut self, name: &'static str, rows: Rows, cols: usize) -> BufferId {
        self.bytes(name, rows, cols * size_of::<f32>())
    }

    /// Declares a buffer of bytes.
    pub(super) fn bytes(&mut self, name: &'static str, rows: Rows, row_bytes: usize) -> BufferId {
        let id = BufferId(u32::try_from(self.buffers.len()).expect("buffers are few"));
        self.buffers.push(Buffer {
            name,
            rows,
            row_bytes,
        });
        id
    }

    fn add(&mut self, info: TensorInfo, form: TensorForm) -> TensorId {
        let id = TensorId(u32::try_from(self.tensors.len()).expect("tensors are few"));
        self.tensors.push(TensorSpec {
            info,
            form,
            stage: self.stage,
        });
        id
    }

    fn missing(&self, role: Role) -> ModelError {
        ModelError::TensorMissing {
            model: self.file.config().name.clone(),
            role: format!("{role:?}"),
        }
    }

    /// A weight matrix of `rows x cols`.
    pub(super) fn matrix(
        &mut self,
        role: Role,
        rows: usize,
        cols: usize,
    ) -> Result<TensorId, ModelError> {
        let info = self
            .file
            .find(role)
            .ok_or_else(|| self.missing(role))?
            .clone();
        if (info.rows, info.cols) != (rows, cols) {
            return Err(ModelError::Shape {
                tensor: info.name.clone(),
                got: format!("{} x {}", info.rows, info.cols),
                want: format!("{rows} x {cols}"),
            });
        }
        let dtype = self.weights.held(info.dtype, rows, cols);
        let layout = PanelLayout::new(dtype, rows, cols).ok_or_else(|| ModelError::Shape {
            tensor: info.name.clone(),
            got: format!("{cols} columns"),
            want: format!(
                "a multiple of {} for {}",
                info.dtype.block_elems(),
                info.dtype.name()
            ),
        })?;
        Ok(self.add(info, TensorForm::Matrix(layout)))
    }

    /// A vector of `len` values; `None` where the file has none.
    pub(super) fn vector_if_any(
        &mut self,
        role: Role,
        len: usize,
    ) -> Result<Option<TensorId>, ModelError> {
        let Some(info) = self.file.find(role).cloned() else {
            return Ok(None);
        };
        if info.rows.checked_mul(info.cols) != Some(len) {
            return Err(ModelError::Shape {
                tensor: info.name.clone(),
                got: format!("{} x {}", info.rows, info.cols),
                want: format!("{len} values"),
            });
        }
        Ok(Some(self.add(info, TensorForm::Vector { len })))
    }

    /// A vector of `len` values that must be there.
    pub(super) fn vector(&mut self, role: Role, len: usize) -> Result<TensorId, ModelError> {
        self.vector_if_any(role, len)?
            .ok_or_else(|| self.missing(role))
    }

    /// `out (+)= x Wᵀ + bias` for tensor `weight` of `rows x cols`.
    pub(super) fn product(
        &mut self,
        x: BufferId,
        weight: TensorId,
        bias: Option<TensorId>,
        out: BufferId,
        accumulate: bool,
    ) {
        self.push(Op::MatMul {
            x,
            weight,
            bias,
            out,
            accumulate,
        });
    }

    /// A linear map of layer `layer`: weight, and bias where the file has one.
    pub(super) fn linear(
        &mut self,
        layer: usize,
        weight: (LayerRole, LayerRole),
        shape: (usize, usize),
        x: BufferId,
        out: BufferId,
        accumulate: bool,
    ) -> Result<(), ModelError> {
        let matrix = self.matrix(Role::Layer(layer, weight.0), shape.0, shape.1)?;
        let bias = self.vector_if_any(Role::Layer(layer, weight.1), shape.0)?;
        self.product(x, matrix, bias, out, accumulate);
        Ok(())
    }

    /// The finished program.
    pub(super) fn finish(
        mut self,
        body: Vec<Op>,
        output: BufferId,
        output_width: usize,
        scratch_block_bytes: usize,
    ) -> (Program, Vec<TensorSpec>) {
        let head = self.take_ops();
        let program = Program {
            buffers: self.buffers,
            body,
            head,
            output,
            output_width,
            scratch_block_bytes,
        };
        (program, self.tensors)
    }
}
