//! The survey and its findings for a person.

use std::fmt::Write;

use bursar_memory::Bytes;

use super::findings::{Finding, Severity};
use super::survey::{Cgroup, MemoryPressure, Survey};
use crate::output::Table;

/// Everything, as it is printed.
pub(super) fn of(survey: &Survey, findings: &[Finding]) -> String {
    let mut table = Table::plain(2);
    let mut say = |name: &str, what: String| table.row([name.to_owned(), what]);

    let cpu = &survey.cpu;
    say(
        "processor",
        cpu.model.clone().unwrap_or_else(|| "unknown".into()),
    );
    say(
        "cores",
        format!("{}, {} threads will compute", cpu.cores, cpu.threads),
    );
    say(
        "kernels",
        format!(
            "{} (there are: {})",
            cpu.isa_chosen,
            cpu.isa_available.join(", ")
        ),
    );
    if !cpu.features.is_empty() {
        say("features", cpu.features.join(" "));
    }

    let memory = &survey.memory;
    say(
        "memory",
        format!(
            "{} in all, {} available, {} of swap free",
            size(memory.total_bytes),
            size(memory.available_bytes),
            size(memory.swap_free_bytes)
        ),
    );
    let mode = match memory.overcommit_mode {
        Some(0) => "heuristic (0)".to_owned(),
        Some(1) => "always (1)".to_owned(),
        Some(2) => format!(
            "never (2): {} of {} committed",
            size(memory.committed_bytes),
            size(memory.commit_limit_bytes)
        ),
        Some(other) => other.to_string(),
        None => "unknown".to_owned(),
    };
    say("overcommit", mode);
    let huge_pages = &survey.huge_pages;
    say(
        "huge pages",
        format!(
            "transparent: {}, defrag: {}, set aside: {}",
            huge_pages.transparent.unwrap_or("unknown"),
            huge_pages.defrag.as_deref().unwrap_or("unknown"),
            size(huge_pages.reserved_bytes)
        ),
    );
    match &survey.cgroup {
        Some(cgroup) => {
            say("cgroup", format!("version {}", cgroup.version));
            for (path, what) in levels(cgroup) {
                say("", format!("{path}: {what}"));
            }
        }
        None => say("cgroup", "none with a memory controller".into()),
    }
    say(
        "pressure",
        survey
            .pressure
            .as_ref()
            .map_or("not reported by this kernel".into(), stalls),
    );
    let limits = &survey.limits;
    say(
        "limits",
        format!(
            "address space {}, private memory {}, stack {}, locked {}",
            limit(limits.address_space_bytes),
            limit(limits.data_bytes),
            limit(limits.stack_bytes),
            limit(limits.locked_bytes)
        ),
    );
    let budget = &survey.budget;
    say(
        "budget",
        format!("{} ({})", Bytes(budget.bytes), budget.source),
    );
    if let (Some(bytes), Some(source)) = (budget.detected_bytes, &budget.detected_source)
        && budget.source != *source
    {
        say(
            "",
            format!("by itself it would be {} ({source})", Bytes(bytes)),
        );
    }

    let mut text = format!("{table}\n\n");
    for finding in findings {
        let mark = match finding.severity {
            Severity::Wrong => "wrong",
            Severity::Note => "note",
        };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{mark}: {}\nhelp: {}", finding.found, finding.remedy);
    }
    if findings.is_empty() {
        text.push_str("nothing is misconfigured\n");
    }
    text
}

/// Each level that says anything, the process's own first.
fn levels(cgroup: &Cgroup) -> Vec<(String, String)> {
    let row = |(at, level): (usize, &super::survey::Level)| {
        let mut parts = vec![format!("limit {}", limit(level.limit_bytes))];
        if let Some(high) = level.high_bytes {
            parts.push(format!("slowed down from {}", Bytes(high)));
        }
        if let Some(usage) = level.usage_bytes {
            let reclaimable = size(level.reclaimable_bytes);
            parts.push(format!(
                "{} used ({reclaimable} of it page cache)",
                Bytes(usage)
            ));
        }
        if let Some(peak) = level.peak_bytes {
            parts.push(format!("{} at most", Bytes(peak)));
        }
        let mark = if at == 0 { " (own)" } else { "" };
        (format!("{}{mark}", level.path), parts.join(", "))
    };
    cgroup.levels.iter().enumerate().map(row).collect()
}

fn stalls(pressure: &MemoryPressure) -> String {
    let some = &pressure.some;
    let mut text = format!(
        "some task stalled {:.1} % of 10 s, {:.1} % of 60 s, {:.1} % of 300 s",
        some.avg10_percent, some.avg60_percent, some.avg300_percent
    );
    if let Some(full) = &pressure.full {
        let _ = write!(text, "; all tasks {:.1} % of 60 s", full.avg60_percent);
    }
    text
}

fn size(bytes: Option<u64>) -> String {
    bytes.map_or("unknown".into(), |bytes| Bytes(bytes).to_string())
}

fn limit(bytes: Option<u64>) -> String {
    bytes.map_or("none".into(), |bytes| Bytes(bytes).to_string())
}
