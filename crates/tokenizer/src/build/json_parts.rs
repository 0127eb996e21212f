//! The small parts of a `tokenizer.json`: normalizers, pre-tokenizers, decoders, post-processors.

use serde::Deserialize;
use serde_json::Value;

use crate::decode::{Decoder, Lead, Pieces};
use crate::error::TokenizerError;
use crate::text::normalize::Normalizer;
use crate::text::split::{Behavior, Pattern, Prepend, Step};
use crate::text::words::Words;

/// The `type` of a part.
fn kind<'v>(value: &'v Value, part: &'static str) -> Result<&'v str, TokenizerError> {
    value
        .get("type")
        .and_then(Value::as_str)
        .ok_or_else(|| TokenizerError::missing(format!("the type of a {part}")))
}

/// The fields of a part.
fn fields<T: for<'de> Deserialize<'de>>(
    value: &Value,
    context: &'static str,
) -> Result<T, TokenizerError> {
    T::deserialize(value).map_err(|source| TokenizerError::Json { context, source })
}

/// The members of a `Sequence`.
fn members<'v>(value: &'v Value, field: &str) -> Result<&'v [Value], TokenizerError> {
    let list = value.get(field).and_then(Value::as_array);
    list.map(Vec::as_slice)
        .ok_or_else(|| TokenizerError::missing(format!("`{field}` of a Sequence")))
}

/// A pattern as files spell it.
#[derive(Deserialize)]
enum PatternJson {
    String(String),
    Regex(String),
}

impl PatternJson {
    fn pattern(&self) -> Result<Pattern, TokenizerError> {
        match self {
            PatternJson::String(text) => Pattern::literal(text),
            PatternJson::Regex(regex) => Pattern::regex(regex),
        }
    }
}

pub(crate) fn normalizers(value: Option<&Value>) -> Result<Vec<Normalizer>, TokenizerError> {
    let mut out = Vec::new();
    if let Some(value) = value {
        push_normalizer(value, &mut out)?;
    }
    Ok(out)
}

fn push_normalizer(value: &Value, out: &mut Vec<Normalizer>) -> Result<(), TokenizerError> {
    #[derive(Deserialize)]
    struct Bert {
        #[serde(default = "yes")]
        clean_text: bool,
        #[serde(default = "yes")]
        handle_chinese_chars: bool,
        strip_accents: Option<bool>,
        #[serde(default = "yes")]
        lowercase: bool,
    }
    #[derive(Deserialize)]
    struct Strip {
        strip_left: bool,
        strip_right: bool,
    }
    #[derive(Deserialize)]
    struct Prepend {
        prepend: String,
    }
    #[derive(Deserialize)]
    struct Replace {
        pattern: PatternJson,
        content: String,
    }
    let normalizer = match kind(value, "normalizer")? {
        "Sequence" => {
            for member in members(value, "normalizers")? {
                push_normalizer(member, out)?;
            }
            return Ok(());
        }
        "NFC" => Normalizer::Nfc,
        "NFD" => Normalizer::Nfd,
        "NFKC" => Normalizer::Nfkc,
        "NFKD" => Normalizer::Nfkd,
        "Lowercase" => Normalizer::Lowercase,
        "StripAccents" => Normalizer::StripAccents,
        "Strip" => {
            let strip: Strip = fields(value, "normalizer Strip")?;
            Normalizer::Strip {
                left: strip.strip_left,
                right: strip.strip_right,
            }
        }
        "Prepend" => {
            let prepend: Prepend = fields(value, "normalizer Prepend")?;
            Normalizer::Prepend(prepend.prepend.into())
        }
        "Replace" => {
            let replace: Replace = fields(value, "normalizer Replace")?;
            Normalizer::Replace {
                pattern: replace.pattern.pattern()?,
                content: replace.content.into(),
            }
        }
        "BertNormalizer" => {
            let bert: Bert = fields(value, "normalizer BertNormalizer")?;
            Normalizer::Bert {
                clean: bert.clean_text,
                chinese: bert.handle_chinese_chars,
                accents: bert.strip_accents.unwrap_or(bert.lowercase),
                lowercase: bert.lowercase,
            }
        }
        other => return Err(TokenizerError::unsupported("normalizer", other)),
    };
    out.push(normalizer);
    Ok(())
}

