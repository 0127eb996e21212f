//! Where the figures come from: files of the kernel below a root, which is `/` or a test's own tree.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use crate::cgroup::CgroupMemory;
use crate::machine::{HugePageMode, MachineMemory};
use crate::pressure::Pressure;
use crate::process::{CodeMemory, ProcessLimits, ProcessMemory};

/// Reads the kernel's figures below a root path.
#[derive(Clone, Debug)]
pub struct Probe {
    root: PathBuf,
}

impl Default for Probe {
    /// The real machine.
    fn default() -> Probe {
        Probe::new(Path::new("/"))
    }
}

impl Probe {
    /// Reads below `root`: `/` for the real machine, or a tree with `proc` and `sys` in it.
    pub fn new(root: &Path) -> Probe {
        Probe {
            root: root.to_owned(),
        }
    }

    /// What this process holds, from `/proc/self/status`.
    pub fn process(&self) -> Option<ProcessMemory> {
        ProcessMemory::parse(&self.text("/proc/self/status")?)
    }

    /// What another process holds, from its `status`; `None` where there is no such process.
    pub fn process_of(&self, id: u32) -> Option<ProcessMemory> {
        ProcessMemory::parse(&self.text(&format!("/proc/{id}/status"))?)
    }

    /// What the program file and its libraries take, from `/proc/self/smaps`. Walks all mappings:
    /// milliseconds for a process of many gigabytes.
    pub fn code(&self) -> Option<CodeMemory> {
        CodeMemory::parse(&self.text("/proc/self/smaps")?)
    }

    /// The limits set on this process, from `/proc/self/limits`.
    pub fn limits(&self) -> Option<ProcessLimits> {
        Some(ProcessLimits::parse(&self.text("/proc/self/limits")?))
    }

    /// The cgroup that this process is in and all above it, as far as they can be seen.
    pub fn cgroup(&self) -> Option<CgroupMemory> {
        CgroupMemory::read(self)
    }

    /// Memory pressure of the whole machine, from `/proc/pressure/memory`.
    pub fn pressure(&self) -> Option<Pressure> {
        Pressure::parse(&self.text("/proc/pressure/memory")?)
    }

    /// Memory of the whole machine, from `/proc/meminfo`.
    pub fn machine(&self) -> Option<MachineMemory> {
        MachineMemory::parse(&self.text("/proc/meminfo")?)
    }

    /// Whether the kernel uses huge pages on its own.
    pub fn huge_pages(&self) -> Option<HugePageMode> {
        HugePageMode::parse(&self.text("/sys/kernel/mm/transparent_hugepage/enabled")?)
    }

    /// Lowers the high-water mark of this process to what is resident now, so that the next reading
    /// is the peak since then.
    ///
    /// # Errors
    /// Where the kernel does not permit it.
    pub fn reset_hwm(&self) -> io::Result<()> {
        fs::write(self.path("/proc/self/clear_refs"), "5")
    }

    /// The place of an absolute path below the root.
    pub(crate) fn path(&self, absolute: &str) -> PathBuf {
        self.root.join(absolute.trim_start_matches('/'))
    }

    pub(crate) fn text(&self, absolute: &str) -> Option<String> {
        let bytes = fs::read(self.path(absolute)).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// Lines of `Key:  123 kB` as the kernel writes them, in bytes.
pub(crate) fn kib_lines(text: &str) -> impl Iterator<Item = (&str, u64)> {
    text.lines().filter_map(|line| {
        let (key, value) = line.split_once(':')?;
        let kib: u64 = value.trim().strip_suffix("kB")?.trim_end().parse().ok()?;
        Some((key, kib.checked_mul(1024)?))
    })
}
