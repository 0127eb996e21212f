//! What stands in the place of `traces` where the feature `otel` is off: nothing is told to anybody.

use axum::extract::Request;
use axum::http::StatusCode;
use bursar_engine::Usage;

/// Begins no traces.
#[derive(Debug, Default)]
pub(crate) struct Tracer {}

impl Tracer {
    pub(crate) fn begin(&self, _request: &Request) -> Trace {
        Trace {}
    }

    pub(crate) fn counts(&self) -> Option<(u64, u64)> {
        None
    }
}

/// Nothing of a request.
#[derive(Clone, Debug, Default)]
pub(crate) struct Trace {}

impl Trace {
    pub(crate) fn first_token(&self) {}

    pub(crate) fn answered(&self, _model: &str, _usage: Usage) {}

    pub(crate) fn status(&self, _status: StatusCode) {}
}
