//! A trace recorded from pools at work, written, read, replayed every way and drawn.

#![allow(clippy::unwrap_used, reason = "a test may")]

use bursar_memory::heap_pool::Strategy;
use bursar_memory::membrane::Weights;
use bursar_memory::pools::{Pools, PoolsOptions};
use bursar_memory::trace::{Trace, Way, picture, replay};
use bursar_memory::{Bytes, Ledger, Lifetime};

/// What a small server might do: a request's buffers come and go, a few stay. Made from a seed.
fn record(options: &PoolsOptions) -> Trace {
    let ledger = Ledger::new(Bytes::mib(64));
    let pools = Pools::start(options, &ledger.root()).unwrap();
    pools.recorder().start(4000, &ledger.root()).unwrap();
    let buffers = pools.buffers();
    let mut seed = 7_u64;
    let mut random = |below: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) % below
    };
    let mut stays = Vec::new();
    let mut requests = Vec::new();
    for round in 0..300 {
        let body = buffers
            .acquire(random(3000) as usize, Lifetime::Episodic)
            .unwrap();
        let mut answer = buffers.acquire_empty(256, Lifetime::Episodic).unwrap();
        for _ in 0..random(8) {
            answer.extend_from_slice(&[0; 400]).unwrap();
        }
        requests.push((body, answer));
        if requests.len() > 8 {
            requests.swap_remove(random(8) as usize);
        }
        if round % 10 == 0 {
            let len = 1000 + random(20_000) as usize;
            stays.push(buffers.acquire(len, Lifetime::Semantic).unwrap());
        }
        let _step = buffers
            .acquire(64 << random(8), Lifetime::Procedural)
            .unwrap();
    }
    drop((requests, stays));
    pools.recorder().stop().unwrap()
}

#[test]
fn a_trace_can_be_replayed_every_way() {
    let options = PoolsOptions {
        heap_size: Bytes::kib(512),
        ..PoolsOptions::default()
    };
    let trace = record(&options);
    let takes = trace.blocks.len();
    assert_eq!((trace.events.len(), trace.lost_events), (2 * takes, 0));
    // The acquiring places, and the one that grew.
    assert!(trace.places.len() >= 5, "{:?}", trace.places);
    assert!(
        trace
            .places
            .iter()
            .all(|place| place.contains("tests/trace.rs:"))
    );
    let read = Trace::from_json(&trace.to_json()).unwrap();
    assert_eq!((&read.blocks, &read.places), (&trace.blocks, &trace.places));

    // By hand: the most that was in use at one moment.
    let (mut used, mut used_peak) = (0_u64, 0);
    for event in &trace.events {
        let bytes = trace.blocks[event.block as usize].bytes;
        used = if event.gives {
            used - bytes
        } else {
            used + bytes
        };
        used_peak = used_peak.max(used);
    }
    let mut ways = vec![Way::ProcessAllocator];
    for strategy in Strategy::ALL {
        for membranes in [None].into_iter().chain(Weights::ALL.map(Some)) {
            for buffers in [false, true] {
                ways.push(Way::Pools {
                    strategy,
                    membranes,
                    buffers,
                });
            }
        }
    }
    assert_eq!(ways.len(), 25);
    for way in ways {
        let done = replay(&read, way, &options).unwrap();
        assert_eq!((done.events, done.samples.len()), (2 * takes, 2 * takes));
        assert_eq!(
            (done.used_peak_bytes, done.refused),
            (used_peak, 0),
            "{way}"
        );
        assert_eq!(done.placed.len(), takes);
        assert!(done.event_ns > 0.0 && done.event_ns.is_finite());
        let Way::Pools {
            membranes, buffers, ..
        } = way
        else {
            assert_eq!(
                (done.held_peak_bytes, done.committed_peak_bytes),
                (None, None)
            );
            continue;
        };
        let (held, committed) = (
            done.held_peak_bytes.unwrap(),
            done.committed_peak_bytes.unwrap(),
        );
        assert!(
            used_peak <= held && held <= committed,
            "{way}: {used_peak} {held} {committed}"
        );
        assert_eq!(done.hit_ratio.unwrap() > 0.5, buffers, "{way}");
        assert_eq!(done.membranes.is_some(), membranes.is_some());
        if let Some(report) = &done.membranes {
            let drawn = takes as f64 * (1.0 - done.hit_ratio.unwrap());
            let counted = report.exact_total + report.spilled_total + report.failed_total;
            assert_eq!(
                counted + report.oversize_total,
                drawn.round() as u64,
                "{way}"
            );
            assert!(report.exact_total > 0);
        }
        let svg = picture(&way.to_string(), &done);
        assert!(svg.contains("handed out by the heaps") && svg.len() < 400_000);
    }
}
