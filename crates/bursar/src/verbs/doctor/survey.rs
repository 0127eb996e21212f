//! The figures of a machine: processor, memory, huge pages, control groups, pressure, limits, and
//! the budget that follows from them.

use std::path::Path;

use bursar_kernels::isa::Isa;
use bursar_profile::{CgroupLevel, CgroupVersion, HugePageMode, Pressure, Probe, Stall};
use serde::Serialize;

use crate::budget;
use crate::config::Settings;
use crate::failure::Failure;

/// All figures. What a machine does not tell is `None`.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Survey {
    pub(super) cpu: Cpu,
    pub(super) memory: Memory,
    pub(super) huge_pages: HugePages,
    pub(super) cgroup: Option<Cgroup>,
    pub(super) pressure: Option<MemoryPressure>,
    pub(super) limits: Limits,
    pub(super) budget: Budget,
}

/// The processor and how it will be used.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Cpu {
    pub(super) model: Option<String>,
    /// Cores that this process may use, affinity and quota considered.
    pub(super) cores: usize,
    pub(super) threads: usize,
    /// Vector instructions that matter to language models, by the kernel's names.
    pub(super) features: Vec<String>,
    pub(super) isa_available: Vec<&'static str>,
    pub(super) isa_chosen: &'static str,
}

/// Memory of the machine.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Memory {
    pub(super) total_bytes: Option<u64>,
    pub(super) available_bytes: Option<u64>,
    pub(super) swap_free_bytes: Option<u64>,
    /// 0: heuristic, 1: always, 2: never beyond the limit.
    pub(super) overcommit_mode: Option<u64>,
    pub(super) commit_limit_bytes: Option<u64>,
    pub(super) committed_bytes: Option<u64>,
}

/// Pages of 2 MiB.
#[derive(Clone, Debug, Serialize)]
pub(super) struct HugePages {
    /// When the kernel uses them: `always`, `madvise` (where asked) or `never`.
    pub(super) transparent: Option<&'static str>,
    /// When it stalls a program to make them.
    pub(super) defrag: Option<String>,
    /// Pages set aside by hand; nothing else can use them.
    pub(super) reserved_bytes: Option<u64>,
}

/// The control groups that this process is in.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Cgroup {
    pub(super) version: u8,
    /// The process's own first, then its ancestors.
    pub(super) levels: Vec<Level>,
    /// The path of the level whose limit is the lowest.
    pub(super) tightest: Option<String>,
    pub(super) pressure: Option<MemoryPressure>,
}

/// One control group.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Level {
    pub(super) path: String,
    pub(super) limit_bytes: Option<u64>,
    pub(super) high_bytes: Option<u64>,
    pub(super) usage_bytes: Option<u64>,
    pub(super) reclaimable_bytes: Option<u64>,
    pub(super) peak_bytes: Option<u64>,
}

/// Share of time stalled for lack of memory, in percent.
#[derive(Clone, Debug, Serialize)]
pub(super) struct MemoryPressure {
    /// At least one task.
    pub(super) some: Averages,
    /// All tasks at once.
    pub(super) full: Option<Averages>,
}

/// Averages over the last seconds.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Averages {
    pub(super) avg10_percent: f64,
    pub(super) avg60_percent: f64,
    pub(super) avg300_percent: f64,
}

/// `ulimit`s of this process; `None` is unlimited.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Limits {
    pub(super) address_space_bytes: Option<u64>,
    pub(super) data_bytes: Option<u64>,
    pub(super) stack_bytes: Option<u64>,
    pub(super) locked_bytes: Option<u64>,
}

/// What this process would take as its budget.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Budget {
    pub(super) bytes: u64,
    /// In words: where it comes from.
    pub(super) source: String,
    /// The least room that was found around the process.
    pub(super) room_bytes: Option<u64>,
    /// What it would be if nothing were set.
    pub(super) detected_bytes: Option<u64>,
    pub(super) detected_source: Option<String>,
}

/// The processor's features that have, or may get, kernels.
const FEATURES: [&str; 14] = [
    "f16c",
    "fma",
    "avx2",
    "avx_vnni",
    "avx512f",
    "avx512bw",
    "avx512dq",
    "avx512vl",
    "avx512_vnni",
    "avx512_bf16",
    "avx512_fp16",
    "amx_tile",
    "amx_int8",
    "amx_bf16",
];

