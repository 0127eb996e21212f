//! What is told of parameters that requests share.

use bursar_engine::ParamsReport;

use super::page::Page;

/// Writes it.
pub(super) fn write(page: &mut Page, report: &ParamsReport) {
    for (name, kind, help, value) in [
        (
            "bursar_params_unique",
            "gauge",
            "Different sampling parameters that are kept.",
            report.unique as f64,
        ),
        (
            "bursar_params_requests_total",
            "counter",
            "Times that sampling parameters were asked for.",
            report.requests_total as f64,
        ),
        (
            "bursar_params_evictions_total",
            "counter",
            "Sampling parameters that gave way to others.",
            report.evictions_total as f64,
        ),
        (
            "bursar_params_expired_total",
            "counter",
            "Sampling parameters that nobody asked for in time.",
            report.expired_total as f64,
        ),
        (
            "bursar_params_dedup_ratio",
            "gauge",
            "Share of those times that they were there already.",
            report.dedup_ratio(),
        ),
        (
            "bursar_params_bytes",
            "gauge",
            "What the sampling parameters kept take.",
            report.bytes.get() as f64,
        ),
    ] {
        page.one(name, kind, help, value);
    }
}
