//! A question to a running server: one GET over HTTP, answered with JSON.

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

/// What the server at the address of the settings says at `path`.
pub(crate) fn get(settings: &Settings, path: &str) -> Result<Value, Failure> {
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
    let ask = || -> std::io::Result<Vec<u8>> {
        let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
        stream.set_read_timeout(Some(PATIENCE))?;
        // HTTP/1.0: the answer ends with the connection and comes in one piece.
        write!(
            stream,
            "GET {path} HTTP/1.0\r\nHost: {address}\r\nConnection: close\r\n{key}\r\n"
        )?;
        let mut bytes = Vec::new();
        stream.take(ANSWER_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = ask().map_err(|error| failed(error.to_string()))?;
    let text = String::from_utf8_lossy(&bytes);
    let Some((head, body)) = text.split_once("\r\n\r\n") else {
        return Err(failed("what listens there does not speak HTTP".to_owned()));
    };
    let value: Value = serde_json::from_str(body)
        .map_err(|_| failed("what listens there is no Bursar".to_owned()))?;
    match head.split(' ').nth(1) {
        Some("200") => Ok(value),
        _ => {
            let message = value["error"]["message"].as_str();
            Err(failed(message.unwrap_or("it refuses").to_owned()))
        }
    }
}
