//! How a model leaves: its bytes stay charged until they are measured as gone.
//!
//! Weights, keys and values and the arena are mappings, which are gone with their reservations. The
//! tokenizer lies on the small heap: freed, it is still resident until the allocator has given its
//! pages back, and that is looked at before its charge is dropped.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use bursar_memory::monitor::reconcile;
use bursar_memory::{Bytes, Ledger, Reservation, counting};
use bursar_profile::Probe;

use crate::EngineError;
use crate::handle::EngineHandle;
use crate::host::{Ended, EngineController};
use crate::vocabulary::Vocabulary;

/// How long memory that has been freed may take to be gone. What still is there then, because small
/// blocks of others lie between its own, is drift, and shown as such.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a step that runs for nobody any more may take.
const CANCELLED: Duration = Duration::from_secs(10);
/// Pause between two looks.
const PAUSE: Duration = Duration::from_millis(5);
/// Smaller charges than this cannot be told from what other threads do meanwhile.
const VISIBLE: Bytes = Bytes::kib(512);

/// Takes a model that nobody uses off its engine, and unloads it. `handle` must be the last one that is
/// kept for long.
///
/// # Errors
/// As [`EngineController::remove`]; the model is unloaded all the same.
pub fn unload(
    controller: &EngineController,
    handle: EngineHandle,
    ledger: &Ledger,
) -> Result<Ended, EngineError> {
    // What has been cancelled is dropped before the next step.
    handle.wait_empty(Instant::now() + CANCELLED);
    let before = drift(ledger);
    let charge = handle.vocabulary().take_charge();
    let vocabulary = Arc::downgrade(handle.vocabulary());
    let ended = controller.remove(&handle);
    drop(handle);
    if let Some(charge) = charge {
        until_gone(&charge, &vocabulary, ledger, before);
    }
    ended
}

fn until_gone(
    charge: &Reservation,
    vocabulary: &Weak<Vocabulary>,
    ledger: &Ledger,
    before: Option<i64>,
) {
    let begun = Instant::now();
    loop {
        // Who looks at the cache may have it in hand for a moment.
        if vocabulary.strong_count() == 0 {
            counting::purge();
            if is_gone(charge.bytes(), before, drift(ledger)) {
                return;
            }
        }
        if begun.elapsed() > PATIENCE {
            return;
        }
        std::thread::sleep(PAUSE);
    }
}

/// What is resident beyond what is granted.
fn drift(ledger: &Ledger) -> Option<i64> {
    let process = Probe::default().process()?;
    Some(reconcile(&ledger.snapshot(), &process).drift_bytes)
}

/// Whether bytes that are still charged are gone: what is resident beyond what is granted has fallen by
/// most of them. All of them cannot be asked for, because others take and give meanwhile.
fn is_gone(charged: Bytes, before: Option<i64>, after: Option<i64>) -> bool {
    let (Some(before), Some(after)) = (before, after) else {
        return true;
    };
    let fell = before.saturating_sub(after);
    charged < VISIBLE || fell >= i64::try_from(charged.get() / 4 * 3).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn most_of_what_is_charged_must_have_gone() {
        let gone = |after| is_gone(Bytes::mib(4), Some(10 << 20), Some(after));
        assert!(gone(6 << 20) && gone(7 << 20));
        assert!(!gone(8 << 20) && !gone(12 << 20));
        assert!(
            is_gone(Bytes::kib(8), Some(0), Some(0)),
            "too little to see"
        );
        assert!(
            is_gone(Bytes::mib(8), None, Some(0)),
            "nothing to see it by"
        );
    }
}
