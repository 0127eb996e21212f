//! More models than fit: they come and go as they are asked for, and everybody is answered.

#![allow(clippy::unwrap_used, reason = "a test may")]

#[allow(dead_code, reason = "each test takes what it needs")]
mod common;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::Duration;

use bursar_engine::Purpose;
use bursar_memory::Bytes;
use bursar_server::{Limits, REQUESTS_FLOOR};
use common::client::{Reply, get, head, post, read, send};
use common::{Fixture, Setup};
use serde_json::{Value, json};

const MODELS: &[Fixture] = &[
    ("llama", "llama-f16.gguf", Purpose::Generate),
    ("qwen", "qwen3", Purpose::Generate),
    ("bert", "bert-mean", Purpose::Embed),
];

/// What each of the models takes alone, and what all take together.
fn sizes() -> (BTreeMap<String, u64>, u64) {
    let server = Setup {
        models: MODELS,
        ..Setup::new()
    }
    .start();
    let status = server.cache.status().into_iter();
    let sizes = status.map(|status| {
        let footprint = status.footprint.unwrap();
        let alone = footprint.own.max(footprint.loading);
        (status.id, alone.saturating_add(footprint.arena).get())
    });
    let sizes = sizes.collect();
    let free = server.ledger.free().saturating_add(REQUESTS_FLOOR);
    let all = server.ledger.budget().saturating_sub(free).get();
    server.stop();
    (sizes, all)
}

/// A server with room for any two of the models, and not for three.
fn for_two() -> Setup {
    let (sizes, all) = sizes();
    let room = all - sizes.values().min().unwrap() / 2;
    Setup {
        models: &[],
        more: MODELS,
        budget: REQUESTS_FLOOR.saturating_add(Bytes(room)),
        ..Setup::new()
    }
}

fn completion(model: &str, more: Value) -> Vec<u8> {
    let mut body = json!({
        "model": model,
        "prompt": "The miller mended",
        "temperature": 0,
        "max_tokens": 12,
        "ignore_eos": true,
    });
    for (name, value) in more.as_object().unwrap() {
        body[name] = value.clone();
    }
    body.to_string().into_bytes()
}

fn embedding(model: &str) -> Vec<u8> {
    json!({ "model": model, "input": ["The miller", "mended"] })
        .to_string()
        .into_bytes()
}

fn state(address: SocketAddr, model: &str) -> Value {
    get(address, &format!("/v1/models/{model}"), "").json()["state"].clone()
}

/// A refusal that says with figures when to come back.
fn refused_with_figures(reply: &Reply) {
    let error = &reply.json()["error"];
    let known = ["memory_full", "model_loading", "queue_full"];
    assert!(known.iter().any(|code| error["code"] == *code), "{error}");
    assert!(matches!(reply.status, 429 | 503), "{error}");
    assert!(reply.header("retry-after").is_some());
    if reply.status == 429 {
        assert!(
            error["memory"]["budget_bytes"].as_u64() > Some(0),
            "{error}"
        );
    }
}

