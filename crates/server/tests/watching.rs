//! What is seen by those who watch: requests one by one, blocks, the last hour, and everything as it
//! happens.

#![allow(clippy::unwrap_used, reason = "a test may")]

#[allow(dead_code, reason = "each test takes what it needs")]
mod common;

use std::io::Read;

use bursar_engine::Purpose;
use bursar_memory::Bytes;
use bursar_server::Keys;
use common::Setup;
use common::client::{get, head, post, send};
use common::watcher::Watcher;
use serde_json::{Value, json};

const COMPLETION: &str = "/v1/completions";

fn completion(more: Value) -> Vec<u8> {
    let mut body = json!({
        "model": "llama",
        "prompt": "The miller mended",
        "temperature": 0,
        "ignore_eos": true,
    });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body.to_string().into_bytes()
}

fn leaves(node: &Value) -> u64 {
    let children = node["children"].as_array().unwrap();
    match children.is_empty() {
        true => node["granted_bytes"].as_u64().unwrap(),
        false => children.iter().map(leaves).sum(),
    }
}

/// Who runs and who waits is told one by one, with why.
#[test]
fn requests_are_told_with_what_they_wait_for() {
    let setup = Setup {
        parallel: 1,
        ..Setup::new()
    };
    let server = setup.start();
    let address = server.address;
    let body = completion(json!({ "stream": true, "max_tokens": 400, "n": 8 }));
    let mut running = send(address, &head(COMPLETION, "", body.len()), &body);
    let mut buffer = [0; 256];
    assert!(running.read(&mut buffer).unwrap() > 0);
    // They go one after the other; at a look between two of them, none runs.
    let seen = loop {
        let memory = get(address, "/memory", "").json();
        assert_eq!(leaves(&memory["tree"]), memory["granted_bytes"]);
        let requests = memory["requests"].as_array().unwrap().clone();
        let are = |state: &str| requests.iter().any(|request| request["state"] == state);
        if are("running") && are("waiting") {
            break requests;
        }
        assert!(!requests.is_empty(), "they ended before anybody looked");
    };
    assert_eq!(seen[0]["state"], "running");
    assert_eq!(seen[0]["reason"], Value::Null);
    assert_eq!(
        (&seen[0]["kind"], &seen[0]["max_tokens"]),
        (&json!("generate"), &json!(400))
    );
    assert!(seen[0]["prompt_tokens"].as_u64().unwrap() > 0);
    assert!(seen[0]["kv_bytes"].as_u64().unwrap() > 0);
    let reason = seen[1]["reason"].as_str().unwrap();
    assert_eq!(reason, "all 1 places of those that run at once are taken");
    if let Some(third) = seen.get(2) {
        let reason = third["reason"].as_str().unwrap();
        assert!(reason.starts_with("one goes before it"), "{reason}");
    }
    // None of the text is told.
    assert!(!Value::from(seen).to_string().contains("miller"));
    drop(running);
    server.stop();
}

/// The map shows every block, and its counts are those of the figures.
#[test]
fn blocks_are_told_slab_by_slab() {
    let server = Setup::new().start();
    let address = server.address;
    let body = completion(json!({ "max_tokens": 40, "prompt": "The miller ".repeat(30) }));
    assert_eq!(post(address, COMPLETION, body).status, 200);
    let memory = get(address, "/memory", "").json();
    let kv = &memory["kv"][0];
    let map = &kv["map"];
    assert_eq!(map["blocks"], kv["blocks_total"]);
    assert!(map["blocks_per_slab"].as_u64().unwrap() > 0);
    assert_eq!(map["blocks_per_cell"], 1);
    let mut counts = std::collections::BTreeMap::new();
    let mut number = 0;
    for character in map["cells"].as_str().unwrap().chars() {
        match character.to_digit(10) {
            Some(digit) => number = number * 10 + u64::from(digit),
            None => {
                *counts.entry(character).or_insert(0) += number;
                number = 0;
            }
        }
    }
    let count = |letter| counts.get(&letter).copied().unwrap_or(0);
    assert_eq!(count('c'), kv["blocks_cached"].as_u64().unwrap());
    assert!(count('c') > 0);
    assert_eq!(count('u') + count('s'), kv["blocks_used"].as_u64().unwrap());
    assert_eq!(count('f') + count('.'), kv["blocks_free"].as_u64().unwrap());
    let rates = &memory["rates"];
    assert_eq!(rates["requests_total"], 1);
    assert_eq!(rates["tokens_out_total"], 40);
    assert_eq!(rates["first_token_seconds"]["count"], 1);
    assert!(rates["between_tokens_seconds"]["p95"].as_f64().unwrap() > 0.0);
    server.stop();
}