fn yes() -> bool {
    true
}

/// The pre-tokenizer's steps, and whether they end in bytes.
pub(crate) fn steps(value: Option<&Value>) -> Result<(Vec<Step>, bool), TokenizerError> {
    let mut out = Vec::new();
    let mut byte_level = false;
    if let Some(value) = value {
        push_step(value, &mut out, &mut byte_level)?;
    }
    Ok((out, byte_level))
}

#[derive(Clone, Copy, Deserialize)]
enum BehaviorJson {
    Isolated,
    Removed,
    Contiguous,
    MergedWithPrevious,
    MergedWithNext,
}

impl From<BehaviorJson> for Behavior {
    fn from(behavior: BehaviorJson) -> Behavior {
        match behavior {
            BehaviorJson::Isolated => Behavior::Isolated,
            BehaviorJson::Removed => Behavior::Removed,
            BehaviorJson::Contiguous => Behavior::Contiguous,
            BehaviorJson::MergedWithPrevious => Behavior::MergedWithPrevious,
            BehaviorJson::MergedWithNext => Behavior::MergedWithNext,
        }
    }
}

fn push_step(
    value: &Value,
    out: &mut Vec<Step>,
    byte_level: &mut bool,
) -> Result<(), TokenizerError> {
    #[derive(Deserialize)]
    struct ByteLevel {
        #[serde(default = "yes")]
        add_prefix_space: bool,
        #[serde(default = "yes")]
        use_regex: bool,
    }
    #[derive(Deserialize)]
    struct Split {
        pattern: PatternJson,
        behavior: BehaviorJson,
        #[serde(default)]
        invert: bool,
    }
    #[derive(Deserialize)]
    struct Digits {
        #[serde(default)]
        individual_digits: bool,
    }
    #[derive(Deserialize)]
    struct Punctuation {
        #[serde(default = "isolated")]
        behavior: BehaviorJson,
    }
    fn isolated() -> BehaviorJson {
        BehaviorJson::Isolated
    }
    #[derive(Deserialize)]
    struct Delimiter {
        delimiter: char,
    }
    let kind = kind(value, "pre-tokenizer")?;
    if kind == "Sequence" {
        for member in members(value, "pretokenizers")? {
            push_step(member, out, byte_level)?;
        }
        return Ok(());
    }
    if *byte_level {
        // What follows would have to work on the byte alphabet's characters.
        return Err(TokenizerError::unsupported(
            "pre-tokenizer after ByteLevel",
            kind,
        ));
    }
    let step = match kind {
        "ByteLevel" => {
            let bytes: ByteLevel = fields(value, "pre-tokenizer ByteLevel")?;
            if bytes.add_prefix_space {
                out.push(Step::PrefixSpace);
            }
            if bytes.use_regex {
                out.push(Step::Words(Words::Gpt2));
            }
            *byte_level = true;
            return Ok(());
        }
        "Split" => {
            let split: Split = fields(value, "pre-tokenizer Split")?;
            let behavior = Behavior::from(split.behavior);
            match (&split.pattern, behavior) {
                // A scanner's words cover the text, so isolating the matches, or removing what is
                // between them, gives the words.
                (PatternJson::Regex(regex), Behavior::Isolated | Behavior::Removed)
                    if (behavior == Behavior::Isolated || split.invert)
                        && Words::of_pattern(regex).is_some() =>
                {
                    match Words::of_pattern(regex) {
                        Some(words) => Step::Words(words),
                        None => return Ok(()),
                    }
                }
                _ => Step::Pattern {
                    pattern: split.pattern.pattern()?,
                    behavior,
                    invert: split.invert,
                },
            }
        }
        "Digits" => {
            let digits: Digits = fields(value, "pre-tokenizer Digits")?;
            Step::Digits {
                individual: digits.individual_digits,
            }
        }
        "Metaspace" => {
            let (mark, prepend, split) = metaspace(value)?;
            Step::Metaspace {
                mark,
                prepend,
                split,
            }
        }
        "BertPreTokenizer" => Step::Bert,
        "Whitespace" => Step::Whitespace,
        "WhitespaceSplit" => Step::WhitespaceSplit,
        "Punctuation" => {
            let punctuation: Punctuation = fields(value, "pre-tokenizer Punctuation")?;
            Step::Punctuation(punctuation.behavior.into())
        }
        "CharDelimiterSplit" => {
            let delimiter: Delimiter = fields(value, "pre-tokenizer CharDelimiterSplit")?;
            Step::Delimiter(delimiter.delimiter)
        }
        other => return Err(TokenizerError::unsupported("pre-tokenizer", other)),
    };
    out.push(step);
    Ok(())
}

