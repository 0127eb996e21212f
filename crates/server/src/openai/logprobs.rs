//! Likelihoods in the two forms that OpenAI's API has for them, written as they come.

use std::sync::Arc;

use bursar_engine::Vocabulary;
use bursar_memory::{BufferPool, PoolError};
use bursar_tokenizer::Detokenizer;

use crate::out::Out;

/// What JSON has for a likelihood of nothing.
const LOWEST: f32 = -9999.0;

/// A token with its likelihoods.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Told<'a> {
    /// The token.
    pub(crate) token: u32,
    /// Its log-probability.
    pub(crate) logprob: Option<f32>,
    /// The most likely ones in its place, the likeliest first.
    pub(crate) top: &'a [(u32, f32)],
}

/// The likelihoods of one answer's tokens: what has come of them since they were last written down.
pub(crate) enum Likelihoods {
    /// Nobody asked for them.
    Untold,
    /// As chats tell them: an entry for each token.
    Entries(Entries),
    /// As completions tell them: four lists of one length.
    Columns(Box<Columns>),
}

impl Likelihoods {
    /// An entry for each token.
    pub(crate) fn entries(vocabulary: &Arc<Vocabulary>, pool: &BufferPool) -> Likelihoods {
        Likelihoods::Entries(Entries {
            vocabulary: Arc::clone(vocabulary),
            list: Out::new(pool),
        })
    }

    /// Lists of one length.
    pub(crate) fn columns(vocabulary: &Arc<Vocabulary>, pool: &BufferPool) -> Likelihoods {
        Likelihoods::Columns(Box::new(Columns {
            vocabulary: Arc::clone(vocabulary),
            detokenizer: vocabulary.tokenizer().detokenizer(true),
            offset: 0,
            tokens: Out::new(pool),
            token_logprobs: Out::new(pool),
            top_logprobs: Out::new(pool),
            text_offset: Out::new(pool),
        }))
    }

    /// Whether anybody asked for them.
    pub(crate) fn are_told(&self) -> bool {
        !matches!(self, Likelihoods::Untold)
    }

    /// Adds a token's.
    pub(crate) fn push(&mut self, told: Told<'_>) -> Result<(), PoolError> {
        match self {
            Likelihoods::Untold => Ok(()),
            Likelihoods::Entries(entries) => entries.push(told),
            Likelihoods::Columns(columns) => columns.push(told),
        }
    }

    /// Writes down what has come, and forgets it.
    pub(crate) fn write(&mut self, out: &mut Out) -> Result<(), PoolError> {
        match self {
            Likelihoods::Untold => out.raw("null"),
            Likelihoods::Entries(entries) => entries.write(out),
            Likelihoods::Columns(columns) => columns.write(out),
        }
    }
}

/// Writes a token as text, in quotes; bytes that are half a character become U+FFFD.
pub(super) fn write_token(
    vocabulary: &Vocabulary,
    token: u32,
    out: &mut Out,
) -> Result<(), PoolError> {
    out.quoted(&String::from_utf8_lossy(
        &vocabulary.tokenizer().token_bytes(token),
    ))
}

fn write_number(logprob: f32, out: &mut Out) -> Result<(), PoolError> {
    let logprob = match logprob.is_finite() {
        true => logprob.max(LOWEST),
        false => LOWEST,
    };
    out.float(f64::from(logprob))
}

/// Entries as chats have them, separated by commas.
pub(crate) struct Entries {
    vocabulary: Arc<Vocabulary>,
    list: Out,
}

impl Entries {
    fn push(&mut self, told: Told<'_>) -> Result<(), PoolError> {
        self.list.comma(self.list.len())?;
        let logprob = told.logprob.unwrap_or(f32::NEG_INFINITY);
        self.open(told.token, logprob)?;
        self.list.raw(",\"top_logprobs\":[")?;
        for (index, &(token, logprob)) in told.top.iter().enumerate() {
            self.list.comma(index)?;
            self.open(token, logprob)?;
            self.list.raw("}")?;
        }
        self.list.raw("]}")
    }

    /// What all entries begin with.
    fn open(&mut self, token: u32, logprob: f32) -> Result<(), PoolError> {
        let (out, vocabulary) = (&mut self.list, &self.vocabulary);
        out.raw("{\"token\":")?;
        write_token(vocabulary, token, out)?;
        out.raw(",\"logprob\":")?;
        write_number(logprob, out)?;
        out.raw(",\"bytes\":[")?;
        for (index, &byte) in vocabulary.tokenizer().token_bytes(token).iter().enumerate() {
            out.comma(index)?;
            out.count(usize::from(byte))?;
        }
        out.raw("]")
    }

    fn write(&mut self, out: &mut Out) -> Result<(), PoolError> {
        if self.list.is_empty() {
            return out.raw("null");
        }
        out.raw("{\"content\":[")?;
        out.push(self.list.bytes())?;
        out.raw("],\"refusal\":null}")?;
        self.list.truncate(0);
        Ok(())
    }
}

/// Four lists, each separated by commas, and the place in the text that the answer has come to.
pub(crate) struct Columns {
    vocabulary: Arc<Vocabulary>,
    detokenizer: Detokenizer,
    /// Characters of the tokens told so far.
    offset: usize,
    tokens: Out,
    token_logprobs: Out,
    top_logprobs: Out,
    text_offset: Out,
}

impl Columns {
    fn push(&mut self, told: Told<'_>) -> Result<(), PoolError> {
        let index = self.tokens.len();
        for list in [
            &mut self.tokens,
            &mut self.token_logprobs,
            &mut self.top_logprobs,
            &mut self.text_offset,
        ] {
            list.comma(index)?;
        }
        write_token(&self.vocabulary, told.token, &mut self.tokens)?;
        match told.logprob {
            None => {
                self.token_logprobs.raw("null")?;
                self.top_logprobs.raw("null")?;
            }
            Some(logprob) => {
                write_number(logprob, &mut self.token_logprobs)?;
                self.push_top(told, logprob)?;
            }
        }
        self.text_offset.count(self.offset)?;
        let text = self
            .detokenizer
            .push(self.vocabulary.tokenizer(), told.token);
        self.offset += text.chars().count();
        Ok(())
    }

    /// The likeliest by their texts, the token itself always among them. Of two tokens with one spelling the
    /// likelier stays.
    fn push_top(&mut self, told: Told<'_>, logprob: f32) -> Result<(), PoolError> {
        let bytes = |token: u32| self.vocabulary.tokenizer().token_bytes(token);
        let all = || told.top.iter().copied().chain([(told.token, logprob)]);
        let out = &mut self.top_logprobs;
        out.raw("{")?;
        let mut written = 0;
        for (index, (token, logprob)) in all().enumerate() {
            let spelled = bytes(token);
            let text = String::from_utf8_lossy(&spelled);
            if all()
                .take(index)
                .any(|(earlier, _)| String::from_utf8_lossy(&bytes(earlier)) == text)
            {
                continue;
            }
            out.comma(written)?;
            out.quoted(&text)?;
            out.raw(":")?;
            write_number(logprob, out)?;
            written += 1;
        }
        out.raw("}")
    }

    fn write(&mut self, out: &mut Out) -> Result<(), PoolError> {
        for (name, list) in [
            ("{\"tokens\":[", &mut self.tokens),
            ("],\"token_logprobs\":[", &mut self.token_logprobs),
            ("],\"top_logprobs\":[", &mut self.top_logprobs),
            ("],\"text_offset\":[", &mut self.text_offset),
        ] {
            out.raw(name)?;
            out.push(list.bytes())?;
            list.truncate(0);
        }
        out.raw("]}")
    }
}
