//! `GET /openapi.json`: every operation that it describes is there and answers as described, every field of
//! requests is read, and the reference says the same.

#![allow(clippy::unwrap_used, reason = "a test may")]

#[path = "../common/committed.rs"]
mod committed;
#[path = "../common/mod.rs"]
#[allow(dead_code, reason = "each test takes what it needs")]
mod common;
mod page;
mod schema;

use std::collections::BTreeSet;
use std::net::SocketAddr;

use bursar_server::{Keys, Limits};
use common::client::{Reply, get, head, post, read, send};
use common::watcher::Watcher;
use common::{Running, Setup};
use schema::{check, resolved};
use serde_json::{Value, json};

fn document(address: SocketAddr) -> Value {
    let reply = get(address, "/openapi.json", "");
    assert_eq!(reply.header("content-type"), Some("application/json"));
    reply.json()
}

/// The description of an operation's answer of that status and kind.
fn answer<'a>(document: &'a Value, method: &str, path: &str, status: u16, kind: &str) -> &'a Value {
    let operation = &document["paths"][path][method];
    let response = &operation["responses"][status.to_string()];
    assert!(
        !response.is_null(),
        "{method} {path}: {status} is not described"
    );
    let schema = &resolved(document, response)["content"][kind]["schema"];
    assert!(
        !schema.is_null(),
        "{method} {path}: {status} as {kind} is not described"
    );
    schema
}

fn fits(document: &Value, schema: &Value, value: &Value, what: &str) {
    let wrong = check(document, schema, value);
    assert!(wrong.is_empty(), "{what}: {}", wrong.join("\n"));
}

