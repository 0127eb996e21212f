//! Errors as clients get them: OpenAI's shape, a status that says who can do something about it,
//! and of memory the figures.

use std::fmt;

use axum::body::Body;
use axum::http::{HeaderValue, Response, StatusCode, header};
use axum::response::IntoResponse;
use bursar_memory::{Bytes, Ledger, PoolError, Refusal, Verdict};
use serde_json::{Value, json};

use crate::json::JsonError;

/// An error that a client gets to see.
#[derive(Debug)]
pub struct ApiError(Box<Content>);

#[derive(Debug)]
struct Content {
    status: StatusCode,
    kind: &'static str,
    message: String,
    param: Option<String>,
    code: Option<&'static str>,
    /// Seconds after which it may work.
    retry_after: Option<u64>,
    /// Who holds what, where memory is the matter.
    memory: Option<Value>,
}

/// What an error's answer carries beside its bytes, for who counts errors.
#[derive(Copy, Clone, Debug)]
pub(crate) struct ErrorCode(pub(crate) Option<&'static str>);

/// Seconds after which to try again where nothing better is known.
const RETRY_SECONDS: u64 = 1;
/// Seconds after which the level of memory may have fallen: some looks of the monitor.
const PRESSED_SECONDS: u64 = 5;

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, message: impl Into<String>) -> ApiError {
        ApiError(Box::new(Content {
            status,
            kind,
            message: message.into(),
            param: None,
            code: None,
            retry_after: None,
            memory: None,
        }))
    }

    /// The client's fault.
    fn request(status: StatusCode, message: impl Into<String>) -> ApiError {
        ApiError::new(status, "invalid_request_error", message)
    }

    fn with(mut self, change: impl FnOnce(&mut Content)) -> ApiError {
        change(&mut self.0);
        self
    }

    pub(crate) fn code(self, code: &'static str) -> ApiError {
        self.with(|content| content.code = Some(code))
    }

    fn retry_after(self, seconds: u64) -> ApiError {
        self.with(|content| content.retry_after = Some(seconds))
    }

    /// 400: `param` is not as it must be; the whole body, if it has no name.
    pub(crate) fn invalid(param: impl Into<String>, what: impl fmt::Display) -> ApiError {
        let param = param.into();
        let body = match param.as_bytes().first() {
            None | Some(b'[') => "body",
            Some(_) => "",
        };
        let message = format!("{body}{param} {what}");
        ApiError::request(StatusCode::BAD_REQUEST, message)
            .with(|content| content.param = (!param.is_empty()).then_some(param))
    }

    /// 400: what is asked for can never fit the context.
    pub(crate) fn context_exceeded(param: &str, what: impl fmt::Display) -> ApiError {
        ApiError::invalid(param, what).code("context_length_exceeded")
    }

    /// 404: no such model.
    pub(crate) fn model_not_found(asked: &str, served: &str) -> ApiError {
        let asked: String = asked.chars().take(100).collect();
        let what = format!("{asked:?} is not served here; there is {served}");
        ApiError::invalid("model", what)
            .code("model_not_found")
            .with(|content| content.status = StatusCode::NOT_FOUND)
    }

    /// 404: no such address.
    pub(crate) fn unknown_path(path: &str) -> ApiError {
        let path: String = path.chars().take(100).collect();
        let message = format!(
            "there is nothing at {path}; OpenAI's addresses begin with /v1, and /health, /ready, /memory \
             and /metrics tell of the server"
        );
        ApiError::request(StatusCode::NOT_FOUND, message).code("not_found")
    }

    /// 405: an address that wants another method; which, says the header `Allow`.
    pub(crate) fn method() -> ApiError {
        let message = "this address takes another method: the header Allow says which";
        ApiError::request(StatusCode::METHOD_NOT_ALLOWED, message)
    }

    /// 401: no key, or a wrong one.
    pub(crate) fn unauthorized(message: &str) -> ApiError {
        ApiError::new(StatusCode::UNAUTHORIZED, "authentication_error", message)
            .code("invalid_api_key")
    }

    /// 408: the body did not come.
    pub(crate) fn body_timeout() -> ApiError {
        ApiError::request(StatusCode::REQUEST_TIMEOUT, "body did not arrive in time")
    }

    /// 413: more bytes than are ever read.
    pub(crate) fn body_too_large(limit: usize) -> ApiError {
        let message = format!("body is larger than the limit of {limit} bytes; send less at once");
        ApiError::request(StatusCode::PAYLOAD_TOO_LARGE, message).code("body_too_large")
    }

    /// 415: not said to be JSON.
    pub(crate) fn media_type() -> ApiError {
        let message = "body must be JSON and be called so: Content-Type: application/json";
        ApiError::request(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
    }

    /// 429: not now.
    fn not_now(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", message)
    }

    /// 429 if it can fit later, 400 if never: the budget does not hold it.
    pub(crate) fn memory(refusal: Refusal) -> ApiError {
        let holders = refusal.holders.iter();
        let holders = holders.map(|holder| (holder.name.as_str(), holder.bytes));
        let figures = figures(refusal.asked, refusal.free, refusal.budget, holders);
        let error = match refusal.verdict {
            Verdict::NotNow => ApiError::not_now(refusal.to_string())
                .code("memory_full")
                .retry_after(RETRY_SECONDS),
            Verdict::Never => {
                ApiError::invalid("", format!("does not fit: {refusal}")).code("request_too_large")
            }
        };
        error.with(|content| content.memory = Some(figures))
    }

    /// 429: enough others wait already, for `free` bytes of keys and values of which the request
    /// would have taken `asked` at first.
    pub(crate) fn queue_full(
        message: impl Into<String>,
        retry_ms: u64,
        ledger: &Ledger,
        asked: Bytes,
        free: Bytes,
    ) -> ApiError {
        ApiError::not_now(message)
            .code("queue_full")
            .retry_after(retry_ms.div_ceil(1000).max(1))
            .with(|content| content.memory = Some(held(ledger, asked, free)))
    }

    /// 429: memory is short around the process, whatever the budget has left; `asked` are the bytes of
    /// the request itself.
    pub(crate) fn pressed(message: impl Into<String>, ledger: &Ledger, asked: Bytes) -> ApiError {
        ApiError::not_now(message)
            .code("memory_pressure")
            .retry_after(PRESSED_SECONDS)
            .with(|content| content.memory = Some(held(ledger, asked, ledger.free())))
    }

    /// 429: no room for a model of `asked` bytes, of which `free` are or could be made free.
    pub(crate) fn memory_full(
        message: impl Into<String>,
        seconds: u64,
        ledger: &Ledger,
        asked: Bytes,
        free: Bytes,
    ) -> ApiError {
        ApiError::not_now(message)
            .code("memory_full")
            .retry_after(seconds)
            .with(|content| content.memory = Some(held(ledger, asked, free)))
    }

    /// 400: a model of `asked` bytes never fits the `most` that models may take.
    pub(crate) fn model_too_large(
        model: &str,
        why: impl fmt::Display,
        ledger: &Ledger,
        asked: Bytes,
        most: Bytes,
    ) -> ApiError {
        ApiError::invalid("model", format!("{model} is too large: {why}"))
            .code("model_too_large")
            .with(|content| content.memory = Some(held(ledger, asked, most)))
    }

    /// 503: the model could not be loaded a short time ago.
    pub(crate) fn model_failed(message: impl Into<String>, seconds: u64) -> ApiError {
        ApiError::unavailable(message)
            .code("model_failed")
            .retry_after(seconds)
    }

    /// 409: not while it is in use.
    pub(crate) fn busy(why: impl fmt::Display) -> ApiError {
        ApiError::request(StatusCode::CONFLICT, why.to_string())
            .code("model_busy")
            .retry_after(RETRY_SECONDS)
    }

    /// 503: not this server.
    fn unavailable(message: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", message)
            .code("draining")
            .retry_after(RETRY_SECONDS)
    }

    /// 429: as many watch as may.
    pub(crate) fn watched(most: usize) -> ApiError {
        let message = format!(
            "{most} watch this server already, as many as may; close a page that does, or ask GET /memory"
        );
        ApiError::not_now(message)
            .code("watchers_full")
            .retry_after(RETRY_SECONDS)
    }

    /// 503: the model is not there yet.
    pub(crate) fn loading(model: &str, seconds: u64) -> ApiError {
        ApiError::unavailable(format!("{model} is being loaded; try again in {seconds} s"))
            .code("model_loading")
            .retry_after(seconds)
    }

    /// 503: the server is going away.
    pub(crate) fn draining() -> ApiError {
        ApiError::unavailable("the server is shutting down and takes no new requests")
    }

    /// 503: the server went away before this was done.
    pub(crate) fn cut_off() -> ApiError {
        ApiError::unavailable("the server shut down before this request was done")
    }

    /// 500: our fault.
    pub(crate) fn internal(message: impl fmt::Display) -> ApiError {
        let message = message.to_string();
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", message)
    }

    /// The status that it is answered with.
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The body, as it is also sent within a stream that has begun.
    pub(crate) fn body(&self) -> Value {
        let content = &*self.0;
        let mut error = json!({
            "message": content.message,
            "type": content.kind,
            "param": content.param,
            "code": content.code,
        });
        if let Some(memory) = &content.memory {
            error["memory"] = memory.clone();
        }
        json!({ "error": error })
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)
    }
}

