//! The tokenizer: text to token ids and back.

use std::borrow::Cow;

use crate::decode::{Decoder, Detokenizer, Pieces, byte_token, text_of};
use crate::models::Model;
use crate::models::merge::Scratch;
use crate::text::added::{AddedSet, Section};
use crate::text::normalize::Normalizer;
use crate::text::split::{Step, split};
use crate::vocab::Vocab;

/// What [`Tokenizer::encode`] does about special tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Special {
    /// Put the model's own around the text: BOS, EOS, CLS, SEP as its template says.
    pub add: bool,
    /// Recognise their spelling in the text. Not for text from outside: a user who types
    /// `<|im_end|>` would end their turn.
    pub parse: bool,
}

impl Special {
    /// Nothing added, nothing recognised: plain text.
    pub const NONE: Special = Special {
        add: false,
        parse: false,
    };
    /// Added and recognised: a whole prompt, as the reference tokenizers encode by default.
    pub const ALL: Special = Special {
        add: true,
        parse: true,
    };
    /// Recognised but not added: the output of a chat template.
    pub const PARSE: Special = Special {
        add: false,
        parse: true,
    };
    /// Added but not recognised: a document to embed.
    pub const ADD: Special = Special {
        add: true,
        parse: false,
    };
}

/// The ids with a role of their own, where the model names them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SpecialIds {
    /// Begins a sequence.
    pub bos: Option<u32>,
    /// Ends a sequence.
    pub eos: Option<u32>,
    /// Stands for what has no token.
    pub unk: Option<u32>,
    /// Fills a batch.
    pub pad: Option<u32>,
    /// Begins a sequence of a BERT model.
    pub cls: Option<u32>,
    /// Ends a sequence of a BERT model.
    pub sep: Option<u32>,
    /// Hides a token of a BERT model.
    pub mask: Option<u32>,
}

/// Everything that a tokenizer consists of; the builders for each file format fill it in.
#[derive(Debug)]
pub(crate) struct Parts {
    pub(crate) vocab: Vocab,
    pub(crate) model: Model,
    /// Added tokens found in the text as it came.
    pub(crate) added: AddedSet,
    /// Added tokens found in normalised text, by their normalised spelling.
    pub(crate) added_normalized: AddedSet,
    pub(crate) normalizers: Vec<Normalizer>,
    pub(crate) steps: Vec<Step>,
    pub(crate) decoder: Decoder,
    /// Ids put before and after a sequence.
    pub(crate) before: Vec<u32>,
    pub(crate) after: Vec<u32>,
    pub(crate) ids: SpecialIds,
    /// Ids that `skip_special` leaves out.
    pub(crate) special: Vec<u32>,
}

/// Text to token ids and back, in little memory.
///
/// Built by [`Tokenizer::from_json`] or [`Tokenizer::from_gguf`]. Immutable, so one serves all
/// threads.
#[derive(Debug)]
pub struct Tokenizer {
    parts: Parts,
    // One bit per id.
    special: Bits,
    added: Bits,
}

/// A set of ids.
#[derive(Debug)]
struct Bits(Box<[u64]>);

impl Bits {
    fn new(len: usize, ids: impl Iterator<Item = u32>) -> Bits {
        let mut words = vec![0_u64; len.div_ceil(64)];
        for id in ids {
            if let Some(word) = words.get_mut(id as usize / 64) {
                *word |= 1 << (id % 64);
            }
        }
        Bits(words.into_boxed_slice())
    }

    fn has(&self, id: u32) -> bool {
        self.0
            .get(id as usize / 64)
            .is_some_and(|word| word >> (id % 64) & 1 == 1)
    }
}

/// Longer words are cut, so that a place in a word fits 32 bits. Only a tokenizer that does not
/// split text into words ever sees one, and only for a text of over a gigabyte.
const WORD_BYTES_MAX: usize = 1 << 30;

impl Tokenizer {
    pub(crate) fn from_parts(mut parts: Parts) -> Tokenizer {
        parts.normalizers.shrink_to_fit();
        parts.steps.shrink_to_fit();
        parts.before.shrink_to_fit();
        parts.after.shrink_to_fit();
        let special = Bits::new(parts.vocab.len(), parts.special.iter().copied());
        parts.special = Vec::new();
        let added = parts
            .added
            .iter()
            .chain(parts.added_normalized.iter())
            .map(|token| token.id);
        let added = Bits::new(parts.vocab.len(), added);
        Tokenizer {
            parts,
            special,
            added,
        }
    }

    /// Token ids of `text`.
    pub fn encode(&self, text: &str, special: Special) -> Vec<u32> {
        // About four bytes a token in prose; a little over saves most texts a growth.
        let mut ids = Vec::with_capacity(text.len() / 3 + 8);
        self.encode_into(text, special, &mut ids);
        ids
    }

    /// Appends the token ids of `text` to `ids`.
    pub fn encode_into(&self, text: &str, special: Special, ids: &mut Vec<u32>) {
        if special.add {
            ids.extend_from_slice(&self.parts.before);
        }
        let mut scratch = Scratch::default();
        self.parts
            .added
            .sections(text, true, special.parse, |section| match section {
                Section::Token(id) => ids.push(id),
                Section::Text(text, at_start) => {
                    self.encode_section(text, at_start, special.parse, &mut scratch, ids);
                }
            });
        if special.add {
            ids.extend_from_slice(&self.parts.after);
        }
    }

