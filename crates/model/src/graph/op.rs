//! Ops, buffers and the program that holds them.
//!
//! A program is straight-line: every buffer is written before it is read, ops run in order, and
//! nothing branches on data. That is what lets `plan` compute the peak before anything is loaded.

use std::ops::Range;

use bursar_files::Pooling;
use bursar_kernels::acts::ActKind;

/// A tensor of the model, by its index in the program's tensor list.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct TensorId(pub u32);

/// A declared buffer, by its index in the program's buffer list.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct BufferId(pub u32);

/// What a buffer has one row for.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Rows {
    /// One row per token of the batch.
    Tokens,
    /// One row per output of a head chunk (logits or pooled vectors).
    Outputs,
    /// One row per worker thread.
    Workers,
    /// One row per KV block of the pass's own scratch (embedding programs only).
    ScratchBlocks,
}

/// A buffer of the step arena. Live from the first op that names it to the last.
#[derive(Clone, Debug)]
pub struct Buffer {
    /// What it holds, for reports.
    pub name: &'static str,
    /// What it has rows for.
    pub rows: Rows,
    /// Bytes of one row.
    pub row_bytes: usize,
}

/// A run of ops that need the same weights. Fetch and release points are where streamed weights
/// are waited for and given up; resident weights ignore them.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Token, position and type embeddings.
    Embedding,
    /// Transformer layer `n`.
    Layer(usize),
    /// Final norm and output projection.
    Head,
}

/// Which normalisation.
#[derive(Copy, Clone, Debug, PartialEq)]
pub enum NormKind {
    /// Root mean square (Zhang and Sennrich 2019): no mean, no bias.
    Rms,
    /// Layer norm (Ba et al. 2016) with a bias tensor.
    Layer {
        /// The bias added after scaling.
        bias: TensorId,
    },
}

/// Which entry of an embedding table a token takes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum EmbedIndex {
    /// Its id.
    Token,
    /// Its position in its sequence (learned positions).
    Position,
    /// Entry 0: the only segment type that embedding models use.
    First,
}

/// One step of the program. `x` is read, `out` is written; `inout` both.
#[derive(Clone, Debug)]
pub enum Op {
    /// The weights of a stage are needed from here.
    Fetch(Stage),
    /// The weights of a stage are not needed any more.
    Release(Stage),
    /// `out[t] = table[index of t]`.
    Embed {
        /// entries x dim.
        table: TensorId,
        /// Which entry each token takes.
        index: EmbedIndex,
        /// tokens x dim, f32.
        out: BufferId,
    },
    /// `inout += x`.
    Add {
        /// Rows to add.
        x: BufferId,
        /// Rows to add to.
        inout: BufferId,
    },
    /// The cosines and sines of each token's position, computed once for all layers.
    RopeTable {
        /// tokens x rotated dims (cos half, then sin half), f32.
        out: BufferId,
    },
    /// Normalises rows; `x` and `out` may be the same buffer.
    Norm {
        /// Rows to read.
        x: BufferId,
        /// Which norm.
        kind: NormKind,
        /// Scale.
        weight: TensorId,
        /// Rows to write.
        out: BufferId,
    },
    /// Quantises rows to the activation kind that a quantised weight multiplies with.
    Quantize {
        /// f32 rows.
        x: BufferId,
        /// Target kind.
        kind: ActKind,
        /// Columns per row.
        cols: usize,
        /// Quantised rows.
        out: BufferId,
    },
    /// `out = x Wᵀ (+ bias)`, or `out += x Wᵀ (+ bias)`.
    MatMul {
        /// Activations: f32, or quantised for the weight's type.
        x: BufferId,
        /// outputs x inputs.
        weight: TensorId,
        /// Added to every row.
        bias: Option<TensorId>,
        /// f32 rows.
        out: BufferId,
        /// Add to what `out` holds (the residual) instead of overwriting it.
        accumulate: bool,
    },
    /// RMS norm over each head of each row (Qwen3's QK norm).
    HeadNorm {
        /// tokens x heads*head_dim.
        inout: BufferId,
        /// head_dim.
        weight: TensorId,
    },
    /// Rotates queries or keys by their position.
    Rope {
        /// tokens x heads*head_dim.
        inout: BufferId,
        /// The table made by `RopeTable`.
        table: BufferId,
    },
    /// Writes the batch's keys and values to the KV cache.
    KvWrite {
        /// Layer index in the cache's layout.
        layer: usize,
        /// tokens x kv_heads*head_dim.
        k: BufferId,
        /// tokens x kv_heads*head_dim.
        v: BufferId,
        /// The pass's own KV blocks, when the program keeps none between passes.
        scratch_kv: Option<BufferId>,
    },
    /// Attention of each query row over its sequence's cached keys and values.
    Attention {
        /// Layer index in the cache's layout.
        layer: usize,
        /// tokens x heads*head_dim.
        q: BufferId,
        /// tokens x heads*head_dim.
        out: BufferId,
        /// Per-worker scratch.
        scratch: BufferId,
        /// Positions that a query sees, its own included; all before it if `None`.
        window: Option<usize>,
        /// See `KvWrite`.
        scratch_kv: Option<BufferId>,
    },
    /// `gate = silu(gate) * up`.
    SiluMul {
        /// tokens x ffn_dim, read and written.
        gate: BufferId,
        /// tokens x ffn_dim.
        up: BufferId,
    },
    /// `inout = gelu(inout)` (Hendrycks and Gimpel 2016).
    Gelu {
        /// Rows.
        inout: BufferId,
        /// By the tanh approximation instead of erf.
        tanh: bool,
    },
    /// `out[i] = x[output row i]`: rows that need logits, or the first or last row per sequence.
    SelectRows {
        /// tokens x dim.
        x: BufferId,
        /// outputs x dim.
        out: BufferId,
    },
    /// `out[i] = ` the pooled rows of sequence `i`.
    Pool {
        /// tokens x dim.
        x: BufferId,
        /// How.
        pooling: Pooling,
        /// outputs x dim.
        out: BufferId,
    },
}

