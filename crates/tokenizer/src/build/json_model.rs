//! The `model` of a `tokenizer.json`: vocabulary, merges and the model's own switches.

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;

use serde::de::{DeserializeSeed, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::value::RawValue;

use crate::build::alphabet;
use crate::error::TokenizerError;
use crate::models::Model;
use crate::models::bpe::{Atoms, Bpe, MergeTable};
use crate::models::merge::NO_TOKEN;
use crate::models::wordpiece::WordPiece;
use crate::vocab::{Vocab, VocabBuilder};

/// The contents of the added tokens, each with the model's id of the same text, if it has one.
pub(crate) type AddedIds<'a> = HashMap<&'a str, Option<u32>>;

/// The ids that the model's vocabulary uses.
pub(crate) struct Taken(Vec<u64>);

impl Taken {
    pub(crate) fn has(&self, id: u32) -> bool {
        self.0
            .get(id as usize / 64)
            .is_some_and(|word| word >> (id % 64) & 1 == 1)
    }

    fn add(&mut self, id: u32) {
        let word = id as usize / 64;
        if word >= self.0.len() {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (id % 64);
    }
}

/// The model's fields, its two large ones unread.
#[derive(Deserialize)]
pub(crate) struct Head<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Option<Cow<'a, str>>,
    #[serde(default)]
    dropout: Option<f64>,
    #[serde(default)]
    unk_token: Option<String>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    fuse_unk: Option<bool>,
    #[serde(default)]
    byte_fallback: Option<bool>,
    #[serde(default)]
    ignore_merges: Option<bool>,
    #[serde(default)]
    max_input_chars_per_word: Option<usize>,
    #[serde(borrow, default)]
    vocab: Option<&'a RawValue>,
    #[serde(borrow, default)]
    merges: Option<&'a RawValue>,
}

fn bad(context: &'static str) -> impl Fn(serde_json::Error) -> TokenizerError {
    move |source| TokenizerError::Json { context, source }
}

pub(crate) fn head(model: &RawValue) -> Result<Head<'_>, TokenizerError> {
    let head: Head<'_> = serde_json::from_str(model.get()).map_err(bad("the model"))?;
    match head.kind() {
        "BPE" | "WordPiece" => Ok(head),
        other => Err(TokenizerError::unsupported("model", other)),
    }
}

impl Head<'_> {
    /// Old files do not name the model's kind.
    fn kind(&self) -> &str {
        match &self.kind {
            Some(kind) => kind,
            None if self.merges.is_some() => "BPE",
            None => "WordPiece",
        }
    }
}

/// A string of the file, borrowed unless it has escapes.
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

/// Reads the vocabulary into `builder`.
pub(crate) fn read_vocab(
    head: &Head<'_>,
    byte_level: bool,
    builder: &mut VocabBuilder,
    added: &mut AddedIds<'_>,
) -> Result<Taken, TokenizerError> {
    struct Reader<'r, 'a> {
        byte_level: bool,
        builder: &'r mut VocabBuilder,
        added: &'r mut AddedIds<'a>,
        taken: &'r mut Taken,
        failed: &'r mut Option<TokenizerError>,
    }

    impl<'de> DeserializeSeed<'de> for Reader<'_, '_> {
        type Value = ();

        fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
            from.deserialize_map(self)
        }
    }

    impl<'de> Visitor<'de> for Reader<'_, '_> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a map of tokens to ids")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
            let mut spelling = Vec::new();
            while let Some((Text(token), id)) = map.next_entry::<Text<'de>, u32>()? {
                // In a byte-level vocabulary no word is spelt with a foreign character, so such a
                // token is never found; an added token may have that form.
                let spelt = self.byte_level && alphabet::spell(&token, &mut spelling);
                let bytes = if spelt { &*spelling } else { token.as_bytes() };
                if let Err(error) = self.builder.push(id, bytes, spelt || !self.byte_level) {
                    *self.failed = Some(error);
                    return Err(serde::de::Error::custom("a token that cannot be stored"));
                }
                self.taken.add(id);
                if let Some(known) = self.added.get_mut(&*token) {
                    *known = Some(id);
                }
            }
            Ok(())
        }
    }

    let json = head
        .vocab
        .ok_or_else(|| TokenizerError::missing("the model's `vocab`"))?;
    // A token and its id take about 15 bytes of JSON, half of them the token's own.
    *builder = VocabBuilder::with_capacity(json.get().len() / 18, json.get().len() / 3);
    let mut taken = Taken(Vec::new());
    let mut failed = None;
    let reader = Reader {
        byte_level,
        builder,
        added,
        taken: &mut taken,
        failed: &mut failed,
    };
    let result = reader.deserialize(&mut serde_json::Deserializer::from_str(json.get()));
    if let Some(error) = failed {
        return Err(error);
    }
    result.map_err(bad("the vocabulary"))?;
    if builder.len() == 0 {
        return Err(TokenizerError::missing("tokens: its vocabulary is empty"));
    }
    Ok(taken)
}

