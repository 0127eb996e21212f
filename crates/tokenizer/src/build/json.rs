//! A tokenizer from Hugging Face's `tokenizer.json`.
//!
//! The vocabulary and the merges are most of the file; they are streamed into the packed tables.
//! The rest is small and read as values. What is not known by name is an error: a part left out
//! silently would give wrong ids.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde_json::Value;
use serde_json::value::RawValue;

use crate::build::alphabet;
use crate::build::json_model::{self, AddedIds};
use crate::build::json_parts::{self, Template};
use crate::decode::Decoder;
use crate::error::TokenizerError;
use crate::text::added::{Added, AddedSet};
use crate::text::normalize::Normalizer;
use crate::tokenizer::{Parts, SpecialIds, Tokenizer};
use crate::vocab::VocabBuilder;

/// The file. Truncation and padding are left to the caller, who knows the model's limits.
#[derive(Deserialize)]
struct File<'a> {
    #[serde(borrow, default)]
    added_tokens: Option<Vec<AddedJson<'a>>>,
    #[serde(default)]
    normalizer: Option<Value>,
    #[serde(default)]
    pre_tokenizer: Option<Value>,
    #[serde(default)]
    post_processor: Option<Value>,
    #[serde(default)]
    decoder: Option<Value>,
    #[serde(borrow)]
    model: &'a RawValue,
}

#[derive(Deserialize)]
struct AddedJson<'a> {
    id: u32,
    #[serde(borrow)]
    content: Cow<'a, str>,
    #[serde(default)]
    single_word: bool,
    #[serde(default)]
    lstrip: bool,
    #[serde(default)]
    rstrip: bool,
    #[serde(default = "yes")]
    normalized: bool,
    #[serde(default)]
    special: bool,
}

fn yes() -> bool {
    true
}

impl Tokenizer {
    /// Builds the tokenizer that a `tokenizer.json` describes.
    ///
    /// Above the text of the file, building takes the tokenizer's own bytes and about as much
    /// again for a moment.
    ///
    /// # Errors
    /// Names what is missing, broken or not supported.
    pub fn from_json(json: &[u8]) -> Result<Tokenizer, TokenizerError> {
        let bad = |context| move |source| TokenizerError::Json { context, source };
        let file: File<'_> = serde_json::from_slice(json).map_err(bad("the file"))?;
        let normalizers = json_parts::normalizers(file.normalizer.as_ref())?;
        let (steps, byte_level) = json_parts::steps(file.pre_tokenizer.as_ref())?;
        let decoder = json_parts::decoder(file.decoder.as_ref())?;
        if byte_level != matches!(decoder, Decoder::Bytes) {
            return Err(TokenizerError::unsupported(
                "combination",
                if byte_level {
                    "a ByteLevel pre-tokenizer without a ByteLevel decoder"
                } else {
                    "a ByteLevel decoder without a ByteLevel pre-tokenizer"
                },
            ));
        }
        let template = json_parts::template(file.post_processor.as_ref())?;

        let added = file.added_tokens.unwrap_or_default();
        let mut model_ids: AddedIds<'_> = added
            .iter()
            .map(|token| (&*token.content, None))
            .collect::<HashMap<_, _>>();
        let mut builder = VocabBuilder::default();
        let head = json_model::head(file.model)?;
        let holes = json_model::read_vocab(&head, byte_level, &mut builder, &mut model_ids)?;
        let sets = added_tokens(
            &added,
            &model_ids,
            &holes,
            byte_level,
            &normalizers,
            &mut builder,
        )?;
        drop((model_ids, holes));

        let vocab = builder.build()?;
        let (model, unk) = json_model::build(&head, byte_level, &vocab)?;
        let Template { before, after } = template;
        if let Some(&id) = before
            .iter()
            .chain(&after)
            .find(|&&id| vocab.bytes(id).is_empty())
        {
            return Err(TokenizerError::inconsistent(format!(
                "the post-processor adds token {id}, which does not exist"
            )));
        }
        let mut tokenizer = Tokenizer::from_parts(Parts {
            vocab,
            model,
            added: sets.raw,
            added_normalized: sets.normalized,
            normalizers,
            steps,
            decoder,
            before,
            after,
            ids: SpecialIds::default(),
            special: sets.special,
        });
        let named = |name| tokenizer.token_id(name);
        *tokenizer.ids_mut() = SpecialIds {
            unk,
            pad: named("[PAD]"),
            cls: named("[CLS]"),
            sep: named("[SEP]"),
            mask: named("[MASK]"),
            ..SpecialIds::default()
        };
        Ok(tokenizer)
    }

