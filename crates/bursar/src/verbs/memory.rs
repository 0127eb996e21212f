//! `bursar memory`: who holds which memory of a running server, as a tree.
//!
//! - `kv`: the report on keys and values as a page.
//! - `ledger`: the tree as a picture.
//! - `over_time`: a trace of the pools as a picture.
//! - `pools`: the pools as a page.

mod kv;
mod ledger;
mod over_time;
mod pools;

use std::path::PathBuf;

use clap::Args;
use serde_json::{Value, json};

use crate::config::table::{self, Setting};
use crate::config::{SettingFlags, TakesSettings};
use crate::failure::Failure;
use crate::output::{Align, Out, Table};
use crate::picture;
use crate::verbs::ps::size;
use crate::verbs::{Shared, ask};

/// What can be given.
#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// Print the report on keys and values instead
    #[arg(long)]
    kv: bool,
    /// Print the report on pools and shared parameters instead
    #[arg(long, conflicts_with = "kv")]
    pools: bool,
    /// Draw who holds what now into FILE; with --trace, the pools over time
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Instead of asking a server, replay a trace that `bursar serve --pool-record` wrote, with the
    /// pools of the settings
    #[arg(long, value_name = "TRACE", requires = "svg", conflicts_with_all = ["kv", "pools", "json"])]
    trace: Option<PathBuf>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    settings: SettingFlags<Takes>,
}

/// What decides which server is asked, and how a trace is replayed.
#[derive(Debug)]
pub(crate) struct Takes;

impl TakesSettings for Takes {
    const SETTINGS: &'static [&'static Setting] = &[
        &table::LISTEN,
        &table::API_KEY_FILE,
        &table::TENANTS_FILE,
        &table::MEMORY,
        &table::POOL_HEAPS,
        &table::POOL_HEAP_SIZE,
        &table::POOL_MAX_HEAPS,
        &table::POOL_GROWTH_TRIGGER,
        &table::POOL_STRATEGY,
        &table::POOL_COMPACTION_ENABLED,
        &table::POOL_COMPACTION_THRESHOLD,
        &table::POOL_COMPACTION_INTERVAL,
        &table::MEMBRANES_ENABLED,
        &table::MEMBRANES_DEPTH,
        &table::MEMBRANES_LIMIT,
    ];
}

/// Prints it.
pub(crate) fn run(arguments: &Arguments, shared: &Shared) -> Result<(), Failure> {
    let settings = shared.settings(&arguments.settings)?;
    if let (Some(trace), Some(svg)) = (&arguments.trace, &arguments.svg) {
        return over_time::draw(trace, svg, &settings);
    }
    let memory = ask::get(&settings, "/memory")?;
    if let Some(path) = &arguments.svg {
        picture::write(path, &ledger::draw(&memory))?;
    }
    let mut out = Out::new();
    if arguments.pools {
        match arguments.json {
            true => out.json(&json!({
                "pools": memory["pools"],
                "membranes": memory["membranes"],
                "params": memory["params"],
            }))?,
            false => pooled(&memory, &mut out)?,
        }
        return out.flush();
    }
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
            for line in told(&memory) {
                out.line(line)?;
            }
        }
    }
    out.flush()
}

/// The pools, and the parameters that requests share.
fn pooled(memory: &Value, out: &mut Out) -> Result<(), Failure> {
    out.line(pools::page(memory))?;
    let params = &memory["params"];
    let ratio = params["dedup_ratio"].as_f64().unwrap_or(0.0);
    out.line(format!(
        "\nsampling parameters: {} different ones of {} requests ({:.1} % found theirs there) in {}",
        params["unique"],
        params["requests_total"],
        100.0 * ratio,
        size(&params["bytes"]),
    ))
}

/// Events of the ladder that are printed; all there are is in `--json`.
const EVENTS: usize = 5;

/// Why memory is short, who waits, and what was done lately.
fn told(memory: &Value) -> Vec<String> {
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut lines = Vec::new();
    if let Some(cause) = memory["pressure_detail"]["cause"].as_str() {
        lines.push(format!("short because {cause}"));
    }
    for waits in list(&memory["waiting"]) {
        let (model, requests) = (word(&waits["model"]), &waits["requests"]);
        let reason = word(&waits["reason"]);
        lines.push(format!("{model}: {requests} waiting; the first: {reason}"));
    }
    for event in list(&memory["reclaim"]["recent"]).iter().take(EVENTS) {
        let times = match event["times"].as_u64() {
            Some(times) if times > 1 => format!(" x {times}"),
            _ => String::new(),
        };
        let (rung, model) = (word(&event["rung"]), word(&event["model"]));
        let returned = size(&event["returned_bytes"]);
        let reason = word(&event["reason"]);
        lines.push(format!("{rung}{times}, {model}, {returned} back: {reason}"));
    }
    lines
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
