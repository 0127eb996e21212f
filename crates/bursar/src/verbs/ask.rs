//! A question to a running server, or a wish: one request over HTTP, answered with JSON.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use serde_json::Value;

use crate::config::table::{self, Setting};
use crate::config::{Settings, TakesSettings};
use crate::failure::Failure;

/// What decides which server is asked, and as whom.
#[derive(Debug)]
pub(crate) struct Takes;

impl TakesSettings for Takes {
    const SETTINGS: &'static [&'static Setting] =
        &[&table::LISTEN, &table::API_KEY_FILE, &table::TENANTS_FILE];
}

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Most bytes of an answer.
const ANSWER_BYTES_MAX: u64 = 16 << 20;

/// How long a model may take to be loaded.
const LOAD_PATIENCE: Duration = Duration::from_secs(3600);

/// What the server at the address of the settings says at `path`.
pub(crate) fn get(settings: &Settings, path: &str) -> Result<Value, Failure> {
    ask(settings, "GET", path, "", PATIENCE)
}

/// What it says to `body` at `path`.
pub(crate) fn post(settings: &Settings, path: &str, body: &Value) -> Result<Value, Failure> {
    ask(settings, "POST", path, &body.to_string(), LOAD_PATIENCE)
}

fn ask(
    settings: &Settings,
    method: &str,
    path: &str,
    body: &str,
    patience: Duration,
) -> Result<Value, Failure> {
    let address = settings.listen();
    let failed = |what: String| {
        Failure::failed(format!("cannot ask the server at http://{address}: {what}"))
            .help("start one with `bursar serve`, or say where it listens with --listen")
    };
    let key = match settings.api_key_file().or(settings.tenants_file()) {
        Some(file) => {
            let text =
                std::fs::read_to_string(file).map_err(|error| Failure::io("read", file, &error))?;
            let mut lines = text.lines().map(str::trim);
            let line = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
            // A tenant's name, if there is one, stands before its key.
            let key = line.unwrap_or_default().rsplit(char::is_whitespace).next();
            format!("Authorization: Bearer {}\r\n", key.unwrap_or_default())
        }
        None => String::new(),
    };
    let exchange = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(patience))?;
        // HTTP/1.0: the answer ends with the connection and comes in one piece.
        write!(
            stream,
            "{method} {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n{key}\r\n{body}",
            body.len()
        )?;
        let mut bytes = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = exchange().map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8_lossy(&bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Err(failed("what listens there does not speak HTTP".to_owned()));
    };
    let value: Value = serde_json::from_str(body)
        .map_err(|_| failed("what listens there is no Bursar".to_owned()))?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(value),
        status => {
            let message = value["error"]["message"].as_str();
            let message = message.unwrap_or("it refuses").to_owned();
            // What is wrong with the question is not the address's fault.
            Err(match status {
                Some("401" | "403") => failed(message),
                _ => Failure::failed(message),
            })
        }
    }
}
