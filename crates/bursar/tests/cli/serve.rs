//! A server as its user meets it: started, asked, looked into, and told to stop.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use serde_json::Value;

use crate::support::{PROGRAM, Place, model};

/// A server that is ended with its test.
pub(crate) struct Served {
    child: Child,
    pub(crate) address: String,
    errors: BufReader<std::process::ChildStderr>,
}

impl Served {
    pub(crate) fn start(place: &Place, arguments: &[&str]) -> Served {
        Served::by(place.command(PROGRAM), arguments)
    }

    /// Started by a command that ends in the program.
    pub(crate) fn by(mut command: Command, arguments: &[&str]) -> Served {
        command.args(["serve", "--listen", "127.0.0.1:0"]);
        let mut child = command
            .args(arguments)
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut errors = BufReader::new(child.stderr.take().expect("stderr"));
        let mut line = String::new();
        let address = loop {
            line.clear();
            let read = errors.read_line(&mut line).expect("stderr is read");
            assert!(read > 0, "the server ended before it served");
            // The port opens before that; what is asked for then is told to come back.
            if let Some((_, rest)) = line.split_once("at http://") {
                break rest.split(' ').next().expect("an address").to_owned();
            }
        };
        Served {
            child,
            address,
            errors,
        }
    }

    pub(crate) fn post(&self, path: &str, body: &str) -> String {
        let mut stream = TcpStream::connect(&self.address).expect("the server listens");
        let length = body.len();
        write!(
            stream,
            "POST {path} HTTP/1.0\r\nContent-Type: application/json\r\n\
             Content-Length: {length}\r\n\r\n{body}"
        )
        .expect("the request is written");
        let mut text = String::new();
        stream.read_to_string(&mut text).expect("an answer");
        text
    }