impl Survey {
    /// Reads `proc` and `sys` below `root`. Vector instructions and cores are always the real ones.
    pub(super) fn take(root: &Path, settings: &Settings) -> Result<Survey, Failure> {
        let probe = Probe::new(root);
        let budget = budget::of(settings, root)?;
        // A machine that tells nothing has no budget of its own, but may have been given one.
        let detected = budget::detected(root).ok();
        let text = |path: &str| std::fs::read_to_string(root.join(path)).ok();
        let number = |path: &str| text(path)?.trim().parse().ok();
        let meminfo = text("proc/meminfo").unwrap_or_default();
        let machine = probe.machine();
        let limits = probe.limits();
        Ok(Survey {
            cpu: cpu(&text("proc/cpuinfo").unwrap_or_default(), settings),
            memory: Memory {
                total_bytes: machine.map(|machine| machine.total_bytes),
                available_bytes: machine.and_then(|machine| machine.available_bytes),
                swap_free_bytes: machine.and_then(|machine| machine.swap_free_bytes),
                overcommit_mode: number("proc/sys/vm/overcommit_memory"),
                commit_limit_bytes: meminfo_bytes(&meminfo, "CommitLimit"),
                committed_bytes: meminfo_bytes(&meminfo, "Committed_AS"),
            },
            huge_pages: HugePages {
                transparent: probe.huge_pages().map(|mode| match mode {
                    HugePageMode::Always => "always",
                    HugePageMode::Madvise => "madvise",
                    HugePageMode::Never => "never",
                }),
                defrag: text("sys/kernel/mm/transparent_hugepage/defrag")
                    .and_then(|text| Some(text.split_once('[')?.1.split_once(']')?.0.to_owned())),
                reserved_bytes: meminfo_bytes(&meminfo, "Hugetlb"),
            },
            cgroup: probe.cgroup().map(|cgroup| Cgroup {
                version: match cgroup.version {
                    CgroupVersion::V1 => 1,
                    CgroupVersion::V2 => 2,
                },
                tightest: cgroup.tightest().map(|level| level.path.clone()),
                levels: cgroup.levels.iter().map(level).collect(),
                pressure: cgroup.pressure.as_ref().map(pressure),
            }),
            pressure: probe.pressure().as_ref().map(pressure),
            limits: Limits {
                address_space_bytes: limits.and_then(|limits| limits.address_space_bytes),
                data_bytes: limits.and_then(|limits| limits.data_bytes),
                stack_bytes: limits.and_then(|limits| limits.stack_bytes),
                locked_bytes: limits.and_then(|limits| limits.locked_bytes),
            },
            budget: Budget {
                bytes: budget.bytes.get(),
                source: budget.source,
                room_bytes: budget.room.map(|room| room.get()),
                detected_bytes: detected.as_ref().map(|detected| detected.bytes.get()),
                detected_source: detected.map(|detected| detected.source),
            },
        })
    }
}

fn cpu(cpuinfo: &str, settings: &Settings) -> Cpu {
    let field = |name: &str| {
        cpuinfo.lines().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            (key.trim() == name).then(|| value.trim().to_owned())
        })
    };
    let flags = field("flags").unwrap_or_default();
    Cpu {
        model: field("model name"),
        cores: std::thread::available_parallelism().map_or(1, |cores| cores.get()),
        threads: settings.threads(),
        features: FEATURES
            .iter()
            .filter(|feature| flags.split_whitespace().any(|flag| flag == **feature))
            .map(|feature| (*feature).to_owned())
            .collect(),
        isa_available: Isa::available().iter().map(|isa| isa.name()).collect(),
        isa_chosen: settings.isa().name(),
    }
}

fn level(level: &CgroupLevel) -> Level {
    Level {
        path: level.path.clone(),
        limit_bytes: level.limit_bytes,
        high_bytes: level.high_bytes,
        usage_bytes: level.usage_bytes,
        reclaimable_bytes: level.reclaimable_bytes,
        peak_bytes: level.peak_bytes,
    }
}

fn pressure(pressure: &Pressure) -> MemoryPressure {
    MemoryPressure {
        some: averages(&pressure.some),
        full: pressure.full.as_ref().map(averages),
    }
}

fn averages(stall: &Stall) -> Averages {
    Averages {
        avg10_percent: stall.avg10_percent,
        avg60_percent: stall.avg60_percent,
        avg300_percent: stall.avg300_percent,
    }
}

/// A line `Name:   123 kB` of `/proc/meminfo`.
fn meminfo_bytes(meminfo: &str, name: &str) -> Option<u64> {
    meminfo.lines().find_map(|line| {
        let (key, value) = line.split_once(':')?;
        let kib: u64 = value.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
        (key == name).then(|| kib.checked_mul(1024))?
    })
}
