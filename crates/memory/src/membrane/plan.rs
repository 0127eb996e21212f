//! How the limit is shared out: the span of each level, its membranes, and theirs.
//!
//! Integers throughout: shares are rounded down, so that what is planned never exceeds the limit.

use crate::bytes::Bytes;
use crate::membrane::rooted::Weights;

/// Levels where nobody says otherwise.
pub const DEPTH_DEFAULT: usize = 8;
/// The most levels there may be.
pub const DEPTH_MAX: usize = 12;
/// Membranes of a level, where its share has room for them. Enough to keep the four lifetimes apart.
const MEMBRANES: u64 = 4;
/// A membrane is a multiple of this, so that the pages of one are not those of another.
const UNIT_BYTES: u64 = 4096;

/// What membranes are made from.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct MembraneOptions {
    /// The most bytes that all levels may span.
    pub limit: Bytes,
    /// Levels.
    pub depth: usize,
    /// By what the limit is shared out.
    pub weights: Weights,
}

impl MembraneOptions {
    /// The usual levels and weights.
    pub fn new(limit: Bytes) -> MembraneOptions {
        MembraneOptions {
            limit,
            depth: DEPTH_DEFAULT,
            weights: Weights::default(),
        }
    }
}

/// Why there can be no such membranes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MembranePlanError {
    /// Too few or too many levels.
    #[error("{0} levels of membranes: there can be 1 to {DEPTH_MAX} (membranes.depth)")]
    Depth(usize),
    /// Not one membrane would have a page.
    #[error(
        "a limit of {limit} has no page for any of {depth} levels of membranes: raise \
         membranes.limit, or turn membranes off (membranes.enabled)"
    )]
    Limit {
        /// What was given.
        limit: Bytes,
        /// Among how many levels.
        depth: usize,
    },
}

/// One level as planned.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct LevelPlan {
    /// Its weight among the others.
    pub weight: u64,
    /// How many membranes it may have.
    pub membranes: usize,
    /// The span of each of them in bytes; 0 where there are none.
    pub membrane_bytes: u64,
}

impl LevelPlan {
    /// What all its membranes span in bytes.
    pub fn span_bytes(&self) -> u64 {
        // No overflow: at most the limit.
        self.membranes as u64 * self.membrane_bytes
    }
}

/// Shares the limit out. Level n gets `limit · weight(n) / Σ weights`; the share is cut into
/// four membranes (`MEMBRANES`), or into as many as it takes for none to be longer than
/// `membrane_max` (what the pool behind hands out in one piece), in whole pages.
///
/// # Errors
/// Where there are too few or too many levels, or the limit has no page for any.
pub fn plan_levels(
    options: &MembraneOptions,
    membrane_max: Bytes,
) -> Result<Vec<LevelPlan>, MembranePlanError> {
    let MembraneOptions {
        limit,
        depth,
        weights,
    } = *options;
    let weights = (1..=DEPTH_MAX)
        .contains(&depth)
        .then(|| weights.of(depth))
        .flatten()
        .ok_or(MembranePlanError::Depth(depth))?;
    let sum: u128 = weights.iter().map(|weight| u128::from(*weight)).sum();
    let longest = (membrane_max.0 / UNIT_BYTES * UNIT_BYTES).max(UNIT_BYTES);
    let levels: Vec<LevelPlan> = weights
        .into_iter()
        .map(|weight| {
            // No overflow: below 2^64 · 2^64; and at most the limit, so that it fits again.
            let share = (u128::from(limit.0) * u128::from(weight) / sum) as u64;
            let membranes = MEMBRANES
                .min(share / UNIT_BYTES)
                .max(share.div_ceil(longest).min(share / UNIT_BYTES));
            let membrane_bytes = share.checked_div(membranes).unwrap_or(0);
            LevelPlan {
                weight,
                membranes: usize::try_from(membranes).unwrap_or(usize::MAX),
                membrane_bytes: membrane_bytes / UNIT_BYTES * UNIT_BYTES,
            }
        })
        .collect();
    if levels.iter().all(|level| level.membranes == 0) {
        return Err(MembranePlanError::Limit { limit, depth });
    }
    Ok(levels)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn planned(limit: Bytes, depth: usize, weights: Weights) -> Vec<LevelPlan> {
        let options = MembraneOptions {
            limit,
            depth,
            weights,
        };
        plan_levels(&options, Bytes::mib(16)).unwrap()
    }

    #[test]
    fn shares_go_by_the_weights() {
        // Σ = 200, and 200 · 4 pages: one page a membrane where the weight is 1.
        let levels = planned(Bytes(200 * 4 * 4096), 8, Weights::RootedTrees);
        let pages: Vec<u64> = levels.iter().map(|l| l.membrane_bytes / 4096).collect();
        assert_eq!(pages, [1, 1, 2, 4, 9, 20, 48, 115]);
        assert!(levels.iter().all(|level| level.membranes == 4));
        // A long level has as many membranes as its longest allowed span asks for.
        let levels = planned(Bytes::gib(1), 8, Weights::RootedTrees);
        assert_eq!(levels[7].membranes, 37);
        assert!(levels[7].membrane_bytes <= 16 << 20);
    }

    #[test]
    fn what_cannot_be_planned_is_refused() {
        let refused = |limit, depth| {
            let options = MembraneOptions {
                depth,
                ..MembraneOptions::new(Bytes(limit))
            };
            plan_levels(&options, Bytes::mib(1)).unwrap_err()
        };
        assert_eq!(refused(1 << 30, 0), MembranePlanError::Depth(0));
        assert_eq!(refused(1 << 30, 13), MembranePlanError::Depth(13));
        assert!(matches!(refused(4095, 1), MembranePlanError::Limit { .. }));
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..Default::default() })]

        /// A3
        #[test]
        fn spans_never_exceed_the_limit(
            limit in prop_oneof![0..1_u64 << 24, any::<u64>()],
            depth in 1..=DEPTH_MAX,
            weights in prop::sample::select(Weights::ALL.to_vec()),
            membrane_max in 0..1_u64 << 32,
        ) {
            let options = MembraneOptions { limit: Bytes(limit), depth, weights };
            let Ok(levels) = plan_levels(&options, Bytes(membrane_max)) else {
                prop_assert!(limit < 4096 * 20_000, "there is a page for some level");
                return Ok(());
            };
            let spans: u128 = levels.iter().map(|l| u128::from(l.span_bytes())).sum();
            prop_assert!(spans <= u128::from(limit));
            // What rounding costs is bounded: a byte a share, a page a membrane.
            let membranes: u128 = levels.iter().map(|l| l.membranes as u128).sum();
            let lost = u128::from(limit) - spans;
            prop_assert!(lost <= depth as u128 * 4096 + membranes * 4096);
            for level in levels {
                prop_assert!(level.membrane_bytes.is_multiple_of(4096));
                prop_assert!(level.membrane_bytes <= membrane_max.max(4096));
                prop_assert_eq!(level.membranes == 0, level.membrane_bytes == 0);
            }
        }
    }
}
