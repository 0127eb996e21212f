//! How short memory is, as a pure function of samples.
//!
//! Two things are told apart, because they call for different answers:
//!
//! * **inside**: how much of the budget is granted and resident. A full budget is what a budget is for:
//!   the ledger lets nothing pass it, and whoever needs more of it takes the ladder. So a high level
//!   here only says that it is worth giving back what stores nothing.
//! * **outside**: whether the system around the process can still hold the budget. A limit of a cgroup,
//!   or the machine's memory, counts if what others hold and the budget together are more than it
//!   allows: then the process may be killed though its books are right. So do stalls for lack of memory
//!   (PSI), and being resident beyond the budget.
//!
//! ```text
//! others = held - resident                      of a cgroup or of the machine, page cache left out
//! ratio  = held / limit     if others + budget > limit, else the limit cannot be passed
//! ```
//!
//! A level is entered at its threshold, and left [`MARGIN`] below it: one that is just passed does not
//! come and go with every sample.

use std::sync::{Arc, Mutex};

use bursar_profile::Probe;

use crate::bytes::Bytes;
use crate::ledger::Ledger;
use crate::node::lock;

/// How far below its threshold a level is left, as a share of the limit.
pub const MARGIN: f64 = 0.05;
/// Stalled for so much of the last ten seconds, in percent, work suffers.
const STALL_PERCENT: f64 = 10.0;
/// Resident beyond the budget by more than this is no longer a matter of some pages.
const BEYOND_SHARE: f64 = 1.02;
/// Bytes to be given back where nothing says how many, which stalls do not.
const STALL_BYTES: Bytes = Bytes::mib(64);

/// How short memory is.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Level {
    /// It is not.
    #[default]
    Normal,
    /// What costs nobody anything is given back.
    Elevated,
    /// What is not in use is given back.
    High,
    /// Nothing more is taken on.
    Critical,
}

impl Level {
    /// All, in ascending order.
    pub const ALL: [Level; 4] = [Level::Normal, Level::Elevated, Level::High, Level::Critical];

    /// The word as it appears in reports: `elevated`.
    pub const fn name(self) -> &'static str {
        match self {
            Level::Normal => "normal",
            Level::Elevated => "elevated",
            Level::High => "high",
            Level::Critical => "critical",
        }
    }
}

/// From which share on memory is that short, above 0, at most 1, in ascending order.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Thresholds {
    elevated: f64,
    high: f64,
    critical: f64,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            elevated: 0.70,
            high: 0.85,
            critical: 0.95,
        }
    }
}

/// Thresholds that are out of range, or not in ascending order.
#[derive(Copy, Clone, Debug, PartialEq, thiserror::Error)]
#[error(
    "memory cannot be elevated at {elevated}, high at {high} and critical at {critical}: give \
     shares above 0 and at most 1, each at least as large as the one before"
)]
pub struct ThresholdsError {
    /// As given.
    pub elevated: f64,
    /// As given.
    pub high: f64,
    /// As given.
    pub critical: f64,
}

impl Thresholds {
    /// These shares.
    ///
    /// # Errors
    /// Where they are not above 0 and at most 1, in ascending order.
    pub fn new(elevated: f64, high: f64, critical: f64) -> Result<Thresholds, ThresholdsError> {
        let ascending = 0.0 < elevated && elevated <= high && high <= critical && critical <= 1.0;
        match ascending {
            true => Ok(Thresholds {
                elevated,
                high,
                critical,
            }),
            false => Err(ThresholdsError {
                elevated,
                high,
                critical,
            }),
        }
    }

    /// From which share on; 0 for the normal one.
    pub fn of(&self, level: Level) -> f64 {
        match level {
            Level::Normal => 0.0,
            Level::Elevated => self.elevated,
            Level::High => self.high,
            Level::Critical => self.critical,
        }
    }

    fn level(&self, share: f64) -> Level {
        let reached = |level: &&Level| share >= self.of(**level);
        Level::ALL
            .iter()
            .rev()
            .find(reached)
            .copied()
            .unwrap_or_default()
    }

    /// The level after one that was `before`.
    fn after(&self, before: Level, share: f64) -> Level {
        let up = self.level(share);
        match up >= before {
            true => up,
            false => self.level(share + MARGIN).min(before),
        }
    }
}

/// A limit around the process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limit {
    /// Whose: `cgroup /app`, `the machine`.
    pub name: String,
    /// The most that everybody within it may hold.
    pub limit: Bytes,
    /// What they hold, page cache that the kernel would drop left out.
    pub held: Bytes,
}

/// Stalls for lack of memory, in percent of the last ten seconds.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Stalls {
    /// At least one task stalled.
    pub some_percent: f64,
    /// All did.
    pub full_percent: f64,
}

/// What was found at one moment.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// What may be granted.
    pub budget: Bytes,
    /// What is granted.
    pub granted: Bytes,
    /// What the process really takes: resident and swapped out.
    pub resident: Bytes,
    /// The limits around it.
    pub limits: Vec<Limit>,
    /// Stalls of its cgroup, or of the machine; `None` where the kernel does not tell.
    pub stalls: Option<Stalls>,
}