fn metaspace(value: &Value) -> Result<(char, Prepend, bool), TokenizerError> {
    #[derive(Deserialize)]
    struct Metaspace {
        replacement: char,
        add_prefix_space: Option<bool>,
        prepend_scheme: Option<Scheme>,
        split: Option<bool>,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "snake_case")]
    enum Scheme {
        First,
        Never,
        Always,
    }
    let metaspace: Metaspace = fields(value, "Metaspace")?;
    let prepend = match (metaspace.prepend_scheme, metaspace.add_prefix_space) {
        (Some(Scheme::Never), _) | (_, Some(false)) => Prepend::Never,
        (Some(Scheme::First), _) => Prepend::First,
        (Some(Scheme::Always) | None, _) => Prepend::Always,
    };
    Ok((
        metaspace.replacement,
        prepend,
        metaspace.split.unwrap_or(true),
    ))
}

pub(crate) fn decoder(value: Option<&Value>) -> Result<Decoder, TokenizerError> {
    let Some(value) = value else {
        return Ok(Decoder::Separated);
    };
    #[derive(Deserialize)]
    struct WordPiece {
        prefix: String,
        #[serde(default = "yes")]
        cleanup: bool,
    }
    match kind(value, "decoder")? {
        "ByteLevel" => return Ok(Decoder::Bytes),
        "WordPiece" => {
            let decoder: WordPiece = fields(value, "decoder WordPiece")?;
            return Ok(Decoder::WordPiece {
                prefix: decoder.prefix.into(),
                cleanup: decoder.cleanup,
            });
        }
        _ => {}
    }
    let mut parts = PieceParts::default();
    let mut all = Vec::new();
    flatten(value, &mut all)?;
    if let [only] = &*all
        && matches!(kind(only, "decoder")?, "ByteLevel" | "WordPiece")
    {
        return decoder(Some(only));
    }
    for member in all {
        parts.take(member)?;
    }
    parts.pieces.replacements.shrink_to_fit();
    Ok(Decoder::Pieces(parts.pieces))
}

/// The members of nested sequences, in order.
fn flatten<'v>(value: &'v Value, out: &mut Vec<&'v Value>) -> Result<(), TokenizerError> {
    if kind(value, "decoder")? != "Sequence" {
        out.push(value);
        return Ok(());
    }
    members(value, "decoders")?
        .iter()
        .try_for_each(|member| flatten(member, out))
}

/// How far a chain of decoders has come: tokens, then bytes joined to text, then one text.
#[derive(Default)]
struct PieceParts {
    pieces: Pieces,
    fused: bool,
}