/// What happens to models is told as it happens; who watches is sent away when the server ends.
#[test]
fn events_are_told_as_they_happen_until_the_end() {
    let setup = Setup {
        models: &[("llama", "llama-f16.gguf", Purpose::Generate)],
        more: &[("qwen", "qwen3", Purpose::Generate)],
        ..Setup::new()
    };
    let server = setup.start();
    let address = server.address;
    let mut watchers = [Watcher::new(address, ""), Watcher::new(address, "")];
    for watcher in &mut watchers {
        watcher.event("memory");
    }
    assert_eq!(post(address, "/v1/models/qwen/load", "").status, 200);
    for watcher in &mut watchers {
        let event = loop {
            let event = watcher.event("model");
            if event["state"] == "loaded" {
                break event;
            }
        };
        assert_eq!(event["id"], "qwen");
        let memory = watcher.event("memory");
        assert_eq!(leaves(&memory["tree"]), memory["granted_bytes"]);
    }
    // Who comes later is not told what happened before.
    let mut late = Watcher::new(address, "");
    assert!(!late.until("event: memory").contains("event: model"));
    server.stopper.stop();
    for mut watcher in watchers.into_iter().chain([late]) {
        while watcher.next("event: ").is_some() {}
    }
    server.stop();
}

/// Watchers are bounded, and leave nothing behind.
#[test]
fn only_so_many_watch_and_all_of_it_goes_back() {
    let server = Setup::new().start();
    let address = server.address;
    let mut watchers: Vec<Watcher> = (0..16).map(|_| Watcher::new(address, "")).collect();
    let refused = get(address, "/memory/events", "");
    assert_eq!(
        (refused.status, refused.json()["error"]["code"].as_str()),
        (429, Some("watchers_full"))
    );
    watchers[15].event("memory");
    drop(watchers);
    let history = get(address, "/memory/history", "").json();
    let points = history["unix_ms"].as_array().unwrap().len();
    assert!(points > 0);
    for column in [
        "rss_bytes",
        "tokens_in_total",
        "first_token_seconds",
        "running",
    ] {
        assert_eq!(
            history[column].as_array().unwrap().len(),
            points,
            "{column}"
        );
    }
    let granted = history["granted_bytes"].as_object().unwrap();
    let sum: u64 = granted
        .values()
        .map(|bytes| bytes[0].as_u64().unwrap())
        .sum();
    assert!(sum > 0 && Bytes(sum) <= server.ledger.budget());
    assert_eq!(history["budget_bytes"], server.ledger.budget().get());
    server.stop();
}

/// Who has no key sees nothing of memory; the page itself tells nothing, and is open.
#[test]
fn who_watches_needs_a_key_where_keys_are_set() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys");
    std::fs::write(&path, "sk-0123456789abcdef\n").unwrap();
    let server = Setup {
        keys: Some(Keys::read(&path).unwrap()),
        ..Setup::new()
    }
    .start();
    let address = server.address;
    for path in ["/memory", "/memory/history", "/memory/events"] {
        assert_eq!(get(address, path, "").status, 401, "{path}");
    }
    for path in ["/", "/dashboard/main.js", "/dashboard/style.css"] {
        let page = get(address, path, "");
        assert_eq!(page.status, 200, "{path}");
        let policy = page.header("content-security-policy").unwrap();
        assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"));
        assert_eq!(page.header("x-content-type-options"), Some("nosniff"));
        assert_eq!(page.header("referrer-policy"), Some("no-referrer"));
    }
    assert_eq!(get(address, "/dashboard/none.js", "").status, 404);
    let mut watcher = Watcher::new(address, "Authorization: Bearer sk-0123456789abcdef\r\n");
    assert!(watcher.event("memory")["budget_bytes"].is_u64());
    drop(watcher);
    server.stop();
}

/// A model is pinned and let go again while the server runs.
#[test]
fn models_are_pinned_and_unpinned() {
    let server = Setup::new().start();
    let address = server.address;
    let act = |word: &str| post(address, &format!("/v1/models/llama/{word}"), "{}").json();
    assert_eq!(act("pin")["pinned"], true);
    assert_eq!(
        get(address, "/memory", "").json()["models"][0]["pinned"],
        true
    );
    assert_eq!(act("unpin")["pinned"], false);
    assert_eq!(post(address, "/v1/models/none/pin", "{}").status, 404);
    server.stop();
}
