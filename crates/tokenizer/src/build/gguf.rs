//! A tokenizer from the metadata of a GGUF file.
//!
//! The reference here is llama.cpp, whose format this is. BERT is the exception: its vocabulary is
//! rewritten to the form that WordPiece is defined on, and text is normalised as the original
//! tokenizer does, because that is what the model was trained with.

use crate::build::alphabet;
use crate::build::json_model::{byte_ids, split_merge};
use crate::decode::{Decoder, Pieces, byte_token};
use crate::error::TokenizerError;
use crate::models::Model;
use crate::models::bpe::{Atoms, Bpe, MergeTable};
use crate::models::merge::NO_TOKEN;
use crate::models::spm::Spm;
use crate::models::wordpiece::WordPiece;
use crate::text::added::{Added, AddedSet};
use crate::text::normalize::Normalizer;
use crate::text::split::{Behavior, Pattern, Step};
use crate::text::words::Words;
use crate::tokenizer::{Parts, SpecialIds, Tokenizer};
use crate::vocab::{Vocab, VocabBuilder};

/// The keys `tokenizer.ggml.*` of a GGUF file, as plain data borrowed from it.
#[derive(Clone, Debug, Default)]
pub struct GgufVocab<'a> {
    /// `model`: `gpt2`, `llama` or `bert`.
    pub model: &'a str,
    /// `pre`: which pre-tokenizer a `gpt2` model has.
    pub pre: Option<&'a str>,
    /// `tokens`: every token's text, by id.
    pub tokens: Vec<&'a [u8]>,
    /// `token_type`: 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte. May be
    /// empty: then all are normal.
    pub types: &'a [u8],
    /// `scores`, of a `llama` model.
    pub scores: &'a [f32],
    /// `merges`, of a `gpt2` model: two tokens with a space between.
    pub merges: Vec<&'a [u8]>,
    /// `bos_token_id`.
    pub bos: Option<u32>,
    /// `eos_token_id`.
    pub eos: Option<u32>,
    /// `unknown_token_id`.
    pub unk: Option<u32>,
    /// `seperator_token_id` (so spelt in files).
    pub sep: Option<u32>,
    /// `cls_token_id`.
    pub cls: Option<u32>,
    /// `padding_token_id`.
    pub pad: Option<u32>,
    /// `mask_token_id`.
    pub mask: Option<u32>,
    /// `add_bos_token`.
    pub add_bos: Option<bool>,
    /// `add_eos_token`.
    pub add_eos: Option<bool>,
    /// `add_space_prefix`.
    pub add_space_prefix: Option<bool>,
    /// `normalizer.lowercase`, of a `bert` model; yes if the file does not say.
    pub lowercase: Option<bool>,
    /// `normalizer.strip_accents`, of a `bert` model; as `lowercase` if the file does not say.
    pub strip_accents: Option<bool>,
}

const NORMAL: u8 = 1;
const UNKNOWN: u8 = 2;
const CONTROL: u8 = 3;
const USER_DEFINED: u8 = 4;
const UNUSED: u8 = 5;
const BYTE: u8 = 6;

/// Tokens that end a turn or a text. Files exist that call them normal; they are control tokens
/// here whatever the file says, as in llama.cpp.
const ENDS: [&str; 12] = [
    "<|eot_id|>",
    "<|eom_id|>",
    "<|im_end|>",
    "<|end|>",
    "<end_of_turn>",
    "<|endoftext|>",
    "<|end_of_text|>",
    "<EOT>",
    "_<EOT>",
    "[EOT]",
    "<\u{ff5c}end\u{2581}of\u{2581}sentence\u{ff5c}>",
    "<end_of_utterance>",
];

/// How SentencePiece writes a space.
const SPACE_MARK: char = '\u{2581}';

impl Tokenizer {
    /// Builds the tokenizer that a GGUF file's metadata describes.
    ///
    /// # Errors
    /// Names what is missing, broken or not supported.
    pub fn from_gguf(gguf: &GgufVocab<'_>) -> Result<Tokenizer, TokenizerError> {
        if gguf.tokens.is_empty() {
            return Err(TokenizerError::missing("`tokenizer.ggml.tokens`"));
        }
        if !gguf.types.is_empty() && gguf.types.len() != gguf.tokens.len() {
            return Err(TokenizerError::inconsistent(format!(
                "{} token types for {} tokens",
                gguf.types.len(),
                gguf.tokens.len()
            )));
        }
        match gguf.model {
            "gpt2" => gpt2(gguf),
            "llama" => llama(gguf),
            "bert" => bert(gguf),
            other => Err(TokenizerError::unsupported("GGUF tokenizer model", other)),
        }
    }
}