impl PieceParts {
    /// Adds one decoder, if its place in the chain is one whose meaning [`Pieces`] has.
    fn take(&mut self, value: &Value) -> Result<(), TokenizerError> {
        #[derive(Deserialize)]
        struct Replace {
            pattern: PatternJson,
            content: String,
        }
        #[derive(Deserialize)]
        struct Strip {
            content: char,
            start: usize,
            stop: usize,
        }
        let name = kind(value, "decoder")?;
        let pieces = &mut self.pieces;
        let in_tokens = !self.fused && !pieces.byte_fallback && pieces.mark.is_none();
        match name {
            "Replace" if in_tokens => {
                let replace: Replace = fields(value, "decoder Replace")?;
                let PatternJson::String(from) = replace.pattern else {
                    return Err(TokenizerError::unsupported("decoder", "Replace by a regex"));
                };
                if from.is_empty() {
                    return Err(TokenizerError::unsupported("decoder", "Replace of nothing"));
                }
                pieces
                    .replacements
                    .push((from.into(), replace.content.into()));
            }
            "Metaspace" if in_tokens => {
                let (mark, prepend, _) = metaspace(value)?;
                let lead = if prepend == Prepend::Never {
                    Lead::Keep
                } else {
                    Lead::Drop
                };
                pieces.mark = Some((mark, lead));
            }
            "ByteFallback" if in_tokens => pieces.byte_fallback = true,
            "Fuse" => self.fused = true,
            "Strip" if self.fused && pieces.strip.is_none() => {
                let strip: Strip = fields(value, "decoder Strip")?;
                if strip.stop != 0 {
                    return Err(TokenizerError::unsupported("decoder", "Strip at the end"));
                }
                pieces.strip = Some((strip.content, strip.start));
            }
            "Replace" | "Metaspace" | "ByteFallback" | "Strip" | "ByteLevel" | "WordPiece" => {
                return Err(TokenizerError::unsupported("place of a decoder", name));
            }
            other => return Err(TokenizerError::unsupported("decoder", other)),
        }
        Ok(())
    }
}

/// Ids before and after a sequence.
#[derive(Debug, Default)]
pub(crate) struct Template {
    pub(crate) before: Vec<u32>,
    pub(crate) after: Vec<u32>,
}

pub(crate) fn template(value: Option<&Value>) -> Result<Template, TokenizerError> {
    let mut template = Template::default();
    if let Some(value) = value {
        wrap(value, &mut template)?;
    }
    Ok(template)
}

/// Wraps a template in one more post-processor.
fn wrap(value: &Value, template: &mut Template) -> Result<(), TokenizerError> {
    #[derive(Deserialize)]
    struct Pair {
        sep: (String, u32),
        cls: (String, u32),
    }
    let (before, after) = match kind(value, "post-processor")? {
        "Sequence" => {
            return members(value, "processors")?
                .iter()
                .try_for_each(|one| wrap(one, template));
        }
        // Only moves offsets.
        "ByteLevel" => return Ok(()),
        "BertProcessing" | "RobertaProcessing" => {
            let pair: Pair = fields(value, "post-processor")?;
            (vec![pair.cls.1], vec![pair.sep.1])
        }
        "TemplateProcessing" => template_processing(value)?,
        other => return Err(TokenizerError::unsupported("post-processor", other)),
    };
    template.before.splice(0..0, before);
    template.after.extend(after);
    Ok(())
}

fn template_processing(value: &Value) -> Result<(Vec<u32>, Vec<u32>), TokenizerError> {
    #[derive(Deserialize)]
    struct Processing {
        single: Vec<Piece>,
        #[serde(default)]
        special_tokens: std::collections::HashMap<String, SpecialToken>,
    }
    #[derive(Deserialize)]
    enum Piece {
        Sequence { id: String },
        SpecialToken { id: String },
    }
    #[derive(Deserialize)]
    struct SpecialToken {
        ids: Vec<u32>,
    }
    let processing: Processing = fields(value, "post-processor TemplateProcessing")?;
    let (mut before, mut after) = (Vec::new(), Vec::new());
    let mut text_seen = false;
    for piece in &processing.single {
        match piece {
            Piece::Sequence { id } if id == "A" && !text_seen => text_seen = true,
            Piece::Sequence { id } => {
                return Err(TokenizerError::unsupported(
                    "place of a sequence in a template",
                    id,
                ));
            }
            Piece::SpecialToken { id } => {
                let token = processing.special_tokens.get(id).ok_or_else(|| {
                    TokenizerError::missing(format!("special token `{id}` of its template"))
                })?;
                if text_seen { &mut after } else { &mut before }.extend(&token.ids);
            }
        }
    }
    if !text_seen {
        return Err(TokenizerError::missing("the text `$A` in its template"));
    }
    Ok((before, after))
}