    /// Encodes text between added tokens.
    fn encode_section(
        &self,
        text: &str,
        at_start: bool,
        parse: bool,
        scratch: &mut Scratch,
        ids: &mut Vec<u32>,
    ) {
        let parts = &self.parts;
        let mut text = Cow::Borrowed(text);
        for normalizer in &parts.normalizers {
            text = normalizer.apply(text);
        }
        parts
            .added_normalized
            .sections(&text, at_start, parse, |section| match section {
                Section::Token(id) => ids.push(id),
                Section::Text(text, at_start) => {
                    split(&parts.steps, text, at_start, &mut |word| {
                        let mut rest = word;
                        while rest.len() > WORD_BYTES_MAX {
                            let (head, tail) =
                                rest.split_at(rest.floor_char_boundary(WORD_BYTES_MAX));
                            parts.model.encode(&parts.vocab, head, scratch, ids);
                            rest = tail;
                        }
                        parts.model.encode(&parts.vocab, rest, scratch, ids);
                    });
                }
            });
    }

    /// The text of `ids`, without special tokens if `skip_special`.
    ///
    /// Bytes that are no UTF-8 become U+FFFD. Ids that the tokenizer does not have are ignored.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> String {
        let mut stream = self.detokenizer(skip_special);
        let mut text = String::new();
        for &id in ids {
            text.push_str(stream.push(self, id));
        }
        text.push_str(stream.finish());
        text
    }

    /// A detokeniser at the start of a text.
    pub fn detokenizer(&self, skip_special: bool) -> Detokenizer {
        Detokenizer::new(self, skip_special)
    }

    /// What a token adds to text in the middle of a sequence. These are bytes: of a byte-level or
    /// byte token perhaps half a character. Nothing for an id that the tokenizer does not have.
    pub fn token_bytes(&self, id: u32) -> Cow<'_, [u8]> {
        let bytes = self.parts.vocab.bytes(id);
        match &self.parts.decoder {
            Decoder::Bytes => Cow::Borrowed(bytes),
            Decoder::WordPiece { prefix, .. } => match bytes.strip_prefix(prefix.as_bytes()) {
                _ if bytes.is_empty() => Cow::Borrowed(bytes),
                Some(rest) => Cow::Borrowed(rest),
                None => Cow::Owned([b" ", bytes].concat()),
            },
            Decoder::Separated if bytes.is_empty() => Cow::Borrowed(bytes),
            Decoder::Separated => Cow::Owned([b" ", bytes].concat()),
            Decoder::Pieces(pieces) => match byte_token(bytes) {
                Some(byte) if pieces.byte_fallback => Cow::Owned(vec![byte]),
                _ => {
                    let verbatim = pieces.added_verbatim && self.is_added(id);
                    Cow::Owned(pieces.text(text_of(bytes), verbatim).into_bytes())
                }
            },
        }
    }

    /// The id of the token that the vocabulary stores under this text: an added token's spelling,
    /// else a token's own text (of a byte-level vocabulary, the text that it decodes to).
    pub fn token_id(&self, text: &str) -> Option<u32> {
        let sets = [&self.parts.added, &self.parts.added_normalized];
        let added = sets.into_iter().find_map(|set| set.get(text));
        added.or_else(|| self.parts.vocab.find(text.as_bytes()))
    }

    /// One more than the highest id.
    pub fn vocab_len(&self) -> usize {
        self.parts.vocab.len()
    }

    /// The ids with a role of their own.
    pub fn special_ids(&self) -> SpecialIds {
        self.parts.ids
    }

    /// The id that begins a sequence, where the model names one.
    pub fn bos(&self) -> Option<u32> {
        self.parts.ids.bos
    }

    /// The id that ends a sequence, where the model names one.
    pub fn eos(&self) -> Option<u32> {
        self.parts.ids.eos
    }

    /// Whether `skip_special` leaves this id out of text.
    pub fn is_special(&self, id: u32) -> bool {
        self.special.has(id)
    }

    /// The ids that [`Special::add`] puts before and after a sequence.
    pub fn template(&self) -> (&[u32], &[u32]) {
        (&self.parts.before, &self.parts.after)
    }

    /// Bytes of heap memory that the tokenizer holds.
    ///
    /// Exact to the byte asked of the allocator, except for a pattern without a scanner of its own
    /// (an unusual pre-tokenizer), which counts as the limit that bounds it.
    pub fn heap_bytes(&self) -> usize {
        let parts = &self.parts;
        let lists = parts.normalizers.capacity() * size_of::<Normalizer>()
            + parts.steps.capacity() * size_of::<Step>()
            + (parts.before.capacity() + parts.after.capacity()) * size_of::<u32>();
        lists
            + parts.vocab.heap_bytes()
            + parts.model.heap_bytes()
            + parts.added.heap_bytes()
            + parts.added_normalized.heap_bytes()
            + parts
                .normalizers
                .iter()
                .map(Normalizer::heap_bytes)
                .sum::<usize>()
            + parts.steps.iter().map(Step::heap_bytes).sum::<usize>()
            + parts.decoder.heap_bytes()
            + size_of_val(&*self.special.0)
            + size_of_val(&*self.added.0)
    }

    pub(crate) fn decoder(&self) -> &Decoder {
        &self.parts.decoder
    }

    pub(crate) fn vocab(&self) -> &Vocab {
        &self.parts.vocab
    }

    pub(crate) fn ids_mut(&mut self) -> &mut SpecialIds {
        &mut self.parts.ids
    }

    pub(crate) fn is_added(&self, id: u32) -> bool {
        self.added.has(id)
    }

    /// A token's bytes as stored, if there is such a token.
    pub(crate) fn surface(&self, id: u32) -> Option<&[u8]> {
        let bytes = self.parts.vocab.bytes(id);
        (!bytes.is_empty()).then_some(bytes)
    }
}

impl Pieces {
    /// A token's text in the middle of a sequence.
    fn text(&self, text: &str, verbatim: bool) -> String {
        let (mut scratch, mut out) = (String::new(), String::new());
        self.append(text, false, verbatim, &mut scratch, &mut out);
        out
    }
}
