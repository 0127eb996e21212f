//! What this process holds: resident memory by kind, code, and the limits set on it.

use std::ops::Range;

use crate::probe::kib_lines;

/// Memory of a process as the kernel counts it, in bytes.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessMemory {
    /// All that is resident (VmRSS).
    pub rss_bytes: u64,
    /// Of it anonymous: heap, stacks, our mappings, written pages of the program's data (RssAnon).
    pub rss_anon_bytes: Option<u64>,
    /// Of it backed by files: mostly code (RssFile).
    pub rss_file_bytes: Option<u64>,
    /// Of it shared memory (RssShmem).
    pub rss_shmem_bytes: Option<u64>,
    /// The most that was ever resident, since the last reset (VmHWM).
    pub hwm_bytes: Option<u64>,
    /// Swapped out (VmSwap).
    pub swap_bytes: Option<u64>,
    /// Tables that map the rest; not part of RSS, but charged to a cgroup (VmPTE).
    pub page_tables_bytes: Option<u64>,
    /// Threads.
    pub threads: Option<u64>,
}

impl ProcessMemory {
    /// Reads `/proc/self/status`; `None` without VmRSS.
    pub(crate) fn parse(status: &str) -> Option<ProcessMemory> {
        let mut memory = ProcessMemory::default();
        let mut rss = None;
        for (key, bytes) in kib_lines(status) {
            let field = match key {
                "VmRSS" => &mut rss,
                "RssAnon" => &mut memory.rss_anon_bytes,
                "RssFile" => &mut memory.rss_file_bytes,
                "RssShmem" => &mut memory.rss_shmem_bytes,
                "VmHWM" => &mut memory.hwm_bytes,
                "VmSwap" => &mut memory.swap_bytes,
                "VmPTE" => &mut memory.page_tables_bytes,
                _ => continue,
            };
            *field = Some(bytes);
        }
        memory.rss_bytes = rss?;
        memory.threads = status
            .lines()
            .find_map(|line| line.strip_prefix("Threads:"))
            .and_then(|count| count.trim().parse().ok());
        Some(memory)
    }
}

/// What the program file and the libraries it loaded take, in bytes. Files that are mapped for their
/// contents (weights are read, never mapped) would be counted too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CodeMemory {
    /// The mappings that can be read, as addresses. Gaps that nobody may touch are not among them.
    pub mappings: Vec<Range<usize>>,
    /// Their bytes: what it could grow to if every page were touched.
    pub mapped_bytes: u64,
    /// Resident and backed by the files: code and constants. Part of RssFile.
    pub resident_bytes: u64,
    /// Resident copies of pages that were written: relocated tables and static variables. Part of
    /// RssAnon.
    pub written_bytes: u64,
}

impl CodeMemory {
    /// Reads `/proc/self/smaps`; `None` where no file is mapped, which no real process has.
    pub(crate) fn parse(smaps: &str) -> Option<CodeMemory> {
        let mut code = CodeMemory::default();
        let mut counts = false;
        for line in smaps.lines() {
            let mut words = line.split_ascii_whitespace();
            let (Some(first), Some(second)) = (words.next(), words.next()) else {
                continue;
            };
            let Some(key) = first.strip_suffix(':') else {
                // `address perms offset device inode path`
                let path = words.nth(3).unwrap_or_default();
                counts = second.starts_with('r') && is_program_file(path);
                if counts {
                    code.mappings.extend(addresses(first));
                }
                continue;
            };
            let Some(bytes) = second
                .parse::<u64>()
                .ok()
                .and_then(|kib| kib.checked_mul(1024))
            else {
                continue;
            };
            if !counts {
                continue;
            }
            let field = match key {
                "Size" => &mut code.mapped_bytes,
                "Rss" => &mut code.resident_bytes,
                "Anonymous" => &mut code.written_bytes,
                _ => continue,
            };
            *field = field.saturating_add(bytes);
        }
        // Rss counts the written copies as well.
        code.resident_bytes = code.resident_bytes.saturating_sub(code.written_bytes);
        (code.mapped_bytes > 0).then_some(code)
    }
}

/// Reads `55d3a000-55d3b000`.
fn addresses(text: &str) -> Option<Range<usize>> {
    let (start, end) = text.split_once('-')?;
    let address = |text| usize::from_str_radix(text, 16).ok();
    Some(address(start)?..address(end)?)
}

fn is_program_file(path: &str) -> bool {
    const MEMORY: [&str; 5] = ["/memfd:", "/dev/", "/SYSV", "/anon_hugepage", "/i915"];
    path.starts_with('/') && !MEMORY.iter().any(|prefix| path.starts_with(prefix))
}

/// Limits that the process would run into before the machine's, in bytes; `None` is unlimited.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct ProcessLimits {
    /// Address space (`ulimit -v`).
    pub address_space_bytes: Option<u64>,
    /// Private writable memory (`ulimit -d`).
    pub data_bytes: Option<u64>,
    /// The main thread's stack (`ulimit -s`).
    pub stack_bytes: Option<u64>,
    /// Memory that may be locked (`ulimit -l`).
    pub locked_bytes: Option<u64>,
}