/// Builds the model; beside it the id of its unknown token.
pub(crate) fn build(
    head: &Head<'_>,
    byte_level: bool,
    vocab: &Vocab,
) -> Result<(Model, Option<u32>), TokenizerError> {
    let unk = match &head.unk_token {
        None => None,
        Some(unk) => Some(vocab.find(unk.as_bytes()).ok_or_else(|| {
            TokenizerError::missing(format!("its unknown token `{unk}` in the vocabulary"))
        })?),
    };
    if head.kind() == "WordPiece" {
        if byte_level {
            return Err(TokenizerError::unsupported(
                "combination",
                "WordPiece over bytes",
            ));
        }
        let model = WordPiece {
            prefix: head
                .continuing_subword_prefix
                .as_deref()
                .unwrap_or("##")
                .into(),
            unk: unk.ok_or_else(|| TokenizerError::missing("the unknown token of WordPiece"))?,
            word_chars_max: head.max_input_chars_per_word.unwrap_or(100),
        };
        return Ok((Model::WordPiece(model), unk));
    }
    let named = |text: &Option<String>| text.as_deref().is_some_and(|text| !text.is_empty());
    if named(&head.continuing_subword_prefix) {
        return Err(TokenizerError::unsupported(
            "BPE option",
            "continuing_subword_prefix",
        ));
    }
    if named(&head.end_of_word_suffix) {
        return Err(TokenizerError::unsupported(
            "BPE option",
            "end_of_word_suffix",
        ));
    }
    if head.dropout.is_some_and(|dropout| dropout != 0.0) {
        return Err(TokenizerError::unsupported("BPE option", "dropout"));
    }
    let merges = head
        .merges
        .ok_or_else(|| TokenizerError::missing("the model's `merges`"))?;
    let pairs = read_merges(merges, byte_level, vocab)?;
    let merges = MergeTable::build(vocab, &pairs)?;
    drop(pairs);
    let atoms = if byte_level {
        Atoms::Bytes(byte_ids(|byte| vocab.find(&[byte])))
    } else {
        let fallback = head.byte_fallback == Some(true);
        Atoms::Chars {
            fallback: fallback.then(|| fallback_ids(vocab)).flatten(),
        }
    };
    let mut model = Bpe::new(merges, atoms);
    model.unk = unk;
    model.fuse_unk = head.fuse_unk == Some(true);
    model.ignore_merges = head.ignore_merges == Some(true);
    if byte_level && !model.ignore_merges {
        model.remember_words(vocab.len());
    }
    Ok((Model::Bpe(model), unk))
}

/// An id for every byte; `NO_TOKEN` where `id` has none.
pub(crate) fn byte_ids(id: impl Fn(u8) -> Option<u32>) -> Box<[u32; 256]> {
    let mut ids = Box::new([NO_TOKEN; 256]);
    for byte in 0..=255_u8 {
        ids[usize::from(byte)] = id(byte).unwrap_or(NO_TOKEN);
    }
    ids
}

