//! Requests that are refused, by a server that is started for it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Stdio};

use serde_json::Value;

use crate::page::{Says, Section, Told, says};
use crate::support::{PROGRAM, Place, model};

/// A server, ended when it is dropped.
struct Server {
    child: Child,
    address: String,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Server {
    fn start(place: &Place, arguments: &[&str]) -> Server {
        let mut command = place.command(PROGRAM);
        command
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(arguments);
        let mut child = command
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut errors = BufReader::new(child.stderr.take().expect("stderr"));
        let mut line = String::new();
        let address = loop {
            line.clear();
            assert!(
                errors.read_line(&mut line).expect("text") > 0,
                "it ended before it served"
            );
            // The port opens earlier; what is asked then is told to come back.
            if let Some((_, rest)) = line.split_once("at http://") {
                break rest.split(' ').next().expect("an address").to_owned();
            }
        };
        // What it says later goes nowhere.
        std::thread::spawn(move || std::io::copy(&mut errors, &mut std::io::sink()));
        Server { child, address }
    }

    /// Sends a head, and a body or the beginning of one.
    fn send(&self, head: &str, body: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(&self.address).expect("it listens");
        let mut bytes = format!("{head}\r\n").into_bytes();
        bytes.extend_from_slice(body);
        // A server that refuses early does not read all.
        let _ = stream.write_all(&bytes);
        stream
    }

    fn ask(&self, title: &'static str, line: &str, head: &str, body: &str, says: Says) -> Told {
        let length = body.len();
        let whole = format!("{line} HTTP/1.0\r\n{head}Content-Length: {length}\r\n");
        let stream = self.send(&whole, body.as_bytes());
        let shown = match body.char_indices().nth(120) {
            Some((end, _)) => format!("{}...", &body[..end]),
            None => body.to_owned(),
        };
        let how = format!("{line}   {shown}");
        told(title, how.trim_end().to_owned(), stream, says)
    }

    fn post(&self, title: &'static str, path: &str, body: &str, says: Says) -> Told {
        let json = "Content-Type: application/json\r\n";
        self.ask(title, &format!("POST {path}"), json, body, says)
    }
}

/// An error's answer, read to its end.
fn told(title: &'static str, how: String, mut stream: TcpStream, says: Says) -> Told {
    let mut bytes = Vec::new();
    // A connection that is reset after the answer has given the answer.
    let _ = stream.read_to_end(&mut bytes);
    let text = String::from_utf8_lossy(&bytes);
    let (head, body) = text.split_once("\r\n\r\n").expect("an answer");
    let status = head.split(' ').nth(1).expect("a status").to_owned();
    let body: Value = serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {text}"));
    let error = &body["error"];
    let mut came = format!("status {status}");
    if let Some(code) = error["code"].as_str() {
        came.push_str(&format!(", code `{code}`"));
    }
    if let Some(param) = error["param"].as_str() {
        came.push_str(&format!(", param `{param}`"));
    }
    if head.to_ascii_lowercase().contains("retry-after:") {
        came.push_str(", with `Retry-After`");
    }
    if error["memory"]["budget_bytes"].as_u64().is_some() {
        came.push_str(", with `error.memory`");
    }
    let message = error["message"].as_str().expect("a message").to_owned();
    Told::new(title, how, came, message, says)
}

pub(crate) fn section() -> Section {
    let place = Place::new();
    let (llama, bert) = (model("llama"), model("bert-mean"));
    let limits = [
        "--limits-body",
        "48MiB",
        "--parallel",
        "1",
        "--limits-queue",
        "1",
    ];
    let memory = [
        "--memory",
        "120MiB",
        "--kv-memory",
        "64KiB",
        "--models-dir",
        "models",
    ];
    std::fs::create_dir_all(place.path("models")).expect("a folder");
    place
        .bursar("synth tiny-llama:f32 -o models/larger.gguf")
        .ok();
    let models: [&str; 2] = [&llama, &bert];
    let server = Server::start(&place, &[&models[..], &limits, &memory].concat());
    let keyed = {
        place.write("keys", &"k".repeat(40));
        Server::start(&place, &[&llama, "--api-key-file", "keys"])
    };
    let text = "Content-Type: text/plain\r\n";
    let long = "the miller mended ".repeat(300);
    Section {
        title: "Requests",
        words: "Answers have OpenAI's form; the text is `error.message`. `error.memory` has what was asked for, \
                what is free,\nthe budget, and who holds most.",
        told: vec![
            server.post(
                "A body that is not JSON",
                "/v1/completions",
                "{\"model\": \"llama\",\n \"prompt\": }",
                says("prompt is no JSON", "at byte 30", "", "expected a value"),
            ),
            server.post(
                "A body nested too deep",
                "/v1/completions",
                &format!("{{\"prompt\": {}{}}}", "[".repeat(500), "]".repeat(500)),
                says("nested deeper", "prompt[0]", "64 levels", "flatten it"),
            ),
            server.post(
                "A parameter out of its range",
                "/v1/completions",
                r#"{"model": "llama", "prompt": "Hi", "temperature": -1}"#,
                says("temperature is", "temperature", "-1", "it must be between"),
            ),
            server.post(
                "A parameter of another type",
                "/v1/completions",
                r#"{"model": "llama", "prompt": "Hi", "max_tokens": "ten"}"#,
                says(
                    "the text \"ten\"",
                    "max_tokens",
                    "",
                    "it must be a whole number",
                ),
            ),
            server.post(
                "A model that is not served",
                "/v1/completions",
                r#"{"model": "other", "prompt": "Hi"}"#,
                says("is not served", "\"other\"", "", "there is"),
            ),
            server.post(
                "A model that does something else",
                "/v1/embeddings",
                r#"{"model": "llama", "input": "Hi"}"#,
                says(
                    "not to make vectors",
                    "model llama",
                    "",
                    "name a model that embeds",
                ),
            ),
            server.post(
                "A prompt longer than the context",
                "/v1/completions",
                &format!(r#"{{"model": "llama", "prompt": "{long}"}}"#),
                says(
                    "has 1803 tokens",
                    "prompt",
                    "the context holds 240",
                    "shorten it",
                ),
            ),
            server.post(
                "A text longer than the model embeds",
                "/v1/embeddings",
                &format!(r#"{{"model": "bert-mean", "input": ["Hi", "{long}"]}}"#),
                says("tokens", "input[1]", "more than the 32", "shorten it"),
            ),
            server.ask(
                "An address that there is not",
                "GET /v2/models",
                "",
                "",
                says("nothing", "/v2/models", "", "begin with /v1"),
            ),
            server.ask(
                "A method that an address does not take",
                "GET /v1/completions",
                "",
                "",
                says("another method", "this address", "", "the header Allow"),
            ),
            server.ask(
                "A body that is not said to be JSON",
                "POST /v1/completions",
                text,
                "{}",
                says("body", "Content-Type", "", "application/json"),
            ),
            told(
                "A body larger than the limit",
                "POST /v1/completions   Content-Length: 1000000000".to_owned(),
                server.send(
                    "POST /v1/completions HTTP/1.0\r\nContent-Type: application/json\r\n\
                     Content-Length: 1000000000\r\n",
                    b"",
                ),
                says("body is larger", "body", "50331648 bytes", "send less"),
            ),
            keyed.post(
                "A request without a key",
                "/v1/completions",
                "{}",
                says("key", "Authorization", "", "Bearer"),
            ),
            queue_full(&server),
            watchers_full(&server),
        ],
    }
}

/// One request runs, one waits, and one more comes. Those that run hold what they do not read.
fn queue_full(server: &Server) -> Told {
    let body = r#"{"model": "llama", "prompt": "Hi", "max_tokens": 200, "ignore_eos": true, "stream": true}"#;
    let head = |body: &str| {
        format!(
            "POST /v1/completions HTTP/1.0\r\nContent-Type: application/json\r\nContent-Length: {}\r\n",
            body.len()
        )
    };
    let many = body.replace("\"Hi\"", "[\"a\", \"b\", \"c\", \"d\", \"e\", \"f\"]");
    told(
        "More requests than may wait",
        format!("POST /v1/completions   {many}"),
        server.send(&head(&many), many.as_bytes()),
        says("wait already", "requests", "1 requests", "try again in"),
    )
}

/// As many watch as may, each of whom has begun to be answered, and one more comes.
fn watchers_full(server: &Server) -> Told {
    let line = "GET /memory/events";
    let watching: Vec<TcpStream> = (0..16)
        .map(|_| {
            let mut stream = server.send(&format!("{line} HTTP/1.0\r\n"), b"");
            let mut begun = [0; 16];
            stream.read_exact(&mut begun).expect("an answer");
            stream
        })
        .collect();
    let told = told(
        "More pages than may watch",
        line.to_owned(),
        server.send(&format!("{line} HTTP/1.0\r\n"), b""),
        says("watch this server", "server", "16", "close a page"),
    );
    drop(watching);
    told
}
