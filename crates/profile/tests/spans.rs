//! Spans as programs use them. One test alone: the registry is the whole process's.

use bursar_profile::{Level, span, spans};

fn work(times: u64) {
    for number in 0..times {
        let _outer = span!("outer");
        let mut inner = span!("inner", number);
        inner.set_value(number + 1);
    }
}

/// T5
#[test]
fn spans_of_all_threads_are_counted_and_traced() {
    work(3);
    assert_eq!(spans::level(), Level::Off);
    assert!(spans::summary().spans().is_empty());
    assert_eq!(spans::trace().events(), 0);

    spans::set_level(Level::Histograms);
    work(5);
    static FINE: bursar_profile::Site = bursar_profile::Site::fine("fine");
    drop(FINE.enter(0));
    let summary = spans::summary();
    assert_eq!(summary.get("outer").expect("seen").count, 5);
    assert_eq!(summary.get("fine"), None);
    assert_eq!(spans::trace().events(), 0);

    spans::set_level(Level::Trace);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| work(100));
        }
    });
    drop(FINE.enter(0));
    spans::gauge("bytes", 4096);
    let summary = spans::summary();
    let outer = summary.get("outer").expect("seen");
    let inner = summary.get("inner").expect("seen");
    assert_eq!((outer.count, inner.count), (305, 305));
    assert_eq!(summary.get("fine").expect("seen").count, 1);
    assert!(outer.total_ns >= inner.total_ns);
    assert!(outer.min_ns <= outer.p50_ns && outer.p50_ns <= outer.p99_ns);
    assert!(outer.p99_ns <= outer.max_ns && outer.average_ns() <= outer.max_ns);
    let trace = spans::trace();
    assert_eq!((trace.events(), trace.lost()), (3 * 200 + 2, 0));
    let mut json = Vec::new();
    trace.write(&mut json).expect("memory takes all");
    let json = String::from_utf8(json).expect("text");
    assert_eq!(json.matches("\"name\":\"inner\"").count(), 300);
    assert!(
        json.contains("\"value\":100}"),
        "values set at the end are shown"
    );

    spans::reset();
    assert!(spans::summary().spans().is_empty());
    assert_eq!(spans::trace().events(), 0);

    // More than a ring holds: the last ones are there.
    work(spans::RING_EVENTS as u64);
    let trace = spans::trace();
    assert_eq!(trace.events(), spans::RING_EVENTS);
    assert_eq!(trace.lost(), spans::RING_EVENTS as u64);
    spans::set_level(Level::Off);
}
