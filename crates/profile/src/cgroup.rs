//! Memory limits that a container, a unit or an administrator has put around this process.
//!
//! A limit binds wherever it stands between the process and the root, so every level is read, in
//! cgroup v1 and v2 alike. Page cache that the kernel would drop for us is told apart from what is
//! really held: a container that has read a large file looks full and is not.
//!
//! Formats: Linux `Documentation/admin-guide/cgroup-v1/memory.rst` and `cgroup-v2.rst`,
//! `proc_pid_mountinfo(5)`, `cgroups(7)`.

use std::path::PathBuf;

use crate::pressure::Pressure;
use crate::probe::Probe;

/// v1 says "no limit" with the largest page count times the page size; nothing real comes near.
const UNLIMITED_BYTES: u64 = 1 << 60;

/// Which hierarchy holds the memory controller.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum CgroupVersion {
    /// One hierarchy per controller.
    V1,
    /// The unified hierarchy.
    V2,
}

/// One cgroup on the way from the process to the root.
#[derive(Clone, Debug, PartialEq)]
pub struct CgroupLevel {
    /// Its path below the mount, `/` for the topmost that can be seen.
    pub path: String,
    /// The most it may use before something in it is killed; the process's own level in v1 counts
    /// limits of ancestors that cannot be seen from inside a container too.
    pub limit_bytes: Option<u64>,
    /// Where the kernel starts to throttle it (v2 only).
    pub high_bytes: Option<u64>,
    /// All charged to it, page cache and kernel memory included.
    pub usage_bytes: Option<u64>,
    /// Of it clean page cache, which the kernel drops before it kills.
    pub reclaimable_bytes: Option<u64>,
    /// The most that was ever charged to it.
    pub peak_bytes: Option<u64>,
}

impl CgroupLevel {
    /// The lower of limit and throttle.
    pub fn lowest_bytes(&self) -> Option<u64> {
        match (self.limit_bytes, self.high_bytes) {
            (Some(limit), Some(high)) => Some(limit.min(high)),
            (limit, high) => limit.or(high),
        }
    }

    /// What is really held: usage less what the kernel would drop.
    pub fn held_bytes(&self) -> Option<u64> {
        Some(
            self.usage_bytes?
                .saturating_sub(self.reclaimable_bytes.unwrap_or(0)),
        )
    }
}

/// The cgroups that this process is in.
#[derive(Clone, Debug, PartialEq)]
pub struct CgroupMemory {
    /// Which hierarchy.
    pub version: CgroupVersion,
    /// The process's own first, the topmost that can be seen last; never empty.
    pub levels: Vec<CgroupLevel>,
    /// Stalls in the process's own cgroup (v2 only).
    pub pressure: Option<Pressure>,
}

impl CgroupMemory {
    /// The level with the lowest limit, the nearest if several are equal; `None` where no level has
    /// one.
    pub fn tightest(&self) -> Option<&CgroupLevel> {
        self.levels
            .iter()
            .filter(|level| level.lowest_bytes().is_some())
            .min_by_key(|level| level.lowest_bytes())
    }

    /// The lowest limit of all levels.
    pub fn limit_bytes(&self) -> Option<u64> {
        self.tightest().and_then(CgroupLevel::lowest_bytes)
    }

    pub(crate) fn read(probe: &Probe) -> Option<CgroupMemory> {
        let own = probe.text("/proc/self/cgroup")?;
        let mounts = probe.text("/proc/self/mountinfo")?;
        // With both mounted (hybrid) the controller is in only one of them, and then it is v1's.
        [CgroupVersion::V1, CgroupVersion::V2]
            .into_iter()
            .find_map(|version| {
                let path = own_path(&own, version)?;
                mounts
                    .lines()
                    .filter_map(|line| Mount::parse(line, version))
                    .find_map(|mount| CgroupMemory::read_mount(probe, version, &mount, path))
            })
    }

    fn read_mount(
        probe: &Probe,
        version: CgroupVersion,
        mount: &Mount,
        path: &str,
    ) -> Option<CgroupMemory> {
        let below = mount.below(path);
        let mut levels = Vec::new();
        let mut pressure = None;
        for path in paths_upwards(below) {
            let directory = format!("{}{}", mount.point, if path == "/" { "" } else { path });
            let files = Files { probe, directory };
            let level = match version {
                CgroupVersion::V1 => files.level_v1(path, levels.is_empty()),
                CgroupVersion::V2 => files.level_v2(path),
            };
            let Some(level) = level else { continue };
            if levels.is_empty() && version == CgroupVersion::V2 {
                pressure = files
                    .text("memory.pressure")
                    .and_then(|text| Pressure::parse(&text));
            }
            levels.push(level);
        }
        (!levels.is_empty()).then_some(CgroupMemory {
            version,
            levels,
            pressure,
        })
    }
}

/// The process's path in the hierarchy that could hold the memory controller.
fn own_path(cgroup: &str, version: CgroupVersion) -> Option<&str> {
    cgroup.lines().find_map(|line| {
        let mut fields = line.splitn(3, ':');
        let (id, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
        let matches = match version {
            CgroupVersion::V1 => controllers.split(',').any(|name| name == "memory"),
            CgroupVersion::V2 => id == "0" && controllers.is_empty(),
        };
        matches.then_some(path)
    })
}

/// `/a/b`, `/a`, `/`.
fn paths_upwards(path: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(path), |path| match path.rfind('/') {
        Some(0) if path.len() > 1 => Some("/"),
        Some(0) | None => None,
        Some(at) => Some(&path[..at]),
    })
}

#[derive(Debug, PartialEq, Eq)]
struct Mount {
    /// The cgroup that is mounted: `/`, or the container's own.
    root: String,
    /// Where.
    point: String,
}

