//! `bursar membranes`: the hierarchy of a running server's pools, level by level.

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
    let membranes = &memory["membranes"];
    let mut out = Out::new();
    if arguments.json {
        out.json(membranes)?;
        return out.flush();
    }
    if membranes.is_null() {
        out.line("this server has no membranes: pools or membranes are off")?;
        return out.flush();
    }
    for line in page(membranes) {
        out.line(line)?;
    }
    out.flush()
}

/// The lifetimes, as columns and as names in the report.
const LIFETIMES: [(&str, &str); 4] = [
    ("PROCEDURAL", "procedural"),
    ("EPISODIC", "episodic"),
    ("SEMANTIC", "semantic"),
    ("EMOTIONAL", "emotional"),
];

fn page(membranes: &Value) -> Vec<String> {
    let mut columns = vec![
        ("LEVEL", Align::Right),
        ("WEIGHT", Align::Right),
        ("MEMBRANES", Align::Right),
        ("EACH", Align::Right),
        ("SPAN", Align::Right),
        ("TAKEN", Align::Right),
        ("USED", Align::Right),
        ("EXACT", Align::Right),
        ("SPILLED", Align::Right),
        ("FAILED", Align::Right),
    ];
    columns.extend(LIFETIMES.map(|(column, _)| (column, Align::Right)));
    let mut table = Table::new(&columns);
    for level in membranes["levels"].as_array().into_iter().flatten() {
        let count = |name: &str| level[name].as_u64().unwrap_or(0).to_string();
        let mut row = [const { String::new() }; 14];
        row[..10].clone_from_slice(&[
            count("level"),
            count("weight"),
            format!("{} of {}", count("membranes"), count("membranes_max")),
            size(&level["membrane_bytes"]),
            size(&level["span_bytes"]),
            size(&level["taken_bytes"]),
            size(&level["used_bytes"]),
            count("exact_total"),
            count("spilled_total"),
            count("failed_total"),
        ]);
        for (cell, (_, name)) in row[10..].iter_mut().zip(LIFETIMES) {
            *cell = size(&level["used_bytes_by_lifetime"][name]);
        }
        table.row(row);
    }
    let consolidated = &membranes["consolidated"];
    vec![
        table.to_string(),
        format!(
            "limit {}, by {}; taken {}, used {}; {} blocks were too long for any membrane",
            size(&membranes["limit_bytes"]),
            membranes["weights"].as_str().unwrap_or("-"),
            size(&membranes["taken_bytes"]),
            size(&membranes["used_bytes"]),
            membranes["oversize_total"],
        ),
        format!(
            "consolidated: {} membranes given up, {} moved, {} back to the system",
            consolidated["membranes_total"],
            size(&consolidated["moved_bytes_total"]),
            size(&consolidated["returned_bytes_total"]),
        ),
    ]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// A3
    #[test]
    fn a_level_is_a_row() {
        let report = json!({
            "limit_bytes": 2 << 20, "weights": "rooted-trees", "taken_bytes": 8192, "used_bytes": 4160,
            "oversize_total": 3,
            "levels": [{
                "level": 2, "weight": 1, "membranes": 1, "membranes_max": 2, "membrane_bytes": 4096,
                "span_bytes": 8192, "taken_bytes": 4096, "used_bytes": 64, "exact_total": 5,
                "spilled_total": 6, "failed_total": 7,
                "used_bytes_by_lifetime": {"procedural": 0, "episodic": 64, "semantic": 0, "emotional": 0},
            }],
            "consolidated": {
                "membranes_total": 1, "moved_bytes_total": 1000, "returned_bytes_total": 4096,
            },
        });
        let lines = page(&report);
        let cells: Vec<&str> = lines[0]
            .lines()
            .nth(1)
            .into_iter()
            .flat_map(str::split_whitespace)
            .collect();
        assert_eq!(
            cells.join(" "),
            "2 1 1 of 2 4.0 KiB 8.0 KiB 4.0 KiB 64 B 5 6 7 0 B 64 B 0 B 0 B"
        );
        assert!(
            lines[1].contains("limit 2.0 MiB, by rooted-trees"),
            "{}",
            lines[1]
        );
        assert!(
            lines[2].contains("1 membranes given up, 1000 B moved, 4.0 KiB back"),
            "{}",
            lines[2]
        );
    }
}