/// SplitMix64 (Steele et al. 2014).
fn random(seed: &mut u64, bound: u64) -> u64 {
    *seed = seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let z = (*seed ^ (*seed >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    (z ^ (z >> 31)) % bound
}

#[test]
fn three_models_in_room_for_two_answer_everybody() {
    let server = for_two().start();
    let address = server.address;
    let answers: Mutex<BTreeMap<&str, Value>> = Mutex::default();
    // The same words whenever and however often the model was loaded.
    let same = |model: &'static str, answer: Value| {
        let mut answers = answers.lock().unwrap();
        assert_eq!(
            *answers.entry(model).or_insert_with(|| answer.clone()),
            answer
        );
    };
    std::thread::scope(|scope| {
        for client in 0..8 {
            let same = &same;
            scope.spawn(move || {
                let mut seed = client;
                for _ in 0..12 {
                    let (model, _, purpose) = MODELS[random(&mut seed, 3) as usize];
                    if purpose == Purpose::Embed {
                        let reply = post(address, "/v1/embeddings", embedding(model));
                        match reply.status {
                            200 => same(model, reply.json()["data"].clone()),
                            _ => refused_with_figures(&reply),
                        }
                        continue;
                    }
                    let streams = random(&mut seed, 2) == 0;
                    let body = completion(model, json!({ "stream": streams }));
                    let sent = send(address, &head("/v1/completions", "", body.len()), &body);
                    if random(&mut seed, 6) == 0 {
                        // It goes away in the middle of whatever that is.
                        drop(sent);
                        continue;
                    }
                    let reply = read(sent);
                    if reply.status != 200 {
                        refused_with_figures(&reply);
                    } else if streams {
                        let events = reply.events();
                        let text = events.iter().map(|event| {
                            let text = event["choices"][0]["text"].as_str();
                            text.unwrap_or_default().to_owned()
                        });
                        same(model, text.collect::<String>().into());
                    } else {
                        same(model, reply.json()["choices"][0]["text"].clone());
                    }
                }
            });
        }
    });
    let memory = get(address, "/memory", "").json();
    let cache = &memory["model_cache"];
    let count = |name: &str| cache[name].as_u64().unwrap();
    assert!(count("evictions_total") > 0, "{cache}");
    assert!(count("loads_total") > 3, "{cache}");
    assert_eq!(count("load_failures_total"), 0, "{cache}");
    let there = memory["models"].as_array().unwrap().len() as u64;
    assert!(there <= 2, "{memory}");
    assert_eq!(count("loads_total"), count("evictions_total") + there);
    // Every byte has an owner.
    fn leaves(node: &Value) -> u64 {
        match node["children"].as_array().unwrap().as_slice() {
            [] => node["granted_bytes"].as_u64().unwrap(),
            children => children.iter().map(leaves).sum(),
        }
    }
    assert_eq!(
        leaves(&memory["tree"]),
        memory["granted_bytes"].as_u64().unwrap()
    );
    let metrics = String::from_utf8(get(address, "/metrics", "").body).unwrap();
    let line = format!(
        "bursar_model_cache_evictions_total {}",
        count("evictions_total")
    );
    assert!(
        metrics.lines().any(|other| other == line),
        "{line} not in\n{metrics}"
    );
    server.stop();
}

#[test]
fn models_come_and_go_when_asked_to() {
    let server = Setup {
        models: &MODELS[..1],
        more: &MODELS[1..],
        ..Setup::new()
    }
    .start();
    let address = server.address;
    let act = |path: &str, body: &str| post(address, &format!("/v1/models/{path}"), body);
    assert_eq!(state(address, "bert"), "absent");
    assert_eq!(get(address, "/ready", "").status, 200);
    let loaded = act("bert/load", "");
    assert_eq!(loaded.status, 200, "{}", loaded.message());
    let loaded = loaded.json();
    assert_eq!(
        (&loaded["state"], &loaded["task"]),
        (&json!("loaded"), &json!("embed"))
    );
    assert!(loaded["bytes"].as_u64() > Some(0) && loaded["load_seconds"].as_f64() > Some(0.0));
    for model in ["bert", "llama"] {
        let warm = act(&format!("{model}/warmup"), "{}").json();
        assert!(warm["warmup_seconds"].as_f64() > Some(0.0), "{warm}");
    }
    // f32 weights go to half precision, and are charged less at once; nothing is done unasked.
    let told = act("bert/optimize", "").json();
    assert_eq!(
        (&told["converts"], &told["half_precision"]["converts"]),
        (&json!(false), &json!(true))
    );
    let half = act("bert/optimize", r#"{"weights_dtype":"bf16"}"#).json();
    let bytes = |part: &str| half[part]["weights"]["granted_bytes"].as_u64().unwrap();
    assert!(bytes("after") < bytes("before"), "{half}");
    assert_eq!(half["half_precision"]["converts"], false);
    let memory = get(address, "/memory", "").json();
    let models = memory["models"].as_array().unwrap();
    let bert = models.iter().find(|model| model["id"] == "bert").unwrap();
    assert_eq!(bert["weights_bytes"], bytes("after"));
    assert_eq!(
        post(address, "/v1/embeddings", embedding("bert")).status,
        200
    );
    let shrunk = act(
        "llama/optimize",
        r#"{"shrink_kv":true,"drop_prefixes":true}"#,
    )
    .json();
    assert!(shrunk["reclaimed_bytes"]["shrink_kv"].is_u64(), "{shrunk}");
    let wrong = act("llama/optimize", r#"{"weights_dtype":"gold"}"#);
    assert_eq!(
        (wrong.status, wrong.json()["error"]["param"].clone()),
        (400, json!("weights_dtype"))
    );
    assert_eq!(act("bert/unload", "").json()["state"], "absent");
    // One that is not there is as gone as it can be.
    assert_eq!(act("bert/unload", "").json()["state"], "absent");
    assert_eq!(act("bert/fly", "").status, 404);
    assert_eq!(act("bert", "").status, 405);
    assert_eq!(
        act("other/load", "").json()["error"]["code"],
        "model_not_found"
    );
    let wrong = act("bert/load", r#"{"keep_alive":"a while"}"#);
    assert_eq!(
        (wrong.status, wrong.json()["error"]["param"].clone()),
        (400, json!("keep_alive"))
    );

    // A request may say how long its model stays: here, not at all.
    let body = completion("qwen", json!({ "keep_alive": 0 }));
    assert_eq!(post(address, "/v1/completions", body).status, 200);
    while state(address, "qwen") != "absent" {
        std::thread::yield_now();
    }
    assert_eq!(
        act("bert/load", r#"{"keep_alive":"1h"}"#).json()["keep_alive_seconds"],
        3600.0
    );
    server.stop();
}

#[test]
fn what_does_not_fit_is_said_with_figures() {
    let (sizes, _) = sizes();
    let budget = REQUESTS_FLOOR.saturating_add(Bytes(sizes["llama"] - 1));
    let server = Setup {
        models: &[],
        more: MODELS,
        budget,
        pooled: false,
        ..Setup::new()
    }
    .start();
    let reply = post(
        server.address,
        "/v1/completions",
        completion("llama", json!({})),
    );
    let error = &reply.json()["error"];
    assert_eq!(
        (reply.status, &error["code"]),
        (400, &json!("model_too_large")),
        "{error}"
    );
    assert_eq!(error["memory"]["asked_bytes"], sizes["llama"]);
    assert_eq!(error["memory"]["budget_bytes"], budget.get());
    server.stop();
}

#[test]
fn a_model_that_streams_is_waited_for_and_not_unloaded() {
    let (sizes, _) = sizes();
    let largest = sizes.values().max().unwrap();
    let server = Setup {
        models: &[],
        more: &MODELS[..2],
        budget: REQUESTS_FLOOR.saturating_add(Bytes(*largest)),
        pooled: false,
        limits: Limits {
            wait: Duration::from_millis(1),
            ..Limits::default()
        },
        ..Setup::new()
    }
    .start();
    let address = server.address;
    // It may take more than one try to have it: nobody waits for longer than that here.
    let load = |model: &str| {
        let path = format!("/v1/models/{model}/load");
        while post(address, &path, "").status != 200 {
            std::thread::yield_now();
        }
    };
    load("llama");
    let body = completion("llama", json!({ "stream": true, "max_tokens": 400 }));
    let running = send(address, &head("/v1/completions", "", body.len()), &body);
    while state(address, "llama") != "loaded"
        || get(address, "/v1/models/llama", "").json()["inflight"] != 1
    {
        std::thread::yield_now();
    }
    let reply = post(address, "/v1/completions", completion("qwen", json!({})));
    if reply.status != 200 {
        refused_with_figures(&reply);
    }
    // However that went, the stream ran to its end.
    let events = read(running).events();
    assert_eq!(
        events.last().unwrap()["choices"][0]["finish_reason"],
        "length"
    );
    load("qwen");
    assert_eq!(state(address, "llama"), "absent");
    server.stop();
}
