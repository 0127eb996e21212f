//! The hierarchy in figures, as plain data.

use crate::membrane::Consolidation;
use crate::membrane::plan::MembraneOptions;
use crate::membrane::rooted::Weights;

/// One level.
#[derive(Clone, Debug, PartialEq)]
pub struct LevelReport {
    /// Its number, from 1.
    pub level: usize,
    /// Its weight among the others.
    pub weight: u64,
    /// Membranes there are.
    pub membranes: usize,
    /// Membranes there may be.
    pub membranes_max: usize,
    /// The span of each in bytes.
    pub membrane_bytes: u64,
    /// What all of them may span in bytes.
    pub span_bytes: u64,
    /// What those there are span in bytes.
    pub taken_bytes: u64,
    /// Bytes of that in use.
    pub used_bytes: u64,
    /// Bytes in use of each lifetime, in the order of [`Lifetime::ALL`](crate::Lifetime::ALL).
    pub used_by_lifetime: [u64; 4],
    /// Blocks of this level that were put into it.
    pub exact_total: u64,
    /// Blocks of this level that were put into another.
    pub spilled_total: u64,
    /// Blocks of other levels that were put into this one.
    pub received_total: u64,
    /// Blocks of this level for which no membrane had room.
    pub failed_total: u64,
    /// The importance of the membrane that would go first.
    pub least_importance: Option<f64>,
}

impl LevelReport {
    /// In use of what is taken; 0 where nothing is.
    pub fn utilisation_ratio(&self) -> f64 {
        match self.taken_bytes {
            0 => 0.0,
            taken => self.used_bytes as f64 / taken as f64,
        }
    }
}

/// All levels.
#[derive(Clone, Debug, PartialEq)]
pub struct MembranesReport {
    /// The most bytes that all levels may span.
    pub limit_bytes: u64,
    /// By what it is shared out.
    pub weights: Weights,
    /// What the levels were planned to span: at most the limit.
    pub span_bytes: u64,
    /// What the membranes there are span.
    pub taken_bytes: u64,
    /// Bytes of that in use.
    pub used_bytes: u64,
    /// Blocks that were put into their own level.
    pub exact_total: u64,
    /// Blocks that were put into another.
    pub spilled_total: u64,
    /// Blocks for which no membrane had room.
    pub failed_total: u64,
    /// Blocks that no membrane is long enough for.
    pub oversize_total: u64,
    /// What consolidations came to.
    pub consolidated: Consolidation,
    /// The levels, first to last.
    pub levels: Vec<LevelReport>,
}

impl MembranesReport {
    pub(super) fn new(
        options: &MembraneOptions,
        levels: Vec<LevelReport>,
        oversize_total: u64,
        consolidated: Consolidation,
    ) -> MembranesReport {
        let sum = |part: fn(&LevelReport) -> u64| levels.iter().map(part).sum();
        MembranesReport {
            limit_bytes: options.limit.0,
            weights: options.weights,
            span_bytes: sum(|level| level.span_bytes),
            taken_bytes: sum(|level| level.taken_bytes),
            used_bytes: sum(|level| level.used_bytes),
            exact_total: sum(|level| level.exact_total),
            spilled_total: sum(|level| level.spilled_total),
            failed_total: sum(|level| level.failed_total),
            oversize_total,
            consolidated,
            levels,
        }
    }
}