/// The tokens `<0x00>` to `<0xFF>`. A vocabulary that lacks some spells no character with them
/// whose bytes it lacks; all real ones have all, so a partial set counts as none.
fn fallback_ids(vocab: &Vocab) -> Option<Box<[u32; 256]>> {
    let ids = byte_ids(|byte| vocab.find(format!("<0x{byte:02X}>").as_bytes()));
    (!ids.contains(&NO_TOKEN)).then_some(ids)
}

/// Reads the merges as pairs of ids: `"a b"` in old files, `["a", "b"]` in new ones.
fn read_merges(
    json: &RawValue,
    byte_level: bool,
    vocab: &Vocab,
) -> Result<Vec<(u32, u32)>, TokenizerError> {
    struct Reader<'r> {
        byte_level: bool,
        vocab: &'r Vocab,
        pairs: &'r mut Vec<(u32, u32)>,
    }

    /// One merge, in either spelling.
    struct Pair<'a>(Cow<'a, str>, Option<Cow<'a, str>>);

    impl<'de> Deserialize<'de> for Pair<'de> {
        fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
            struct PairVisitor;
            impl<'de> Visitor<'de> for PairVisitor {
                type Value = Pair<'de>;

                fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str("a merge: two tokens, or a string of two with a space between")
                }

                fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                    Ok(Pair(Cow::Borrowed(text), None))
                }

                fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                    Ok(Pair(Cow::Owned(text.to_owned()), None))
                }

                fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                    use serde::de::Error;
                    let short = || A::Error::custom("a merge of fewer than two tokens");
                    let Text(left) = seq.next_element()?.ok_or_else(short)?;
                    let Text(right) = seq.next_element()?.ok_or_else(short)?;
                    if seq.next_element::<IgnoredAny>()?.is_some() {
                        return Err(A::Error::custom("a merge of more than two tokens"));
                    }
                    Ok(Pair(left, Some(right)))
                }
            }
            from.deserialize_any(PairVisitor)
        }
    }

    impl<'de> DeserializeSeed<'de> for Reader<'_> {
        type Value = ();

        fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
            from.deserialize_seq(self)
        }
    }

    impl<'de> Visitor<'de> for Reader<'_> {
        type Value = ();

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of merges")
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
            use serde::de::Error;
            let mut spelling = Vec::new();
            let mut find = |token: &str| {
                if !self.byte_level {
                    return self.vocab.find(token.as_bytes());
                }
                alphabet::spell(token, &mut spelling)
                    .then(|| self.vocab.find(&spelling))
                    .flatten()
            };
            while let Some(Pair(first, second)) = seq.next_element::<Pair<'de>>()? {
                let (left, right) = match &second {
                    Some(second) => (&*first, &**second),
                    None if first.starts_with("#version") => continue,
                    None => split_merge(&first)
                        .ok_or_else(|| A::Error::custom(format!("merge `{first}`")))?,
                };
                match (find(left), find(right)) {
                    (Some(left), Some(right)) => self.pairs.push((left, right)),
                    _ => {
                        return Err(A::Error::custom(format!(
                            "merge `{left}` `{right}` of a token that the vocabulary lacks"
                        )));
                    }
                }
            }
            Ok(())
        }
    }

    let mut pairs = Vec::with_capacity(json.get().len() / 24);
    Reader {
        byte_level,
        vocab,
        pairs: &mut pairs,
    }
    .deserialize(&mut serde_json::Deserializer::from_str(json.get()))
    .map_err(bad("the merges"))?;
    Ok(pairs)
}

/// Splits `"a b"`, which has exactly one space.
pub(crate) fn split_merge(merge: &str) -> Option<(&str, &str)> {
    merge
        .split_once(' ')
        .filter(|(left, right)| !left.is_empty() && !right.is_empty() && !right.contains(' '))
}
