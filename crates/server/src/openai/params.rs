//! What chats and completions have in common: sampling, where to stop, how to answer.

use bursar_engine::{GenerateParams, Penalties, SamplingParams, StopRules};

use crate::error::ApiError;
use crate::fields::{self, Fields, wrong};
use crate::random;
use crate::served::Served;

/// Most answers to one prompt.
const N_MAX: usize = 16;
/// Most stop texts, and most bytes of one.
const STOPS_MAX: usize = 16;
const STOP_BYTES_MAX: usize = 1024;
/// Most tokens that can be given a bias.
const BIASES_MAX: usize = 1024;
/// Most alternatives per token whose likelihoods are told.
pub(super) const TOP_LOGPROBS_MAX: usize = 20;

/// The common part of a request.
#[derive(Clone, Debug)]
pub(crate) struct Params {
    /// How tokens are chosen.
    pub(crate) sampling: GenerateParams,
    seed: u64,
    /// Where answers end, but for `max_tokens`.
    pub(crate) stop: StopRules,
    /// Answers per prompt.
    pub(crate) n: usize,
    /// Who goes first when not all can: higher.
    pub(crate) priority: i32,
    /// Whether to answer in events.
    pub(crate) stream: bool,
    /// Whether a stream's last event tells the usage.
    pub(crate) include_usage: bool,
}

impl Params {
    /// Reads them; what is absent is as the model's file says, else as OpenAI's documents do.
    pub(crate) fn read(fields: &Fields<'_>, model: &Served) -> Result<Params, ApiError> {
        let stream = fields.boolean("stream")?.unwrap_or(false);
        let mut include_usage = false;
        if let Some(options) = fields.object("stream_options")? {
            if !stream {
                let what = "is given, but stream is not true";
                return Err(ApiError::invalid("stream_options", what));
            }
            include_usage = options.boolean("include_usage")?.unwrap_or(false);
        }
        let seed = fields.integer("seed", i64::MIN, i64::MAX)?;
        let priority = fields.integer("priority", i32::MIN.into(), i32::MAX.into())?;
        Ok(Params {
            sampling: sampling(fields, model)?,
            seed: seed.map_or_else(random::number, |seed| seed as u64),
            stop: stop(fields, model)?,
            n: fields.count("n", 1, N_MAX)?.unwrap_or(1),
            priority: priority.map_or(0, |priority| priority as i32),
            stream,
            include_usage,
        })
    }

    /// What the random numbers of answer `index` are made from.
    pub(crate) fn seed_of(&self, index: usize) -> u64 {
        self.seed.wrapping_add(index as u64)
    }
}

fn sampling(fields: &Fields<'_>, model: &Served) -> Result<GenerateParams, ApiError> {
    let defaults = &model.defaults;
    let temperature = match defaults.greedy {
        Some(true) => 0.0,
        _ => defaults.temperature.unwrap_or(1.0),
    };
    let single = |given: Option<f64>, otherwise: f32| given.map_or(otherwise, |value| value as f32);
    let top_k = defaults.top_k.map_or(0, |k| k as usize);
    let sampling = SamplingParams {
        temperature: single(fields.number("temperature", 0.0, 2.0)?, temperature),
        top_k: fields
            .count("top_k", 0, i64::MAX as usize)?
            .unwrap_or(top_k),
        top_p: single(
            fields.number_above("top_p", 0.0, 1.0)?,
            defaults.top_p.unwrap_or(1.0),
        ),
        min_p: single(
            fields.number("min_p", 0.0, 1.0)?,
            defaults.min_p.unwrap_or(0.0),
        ),
    };
    let penalties = Penalties {
        presence: single(fields.number("presence_penalty", -2.0, 2.0)?, 0.0),
        frequency: single(fields.number("frequency_penalty", -2.0, 2.0)?, 0.0),
        repetition: single(
            fields.number_above("repetition_penalty", 0.0, 100.0)?,
            defaults.repetition_penalty.unwrap_or(1.0),
        ),
    };
    Ok(GenerateParams {
        sampling,
        penalties,
        logit_bias: logit_bias(fields, model)?,
        min_tokens: fields
            .count("min_tokens", 0, model.engine.longest())?
            .unwrap_or(0),
    })
}

