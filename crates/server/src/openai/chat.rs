//! `POST /v1/chat/completions`.

use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use bursar_engine::Vocabulary;
use bursar_tokenizer::Special;
use bursar_tokenizer::chat::{ChatError, ChatInput};
use serde_json::{Map, Value};

use super::logprobs::Likelihoods;
use super::params::{Params, TOP_LOGPROBS_MAX, max_tokens};
use crate::answers::Answers;
use crate::app::{App, Received};
use crate::error::ApiError;
use crate::fields::{Fields, quoted, wrong};
use crate::form::{self, Aside, Form};
use crate::generation::{Prompt, submit};
use crate::served::Served;
use crate::{background, generation};

/// Who may speak, and as whom templates know them.
const ROLES: [(&str, &str); 6] = [
    ("system", "system"),
    ("developer", "system"),
    ("user", "user"),
    ("assistant", "assistant"),
    ("tool", "tool"),
    ("function", "function"),
];

/// Answers a conversation.
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
    let context = served.engine.longest();
    let params = Params::read(&fields, served)?;
    let told = logprobs_asked(&fields)?;
    let (limit_name, limit) = limit(&fields, context)?;
    refuse_unsupported(&fields)?;
    let tokens = tokens_of(served, &fields, &mut charge).await?;
    let longest = max_tokens(limit_name, limit, "messages", tokens.len(), context)?;
    check_min_tokens(&params, longest)?;
    let prompts = vec![Prompt {
        tokens,
        place: "messages".to_owned(),
        max_tokens: longest,
    }];
    generation::charge(&prompts, &mut charge)?;
    let streams = submit(&app, served, tenant, prompts, &params, told, false)?;
    let aside = || Aside {
        echo: None,
        likelihoods: match told {
            Some(_) => Likelihoods::entries(served.vocabulary(), app.pools.buffers()),
            None => Likelihoods::Untold,
        },
    };
    let asides = streams.iter().map(|_| aside()).collect();
    let form = Form::new(
        &form::CHAT,
        app.pools.buffers(),
        served.id(),
        params.stream,
        params.include_usage,
        asides,
    )?;
    let answers = Answers::new(streams, params.n, charge, in_flight.with(lease));
    let ended = app.stopper.ended();
    if params.stream {
        return answers.stream(form, params.include_usage, ended);
    }
    answers.collect(form, ended).await
}

/// `min_tokens` that the answer has no room for would be broken silently.
pub(super) fn check_min_tokens(params: &Params, longest: usize) -> Result<(), ApiError> {
    let least = params.sampling.min_tokens;
    match least > longest {
        true => Err(ApiError::invalid(
            "min_tokens",
            format!("is {least}, more than the {longest} tokens that the answer may have"),
        )),
        false => Ok(()),
    }
}

/// The tokens of a conversation in the model's own form.
pub(crate) async fn tokens_of(
    served: &Served,
    fields: &Fields<'_>,
    charge: &mut crate::charge::Charge,
) -> Result<Vec<u32>, ApiError> {
    let why = match served.vocabulary().template() {
        Ok(Some(_)) => None,
        Ok(None) => Some("its file has no chat template".to_owned()),
        Err(error) => Some(format!("the chat template in its file is broken: {error}")),
    };
    if let Some(why) = why {
        let id = served.id();
        let what = format!("cannot be put into {id}'s form: {why}; ask /v1/completions");
        return Err(ApiError::invalid("messages", what));
    }
    let (messages, bytes) = messages(fields)?;
    let extra = fields.object("chat_template_kwargs")?;
    let extra = extra.map(|extra| extra.map().clone());
    // The messages, their rendering and its tokens, at worst one per byte.
    charge.add(bytes.saturating_mul(2 + size_of::<u32>()))?;
    let vocabulary = Arc::clone(served.vocabulary());
    let render = move || render(&vocabulary, &messages, extra.as_ref());
    background::run(bytes, charge, render)
        .await
        .map_err(|error| ApiError::invalid("messages", error))
}

fn render(
    vocabulary: &Vocabulary,
    messages: &[Value],
    extra: Option<&Map<String, Value>>,
) -> Result<Vec<u32>, String> {
    let Ok(Some(template)) = vocabulary.template() else {
        return Err("cannot be rendered: there is no chat template".to_owned());
    };
    let input = ChatInput {
        extra,
        ..ChatInput::new(messages)
    };
    let text = template.render(&input).map_err(|error| match error {
        ChatError::Refused(why) => format!("are refused by the model's chat template: {why}"),
        other => format!("do not go through the model's chat template: {other}"),
    })?;
    // The template has written the special tokens, the first one included.
    let special = Special {
        add: false,
        parse: true,
    };
    Ok(vocabulary.tokenizer().encode(&text, special))
}