/// An operation as the document has it: method, path, what the path holds in its place, a body.
type Asked = (&'static str, &'static str, &'static str, Value);

/// Every operation, some in several ways.
fn asked() -> Vec<Asked> {
    let chat = |more: Value| {
        with(
            json!({ "model": "llama", "max_tokens": 3, "ignore_eos": true,
        "messages": [{ "role": "user", "content": "The miller mended a ledger." }] }),
            more,
        )
    };
    let text = |more: Value| {
        with(
            json!({ "model": "llama", "prompt": "The miller", "max_tokens": 3,
        "ignore_eos": true }),
            more,
        )
    };
    let (chats, texts) = ("/v1/chat/completions", "/v1/completions");
    let events = json!({ "stream": true, "stream_options": { "include_usage": true }, "n": 2 });
    vec![
        (
            "post",
            chats,
            chats,
            chat(json!({ "logprobs": true, "top_logprobs": 2, "stop": ["\u{1}"] })),
        ),
        ("post", chats, chats, chat(events.clone())),
        (
            "post",
            chats,
            chats,
            chat(json!({ "stream": true, "logprobs": true })),
        ),
        (
            "post",
            texts,
            texts,
            text(json!({ "logprobs": 2, "echo": true, "seed": 1, "top_k": 3 })),
        ),
        (
            "post",
            texts,
            texts,
            text(with(events, json!({ "logprobs": 1 }))),
        ),
        (
            "post",
            texts,
            texts,
            text(json!({ "prompt": [1, 2, 3], "logit_bias": { "1": 2 } })),
        ),
        (
            "post",
            "/v1/embeddings",
            "/v1/embeddings",
            json!({ "model": "embedding", "input": ["a", "b"] }),
        ),
        (
            "post",
            "/v1/embeddings",
            "/v1/embeddings",
            json!({ "model": "embedding", "input": "a", "encoding_format": "base64", "dimensions": 8 }),
        ),
        (
            "post",
            "/tokenize",
            "/tokenize",
            json!({ "model": "llama", "prompt": "a b", "return_token_strs": true }),
        ),
        (
            "post",
            "/tokenize",
            "/tokenize",
            json!({ "model": "llama", "prompt": "a b" }),
        ),
        (
            "post",
            "/detokenize",
            "/detokenize",
            json!({ "model": "llama", "tokens": [1, 2] }),
        ),
        ("get", "/v1/models", "/v1/models", Value::Null),
        ("get", "/v1/models/{model}", "/v1/models/llama", Value::Null),
        (
            "post",
            "/v1/models/{model}/load",
            "/v1/models/llama/load",
            json!({ "keep_alive": "5m" }),
        ),
        (
            "post",
            "/v1/models/{model}/warmup",
            "/v1/models/llama/warmup",
            json!({ "keep_alive": -1 }),
        ),
        (
            "post",
            "/v1/models/{model}/optimize",
            "/v1/models/llama/optimize",
            json!({ "drop_prefixes": true, "weights_dtype": "bf16", "dry_run": false }),
        ),
        ("get", "/health", "/health", Value::Null),
        ("get", "/ready", "/ready", Value::Null),
        ("get", "/memory", "/memory", Value::Null),
        ("get", "/memory/history", "/memory/history", Value::Null),
        ("get", "/", "/", Value::Null),
        (
            "get",
            "/dashboard/{file}",
            "/dashboard/main.js",
            Value::Null,
        ),
        (
            "get",
            "/dashboard/{file}",
            "/dashboard/style.css",
            Value::Null,
        ),
        (
            "get",
            "/dashboard/{file}",
            "/dashboard/icon.svg",
            Value::Null,
        ),
        ("get", "/openapi.json", "/openapi.json", Value::Null),
        ("get", "/metrics", "/metrics", Value::Null),
        (
            "post",
            "/v1/models/{model}/pin",
            "/v1/models/llama/pin",
            json!({}),
        ),
        (
            "post",
            "/v1/models/{model}/unpin",
            "/v1/models/llama/unpin",
            json!({}),
        ),
        (
            "post",
            "/v1/models/{model}/unload",
            "/v1/models/llama/unload",
            json!({}),
        ),
        // Again, where one model is not loaded.
        ("get", "/v1/models", "/v1/models", Value::Null),
        ("get", "/memory", "/memory", Value::Null),
    ]
}

fn with(mut body: Value, more: Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body
}

#[test]
fn every_operation_answers_as_it_is_described() {
    let server = Setup::new().start();
    let document = document(server.address);
    let mut done = BTreeSet::new();
    for (method, path, actual, body) in asked() {
        let what = format!("{method} {actual} {body}");
        let reply = match method {
            "get" => get(server.address, actual, ""),
            _ => {
                let request = &document["paths"][path][method]["requestBody"];
                let request = &request["content"]["application/json"]["schema"];
                fits(&document, request, &body, &what);
                post(server.address, actual, body.to_string())
            }
        };
        assert_eq!(
            reply.status,
            200,
            "{what}: {:?}",
            String::from_utf8_lossy(&reply.body)
        );
        let kind = reply
            .header("content-type")
            .unwrap()
            .split(';')
            .next()
            .unwrap();
        let schema = answer(&document, method, path, 200, kind);
        match kind {
            "text/event-stream" => {
                let events = reply.events();
                events
                    .iter()
                    .for_each(|event| fits(&document, schema, event, &what));
            }
            "application/json" if path == "/openapi.json" => assert_eq!(reply.json(), document),
            "application/json" => fits(&document, schema, &reply.json(), &what),
            _ => assert!(!reply.body.is_empty(), "{what}"),
        }
        done.insert((path, method));
    }
    done.insert(watched(&document, &server));
    // Plans are made by the program around the server, whose own test looks at them.
    let plan = post(server.address, "/v1/models/llama/plan", "{}");
    let schema = answer(&document, "post", PLAN, plan.status, "application/json");
    fits(&document, schema, &plan.json(), PLAN);
    done.insert((PLAN, "post"));
    let paths = document["paths"].as_object().unwrap();
    for (path, operations) in paths {
        for method in operations
            .as_object()
            .unwrap()
            .keys()
            .filter(|m| *m != "parameters")
        {
            let done = done.contains(&(path.as_str(), method.as_str()));
            assert!(done, "{method} {path} was not asked for");
        }
    }
    server.stop();
}

const PLAN: &str = "/v1/models/{model}/plan";

/// Events of two kinds, as somebody gets them who watches.
fn watched(document: &Value, server: &Running) -> (&'static str, &'static str) {
    let path = "/memory/events";
    let schema = answer(document, "get", path, 200, "text/event-stream");
    let mut watcher = Watcher::new(server.address, "");
    fits(document, schema, &watcher.event("memory"), path);
    let unload = post(server.address, "/v1/models/embedding/unload", "{}");
    assert_eq!(unload.status, 200);
    fits(document, schema, &watcher.event("model"), path);
    (path, "get")
}

/// Errors of all kinds that clients can bring about, each as it is described for its address.
#[test]
fn errors_are_as_they_are_described() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("keys");
    let key = "0123456789abcdef0123456789abcdef";
    std::fs::write(&file, key).unwrap();
    let server = Setup {
        keys: Some(Keys::read(&file).unwrap()),
        limits: Limits {
            body: 1000,
            ..Limits::default()
        },
        ..Setup::new()
    }
    .start();
    // Open to all, as it says.
    let document = document(server.address);
    let path = "/v1/completions";
    let allowed = format!("Authorization: Bearer {key}\r\n");
    let ask = |extra: &str, body: &[u8]| -> Reply {
        read(send(server.address, &head(path, extra, body.len()), body))
    };
    let plain = format!(
        "POST {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Type: text/plain\r\n\
         Content-Length: 2\r\n{allowed}\r\n"
    );
    for (status, reply) in [
        (401, ask("", b"{}")),
        (400, ask(&allowed, b"{")),
        (
            400,
            ask(
                &allowed,
                br#"{"model":"llama","prompt":"a","max_tokens":9999}"#,
            ),
        ),
        (404, ask(&allowed, br#"{"model":"none","prompt":"a"}"#)),
        (413, ask(&allowed, &[b' '; 2000])),
        (415, read(send(server.address, &plain, b"{}"))),
    ] {
        assert_eq!(reply.status, status);
        let schema = answer(&document, "post", path, status, "application/json");
        fits(&document, schema, &reply.json(), &status.to_string());
    }
    server.stop();
}

/// Whatever a request's description names is read: an impossible value is refused by its name.
#[test]
fn every_field_of_requests_is_read() {
    let server = Setup::new().start();
    let document = document(server.address);
    let fields = [
        (
            "/v1/chat/completions",
            "ChatRequest",
            "llama",
            json!({ "messages": [{ "role": "user", "content": "a" }] }),
        ),
        (
            "/v1/completions",
            "CompletionRequest",
            "llama",
            json!({ "prompt": "a" }),
        ),
        (
            "/v1/embeddings",
            "EmbeddingRequest",
            "embedding",
            json!({ "input": "a" }),
        ),
        (
            "/tokenize",
            "TokenizeRequest",
            "llama",
            json!({ "prompt": "a" }),
        ),
        (
            "/detokenize",
            "DetokenizeRequest",
            "llama",
            json!({ "tokens": [1] }),
        ),
        ("/v1/models/llama/load", "KeepAliveRequest", "", json!({})),
        (
            "/v1/models/llama/optimize",
            "OptimizeRequest",
            "",
            json!({}),
        ),
        ("/v1/models/llama/plan", "PlanRequest", "", json!({})),
    ];
    for (path, name, model, body) in fields {
        let properties = &document["components"]["schemas"][name]["properties"];
        for (field, schema) in properties.as_object().unwrap() {
            let ignored = schema["description"]
                .as_str()
                .is_some_and(|words| words.starts_with("Ignored"));
            if ignored || UNREAD.contains(&(name, field)) {
                continue;
            }
            let mut body = with(body.clone(), json!({ "stream": true }));
            if !model.is_empty() {
                body["model"] = model.into();
            }
            // No field takes both.
            let object = schema["properties"].is_object() || schema["type"][0] == "object";
            body[field] = if object {
                json!([1.5])
            } else {
                json!({ "a": {} })
            };
            if name == "TokenizeRequest" && field == "chat_template_kwargs" {
                body["messages"] = json!([{ "role": "user", "content": "a" }]);
            }
            let reply = post(server.address, path, body.to_string());
            let error = &reply.json()["error"];
            let param = error["param"].as_str().unwrap_or_default();
            assert_eq!(reply.status, 400, "{name}.{field}: {error}");
            assert!(param.starts_with(field.as_str()), "{name}.{field}: {error}");
        }
    }
    server.stop();
}

/// Fields that are not looked at for themselves: a choice among tools matters only beside them.
const UNREAD: [(&str, &str); 1] = [("ChatRequest", "tool_choice")];

#[test]
fn the_reference_says_the_same() {
    let server: Running = Setup::new().start();
    page::compare(&document(server.address));
    server.stop();
}

/// A newcomer finds every field of the report explained.
#[test]
fn the_walk_through_the_report_leaves_nothing_out() {
    let document: Value = serde_json::from_str(include_str!("../../src/openapi.json")).unwrap();
    let pages = [
        include_str!("../../../../docs/memory-report.md"),
        include_str!("../../../../docs/kv.md"),
    ];
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = pages.iter().flat_map(|page| page.split(|c| !word(c)));
    let words: BTreeSet<&str> = words.collect();
    let mut fields = BTreeSet::new();
    names(
        &document,
        &json!({ "$ref": "#/components/schemas/Memory" }),
        &mut fields,
    );
    assert!(fields.len() > 100, "{}", fields.len());
    let unexplained = fields
        .iter()
        .filter(|field| !words.contains(field.as_str()));
    let unexplained: Vec<_> = unexplained.collect();
    assert!(
        unexplained.is_empty(),
        "docs/memory-report.md says nothing of {unexplained:?}"
    );
}

/// Names of all fields below a description.
fn names(document: &Value, schema: &Value, found: &mut BTreeSet<String>) {
    let schema = resolved(document, schema);
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        // An account holds accounts: once is enough.
        if found.insert(name.clone()) {
            names(document, field, found);
        }
    }
    let forms = schema["oneOf"].as_array().into_iter().flatten();
    let below = [&schema["items"], &schema["additionalProperties"]];
    for schema in forms.chain(below).filter(|schema| schema.is_object()) {
        names(document, schema, found);
    }
}
