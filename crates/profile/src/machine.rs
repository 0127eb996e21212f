//! Memory of the machine as a whole.

use crate::probe::kib_lines;

/// Memory of the machine, in bytes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct MachineMemory {
    /// All that the kernel has to give out.
    pub total_bytes: u64,
    /// What could be taken now without swapping; unknown before Linux 3.14.
    pub available_bytes: Option<u64>,
    /// Swap that is free.
    pub swap_free_bytes: Option<u64>,
}

impl MachineMemory {
    /// Reads `/proc/meminfo`; `None` without MemTotal.
    pub(crate) fn parse(meminfo: &str) -> Option<MachineMemory> {
        let find = |name: &str| {
            kib_lines(meminfo)
                .find(|(key, _)| *key == name)
                .map(|(_, bytes)| bytes)
        };
        Some(MachineMemory {
            total_bytes: find("MemTotal")?,
            available_bytes: find("MemAvailable"),
            swap_free_bytes: find("SwapFree"),
        })
    }
}

/// When the kernel backs memory with huge pages on its own.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum HugePageMode {
    /// Wherever it can.
    Always,
    /// Where a program asks for it.
    Madvise,
    /// Nowhere.
    Never,
}

impl HugePageMode {
    /// Reads `always [madvise] never`.
    pub(crate) fn parse(text: &str) -> Option<HugePageMode> {
        let chosen = text.split_once('[')?.1.split_once(']')?.0;
        match chosen {
            "always" => Some(HugePageMode::Always),
            "madvise" => Some(HugePageMode::Madvise),
            "never" => Some(HugePageMode::Never),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn meminfo_is_read() {
        let machine = MachineMemory::parse(
            "MemTotal:       24683520 kB\nMemFree: 5 kB\nMemAvailable:   24202240 kB\n\
             SwapFree:              0 kB\nHugePages_Total:       0\n",
        );
        assert_eq!(
            machine,
            Some(MachineMemory {
                total_bytes: 24683520 << 10,
                available_bytes: Some(24202240 << 10),
                swap_free_bytes: Some(0),
            })
        );
        assert_eq!(MachineMemory::parse("MemFree: 5 kB\n"), None);
    }

    #[test]
    fn the_mode_of_huge_pages_is_the_bracketed_one() {
        assert_eq!(
            HugePageMode::parse("always [madvise] never\n"),
            Some(HugePageMode::Madvise)
        );
        assert_eq!(
            HugePageMode::parse("[always] madvise never\n"),
            Some(HugePageMode::Always)
        );
        assert_eq!(
            HugePageMode::parse("always madvise [never]\n"),
            Some(HugePageMode::Never)
        );
        for strange in ["", "always", "[", "[]", "[sometimes]"] {
            assert_eq!(HugePageMode::parse(strange), None);
        }
    }
}
