//! How much there is to spend: what a person said, or else what the cgroups and the machine leave.
//!
//! Detection looks at every limit around the process and takes the least room:
//!
//! ```text
//! room of a cgroup = limit - (usage - page cache the kernel would drop - what we hold ourselves)
//! room of the machine = what is available + what we hold ourselves
//! budget = 9/10 of the least room
//! ```
//!
//! The tenth stays for what a limit counts and resident memory does not: page tables, socket
//! buffers, the page cache in use.

use std::path::Path;

use bursar_profile::{CgroupLevel, CgroupVersion, Probe};

use crate::bytes::{Bytes, MemorySpec};

/// Of the room found, the share to spend by default.
const SPEND_PERCENT: f64 = 90.0;

/// The budget, and in words where it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Budget {
    /// How many bytes may be granted.
    pub bytes: Bytes,
    /// Where the number comes from: "90 % of the 4.0 GiB that cgroup /app allows (memory.max)".
    pub source: String,
    /// The least room that was found around the process; `None` where nothing could be read.
    pub room: Option<Bytes>,
    /// A warning where the budget is more than the room that was found.
    pub warning: Option<String>,
}

/// Why no budget could be made.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum BudgetError {
    /// Neither said nor found.
    #[error(
        "neither a memory limit nor the machine's memory could be read: say how much to use \
         with --memory or BURSAR_MEMORY"
    )]
    Unknown,
    /// A share of something unknown.
    #[error(
        "{0} is a share of the memory there is, which could not be read: give a size instead, such \
         as 4GiB"
    )]
    ShareOfUnknown(MemorySpec),
    /// Nothing to spend.
    #[error("a budget of 0 B holds nothing: give --memory or BURSAR_MEMORY a size such as 4GiB")]
    Zero,
}

/// The least room around the process and the words for it.
struct Room {
    bytes: Bytes,
    words: String,
}

/// Finds a budget below `probe_root`: `/` for the real machine.
///
/// # Errors
/// Where nothing could be read.
pub fn detect(probe_root: &Path) -> Result<Budget, BudgetError> {
    let room = least_room(&Probe::new(probe_root)).ok_or(BudgetError::Unknown)?;
    let bytes = room.bytes.percent(SPEND_PERCENT);
    if bytes.is_zero() {
        return Err(BudgetError::Zero);
    }
    let source = format!("{SPEND_PERCENT:.0} % of {}", room.words);
    Ok(Budget {
        bytes,
        source,
        room: Some(room.bytes),
        warning: None,
    })
}

/// The budget that a person asked for. `given_by` says where: "--memory", "BURSAR_MEMORY", the name
/// of a file. A share is of the room found below `probe_root`.
///
/// # Errors
/// Where it is nothing, or a share of something that could not be read.
pub fn given(spec: MemorySpec, given_by: &str, probe_root: &Path) -> Result<Budget, BudgetError> {
    let room = least_room(&Probe::new(probe_root));
    let (bytes, source) = match (spec, &room) {
        (MemorySpec::Bytes(bytes), _) => (bytes, given_by.to_owned()),
        (MemorySpec::Percent(_), None) => return Err(BudgetError::ShareOfUnknown(spec)),
        (MemorySpec::Percent(_), Some(room)) => (
            spec.resolve(room.bytes),
            format!("{given_by}: {spec} of {}", room.words),
        ),
    };
    if bytes.is_zero() {
        return Err(BudgetError::Zero);
    }
    let warning = room.as_ref().filter(|room| bytes > room.bytes).map(|room| {
        format!(
            "the budget of {bytes} ({given_by}) is more than {}: the kernel may kill the process \
             before the budget is reached",
            room.words
        )
    });
    Ok(Budget {
        bytes,
        source,
        room: room.map(|room| room.bytes),
        warning,
    })
}

fn least_room(probe: &Probe) -> Option<Room> {
    let ours = probe.process().map_or(0, |process| process.rss_bytes);
    let machine = probe
        .machine()
        .map(|machine| match machine.available_bytes {
            Some(available) => Room {
                bytes: Bytes(available.saturating_add(ours).min(machine.total_bytes)),
                words: format!(
                    "the {} available on this machine of {}",
                    Bytes(available.saturating_add(ours).min(machine.total_bytes)),
                    Bytes(machine.total_bytes)
                ),
            },
            None => Room {
                bytes: Bytes(machine.total_bytes),
                words: format!("this machine's {}", Bytes(machine.total_bytes)),
            },
        });
    let cgroup = probe.cgroup();
    let levels = cgroup.iter().flat_map(|cgroup| {
        cgroup
            .levels
            .iter()
            .filter_map(|level| level_room(level, cgroup.version, ours))
    });
    let address_space = probe
        .limits()
        .and_then(|limits| limits.address_space_bytes)
        .map(|limit| Room {
            bytes: Bytes(limit),
            words: format!("the address space of {} allowed (ulimit -v)", Bytes(limit)),
        });
    // The first of equals: the nearest cgroup rather than the machine.
    levels
        .chain(machine)
        .chain(address_space)
        .min_by_key(|room| room.bytes)
}