/// The messages as templates read them, and the bytes of their texts.
fn messages(fields: &Fields<'_>) -> Result<(Vec<Value>, usize), ApiError> {
    fields.required("messages")?;
    let list = fields.list("messages")?.unwrap_or_default();
    if list.is_empty() {
        return Err(ApiError::invalid("messages", "is empty; give at least one"));
    }
    let mut bytes = 0;
    let mut messages = Vec::with_capacity(list.len());
    for (index, value) in list.iter().enumerate() {
        let message = Fields::of(value, format!("messages[{index}]"))?;
        message.required("role")?;
        let role = message.word("role", &ROLES)?.unwrap_or("user");
        let content = content(&message, role)?;
        bytes += content.as_ref().map_or(0, String::len) + 64;
        let mut out = Map::new();
        out.insert("role".into(), role.into());
        out.insert("content".into(), content.into());
        for name in ["name", "tool_call_id", "reasoning_content"] {
            if let Some(text) = message.text(name)? {
                bytes += text.len();
                out.insert(name.into(), text.into());
            }
        }
        if let Some(calls) = message.list("tool_calls")? {
            out.insert("tool_calls".into(), calls.to_vec().into());
        }
        messages.push(Value::Object(out));
    }
    Ok((messages, bytes))
}

/// A message's text, of several parts perhaps.
fn content(message: &Fields<'_>, role: &str) -> Result<Option<String>, ApiError> {
    let place = message.place("content");
    match message.get("content") {
        Some(Value::String(text)) => Ok(Some(text.clone())),
        Some(Value::Array(parts)) => {
            let mut text = String::new();
            for (index, part) in parts.iter().enumerate() {
                let part = Fields::of(part, format!("{place}[{index}]"))?;
                match part.required_text("type")? {
                    "text" => text.push_str(part.required_text("text")?),
                    other => {
                        let what = format!("is {}; only text is understood here", quoted(other));
                        return Err(ApiError::invalid(part.place("type"), what));
                    }
                }
            }
            match parts.is_empty() {
                true => Err(ApiError::invalid(place, "is empty; give a text")),
                false => Ok(Some(text)),
            }
        }
        Some(other) => Err(wrong(&place, other, "a text or a list of parts")),
        // Of a message that is nothing but calls.
        None if role == "assistant" && message.get("tool_calls").is_some() => Ok(None),
        None => Err(ApiError::invalid(place, "is missing").code("missing_required_parameter")),
    }
}

/// Most tokens to generate, and the field that says so.
fn limit(fields: &Fields<'_>, context: usize) -> Result<(&'static str, Option<usize>), ApiError> {
    // What is beyond any count is refused here, what is beyond the context with its figures later.
    let most = context.max(1 << 24);
    let old = fields.count("max_tokens", 1, most)?;
    let new = fields.count("max_completion_tokens", 1, most)?;
    Ok(match new {
        Some(_) => ("max_completion_tokens", new),
        None => ("max_tokens", old),
    })
}

/// How many likely tokens to tell beside each token, if any.
fn logprobs_asked(fields: &Fields<'_>) -> Result<Option<u8>, ApiError> {
    let asked = fields.boolean("logprobs")?.unwrap_or(false);
    let top = fields.count("top_logprobs", 0, TOP_LOGPROBS_MAX)?;
    match (asked, top) {
        (false, Some(1..)) => Err(ApiError::invalid(
            "top_logprobs",
            "is given, but logprobs is not true",
        )),
        (false, _) => Ok(None),
        (true, top) => Ok(Some(top.unwrap_or(0) as u8)),
    }
}

/// What would change the answer and is not done here is refused, not ignored.
fn refuse_unsupported(fields: &Fields<'_>) -> Result<(), ApiError> {
    let none = fields.get("tool_choice").and_then(Value::as_str) == Some("none");
    for name in ["tools", "functions"] {
        if fields.list(name)?.is_some_and(|list| !list.is_empty()) && !none {
            return Err(ApiError::invalid(name, "is not supported here yet"));
        }
    }
    if let Some(format) = fields.object("response_format")? {
        let kind = format.required_text("type")?;
        if kind != "text" {
            let what = format!("is {}; only text is supported here yet", quoted(kind));
            return Err(ApiError::invalid(format.place("type"), what));
        }
    }
    if let Some(modalities) = fields.list("modalities")?
        && modalities.iter().any(|value| value != "text")
    {
        let what = "asks for more than text, which is all that is made here";
        return Err(ApiError::invalid("modalities", what));
    }
    Ok(())
}
