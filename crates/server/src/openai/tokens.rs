//! `POST /tokenize` and `/detokenize`, with the fields that vLLM gives them.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use bursar_tokenizer::Special;

use super::{chat, logprobs};
use crate::app::{App, Received};
use crate::error::ApiError;
use crate::fields::{Fields, token_ids};
use crate::out::Out;
use crate::{background, body};

/// The tokens of a text or a conversation.
pub(crate) async fn tokenize(
    app: Arc<App>,
    received: Received,
) -> Result<Response<Body>, ApiError> {
    let Received {
        value, mut charge, ..
    } = received;
    let fields = Fields::root(&value)?;
    let lease = app.model_or_only(&fields).await?;
    let served = &*lease;
    let add = fields.boolean("add_special_tokens")?.unwrap_or(true);
    let spell = fields.boolean("return_token_strs")?.unwrap_or(false);
    let tokens = match fields.get("messages") {
        Some(_) => chat::tokens_of(served, &fields, &mut charge).await?,
        None => {
            let text = fields.required_text("prompt")?;
            charge.add(text.len().saturating_mul(1 + size_of::<u32>()))?;
            let vocabulary = Arc::clone(served.vocabulary());
            let owned = text.to_owned();
            let special = Special { add, parse: true };
            let encode = move || Ok(vocabulary.tokenizer().encode(&owned, special));
            background::run(text.len(), &mut charge, encode)
                .await
                .map_err(ApiError::internal)?
        }
    };
    let mut out = Out::new(app.pools.buffers());
    out.raw("{\"count\":")?;
    out.count(tokens.len())?;
    out.raw(",\"max_model_len\":")?;
    out.count(served.engine.longest())?;
    out.raw(",\"tokens\":[")?;
    for (index, &token) in tokens.iter().enumerate() {
        out.comma(index)?;
        out.count(token as usize)?;
    }
    out.raw("],\"token_strs\":")?;
    match spell {
        true => {
            out.raw("[")?;
            for (index, &token) in tokens.iter().enumerate() {
                out.comma(index)?;
                logprobs::write_token(served.vocabulary(), token, &mut out)?;
            }
            out.raw("]}")?;
        }
        false => out.raw("null}")?,
    }
    Ok(body::json(out, charge))
}

/// The text of tokens, special ones included.
pub(crate) async fn detokenize(
    app: Arc<App>,
    received: Received,
) -> Result<Response<Body>, ApiError> {
    let Received {
        value, mut charge, ..
    } = received;
    let fields = Fields::root(&value)?;
    let lease = app.model_or_only(&fields).await?;
    let served = &*lease;
    fields.required("tokens")?;
    let list = fields.list("tokens")?.unwrap_or_default();
    let tokens = token_ids(list, "tokens", served.engine.vocab())?;
    let text = served.vocabulary().tokenizer().decode(&tokens, false);
    charge.add(text.len())?;
    let mut out = Out::new(app.pools.buffers());
    out.raw("{\"prompt\":")?;
    out.quoted(&text)?;
    out.raw("}")?;
    Ok(body::json(out, charge))
}
