//! What is wrong with a machine, and what to do about it: a pure function of the survey.

use bursar_memory::Bytes;
use serde::Serialize;

use super::survey::Survey;

/// How much a finding matters.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Severity {
    /// Something will fail or be killed.
    Wrong,
    /// Something is slower or tighter than it need be.
    Note,
}

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(super) struct Finding {
    /// How much it matters.
    pub(super) severity: Severity,
    /// What it is about, as the survey calls it.
    pub(super) subject: &'static str,
    /// What was found.
    pub(super) found: String,
    /// What to do.
    pub(super) remedy: String,
}

/// A machine that spends more of its time than this waiting for memory is short of it.
const STALLED_PERCENT: f64 = 1.0;

/// Everything that is wrong, in the order of the survey.
pub(super) fn of(survey: &Survey) -> Vec<Finding> {
    let mut findings = Vec::new();
    let mut find = |severity, subject, found: String, remedy: &str| {
        findings.push(Finding {
            severity,
            subject,
            found,
            remedy: remedy.to_owned(),
        });
    };
    let budget = Bytes(survey.budget.bytes);

    let cpu = &survey.cpu;
    if cpu.isa_available.last() != Some(&cpu.isa_chosen) {
        let best = cpu.isa_available.last().unwrap_or(&"scalar");
        find(
            Severity::Note,
            "cpu",
            format!("{} is chosen, although there is {best}", cpu.isa_chosen),
            "unset BURSAR_ISA, or remove isa from the configuration file",
        );
    } else if cpu.isa_available.len() == 1 {
        find(
            Severity::Note,
            "cpu",
            "there are no vector instructions with kernels (AVX2 or AVX-512)".into(),
            "use a processor that has them, or a virtual machine that passes them through",
        );
    }
    if cpu.threads > cpu.cores {
        find(
            Severity::Note,
            "cpu",
            format!("{} threads would share {} cores", cpu.threads, cpu.cores),
            "leave threads unset, or set it to the cores there are",
        );
    }

    let memory = &survey.memory;
    if let Some(total) = memory.total_bytes.map(Bytes)
        && budget > total
    {
        find(
            Severity::Wrong,
            "memory",
            format!("the budget of {budget} is more than the machine's {total}"),
            "lower --memory, or leave it unset to have it detected",
        );
    } else if let Some(available) = memory.available_bytes.map(Bytes)
        && budget > available
    {
        find(
            Severity::Note,
            "memory",
            format!("the budget is {budget}, but only {available} are available now"),
            "stop what else holds memory, or lower --memory",
        );
    }
    if memory.overcommit_mode == Some(2) {
        let left = memory.commit_limit_bytes.zip(memory.committed_bytes);
        let left = left.map(|(limit, taken)| Bytes(limit.saturating_sub(taken)));
        let severity = match left {
            Some(left) if left < budget => Severity::Wrong,
            _ => Severity::Note,
        };
        let left = left.map_or("an unknown amount".to_owned(), |left| left.to_string());
        find(
            severity,
            "memory",
            format!("vm.overcommit_memory is 2: only {left} can still be mapped, used or not"),
            "set vm.overcommit_memory to 0, or raise vm.overcommit_ratio",
        );
    }

    let huge_pages = &survey.huge_pages;
    match huge_pages.transparent {
        Some("never") => find(
            Severity::Note,
            "huge_pages",
            "transparent huge pages are off: reading weights misses the TLB more often".into(),
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        ),
        Some("always") => find(
            Severity::Note,
            "huge_pages",
            "transparent huge pages are always on: the kernel may refill memory that was given \
             back in parts"
                .into(),
            "echo madvise > /sys/kernel/mm/transparent_hugepage/enabled",
        ),
        _ => {}
    }
    if let Some(reserved) = huge_pages.reserved_bytes.filter(|&bytes| bytes > 0) {
        find(
            Severity::Note,
            "huge_pages",
            format!(
                "{} are set aside as huge pages, which nothing here uses",
                Bytes(reserved)
            ),
            "sysctl vm.nr_hugepages=0, unless another program needs them",
        );
    }

    if let Some(cgroup) = &survey.cgroup {
        for level in &cgroup.levels {
            if let Some(limit) = level.limit_bytes.map(Bytes)
                && budget > limit
            {
                find(
                    Severity::Wrong,
                    "cgroup",
                    format!(
                        "the budget of {budget} is more than the {limit} of {}",
                        level.path
                    ),
                    "lower --memory or raise the limit: the kernel kills what passes it",
                );
            }
            if let Some(high) = level.high_bytes.map(Bytes)
                && budget > high
            {
                find(
                    Severity::Note,
                    "cgroup",
                    format!("{} is slowed down from {high} on (memory.high)", level.path),
                    "lower --memory below it, or raise memory.high",
                );
            }
        }
    }
    let stalled = [
        ("pressure", survey.pressure.as_ref()),
        (
            "cgroup",
            survey
                .cgroup
                .as_ref()
                .and_then(|cgroup| cgroup.pressure.as_ref()),
        ),
    ];
    for (subject, pressure) in stalled {
        if let Some(some) = pressure.map(|pressure| &pressure.some)
            && some.avg60_percent > STALLED_PERCENT
        {
            find(
                Severity::Note,
                subject,
                format!(
                    "{:.1} % of the last minute was lost for lack of memory",
                    some.avg60_percent
                ),
                "lower --memory, stop what else needs memory, or give it more",
            );
        }
    }

    let limits = [
        (
            "address space (ulimit -v)",
            survey.limits.address_space_bytes,
            "ulimit -v unlimited",
        ),
        (
            "private memory (ulimit -d)",
            survey.limits.data_bytes,
            "ulimit -d unlimited",
        ),
    ];
    for (name, limit, remedy) in limits {
        if let Some(limit) = limit.map(Bytes)
            && limit < budget
        {
            let found = format!("{name} is limited to {limit}, less than the budget of {budget}");
            find(Severity::Wrong, "limits", found, remedy);
        }
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::super::survey::{
        Averages, Budget, Cgroup, Cpu, HugePages, Level, Limits, Memory, MemoryPressure,
    };
    use super::*;

    const GIB: u64 = 1 << 30;

    /// A machine with nothing to find.
    fn sound() -> Survey {
        Survey {
            cpu: Cpu {
                model: None,
                cores: 4,
                threads: 4,
                features: Vec::new(),
                isa_available: vec!["scalar", "avx2"],
                isa_chosen: "avx2",
            },
            memory: Memory {
                total_bytes: Some(16 * GIB),
                available_bytes: Some(12 * GIB),
                swap_free_bytes: Some(0),
                overcommit_mode: Some(0),
                commit_limit_bytes: Some(8 * GIB),
                committed_bytes: Some(GIB),
            },
            huge_pages: HugePages {
                transparent: Some("madvise"),
                defrag: None,
                reserved_bytes: Some(0),
            },
            cgroup: Some(Cgroup {
                version: 2,
                levels: vec![Level {
                    path: "/app".into(),
                    limit_bytes: Some(10 * GIB),
                    high_bytes: None,
                    usage_bytes: Some(GIB),
                    reclaimable_bytes: Some(0),
                    peak_bytes: None,
                }],
                tightest: Some("/app".into()),
                pressure: None,
            }),
            pressure: None,
            limits: Limits {
                address_space_bytes: None,
                data_bytes: None,
                stack_bytes: Some(8 << 20),
                locked_bytes: None,
            },
            budget: Budget {
                bytes: 9 * GIB,
                source: String::new(),
                room_bytes: Some(10 * GIB),
                detected_bytes: Some(9 * GIB),
                detected_source: None,
            },
        }
    }

    #[track_caller]
    fn check(change: impl FnOnce(&mut Survey), expected: Option<(Severity, &str, &str)>) {
        let mut survey = sound();
        change(&mut survey);
        let findings = of(&survey);
        match (findings.as_slice(), expected) {
            ([], None) => {}
            ([finding], Some((severity, subject, part))) => {
                assert_eq!((finding.severity, finding.subject), (severity, subject));
                assert!(finding.found.contains(part), "{finding:?}");
            }
            _ => panic!("{findings:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn each_fault_is_found_alone() {
        use Severity::{Note, Wrong};
        check(|_| {}, None);
        check(
            |s| s.cpu.isa_chosen = "scalar",
            Some((Note, "cpu", "although there is avx2")),
        );
        check(
            |s| s.cpu.threads = 9,
            Some((Note, "cpu", "9 threads would share 4 cores")),
        );
        check(
            |s| {
                s.cgroup = None;
                s.budget.bytes = 20 * GIB;
            },
            Some((Wrong, "memory", "more than the machine's 16.0 GiB")),
        );
        check(
            |s| s.memory.available_bytes = Some(GIB),
            Some((Note, "memory", "only 1.0 GiB are available")),
        );
        check(
            |s| s.memory.overcommit_mode = Some(2),
            Some((Wrong, "memory", "only 7.0 GiB can")),
        );
        check(
            |s| s.huge_pages.transparent = Some("never"),
            Some((Note, "huge_pages", "off")),
        );
        check(
            |s| s.huge_pages.reserved_bytes = Some(GIB),
            Some((Note, "huge_pages", "set aside")),
        );
        check(
            |s| s.budget.bytes = 11 * GIB,
            Some((Wrong, "cgroup", "10.0 GiB of /app")),
        );
        let stalled = || Averages {
            avg10_percent: 0.0,
            avg60_percent: 2.5,
            avg300_percent: 0.0,
        };
        check(
            |s| {
                s.pressure = Some(MemoryPressure {
                    some: stalled(),
                    full: None,
                })
            },
            Some((Note, "pressure", "2.5 % of the last minute")),
        );
        check(
            |s| s.limits.address_space_bytes = Some(GIB),
            Some((Wrong, "limits", "ulimit -v) is limited to 1.0 GiB")),
        );
    }
}