impl Op {
    /// The buffers that the op reads or writes.
    pub fn buffers(&self) -> impl Iterator<Item = BufferId> {
        let list: [Option<BufferId>; 4] = match *self {
            Op::Fetch(_) | Op::Release(_) => [None; 4],
            Op::Embed { out, .. } | Op::RopeTable { out } => [Some(out), None, None, None],
            Op::HeadNorm { inout, .. } | Op::Gelu { inout, .. } => [Some(inout), None, None, None],
            Op::Add { x, inout } => [Some(x), Some(inout), None, None],
            Op::Norm { x, out, .. }
            | Op::Quantize { x, out, .. }
            | Op::MatMul { x, out, .. }
            | Op::SelectRows { x, out }
            | Op::Pool { x, out, .. } => [Some(x), Some(out), None, None],
            Op::Rope { inout, table, .. } => [Some(inout), Some(table), None, None],
            Op::KvWrite {
                k, v, scratch_kv, ..
            } => [Some(k), Some(v), scratch_kv, None],
            Op::Attention {
                q,
                out,
                scratch,
                scratch_kv,
                ..
            } => [Some(q), Some(out), Some(scratch), scratch_kv],
            Op::SiluMul { gate, up } => [Some(gate), Some(up), None, None],
        };
        list.into_iter().flatten()
    }
}

impl Op {
    /// The buffers that the op writes.
    pub fn writes(&self) -> impl Iterator<Item = BufferId> {
        let list: [Option<BufferId>; 2] = match *self {
            Op::Fetch(_) | Op::Release(_) => [None; 2],
            Op::Embed { out, .. }
            | Op::RopeTable { out }
            | Op::Norm { out, .. }
            | Op::Quantize { out, .. }
            | Op::MatMul { out, .. }
            | Op::SelectRows { out, .. }
            | Op::Pool { out, .. } => [Some(out), None],
            Op::Add { inout, .. }
            | Op::HeadNorm { inout, .. }
            | Op::Rope { inout, .. }
            | Op::Gelu { inout, .. } => [Some(inout), None],
            Op::KvWrite { scratch_kv, .. } => [scratch_kv, None],
            Op::Attention { out, scratch, .. } => [Some(out), Some(scratch)],
            Op::SiluMul { gate, .. } => [Some(gate), None],
        };
        list.into_iter().flatten()
    }
}

/// What a model computes, as data.
#[derive(Clone, Debug)]
pub struct Program {
    /// Declared buffers.
    pub buffers: Vec<Buffer>,
    /// Run once per batch.
    pub body: Vec<Op>,
    /// Run once per chunk of outputs, after the body.
    pub head: Vec<Op>,
    /// What the head leaves behind: outputs x width, f32.
    pub output: BufferId,
    /// Columns of `output`.
    pub output_width: usize,
    /// Bytes of one KV block of the pass's own scratch; zero when a cache outlives the pass.
    pub scratch_block_bytes: usize,
}

impl Program {
    /// Body and head as one list, in the order of execution.
    pub fn ops(&self) -> impl Iterator<Item = &Op> {
        self.body.iter().chain(&self.head)
    }

    /// For each buffer the half-open range of op indices over which it is live.
    pub fn lifetimes(&self) -> Vec<Range<usize>> {
        let mut live = vec![0..0; self.buffers.len()];
        for (index, op) in self.ops().enumerate() {
            for BufferId(buffer) in op.buffers() {
                let range: &mut Range<usize> = &mut live[buffer as usize];
                if range.start == range.end {
                    *range = index..index + 1;
                } else {
                    range.end = index + 1;
                }
            }
        }
        // The head reads what the body left, once per chunk: nothing that the head touches may be
        // overwritten by another of the head's buffers, and body buffers read there stay live.
        let head_start = self.body.len();
        let end = head_start + self.head.len();
        for range in &mut live {
            if range.end > head_start {
                range.end = end;
                range.start = range.start.min(head_start);
            }
        }
        if let Some(range) = live.get_mut(self.output.0 as usize) {
            range.end = end;
        }
        live
    }
}
