//! The arrays of one step: tokens of all sequences in a row, and which rows' logits are wanted.

use bursar_kernels::mat::MatRef;
use bursar_model::{ForwardBatch, Model, ModelError, SequenceRows};
use bursar_workers::Workers;

use std::ops::Range;
use std::sync::Arc;

use crate::sequence::Sequence;

/// What turns tokens into rows of logits: a model, or in tests something that can be told apart.
pub(crate) trait Decoder {
    /// Runs a batch in an arena over the bytes of all KV blocks; `emit` gets the index of the first output of
    /// each chunk and its rows.
    ///
    /// # Errors
    /// When the pass could not be finished: nothing that it computed is to be used.
    fn forward(
        &mut self,
        batch: &ForwardBatch<'_>,
        arena: &mut [u8],
        cache: &mut [u8],
        emit: &mut dyn FnMut(usize, MatRef<'_>),
    ) -> Result<(), ModelError>;
}

/// A model with the workers that it computes with.
pub(crate) struct LoadedModel {
    pub(crate) model: Model,
    pub(crate) workers: Arc<Workers>,
}

impl Decoder for LoadedModel {
    fn forward(
        &mut self,
        batch: &ForwardBatch<'_>,
        arena: &mut [u8],
        cache: &mut [u8],
        emit: &mut dyn FnMut(usize, MatRef<'_>),
    ) -> Result<(), ModelError> {
        self.model.forward(batch, arena, cache, &self.workers, emit)
    }
}

/// The rows of a running sequence in a step.
#[derive(Clone, Debug)]
struct Rows {
    /// Its place among the running.
    sequence: usize,
    rows: Range<usize>,
    position: usize,
}

/// A row whose logits are wanted.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Output {
    /// The sequence's place among the running.
    pub(crate) sequence: usize,
    /// The position in the sequence.
    pub(crate) position: usize,
}

/// The arrays, kept from step to step.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    tokens: Vec<u32>,
    rows: Vec<Rows>,
    output_rows: Vec<u32>,
    outputs: Vec<Output>,
    /// What the decoder is given of the sequences; empty between passes, so that it borrows nothing.
    sequences: Vec<SequenceRows<'static>>,
}

/// An emptied list of what borrowed other things, with the room that it had: what is made of nothing
/// lies where the nothing lay (`Vec`'s collecting in place).
fn emptied<'b>(mut list: Vec<SequenceRows<'_>>) -> Vec<SequenceRows<'b>> {
    list.clear();
    let nothing = |_| SequenceRows {
        rows: 0..0,
        position: 0,
        blocks: &[],
    };
    list.into_iter().map(nothing).collect()
}

impl Batch {
    /// With room for `tokens` of so many sequences.
    pub(crate) fn with_capacity(tokens: usize, sequences: usize) -> Self {
        Self {
            tokens: Vec::with_capacity(tokens),
            rows: Vec::with_capacity(sequences),
            output_rows: Vec::with_capacity(tokens),
            outputs: Vec::with_capacity(tokens),
            sequences: Vec::with_capacity(sequences),
        }
    }

    /// Bytes on the heap of one with that capacity.
    pub(crate) const fn bytes(tokens: usize, sequences: usize) -> usize {
        tokens * (2 * size_of::<u32>() + size_of::<Output>())
            + sequences * (size_of::<Rows>() + size_of::<SequenceRows<'_>>())
    }

    pub(crate) fn clear(&mut self) {
        self.tokens.clear();
        self.rows.clear();
        self.output_rows.clear();
        self.outputs.clear();
    }

    pub(crate) fn len(&self) -> usize {
        self.tokens.len()
    }

    /// The places of its sequences among the running.
    pub(crate) fn places(&self) -> impl Iterator<Item = usize> {
        self.rows.iter().map(|part| part.sequence)
    }

    /// Adds the last `count` tokens of a sequence that its blocks cover.
    pub(crate) fn push(&mut self, place: usize, sequence: &Sequence, count: usize) {
        let (first, position) = (self.tokens.len(), sequence.table.len() - count);
        self.tokens
            .extend_from_slice(sequence.slice(position, count));
        self.rows.push(Rows {
            sequence: place,
            rows: first..first + count,
            position,
        });
        for offset in (0..count).filter(|offset| sequence.wants(position + offset)) {
            // Rows of a batch are few: they fit in u32.
            self.output_rows.push((first + offset) as u32);
            self.outputs.push(Output {
                sequence: place,
                position: position + offset,
            });
        }
    }

    /// Runs it; `emit` gets each output and its logits.
    pub(crate) fn run(
        &mut self,
        decoder: &mut impl Decoder,
        running: &[Sequence],
        arena: &mut [u8],
        cache: &mut [u8],
        emit: &mut dyn FnMut(Output, &[f32]),
    ) -> Result<(), ModelError> {
        let mut sequences = emptied(std::mem::take(&mut self.sequences));
        sequences.extend(self.rows.iter().map(|part| SequenceRows {
            rows: part.rows.clone(),
            position: part.position,
            blocks: running[part.sequence].table.blocks(),
        }));
        let batch = ForwardBatch {
            tokens: &self.tokens,
            sequences: &sequences,
            outputs: &self.output_rows,
        };
        let outputs = &self.outputs;
        let ran = decoder.forward(&batch, arena, cache, &mut |first, logits| {
            for row in 0..logits.rows() {
                emit(outputs[first + row], logits.row(row));
            }
        });
        self.sequences = emptied(sequences);
        ran
    }
}
