//! `POST /v1/embeddings`: texts or token ids to vectors, as numbers or as base64.

use std::io::Write;
use std::sync::Arc;

use axum::body::Body;
use axum::http::Response;
use bursar_engine::{EmbedEvent, EmbedOptions, EmbedRequest, EngineError, Usage};
use bursar_memory::PoolError;

use super::input::{self, Input};
use crate::answers::failed;
use crate::app::{App, Received};
use crate::background;
use crate::error::ApiError;
use crate::fields::Fields;
use crate::generation::refused;
use crate::out::Out;

/// Most inputs in one request, as OpenAI has it.
const INPUTS_MAX: usize = 2048;
/// Most characters that an f32 takes as a JSON number, its comma included.
const FLOAT_CHARS_MAX: usize = 17;

/// How vectors are written.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Encoding {
    Float,
    Base64,
}

/// Turns inputs into vectors.
pub(crate) async fn answer(app: Arc<App>, received: Received) -> Result<Response<Body>, ApiError> {
    let Received {
        value,
        mut charge,
        in_flight,
        ..
    } = received;
    let fields = Fields::root(&value)?;
    let lease = app.model(&fields).await?;
    let served = &*lease;
    let encoder = served.embeds()?;
    let encodings = [("float", Encoding::Float), ("base64", Encoding::Base64)];
    let encoding = fields.word("encoding_format", &encodings)?;
    let encoding = encoding.unwrap_or(Encoding::Float);
    let dimensions = fields.count("dimensions", 1, encoder.dimensions())?;
    let truncate = fields.boolean("truncate")?.unwrap_or(false);
    let options = EmbedOptions {
        prompt_name: fields.text("prompt_name")?.map(str::to_owned),
        dimensions,
        ..EmbedOptions::default()
    };
    let prefix = encoder
        .check(&options)
        .map_err(|error| ApiError::invalid("prompt_name", format!("is not known: {error}")))?;
    let vocab = served.engine.vocab();
    let inputs = input::read(fields.required("input")?, "input", INPUTS_MAX, vocab)?;
    let many = inputs.len() > 1;

    let longest = encoder.longest();
    let mut tokens = Vec::with_capacity(inputs.len());
    for (index, input) in inputs.into_iter().enumerate() {
        let (mut ids, cut) = match input {
            Input::Ids(ids) => {
                charge.add(size_of_val(ids.as_slice()))?;
                let cut = ids.len() > longest;
                (ids, cut)
            }
            Input::Text(text) => {
                let bytes = prefix.len() + text.len();
                // The text, and its tokens: at worst one per byte.
                charge.add(bytes.saturating_mul(1 + size_of::<u32>()))?;
                let (encoder, text) = (Arc::clone(encoder), text.to_owned());
                let options = options.clone();
                let encode = move || {
                    let (mut tokens, cut) = encoder
                        .encode(&[text], &options)
                        .map_err(|error| error.to_string())?;
                    Ok((tokens.pop().unwrap_or_default(), cut > 0))
                };
                background::run(bytes, &mut charge, encode)
                    .await
                    .map_err(ApiError::internal)?
            }
        };
        let place = match many {
            true => format!("input[{index}]"),
            false => "input".to_owned(),
        };
        if cut && !truncate {
            let what = format!(
                "has more than the {longest} tokens that {} takes; shorten it or set truncate",
                served.id()
            );
            return Err(ApiError::context_exceeded(&place, what));
        }
        if ids.is_empty() {
            return Err(ApiError::invalid(place, "has no tokens"));
        }
        ids.truncate(longest);
        tokens.push(ids);
    }

    let count = tokens.len();
    let keep = dimensions.unwrap_or(encoder.dimensions());
    let item = 64
        + match encoding {
            Encoding::Float => keep * FLOAT_CHARS_MAX,
            Encoding::Base64 => (keep * size_of::<f32>()).div_ceil(3) * 4,
        };
    // The body that the vectors are written into; those are charged by the pool too.
    let out = Out::with_capacity(app.pools.buffers(), count * item + 256)?;
    let request = EmbedRequest {
        tokens,
        dimensions,
        ..EmbedRequest::default()
    };
    let mut stream = served
        .engine
        .embed_in(request, app.pools.buffers())
        .map_err(|rejected| refused(&app, rejected, "input"))?;
    let ended = app.stopper.ended();
    let gather = async {
        loop {
            match stream.recv().await {
                Some(EmbedEvent::Vector { .. }) => {}
                Some(EmbedEvent::Done { usage, vectors }) => return Ok((usage, vectors)),
                Some(EmbedEvent::Failed(error)) => return Err(failed(&error)),
                None => return Err(failed(&EngineError::Stopped)),
            }
        }
    };
    let (usage, vectors) = tokio::select! {
        gathered = gather => gathered?,
        () = ended.wait() => return Err(ApiError::cut_off()),
    };
    let mut values = vectors.iter().flatten();
    if values.any(|value| !value.is_finite()) {
        return Err(ApiError::internal(
            "a vector has values that are no numbers; the model's weights are broken",
        ));
    }
    let out = body(served.id(), vectors.iter(), encoding, usage, out)?;
    served.timings.embedded(in_flight.begun().elapsed(), usage);
    in_flight.trace().answered(served.id(), usage);
    // What waits to be sent is held until it is: the body carries the charge with it.
    Ok(crate::body::json(out, (charge, in_flight.with(lease))))
}

