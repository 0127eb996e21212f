//! Likelihoods in the two shapes that OpenAI's API has for them.

use bursar_engine::Vocabulary;
use serde_json::{Map, Value, json};

use crate::answers::Told;

/// What JSON has for a likelihood of nothing.
const LOWEST: f32 = -9999.0;

fn number(logprob: f32) -> f32 {
    match logprob.is_finite() {
        true => logprob.max(LOWEST),
        false => LOWEST,
    }
}

/// A token as text; bytes that are half a character become U+FFFD.
pub(super) fn token_text(vocabulary: &Vocabulary, token: u32) -> String {
    String::from_utf8_lossy(&vocabulary.tokenizer().token_bytes(token)).into_owned()
}

/// As chats tell them: an entry for each token.
pub(super) fn of_chat(vocabulary: &Vocabulary, tokens: &[Told]) -> Value {
    let entry = |token: u32, logprob: f32| {
        let bytes = vocabulary.tokenizer().token_bytes(token);
        let mut entry = Map::new();
        entry.insert(
            "token".into(),
            String::from_utf8_lossy(&bytes).into_owned().into(),
        );
        entry.insert("logprob".into(), number(logprob).into());
        entry.insert("bytes".into(), bytes.to_vec().into());
        entry
    };
    let content: Vec<Value> = tokens
        .iter()
        .map(|told| {
            let top = told.top.iter().map(|&(token, p)| entry(token, p).into());
            let top: Vec<Value> = top.collect();
            let mut entry = entry(told.token, told.logprob.unwrap_or(f32::NEG_INFINITY));
            entry.insert("top_logprobs".into(), top.into());
            Value::Object(entry)
        })
        .collect();
    json!({ "content": content, "refusal": null })
}

/// As completions tell them: four lists of one length, and places in the text.
#[derive(Debug, Default)]
pub(super) struct Columns {
    tokens: Vec<Value>,
    token_logprobs: Vec<Value>,
    top_logprobs: Vec<Value>,
    text_offset: Vec<Value>,
}

impl Columns {
    /// Adds a token that begins at character `offset` of the answer's text.
    pub(super) fn push(&mut self, vocabulary: &Vocabulary, told: &Told, offset: usize) {
        self.tokens.push(token_text(vocabulary, told.token).into());
        self.token_logprobs
            .push(told.logprob.map_or(Value::Null, |p| number(p).into()));
        let top = match told.logprob {
            None => Value::Null,
            Some(logprob) => {
                let mut top = Map::new();
                for &(token, p) in &told.top {
                    // Of two tokens with one spelling the likelier stays.
                    top.entry(token_text(vocabulary, token))
                        .or_insert(number(p).into());
                }
                // The token itself is always among them.
                top.entry(token_text(vocabulary, told.token))
                    .or_insert(number(logprob).into());
                Value::Object(top)
            }
        };
        self.top_logprobs.push(top);
        self.text_offset.push(offset.into());
    }

    pub(super) fn into_value(self) -> Value {
        let Columns {
            tokens,
            token_logprobs,
            top_logprobs,
            text_offset,
        } = self;
        json!({
            "tokens": tokens,
            "token_logprobs": token_logprobs,
            "top_logprobs": top_logprobs,
            "text_offset": text_offset,
        })
    }
}
