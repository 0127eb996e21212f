//! How long the engine's phases take, by the process's spans: quantiles, counts and totals.

use bursar_profile::{SpanSummary, spans};

use super::page::Page;

/// Writes all spans that were seen.
pub(super) fn write(page: &mut Page) {
    let summary = spans::summary();
    let seconds = |nanoseconds: u64| nanoseconds as f64 / 1e9;
    let name = "bursar_span_seconds";
    page.metric(
        name,
        "summary",
        "How long spans of work took, by their name.",
    );
    for span in summary.spans() {
        let quantiles = [("0.5", span.p50_ns), ("0.99", span.p99_ns)];
        for (quantile, value) in quantiles {
            let labels = [("span", span.name), ("quantile", quantile)];
            page.value(name, &labels, seconds(value));
        }
        let labels = [("span", span.name)];
        page.value(&format!("{name}_sum"), &labels, seconds(span.total_ns));
        page.value(&format!("{name}_count"), &labels, span.count);
    }
    let mut end = |name: &str, help: &str, value: &dyn Fn(&SpanSummary) -> u64| {
        page.metric(name, "gauge", help);
        for span in summary.spans() {
            page.value(name, &[("span", span.name)], seconds(value(span)));
        }
    };
    let shortest = "The shortest span of a name.";
    end("bursar_span_min_seconds", shortest, &|span| span.min_ns);
    let longest = "The longest span of a name.";
    end("bursar_span_max_seconds", longest, &|span| span.max_ns);
}