fn level_room(level: &CgroupLevel, version: CgroupVersion, ours: u64) -> Option<Room> {
    let limit = level.lowest_bytes()?;
    let others = level.held_bytes().unwrap_or(0).saturating_sub(ours);
    let file = match version {
        CgroupVersion::V1 => "memory.limit_in_bytes",
        CgroupVersion::V2 if level.limit_bytes == Some(limit) => "memory.max",
        CgroupVersion::V2 => "memory.high",
    };
    let path = &level.path;
    let allowed = format!("the {} that cgroup {path} allows ({file})", Bytes(limit));
    let words = match others {
        // A shell or two is not worth a word.
        0..0x100_0000 => allowed,
        _ => format!("{allowed} less {} that others in it hold", Bytes(others)),
    };
    Some(Room {
        bytes: Bytes(limit.saturating_sub(others)),
        words,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use tempfile::TempDir;

    use super::*;

    const MEMINFO: &str = "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n";
    const MOUNT: &str = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";

    fn machine(files: &[(&str, &str)]) -> TempDir {
        let root = TempDir::new().unwrap();
        for (path, contents) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, contents).unwrap();
        }
        root
    }

    fn check(files: &[(&str, &str)], expected: Bytes, source: &str) {
        let budget = detect(machine(files).path()).unwrap();
        assert_eq!((budget.bytes, budget.source.as_str()), (expected, source));
    }

    #[test]
    fn the_least_room_counts() {
        let bare = [("proc/meminfo", MEMINFO)];
        check(
            &bare,
            Bytes::gib(4).percent(90.0),
            "90 % of the 4.0 GiB available on this machine of 8.0 GiB",
        );
        let old = [("proc/meminfo", "MemTotal: 8388608 kB\n")];
        check(
            &old,
            Bytes::gib(8).percent(90.0),
            "90 % of this machine's 8.0 GiB",
        );
        let unit = [
            ("proc/meminfo", MEMINFO),
            ("proc/self/status", "VmRSS: 1024 kB\n"),
            ("proc/self/cgroup", "0::/app/inner\n"),
            ("proc/self/mountinfo", MOUNT),
            ("sys/fs/cgroup/app/inner/memory.max", "max\n"),
            ("sys/fs/cgroup/app/memory.max", "2147483648\n"),
            // 512 MiB and our own 1 MiB are held; of 100 MiB page cache nothing is.
            ("sys/fs/cgroup/app/memory.current", "642777088\n"),
            ("sys/fs/cgroup/app/memory.stat", "inactive_file 104857600\n"),
        ];
        check(
            &unit,
            Bytes::mib(1536).percent(90.0),
            "90 % of the 2.0 GiB that cgroup /app allows (memory.max) less 512.0 MiB that others in \
             it hold",
        );
        let narrow = [
            ("proc/meminfo", MEMINFO),
            (
                "proc/self/limits",
                "Max address space 1073741824 unlimited bytes\n",
            ),
        ];
        check(
            &narrow,
            Bytes::gib(1).percent(90.0),
            "90 % of the address space of 1.0 GiB allowed (ulimit -v)",
        );
    }

    #[test]
    fn what_is_given_is_taken_and_too_much_is_warned_of() {
        let root = machine(&[("proc/meminfo", MEMINFO)]);
        let given = |spec: &str| given(spec.parse().unwrap(), "--memory", root.path());
        let budget = given("1GiB").unwrap();
        assert_eq!(
            (budget.bytes, budget.source.as_str()),
            (Bytes::gib(1), "--memory")
        );
        assert_eq!((budget.room, budget.warning), (Some(Bytes::gib(4)), None));
        let budget = given("50%").unwrap();
        assert_eq!(budget.bytes, Bytes::gib(2));
        assert_eq!(
            budget.source,
            "--memory: 50% of the 4.0 GiB available on this machine of 8.0 GiB"
        );
        assert!(given("6GiB").unwrap().warning.unwrap().contains("may kill"));
        assert_eq!(given("0"), Err(BudgetError::Zero));
    }

    #[test]
    fn with_nothing_to_read_a_size_must_be_given() {
        let nothing = TempDir::new().unwrap();
        assert_eq!(detect(nothing.path()), Err(BudgetError::Unknown));
        let share = MemorySpec::Percent(50.0);
        assert_eq!(
            given(share, "--memory", nothing.path()),
            Err(BudgetError::ShareOfUnknown(share))
        );
        let size = given(MemorySpec::Bytes(Bytes::gib(1)), "--memory", nothing.path()).unwrap();
        assert_eq!(
            (size.bytes, size.room, size.warning),
            (Bytes::gib(1), None, None)
        );
    }
}
