//! What a loaded model holds, by part: one place for `GET /memory` and the metrics.

use bursar_memory::{AccountSnapshot, Bytes};

use crate::served::Served;

/// A model's bytes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct HeldBytes {
    /// What was planned for it, with its part of the arena.
    pub(crate) plan: u64,
    /// What its account holds.
    pub(crate) used: Option<u64>,
    /// Of that, its weights as they are now: they may have been made smaller.
    pub(crate) weights: u64,
    /// Keys and values, as planned.
    pub(crate) kv: u64,
    /// Its part of the arena that all models share.
    pub(crate) activations: u64,
    pub(crate) tokenizer: u64,
}

impl HeldBytes {
    pub(crate) fn of(served: &Served, books: &AccountSnapshot) -> HeldBytes {
        let plan = served.engine.plan();
        let kv = plan.parts().iter().find(|part| part.name == "kv");
        let account = books.find(served.engine.account().name());
        let held = |name: &str| {
            let children = account.map_or(&[][..], |account| &account.children);
            let child = children.iter().find(|child| child.label() == name);
            child.map_or(0, |child| child.granted.get())
        };
        HeldBytes {
            plan: plan.need(Bytes::ZERO).loaded.get(),
            used: account.map(|account| account.granted.get()),
            weights: held("weights"),
            kv: kv.map_or(0, |part| part.bytes.get()),
            activations: plan.activations().get(),
            tokenizer: held("tokenizer"),
        }
    }
}