impl Sample {
    /// Looks at the books and at the system: some ten files of the kernel.
    pub fn take(ledger: &Ledger, probe: &Probe) -> Sample {
        let process = probe.process();
        let resident = process.map_or(0, |process| {
            process
                .rss_bytes
                .saturating_add(process.swap_bytes.unwrap_or(0))
        });
        let cgroup = probe.cgroup();
        let levels = cgroup.iter().flat_map(|cgroup| &cgroup.levels);
        let machine = probe.machine().and_then(|machine| {
            Some(Limit {
                name: "the machine".to_owned(),
                limit: Bytes(machine.total_bytes),
                held: Bytes(machine.total_bytes.saturating_sub(machine.available_bytes?)),
            })
        });
        let limits = levels.filter_map(|level| {
            Some(Limit {
                name: format!("cgroup {}", level.path),
                limit: Bytes(level.lowest_bytes()?),
                held: Bytes(level.held_bytes()?),
            })
        });
        let limits = limits.chain(machine).collect();
        let own = cgroup.as_ref().and_then(|cgroup| cgroup.pressure);
        let stalls = own.or_else(|| probe.pressure()).map(|pressure| Stalls {
            some_percent: pressure.some.avg10_percent,
            full_percent: pressure.full.map_or(0.0, |full| full.avg10_percent),
        });
        Sample {
            budget: ledger.budget(),
            granted: ledger.granted(),
            resident: Bytes(resident),
            limits,
            stalls,
        }
    }
}

/// How short memory is, and why.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Assessment {
    /// How full the budget is.
    pub inside: Level,
    /// Whether the system around can hold the budget.
    pub outside: Level,
    /// What the level outside follows from, in words; empty if that is normal.
    pub cause: String,
    /// What would have to be given back for the level outside to fall.
    pub missing: Bytes,
}

impl Assessment {
    /// The higher of the two levels.
    pub fn level(&self) -> Level {
        self.inside.max(self.outside)
    }

    /// Whether nothing more is to be taken on.
    pub fn refuses(&self) -> bool {
        self.outside == Level::Critical
    }
}

/// What the worst of the outside is.
struct Reading {
    share: f64,
    cause: String,
    /// What it is a share of, and the bytes that it counts.
    limit: Bytes,
    held: Bytes,
}

/// Judges one sample after another.
#[derive(Clone, Debug, Default)]
pub struct Judge {
    thresholds: Thresholds,
    inside: Level,
    outside: Level,
}

impl Judge {
    /// One that has seen nothing yet.
    pub fn new(thresholds: Thresholds) -> Judge {
        Judge {
            thresholds,
            ..Judge::default()
        }
    }

    /// What a sample says, after those before.
    pub fn assess(&mut self, sample: &Sample) -> Assessment {
        let taken = sample.granted.max(sample.resident);
        self.inside = self
            .thresholds
            .after(self.inside, share(taken, sample.budget));
        let worst = self.worst(sample);
        let found = worst.as_ref().map_or(0.0, |reading| reading.share);
        self.outside = self.thresholds.after(self.outside, found);
        let mut assessment = Assessment {
            inside: self.inside,
            outside: self.outside,
            ..Assessment::default()
        };
        if self.outside > Level::Normal
            && let Some(reading) = worst
        {
            let target = (self.thresholds.of(self.outside) - MARGIN).max(0.0);
            let target = reading.limit.percent(target * 100.0);
            assessment.missing = reading.held.saturating_sub(target);
            assessment.cause = reading.cause;
        }
        assessment
    }

    fn worst(&self, sample: &Sample) -> Option<Reading> {
        let Sample {
            budget, resident, ..
        } = *sample;
        let limits = sample.limits.iter().filter_map(|limit| {
            let others = limit.held.saturating_sub(resident);
            let binds = others.saturating_add(budget) > limit.limit;
            let name = &limit.name;
            binds.then(|| Reading {
                share: share(limit.held, limit.limit),
                cause: format!(
                    "{} of the {} that {name} allows are held, {others} of it by others, and the \
                     budget of {budget} does not fit beside them",
                    limit.held, limit.limit
                ),
                limit: limit.limit,
                held: limit.held,
            })
        });
        let beyond = (resident > budget).then(|| Reading {
            share: match share(resident, budget) > BEYOND_SHARE {
                true => 1.0,
                false => self.thresholds.of(Level::High),
            },
            cause: format!("{resident} are resident and the budget is {budget}"),
            limit: budget,
            held: resident,
        });
        let stalled = sample.stalls.and_then(|stalls| {
            let full = stalls.full_percent >= STALL_PERCENT;
            let (level, percent, who) = match full {
                true => (Level::High, stalls.full_percent, "all work"),
                false => (Level::Elevated, stalls.some_percent, "some work"),
            };
            (percent >= STALL_PERCENT).then(|| Reading {
                share: self.thresholds.of(level),
                cause: format!(
                    "{who} stalled for lack of memory for {percent:.0} % of the last ten seconds"
                ),
                limit: STALL_BYTES,
                held: STALL_BYTES,
            })
        });
        let readings = limits.chain(beyond).chain(stalled);
        readings.max_by(|a, b| a.share.total_cmp(&b.share))
    }
}

fn share(part: Bytes, whole: Bytes) -> f64 {
    part.0 as f64 / (whole.0 as f64).max(1.0)
}

/// The last assessment, for all who want to know. Clones show the same.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<Mutex<Assessment>>);

impl Gauge {
    /// One that shows that nothing is short.
    pub fn new() -> Gauge {
        Gauge::default()
    }

    /// Shows another assessment; gives the one before.
    pub fn set(&self, assessment: Assessment) -> Assessment {
        std::mem::replace(&mut *lock(&self.0), assessment)
    }

    /// What it shows.
    pub fn read(&self) -> Assessment {
        lock(&self.0).clone()
    }

    /// Whether nothing more is to be taken on.
    pub fn refuses(&self) -> bool {
        lock(&self.0).refuses()
    }
}

#[cfg(test)]
mod tests;
