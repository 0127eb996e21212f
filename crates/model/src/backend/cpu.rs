//! Runs a program on the CPU: each op on slices of the step arena, split among the workers.
//!
//! Splitting never changes a result: products are split by output row, everything else by token or
//! by head, and each output is reduced by one worker in one fixed order.

use std::ops::Range;

use arrayvec::ArrayVec;
use bursar_files::Pooling;
use bursar_kernels::acts::{ActKind, ActLayout, Acts, quantize_acts};
use bursar_kernels::attention::{AttentionShape, attention, attention_scratch_len};
use bursar_kernels::isa::Isa;
use bursar_kernels::kv_view::{KvLayout, KvView, kv_write};
use bursar_kernels::mat::{MatMut, MatRef};
use bursar_kernels::matmul::{Mode, matmul};
use bursar_kernels::ops;
use bursar_kernels::panel::{PANEL_ROWS, Panels};
use bursar_workers::Workers;

use super::spans;
use crate::ModelError;
use crate::graph::plan::ArenaPlan;
use crate::graph::{BufferId, EmbedIndex, NormKind, Op, Program, TensorId};
use crate::rope::RopeAngles;
use crate::weights::Weights;

/// The rows of one sequence in a batch.
#[derive(Clone, Debug)]
pub struct SequenceRows<'a> {
    /// Its rows among the batch's tokens.
    pub rows: Range<usize>,
    /// Position of its first row.
    pub position: usize,
    /// Its KV blocks, covering every position up to its last row; empty for embedding programs,
    /// which keep their own.
    pub blocks: &'a [u32],
}

/// What one pass computes.
#[derive(Clone, Debug)]
pub struct ForwardBatch<'a> {
    /// Token ids, the sequences one after another.
    pub tokens: &'a [u32],
    /// The sequences, in order of their rows, without gaps.
    pub sequences: &'a [SequenceRows<'a>],
    /// Generation: rows whose logits are wanted, ascending. Ignored for embedding, where each
    /// sequence has one output.
    pub outputs: &'a [u32],
}

/// Most pieces that one op is cut into.
const PARTS_MAX: usize = 64;
/// Below this many values an elementwise op is not worth waking the other workers.
const SHARE_VALUES_MIN: usize = 16 << 10;

/// Everything an op may read besides the arena.
pub(crate) struct Executor<'a> {
    pub(crate) isa: Isa,
    pub(crate) workers: &'a Workers,
    pub(crate) program: &'a Program,
    pub(crate) plan: &'a ArenaPlan,
    pub(crate) weights: &'a mut Weights,
    pub(crate) angles: Option<&'a RopeAngles>,
    pub(crate) shape: AttentionShape,
    pub(crate) kv: KvLayout,
    pub(crate) norm_eps: f32,
}

/// A pass in flight: which rows a chunk of outputs takes.
struct Pass<'b> {
    batch: &'b ForwardBatch<'b>,
    /// Outputs of the current head chunk.
    chunk: Range<usize>,
    /// Block table of the pass's own keys and values: block `i` is `i`.
    scratch_blocks: &'b [u32],
}

