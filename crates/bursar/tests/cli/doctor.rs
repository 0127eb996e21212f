//! What is said about machines: this one, and made-up ones.

use crate::support::Place;

/// A container: cgroup v2 with a limit above the process, huge pages off, some pressure.
fn container(place: &Place) {
    for (path, text) in [
        (
            "proc/meminfo",
            "MemTotal: 16777216 kB\nMemAvailable: 8388608 kB\nSwapFree: 0 kB\n",
        ),
        ("proc/self/status", "VmRSS: 1024 kB\n"),
        ("proc/self/cgroup", "0::/pod/app\n"),
        (
            "proc/self/mountinfo",
            "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n",
        ),
        (
            "proc/cpuinfo",
            "model name\t: Abacus 9000\nflags\t\t: fpu avx2 f16c amx_int8\n",
        ),
        ("proc/sys/vm/overcommit_memory", "0\n"),
        (
            "proc/pressure/memory",
            "some avg10=0.00 avg60=7.50 avg300=1.00 total=1\n\
             full avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
        ),
        (
            "sys/kernel/mm/transparent_hugepage/enabled",
            "always madvise [never]\n",
        ),
        ("sys/fs/cgroup/pod/app/memory.max", "max\n"),
        ("sys/fs/cgroup/pod/app/memory.current", "1048576\n"),
        ("sys/fs/cgroup/pod/memory.max", "2147483648\n"),
        ("sys/fs/cgroup/pod/memory.current", "1048576\n"),
    ] {
        place.write(&format!("root/{path}"), text);
    }
}

#[test]
fn a_container_is_seen_through() {
    let place = Place::new();
    container(&place);
    let report = place.bursar("doctor --root root --json").ok().json();
    assert_eq!(report["cpu"]["model"], "Abacus 9000");
    assert_eq!(
        report["cpu"]["features"],
        serde_json::json!(["f16c", "avx2", "amx_int8"])
    );
    assert_eq!(report["memory"]["total_bytes"], 16u64 << 30);
    assert_eq!(report["huge_pages"]["transparent"], "never");
    assert_eq!(report["cgroup"]["version"], 2);
    assert_eq!(report["cgroup"]["tightest"], "/pod");
    assert_eq!(report["cgroup"]["levels"][0]["path"], "/pod/app");
    assert_eq!(report["pressure"]["some"]["avg60_percent"], 7.5);
    // 90 % of the 2 GiB of the cgroup above the process's own.
    assert_eq!(report["budget"]["bytes"], (2u64 << 30) * 9 / 10);
    let subjects: Vec<_> = report["findings"]
        .as_array()
        .expect("a list")
        .iter()
        .collect();
    let subjects: Vec<_> = subjects
        .iter()
        .map(|f| f["subject"].as_str().expect("text"))
        .collect();
    assert_eq!(subjects, ["huge_pages", "pressure"]);

    let words = place.bursar("doctor --root root --memory 3GiB").ok();
    words.says(&[
        "Abacus 9000",
        "/pod: limit 2.0 GiB",
        "wrong: the budget of 3.0 GiB is more than the 2.0 GiB of /pod",
        "help: lower --memory",
        "by itself it would be 1.8 GiB",
    ]);
}

#[test]
fn a_machine_that_tells_nothing_needs_a_budget() {
    let place = Place::new();
    std::fs::create_dir(place.path("nothing")).expect("a folder");
    place
        .bursar("doctor --root nothing")
        .refused(2, &["--memory"]);
    let report = place
        .bursar("doctor --root nothing --memory 1GiB --json")
        .ok()
        .json();
    assert_eq!(report["budget"]["bytes"], 1u64 << 30);
    assert_eq!(report["cgroup"], serde_json::Value::Null);
}

#[test]
fn this_machine_can_be_surveyed() {
    let report = Place::new()
        .bursar("doctor --json --isa scalar")
        .ok()
        .json();
    assert_eq!(report["cpu"]["isa_chosen"], "scalar");
    assert!(report["cpu"]["cores"].as_u64() >= Some(1));
    assert!(report["budget"]["bytes"].as_u64() > Some(0));
}