impl<'a> GgufVocab<'a> {
    fn kind(&self, id: usize) -> u8 {
        match self.types.get(id).copied().unwrap_or(NORMAL) {
            NORMAL | USER_DEFINED if ENDS.iter().any(|end| end.as_bytes() == self.tokens[id]) => {
                CONTROL
            }
            kind => kind,
        }
    }

    fn text(&self, id: usize) -> Result<&'a str, TokenizerError> {
        std::str::from_utf8(self.tokens[id])
            .map_err(|_| TokenizerError::inconsistent(format!("token {id} is not UTF-8")))
    }

    /// The tokens that are found in text as they are written, and the ids that are left out of
    /// text on request.
    fn added(&self) -> Result<(AddedSet, Vec<u32>), TokenizerError> {
        let (mut added, mut special) = (Vec::new(), Vec::new());
        for id in 0..self.tokens.len() {
            let kind = self.kind(id);
            if !matches!(kind, UNKNOWN | CONTROL | USER_DEFINED) {
                continue;
            }
            let is_special = kind != USER_DEFINED;
            if is_special {
                special.push(id as u32);
            }
            added.push(Added {
                id: id as u32,
                content: self.text(id)?.to_owned(),
                special: is_special,
                lstrip: false,
                rstrip: false,
                single_word: false,
            });
        }
        Ok((AddedSet::new(added), special))
    }

    fn ids(&self) -> SpecialIds {
        // An id past the end names nothing.
        let known = |id: Option<u32>| id.filter(|&id| (id as usize) < self.tokens.len());
        SpecialIds {
            bos: known(self.bos),
            eos: known(self.eos),
            unk: known(self.unk),
            pad: known(self.pad),
            cls: known(self.cls),
            sep: known(self.sep),
            mask: known(self.mask),
        }
    }

    /// The ids around a sequence; whether BOS is added where the file does not say is the model's.
    fn template(&self, add_bos: bool) -> Result<(Vec<u32>, Vec<u32>), TokenizerError> {
        let ids = self.ids();
        let one = |add: bool, id: Option<u32>, what: &str| match (add, id) {
            (false, _) => Ok(Vec::new()),
            (true, Some(id)) => Ok(vec![id]),
            (true, None) => Err(TokenizerError::missing(format!("the {what} that it adds"))),
        };
        let before = one(self.add_bos.unwrap_or(add_bos), ids.bos, "BOS token")?;
        let after = one(self.add_eos.unwrap_or(false), ids.eos, "EOS token")?;
        Ok((before, after))
    }
}

/// What a `pre` stands for.
struct Pre {
    steps: Vec<Step>,
    ignore_merges: bool,
    add_bos: bool,
}

/// The pre-tokenizer by name. Names with one behaviour in llama.cpp are one here.
fn pre(name: Option<&str>) -> Result<Pre, TokenizerError> {
    let modern = |digits, marks| {
        Step::Words(Words::Modern {
            digits,
            marks,
            long_s: false,
        })
    };
    let gpt2 = || Step::Words(Words::Gpt2);
    let plain = |steps| Pre {
        steps,
        ignore_merges: false,
        add_bos: false,
    };
    Ok(match name.unwrap_or("default") {
        "default" => plain(vec![
            Step::PunctuationRuns,
            gpt2(),
            // `\p{N}+`, isolated.
            Step::Digits { individual: false },
            Step::DigitTriples,
        ]),
        "gpt-2" | "phi-2" | "jina-es" | "jina-de" | "jina-v2-es" | "jina-v2-de" | "gigachat"
        | "a.x-4.0" | "mellum" | "modern-bert" | "mpt" | "olmo" | "jais" | "trillion"
        | "exaone4" | "granite-docling" => plain(vec![gpt2()]),
        "llama3" | "llama-v3" | "llama-bpe" => Pre {
            steps: vec![modern(3, false)],
            ignore_merges: true,
            add_bos: true,
        },
        "dbrx" | "smaug-bpe" => plain(vec![modern(3, false)]),
        "qwen2" | "deepseek-r1-qwen" | "kormo" | "f2llmv2" | "megrez" | "stablelm2" | "hunyuan"
        | "solar-open" | "grok-2" => plain(vec![modern(1, false)]),
        "qwen35" => plain(vec![modern(1, true)]),
        "starcoder" | "refact" | "command-r" | "smollm" | "codeshell" | "exaone" | "minerva-7b"
        | "mellum2" => plain(vec![Step::Digits { individual: true }, gpt2()]),
        "tekken" => Pre {
            steps: vec![Step::Pattern {
                pattern: Pattern::regex(TEKKEN)?,
                behavior: Behavior::Isolated,
                invert: false,
            }],
            ignore_merges: true,
            add_bos: true,
        },
        "gpt-4o" | "llama4" | "kanana2" => plain(vec![Step::Pattern {
            pattern: Pattern::regex(GPT4O)?,
            behavior: Behavior::Isolated,
            invert: false,
        }]),
        other => return Err(TokenizerError::unsupported("GGUF pre-tokenizer", other)),
    })
}

