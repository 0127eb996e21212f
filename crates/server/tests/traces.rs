//! Requests as an OpenTelemetry collector is told of them; here a stub, that takes what comes.

#![allow(clippy::unwrap_used, reason = "a test may")]

#[allow(dead_code, reason = "each test takes what it needs")]
mod common;

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};

use bursar_server::Collector;
use common::Setup;
use common::client::{get, head, read, send};
use serde_json::{Value, json};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// A collector: what it is sent, and where it is.
fn collector() -> (Receiver<Value>, Collector) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = BufReader::new(stream.unwrap());
            let (mut line, mut head) = (String::new(), String::new());
            while stream.read_line(&mut line).unwrap() > 2 {
                head.push_str(&std::mem::take(&mut line));
            }
            assert!(head.starts_with("POST /v1/traces HTTP/1.1\r\n"), "{head}");
            assert!(
                head.contains("Content-Type: application/json\r\n"),
                "{head}"
            );
            let length = head.split("Content-Length: ").nth(1).unwrap();
            let length = length.lines().next().unwrap().parse().unwrap();
            let mut body = vec![0; length];
            stream.read_exact(&mut body).unwrap();
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";
            stream.get_mut().write_all(answer).unwrap();
            let _ = tell.send(serde_json::from_slice(&body).unwrap());
        }
    });
    (told, at(&format!("http://{address}")))
}

fn at(url: &str) -> Collector {
    let url = OsString::from(url);
    let variable = |name: &str| (name == "OTEL_EXPORTER_OTLP_ENDPOINT").then_some(&url);
    Collector::from_environment(&variable).unwrap().unwrap()
}

/// The next `count` spans, in the order of their beginnings.
fn spans(told: &Receiver<Value>, count: usize) -> Vec<Value> {
    let mut spans = Vec::new();
    while spans.len() < count {
        let request = told.recv().unwrap();
        let resource = &request["resourceSpans"][0];
        assert_eq!(
            attribute(&resource["resource"], "service.name"),
            json!("bursar")
        );
        let found = &resource["scopeSpans"][0]["spans"];
        spans.extend(found.as_array().unwrap().iter().cloned());
    }
    spans.sort_by_key(|span| span["startTimeUnixNano"].as_str().unwrap().to_owned());
    spans
}

/// An attribute's value, whatever its type; null if there is none.
fn attribute(of: &Value, key: &str) -> Value {
    let mut all = of["attributes"].as_array().unwrap().iter();
    let found = all.find(|attribute| attribute["key"] == key);
    let value = found.map(|found| found["value"].as_object().unwrap());
    value
        .and_then(|value| value.values().next().cloned())
        .unwrap_or_default()
}

#[test]
fn a_collector_is_told_of_every_request() {
    let (told, collector) = collector();
    let server = Setup {
        collector: Some(collector),
        ..Setup::new()
    }
    .start();
    let ask = |path: &str, extra: &str, body: Value| {
        let body = body.to_string();
        let head = head(path, extra, body.len());
        read(send(server.address, &head, body.as_bytes())).status
    };
    let chat = json!({ "model": "llama", "prompt": "The miller mended", "max_tokens": 4, "ignore_eos": true,
        "stream": true });
    let parent = format!("traceparent: 00-{TRACE}-{PARENT}-01\r\n");
    assert_eq!(ask("/v1/completions", &parent, chat.clone()), 200);
    let embed = json!({ "model": "embedding", "input": ["a ledger", "two"] });
    assert_eq!(ask("/v1/embeddings", "", embed), 200);
    assert_eq!(ask("/v1/completions", "", json!({ "model": "none" })), 404);
    // Who asks wants this one not to be told, and who only looks is not.
    let unsampled = format!("traceparent: 00-{TRACE}-{PARENT}-00\r\n");
    assert_eq!(ask("/v1/completions", &unsampled, chat), 200);
    assert_eq!(get(server.address, "/memory", "").status, 200);
    let spans = spans(&told, 3);
    let [text, vectors, failed] = &spans[..] else {
        panic!("{} spans", spans.len());
    };

    assert_eq!(
        (&text["traceId"], &text["parentSpanId"]),
        (&json!(TRACE), &json!(PARENT))
    );
    assert_eq!(
        (&text["name"], &text["kind"]),
        (&json!("POST /v1/completions"), &json!(2))
    );
    for (key, want) in [
        ("http.response.status_code", json!("200")),
        ("gen_ai.operation.name", json!("text_completion")),
        ("gen_ai.request.model", json!("llama")),
        ("gen_ai.usage.output_tokens", json!("4")),
    ] {
        assert_eq!(attribute(text, key), want, "{key}");
    }
    let nanos = |key: &str| text[key].as_str().unwrap().parse::<u64>().unwrap();
    let whole = (nanos("endTimeUnixNano") - nanos("startTimeUnixNano")) as f64 / 1e9;
    let parts = [
        "bursar.queue_seconds",
        "bursar.prefill_seconds",
        "bursar.decode_seconds",
    ]
    .map(|key| attribute(text, key).as_f64().unwrap());
    let sum: f64 = parts.iter().sum();
    assert!(parts.iter().all(|part| *part >= 0.0), "{parts:?}");
    assert!((sum - whole).abs() < 1e-6, "{parts:?} are not {whole}");

    assert_ne!(vectors["traceId"], TRACE);
    assert!(vectors.get("parentSpanId").is_none());
    assert_eq!(
        attribute(vectors, "gen_ai.operation.name"),
        json!("embeddings")
    );
    assert_eq!(
        attribute(vectors, "gen_ai.request.model"),
        json!("embedding")
    );
    assert_eq!(attribute(vectors, "bursar.decode_seconds"), Value::Null);
    // The client's fault is no error of this server.
    assert_eq!(attribute(failed, "http.response.status_code"), json!("404"));
    assert_eq!(failed["status"]["code"], 0);
    // What ended just before the server is told too.
    assert_eq!(
        ask("/tokenize", "", json!({ "model": "llama", "prompt": "a" })),
        200
    );
    server.stop();
    let last = told.recv().unwrap();
    let name = &last["resourceSpans"][0]["scopeSpans"][0]["spans"][0]["name"];
    assert_eq!(name, "POST /tokenize");
}

/// Nobody takes them: requests are answered all the same, and it is counted.
#[test]
fn spans_that_nobody_takes_are_counted() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let nobody = at(&format!("http://{}", listener.local_addr().unwrap()));
    drop(listener);
    let server = Setup {
        collector: Some(nobody),
        ..Setup::new()
    }
    .start();
    let body = br#"{"model":"llama","prompt":"a","max_tokens":1}"#;
    let head = head("/v1/completions", "", body.len());
    assert_eq!(read(send(server.address, &head, body)).status, 200);
    let dropped = || {
        let metrics = String::from_utf8(get(server.address, "/metrics", "").body).unwrap();
        metrics.contains("\nbursar_trace_spans_dropped_total 1\n")
    };
    while !dropped() {
        std::thread::yield_now();
    }
    server.stop();
}
