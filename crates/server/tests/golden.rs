//! The bytes of whole answers: the names, their order and the spaces that clients have come to rely on.
//!
//! What the model says is not of interest here and depends on the machine. So texts, ids and likelihoods are
//! replaced by one of their kind, and events that look alike after that are told once. That the bytes are those
//! that `serde_json` would write for the same values is checked before anything is replaced.

#![allow(clippy::unwrap_used, reason = "a test may")]

#[allow(dead_code, reason = "each test takes what it needs")]
mod common;

use common::Setup;
use common::client::post;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
const COMPLETION: &str = "/v1/completions";

/// What it must look like.
const GOLDEN: &str = include_str!("golden/answers.txt");

/// The requests, by the names that the golden file has for them.
fn requests() -> Vec<(&'static str, &'static str, Value)> {
    let messages = json!([{ "role": "user", "content": "The miller mended a ledger." }]);
    let chat = |more: Value| {
        let base = json!({
            "model": "llama", "messages": messages.clone(), "temperature": 0, "max_tokens": 12, "ignore_eos": true,
        });
        merged(base, &more)
    };
    let completion = |more: Value| {
        let base = json!({
            "model": "llama", "prompt": "The miller mended", "temperature": 0, "max_tokens": 12, "ignore_eos": true,
        });
        merged(base, &more)
    };
    let usage = json!({ "include_usage": true });
    vec![
        ("chat", CHAT, chat(json!({}))),
        (
            "chat of two, told",
            CHAT,
            chat(json!({ "n": 2, "logprobs": true, "top_logprobs": 2 })),
        ),
        ("chat in events", CHAT, chat(json!({ "stream": true }))),
        (
            "chat in events, usage",
            CHAT,
            chat(json!({ "stream": true, "stream_options": usage.clone() })),
        ),
        (
            "chat in events, told",
            CHAT,
            chat(json!({ "stream": true, "logprobs": true, "top_logprobs": 2 })),
        ),
        ("completion", COMPLETION, completion(json!({}))),
        (
            "completion of none, echoed",
            COMPLETION,
            completion(json!({ "max_tokens": 0, "echo": true, "logprobs": 1 })),
        ),
        (
            "completion of several, told",
            COMPLETION,
            completion(json!({ "prompt": ["a mill", "a cat"], "logprobs": 2 })),
        ),
        (
            "completion in events",
            COMPLETION,
            completion(json!({ "stream": true })),
        ),
        (
            "completion in events, echoed, told, usage",
            COMPLETION,
            completion(
                json!({ "stream": true, "echo": true, "logprobs": 2, "stream_options": usage }),
            ),
        ),
        (
            "vectors",
            "/v1/embeddings",
            json!({ "model": "embedding", "input": ["a", "b"] }),
        ),
        (
            "vector in base64",
            "/v1/embeddings",
            json!({ "model": "embedding", "input": "a", "encoding_format": "base64" }),
        ),
        (
            "tokens",
            "/tokenize",
            json!({ "model": "llama", "prompt": "a mill", "return_token_strs": true }),
        ),
        (
            "text",
            "/detokenize",
            json!({ "model": "llama", "tokens": [5, 6] }),
        ),
    ]
}

fn merged(mut base: Value, more: &Value) -> Value {
    for (name, value) in more.as_object().unwrap() {
        base[name] = value.clone();
    }
    base
}

/// The value with everything replaced that a model says.
fn skeleton(name: &str, value: &Value) -> Value {
    match value {
        Value::String(text) if text.is_empty() => json!(""),
        Value::String(_) if ["object", "role", "finish_reason", "model"].contains(&name) => {
            value.clone()
        }
        Value::String(text) if name == "id" => json!(text.split('-').next().unwrap()),
        Value::String(_) => json!("T"),
        Value::Number(number) if name == "index" => json!(number),
        Value::Number(number) if number.is_f64() => json!(0.5),
        Value::Number(_) => json!(1),
        Value::Array(list) => {
            let mut list: Vec<Value> = list.iter().map(|value| skeleton(name, value)).collect();
            list.dedup();
            list.into()
        }
        // Named by what was said.
        Value::Object(map) if map.values().all(Value::is_f64) && !map.is_empty() => {
            json!({ "T": 0.5 })
        }
        Value::Object(map) => {
            let map = map
                .iter()
                .map(|(name, value)| (name.clone(), skeleton(name, value)));
            Value::Object(map.collect())
        }
        other => other.clone(),
    }
}

/// A document that is written exactly as `serde_json` would, as a skeleton.
fn document(text: &str) -> String {
    let value: Value = serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"));
    // But for digits, the last of which reading a number and writing it again may change.
    let bare = |text: &str| text.replace(|c: char| c.is_ascii_digit(), "");
    assert_eq!(bare(&value.to_string()), bare(text));
    skeleton("", &value).to_string()
}

#[test]
fn answers_look_as_they_always_have() {
    let server = Setup::new().start();
    let mut found = String::new();
    for (name, path, body) in requests() {
        let reply = post(server.address, path, body.to_string());
        let kind = reply.header("content-type").unwrap().to_owned();
        let text = String::from_utf8(reply.body).unwrap();
        found.push_str(&format!("== {name}: {} {kind}\n", reply.status));
        if kind != "text/event-stream" {
            found.push_str(&document(&text));
            found.push('\n');
            continue;
        }
        let mut last = String::new();
        let (events, rest) = text.rsplit_once("\n\n").unwrap();
        assert_eq!(rest, "");
        for event in events.split("\n\n") {
            let data = event.strip_prefix("data: ").unwrap();
            let shown = match data {
                "[DONE]" => data.to_owned(),
                data => document(data),
            };
            if shown != last {
                found.push_str(&shown);
                found.push('\n');
            }
            last = shown;
        }
    }
    server.stop();
    assert!(
        found == GOLDEN,
        "not as in golden/answers.txt, but:\n{found}"
    );
}