/// Mistral's Tekken pattern as its own tokenizer file has it.
const TEKKEN: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

/// The pattern of GPT-4o's tokenizer.
const GPT4O: &str = concat!(
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*",
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?",
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
);

fn builder(gguf: &GgufVocab<'_>) -> VocabBuilder {
    let bytes = gguf.tokens.iter().map(|token| token.len()).sum();
    VocabBuilder::with_capacity(gguf.tokens.len(), bytes)
}

fn gpt2(gguf: &GgufVocab<'_>) -> Result<Tokenizer, TokenizerError> {
    let pre = pre(gguf.pre)?;
    let mut builder = builder(gguf);
    let mut spelling = Vec::new();
    for id in 0..gguf.tokens.len() {
        let text = gguf.text(id)?;
        let kind = gguf.kind(id);
        let spelt = alphabet::spell(text, &mut spelling);
        match kind {
            UNUSED => {}
            UNKNOWN | CONTROL | USER_DEFINED => {
                // Found among the added tokens; a model token of the same text is not one.
                builder.push(
                    id as u32,
                    text.as_bytes(),
                    spelt && spelling == text.as_bytes(),
                )?;
            }
            _ if spelt => builder.push(id as u32, &spelling, true)?,
            _ => builder.push(id as u32, text.as_bytes(), false)?,
        }
    }
    let vocab = builder.build()?;
    let pairs = pairs(gguf, &vocab)?;
    let merges = MergeTable::build(&vocab, &pairs)?;
    drop(pairs);
    let mut model = Bpe::new(merges, Atoms::Bytes(byte_ids(|byte| vocab.find(&[byte]))));
    model.ignore_merges = pre.ignore_merges;
    if !model.ignore_merges {
        model.remember_words(vocab.len());
    }
    let (before, after) = gguf.template(pre.add_bos)?;
    let (added, special) = gguf.added()?;
    Ok(Tokenizer::from_parts(Parts {
        vocab,
        model: Model::Bpe(model),
        added,
        added_normalized: AddedSet::default(),
        normalizers: Vec::new(),
        steps: pre.steps,
        decoder: Decoder::Bytes,
        before,
        after,
        ids: gguf.ids(),
        special,
    }))
}

fn pairs(gguf: &GgufVocab<'_>, vocab: &Vocab) -> Result<Vec<(u32, u32)>, TokenizerError> {
    if gguf.merges.is_empty() {
        return Err(TokenizerError::missing("`tokenizer.ggml.merges`"));
    }
    let mut spelling = Vec::new();
    let mut pairs = Vec::with_capacity(gguf.merges.len());
    for (rank, merge) in gguf.merges.iter().enumerate() {
        let halves = std::str::from_utf8(merge).ok().and_then(split_merge);
        let mut find = |token: &str| {
            alphabet::spell(token, &mut spelling)
                .then(|| vocab.find(&spelling))
                .flatten()
        };
        let pair = halves.and_then(|(left, right)| Some((find(left)?, find(right)?)));
        pairs.push(pair.ok_or_else(|| {
            TokenizerError::inconsistent(format!(
                "merge {rank} `{}` is not two tokens of the vocabulary",
                String::from_utf8_lossy(merge)
            ))
        })?);
    }
    Ok(pairs)
}

