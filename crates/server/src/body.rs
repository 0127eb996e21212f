//! Request bodies: reserved before they are read, read within a time and a size, and understood.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::{HeaderMap, HeaderValue, Response, header};
use bursar_memory::{BufferPool, Lifetime};
use futures_core::Stream;
use serde_json::Value;

use crate::charge::Charge;
use crate::error::ApiError;
use crate::json;
use crate::limits::Limits;
use crate::out::Out;

/// Of a body that is refused for its size, so much is still read and thrown away, for so long:
/// a client that is cut off while it writes never reads the answer.
const DISCARD_FACTOR: usize = 16;
const DISCARD_TIME: Duration = Duration::from_secs(5);
/// Bytes that there is room for at first where nobody says how many will come.
const FIRST_BYTES: usize = 4 << 10;

/// Reads a body as JSON. Its bytes lie in a buffer of `pool` until they are understood; what is made of them is
/// charged to `charge`.
pub(crate) async fn read(
    headers: &HeaderMap,
    body: Body,
    limits: &Limits,
    pool: &BufferPool,
    charge: &mut Charge,
) -> Result<Value, ApiError> {
    require_json(headers)?;
    let length = headers.get(header::CONTENT_LENGTH);
    let length = length.and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let mut chunks = Box::pin(body.into_data_stream());
    if length.is_some_and(|length| length > limits.body) {
        // Who waits for a word before writing is spared the writing.
        if !headers.contains_key(header::EXPECT) {
            discard(&mut chunks, limits).await;
        }
        return Err(ApiError::body_too_large(limits.body));
    }
    // All of it is there before the first byte is read, where it is known how much that is.
    let mut bytes = pool.acquire_empty(length.unwrap_or(FIRST_BYTES), Lifetime::Episodic)?;
    loop {
        let next = poll_fn(|context| chunks.as_mut().poll_next(context));
        let chunk = match tokio::time::timeout(limits.body_time, next).await {
            Err(_) => return Err(ApiError::body_timeout()),
            Ok(None) => break,
            Ok(Some(Err(error))) => {
                return Err(ApiError::invalid("", format!("could not be read: {error}")));
            }
            Ok(Some(Ok(chunk))) => chunk,
        };
        if bytes.len() + chunk.len() > limits.body {
            drop(bytes);
            discard(&mut chunks, limits).await;
            return Err(ApiError::body_too_large(limits.body));
        }
        bytes.extend_from_slice(&chunk)?;
    }
    Ok(json::parse(&bytes, limits.json_depth, charge)?)
}

async fn discard<E>(chunks: &mut Pin<Box<impl Stream<Item = Result<Bytes, E>>>>, limits: &Limits) {
    let most = limits.body.saturating_mul(DISCARD_FACTOR);
    let read = async {
        let mut read = 0;
        while read < most
            && let Some(Ok(chunk)) = poll_fn(|context| chunks.as_mut().poll_next(context)).await
        {
            read += chunk.len();
        }
    };
    let _ = tokio::time::timeout(DISCARD_TIME, read).await;
}

/// A page from elsewhere can have a browser send anything that needs no permission; JSON that is
/// called so does.
fn require_json(headers: &HeaderMap) -> Result<(), ApiError> {
    let value = headers.get(header::CONTENT_TYPE);
    let text = value.and_then(|value| value.to_str().ok()).unwrap_or("");
    let kind = text.split(';').next().unwrap_or("").trim();
    match kind.eq_ignore_ascii_case("application/json") {
        true => Ok(()),
        false => Err(ApiError::media_type()),
    }
}

/// A JSON answer that holds its charge, and whatever else, until it has been handed over.
pub(crate) fn json(out: Out, held: impl Send + Unpin + 'static) -> Response<Body> {
    let mut response = Response::new(Body::from_stream(Holding {
        text: Some(out.into_bytes()),
        _held: held,
    }));
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}

struct Holding<H> {
    text: Option<Bytes>,
    _held: H,
}

impl<H: Unpin> Stream for Holding<H> {
    type Item = Result<Bytes, std::convert::Infallible>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        Poll::Ready(self.get_mut().text.take().map(Ok))
    }
}
