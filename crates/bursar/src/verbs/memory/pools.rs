//! The pools as a page to read; `bursar membranes` has the levels.

use serde_json::Value;

use crate::output::{Table, grouped};
use crate::verbs::ps::size;

fn count(value: &Value) -> String {
    value.as_u64().map_or("-".to_owned(), grouped)
}

fn percent(value: &Value) -> String {
    let share = value.as_f64();
    share.map_or("-".to_owned(), |share| format!("{:.1} %", share * 100.0))
}

/// What a row says of a pool.
type Tell = fn(&Value) -> String;

/// One column for each pool.
pub(super) fn page(memory: &Value) -> Table {
    let pools: Vec<&Value> = memory["pools"].as_array().into_iter().flatten().collect();
    let word = |value: &Value| value.as_str().unwrap_or("-").to_owned();
    let rows: [(&str, Tell); 8] = [
        ("device", |pool| {
            pool["device"].as_str().unwrap_or("-").to_owned()
        }),
        ("bytes", |pool| {
            let (used, capacity) = (size(&pool["used_bytes"]), size(&pool["capacity_bytes"]));
            let share = percent(&pool["utilisation_ratio"]);
            format!("{used} of {capacity} in use ({share})")
        }),
        ("heaps", |pool| match pool["heaps_total"].as_u64() {
            None | Some(0) => "-".to_owned(),
            Some(heaps) => {
                let (active, most) = (count(&pool["heaps_active"]), count(&pool["heaps_max"]));
                format!("{heaps}, {active} of them in use, at most {most}")
            }
        }),
        ("blocks", |pool| {
            let [acquired, released] =
                ["acquired_total", "released_total"].map(|name| count(&pool[name]));
            format!(
                "{acquired} taken, {released} given back, {} out",
                count(&pool["active"])
            )
        }),
        ("hits", |pool| percent(&pool["hit_ratio"])),
        ("fallbacks", |pool| count(&pool["fallback_total"])),
        ("sizes", |pool| {
            let [average, largest] =
                ["average_bytes", "largest_bytes"].map(|name| size(&pool[name]));
            format!("{average} on average, {largest} at most")
        }),
        ("leaked", |pool| count(&pool["leaked"])),
    ];
    let mut table = Table::plain(3);
    let name = |place: usize| {
        pools
            .get(place)
            .map_or(String::new(), |pool| word(&pool["name"]))
    };
    table.row(["pool".to_owned(), name(0), name(1)]);
    for (row, tell) in rows {
        let cell = |place: usize| pools.get(place).map_or(String::new(), |pool| tell(pool));
        table.row([row.to_owned(), cell(0), cell(1)]);
    }
    table
}
