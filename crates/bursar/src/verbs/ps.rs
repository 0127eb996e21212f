//! `bursar ps`: the models of a running server and what they hold.

use bursar_memory::Bytes;
use clap::Args;
use serde_json::Value;

use crate::config::SettingFlags;
use crate::failure::Failure;
use crate::output::{Align, Out, Table};
use crate::verbs::{Shared, ask};

/// What can be given.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingFlags<ask::Takes>,
}

/// Prints them.
pub(crate) fn run(arguments: &Arguments, shared: &Shared) -> Result<(), Failure> {
    let settings = shared.settings(&arguments.settings)?;
    let memory = ask::get(&settings, "/memory")?;
    let mut out = Out::new();
    if arguments.json {
        out.json(&memory["models"])?;
        return out.flush();
    }
    out.line(table(&memory))?;
    let size = |name: &str| size(&memory[name]);
    out.line(format!(
        "BUDGET {}  GRANTED {}  MEASURED {}",
        size("budget_bytes"),
        size("granted_bytes"),
        size("rss_bytes"),
    ))?;
    out.flush()
}

/// A number of bytes, readable.
pub(crate) fn size(value: &Value) -> String {
    let bytes = value.as_u64().map(|bytes| Bytes(bytes).to_string());
    bytes.unwrap_or_else(|| "-".to_owned())
}

/// When a model goes, in words.
fn until(model: &Value) -> String {
    let seconds = |name: &str| model[name].as_f64();
    if model["state"] != "loaded" {
        return "-".to_owned();
    }
    if model["pinned"] == true {
        return "unloaded".to_owned();
    }
    match (seconds("expires_seconds"), seconds("keep_alive_seconds")) {
        (Some(left), _) => format!("{} from now", span(left)),
        (None, Some(keep)) => format!("{} unused", span(keep)),
        (None, None) => "needed by others".to_owned(),
    }
}

/// A length of time in its largest whole unit.
fn span(seconds: f64) -> String {
    match seconds.ceil() as u64 {
        seconds @ ..120 => format!("{seconds} s"),
        seconds @ ..7200 => format!("{} min", seconds / 60),
        seconds => format!("{} h", seconds / 3600),
    }
}

fn table(memory: &Value) -> Table {
    let mut table = Table::new(&[
        ("NAME", Align::Left),
        ("STATE", Align::Left),
        ("WEIGHTS", Align::Right),
        ("KV", Align::Right),
        ("ACTIVATIONS", Align::Right),
        ("INFLIGHT", Align::Right),
        ("PIN", Align::Left),
        ("UNTIL", Align::Left),
    ]);
    for model in memory["models"].as_array().into_iter().flatten() {
        let word = |name: &str| model[name].as_str().unwrap_or("-").to_owned();
        table.row([
            word("id"),
            word("state"),
            size(&model["weights_bytes"]),
            size(&model["kv_bytes"]),
            size(&model["activations_bytes"]),
            model["inflight"].to_string(),
            if model["pinned"] == true { "yes" } else { "no" }.to_owned(),
            until(model),
        ]);
    }
    table
}