impl ProcessLimits {
    /// Reads `/proc/self/limits`; the soft limits are those that bind.
    pub(crate) fn parse(limits: &str) -> ProcessLimits {
        let soft = |name: &str| {
            let line = limits.lines().find_map(|line| line.strip_prefix(name))?;
            line.split_ascii_whitespace().next()?.parse().ok()
        };
        ProcessLimits {
            address_space_bytes: soft("Max address space"),
            data_bytes: soft("Max data size"),
            stack_bytes: soft("Max stack size"),
            locked_bytes: soft("Max locked memory"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Probe;

    #[test]
    fn status_is_split_by_kind() {
        let status = "Name:\tbursar\nVmHWM:\t    2048 kB\nVmRSS:\t    1760 kB\nRssAnon:\t     112 kB\n\
                      RssFile:\t    1644 kB\nRssShmem:\t       4 kB\nVmPTE:\t 48 kB\nVmSwap:\t 0 kB\n\
                      Threads:\t3\n";
        let memory = ProcessMemory::parse(status).unwrap();
        assert_eq!(memory.rss_bytes, 1760 << 10);
        assert_eq!(memory.rss_anon_bytes, Some(112 << 10));
        assert_eq!(memory.rss_file_bytes, Some(1644 << 10));
        assert_eq!(memory.rss_shmem_bytes, Some(4 << 10));
        assert_eq!(memory.hwm_bytes, Some(2 << 20));
        assert_eq!(memory.swap_bytes, Some(0));
        assert_eq!(memory.page_tables_bytes, Some(48 << 10));
        assert_eq!(memory.threads, Some(3));
    }

    #[test]
    fn an_old_or_broken_status_is_no_reason_to_fail() {
        let old = ProcessMemory::parse("VmRSS: 10 kB\n").unwrap();
        assert_eq!(
            (old.rss_bytes, old.rss_anon_bytes, old.hwm_bytes),
            (10 << 10, None, None)
        );
        for broken in [
            "",
            "VmRSS: kB",
            "VmRSS: -5 kB",
            "VmRSS: 99999999999999999999 kB",
            "VmRSS 5",
        ] {
            assert_eq!(ProcessMemory::parse(broken), None, "{broken}");
        }
    }

    #[test]
    fn code_is_what_is_mapped_from_program_files() {
        let smaps = "\
55d3-55d4 r-xp 00000000 fe:00 123   /usr/bin/bursar\nSize:  100 kB\nRss:  60 kB\nAnonymous: 0 kB\n\
VmFlags: rd ex mr mw me\n\
55d4-55d5 rw-p 00000000 fe:00 123   /usr/bin/bursar\nSize:  20 kB\nRss:  20 kB\nAnonymous: 16 kB\n\
55d4-55d5 ---p 00000000 fe:00 123   /usr/bin/bursar\nSize:  2044 kB\nRss:  0 kB\nAnonymous: 0 kB\n\
55d5-55d6 rw-p 00000000 00:00 0\nSize: 999 kB\nRss: 999 kB\nAnonymous: 999 kB\n\
55d6-55d7 rw-p 00000000 00:00 0     [heap]\nSize: 999 kB\nRss: 999 kB\nAnonymous: 999 kB\n\
55d7-55d8 rw-s 00000000 00:01 9     /memfd:x (deleted)\nSize: 999 kB\nRss: 999 kB\n";
        let code = CodeMemory::parse(smaps).unwrap();
        assert_eq!(code.mappings, [0x55d3..0x55d4, 0x55d4..0x55d5]);
        assert_eq!(code.mapped_bytes, 120 << 10);
        assert_eq!(code.resident_bytes, 64 << 10);
        assert_eq!(code.written_bytes, 16 << 10);
        assert_eq!(CodeMemory::parse(""), None);
    }

    #[test]
    fn limits_are_soft_and_may_be_none() {
        let limits = ProcessLimits::parse(
            "Limit                     Soft Limit           Hard Limit           Units     \n\
             Max data size             unlimited            unlimited            bytes     \n\
             Max stack size            8388608              unlimited            bytes     \n\
             Max address space         1073741824           unlimited            bytes     \n",
        );
        assert_eq!(limits.address_space_bytes, Some(1 << 30));
        assert_eq!((limits.data_bytes, limits.locked_bytes), (None, None));
        assert_eq!(limits.stack_bytes, Some(8 << 20));
    }

    #[test]
    fn the_real_process_is_read() {
        let probe = Probe::default();
        let Some(memory) = probe.process() else {
            return;
        };
        assert!(memory.rss_bytes > 0);
        if let Some(code) = probe.code() {
            assert!(code.resident_bytes > 0 && code.resident_bytes <= code.mapped_bytes);
        }
        // Not permitted everywhere; where it is, the mark must come down to what is resident.
        if probe.reset_hwm().is_ok() {
            assert!(probe.process().unwrap().hwm_bytes.is_some());
        }
    }
}
