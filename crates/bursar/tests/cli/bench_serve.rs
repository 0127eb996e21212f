//! A server under a stated load: that what is asked and what came of it is told as it is.

use serde_json::Value;

use crate::serve::Served;
use crate::support::{Place, model};

fn figure(sheet: &Value, name: &str) -> f64 {
    let median = sheet["figures"][name]["median"].as_f64();
    median.unwrap_or_else(|| panic!("{name} is missing from {sheet}"))
}

/// P7: a server is started, measured and stopped, and two such sheets can be compared.
#[test]
fn a_server_that_is_started_is_measured() {
    let place = Place::new();
    let llama = model("llama-f16.gguf");
    let load = "--endpoint completions --requests 12 --concurrency 3 --prompt-tokens 8..16 \
                --output-tokens 6 --shared-prefix 16x2 --rounds 2 --memory 256MiB";
    let ran = place
        .bursar(&format!(
            "bench serve {llama} {load} --json a.json -- --parallel 2"
        ))
        .ok();
    ran.says(&[
        "server: started for the measurement",
        "3 clients, one request each at a time",
        "first_token_p99_ms",
        "memory_peak_bytes",
    ]);
    assert!(!ran.stdout.contains("note: failed"), "{}", ran.stdout);
    let sheet: Value = serde_json::from_slice(&place.read("a.json")).expect("JSON");
    assert_eq!(sheet["bench"], "serve");
    assert_eq!(sheet["setting"]["model"], "llama-f16");
    assert_eq!(figure(&sheet, "requests_whole"), 12.0);
    for outcome in ["refused", "cancelled", "failed"] {
        assert_eq!(
            figure(&sheet, &format!("requests_{outcome}")),
            0.0,
            "{sheet}"
        );
    }
    for name in [
        "requests_per_second",
        "input_tokens_per_second",
        "output_tokens_per_second",
        "first_token_p50_ms",
        "inter_token_p99_ms",
        "end_to_end_p95_ms",
    ] {
        assert!(figure(&sheet, name) > 0.0, "{name}");
        assert_eq!(sheet["figures"][name]["count"], 2, "a figure of each round");
    }
    // Twelve answers in the time of the round, of six tokens each: none ended before.
    let tokens = figure(&sheet, "output_tokens_per_second");
    let requests = figure(&sheet, "requests_per_second");
    assert!((tokens / requests - 6.0).abs() < 0.01, "{sheet}");
    let peak = figure(&sheet, "memory_peak_bytes");
    assert!(peak > 1e6 && peak <= f64::from(256 << 20), "{sheet}");

    place
        .bursar(&format!(
            "bench serve {llama} {load} --seed 7 --json b.json -- --parallel 2"
        ))
        .ok();
    let ran = place.bursar("compare a.json b.json --svg ab.svg").ok();
    ran.says(&["first_token_p50_ms", "setting.seed differs: A 0, B 7"]);
    assert!(place.read("ab.svg").starts_with(b"<svg "));
}

#[test]
fn a_running_server_is_measured_by_time_with_clients_that_leave() {
    let place = Place::new();
    let llama = model("llama-f16.gguf");
    let served = Served::start(&place, &[llama.as_str(), "--memory", "256MiB"]);
    let url = format!("http://{}", served.address);
    place.write(
        "trace.jsonl",
        "{\"timestamp\": 0, \"input_length\": 20, \"output_length\": 4, \"hash_ids\": [1]}\n\
         {\"timestamp\": 900, \"input_length\": 24, \"output_length\": 4, \"hash_ids\": [2]}\n\
         {\"timestamp\": 1800, \"input_length\": 24, \"output_length\": 4, \"hash_ids\": [2]}\n",
    );
    let trace = "--endpoint completions --trace trace.jsonl --speedup 100 --json -";
    let sheet = place
        .bursar(&format!("bench serve {url} {trace}"))
        .ok()
        .json();
    assert_eq!(figure(&sheet, "requests_whole"), 3.0, "{sheet}");
    assert_eq!(
        sheet["setting"]["arrivals"],
        "as in trace.jsonl (3 requests), 100 times as fast"
    );
    // What the server itself says.
    assert!(figure(&sheet, "memory_peak_bytes") > 1e6);

    let leave =
        "--endpoint completions --rate 200 --requests 20 --cancel 1 --output-tokens 64 --json -";
    let sheet = place
        .bursar(&format!("bench serve {url} {leave}"))
        .ok()
        .json();
    let ended = figure(&sheet, "requests_cancelled") + figure(&sheet, "requests_whole");
    assert_eq!(ended, 20.0, "{sheet}");
    assert!(figure(&sheet, "requests_cancelled") >= 15.0, "{sheet}");
    assert_eq!(served.stop().0, Some(0));
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let place = Place::new();
    let bench = |arguments: &str| place.bursar(&format!("bench serve {arguments}"));
    bench("https://example.org").refused(2, &["plain HTTP only"]);
    bench("http://127.0.0.1:1").refused(1, &["cannot ask the server at http://127.0.0.1:1"]);
    bench("http://127.0.0.1:1 --memory 1GiB").refused(2, &["only URLs are given"]);
    bench("--rate 1 --concurrency 2").refused(2, &["--concurrency"]);
    bench("--prompt-tokens 9..3").refused(2, &["write the smaller first"]);
    bench("--endpoint embeddings --cancel 10%").refused(2, &["vectors are no streams"]);
    bench("--trace missing.jsonl").refused(1, &["cannot read missing.jsonl"]);
    bench("missing.gguf").refused(
        1,
        &["the server that was to be measured ended", "missing.gguf"],
    );
    bench("http://127.0.0.1:1 --api-key-env NO_SUCH_KEY").refused(2, &["NO_SUCH_KEY"]);
    bench("http://127.0.0.1:1 --model a --model b").refused(2, &["--model is given 2 times for 1"]);
}
