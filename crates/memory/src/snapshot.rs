//! The books as plain data, taken at one single moment: what reports, decisions and the monitor read.

use crate::account::Lifetime;
use crate::bytes::Bytes;

/// An account and everything below it at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountSnapshot {
    /// Path: `process/model/weights`.
    pub name: String,
    /// How long its bytes are meant to live.
    pub lifetime: Lifetime,
    /// Who goes last: higher stays longer.
    pub priority: i32,
    /// Held by it and its children: exactly `own` and the children's `granted` together.
    pub granted: Bytes,
    /// Held by it directly.
    pub own: Bytes,
    /// What was last measured of it, children included.
    pub measured: Option<Bytes>,
    /// The most that it and its children held at one moment.
    pub peak: Bytes,
    /// Bytes guaranteed to it.
    pub floor: Bytes,
    /// The most that it may hold.
    pub ceiling: Option<Bytes>,
    /// The accounts below, in the order in which they were opened.
    pub children: Vec<AccountSnapshot>,
}

impl AccountSnapshot {
    /// The last part of the path.
    pub fn label(&self) -> &str {
        self.name.rsplit('/').next().unwrap_or(&self.name)
    }

    /// Every account that holds something itself, with what it holds; they add up to `granted`.
    pub fn leaves(&self) -> Vec<(&str, Bytes)> {
        let mut leaves = Vec::new();
        self.visit(&mut |account, _| {
            if !account.own.is_zero() {
                leaves.push((account.name.as_str(), account.own));
            }
        });
        leaves
    }

    /// Calls `f` with each account and its depth, parents before children.
    pub fn visit<'a>(&'a self, f: &mut dyn FnMut(&'a AccountSnapshot, usize)) {
        self.visit_at(0, f);
    }

    fn visit_at<'a>(&'a self, depth: usize, f: &mut dyn FnMut(&'a AccountSnapshot, usize)) {
        f(self, depth);
        for child in &self.children {
            child.visit_at(depth + 1, f);
        }
    }

    /// The account of that path.
    pub fn find(&self, name: &str) -> Option<&AccountSnapshot> {
        if self.name == name {
            return Some(self);
        }
        self.children.iter().find_map(|child| child.find(name))
    }
}
