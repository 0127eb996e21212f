//! From a request that has been understood to the engine's streams.

use std::sync::Arc;

use bursar_engine::{EngineError, GenerateRequest, Rejected, TokenStream};

use crate::app::App;
use crate::charge::Charge;
use crate::error::ApiError;
use crate::openai::Params;
use crate::served::Served;
use crate::tenants::Tenant;

/// A prompt to be continued.
#[derive(Debug)]
pub(crate) struct Prompt {
    /// Its tokens.
    pub(crate) tokens: Vec<u32>,
    /// The field that it came in.
    pub(crate) place: String,
    /// Most tokens to generate after it.
    pub(crate) max_tokens: usize,
}

/// Charges what the tokens of the prompts take until the engine has them, one copy on its way included;
/// what it makes of them is its pools' to charge.
pub(crate) fn charge(prompts: &[Prompt], charge: &mut Charge) -> Result<(), ApiError> {
    for prompt in prompts {
        charge.add(prompt.tokens.len().saturating_mul(2 * size_of::<u32>()))?;
    }
    Ok(())
}

/// Hands every prompt to the engine, `n` times each; gives the streams in the order of the choices.
///
/// Where the engine refuses one, those already taken are cancelled.
pub(crate) fn submit(
    app: &App,
    served: &Served,
    tenant: Tenant,
    prompts: Vec<Prompt>,
    params: &Params,
    logprobs: Option<u8>,
    echo_logprobs: bool,
) -> Result<Vec<TokenStream>, ApiError> {
    let mut streams = Vec::with_capacity(prompts.len() * params.n);
    let shared = app.params.intern(&params.sampling);
    for prompt in prompts {
        for index in 0..params.n {
            let request = GenerateRequest {
                prompt: prompt.tokens.clone(),
                params: Arc::clone(&shared),
                seed: params.seed_of(index),
                stop: params.stop.clone(),
                max_tokens: Some(prompt.max_tokens),
                logprobs,
                // The prompt's own likelihoods are the same for each of its answers.
                echo_logprobs,
                priority: params.priority,
                salt: Some(tenant.salt),
                account: Some(app.account.clone()),
            };
            let stream = served.engine.submit(request);
            streams.push(stream.map_err(|rejected| refused(app, rejected, &prompt.place))?);
        }
    }
    Ok(streams)
}

/// What it means to a client that an engine did not take its request; `place` is the field of the
/// prompt or the texts.
pub(crate) fn refused(app: &App, rejected: Rejected, place: &str) -> ApiError {
    let message = rejected.to_string();
    match rejected {
        Rejected::Draining => ApiError::draining(),
        Rejected::QueueFull {
            retry_after_ms,
            asked,
            free,
            ..
        } => ApiError::queue_full(message, retry_after_ms, &app.ledger, asked, free),
        Rejected::NoMemory(error) => error.into(),
        Rejected::Never(error) => never(&error, place),
    }
}

fn never(error: &EngineError, place: &str) -> ApiError {
    if let Some(refusal) = error.refusal() {
        return ApiError::memory(refusal.clone());
    }
    let exceeded = |place: &str| ApiError::context_exceeded(place, format!("is too long: {error}"));
    match error {
        EngineError::PromptTooLong { .. } => exceeded(place),
        EngineError::RequestTooLong { .. } => exceeded("max_tokens"),
        EngineError::TextTooLong { index, .. } => exceeded(&format!("{place}[{index}]")),
        EngineError::Sampling(wrong) => {
            ApiError::invalid(wrong.name.replace('-', "_"), format!("is wrong: {error}"))
        }
        EngineError::Setting { name, .. } => ApiError::invalid(*name, format!("is wrong: {error}")),
        EngineError::Purpose { .. } => ApiError::invalid("model", format!("is wrong: {error}")),
        EngineError::PromptName { .. } => {
            ApiError::invalid("prompt_name", format!("is wrong: {error}"))
        }
        EngineError::PromptEmpty | EngineError::TokenUnknown { .. } => {
            ApiError::invalid(place, format!("is wrong: {error}"))
        }
        EngineError::Stopped => ApiError::cut_off(),
        other => ApiError::internal(other),
    }
}