/// The answer, written by hand: as a tree of values it would take ten times its size.
fn body(
    model: &str,
    vectors: impl Iterator<Item = impl AsRef<[f32]>>,
    encoding: Encoding,
    usage: Usage,
    mut out: Out,
) -> Result<Out, PoolError> {
    out.raw("{\"object\":\"list\",\"data\":[")?;
    for (index, vector) in vectors.enumerate() {
        let vector = vector.as_ref();
        out.comma(index)?;
        out.raw("{\"object\":\"embedding\",\"index\":")?;
        out.count(index)?;
        out.raw(",\"embedding\":")?;
        match encoding {
            Encoding::Float => {
                out.raw("[")?;
                for (position, value) in vector.iter().enumerate() {
                    out.comma(position)?;
                    float(*value, &mut out)?;
                }
                out.raw("]")?;
            }
            Encoding::Base64 => {
                out.raw("\"")?;
                let bytes = vector.iter().flat_map(|value| value.to_le_bytes());
                base64(bytes, &mut out)?;
                out.raw("\"")?;
            }
        }
        out.raw("}")?;
    }
    out.raw("],\"model\":")?;
    out.quoted(model)?;
    out.raw(",\"usage\":{\"prompt_tokens\":")?;
    out.count(usage.prompt_tokens)?;
    out.raw(",\"total_tokens\":")?;
    out.count(usage.prompt_tokens)?;
    out.raw("}}")?;
    Ok(out)
}

/// The shortest decimal that reads back as the same value; in exponents, so that its length is bounded.
fn float(value: f32, out: &mut Out) -> Result<(), PoolError> {
    let mut characters = [0; FLOAT_CHARS_MAX];
    let mut left = characters.as_mut_slice();
    let written = match value.abs() {
        0.0 => write!(left, "0.0"),
        1e-4..1e7 => write!(left, "{value:?}"),
        _ => write!(left, "{value:e}"),
    };
    written.expect("so many characters are the most");
    let length = FLOAT_CHARS_MAX - left.len();
    out.push(&characters[..length])
}

/// RFC 4648, with padding.
fn base64(bytes: impl Iterator<Item = u8>, out: &mut Out) -> Result<(), PoolError> {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = bytes.fuse();
    while let Some(first) = bytes.next() {
        let (second, third) = (bytes.next(), bytes.next());
        let word = u32::from(first) << 16
            | u32::from(second.unwrap_or(0)) << 8
            | u32::from(third.unwrap_or(0));
        let letter = |shift: u32| LETTERS[(word >> shift & 63) as usize];
        out.push(&[
            letter(18),
            letter(12),
            second.map_or(b'=', |_| letter(6)),
            third.map_or(b'=', |_| letter(0)),
        ])?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use bursar_memory::{Bytes, Ledger, Pools};
    use serde_json::Value;

    use super::*;

    fn written(write: impl FnOnce(Out) -> Result<Out, PoolError>) -> String {
        let ledger = Ledger::new(Bytes::mib(1));
        let out = Out::new(Pools::off(&ledger.root()).buffers());
        String::from_utf8(write(out).unwrap().bytes().to_vec()).unwrap()
    }

    fn floats(model: &str, vectors: &[Vec<f32>]) -> String {
        written(|out| {
            body(
                model,
                vectors.iter(),
                Encoding::Float,
                Usage::default(),
                out,
            )
        })
    }

    #[test]
    fn base64_as_in_the_rfc() {
        for (plain, want) in [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("\u{3ff}?>", "z78/Pg=="),
        ] {
            let found = written(|mut out| base64(plain.bytes(), &mut out).map(|()| out));
            assert_eq!(found, want);
        }
    }

    #[test]
    fn bodies_are_json_and_as_long_as_was_charged() {
        let extremes = [
            0.0,
            -0.0,
            1.0,
            -1.0e-7,
            f32::MIN_POSITIVE,
            -f32::MAX,
            0.123_456_79,
            -1.234_567_8e-38,
            1e-45,
            -9_999_999.0,
            -0.000_123_456_79,
        ];
        let vectors = [extremes.to_vec(), extremes.to_vec()];
        let text = floats("a\"b", &vectors);
        let value: Value = serde_json::from_str(&text).unwrap();
        let back: Vec<f32> = value["data"][1]["embedding"]
            .as_array()
            .unwrap()
            .iter()
            .map(|value| value.as_f64().unwrap() as f32)
            .collect();
        assert_eq!(back, extremes);
        for value in extremes {
            let text = floats("", &[vec![value]]);
            let none = floats("", &[Vec::new()]);
            assert!(text.len() - none.len() < FLOAT_CHARS_MAX, "{text}");
        }
        assert_eq!(value["model"], "a\"b");
    }
}