impl Mount {
    /// `31 23 0:28 /root /mount/point options [optional ...] - type source superoptions`
    fn parse(line: &str, version: CgroupVersion) -> Option<Mount> {
        let (left, right) = line.split_once(" - ")?;
        let mut left = left.split_ascii_whitespace().skip(3);
        let (root, point) = (left.next()?, left.next()?);
        let mut right = right.split_ascii_whitespace();
        let (kind, _source, options) = (right.next()?, right.next()?, right.next().unwrap_or(""));
        let matches = match version {
            CgroupVersion::V1 => {
                kind == "cgroup" && options.split(',').any(|option| option == "memory")
            }
            CgroupVersion::V2 => kind == "cgroup2",
        };
        matches.then(|| Mount {
            root: unescape(root),
            point: unescape(point),
        })
    }

    /// The process's path as seen below the mount. Where the mount does not show it (the process is
    /// outside of what a namespace shows), the mounted cgroup itself is the nearest to look at.
    fn below<'a>(&self, path: &'a str) -> &'a str {
        let path = path.trim_end_matches('/');
        if path.split('/').any(|part| part == "..") {
            return "/";
        }
        let root = self.root.trim_end_matches('/');
        match path.strip_prefix(root) {
            Some("") | None => "/",
            Some(below) if below.starts_with('/') => below,
            Some(_) => "/",
        }
    }
}

/// The kernel writes blanks and backslashes in paths as `\040`.
fn unescape(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let octal = tail.get(..3).filter(|digits| {
            *first == b'\\' && digits.iter().all(|digit| (b'0'..=b'7').contains(digit))
        });
        let value = octal.and_then(|digits| {
            digits.iter().try_fold(0_u8, |value, digit| {
                value.checked_mul(8)?.checked_add(digit - b'0')
            })
        });
        match value {
            Some(value) => {
                bytes.push(value);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The files of one cgroup.
struct Files<'a> {
    probe: &'a Probe,
    directory: String,
}

impl Files<'_> {
    fn text(&self, name: &str) -> Option<String> {
        // Built by hand: an absolute second part would replace the first.
        let path = PathBuf::from(&self.directory).join(name);
        self.probe.text(path.to_str()?)
    }

    fn count(&self, name: &str) -> Option<u64> {
        self.text(name)?.trim().parse().ok()
    }

    /// A limit; "max" and numbers beyond any machine are none.
    fn limit(&self, name: &str) -> Option<u64> {
        self.count(name).filter(|bytes| *bytes < UNLIMITED_BYTES)
    }

    fn level_v1(&self, path: &str, own: bool) -> Option<CgroupLevel> {
        let stat = self.text("memory.stat");
        let stat = stat.as_deref().unwrap_or("");
        let usage = self.count("memory.usage_in_bytes");
        let limit = self.limit("memory.limit_in_bytes");
        // Where children count towards their parent, the `total_` figures match the usage.
        let hierarchical = self
            .count("memory.use_hierarchy")
            .is_none_or(|flag| flag == 1);
        let prefix = if hierarchical { "total_" } else { "" };
        let find = |name: &str| stat_field(stat, &format!("{prefix}{name}"));
        let cache = sum(find("inactive_file"), find("active_file"));
        let dirty = sum(find("dirty"), find("writeback"));
        // Ancestors above a container's mount cannot be read, but their limit shows here.
        let inherited = stat_field(stat, "hierarchical_memory_limit")
            .filter(|bytes| own && *bytes < UNLIMITED_BYTES);
        let limit = match (limit, inherited) {
            (Some(limit), Some(inherited)) => Some(limit.min(inherited)),
            (limit, inherited) => limit.or(inherited),
        };
        (usage.is_some() || limit.is_some()).then(|| CgroupLevel {
            path: path.to_owned(),
            limit_bytes: limit,
            high_bytes: None,
            usage_bytes: usage,
            reclaimable_bytes: cache.map(|cache| cache.saturating_sub(dirty.unwrap_or(0))),
            peak_bytes: self.count("memory.max_usage_in_bytes"),
        })
    }

    fn level_v2(&self, path: &str) -> Option<CgroupLevel> {
        let stat = self.text("memory.stat");
        let stat = stat.as_deref().unwrap_or("");
        let usage = self.count("memory.current");
        let limit = self.limit("memory.max");
        let high = self.limit("memory.high");
        let cache = sum(
            stat_field(stat, "inactive_file"),
            stat_field(stat, "active_file"),
        );
        let dirty = sum(
            stat_field(stat, "file_dirty"),
            stat_field(stat, "file_writeback"),
        );
        (usage.is_some() || limit.is_some() || high.is_some()).then(|| CgroupLevel {
            path: path.to_owned(),
            limit_bytes: limit,
            high_bytes: high,
            usage_bytes: usage,
            reclaimable_bytes: cache.map(|cache| cache.saturating_sub(dirty.unwrap_or(0))),
            peak_bytes: self.count("memory.peak"),
        })
    }
}

/// A line `name 123` of `memory.stat`.
fn stat_field(stat: &str, name: &str) -> Option<u64> {
    stat.lines().find_map(|line| {
        line.strip_prefix(name)?
            .strip_prefix(' ')?
            .trim()
            .parse()
            .ok()
    })
}

/// The sum of what is known; `None` where nothing is.
fn sum(a: Option<u64>, b: Option<u64>) -> Option<u64> {
    match (a, b) {
        (Some(a), Some(b)) => Some(a.saturating_add(b)),
        (a, b) => a.or(b),
    }
}

#[cfg(test)]
mod tests;
