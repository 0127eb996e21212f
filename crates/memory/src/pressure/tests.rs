//! Levels from samples, and samples from made-up systems of both cgroup versions.

use std::fs;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;

const BUDGET: Bytes = Bytes::gib(4);

/// A sample of a process that holds so much, alone in a cgroup and on a machine with such limits.
fn sample(resident: Bytes, limits: &[(Bytes, Bytes)]) -> Sample {
    let limit = |&(limit, held)| Limit {
        name: "cgroup /app".to_owned(),
        limit,
        held,
    };
    Sample {
        budget: BUDGET,
        granted: resident,
        resident,
        limits: limits.iter().map(limit).collect(),
        stalls: None,
    }
}

fn levels(judge: &mut Judge, sample: &Sample) -> (Level, Level) {
    let assessment = judge.assess(sample);
    (assessment.inside, assessment.outside)
}

#[test]
fn a_full_budget_that_the_system_can_hold_is_no_reason_to_refuse() {
    let mut judge = Judge::default();
    // A limit of the budget and 5 %, all of the budget resident, and some page tables.
    let limit = Bytes(BUDGET.0 / 100 * 105);
    let full = sample(BUDGET, &[(limit, BUDGET + Bytes::mib(20))]);
    assert_eq!(levels(&mut judge, &full), (Level::Critical, Level::Normal));
    assert!(!judge.assess(&full).refuses());
    // What is granted counts before it is resident.
    let granted = Sample {
        granted: BUDGET.percent(86.0),
        ..sample(Bytes::mib(10), &[])
    };
    assert_eq!(levels(&mut judge, &granted), (Level::High, Level::Normal));
}

#[test]
fn others_who_take_the_room_that_the_budget_needs_are_pressure() {
    let mut judge = Judge::default();
    let machine = Bytes::gib(8);
    let held = |others: f64| Bytes::gib(2) + machine.percent(others);
    // Others hold less than what the budget leaves: whatever we take, it fits.
    let calm = sample(Bytes::gib(2), &[(machine, held(49.0))]);
    assert_eq!(levels(&mut judge, &calm).1, Level::Normal);
    for (others, level) in [
        (51.0, Level::Elevated),
        (61.0, Level::High),
        (70.5, Level::Critical),
    ] {
        let pressed = sample(Bytes::gib(2), &[(machine, held(others))]);
        let assessment = judge.assess(&pressed);
        assert_eq!(assessment.outside, level, "{others}");
        assert!(assessment.cause.contains("cgroup /app"));
        // With so much less the level is left.
        let less = assessment.missing + Bytes::mib(1);
        let relieved = sample(
            Bytes::gib(2).saturating_sub(less),
            &[(machine, held(others).saturating_sub(less))],
        );
        assert!(judge.clone().assess(&relieved).outside < level);
    }
    assert!(
        judge
            .assess(&sample(Bytes::gib(2), &[(machine, held(72.0))]))
            .refuses()
    );
}

#[test]
fn stalls_and_bytes_beyond_the_budget_are_pressure() {
    let stalled = |some_percent, full_percent| Sample {
        stalls: Some(Stalls {
            some_percent,
            full_percent,
        }),
        ..sample(Bytes::gib(1), &[])
    };
    let outside = |sample: &Sample| Judge::default().assess(sample).outside;
    assert_eq!(outside(&stalled(9.0, 5.0)), Level::Normal);
    assert_eq!(outside(&stalled(12.0, 5.0)), Level::Elevated);
    assert_eq!(outside(&stalled(90.0, 40.0)), Level::High);
    assert_eq!(outside(&sample(BUDGET + Bytes(4096), &[])), Level::High);
    assert_eq!(
        outside(&sample(Bytes(BUDGET.0 / 100 * 103), &[])),
        Level::Critical
    );
}

#[test]
fn thresholds_are_ascending_shares() {
    assert!(Thresholds::new(0.5, 0.5, 1.0).is_ok());
    for (a, b, c) in [
        (0.0, 0.5, 0.9),
        (0.6, 0.5, 0.9),
        (0.5, 0.9, 0.8),
        (0.5, 0.9, 1.1),
        (f64::NAN, 0.5, 0.9),
    ] {
        assert!(Thresholds::new(a, b, c).is_err());
    }
}

