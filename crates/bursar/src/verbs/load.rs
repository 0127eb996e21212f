//! `bursar load MODEL` and `bursar stop MODEL`: a running server made to load a model, or to unload it.

use bursar_memory::Bytes;
use clap::Args;
use serde_json::{Value, json};

use crate::config::{SettingFlags, Settings};
use crate::failure::Failure;
use crate::output::Out;
use crate::progress::Unit;
use crate::verbs::{Shared, ask};

/// What can be given.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Its name, as the server's clients give it
    #[arg(value_name = "MODEL")]
    model: String,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingFlags<ask::Takes>,
}

/// How often it is asked how far loading is.
const LOOK: std::time::Duration = std::time::Duration::from_millis(200);

/// Has it loaded, and says how that went.
pub(crate) fn run(arguments: &Arguments, shared: &Shared) -> Result<(), Failure> {
    let settings = shared.settings(&arguments.settings)?;
    let path = address(&arguments.model);
    let loaded = std::thread::scope(|scope| {
        let loading = scope.spawn(|| ask::post(&settings, &format!("{path}/load"), &json!({})));
        watch(&settings, &path, arguments, shared, || {
            loading.is_finished()
        });
        // A panic has been reported where it happened.
        loading
            .join()
            .unwrap_or_else(|_| Err(Failure::failed("the request was not finished")))
    })?;
    say(arguments, &loaded)
}

/// Has it unloaded, and says how that went.
pub(crate) fn stop(arguments: &Arguments, shared: &Shared) -> Result<(), Failure> {
    let settings = shared.settings(&arguments.settings)?;
    let path = format!("{}/unload", address(&arguments.model));
    let unloaded = ask::post(&settings, &path, &json!({}))?;
    say(arguments, &unloaded)
}

/// Shows how far it is until it is done.
fn watch(
    settings: &Settings,
    path: &str,
    arguments: &Arguments,
    shared: &Shared,
    done: impl Fn() -> bool,
) {
    let label = format!("loading {}", arguments.model);
    let mut meter = shared.progress.meter(&label, Unit::Percent, 100);
    while !done() {
        if let Ok(model) = ask::get(settings, path) {
            let ratio = model["loaded_ratio"].as_f64().unwrap_or(0.0);
            meter.set((ratio * 100.0) as u64, String::new);
        }
        std::thread::park_timeout(LOOK);
    }
    meter.finish();
}

fn say(arguments: &Arguments, model: &Value) -> Result<(), Failure> {
    let mut out = Out::new();
    if arguments.json {
        out.json(model)?;
        return out.flush();
    }
    let state = model["state"].as_str().unwrap_or("unknown");
    let mut words = format!("{} is {state}", arguments.model);
    if let (true, Some(bytes)) = (state == "loaded", model["bytes"].as_u64()) {
        words = format!("{words}, {}", Bytes(bytes));
        if let Some(seconds) = model["load_seconds"].as_f64() {
            words = format!("{words}, loaded in {seconds:.1} s");
        }
    }
    out.line(words)?;
    out.flush()
}

/// A model's address at a server.
fn address(model: &str) -> String {
    let mut path = "/v1/models/".to_owned();
    for byte in model.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b'/' => {
                path.push(char::from(byte));
            }
            byte => path.push_str(&format!("%{byte:02X}")),
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_encoded() {
        assert_eq!(address("a b/c-1.2%"), "/v1/models/a%20b/c-1.2%25");
        assert_eq!(address("\u{e4}"), "/v1/models/%C3%A4");
    }
}
