//! What the ledger says when bytes do not fit: who asked, what is free, who holds the rest, and what
//! would make it fit.

use std::fmt;

use crate::bytes::Bytes;

/// A reservation that was not granted. Nothing has been charged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Path of the account that asked.
    pub account: String,
    /// Bytes asked for, beyond what the reservation already held if it was to grow.
    pub asked: Bytes,
    /// The most that this account could have been granted at that moment.
    pub free: Bytes,
    /// The most that this account can ever be granted in one piece: its budget or lowest ceiling less
    /// the floors of others.
    pub free_at_best: Bytes,
    /// The whole budget.
    pub budget: Bytes,
    /// The ceiling that stood in the way; `None` where it was the budget itself.
    pub ceiling_hit: Option<Box<CeilingHit>>,
    /// Who holds the most, largest first, at most five: of the whole ledger, or of the account whose
    /// ceiling was hit.
    pub holders: Vec<Holder>,
    /// Whether releasing bytes can help.
    pub verdict: Verdict,
    /// Whether a test asked for this refusal (see [`crate::faults`]).
    pub injected: bool,
}

/// Whether bytes that were refused could fit later.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// They fit once others release enough.
    NotNow,
    /// They do not fit even if everyone releases all that can be released. What cannot be released:
    /// the part of the budget above a ceiling on the way, the floors promised to other accounts,
    /// and, for a growth, the bytes of the reservation that is to grow.
    Never,
}

/// A ceiling that stood in the way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CeilingHit {
    /// Path of the account that has the ceiling.
    pub account: String,
    /// The ceiling.
    pub ceiling: Bytes,
}

/// One account and the bytes that it holds itself, its children's not counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// Path of the account.
    pub name: String,
    /// What it holds.
    pub bytes: Bytes,
}

impl Refusal {
    /// How many more bytes than there are now would have been needed.
    pub fn short(&self) -> Bytes {
        self.asked.saturating_sub(self.free)
    }

    /// By how much the limit that stands in the way must rise before the ask can ever fit; zero
    /// where it already can.
    pub fn short_at_best(&self) -> Bytes {
        self.asked.saturating_sub(self.free_at_best)
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Refusal {
            account,
            asked,
            free,
            budget,
            ..
        } = self;
        write!(f, "{account} asked for {asked} and {free} ")?;
        match &self.ceiling_hit {
            Some(hit) => {
                write!(
                    f,
                    "is free below the ceiling of {} on {}",
                    hit.ceiling, hit.account
                )?;
            }
            None => write!(f, "is free of a budget of {budget}")?,
        }
        if let [first, rest @ ..] = self.holders.as_slice() {
            write!(f, "; the most is held by {} ({})", first.name, first.bytes)?;
            for holder in rest {
                write!(f, ", {} ({})", holder.name, holder.bytes)?;
            }
        }
        match (self.verdict, &self.ceiling_hit) {
            (Verdict::NotNow, _) if self.injected => write!(f, "; refused on purpose, by a test"),
            (Verdict::NotNow, _) => {
                write!(f, "; it fits once {} more is released", self.short())
            }
            (Verdict::Never, None) => write!(
                f,
                "; it can never fit, since at most {} can be free: give a budget of at least {} \
                 (--memory or BURSAR_MEMORY), or ask for less",
                self.free_at_best,
                budget.saturating_add(self.short_at_best()),
            ),
            (Verdict::Never, Some(hit)) => write!(
                f,
                "; it can never fit, since at most {} can be free: raise that ceiling to at least \
                 {}, or ask for less",
                self.free_at_best,
                hit.ceiling.saturating_add(self.short_at_best()),
            ),
        }
    }
}

impl std::error::Error for Refusal {}