fn llama(gguf: &GgufVocab<'_>) -> Result<Tokenizer, TokenizerError> {
    if gguf.scores.len() != gguf.tokens.len() {
        return Err(TokenizerError::inconsistent(format!(
            "{} scores for {} tokens",
            gguf.scores.len(),
            gguf.tokens.len()
        )));
    }
    let mut builder = builder(gguf);
    let mut bytes = Box::new([NO_TOKEN; 256]);
    for id in 0..gguf.tokens.len() {
        let text = gguf.text(id)?;
        if gguf.kind(id) == BYTE {
            let byte = byte_token(text.as_bytes()).ok_or_else(|| {
                TokenizerError::inconsistent(format!("byte token {id} is `{text}`"))
            })?;
            bytes[usize::from(byte)] = id as u32;
        }
        builder.push(id as u32, text.as_bytes(), true)?;
    }
    let vocab = builder.build()?;
    let space_prefix = gguf.add_space_prefix.unwrap_or(true);
    let mut normalizers = Vec::new();
    if space_prefix {
        normalizers.push(Normalizer::Prepend(" ".into()));
    }
    normalizers.push(Normalizer::Replace {
        pattern: Pattern::literal(" ")?,
        content: SPACE_MARK.to_string().into(),
    });
    let decoder = Decoder::Pieces(Pieces {
        replacements: vec![(SPACE_MARK.to_string().into(), " ".into())],
        byte_fallback: true,
        added_verbatim: true,
        mark: None,
        strip: space_prefix.then_some((' ', 1)),
    });
    let (before, after) = gguf.template(true)?;
    let (added, special) = gguf.added()?;
    Ok(Tokenizer::from_parts(Parts {
        vocab,
        model: Model::Spm(Spm::new(gguf.scores, bytes, gguf.ids().unk)),
        added,
        added_normalized: AddedSet::default(),
        normalizers,
        steps: Vec::new(),
        decoder,
        before,
        after,
        ids: gguf.ids(),
        special,
    }))
}

fn bert(gguf: &GgufVocab<'_>) -> Result<Tokenizer, TokenizerError> {
    const PREFIX: &str = "##";
    let mut builder = builder(gguf);
    let mut continuing = Vec::new();
    for id in 0..gguf.tokens.len() {
        let text = gguf.text(id)?;
        let bracketed = text.starts_with('[') && text.ends_with(']');
        match text.strip_prefix(SPACE_MARK) {
            Some(word) => builder.push(id as u32, word.as_bytes(), true)?,
            None if bracketed => builder.push(id as u32, text.as_bytes(), true)?,
            None => {
                continuing.clear();
                continuing.extend_from_slice(PREFIX.as_bytes());
                continuing.extend_from_slice(text.as_bytes());
                builder.push(id as u32, &continuing, true)?;
            }
        }
    }
    let vocab = builder.build()?;
    let mut ids = gguf.ids();
    ids.cls = ids.cls.or(ids.bos).or_else(|| vocab.find(b"[CLS]"));
    ids.sep = ids.sep.or(ids.eos).or_else(|| vocab.find(b"[SEP]"));
    ids.unk = ids.unk.or_else(|| vocab.find(b"[UNK]"));
    let missing = |what: &str| TokenizerError::missing(format!("the {what} token of BERT"));
    let model = WordPiece {
        prefix: PREFIX.into(),
        unk: ids.unk.ok_or_else(|| missing("unknown"))?,
        word_chars_max: 100,
    };
    let before = vec![ids.cls.ok_or_else(|| missing("CLS"))?];
    let after = vec![ids.sep.ok_or_else(|| missing("SEP"))?];
    let (added, special) = gguf.added()?;
    Ok(Tokenizer::from_parts(Parts {
        vocab,
        model: Model::WordPiece(model),
        added,
        added_normalized: AddedSet::default(),
        normalizers: vec![Normalizer::Bert {
            clean: true,
            chinese: true,
            accents: gguf.strip_accents.or(gguf.lowercase).unwrap_or(true),
            lowercase: gguf.lowercase.unwrap_or(true),
        }],
        steps: vec![Step::Bert],
        decoder: Decoder::WordPiece {
            prefix: PREFIX.into(),
            cleanup: true,
        },
        before,
        after,
        ids,
        special,
    }))
}
