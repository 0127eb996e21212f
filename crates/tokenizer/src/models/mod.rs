//! The models that turn a word into token ids.

pub(crate) mod bpe;
pub(crate) mod merge;
pub(crate) mod spm;
pub(crate) mod wordpiece;

use crate::vocab::Vocab;
use bpe::Bpe;
use merge::Scratch;
use spm::Spm;
use wordpiece::WordPiece;

/// How a word becomes tokens.
#[derive(Debug)]
pub(crate) enum Model {
    Bpe(Bpe),
    Spm(Spm),
    WordPiece(WordPiece),
}

impl Model {
    /// Appends the tokens of one word.
    #[inline]
    pub(crate) fn encode(
        &self,
        vocab: &Vocab,
        word: &str,
        scratch: &mut Scratch,
        out: &mut Vec<u32>,
    ) {
        match self {
            Model::Bpe(model) => model.encode(vocab, word, scratch, out),
            Model::Spm(model) => model.encode(vocab, word, scratch, out),
            Model::WordPiece(model) => model.encode(vocab, word, scratch, out),
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            Model::Bpe(model) => model.heap_bytes(),
            Model::Spm(model) => model.heap_bytes(),
            Model::WordPiece(model) => model.heap_bytes(),
        }
    }
}
