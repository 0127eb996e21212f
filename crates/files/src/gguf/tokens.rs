//! The tokenizer that a GGUF header carries.

use super::config::token_id;
use super::header::Header;
use crate::error::FileError;
use crate::source::Source;
use crate::strings::StringTable;

/// A vocabulary and its settings, as stored under `tokenizer.ggml.`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct GgufTokens {
    /// The kind of tokenizer: `gpt2` (byte-level BPE), `llama` (SentencePiece), `bert` (WordPiece).
    pub model: String,
    /// The pre-tokenizer's name (`llama-bpe`, `qwen2`, ...).
    pub pre: Option<String>,
    /// Token texts by id.
    pub tokens: StringTable,
    /// Token types by id (1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte); empty
    /// if the file has none.
    pub types: Vec<u8>,
    /// Token scores by id (SentencePiece); empty if the file has none.
    pub scores: Vec<f32>,
    /// Merges in order of rank, two texts with a space between; empty if the file has none.
    pub merges: StringTable,
    /// Beginning of sequence.
    pub bos: Option<u32>,
    /// End of sequence.
    pub eos: Option<u32>,
    /// End of turn.
    pub eot: Option<u32>,
    /// Unknown token.
    pub unk: Option<u32>,
    /// Separator.
    pub sep: Option<u32>,
    /// Classification token.
    pub cls: Option<u32>,
    /// Padding.
    pub pad: Option<u32>,
    /// Mask.
    pub mask: Option<u32>,
    /// Whether texts begin with `bos`.
    pub add_bos: Option<bool>,
    /// Whether texts end with `eos`.
    pub add_eos: Option<bool>,
    /// Whether a space goes before the text (SentencePiece).
    pub add_space_prefix: Option<bool>,
    /// Whether runs of spaces become one (SentencePiece).
    pub remove_extra_whitespaces: Option<bool>,
}

impl GgufTokens {
    /// Bytes of heap memory held.
    pub fn heap_bytes(&self) -> usize {
        self.tokens.heap_bytes()
            + self.merges.heap_bytes()
            + self.types.capacity()
            + self.scores.capacity() * size_of::<f32>()
    }
}

/// Reads the vocabulary from the file; the header only remembered where it lies.
pub(crate) fn read(header: &Header, source: &Source) -> Result<GgufTokens, FileError> {
    let path = source.path();
    let key = |rest: &str| format!("tokenizer.ggml.{rest}");
    let missing = |rest: &str, want: &str| FileError::config(path, key(rest), "nothing", want);
    let id = |rest: &str| {
        let key = key(&format!("{rest}_token_id"));
        header
            .natural(path, &key)?
            .map(|number| token_id(path, &key, number))
            .transpose()
    };
    let truth = |rest: &str| header.truth(path, &key(rest));

    let model = header.string(path, &key("model"))?;
    let tokens = header.strings(source, &key("tokens"))?;
    let tokens = tokens.ok_or_else(|| missing("tokens", "the vocabulary"))?;
    let types = header
        .integers(source, &key("token_type"))?
        .unwrap_or_default();
    let scores = header.floats(source, &key("scores"))?.unwrap_or_default();
    for (rest, len) in [("token_type", types.len()), ("scores", scores.len())] {
        if len != 0 && len != tokens.len() {
            let want = format!("{} values, one per token", tokens.len());
            return Err(FileError::config(
                path,
                key(rest),
                format!("{len} values"),
                want,
            ));
        }
    }
    let types = types
        .into_iter()
        .map(|ty| u8::try_from(ty).ok().filter(|ty| *ty <= 6))
        .collect::<Option<Vec<u8>>>()
        .ok_or_else(|| FileError::config(path, key("token_type"), "another number", "0 to 6"))?;
    let tokens = GgufTokens {
        model: model
            .ok_or_else(|| missing("model", "the kind of tokenizer"))?
            .to_owned(),
        pre: header.string(path, &key("pre"))?.map(str::to_owned),
        tokens,
        types,
        scores,
        merges: header.strings(source, &key("merges"))?.unwrap_or_default(),
        bos: id("bos")?,
        eos: id("eos")?,
        eot: id("eot")?,
        unk: id("unknown")?,
        // The format's own spelling, and the one that some writers use.
        sep: match id("seperator")? {
            Some(sep) => Some(sep),
            None => id("separator")?,
        },
        cls: id("cls")?,
        pad: id("padding")?,
        mask: id("mask")?,
        add_bos: truth("add_bos_token")?,
        add_eos: truth("add_eos_token")?,
        add_space_prefix: truth("add_space_prefix")?,
        remove_extra_whitespaces: truth("remove_extra_whitespaces")?,
    };
    let ids = [
        ("bos", tokens.bos),
        ("eos", tokens.eos),
        ("eot", tokens.eot),
        ("unknown", tokens.unk),
        ("seperator", tokens.sep),
        ("cls", tokens.cls),
        ("padding", tokens.pad),
        ("mask", tokens.mask),
    ];
    for (name, id) in ids {
        if let Some(id) = id.filter(|id| *id as usize >= tokens.tokens.len()) {
            let key = key(&format!("{name}_token_id"));
            let want = format!("below {}, the number of tokens", tokens.tokens.len());
            return Err(FileError::config(path, key, id, want));
        }
    }
    Ok(tokens)
}
