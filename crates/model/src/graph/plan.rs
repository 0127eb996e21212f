//! Offsets and bytes of the step arena, from the lifetimes of a program's buffers.
//!
//! Greedy by size (Pisarchyk and Lee 2020, "Efficient Memory Management for Deep Neural Net
//! Inference"): the largest buffer first, each at the lowest offset where it overlaps no buffer
//! that is live at the same time.

use std::ops::Range;

use super::op::{BufferId, Program, Rows};

/// Buffers start on cache lines, which is also the alignment of the widest vector load.
pub const ALIGN: usize = 64;

/// The largest step that the arena must hold.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct StepLimits {
    /// Tokens in one batch.
    pub tokens: usize,
    /// Output rows per head chunk.
    pub outputs: usize,
    /// Worker threads.
    pub workers: usize,
    /// Blocks of the pass's own KV scratch (embedding programs), zero otherwise.
    pub scratch_blocks: usize,
}

impl StepLimits {
    /// Rows of a buffer kind at these limits.
    pub fn rows(&self, rows: Rows) -> usize {
        match rows {
            Rows::Tokens => self.tokens,
            Rows::Outputs => self.outputs,
            Rows::Workers => self.workers,
            Rows::ScratchBlocks => self.scratch_blocks,
        }
    }
}

/// Where each buffer lies in the arena.
#[derive(Clone, Debug)]
pub struct ArenaPlan {
    /// The limits it was made for.
    pub limits: StepLimits,
    ranges: Vec<Range<usize>>,
    bytes: usize,
}

impl ArenaPlan {
    /// Places every buffer of `program`; `None` if the sizes overflow the address space.
    pub fn new(program: &Program, limits: StepLimits) -> Option<Self> {
        let live = program.lifetimes();
        let mut sizes = Vec::with_capacity(program.buffers.len());
        for buffer in &program.buffers {
            let bytes = buffer.row_bytes.checked_mul(limits.rows(buffer.rows))?;
            sizes.push(bytes.checked_next_multiple_of(ALIGN)?);
        }
        let mut order: Vec<usize> = (0..sizes.len()).filter(|&i| !live[i].is_empty()).collect();
        order.sort_by_key(|&i| (std::cmp::Reverse(sizes[i]), i));

        let mut ranges = vec![0..0; sizes.len()];
        let mut placed: Vec<usize> = Vec::with_capacity(order.len()); // sorted by start offset
        let mut bytes = 0usize;
        for index in order {
            let mut start = 0usize;
            for &other in &placed {
                let overlaps_in_time =
                    live[other].start < live[index].end && live[index].start < live[other].end;
                if !overlaps_in_time {
                    continue;
                }
                let range: &Range<usize> = &ranges[other];
                if start.checked_add(sizes[index])? <= range.start {
                    break;
                }
                start = start.max(range.end);
            }
            let end = start.checked_add(sizes[index])?;
            ranges[index] = start..end;
            bytes = bytes.max(end);
            let at = placed.partition_point(|&p| ranges[p].start <= start);
            placed.insert(at, index);
        }
        Some(Self {
            limits,
            ranges,
            bytes,
        })
    }

    /// Bytes of the whole arena.
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Where a buffer lies at the limits; a smaller batch uses the front of it.
    pub fn range(&self, BufferId(buffer): BufferId) -> Range<usize> {
        self.ranges[buffer as usize].clone()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::op::{Buffer, Op, TensorId};

    fn program(widths: &[usize], chain: &[(u32, u32)]) -> Program {
        let buffers = widths
            .iter()
            .map(|&row_bytes| Buffer {
                name: "b",
                rows: Rows::Tokens,
                row_bytes,
            })
            .collect();
        let body = chain
            .iter()
            .map(|&(x, out)| Op::MatMul {
                x: BufferId(x),
                weight: TensorId(0),
                bias: None,
                out: BufferId(out),
                accumulate: false,
            })
            .collect();
        let output = BufferId(chain.last().expect("a chain").1);
        Program {
            buffers,
            body,
            head: vec![],
            output,
            output_width: 1,
            scratch_block_bytes: 0,
        }
    }

    #[test]
    fn a_chain_needs_only_the_two_largest_neighbours() {
        let program = program(&[64, 256, 128, 64], &[(0, 1), (1, 2), (2, 3)]);
        let limits = StepLimits {
            tokens: 2,
            outputs: 1,
            workers: 1,
            scratch_blocks: 0,
        };
        let plan = ArenaPlan::new(&program, limits).expect("fits");
        assert_eq!(plan.bytes(), 2 * (256 + 128));
    }

    #[test]
    fn buffers_that_live_together_never_overlap() {
        let mut state = 1u64;
        let mut next = |n: u64| {
            state = state
                .wrapping_mul(6364136223846793005)
                .wrapping_add(1442695040888963407);
            (state >> 33) % n
        };
        for _ in 0..200 {
            let count = 2 + next(12) as usize;
            let widths: Vec<usize> = (0..count).map(|_| 1 + next(500) as usize).collect();
            let chain: Vec<(u32, u32)> = (0..count * 2)
                .map(|_| {
                    let x = next(count as u64) as u32;
                    (x, (x + 1 + next(count as u64 - 1) as u32) % count as u32)
                })
                .collect();
            let program = program(&widths, &chain);
            let limits = StepLimits {
                tokens: 3,
                outputs: 1,
                workers: 1,
                scratch_blocks: 0,
            };
            let plan = ArenaPlan::new(&program, limits).expect("fits");
            let live = program.lifetimes();
            for a in 0..count {
                assert!(plan.ranges[a].end <= plan.bytes());
                for b in 0..a {
                    let in_time = live[a].start < live[b].end && live[b].start < live[a].end;
                    let in_space = plan.ranges[a].start < plan.ranges[b].end
                        && plan.ranges[b].start < plan.ranges[a].end;
                    let empty = live[a].is_empty() || live[b].is_empty();
                    assert!(empty || !in_time || !in_space, "{a} and {b}");
                }
            }
        }
    }
}