impl std::error::Error for ApiError {}

impl From<JsonError> for ApiError {
    fn from(error: JsonError) -> ApiError {
        match error {
            JsonError::Invalid { path, what } => ApiError::invalid(path, what),
            JsonError::Memory(refusal) => ApiError::memory(refusal),
        }
    }
}

impl From<Refusal> for ApiError {
    fn from(refusal: Refusal) -> ApiError {
        ApiError::memory(refusal)
    }
}

impl From<PoolError> for ApiError {
    fn from(error: PoolError) -> ApiError {
        match error {
            PoolError::Refused(refusal) => ApiError::memory(refusal),
            // The system itself had no memory, whatever the budget has.
            other => ApiError::not_now(other.to_string())
                .code("memory_full")
                .retry_after(RETRY_SECONDS),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response<Body> {
        let mut response = json_response(self.0.status, &self.body());
        response.extensions_mut().insert(ErrorCode(self.0.code));
        let headers = response.headers_mut();
        if let Some(seconds) = self.0.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.0.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

/// What was asked for, and who holds most now.
fn held(ledger: &Ledger, asked: Bytes, free: Bytes) -> Value {
    let books = ledger.snapshot();
    let mut holders = books.leaves();
    holders.sort_by_key(|&(_, bytes)| std::cmp::Reverse(bytes));
    holders.truncate(5);
    figures(asked, free, ledger.budget(), holders.into_iter())
}

/// What was asked for, and who has it.
fn figures<'a>(
    asked: Bytes,
    free: Bytes,
    budget: Bytes,
    holders: impl Iterator<Item = (&'a str, Bytes)>,
) -> Value {
    let holders = holders.map(|(name, bytes)| json!({ "name": name, "bytes": bytes.get() }));
    json!({
        "asked_bytes": asked.get(),
        "free_bytes": free.get(),
        "budget_bytes": budget.get(),
        "holders": holders.collect::<Vec<Value>>(),
    })
}

/// A JSON answer.
pub(crate) fn json_response(status: StatusCode, value: &Value) -> Response<Body> {
    let mut response = Response::new(Body::from(value.to_string()));
    *response.status_mut() = status;
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    response
}
