//! How many rooted trees there are with so many nodes, and the weights that levels get from it.
//!
//! The numbers are OEIS A000081: 1, 1, 2, 4, 9, 20, 48, 115, ... By R. Otter, "The Number of Trees",
//! Annals of Mathematics 49 (1948), they obey
//!
//! ```text
//! n · a(n + 1) = Σ (k = 1..n)  ( Σ (d divides k) d · a(d) ) · a(n - k + 1),     a(1) = 1
//! ```
//!
//! and grow by a factor that tends to 2.9558.

use std::fmt;
use std::str::FromStr;

/// The numbers of rooted trees with 1, 2, ..., `terms` nodes; `None` past 64 bits (from 44 on,
/// because of the sums on the way).
pub fn rooted_trees(terms: usize) -> Option<Vec<u64>> {
    let mut trees: Vec<u64> = Vec::with_capacity(terms);
    // Σ (d divides k) d · a(d), for k = 1, 2, ...
    let mut divisor_sums: Vec<u64> = Vec::with_capacity(terms);
    for n in 0..terms {
        if n == 0 {
            trees.push(1);
        } else {
            let mut sum = 0_u64;
            for k in 1..=n {
                sum = sum.checked_add(divisor_sums[k - 1].checked_mul(trees[n - k])?)?;
            }
            // Exact, by the identity above.
            trees.push(sum / n as u64);
        }
        let k = n + 1;
        let mut sum = 0_u64;
        for d in (1..=k).filter(|d| k.is_multiple_of(*d)) {
            sum = sum.checked_add(trees[d - 1].checked_mul(d as u64)?)?;
        }
        divisor_sums.push(sum);
    }
    Some(trees)
}

/// By which numbers the limit is shared out among the levels.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Weights {
    /// Level n weighs as many as there are rooted trees with n nodes.
    #[default]
    RootedTrees,
    /// All levels weigh the same.
    Uniform,
    /// Each level weighs twice what the one above it weighs.
    PowersOfTwo,
}

impl Weights {
    /// All there are.
    pub const ALL: [Weights; 3] = [Weights::RootedTrees, Weights::Uniform, Weights::PowersOfTwo];

    /// The word in settings and reports: `rooted-trees`.
    pub const fn name(self) -> &'static str {
        match self {
            Weights::RootedTrees => "rooted-trees",
            Weights::Uniform => "uniform",
            Weights::PowersOfTwo => "powers-of-two",
        }
    }

    /// The weights of levels 1, 2, ..., `depth`; `None` past 64 bits.
    pub fn of(self, depth: usize) -> Option<Vec<u64>> {
        match self {
            Weights::RootedTrees => rooted_trees(depth),
            Weights::Uniform => Some(vec![1; depth]),
            Weights::PowersOfTwo => (0..depth)
                .map(|level| 1_u64.checked_shl(u32::try_from(level).ok()?))
                .collect(),
        }
    }
}

impl fmt::Display for Weights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for Weights {
    type Err = String;

    fn from_str(text: &str) -> Result<Weights, String> {
        let known = Weights::ALL.into_iter().find(|known| known.name() == text);
        known.ok_or_else(|| {
            format!("'{text}' is no weighting: use rooted-trees, uniform or powers-of-two")
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OEIS A000081, from n = 1.
    const PUBLISHED: [u64; 30] = [
        1,
        1,
        2,
        4,
        9,
        20,
        48,
        115,
        286,
        719,
        1842,
        4766,
        12486,
        32973,
        87811,
        235381,
        634847,
        1721159,
        4688676,
        12826228,
        35221832,
        97055181,
        268282855,
        743724984,
        2067174645,
        5759636510,
        16083734329,
        45007066269,
        126186554308,
        354426847597,
    ];

    /// A3
    #[test]
    fn the_numbers_are_the_published_ones() {
        assert_eq!(rooted_trees(30).unwrap(), PUBLISHED);
        assert_eq!(rooted_trees(0).unwrap(), [0_u64; 0]);
        assert_eq!(rooted_trees(1).unwrap(), [1]);
    }

    /// A3: counted the slow way, as multisets of smaller trees below a root.
    #[test]
    fn the_numbers_are_those_of_trees_counted_one_by_one() {
        // Ways to make up `nodes` nodes of trees with at most `largest` nodes each.
        fn forests(nodes: usize, largest: usize, trees: &[u64]) -> u64 {
            if nodes == 0 {
                return 1;
            }
            if largest == 0 {
                return 0;
            }
            let mut ways = 0;
            for times in 0..=nodes / largest {
                // Multisets of `times` out of trees[largest - 1] kinds.
                let kinds = trees[largest - 1];
                let multisets = (0..times as u64).fold(1, |m, i| m * (kinds + i) / (i + 1));
                ways += multisets * forests(nodes - times * largest, largest - 1, trees);
            }
            ways
        }
        let mut trees: Vec<u64> = Vec::new();
        for nodes in 1..=14 {
            trees.push(forests(nodes - 1, nodes - 1, &trees));
        }
        assert_eq!(rooted_trees(14).unwrap(), trees);
    }

    #[test]
    fn what_64_bits_cannot_count_is_refused() {
        let longest = (1..100).take_while(|terms| rooted_trees(*terms).is_some());
        assert_eq!(longest.last(), Some(43));
        assert!(Weights::PowersOfTwo.of(64).is_some());
        assert!(Weights::PowersOfTwo.of(65).is_none());
    }

    #[test]
    fn weightings_have_words() {
        for weights in Weights::ALL {
            assert_eq!(weights.name().parse(), Ok(weights));
            assert_eq!(weights.of(12).map(|of| of.len()), Some(12));
        }
        assert!("fibonacci".parse::<Weights>().is_err());
        assert_eq!(Weights::PowersOfTwo.of(4), Some(vec![1, 2, 4, 8]));
    }
}