impl Executor<'_> {
    /// Runs the body, then the head once per chunk of outputs; `emit` gets the index of the
    /// chunk's first output and its rows.
    pub(crate) fn run(
        &mut self,
        batch: &ForwardBatch<'_>,
        arena: &mut [u8],
        cache: &mut [u8],
        scratch_blocks: &[u32],
        emit: &mut dyn FnMut(usize, MatRef<'_>),
    ) -> Result<(), ModelError> {
        let outputs = if self.program.scratch_block_bytes > 0 {
            batch.sequences.len()
        } else {
            batch.outputs.len()
        };
        let mut pass = Pass {
            batch,
            chunk: 0..0,
            scratch_blocks,
        };
        let program = self.program;
        for op in &program.body {
            self.step(op, &pass, arena, cache)?;
        }
        let step = self.plan.limits.outputs;
        let mut start = 0;
        while start < outputs {
            pass.chunk = start..(start + step).min(outputs);
            for op in &program.head {
                self.step(op, &pass, arena, cache)?;
            }
            let rows = pass.chunk.len();
            let range = self.plan.range(self.program.output);
            let values: &[f32] = bytemuck::cast_slice(&arena[range]);
            let width = self.program.output_width;
            emit(start, MatRef::dense(&values[..rows * width], rows, width));
            start = pass.chunk.end;
        }
        Ok(())
    }

    /// Runs an op, or what lies between ops: weights that are waited for, given up, or read row by
    /// row.
    fn step(
        &mut self,
        op: &Op,
        pass: &Pass<'_>,
        arena: &mut [u8],
        cache: &mut [u8],
    ) -> Result<(), ModelError> {
        match *op {
            Op::Fetch(stage) => self.weights.fetch(stage)?,
            Op::Release(stage) => self.weights.release(stage),
            Op::Embed {
                table,
                index: EmbedIndex::Token,
                out,
            } if self.weights.is_in_file(table) => {
                let [out] = self.borrow(arena, pass, [out]);
                self.weights
                    .read_rows(table, pass.batch.tokens, f32s(out))?;
            }
            _ => self.op(op, pass, arena, cache),
        }
        Ok(())
    }

    /// Columns of an f32 buffer.
    fn cols(&self, buffer: BufferId) -> usize {
        self.program.buffers[buffer.0 as usize].row_bytes / size_of::<f32>()
    }

    /// Rows that the pass uses of a buffer.
    fn rows(&self, buffer: BufferId, pass: &Pass<'_>) -> usize {
        use crate::graph::Rows;
        match self.program.buffers[buffer.0 as usize].rows {
            Rows::Tokens => pass.batch.tokens.len(),
            Rows::Outputs => pass.chunk.len(),
            Rows::Workers => self.plan.limits.workers,
            Rows::ScratchBlocks => self.plan.limits.scratch_blocks,
        }
    }

    /// The front of each buffer, as many rows as the pass uses. The plan keeps buffers that live
    /// together apart, so they can be borrowed together.
    fn borrow<'m, const N: usize>(
        &self,
        arena: &'m mut [u8],
        pass: &Pass<'_>,
        buffers: [BufferId; N],
    ) -> [&'m mut [u8]; N] {
        let ranges = buffers.map(|b| {
            let start = self.plan.range(b).start;
            start..start + self.rows(b, pass) * self.program.buffers[b.0 as usize].row_bytes
        });
        arena
            .get_disjoint_mut(ranges)
            .expect("buffers that live together lie apart")
    }

    fn op(&self, op: &Op, pass: &Pass<'_>, arena: &mut [u8], cache: &mut [u8]) {
        let batch = pass.batch;
        let _span = spans::of(op, batch.tokens.len());
        match *op {
            // Between ops, see `step`.
            Op::Fetch(_) | Op::Release(_) => {}
            Op::Embed { table, index, out } => {
                let [out] = self.borrow(arena, pass, [out]);
                let table = self.weights.panels(table);
                self.share(matrix(out, table.cols()), |first, mut part| {
                    for row in 0..part.rows() {
                        let entry = match index {
                            EmbedIndex::Token => batch.tokens[first + row] as usize,
                            EmbedIndex::Position => position(batch, first + row),
                            EmbedIndex::First => 0,
                        };
                        if let Some(same) = repeated(batch, index, first, row) {
                            // Copied where a panel would be gathered again.
                            let (done, mut rest) = part.reborrow().split_at_row(row);
                            rest.row_mut(0).copy_from_slice(done.row(same));
                            continue;
                        }
                        table
                            .layout()
                            .unpack_row(table.bytes(), entry, part.row_mut(row));
                    }
                });
            }
            Op::Add { x, inout } => {
                let cols = self.cols(x);
                let [x, inout] = self.borrow(arena, pass, [x, inout]);
                let (isa, x) = (self.isa, matrix_ref(x, cols));
                self.share(matrix(inout, cols), |first, part| {
                    ops::add(isa, x.rows_in(first..first + part.rows()), part);
                });
            }
            Op::RopeTable { out } => {
                let cols = self.cols(out);
                let [out] = self.borrow(arena, pass, [out]);
                let angles = self.angles();
                self.share(matrix(out, cols), |first, part| {
                    let mut rest = part;
                    for row in first..first + rest.rows() {
                        let (line, others) = rest.split_at_row(1);
                        angles.fill(&[position(batch, row) as u32], line);
                        rest = others;
                    }
                });
            }
            Op::Norm {
                x,
                kind,
                weight,
                out,
            } => self.norm(arena, pass, x, kind, weight, out),
            Op::Quantize { x, kind, cols, out } => {
                let [x, out] = self.borrow(arena, pass, [x, out]);
                let (isa, x) = (self.isa, matrix_ref(x, cols));
                let row_bytes = act_layout(kind, cols).row_bytes();
                let share = self.rows_per_part(x.rows(), cols);
                let mut parts: ArrayVec<&mut [u8], PARTS_MAX> =
                    out.chunks_mut(share * row_bytes).collect();
                self.workers.for_each_mut(&mut parts, |index, part| {
                    let first = index * share;
                    let rows = part.len() / row_bytes;
                    quantize_acts(isa, kind, x.rows_in(first..first + rows), part);
                });
            }
            Op::MatMul {
                x,
                weight,
                bias,
                out,
                accumulate,
            } => {
                let rows = self.rows(x, pass);
                let cols = self.cols(out);
                let [x, out] = self.borrow(arena, pass, [x, out]);
                let weight = self.weights.panels(weight);
                let acts = match ActKind::of(weight.dtype()) {
                    ActKind::F32 => Acts::F32(matrix_ref(x, weight.cols())),
                    kind => {
                        let layout = act_layout(kind, weight.cols());
                        Acts::Quantized {
                            layout,
                            rows,
                            bytes: x,
                        }
                    }
                };
                let bias = bias.map(|b| self.weights.vector(b));
                self.product(weight, acts, bias, matrix(out, cols), accumulate);
            }
            Op::HeadNorm { inout, weight } => {
                let cols = self.cols(inout);
                let [x] = self.borrow(arena, pass, [inout]);
                let (isa, weight, eps) = (self.isa, self.weights.vector(weight), self.norm_eps);
                self.share(matrix(x, cols), |_, part| {
                    ops::rms_norm_heads(isa, weight, eps, part)
                });
            }
            Op::Rope { inout, table } => {
                let (cols, angles) = (self.cols(inout), self.cols(table));
                let [x, table] = self.borrow(arena, pass, [inout, table]);
                let (isa, style) = (self.isa, self.angles().style());
                let (head_dim, table) = (self.shape.head_dim, matrix_ref(table, angles));
                self.share(matrix(x, cols), |first, part| {
                    let rows = table.rows_in(first..first + part.rows());
                    let (cos, sin) = (
                        rows.cols_in(0..angles / 2),
                        rows.cols_in(angles / 2..angles),
                    );
                    ops::rope(isa, style, head_dim, cos, sin, part);
                });
            }
            Op::KvWrite {
                layer,
                k,
                v,
                scratch_kv,
            } => {
                let (k_cols, v_cols) = (self.cols(k), self.cols(v));
                match scratch_kv {
                    Some(kv) => {
                        let [k, v, kv] = self.borrow(arena, pass, [k, v, kv]);
                        let (k, v) = (matrix_ref(k, k_cols), matrix_ref(v, v_cols));
                        self.write_scratch(pass, layer, k, v, kv);
                    }
                    None => {
                        let [k, v] = self.borrow(arena, pass, [k, v]);
                        let (k, v) = (matrix_ref(k, k_cols), matrix_ref(v, v_cols));
                        for sequence in batch.sequences {
                            self.write(sequence, sequence.blocks, layer, k, v, cache);
                        }
                    }
                }
            }
            Op::Attention {
                layer,
                q,
                out,
                scratch,
                window,
                scratch_kv,
            } => {
                let shape = AttentionShape {
                    window,
                    ..self.shape
                };
                let run = |q: &mut [u8], out: &mut [u8], scratch: &mut [u8], kv: &[u8]| {
                    let own = scratch_kv.is_some();
                    self.attention(
                        pass,
                        &shape,
                        layer,
                        f32s(q),
                        f32s(out),
                        f32s(scratch),
                        kv,
                        own,
                    );
                };
                match scratch_kv {
                    Some(kv) => {
                        let [q, out, scratch, kv] = self.borrow(arena, pass, [q, out, scratch, kv]);
                        run(q, out, scratch, kv);
                    }
                    None => {
                        let [q, out, scratch] = self.borrow(arena, pass, [q, out, scratch]);
                        run(q, out, scratch, cache);
                    }
                }
            }
            Op::SiluMul { gate, up } => {
                let cols = self.cols(gate);
                let [gate, up] = self.borrow(arena, pass, [gate, up]);
                let (isa, up) = (self.isa, matrix_ref(up, cols));
                self.share(matrix(gate, cols), |first, part| {
                    ops::silu_mul_in_place(isa, up.rows_in(first..first + part.rows()), part);
                });
            }
            Op::Gelu { inout, tanh } => {
                let cols = self.cols(inout);
                let [x] = self.borrow(arena, pass, [inout]);
                let gelu = if tanh { ops::gelu_tanh } else { ops::gelu };
                self.share(matrix(x, cols), |_, part| gelu(self.isa, part));
            }
            Op::SelectRows { x, out } => {
                let cols = self.cols(x);
                let [x, out] = self.borrow(arena, pass, [x, out]);
                let (x, out) = (f32s(x), f32s(out));
                for (line, &row) in out
                    .chunks_exact_mut(cols)
                    .zip(&batch.outputs[pass.chunk.clone()])
                {
                    line.copy_from_slice(&x[row as usize * cols..][..cols]);
                }
            }
            Op::Pool { x, pooling, out } => {
                let cols = self.cols(x);
                let [x, out] = self.borrow(arena, pass, [x, out]);
                let (x, out) = (f32s(x), f32s(out));
                for (line, sequence) in out
                    .chunks_exact_mut(cols)
                    .zip(&batch.sequences[pass.chunk.clone()])
                {
                    pool(
                        pooling,
                        &x[sequence.rows.start * cols..sequence.rows.end * cols],
                        line,
                    );
                }
            }
        }
    }

    /// Writes the keys and values of one sequence.
    fn write(
        &self,
        sequence: &SequenceRows<'_>,
        blocks: &[u32],
        layer: usize,
        k: MatRef<'_>,
        v: MatRef<'_>,
        kv: &mut [u8],
    ) {
        let rows = sequence.rows.clone();
        let (k, v) = (k.rows_in(rows.clone()), v.rows_in(rows));
        kv_write(
            self.isa,
            self.kv,
            kv,
            blocks,
            layer,
            sequence.position,
            k,
            v,
        );
    }

    /// Writes those of all sequences to the pass's own blocks, which lie in the order of the
    /// sequences: so they are cut between sequences, and the workers share the pieces.
    fn write_scratch(
        &self,
        pass: &Pass<'_>,
        layer: usize,
        k: MatRef<'_>,
        v: MatRef<'_>,
        kv: &mut [u8],
    ) {
        struct Part<'p> {
            sequences: &'p [SequenceRows<'p>],
            kv: &'p mut [u8],
        }
        let count = |sequence: &SequenceRows<'_>| {
            let rows = sequence.rows.len();
            rows.div_ceil(self.kv.block_tokens())
        };
        let share = self.rows_per_part(k.rows(), k.cols());
        let mut parts: ArrayVec<Part<'_>, PARTS_MAX> = ArrayVec::new();
        let (mut sequences, mut rest) = (pass.batch.sequences, kv);
        while !sequences.is_empty() {
            let (mut rows, mut blocks, mut taken) = (0, 0, 0);
            let last = parts.remaining_capacity() == 1;
            for sequence in sequences {
                if rows >= share && !last {
                    break;
                }
                rows += sequence.rows.len();
                blocks += count(sequence);
                taken += 1;
            }
            let (part, others) = sequences.split_at(taken);
            let (kv, others_kv) = rest.split_at_mut(blocks * self.kv.block_bytes());
            parts.push(Part {
                sequences: part,
                kv,
            });
            (sequences, rest) = (others, others_kv);
        }
        self.workers.for_each_mut(&mut parts, |_, part| {
            // Block `i` is `i`, counted from the part's first.
            let mut blocks = pass.scratch_blocks;
            for sequence in part.sequences {
                let (own, others) = blocks.split_at(count(sequence));
                self.write(sequence, own, layer, k, v, part.kv);
                blocks = others;
            }
        });
    }

    /// Block table of a sequence: its own, or its share of the pass's scratch blocks.
    fn blocks<'p>(&self, pass: &Pass<'p>, index: usize, scratch: bool) -> &'p [u32] {
        if !scratch {
            return pass.batch.sequences[index].blocks;
        }
        let blocks = |rows: usize| rows.div_ceil(self.kv.block_tokens());
        let before: usize = pass.batch.sequences[..index]
            .iter()
            .map(|s| blocks(s.rows.len()))
            .sum();
        &pass.scratch_blocks[before..before + blocks(pass.batch.sequences[index].rows.len())]
    }

    fn norm(
        &self,
        arena: &mut [u8],
        pass: &Pass<'_>,
        x: BufferId,
        kind: NormKind,
        weight: TensorId,
        out: BufferId,
    ) {
        let cols = self.cols(x);
        let (isa, eps) = (self.isa, self.norm_eps);
        let weight = self.weights.vector(weight);
        if x != out {
            let [x, out] = self.borrow(arena, pass, [x, out]);
            let x = matrix_ref(x, cols);
            self.share(matrix(out, cols), |first, part| {
                let x = x.rows_in(first..first + part.rows());
                match kind {
                    NormKind::Rms => ops::rms_norm(isa, x, weight, eps, part),
                    NormKind::Layer { bias } => {
                        ops::layer_norm(isa, x, weight, self.weights.vector(bias), eps, part);
                    }
                }
            });
            return;
        }
        let [x] = self.borrow(arena, pass, [x]);
        self.share(matrix(x, cols), |_, part| match kind {
            // A row is one head as wide as itself.
            NormKind::Rms => ops::rms_norm_heads(isa, weight, eps, part),
            NormKind::Layer { bias } => {
                ops::layer_norm_in_place(isa, weight, self.weights.vector(bias), eps, part);
            }
        });
    }

    fn product(
        &self,
        weight: Panels<'_>,
        acts: Acts<'_>,
        bias: Option<&[f32]>,
        out: MatMut<'_>,
        accumulate: bool,
    ) {
        struct Part<'p> {
            panels: Range<usize>,
            out: MatMut<'p>,
        }
        let panels = weight.panels();
        // Several parts per worker, so that a disturbed core does not hold up the other.
        let parts = if self.workers.threads() == 1 {
            1
        } else {
            self.workers.threads() * 8
        };
        let share = panels.div_ceil(parts.min(PARTS_MAX)).max(1);
        let mut parts: ArrayVec<Part<'_>, PARTS_MAX> = ArrayVec::new();
        let mut rest = out;
        let mut start = 0;
        while start < panels {
            let end = (start + share).min(panels);
            let width = weight.range(start..end).rows().len();
            let (part, others) = rest.split_at_col(width);
            parts.push(Part {
                panels: start..end,
                out: part,
            });
            rest = others;
            start = end;
        }
        let mode = if accumulate {
            Mode::Accumulate
        } else {
            Mode::Store
        };
        self.workers.for_each_mut(&mut parts, |_, part| {
            let first = part.panels.start * PANEL_ROWS;
            matmul(
                self.isa,
                weight.range(part.panels.clone()),
                acts,
                part.out.reborrow(),
                mode,
            );
            if let Some(bias) = bias {
                let cols = part.out.cols();
                ops::add_bias(self.isa, &bias[first..first + cols], part.out.reborrow());
            }
        });
    }

    #[allow(
        clippy::too_many_arguments,
        reason = "the slices of one op, borrowed apart"
    )]
    fn attention(
        &self,
        pass: &Pass<'_>,
        shape: &AttentionShape,
        layer: usize,
        q: &[f32],
        out: &mut [f32],
        scratch: &mut [f32],
        kv: &[u8],
        scratch_kv: bool,
    ) {
        struct Part<'p> {
            heads: Range<usize>,
            out: MatMut<'p>,
            scratch: &'p mut [f32],
        }
        let cols = shape.heads * shape.head_dim;
        let group = shape.heads / shape.kv_heads;
        let scratch_len = attention_scratch_len(shape);
        let workers = self.workers.threads().min(PARTS_MAX);
        let mut rest_out = MatMut::dense(out, pass.batch.tokens.len(), cols);
        // Each part is a range of KV heads over all rows; a worker's scratch belongs to its part.
        let mut parts: ArrayVec<Part<'_>, PARTS_MAX> = ArrayVec::new();
        let mut scratches = scratch.chunks_exact_mut(scratch_len);
        let count = workers.min(shape.kv_heads);
        let mut head = 0;
        for index in 0..count {
            let end = shape.kv_heads * (index + 1) / count;
            let width = (end - head) * group * shape.head_dim;
            let (part, rest) = rest_out.split_at_col(width);
            rest_out = rest;
            let scratch = scratches.next().expect("one scratch per worker");
            parts.push(Part {
                heads: head..end,
                out: part,
                scratch,
            });
            head = end;
        }
        self.workers.for_each_mut(&mut parts, |_, part| {
            for (index, sequence) in pass.batch.sequences.iter().enumerate() {
                let (first, n) = (sequence.rows.start, sequence.rows.len());
                let view = KvView {
                    layout: self.kv,
                    bytes: kv,
                    blocks: self.blocks(pass, index, scratch_kv),
                    len: sequence.position + n,
                };
                let q = MatRef::dense(&q[first * cols..][..n * cols], n, cols);
                let out = part.out.reborrow().rows_in(sequence.rows.clone());
                attention(
                    self.isa,
                    shape,
                    view,
                    layer,
                    part.heads.clone(),
                    q,
                    sequence.position,
                    out,
                    part.scratch,
                );
            }
        });
    }

    fn angles(&self) -> &RopeAngles {
        self.angles
            .expect("programs with rotary positions come with their angles")
    }

    /// How many of `rows` rows of `cols` values one part of an elementwise op takes: all of them
    /// where waking other workers would cost more than it saves.
    fn rows_per_part(&self, rows: usize, cols: usize) -> usize {
        if rows * cols < SHARE_VALUES_MIN || self.workers.threads() == 1 {
            return rows.max(1);
        }
        rows.div_ceil((self.workers.threads() * 4).min(PARTS_MAX))
            .max(1)
    }

    /// Runs `f` on parts of the rows of `x`, with the index of each part's first row.
    fn share(&self, x: MatMut<'_>, f: impl Fn(usize, MatMut<'_>) + Sync) {
        let share = self.rows_per_part(x.rows(), x.cols());
        let mut parts: ArrayVec<MatMut<'_>, PARTS_MAX> = ArrayVec::new();
        let mut rest = x;
        while rest.rows() > share {
            let (part, others) = rest.split_at_row(share);
            parts.push(part);
            rest = others;
        }
        parts.push(rest);
        self.workers
            .for_each_mut(&mut parts, |index, part| f(index * share, part.reborrow()));
    }
}

