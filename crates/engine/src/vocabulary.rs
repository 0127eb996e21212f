//! A model's tokenizer as loaded: built from the file before the plan is final, because its bytes
//! are known only once it stands, and charged to an account of its own.

use std::sync::Mutex;

use bursar_files::{GgufTokens, ModelFile, StringTable, TokenizerSource};
use bursar_memory::{Account, Bytes, Lifetime, Reservation};
use bursar_tokenizer::chat::{ChatError, ChatTemplate, ChatTokens};
use bursar_tokenizer::{GgufVocab, Special, Tokenizer, TokenizerError};

use crate::EngineError;
use crate::inbox::lock;

/// Tokenizer, chat template and end tokens of a model.
pub struct Vocabulary {
    tokenizer: Tokenizer,
    /// One that is broken is an error of those who chat, not of those who embed or continue texts.
    template: Option<Result<ChatTemplate, ChatError>>,
    end_tokens: Vec<u32>,
    /// The end token of a sequence, of several the principal one.
    eos: Option<u32>,
    bytes: Bytes,
    charge: Mutex<Option<Reservation>>,
}

impl Vocabulary {
    /// Builds what the file carries.
    pub fn open(file: &ModelFile) -> Result<Self, EngineError> {
        let generation = file.generation();
        let mut end_tokens = generation.eos.clone();
        let tokenizer = match file.tokenizer_source()? {
            TokenizerSource::Json { tokenizer, .. } => Tokenizer::from_json(&tokenizer),
            TokenizerSource::Gguf(source) => {
                end_tokens.extend(source.eot);
                from_gguf(&source)
            }
        };
        let tokenizer = tokenizer.map_err(|source| EngineError::Tokenizer {
            path: file.path().to_owned(),
            source,
        })?;
        end_tokens.extend(tokenizer.eos());
        end_tokens.sort_unstable();
        end_tokens.dedup();
        let eos = generation.eos.first().copied().or(tokenizer.eos());
        let text = |id: Option<u32>| {
            let bytes = id.map(|id| tokenizer.token_bytes(id).into_owned());
            bytes.and_then(|bytes| String::from_utf8(bytes).ok())
        };
        let template = match file.chat_template() {
            Some(source) => {
                let ids = tokenizer.special_ids();
                let tokens = ChatTokens {
                    bos: text(generation.bos.or(ids.bos)),
                    eos: text(eos),
                    unk: text(ids.unk),
                    pad: text(generation.pad.or(ids.pad)),
                };
                Some(ChatTemplate::new(source, tokens))
            }
            None => None,
        };
        let bytes = Bytes(tokenizer.heap_bytes() as u64);
        Ok(Self {
            tokenizer,
            template,
            end_tokens,
            eos,
            bytes,
            charge: Mutex::new(None),
        })
    }

    /// Charges the tokenizer's bytes to a child of `account`, for as long as this lives.
    pub fn charge(&mut self, account: &Account) -> Result<(), EngineError> {
        let account = account.child("tokenizer", Lifetime::Semantic);
        *lock(&self.charge) = Some(account.reserve(self.bytes)?);
        Ok(())
    }

    /// The charge, for who sees to it that the bytes are gone before it is.
    pub(crate) fn take_charge(&self) -> Option<Reservation> {
        lock(&self.charge).take()
    }

    /// Bytes that the tokenizer holds.
    pub fn bytes(&self) -> Bytes {
        self.bytes
    }

    /// Token ids, special ones included.
    pub fn len(&self) -> usize {
        self.tokenizer.vocab_len()
    }

    /// Never true: a file without tokens is refused when it is opened.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The tokenizer.
    pub fn tokenizer(&self) -> &Tokenizer {
        &self.tokenizer
    }

    /// The chat template, where the file carries one.
    ///
    /// # Errors
    /// Where what the file carries is no template.
    pub fn template(&self) -> Result<Option<&ChatTemplate>, &ChatError> {
        self.template.as_ref().map(Result::as_ref).transpose()
    }

    /// Whether a token ends an answer.
    pub fn is_end(&self, token: u32) -> bool {
        self.end_tokens.contains(&token)
    }

    /// The tokens that end an answer.
    pub fn end_tokens(&self) -> &[u32] {
        &self.end_tokens
    }

    /// The tokens of a text to embed, at most `longest`: what is cut is text, never the special
    /// tokens around it. `append_eos` asks for an end token exactly once, also where the
    /// tokenizer's own template adds none. Says whether anything was cut.
    pub fn encode_for_embedding(
        &self,
        text: &str,
        longest: usize,
        append_eos: bool,
    ) -> (Vec<u32>, bool) {
        let mut ids = self.tokenizer.encode(
            text,
            Special {
                add: true,
                parse: true,
            },
        );
        let (_, suffix) = self.tokenizer.template();
        let end = self.eos.filter(|_| append_eos && suffix.is_empty());
        if let Some(end) = end
            && ids.last() != Some(&end)
        {
            ids.push(end);
        }
        let closing = if end.is_some() { 1 } else { suffix.len() };
        let cut = ids.len() > longest;
        if cut && longest > closing {
            ids.drain(longest - closing..ids.len() - closing);
        } else {
            ids.truncate(longest);
        }
        (ids, cut)
    }
}

/// Hands GGUF's token tables to the tokenizer; they are dropped when it stands.
fn from_gguf(source: &GgufTokens) -> Result<Tokenizer, TokenizerError> {
    fn strings(table: &StringTable) -> Vec<&[u8]> {
        table.iter().collect()
    }
    Tokenizer::from_gguf(&GgufVocab {
        model: &source.model,
        pre: source.pre.as_deref(),
        tokens: strings(&source.tokens),
        types: &source.types,
        scores: &source.scores,
        merges: strings(&source.merges),
        bos: source.bos,
        eos: source.eos,
        unk: source.unk,
        sep: source.sep,
        cls: source.cls,
        pad: source.pad,
        mask: source.mask,
        add_bos: source.add_bos,
        add_eos: source.add_eos,
        add_space_prefix: source.add_space_prefix,
        lowercase: None,
        strip_accents: None,
    })
}
