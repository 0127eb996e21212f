//! The books against the operating system: how much of what is resident has an owner.

use bursar_profile::ProcessMemory;

use crate::bytes::Bytes;
use crate::snapshot::AccountSnapshot;

/// Drift that is not worth a word: 2 % of what is resident, and never less than 32 MiB.
const TOLERANCE_PERCENT: f64 = 2.0;
const TOLERANCE_MIN: Bytes = Bytes::mib(32);

/// What the books say beside what the kernel says, at one moment.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Drift {
    /// The sum of all grants.
    pub granted: Bytes,
    /// What the accounts are known or thought to take: what was measured of an account where it was,
    /// what it was granted where not.
    pub explained: Bytes,
    /// What the process really takes: resident and swapped out.
    pub resident: Bytes,
    /// Resident less explained, in bytes: positive where something has no owner, negative where
    /// what was granted has not been touched yet.
    pub drift_bytes: i64,
    /// Drift up to which the books count as right.
    pub tolerance: Bytes,
}

impl Drift {
    /// Whether the books are right within the tolerance.
    pub fn is_within_tolerance(&self) -> bool {
        self.drift_bytes.unsigned_abs() <= self.tolerance.0
    }

    /// What is resident beyond all grants: memory that nobody asked for.
    pub fn ungranted(&self) -> Bytes {
        self.resident.saturating_sub(self.granted)
    }
}

/// Holds the books against the process. Plain data in, plain data out.
pub fn reconcile(books: &AccountSnapshot, process: &ProcessMemory) -> Drift {
    let resident = Bytes(process.rss_bytes).saturating_add(Bytes(process.swap_bytes.unwrap_or(0)));
    let explained = explained(books);
    let signed = |bytes: Bytes| i64::try_from(bytes.0).unwrap_or(i64::MAX);
    Drift {
        granted: books.granted,
        explained,
        resident,
        drift_bytes: signed(resident).saturating_sub(signed(explained)),
        tolerance: resident.percent(TOLERANCE_PERCENT).max(TOLERANCE_MIN),
    }
}

fn explained(account: &AccountSnapshot) -> Bytes {
    // A measurement covers the account with all below it.
    account.measured.unwrap_or_else(|| {
        account
            .children
            .iter()
            .map(explained)
            .fold(account.own, Bytes::saturating_add)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::account::Lifetime;
    use crate::ledger::Ledger;

    #[test]
    fn measured_beats_granted_and_the_rest_is_drift() {
        let ledger = Ledger::new(Bytes::gib(1));
        let model = ledger.root().child("model", Lifetime::Semantic);
        let weights = model.child("weights", Lifetime::Semantic);
        let kv = model.child("kv", Lifetime::Episodic);
        let _weights = weights.reserve(Bytes::mib(500)).unwrap();
        let _kv = kv.reserve(Bytes::mib(300)).unwrap();
        let _own = ledger.root().reserve(Bytes::mib(10)).unwrap();
        let process = |rss: Bytes, swap: Bytes| ProcessMemory {
            rss_bytes: rss.0,
            swap_bytes: Some(swap.0),
            ..ProcessMemory::default()
        };
        let all = reconcile(&ledger.snapshot(), &process(Bytes::mib(810), Bytes::ZERO));
        assert_eq!((all.explained, all.drift_bytes), (Bytes::mib(810), 0));

        // Half of the cache has not been written yet.
        kv.set_measured(Bytes::mib(150));
        let drift = reconcile(
            &ledger.snapshot(),
            &process(Bytes::mib(650), Bytes::mib(50)),
        );
        assert_eq!(drift.explained, Bytes::mib(660));
        assert_eq!(drift.drift_bytes, 40 << 20);
        assert!(!drift.is_within_tolerance());
        assert_eq!(
            (drift.granted, drift.ungranted()),
            (Bytes::mib(810), Bytes::ZERO)
        );

        // A measurement of the model covers what is below it.
        model.set_measured(Bytes::mib(900));
        let drift = reconcile(&ledger.snapshot(), &process(Bytes::mib(890), Bytes::ZERO));
        assert_eq!(
            (drift.drift_bytes, drift.is_within_tolerance()),
            (-20 << 20, true)
        );
        assert_eq!(drift.ungranted(), Bytes::mib(80));
    }
}
