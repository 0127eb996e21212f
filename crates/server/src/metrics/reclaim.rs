//! The figures of memory that is short: levels, rungs taken, and what they gave. Labels are the rungs
//! and levels, of which there are a fixed few; why each was taken is in `GET /memory`.

use bursar_memory::pressure::Assessment;
use bursar_memory::{ReclaimReport, Rung};

use super::page::Page;

/// Writes them.
pub(super) fn write(page: &mut Page, found: &Assessment, report: &ReclaimReport) {
    let name = "bursar_memory_pressure_level";
    page.metric(
        name,
        "gauge",
        "How short memory is: 0 normal, 1 elevated, 2 high, 3 critical.",
    );
    for (place, level) in [("inside", found.inside), ("outside", found.outside)] {
        page.value(name, &[("place", place)], level as u8);
    }
    let name = "bursar_reclaim_total";
    page.metric(
        name,
        "counter",
        "Times that a rung of the ladder was taken because memory was short.",
    );
    let each = |page: &mut Page, name: &str, value: &dyn Fn(usize) -> u64| {
        for rung in Rung::ALL {
            page.value(name, &[("rung", rung.name())], value(rung as usize));
        }
    };
    each(page, name, &|rung| report.rungs[rung].times);
    let name = "bursar_reclaim_returned_bytes_total";
    page.metric(
        name,
        "counter",
        "Bytes that the operating system got back by that.",
    );
    each(page, name, &|rung| report.rungs[rung].bytes.get());
}
