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
            // Models stay for as long as the server runs.
            "stopped".to_owned(),
        ]);
    }
    table
}