/// Position of a batch row in its sequence.
fn position(batch: &ForwardBatch<'_>, row: usize) -> usize {
    let index = batch.sequences.partition_point(|s| s.rows.end <= row);
    let sequence = &batch.sequences[index];
    sequence.position + row - sequence.rows.start
}

/// A row of a part of the batch (the one that begins at row `first`) before row `row` of it that has
/// the same entry of an embedding table: texts begin at the same positions and are of one type.
fn repeated(
    batch: &ForwardBatch<'_>,
    index: EmbedIndex,
    first: usize,
    row: usize,
) -> Option<usize> {
    match index {
        EmbedIndex::Token => None,
        EmbedIndex::First => row.checked_sub(1),
        EmbedIndex::Position => {
            let at = first + row;
            let own = batch.sequences.partition_point(|s| s.rows.end <= at);
            let (before, own) = (
                batch.sequences.get(own.checked_sub(1)?)?,
                batch.sequences.get(own)?,
            );
            let position = own.position + at - own.rows.start;
            let same = before.rows.start + position.checked_sub(before.position)?;
            (same < before.rows.end).then_some(same.checked_sub(first)?)
        }
    }
}

/// Pools the rows of one sequence; the mean sums rows in order.
fn pool(pooling: Pooling, rows: &[f32], out: &mut [f32]) {
    let cols = out.len();
    match pooling {
        Pooling::Cls => out.copy_from_slice(&rows[..cols]),
        Pooling::Last => out.copy_from_slice(&rows[rows.len() - cols..]),
        Pooling::Mean => {
            out.fill(0.0);
            for row in rows.chunks_exact(cols) {
                for (sum, value) in out.iter_mut().zip(row) {
                    *sum += value;
                }
            }
            let count = (rows.len() / cols) as f32;
            for sum in out {
                *sum /= count;
            }
        }
    }
}

/// Arena bytes as f32: offsets are cache-line aligned and row widths whole floats.
fn f32s(bytes: &mut [u8]) -> &mut [f32] {
    bytemuck::cast_slice_mut(bytes)
}

/// Arena bytes as rows of `cols` values.
fn matrix(bytes: &mut [u8], cols: usize) -> MatMut<'_> {
    let values = f32s(bytes);
    let rows = values.len() / cols;
    MatMut::dense(values, rows, cols)
}

/// Arena bytes as rows of `cols` values, to be read.
fn matrix_ref(bytes: &[u8], cols: usize) -> MatRef<'_> {
    let values: &[f32] = bytemuck::cast_slice(bytes);
    MatRef::dense(values, values.len() / cols, cols)
}

fn act_layout(kind: ActKind, cols: usize) -> ActLayout {
    ActLayout::new(kind, cols).expect("checked when the program was built")
}
