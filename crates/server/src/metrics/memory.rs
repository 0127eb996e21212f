//! The figures of the ledger and of the process: budget, accounts, what is resident, the small heap.

use bursar_memory::monitor::reconcile;
use bursar_memory::{AccountSnapshot, Bytes};
use bursar_profile::Probe;

use super::page::Page;
use crate::app::App;

/// All of them.
pub(super) fn write(app: &App, page: &mut Page) {
    let ledger = &app.ledger;
    let books = ledger.snapshot();
    for (name, help, value) in [
        (
            "bursar_memory_budget_bytes",
            "What the whole process may take.",
            ledger.budget(),
        ),
        (
            "bursar_memory_granted_bytes",
            "What has been granted to all accounts.",
            books.granted,
        ),
        (
            "bursar_memory_granted_peak_bytes",
            "The most that was ever granted at once.",
            books.peak,
        ),
    ] {
        page.one(name, "gauge", help, value.get());
    }
    if let Some(process) = Probe::default().process() {
        page.one(
            "bursar_process_resident_bytes",
            "gauge",
            "What is resident of the process.",
            process.rss_bytes,
        );
        if let Some(peak) = process.hwm_bytes {
            page.one(
                "bursar_process_resident_peak_bytes",
                "gauge",
                "The most that was ever resident of the process.",
                peak,
            );
        }
        let drift = reconcile(&books, &process);
        page.one(
            "bursar_memory_drift_bytes",
            "gauge",
            "What is resident beyond what the accounts explain; negative where they hold more.",
            drift.drift_bytes,
        );
        page.one(
            "bursar_memory_drift_tolerance_bytes",
            "gauge",
            "Drift that is no cause for concern.",
            drift.tolerance.get(),
        );
    }
    accounts(&books, page);
    heap(app, page);
}

/// A figure of an account.
type Figure = fn(&AccountSnapshot) -> Option<Bytes>;

/// Every account by its path: there are a few for the process, and a few for each loaded model.
fn accounts(books: &AccountSnapshot, page: &mut Page) {
    let figures: [(&str, &str, Figure); 4] = [
        (
            "bursar_account_granted_bytes",
            "What an account holds itself, by its path; all of them are what is granted.",
            |account| {
                let leaf = account.children.is_empty();
                (leaf || !account.own.is_zero()).then_some(account.own)
            },
        ),
        (
            "bursar_account_measured_bytes",
            "What was last measured to be resident of an account, those below it included.",
            |account| account.measured,
        ),
        (
            "bursar_account_peak_bytes",
            "The most that an account and those below it held at once.",
            |account| Some(account.peak),
        ),
        (
            "bursar_account_ceiling_bytes",
            "The most that an account may hold, where that is less than all.",
            |account| account.ceiling,
        ),
    ];
    for (name, help, figure) in figures {
        page.metric(name, "gauge", help);
        books.visit(&mut |account, _| {
            if let Some(bytes) = figure(account) {
                let lifetime = account.lifetime.name();
                let labels = [("account", account.name.as_str()), ("lifetime", lifetime)];
                page.value(name, &labels, bytes.get());
            }
        });
    }
}

/// The small heap: what the process allocator has handed out, this page included.
fn heap(app: &App, page: &mut Page) {
    let Some(counts) = app.heap.map(|counts| counts()) else {
        return;
    };
    for (name, kind, help, value) in [
        (
            "bursar_heap_allocations_total",
            "counter",
            "Blocks that the process allocator handed out; one that was moved counts again.",
            counts.allocations,
        ),
        (
            "bursar_heap_deallocations_total",
            "counter",
            "Blocks that it took back.",
            counts.deallocations,
        ),
        (
            "bursar_heap_allocated_bytes",
            "gauge",
            "Bytes that live blocks take.",
            counts.live.get(),
        ),
        (
            "bursar_heap_allocated_peak_bytes",
            "gauge",
            "The most that they took at once.",
            counts.peak.get(),
        ),
        (
            "bursar_heap_copied_bytes_total",
            "counter",
            "Bytes copied because a block that grew or shrank had to lie elsewhere.",
            counts.copied.get(),
        ),
    ] {
        page.one(name, kind, help, value);
    }
}
