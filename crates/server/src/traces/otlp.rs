//! Spans as OTLP has them in JSON, with the names of OpenTelemetry's conventions for HTTP and generative AI.

use std::time::Duration;

use serde_json::{Value, json};

use super::Span;

/// A request to a collector.
pub(super) fn request(service: &str, spans: &[Span]) -> Value {
    let spans: Vec<Value> = spans.iter().map(span).collect();
    json!({ "resourceSpans": [{
        "resource": { "attributes": [text("service.name", service)] },
        "scopeSpans": [{
            "scope": { "name": "bursar", "version": env!("CARGO_PKG_VERSION") },
            "spans": spans,
        }],
    }] })
}

fn span(span: &Span) -> Value {
    let context = &span.context;
    let end_ns = span.begun_ns.saturating_add(nanos(span.took));
    let mut attributes = vec![
        text("http.request.method", "POST"),
        text("url.path", &span.path),
    ];
    if let Some(status) = span.status {
        attributes.push(count("http.response.status_code", status.as_u16().into()));
    }
    if let Some((model, usage)) = &span.answered {
        attributes.extend([
            text("gen_ai.operation.name", operation(&span.path)),
            text("gen_ai.request.model", model),
            count("gen_ai.usage.input_tokens", usage.prompt_tokens as u64),
            count("gen_ai.usage.output_tokens", usage.completion_tokens as u64),
            count("bursar.cached_tokens", usage.cached_tokens as u64),
        ]);
        let waited = usage.waited;
        let read = span
            .first_token
            .map(|at| at.saturating_sub(waited.unwrap_or_default()));
        let written = span.first_token.map(|at| span.took.saturating_sub(at));
        for (name, time) in [
            ("bursar.queue_seconds", waited),
            ("bursar.prefill_seconds", read),
            ("bursar.decode_seconds", written),
        ] {
            attributes.extend(time.map(|time| seconds(name, time)));
        }
    }
    // Of a server's span, only what is its own fault is an error.
    let failed = span.status.is_some_and(|status| status.is_server_error());
    let mut value = json!({
        "traceId": format!("{:032x}", context.trace),
        "spanId": format!("{:016x}", context.span),
        "name": format!("POST {}", span.path),
        "kind": 2,
        "startTimeUnixNano": span.begun_ns.to_string(),
        "endTimeUnixNano": end_ns.to_string(),
        "attributes": attributes,
        "status": { "code": if failed { 2 } else { 0 } },
    });
    if let Some(parent) = context.parent {
        value["parentSpanId"] = format!("{parent:016x}").into();
    }
    value
}

fn operation(path: &str) -> &'static str {
    match path {
        "/v1/chat/completions" => "chat",
        "/v1/embeddings" => "embeddings",
        _ => "text_completion",
    }
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

/// 64-bit numbers are texts in this encoding.
fn count(key: &str, value: u64) -> Value {
    json!({ "key": key, "value": { "intValue": value.to_string() } })
}

fn seconds(key: &str, value: Duration) -> Value {
    json!({ "key": key, "value": { "doubleValue": value.as_secs_f64() } })
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