fn logit_bias(fields: &Fields<'_>, model: &Served) -> Result<Vec<(u32, f32)>, ApiError> {
    let Some(biases) = fields.object("logit_bias")? else {
        return Ok(Vec::new());
    };
    let count = biases.map().len();
    if count > BIASES_MAX {
        let what = format!("has {count} entries; it may have {BIASES_MAX}");
        return Err(ApiError::invalid("logit_bias", what));
    }
    let bias = |(name, value): (&String, &serde_json::Value)| {
        let shown: String = name.chars().take(24).collect();
        let place = format!("logit_bias.{shown}");
        let id = name.parse::<u32>().ok();
        let Some(id) = id.filter(|&id| (id as usize) < model.engine.vocab()) else {
            let what = format!("is not named by a token id below {}", model.engine.vocab());
            return Err(ApiError::invalid(place, what));
        };
        let bias = fields::number(value, &place, -100.0, 100.0)?;
        Ok((id, bias as f32))
    };
    biases.map().iter().map(bias).collect()
}

fn stop(fields: &Fields<'_>, model: &Served) -> Result<StopRules, ApiError> {
    let strings = match fields.get("stop") {
        None => Vec::new(),
        Some(serde_json::Value::String(text)) => vec![stop_text(text, "stop")?],
        Some(serde_json::Value::Array(list)) if list.len() > STOPS_MAX => {
            let what = format!("has {} entries; it may have {STOPS_MAX}", list.len());
            return Err(ApiError::invalid("stop", what));
        }
        Some(serde_json::Value::Array(list)) => (0..)
            .zip(list)
            .map(|(index, value): (usize, _)| {
                let place = format!("stop[{index}]");
                match value.as_str() {
                    Some(text) => stop_text(text, &place),
                    None => Err(wrong(&place, value, "a text")),
                }
            })
            .collect::<Result<_, _>>()?,
        Some(other) => return Err(wrong("stop", other, "a text or a list of texts")),
    };
    let tokens = match fields.list("stop_token_ids")? {
        Some(list) => fields::token_ids(list, "stop_token_ids", model.engine.vocab())?,
        None => Vec::new(),
    };
    Ok(StopRules {
        strings,
        tokens,
        max_tokens: None,
        ignore_end: fields.boolean("ignore_eos")?.unwrap_or(false),
    })
}

fn stop_text(text: &str, place: &str) -> Result<String, ApiError> {
    match text.len() {
        0 => Err(ApiError::invalid(place, "is an empty text")),
        1..=STOP_BYTES_MAX => Ok(text.to_owned()),
        len => Err(ApiError::invalid(
            place,
            format!("has {len} bytes; it may have {STOP_BYTES_MAX}"),
        )),
    }
}

/// How many tokens may be generated after a prompt of `prompt` tokens, where `asked` were asked
/// for in the field `name`.
///
/// An answer is never cut shorter than was asked without a word: what cannot fit is refused.
pub(super) fn max_tokens(
    name: &str,
    asked: Option<usize>,
    place: &str,
    prompt: usize,
    context: usize,
) -> Result<usize, ApiError> {
    let left = context.saturating_sub(prompt);
    if left == 0 && asked != Some(0) || prompt > context {
        return Err(ApiError::context_exceeded(
            place,
            format!(
                "has {prompt} tokens; with at least one to generate the context holds {context}; shorten it"
            ),
        ));
    }
    match asked {
        Some(asked) if asked > left => Err(ApiError::context_exceeded(
            name,
            format!(
                "is {asked}, but the prompt's {prompt} tokens leave {left} of the context's \
                 {context}; ask for less or shorten the prompt"
            ),
        )),
        asked => Ok(asked.unwrap_or(left)),
    }
}
