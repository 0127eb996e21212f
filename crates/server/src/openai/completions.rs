//! `POST /v1/completions`: texts or token ids to be continued, and with `echo` and `logprobs` the
//! likelihood of every token of them.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use bursar_engine::Vocabulary;
use bursar_tokenizer::Special;
use serde_json::Value;

use super::chat::check_min_tokens;
use super::input::{self, Input};
use super::logprobs::Likelihoods;
use super::params::{Params, TOP_LOGPROBS_MAX, max_tokens};
use crate::answers::Answers;
use crate::app::{App, Received};
use crate::error::ApiError;
use crate::fields::Fields;
use crate::form::{self, Aside, Form};
use crate::generation::{Prompt, submit};
use crate::{background, generation};

/// Most prompts in one request, and most answers to all of them.
const PROMPTS_MAX: usize = 64;
/// Most tokens to generate where nothing is said, as OpenAI's documents have it.
const MAX_TOKENS: usize = 16;

/// Continues prompts.
pub(crate) async fn answer(app: Arc<App>, received: Received) -> Result<Response<Body>, ApiError> {
    let Received {
        value,
        mut charge,
        in_flight,
        tenant,
    } = received;
    let fields = Fields::root(&value)?;
    let lease = app.model(&fields).await?;
    let served = &*lease;
    served.generates()?;
    let (context, vocab) = (served.engine.longest(), served.engine.vocab());
    let params = Params::read(&fields, served)?;
    refuse_unsupported(&fields, params.n)?;
    let echo = fields.boolean("echo")?.unwrap_or(false);
    let told = fields.count("logprobs", 0, TOP_LOGPROBS_MAX)?;
    let told = told.map(|count| count as u8);
    let most = context.max(1 << 24);
    let limit = fields.count("max_tokens", usize::from(!echo), most)?;
    let inputs = input::read(fields.required("prompt")?, "prompt", PROMPTS_MAX, vocab)?;
    if inputs.len() * params.n > PROMPTS_MAX {
        let what = format!(
            "is {}, which makes more than {PROMPTS_MAX} answers to {} prompts",
            params.n,
            inputs.len()
        );
        return Err(ApiError::invalid("n", what));
    }
    let mut prompts = Vec::with_capacity(inputs.len());
    let mut echoes = Vec::with_capacity(inputs.len());
    let many = matches!(fields.get("prompt"), Some(Value::Array(_))) && inputs.len() > 1;
    for (index, input) in inputs.into_iter().enumerate() {
        let (text, tokens) = match input {
            Input::Ids(tokens) => {
                let text = echo.then(|| served.vocabulary().tokenizer().decode(&tokens, true));
                (text, tokens)
            }
            Input::Text(text) => {
                // The text, and its tokens: at worst one per byte.
                charge.add(text.len().saturating_mul(1 + size_of::<u32>()))?;
                let vocabulary = Arc::clone(served.vocabulary());
                let owned = text.to_owned();
                let encode = move || Ok(encode(&vocabulary, &owned));
                let tokens = background::run(text.len(), &mut charge, encode).await;
                let tokens = tokens.map_err(ApiError::internal)?;
                (echo.then(|| text.to_owned()), tokens)
            }
        };
        let place = match many {
            true => format!("prompt[{index}]"),
            false => "prompt".to_owned(),
        };
        if tokens.is_empty() {
            return Err(ApiError::invalid(place, "has no tokens"));
        }
        let left = context.saturating_sub(tokens.len());
        // A limit that was not asked for gives way to the context.
        let asked = limit.or((left > 0).then(|| MAX_TOKENS.min(left)));
        let longest = max_tokens("max_tokens", asked, &place, tokens.len(), context)?;
        check_min_tokens(&params, longest)?;
        echoes.push(text.unwrap_or_default());
        prompts.push(Prompt {
            tokens,
            place,
            max_tokens: longest,
        });
    }
    generation::charge(&prompts, &mut charge)?;
    let streams = submit(
        &app,
        served,
        tenant,
        prompts,
        &params,
        told,
        echo && told.is_some(),
    )?;
    let aside = |choice: usize| Aside {
        echo: Some(echoes[choice / params.n].clone()).filter(|echo| !echo.is_empty()),
        likelihoods: match told {
            Some(_) => Likelihoods::columns(served.vocabulary(), app.pools.buffers()),
            None => Likelihoods::Untold,
        },
    };
    let form = Form::new(
        &form::COMPLETION,
        app.pools.buffers(),
        served.id(),
        params.stream,
        params.include_usage,
        (0..streams.len()).map(aside).collect(),
    )?;
    let answers = Answers::new(streams, params.n, charge, in_flight.with(lease));
    let ended = app.stopper.ended();
    if params.stream {
        return answers.stream(form, params.include_usage, ended);
    }
    answers.collect(form, ended).await
}

fn encode(vocabulary: &Vocabulary, text: &str) -> Vec<u32> {
    let special = Special {
        add: true,
        parse: true,
    };
    vocabulary.tokenizer().encode(text, special)
}

/// What would change the answer and is not done here is refused, not ignored.
fn refuse_unsupported(fields: &Fields<'_>, n: usize) -> Result<(), ApiError> {
    if fields
        .text("suffix")?
        .is_some_and(|suffix| !suffix.is_empty())
    {
        return Err(ApiError::invalid("suffix", "is not supported here"));
    }
    if let Some(best_of) = fields.count("best_of", 1, 128)?
        && best_of != n
    {
        let what = format!("is {best_of}; only as many as n ({n}) are supported here");
        return Err(ApiError::invalid("best_of", what));
    }
    if let Some(format) = fields.object("response_format")?
        && format.required_text("type")? != "text"
    {
        let what = "must be text; nothing else is supported here yet";
        return Err(ApiError::invalid(format.place("type"), what));
    }
    Ok(())
}
