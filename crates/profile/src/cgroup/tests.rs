//! The cgroup reader against made-up trees: v1, v2, hybrid, inside containers, broken.

use std::fs;

use tempfile::TempDir;

use super::*;

struct Tree(TempDir);

impl Tree {
    fn new(cgroup: &str, mountinfo: &str) -> Tree {
        let tree = Tree(TempDir::new().unwrap());
        tree.file("proc/self/cgroup", cgroup);
        tree.file("proc/self/mountinfo", mountinfo);
        tree
    }

    fn file(&self, path: &str, contents: &str) -> &Tree {
        let path = self.0.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, contents).unwrap();
        self
    }

    fn read(&self) -> Option<CgroupMemory> {
        Probe::new(self.0.path()).cgroup()
    }
}

const V2_MOUNT: &str = "\
22 1 0:21 / /proc rw,nosuid - proc proc rw
30 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";

const V1_MOUNTS: &str = "\
31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu
35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw\n";

#[test]
fn v2_takes_the_lowest_limit_of_all_levels() {
    let tree = Tree::new("0::/user.slice/app.scope/inner\n", V2_MOUNT);
    tree.file(
        "sys/fs/cgroup/user.slice/app.scope/inner/memory.max",
        "max\n",
    )
    .file(
        "sys/fs/cgroup/user.slice/app.scope/inner/memory.current",
        "1000\n",
    )
    .file(
        "sys/fs/cgroup/user.slice/app.scope/inner/memory.stat",
        "anon 300\nfile 700\nfile_dirty 50\nfile_writeback 10\ninactive_file 400\n\
             active_file 200\n",
    )
    .file(
        "sys/fs/cgroup/user.slice/app.scope/inner/memory.pressure",
        "some avg10=2.00 avg60=0.00 avg300=0.00 total=5\n",
    )
    .file("sys/fs/cgroup/user.slice/app.scope/memory.max", "5000000\n")
    .file(
        "sys/fs/cgroup/user.slice/app.scope/memory.current",
        "2000\n",
    )
    .file("sys/fs/cgroup/user.slice/memory.max", "9000000\n")
    .file("sys/fs/cgroup/user.slice/memory.high", "4000000\n")
    .file("sys/fs/cgroup/user.slice/memory.current", "3000\n");
    let memory = tree.read().unwrap();
    assert_eq!(memory.version, CgroupVersion::V2);
    let paths: Vec<_> = memory
        .levels
        .iter()
        .map(|level| level.path.as_str())
        .collect();
    // The root has no files of its own.
    assert_eq!(
        paths,
        [
            "/user.slice/app.scope/inner",
            "/user.slice/app.scope",
            "/user.slice"
        ]
    );
    assert_eq!(memory.levels[0].limit_bytes, None);
    assert_eq!(memory.levels[0].reclaimable_bytes, Some(540));
    assert_eq!(memory.levels[0].held_bytes(), Some(460));
    assert_eq!(memory.limit_bytes(), Some(4_000_000));
    assert_eq!(
        memory.tightest().map(|level| level.path.as_str()),
        Some("/user.slice")
    );
    assert_eq!(
        memory.pressure.map(|pressure| pressure.some.avg10_percent),
        Some(2.0)
    );
}

#[test]
fn v2_inside_a_namespace_sees_itself_as_the_root() {
    let tree = Tree::new("0::/\n", V2_MOUNT);
    tree.file("sys/fs/cgroup/memory.max", "536870912\n")
        .file("sys/fs/cgroup/memory.current", "1\n");
    let memory = tree.read().unwrap();
    assert_eq!(memory.limit_bytes(), Some(512 << 20));
    assert_eq!(memory.levels.len(), 1);
    assert_eq!(memory.levels[0].path, "/");
}