    /// Takes the names of the special tokens from a `tokenizer_config.json`, which is where BOS
    /// and EOS are named. A name that the vocabulary does not have names nothing.
    ///
    /// # Errors
    /// If the text is not a JSON object.
    pub fn with_config(mut self, config: &[u8]) -> Result<Tokenizer, TokenizerError> {
        #[derive(Deserialize, Default)]
        #[serde(default)]
        struct Config {
            bos_token: Value,
            eos_token: Value,
            unk_token: Value,
            pad_token: Value,
            cls_token: Value,
            sep_token: Value,
            mask_token: Value,
        }
        let config: Config =
            serde_json::from_slice(config).map_err(|source| TokenizerError::Json {
                context: "tokenizer_config.json",
                source,
            })?;
        let id = |name: &Value| {
            // A string, or an object with the token's flags.
            let name = name.as_str().or_else(|| name.get("content")?.as_str())?;
            self.token_id(name)
        };
        let old = self.special_ids();
        let ids = SpecialIds {
            bos: id(&config.bos_token).or(old.bos),
            eos: id(&config.eos_token).or(old.eos),
            unk: id(&config.unk_token).or(old.unk),
            pad: id(&config.pad_token).or(old.pad),
            cls: id(&config.cls_token).or(old.cls),
            sep: id(&config.sep_token).or(old.sep),
            mask: id(&config.mask_token).or(old.mask),
        };
        *self.ids_mut() = ids;
        Ok(self)
    }
}

struct AddedSets {
    raw: AddedSet,
    normalized: AddedSet,
    special: Vec<u32>,
}

/// Gives each added token its id, puts those that the model lacks into the vocabulary, and sorts
/// them by whether they are looked for before or after normalising.
fn added_tokens(
    added: &[AddedJson<'_>],
    model_ids: &AddedIds<'_>,
    taken: &json_model::Taken,
    byte_level: bool,
    normalizers: &[Normalizer],
    builder: &mut VocabBuilder,
) -> Result<AddedSets, TokenizerError> {
    let (mut raw, mut normalized, mut special) = (Vec::new(), Vec::new(), Vec::new());
    let mut spelling = Vec::new();
    for token in added.iter().filter(|token| !token.content.is_empty()) {
        let in_model = model_ids.get(&*token.content).copied().flatten();
        if in_model.is_none() && taken.has(token.id) {
            return Err(TokenizerError::inconsistent(format!(
                "added token `{}` has the id {} of another token",
                token.content, token.id
            )));
        }
        let id = in_model.unwrap_or(token.id);
        let mut content = Cow::Borrowed(&*token.content);
        if token.normalized {
            for normalizer in normalizers {
                content = normalizer.apply(content);
            }
        }
        if in_model.is_none() {
            let spelt = byte_level && alphabet::spell(&content, &mut spelling);
            let bytes = if spelt {
                &*spelling
            } else {
                content.as_bytes()
            };
            builder.push(id, bytes, false)?;
        }
        if token.special {
            special.push(id);
        }
        let set = if token.normalized {
            &mut normalized
        } else {
            &mut raw
        };
        set.push(Added {
            id,
            content: content.into_owned(),
            special: token.special,
            lstrip: token.lstrip,
            rstrip: token.rstrip,
            single_word: token.single_word,
        });
    }
    Ok(AddedSets {
        raw: AddedSet::new(raw),
        normalized: AddedSet::new(normalized),
        special,
    })
}
