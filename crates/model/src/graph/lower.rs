//! From a program as an architecture states it to one that runs over weights of given forms: rows are
//! quantised before the products that read quantised weights, once per kind however many products
//! read them.

use bursar_kernels::acts::{ActKind, ActLayout};

use super::op::{Buffer, BufferId, Op, Program};
use crate::arch::{TensorForm, TensorSpec};

/// `program`, whose products read f32 rows, with what the forms of `tensors` ask for added.
pub(crate) fn lower(program: &Program, tensors: &[TensorSpec]) -> Program {
    let mut lowered = Lowering {
        buffers: program.buffers.clone(),
        tensors,
        copies: Vec::new(),
    };
    let body = lowered.ops(&program.body);
    // The head runs on its own, once per chunk of outputs.
    lowered.copies.clear();
    let head = lowered.ops(&program.head);
    Program {
        buffers: lowered.buffers,
        body,
        head,
        ..*program
    }
}

struct Lowering<'a> {
    buffers: Vec<Buffer>,
    tensors: &'a [TensorSpec],
    /// Quantised copies of rows as they are now: (source, kind, copy).
    copies: Vec<(BufferId, ActKind, BufferId)>,
}

impl Lowering<'_> {
    fn ops(&mut self, ops: &[Op]) -> Vec<Op> {
        let mut out = Vec::with_capacity(ops.len());
        for op in ops {
            let mut op = op.clone();
            if let Op::MatMul { x, weight, .. } = &mut op {
                let TensorForm::Matrix(layout) = self.tensors[weight.0 as usize].form else {
                    unreachable!("products read matrices");
                };
                let kind = ActKind::of(layout.dtype());
                if kind != ActKind::F32 {
                    *x = self.copy(*x, kind, layout.cols(), &mut out);
                }
            }
            self.copies
                .retain(|&(source, _, _)| !op.writes().any(|buffer| buffer == source));
            out.push(op);
        }
        out
    }

    /// The copy of `x` in a kind, made where there is none.
    fn copy(&mut self, x: BufferId, kind: ActKind, cols: usize, ops: &mut Vec<Op>) -> BufferId {
        let there = |&&(source, of, _): &&(BufferId, ActKind, BufferId)| source == x && of == kind;
        if let Some(&(_, _, copy)) = self.copies.iter().find(there) {
            return copy;
        }
        let layout = ActLayout::new(kind, cols).expect("the weight's columns are whole blocks");
        let out = BufferId(u32::try_from(self.buffers.len()).expect("buffers are few"));
        self.buffers.push(Buffer {
            name: "quantized activations",
            rows: self.buffers[x.0 as usize].rows,
            row_bytes: layout.row_bytes(),
        });
        ops.push(Op::Quantize { x, kind, cols, out });
        self.copies.push((x, kind, out));
        out
    }
}
