//! `bursar memory`: who holds which memory of a running server, as a tree.

mod kv;

use clap::Args;
use serde_json::Value;

use crate::config::SettingFlags;
use crate::failure::Failure;
use crate::output::{Align, Out, Table};
use crate::verbs::ps::size;
use crate::verbs::{Shared, ask};

/// What can be given.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Print the report on keys and values instead
    #[arg(long)]
    kv: bool,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingFlags<ask::Takes>,
}

/// Prints it.
pub(crate) fn run(arguments: &Arguments, shared: &Shared) -> Result<(), Failure> {
    let settings = shared.settings(&arguments.settings)?;
    let memory = ask::get(&settings, "/memory")?;
    let mut out = Out::new();
    match (arguments.json, arguments.kv) {
        (true, true) => out.json(&memory["kv"])?,
        (true, false) => out.json(&memory)?,
        (false, true) => {
            let reports = memory["kv"].as_array().into_iter().flatten();
            for (place, report) in reports.enumerate() {
                if place > 0 {
                    out.line("")?;
                }
                out.line(kv::page(report))?;
            }
        }
        (false, false) => {
            let mut table = Table::new(&[
                ("ACCOUNT", Align::Left),
                ("LIFETIME", Align::Left),
                ("GRANTED", Align::Right),
                ("PEAK", Align::Right),
                ("MEASURED", Align::Right),
            ]);
            rows(&memory["tree"], 0, &mut table);
            out.line(table)?;
            out.line(format!(
                "budget {}, resident {}, at most {}; pressure {}",
                size(&memory["budget_bytes"]),
                size(&memory["rss_bytes"]),
                size(&memory["rss_peak_bytes"]),
                memory["pressure"].as_str().unwrap_or("unknown"),
            ))?;
        }
    }
    out.flush()
}

/// An account and all below it.
fn rows(node: &Value, depth: usize, table: &mut Table) {
    let word = |name: &str| node[name].as_str().unwrap_or("-").to_owned();
    table.row([
        format!("{}{}", "  ".repeat(depth), word("name")),
        word("lifetime"),
        size(&node["granted_bytes"]),
        size(&node["peak_bytes"]),
        size(&node["measured_bytes"]),
    ]);
    for child in node["children"].as_array().into_iter().flatten() {
        rows(child, depth + 1, table);
    }
}