proptest! {
    /// A level is entered at its threshold at once, left below its margin at once, and kept between.
    #[test]
    fn a_level_does_not_flicker(shares in prop::collection::vec(0.0..1.2f64, 1..60)) {
        let thresholds = Thresholds::default();
        let mut before = Level::Normal;
        for share in shares {
            let now = thresholds.after(before, share);
            prop_assert!(share >= thresholds.of(now) - MARGIN);
            for level in Level::ALL {
                prop_assert!(share < thresholds.of(level) || now >= level);
                let kept = before >= level && share >= thresholds.of(level) - MARGIN;
                prop_assert!(!kept || now >= level);
            }
            // Nothing within the margin changes it.
            let (low, high) = (share.min(share - MARGIN / 2.0), share);
            let settled = thresholds.after(now, low);
            prop_assert!(settled == now || low < thresholds.of(now) - MARGIN);
            prop_assert!(thresholds.after(settled, high) >= settled);
            before = now;
        }
    }
}

/// A system of these files, and what is found there.
fn found(files: &[(&str, &str)]) -> Sample {
    let root = TempDir::new().expect("a folder");
    for (path, contents) in files {
        let path = root.path().join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, contents).expect("a file");
    }
    Sample::take(&Ledger::new(BUDGET), &Probe::new(root.path()))
}

const PROCESS: (&str, &str) = (
    "proc/self/status",
    "VmRSS: 1048576 kB\nVmSwap: 1024 kB\nThreads: 3\n",
);
const MACHINE: (&str, &str) = (
    "proc/meminfo",
    "MemTotal: 8388608 kB\nMemAvailable: 4194304 kB\n",
);

#[test]
fn every_cgroup_above_counts_less_its_page_cache() {
    let mount = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw\n";
    let stat = "anon 1\ninactive_file 104857600\nactive_file 0\nfile_dirty 0\nfile_writeback 0\n";
    let pressure = "some avg10=12.50 avg60=0.00 avg300=0.00 total=1\n\
                    full avg10=3.00 avg60=0.00 avg300=0.00 total=1\n";
    let second = found(&[
        PROCESS,
        MACHINE,
        ("proc/self/cgroup", "0::/app/inner\n"),
        ("proc/self/mountinfo", mount),
        ("sys/fs/cgroup/app/inner/memory.current", "1200000000\n"),
        ("sys/fs/cgroup/app/inner/memory.max", "max\n"),
        ("sys/fs/cgroup/app/inner/memory.stat", stat),
        ("sys/fs/cgroup/app/inner/memory.pressure", pressure),
        ("sys/fs/cgroup/app/memory.current", "2000000000\n"),
        ("sys/fs/cgroup/app/memory.max", "4000000000\n"),
        ("sys/fs/cgroup/app/memory.high", "3000000000\n"),
        ("sys/fs/cgroup/app/memory.stat", stat),
    ]);
    let names: Vec<_> = second.limits.iter().map(|limit| &*limit.name).collect();
    assert_eq!(names, ["cgroup /app", "the machine"]);
    let app = &second.limits[0];
    assert_eq!(app.limit, Bytes(3_000_000_000));
    assert_eq!(app.held, Bytes(2_000_000_000 - 104_857_600));
    assert_eq!(second.limits[1].held, Bytes::gib(4));
    assert_eq!(second.resident, Bytes::gib(1) + Bytes::mib(1));
    assert_eq!(second.stalls.map(|stalls| stalls.some_percent), Some(12.5));

    let mount = "30 23 0:26 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n";
    let stat = "total_inactive_file 104857600\ntotal_active_file 0\n\
                hierarchical_memory_limit 9223372036854771712\n";
    let first = found(&[
        PROCESS,
        MACHINE,
        ("proc/self/cgroup", "4:memory:/app\n"),
        ("proc/self/mountinfo", mount),
        ("proc/pressure/memory", pressure),
        (
            "sys/fs/cgroup/memory/app/memory.usage_in_bytes",
            "2000000000\n",
        ),
        (
            "sys/fs/cgroup/memory/app/memory.limit_in_bytes",
            "3000000000\n",
        ),
        ("sys/fs/cgroup/memory/app/memory.stat", stat),
    ]);
    let app = &first.limits[0];
    assert_eq!(app.name, "cgroup /app");
    assert_eq!(
        (app.limit, app.held),
        (Bytes(3_000_000_000), Bytes(2_000_000_000 - 104_857_600))
    );
    assert_eq!(first.stalls, second.stalls);
}

#[test]
fn a_system_that_tells_nothing_presses_nobody() {
    let sample = found(&[]);
    assert_eq!(sample.resident, Bytes::ZERO);
    assert!(sample.limits.is_empty() && sample.stalls.is_none());
    assert_eq!(Judge::default().assess(&sample), Assessment::default());
    let gauge = Gauge::new();
    let critical = Assessment {
        outside: Level::Critical,
        ..Assessment::default()
    };
    assert_eq!(gauge.clone().set(critical.clone()), Assessment::default());
    assert!(gauge.refuses() && gauge.read() == critical);
}
