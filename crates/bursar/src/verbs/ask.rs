//! A question to a running server, or a wish: one request over HTTP, answered with JSON.

use std::time::Duration;

use serde_json::Value;

use crate::config::table::{self, Setting};
use crate::config::{Settings, TakesSettings};
use crate::failure::Failure;
use crate::http::{Connection, Site};

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
    ask(settings, "GET", path, None, PATIENCE)
}

/// What it says to `body` at `path`.
pub(crate) fn post(settings: &Settings, path: &str, body: &Value) -> Result<Value, Failure> {
    ask(
        settings,
        "POST",
        path,
        Some(&body.to_string()),
        LOAD_PATIENCE,
    )
}

/// What the server knows this user by: the first key of the file with keys, or with tenants.
pub(crate) fn key(settings: &Settings) -> Result<Option<String>, Failure> {
    let Some(file) = settings.api_key_file().or(settings.tenants_file()) else {
        return Ok(None);
    };
    let text = std::fs::read_to_string(file).map_err(|error| Failure::io("read", file, &error))?;
    let mut lines = text.lines().map(str::trim);
    let line = lines.find(|line| !line.is_empty() && !line.starts_with('#'));
    // A tenant's name, if there is one, stands before its key.
    let key = line.unwrap_or_default().rsplit(char::is_whitespace).next();
    Ok(key.map(str::to_owned))
}

fn ask(
    settings: &Settings,
    method: &str,
    path: &str,
    body: Option<&str>,
    patience: Duration,
) -> Result<Value, Failure> {
    let site = Site::at(settings.listen());
    let cannot =
        |what: String| Failure::failed(format!("cannot ask the server at {}: {what}", site.url()));
    let failed = |what: String| {
        cannot(what).help("start one with `bursar serve`, or say where it listens with --listen")
    };
    let key = key(settings)?;
    let mut connection = Connection::new(&site, key.as_deref(), patience);
    let mut exchange = || {
        let answer = connection.send(method, path, body)?;
        Ok((answer.status, answer.text(ANSWER_BYTES_MAX)?))
    };
    let (status, text): (u16, String) =
        exchange().map_err(|error: std::io::Error| failed(error.to_string()))?;
    let value: Value = serde_json::from_str(&text)
        .map_err(|_| failed("what listens there is no Bursar".to_owned()))?;
    if status == 200 {
        return Ok(value);
    }
    let message = value["error"]["message"].as_str();
    let message = message.unwrap_or("it refuses").to_owned();
    Err(match status {
        401 | 403 => {
            cannot(message).help("give the file with the server's keys: --api-key-file FILE")
        }
        // What is wrong with the question is not the address's fault.
        _ => Failure::failed(message),
    })
}
