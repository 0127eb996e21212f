//! `bursar bench pool --membranes`: which weights of levels suit recorded loads best, and whether
//! membranes do at all. Every trace is replayed against pools of the default sizes, with the levels
//! weighted by the numbers of rooted trees, all the same, by powers of two, and with none; each with
//! buffers kept and without, since a pool of buffers in front hides most of what comes behind it.

use std::path::{Path, PathBuf};

use bursar_memory::Bytes;
use bursar_memory::heap_pool::Strategy;
use bursar_memory::membrane::Weights;
use bursar_memory::pools::PoolsOptions;
use bursar_memory::trace::{Replay, Trace, Way, picture, replay};

use super::super::sheet::Sheet;
use crate::failure::Failure;
use crate::output::{Align, Out, Table};

/// Where traces are looked for if none are named.
const FOLDER: &str = "bench/traces";

/// A trace and what it is called.
pub(super) struct Named {
    pub(super) name: String,
    pub(super) trace: Trace,
}

/// Replays traces every way and prints what came of it.
pub(super) fn run(
    traces: &[PathBuf],
    json: Option<&Path>,
    svg: Option<&Path>,
) -> Result<(), Failure> {
    let found = match traces {
        [] => found()?,
        given => given.to_vec(),
    };
    let traces: Vec<Named> = found
        .iter()
        .map(|path| read(path))
        .collect::<Result<_, _>>()?;
    if let Some(folder) = svg {
        std::fs::create_dir_all(folder).map_err(|error| Failure::io("make", folder, &error))?;
    }
    let options = PoolsOptions::default();
    let mut sheet = Sheet::new("pool-membranes");
    sheet.set("heap_bytes", options.heap_size.0);
    sheet.set("membranes_limit_bytes", options.membrane_levels().limit.0);
    let mut table = Table::new(&[
        ("TRACE", Align::Left),
        ("BUFFERS", Align::Left),
        ("LEVELS BY", Align::Left),
        ("USED", Align::Right),
        ("HELD", Align::Right),
        ("OVER", Align::Right),
        ("CHARGED", Align::Right),
        ("SPLINTERED", Align::Right),
        ("HITS", Align::Right),
        ("EXACT", Align::Right),
        ("SPILLED", Align::Right),
        ("FAILED", Align::Right),
        ("MAPPED", Align::Right),
        ("NS/EVENT", Align::Right),
    ]);
    let mut verdicts = Vec::new();
    for Named { name, trace } in &traces {
        sheet.set(&format!("{name}_events"), trace.events.len());
        for buffers in [true, false] {
            let mut least: Vec<(u64, &str)> = Vec::new();
            for membranes in Weights::ALL.map(Some).into_iter().chain([None]) {
                let way = Way::Pools {
                    strategy: Strategy::default(),
                    membranes,
                    buffers,
                };
                let done = replay(trace, way, &options)
                    .map_err(|error| Failure::failed(error.to_string()))?;
                let levels = membranes.map_or("none", Weights::name);
                table.row(row(name, buffers, levels, &done));
                figures(&mut sheet, name, buffers, levels, &done);
                least.extend(done.held_peak_bytes.map(|held| (held, levels)));
                if let Some(folder) = svg {
                    draw(folder, name, &done)?;
                }
            }
            verdicts.push(verdict(name, buffers, least));
        }
    }
    let mut out = Out::new();
    if json == Some(Path::new("-")) {
        return sheet.finish(json);
    }
    out.line(table)?;
    out.line("")?;
    for verdict in verdicts {
        out.line(verdict)?;
    }
    out.flush()?;
    match json {
        Some(file) => sheet.write(file),
        None => Ok(()),
    }
}

/// The traces that are named, or those of the folder where there is one.
pub(super) fn read_all(traces: &[PathBuf]) -> Result<Vec<Named>, Failure> {
    let found = match traces {
        [] if !Path::new(FOLDER).is_dir() => Vec::new(),
        [] => found()?,
        given => given.to_vec(),
    };
    found.iter().map(|path| read(path)).collect()
}

/// The traces of the folder, by name.
fn found() -> Result<Vec<PathBuf>, Failure> {
    let folder = Path::new(FOLDER);
    let entries = std::fs::read_dir(folder).map_err(|error| {
        Failure::io("read", folder, &error)
            .help("name traces: `bursar serve --pool-record FILE` writes one")
    })?;
    let mut traces: Vec<PathBuf> = entries
        .filter_map(|entry| entry.ok().map(|entry| entry.path()))
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "json")
        })
        .collect();
    traces.sort();
    if traces.is_empty() {
        return Err(Failure::failed(format!("{FOLDER} has no traces"))
            .help("name traces: `bursar serve --pool-record FILE` writes one"));
    }
    Ok(traces)
}

