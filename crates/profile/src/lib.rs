//! What this process and machine use: resident memory, cgroup limits, pressure; and where time goes.
//!
//! | module | what lives there |
//! |---|---|
//! | [`probe`] | where the files are read from: the real root or a made-up one |
//! | [`process`] | resident memory by kind, its high-water mark, code, limits of the process |
//! | [`cgroup`] | limits and usage of the process's cgroup and all above it, v1 and v2 |
//! | [`pressure`] | how long work has stalled for lack of memory (PSI) |
//! | [`machine`] | memory of the machine, huge pages |
//! | [`mod@span`] | named spans of time: histograms, a summary, a trace |
//!
//! Everything else is read from files, answers `None` where they are missing or strange, and never
//! panics. Sizes are bytes in `u64`.

#![forbid(unsafe_code)]

pub mod cgroup;
pub mod machine;
pub mod pressure;
pub mod probe;
pub mod process;
pub mod span;

pub use cgroup::{CgroupLevel, CgroupMemory, CgroupVersion};
pub use machine::{HugePageMode, MachineMemory};
pub use pressure::{Pressure, Stall};
pub use probe::Probe;
pub use process::{CodeMemory, ProcessLimits, ProcessMemory};
pub use span::{Level, Site, Span, SpanSummary, Summary, Trace, spans};