    /// Sends SIGTERM; gives the exit code and the rest of stderr.
    pub(crate) fn stop(mut self) -> (Option<i32>, String) {
        let id = self.child.id().to_string();
        let killed = Command::new("kill").args(["-TERM", &id]).status();
        assert!(killed.expect("kill runs").success());
        let code = self.child.wait().expect("the server ends").code();
        let mut rest = String::new();
        self.errors
            .read_to_string(&mut rest)
            .expect("stderr is read");
        (code, rest)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// B1
#[cfg(feature = "pocket")]
#[test]
fn without_models_the_bundled_ones_are_served_in_a_small_budget() {
    let place = Place::new();
    let served = Served::start(&place, &["--memory", "512MiB"]);
    let chat = served.post(
        "/v1/chat/completions",
        r#"{"model": "pocket-chat", "max_tokens": 4, "messages": [{"role": "user", "content": "Hi"}]}"#,
    );
    assert!(
        chat.contains("200 OK") && chat.contains("\"choices\""),
        "{chat}"
    );
    let vectors = served.post(
        "/v1/embeddings",
        r#"{"model": "pocket-embed", "input": ["open the door", "count the lamps"]}"#,
    );
    assert!(
        vectors.contains("200 OK") && vectors.contains("\"embedding\":["),
        "{vectors}"
    );
    let status = format!("/proc/{}/status", served.child.id());
    let status = std::fs::read_to_string(status).expect("the process runs");
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|peak| peak.split_whitespace().next()?.parse::<u64>().ok());
    assert!(kib < Some(512 << 10) && kib > Some(0), "{status}");
    assert_eq!(served.stop().0, Some(0));
}

/// What the program adds to the server, plans, is as the server describes it; whether they fit or not.
#[test]
fn plans_are_as_they_are_described() {
    let document = include_str!("../../../server/src/openapi.json");
    let document: serde_json::Value = serde_json::from_str(document).expect("JSON");
    let place = Place::new();
    let (chat, embedding) = (model("llama-f16.gguf"), model("qwen3-embedding"));
    let served = Served::start(&place, &[&chat, &embedding, "--memory", "256MiB"]);
    let plan = &document["components"]["schemas"]["Plan"];
    for (name, fits) in [
        ("llama-f16", true),
        ("llama-f16", false),
        ("qwen3-embedding", true),
    ] {
        let budget = if fits { "268435456" } else { "1048576" };
        let body = format!(r#"{{"budget_bytes":{budget},"context":64,"kv_dtype":"f16"}}"#);
        let answer = served.post(&format!("/v1/models/{name}/plan"), &body);
        let (head, body) = answer.split_once("\r\n\r\n").expect("a body");
        assert!(head.contains("200 OK"), "{answer}");
        let body: serde_json::Value = serde_json::from_str(body).expect("JSON");
        assert_eq!(body["fits"], fits);
        assert_eq!(
            crate::schema::check(&document, plan, &body),
            Vec::<String>::new()
        );
    }
    assert_eq!(served.stop().0, Some(0));
}

#[test]
fn a_server_answers_is_looked_into_and_ends_when_told() {
    let place = Place::new();
    let (chat, embedding) = (model("llama-f16.gguf"), model("qwen3-embedding"));
    let limits = ["--limits-json-depth", "8", "--memory", "256MiB"];
    let models: [&str; 2] = [&chat, &embedding];
    let served = Served::start(&place, &[models.as_slice(), &limits].concat());
    let answer = served.post(
        "/v1/completions",
        r#"{"model":"llama-f16","prompt":"The miller","max_tokens":4,"temperature":0}"#,
    );
    assert!(answer.contains("\"completion_tokens\":"), "{answer}");
    let answer = served.post(
        "/v1/embeddings",
        r#"{"model":"qwen3-embedding","input":"The miller"}"#,
    );
    assert!(answer.contains("\"embedding\":["), "{answer}");
    let answer = served.post("/v1/completions", r#"{"x":[[[[[[[[0]]]]]]]]}"#);
    assert!(answer.contains("deeper than 8 levels"), "{answer}");

    let at = format!("--listen {}", served.address);
    let listed = place.bursar(&format!("ps {at}")).ok();
    listed.says(&[
        "NAME",
        "llama-f16",
        "qwen3-embedding",
        "loaded",
        "BUDGET 256.0 MiB",
    ]);
    let tree = place.bursar(&format!("memory {at}")).ok();
    tree.says(&["process", "requests", "llama-f16", "weights", "resident"]);
    let kv = place
        .bursar(&format!("memory --kv --json {at}"))
        .ok()
        .json();
    assert_eq!(kv[0]["model"], "llama-f16");
    assert_eq!(kv[0]["blocks_used"], 0);
    let pooled = place.bursar(&format!("memory --pools {at}")).ok();
    pooled.says(&[
        "heaps",
        "buffers",
        "in use",
        "sampling parameters: 1 different",
    ]);
    let levels = place.bursar(&format!("membranes {at}")).ok();
    levels.says(&["LEVEL", "by rooted-trees", "consolidated: 0"]);
    // A picture of it, and advice: of a request or two there is none.
    place.bursar(&format!("memory --svg now.svg {at}")).ok();
    let svg = String::from_utf8(place.read("now.svg")).expect("text");
    assert!(svg.contains("pools") && svg.contains("llama-f16"), "{svg}");
    let advice = place
        .bursar(&format!("tune http://{}", served.address))
        .ok();
    advice.says(&["acquired_total", "Nothing to change."]);
    let report = place.bursar(&format!("memory --json {at}")).ok().json();
    holds_its_plan(&report);

    // A model is unloaded and loaded again from outside.
    let stopped = place.bursar(&format!("stop llama-f16 {at}")).ok();
    stopped.says(&["llama-f16 is absent"]);
    let listed = place.bursar(&format!("ps {at}")).ok();
    assert!(!listed.stdout.contains("llama-f16"), "{listed:?}");
    let loaded = place.bursar(&format!("load llama-f16 {at}")).ok();
    loaded.says(&["llama-f16 is loaded, ", " loaded in "]);
    place
        .bursar(&format!("load other {at}"))
        .refused(1, &["\"other\" is not served here", "llama-f16"]);

    let (code, rest) = served.stop();
    assert_eq!((code, rest.as_str()), (Some(0), ""));
    place
        .bursar(&format!("ps {at}"))
        .refused(1, &["cannot ask the server", "bursar serve"]);
}

/// B5, with models of both kinds at once, all of them used.
#[test]
fn several_models_explain_every_byte() {
    let place = Place::new();
    let names = [
        ("llama-q8_0", "llama-q8_0.gguf"),
        ("qwen3-q4_k_m", "qwen3-q4_k_m.gguf"),
        ("bert-mean", "bert-mean.gguf"),
        ("qwen3-embedding", "qwen3-embedding"),
    ];
    let paths = names.map(|(_, file)| model(file));
    let mut arguments: Vec<&str> = paths.iter().map(String::as_str).collect();
    arguments.extend(["--memory", "512MiB"]);
    arguments.extend(["--monitor-interval", "20ms"]);
    let served = Served::start(&place, &arguments);
    for (index, (name, _)) in names.iter().enumerate() {
        let (path, rest) = match index {
            0 | 1 => ("/v1/completions", r#""prompt":"The miller","max_tokens":8"#),
            _ => ("/v1/embeddings", r#""input":"The miller""#),
        };
        let answer = served.post(path, &format!(r#"{{"model":"{name}",{rest}}}"#));
        assert!(answer.contains("200 OK"), "{answer}");
    }
    let at = format!("--listen {}", served.address);
    let report = place.bursar(&format!("memory --json {at}")).ok().json();
    holds_its_plan(&report);
    let rss = report["rss_bytes"].as_u64().expect("a number");
    let drift = report["drift_bytes"].as_i64().expect("a number");
    let tolerance = (rss / 50).max(32 << 20);
    assert!(drift.unsigned_abs() <= tolerance, "{drift} of {rss}");
    assert_eq!(report["models"].as_array().expect("models").len(), 4);
    assert_eq!(report["kv"].as_array().expect("caches").len(), 2);
    // Nothing presses it from outside here, or the machine is short indeed.
    assert!(report["pressure_detail"]["outside"].is_string());
    assert_eq!(
        report["reclaim"]["rungs"].as_array().expect("rungs").len(),
        9
    );
    assert_eq!(report["waiting"], Value::Array(Vec::new()));
    assert_eq!(served.stop().0, Some(0));
}

/// B1, B2, B5: what is resident is within the plan and close to what was granted, of which every byte
/// has an owner.
fn holds_its_plan(report: &Value) {
    let bytes = |value: &Value| value.as_u64().expect("a number");
    fn leaves(node: &Value) -> u64 {
        match node["children"].as_array().expect("children").as_slice() {
            [] => node["granted_bytes"].as_u64().expect("a number"),
            children => children.iter().map(leaves).sum(),
        }
    }
    let granted = bytes(&report["granted_bytes"]);
    assert!(granted <= bytes(&report["budget_bytes"]));
    assert_eq!(leaves(&report["tree"]), granted);
    let models = report["models"].as_array().expect("models");
    let children = report["tree"]["children"].as_array().expect("children");
    let held = |name: &str| {
        let account = children.iter().find(|child| child["name"] == name);
        bytes(&account.expect("an account")["granted_bytes"])
    };
    let plan = held("process")
        + held("pools")
        + models
            .iter()
            .map(|model| bytes(&model["plan_bytes"]))
            .sum::<u64>();
    let peak = bytes(&report["rss_peak_bytes"]);
    assert!(peak <= plan, "{peak} of {plan}: {report}");
    let rss = bytes(&report["rss_bytes"]);
    assert!(rss.abs_diff(granted) <= 32 << 20, "{rss} of {granted}");
}

#[test]
fn what_cannot_be_served_is_said_at_once() {
    let place = Place::new();
    let chat = model("llama-f16.gguf");
    place
        .bursar(&format!("serve {chat} --listen 0.0.0.0:0"))
        .refused(2, &["can be reached from other machines", "--api-key-file"]);
    place
        .bursar(&format!("serve {chat} --memory 24MiB --listen 127.0.0.1:0"))
        .refused(3, &["MiB"]);
    place
        .bursar(&format!(
            "serve {chat} --api-key-file missing --listen 127.0.0.1:0"
        ))
        .refused(1, &["missing"]);
    place
        .bursar(&format!("serve {chat} {chat} --listen 127.0.0.1:0"))
        .refused(2, &["two models would be called llama-f16"]);
    place
        .bursar("serve --monitor-high 60% --listen 127.0.0.1:0")
        .refused(2, &["elevated at 0.7", "each at least as large"]);
    place
        .bursar("serve --limits-json-depth 129 --listen 127.0.0.1:0")
        .refused(2, &["limits.json_depth", "4 to 128"]);
    place
        .bursar("serve --listen localhost")
        .refused(2, &["not an IP address", "127.0.0.1:8080"]);
}

#[test]
fn models_of_a_folder_are_listed_served_when_asked_for_and_removed() {
    let place = Place::new();
    let folder = place.path("models");
    std::fs::create_dir_all(&folder).expect("a folder");
    for name in ["llama-f16.gguf", "llama-q4_0.gguf", "bert-mean.gguf"] {
        std::fs::copy(model(name), folder.join(name)).expect("a copy");
    }
    let dir = format!("--models-dir {}", folder.display());
    let listed = place.bursar(&format!("list {dir}")).ok();
    listed.says(&["NAME", "llama-f16", "llama-q4_0", "bert-mean", "KiB"]);

    let dir_flag = ["--models-dir", folder.to_str().expect("text")];
    let arguments = ["llama-f16", "--memory", "128MiB", "--min-residency", "0s"];
    let served = Served::start(&place, &[arguments.as_slice(), &dir_flag].concat());
    let ask = |model: &str| {
        let body = format!(r#"{{"model":"{model}","prompt":"The miller","max_tokens":4}}"#);
        served.post("/v1/completions", &body)
    };
    assert!(ask("llama-q4_0").contains("200 OK"));
    let vectors = served.post(
        "/v1/embeddings",
        r#"{"model":"bert-mean","input":"The miller"}"#,
    );
    assert!(vectors.contains("200 OK"), "{vectors}");
    let missing = ask("../models/llama-f16");
    assert!(missing.contains("404 Not Found"), "{missing}");

    // What comes into the folder is there at once, what leaves it is not.
    std::fs::copy(model("llama-q8_0.gguf"), folder.join("new.gguf")).expect("a copy");
    assert!(ask("new").contains("200 OK"));
    std::fs::write(folder.join("broken.gguf"), "GGUF").expect("a file");
    let broken = ask("broken");
    assert!(
        broken.contains("503 ") && broken.contains("model_failed"),
        "{broken}"
    );
    assert!(ask("llama-f16").contains("200 OK"), "it goes on");
    let at = format!("--listen {}", served.address);
    place.bursar(&format!("stop new {at}")).ok();
    place.bursar(&format!("rm new {dir}")).ok();
    place
        .bursar(&format!("rm ../models/llama-f16 {dir}"))
        .refused(1, &["there is no model", "llama-f16"]);
    let gone = ask("new");
    assert!(gone.contains("404 Not Found"), "{gone}");
    let report = place.bursar(&format!("memory --json {at}")).ok().json();
    keeps_its_budget(&report);
    assert_eq!(served.stop().0, Some(0));
}

/// B1, where models have come and gone.
fn keeps_its_budget(report: &Value) {
    let bytes = |name: &str| report[name].as_u64().expect("a number");
    let budget = bytes("budget_bytes");
    assert!(bytes("granted_peak_bytes") <= budget, "{report}");
    assert!(bytes("rss_peak_bytes") <= budget, "{report}");
}

#[test]
fn a_model_that_does_not_fit_beside_another_gets_what_that_can_spare() {
    let place = Place::new();
    let (first, second) = (model("llama-f16.gguf"), model("llama-q8_0.gguf"));
    // Enough for either and not for both: each is told to take half of it for keys and values.
    let memory = [
        "--memory",
        "128MiB",
        "--kv-memory",
        "64MiB",
        "--min-residency",
        "0s",
    ];
    let served = Served::start(
        &place,
        &[[first.as_str(), &second].as_slice(), &memory].concat(),
    );
    for name in ["llama-f16", "llama-q8_0", "llama-f16", "llama-q8_0"] {
        let body = format!(r#"{{"model":"{name}","prompt":"The miller","max_tokens":4}}"#);
        let answer = served.post("/v1/completions", &body);
        assert!(answer.contains("200 OK"), "{answer}");
    }
    let at = format!("--listen {}", served.address);
    let report = place.bursar(&format!("memory --json {at}")).ok().json();
    // The second is loaded when it is asked for: the first gives up keys and values that it can spare,
    // and stays.
    let cache = &report["model_cache"];
    assert_eq!(
        (&cache["loads_total"], &cache["evictions_total"]),
        (&2.into(), &0.into())
    );
    let rungs = report["reclaim"]["rungs"].as_array().expect("rungs");
    let shrunk = rungs.iter().find(|rung| rung["rung"] == "shrink_kv");
    assert!(
        shrunk.expect("a rung")["times_total"].as_u64() >= Some(1),
        "{report}"
    );
    keeps_its_budget(&report);
    assert_eq!(served.stop().0, Some(0));
}