fn read(path: &Path) -> Result<Named, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| Failure::io("read", path, &error))?;
    let trace = Trace::from_json(&text)
        .map_err(|error| Failure::failed(format!("{}: {error}", path.display())))?;
    let stem = path.file_stem().unwrap_or(path.as_os_str());
    Ok(Named {
        name: stem.to_string_lossy().into_owned(),
        trace,
    })
}

fn row(name: &str, buffers: bool, levels: &str, done: &Replay) -> [String; 14] {
    let size = |bytes: Option<u64>| bytes.map_or("-".to_owned(), |bytes| Bytes(bytes).to_string());
    let percent = |ratio: Option<f64>| {
        ratio.map_or("-".to_owned(), |ratio| format!("{:.1} %", 100.0 * ratio))
    };
    let counts = done.membranes.as_ref().map(|report| {
        [
            report.exact_total,
            report.spilled_total,
            report.failed_total + report.oversize_total,
        ]
    });
    let count = |at: usize| counts.map_or("-".to_owned(), |counts| counts[at].to_string());
    [
        name.to_owned(),
        if buffers { "kept" } else { "not kept" }.to_owned(),
        levels.to_owned(),
        size(Some(done.used_peak_bytes)),
        size(done.held_peak_bytes),
        percent(done.overhead_ratio()),
        size(done.committed_peak_bytes),
        percent(done.fragmentation_ratio),
        percent(done.hit_ratio.filter(|_| buffers)),
        count(0),
        count(1),
        count(2),
        done.fallbacks.to_string(),
        format!("{:.1}", done.event_ns),
    ]
}

fn figures(sheet: &mut Sheet, name: &str, buffers: bool, levels: &str, done: &Replay) {
    let kept = if buffers { "kept" } else { "fresh" };
    let mut figure = |what: &str, unit, words, value: f64| {
        sheet.count(
            &format!("{name}_{kept}_{levels}_{what}"),
            unit,
            words,
            value,
        );
    };
    figure("event_ns", "ns", "a take or a give", done.event_ns);
    figure(
        "used_peak_bytes",
        "bytes",
        "asked for at one moment",
        done.used_peak_bytes as f64,
    );
    for (what, words, value) in [
        (
            "held_peak_bytes",
            "handed out by the heaps",
            done.held_peak_bytes,
        ),
        ("committed_peak_bytes", "charged", done.committed_peak_bytes),
    ] {
        if let Some(value) = value {
            figure(what, "bytes", words, value as f64);
        }
    }
    for (what, words, value) in [
        (
            "fragmentation_ratio",
            "external, of the heaps",
            done.fragmentation_ratio,
        ),
        ("hit_ratio", "takes that reused a buffer", done.hit_ratio),
    ] {
        if let Some(value) = value {
            figure(what, "", words, value);
        }
    }
    figure(
        "fallback_total",
        "",
        "blocks mapped one by one",
        done.fallbacks as f64,
    );
    if let Some(report) = &done.membranes {
        let failed = report.failed_total + report.oversize_total;
        figure(
            "exact_total",
            "",
            "blocks in their own level",
            report.exact_total as f64,
        );
        figure(
            "spilled_total",
            "",
            "blocks in another",
            report.spilled_total as f64,
        );
        figure(
            "failed_total",
            "",
            "blocks of the heaps below",
            failed as f64,
        );
    }
}

/// Who held least, in words.
fn verdict(name: &str, buffers: bool, mut held: Vec<(u64, &str)>) -> String {
    held.sort_unstable();
    let kept = if buffers {
        "buffers kept"
    } else {
        "buffers not kept"
    };
    let words: Vec<String> = held
        .iter()
        .map(|(bytes, levels)| format!("{levels} {}", Bytes(*bytes)))
        .collect();
    format!("{name}, {kept}, least held first: {}", words.join(", "))
}

/// Writes a picture of one replay into a folder.
fn draw(folder: &Path, name: &str, done: &Replay) -> Result<(), Failure> {
    let title = format!("{name}: {}", done.way);
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '-' };
    let file = folder.join(format!(
        "{}.svg",
        title.chars().map(plain).collect::<String>()
    ));
    std::fs::write(&file, picture(&title, done))
        .map_err(|error| Failure::io("write", &file, &error))
}
