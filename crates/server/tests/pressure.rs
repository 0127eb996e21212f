//! What clients and watchers see of memory that is short.

#![allow(clippy::unwrap_used, reason = "a test may")]

#[allow(dead_code, reason = "each test takes what it needs")]
mod common;

use bursar_memory::Bytes;
use bursar_memory::pressure::{Assessment, Gauge, Level};
use common::Setup;
use common::client::{get, post};

const COMPLETION: &str = r#"{"model":"llama","prompt":"The miller","max_tokens":4}"#;

#[test]
fn nothing_is_taken_on_while_memory_is_critical_outside() {
    let pressure = Gauge::new();
    let setup = Setup {
        pressure: pressure.clone(),
        ..Setup::new()
    };
    let server = setup.start();
    let address = server.address;
    let ask = || post(address, "/v1/completions", COMPLETION.as_bytes());
    assert_eq!(ask().status, 200);

    // A full budget is what a budget is for.
    pressure.set(Assessment {
        inside: Level::Critical,
        ..Assessment::default()
    });
    assert_eq!(ask().status, 200);
    let memory = get(address, "/memory", "").json();
    assert_eq!(memory["pressure"], "critical");
    assert_eq!(memory["pressure_detail"]["outside"], "normal");

    pressure.set(Assessment {
        outside: Level::Critical,
        cause: "cgroup /app is full".to_owned(),
        missing: Bytes::mib(3),
        ..Assessment::default()
    });
    for _ in 0..2 {
        let refused = ask();
        assert_eq!(refused.status, 429);
        assert!(refused.header("retry-after").is_some());
        let error = &refused.json()["error"];
        assert_eq!(error["code"], "memory_pressure");
        assert!(error["message"].as_str().unwrap().contains("cgroup /app"));
        assert_eq!(error["memory"]["budget_bytes"], Bytes::gib(1).get());
        assert_eq!(error["memory"]["asked_bytes"], COMPLETION.len());
        assert!(!error["memory"]["holders"].as_array().unwrap().is_empty());
    }
    // Who watches is answered all the same, and told why.
    let memory = get(address, "/memory", "").json();
    assert_eq!(memory["pressure_detail"]["missing_bytes"], 3 << 20);
    let refusals = &memory["reclaim"]["rungs"][8];
    assert_eq!(
        (&refusals["rung"], &refusals["times_total"]),
        (&"refuse".into(), &2.into())
    );
    let recent = &memory["reclaim"]["recent"][0];
    assert_eq!(
        (&recent["times"], &recent["rung"]),
        (&2.into(), &"refuse".into())
    );
    let metrics = String::from_utf8(get(address, "/metrics", "").body).unwrap();
    for line in [
        "bursar_memory_pressure_level{place=\"inside\"} 0",
        "bursar_memory_pressure_level{place=\"outside\"} 3",
        "bursar_reclaim_total{rung=\"refuse\"} 2",
        "bursar_reclaim_total{rung=\"trim_pools\"} 0",
        "bursar_reclaim_returned_bytes_total{rung=\"refuse\"} 0",
    ] {
        assert!(metrics.contains(line), "{line}");
    }

    pressure.set(Assessment::default());
    assert_eq!(ask().status, 200);
    server.stop();
}
