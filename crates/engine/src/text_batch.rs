//! A batch of whole texts as a model takes it; its lists are kept from one batch to the next.

use bursar_model::{ForwardBatch, SequenceRows};

/// Texts one after another.
#[derive(Debug, Default)]
pub(crate) struct TextBatch {
    tokens: Vec<u32>,
    sequences: Vec<SequenceRows<'static>>,
}

impl TextBatch {
    /// With room for `tokens` of so many texts.
    pub(crate) fn with_capacity(tokens: usize, texts: usize) -> Self {
        Self {
            tokens: Vec::with_capacity(tokens),
            sequences: Vec::with_capacity(texts),
        }
    }

    /// Bytes on the heap of one with that capacity.
    pub(crate) const fn bytes(tokens: usize, texts: usize) -> usize {
        tokens * size_of::<u32>() + texts * size_of::<SequenceRows<'_>>()
    }

    pub(crate) fn clear(&mut self) {
        self.tokens.clear();
        self.sequences.clear();
    }

    /// Adds a text.
    pub(crate) fn push(&mut self, text: &[u32]) {
        let first = self.tokens.len();
        self.tokens.extend_from_slice(text);
        self.sequences.push(SequenceRows {
            rows: first..self.tokens.len(),
            position: 0,
            blocks: &[],
        });
    }

    /// Tokens of all texts.
    pub(crate) fn tokens(&self) -> usize {
        self.tokens.len()
    }

    /// What the model is given; its outputs are in the order of the texts.
    pub(crate) fn forward(&self) -> ForwardBatch<'_> {
        ForwardBatch {
            tokens: &self.tokens,
            sequences: &self.sequences,
            outputs: &[],
        }
    }
}
