//! Spans allocate when a name or a thread is first seen, and never again.

use bursar_memory::counting::{self, ProcessAllocator, left_by};
use bursar_profile::{Level, span, spans};

#[global_allocator]
static ALLOCATOR: ProcessAllocator = counting::process_allocator();

fn work(times: u64) {
    for number in 0..times {
        let _outer = span!("outer");
        let _inner = span!("inner", number);
        spans::gauge("gauge", number);
    }
}

/// T5
#[test]
fn nothing_is_allocated_after_the_first_of_each_name_and_thread() {
    let allocations = |times| left_by(|| work(times)).1.allocations;
    assert_eq!(allocations(100), 0, "off");
    for level in [Level::Histograms, Level::Trace] {
        spans::set_level(level);
        work(1);
        assert_eq!(allocations(3 * spans::RING_EVENTS as u64), 0, "{level:?}");
    }
    spans::set_level(Level::Off);
}