#[test]
fn v1_is_hierarchical_and_huge_means_unlimited() {
    let tree = Tree::new("4:memory:/a/b\n2:cpuacct:/\n0::/\n", V1_MOUNTS);
    tree.file(
        "sys/fs/cgroup/memory/a/b/memory.limit_in_bytes",
        "9223372036854771712\n",
    )
    .file("sys/fs/cgroup/memory/a/b/memory.usage_in_bytes", "5000\n")
    .file(
        "sys/fs/cgroup/memory/a/b/memory.max_usage_in_bytes",
        "6000\n",
    )
    .file("sys/fs/cgroup/memory/a/b/memory.use_hierarchy", "1\n")
    .file(
        "sys/fs/cgroup/memory/a/b/memory.stat",
        "inactive_file 1\nactive_file 2\nhierarchical_memory_limit 7000000\n\
             total_inactive_file 1000\ntotal_active_file 500\ntotal_dirty 100\n",
    )
    .file("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "8000000\n")
    .file("sys/fs/cgroup/memory/a/memory.usage_in_bytes", "9000\n")
    .file("sys/fs/cgroup/memory/a/memory.use_hierarchy", "0\n")
    .file(
        "sys/fs/cgroup/memory/a/memory.stat",
        "inactive_file 10\nactive_file 20\ntotal_inactive_file 1000\n",
    )
    .file(
        "sys/fs/cgroup/memory/memory.limit_in_bytes",
        "9223372036854771712\n",
    )
    .file("sys/fs/cgroup/memory/memory.usage_in_bytes", "10000\n");
    let memory = tree.read().unwrap();
    assert_eq!(memory.version, CgroupVersion::V1);
    assert_eq!(memory.levels.len(), 3);
    // From memory.stat: an ancestor that is not visible here has it.
    assert_eq!(memory.levels[0].limit_bytes, Some(7_000_000));
    assert_eq!(memory.levels[0].reclaimable_bytes, Some(1400));
    assert_eq!(memory.levels[0].peak_bytes, Some(6000));
    assert_eq!(
        memory.levels[1].reclaimable_bytes,
        Some(30),
        "not hierarchical: own pages only"
    );
    assert_eq!(memory.levels[2].limit_bytes, None);
    assert_eq!(memory.limit_bytes(), Some(7_000_000));
}

#[test]
fn v1_in_a_container_that_mounts_only_its_own() {
    let mounts = "35 31 0:32 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n";
    let tree = Tree::new("4:memory:/docker/abc\n", mounts);
    tree.file("sys/fs/cgroup/memory/memory.limit_in_bytes", "1000000\n")
        .file("sys/fs/cgroup/memory/memory.usage_in_bytes", "10\n");
    assert_eq!(
        tree.read().and_then(|memory| memory.limit_bytes()),
        Some(1_000_000)
    );

    let deeper = Tree::new("4:memory:/docker/abc/x\n", mounts);
    deeper
        .file("sys/fs/cgroup/memory/memory.limit_in_bytes", "1000000\n")
        .file("sys/fs/cgroup/memory/x/memory.limit_in_bytes", "500000\n");
    let memory = deeper.read().unwrap();
    assert_eq!(memory.limit_bytes(), Some(500_000));
    assert_eq!(memory.levels.len(), 2);

    // Not below the mount at all: what is mounted is the nearest.
    for path in ["/docker/abcdef", "/elsewhere", "/../outside"] {
        let outside = Tree::new(&format!("4:memory:{path}\n"), mounts);
        outside.file("sys/fs/cgroup/memory/memory.limit_in_bytes", "77\n");
        assert_eq!(
            outside.read().and_then(|memory| memory.limit_bytes()),
            Some(77),
            "{path}"
        );
    }
}

#[test]
fn a_hybrid_without_v1_files_falls_through_to_v2() {
    let tree = Tree::new("4:memory:/a\n0::/b\n", V1_MOUNTS);
    tree.file("sys/fs/cgroup/unified/b/memory.max", "123456\n");
    let memory = tree.read().unwrap();
    assert_eq!(
        (memory.version, memory.limit_bytes()),
        (CgroupVersion::V2, Some(123_456))
    );
}

#[test]
fn a_mount_point_with_blanks_is_found() {
    let tree = Tree::new(
        "0::/a:b\n",
        "30 23 0:26 / /my\\040cgroups\\134x rw - cgroup2 cgroup2 rw\n",
    );
    tree.file("my cgroups\\x/a:b/memory.max", "99\n");
    assert_eq!(
        tree.read().and_then(|memory| memory.limit_bytes()),
        Some(99)
    );
    assert_eq!(unescape("\\04"), "\\04");
    assert_eq!(unescape("\\777"), "\\777", "beyond a byte");
}

#[test]
fn nothing_or_nonsense_is_none() {
    assert_eq!(Probe::new(TempDir::new().unwrap().path()).cgroup(), None);
    for (cgroup, mounts) in [
        ("", ""),
        ("0::/\n", ""),
        ("0::/\n", V2_MOUNT),
        ("::::\n0\n", V2_MOUNT),
        ("0::\n", "a b c d e f\n - \n1 - cgroup2\n"),
    ] {
        assert_eq!(
            Tree::new(cgroup, mounts).read(),
            None,
            "{cgroup:?} {mounts:?}"
        );
    }
    let tree = Tree::new("0::/a\n", V2_MOUNT);
    tree.file("sys/fs/cgroup/a/memory.max", "-3\n")
        .file("sys/fs/cgroup/a/memory.current", "many\n")
        .file(
            "sys/fs/cgroup/a/memory.stat",
            "inactive_file\nactive_file x\n",
        );
    assert_eq!(tree.read(), None);
}
