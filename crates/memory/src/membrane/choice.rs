//! The decisions of the membranes as functions of plain data: which level a block belongs to, where
//! it goes when that is full, and what goes first when memory is short.

use std::cmp::Reverse;

use crate::account::Lifetime;
use crate::membrane::plan::LevelPlan;

/// How many blocks of its own size a membrane should have room for before a block of this lifetime
/// goes there. What stays is packed tightly, into small membranes of the upper levels; what comes and
/// goes in numbers gets the room below, where holes are filled again.
const fn companions(lifetime: Lifetime) -> u64 {
    match lifetime {
        // Pinned by someone: few, and none of them moves on.
        Lifetime::Emotional => 1,
        // Plans and step scratch: as many as there are programs.
        Lifetime::Procedural => 2,
        // Shared knowledge: grows slowly.
        Lifetime::Semantic => 4,
        // Requests: many at a time.
        Lifetime::Episodic => 16,
    }
}

/// The level (from 0) that a block of `len` bytes belongs to: the first whose membranes have room for
/// so many of its size as its lifetime asks for; where none has, the one with the longest membranes.
/// `None` where no membrane is as long as the block.
pub fn level_for(levels: &[LevelPlan], len: u64, lifetime: Lifetime) -> Option<usize> {
    let roomy = companions(lifetime).saturating_mul(len.max(1));
    let first = levels
        .iter()
        .position(|level| level.membrane_bytes >= roomy);
    first.or_else(|| {
        (0..levels.len())
            .min_by_key(|at| (Reverse(levels[*at].membrane_bytes), *at))
            .filter(|at| levels[*at].membrane_bytes >= len.max(1))
    })
}

/// The levels to try for such a block where its own is full, in order: below, where there is more
/// room, then above; those whose membranes are long enough.
pub fn spill_levels(levels: &[LevelPlan], own: usize, len: u64) -> impl Iterator<Item = usize> {
    let below = own + 1..levels.len();
    let above = (0..own).rev();
    below
        .chain(above)
        .filter(move |at| levels[*at].membrane_bytes >= len.max(1))
}

/// What is known of a membrane when it is to be decided which goes first. Times are counted in takes
/// of all membranes: what nobody touched while a thousand others were taken is idle, whatever the
/// clock says.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Experience {
    /// Takes since its last take or give.
    pub idle_takes: u64,
    /// Blocks it has ever handed out.
    pub uses: u64,
    /// Takes since its span was taken.
    pub age_takes: u64,
    /// Bytes in use by lifetime, in the order of [`Lifetime::ALL`].
    pub used_bytes: [u64; 4],
}

/// Takes elsewhere after which a membrane's activation has halved.
const ACTIVATION_HALVES_TAKES: f64 = 1024.0;

/// How much it matters that a membrane stays where it is, from 0 to 1: the mean of
///
/// - its *activation*: 1 when it was just touched, halved every 1024 takes elsewhere;
/// - its *use*: the share of all takes of its life that it served;
/// - its *age*: how much of its life lies beyond the same 1024 takes (what has lasted, lasts);
/// - its *persistence*: the mean over its bytes of how long their lifetime is: episodic 0, procedural
///   1/3, semantic 2/3, emotional 1.
///
/// Under pressure the least important goes first.
pub fn importance(experience: &Experience) -> f64 {
    let Experience {
        idle_takes,
        uses,
        age_takes,
        used_bytes,
    } = *experience;
    let activation = (-(idle_takes as f64) / ACTIVATION_HALVES_TAKES).exp2();
    let served = (uses as f64 / age_takes.max(1) as f64).min(1.0);
    let lasted = age_takes as f64 / (age_takes as f64 + ACTIVATION_HALVES_TAKES);
    let used: f64 = used_bytes.iter().map(|bytes| *bytes as f64).sum();
    let persistent: f64 = Lifetime::ALL
        .iter()
        .zip(used_bytes)
        .map(|(lifetime, bytes)| persistence(*lifetime) * bytes as f64)
        .sum();
    let persistence = if used > 0.0 { persistent / used } else { 0.0 };
    (activation + served + lasted + persistence) / 4.0
}

/// How long a lifetime is, from 0 to 1.
const fn persistence(lifetime: Lifetime) -> f64 {
    match lifetime {
        Lifetime::Episodic => 0.0,
        Lifetime::Procedural => 1.0 / 3.0,
        Lifetime::Semantic => 2.0 / 3.0,
        Lifetime::Emotional => 1.0,
    }
}

/// A membrane that might be evacuated.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its level (from 0) and its number.
    pub place: (usize, u64),
    /// Its span in bytes.
    pub span_bytes: u64,
    /// Bytes in use.
    pub used_bytes: u64,
    /// Bytes in use that can be moved now.
    pub movable_bytes: u64,
    /// See [`importance`].
    pub importance: f64,
}

/// The membranes to evacuate, first to last: those that are used to less than `sparse` (a share of
/// their span) and can be emptied (to move a part of the blocks would buy nothing), the least important
/// first, and of equals the one with the least to move.
pub fn evacuation_order(candidates: &[Candidate], sparse: f64) -> Vec<(usize, u64)> {
    let goes = |candidate: &&Candidate| {
        candidate.movable_bytes >= candidate.used_bytes
            && (candidate.used_bytes as f64) < candidate.span_bytes as f64 * sparse
    };
    let mut going: Vec<&Candidate> = candidates.iter().filter(goes).collect();
    going.sort_by(|one, other| {
        one.importance
            .total_cmp(&other.importance)
            .then(one.used_bytes.cmp(&other.used_bytes))
            .then(one.place.cmp(&other.place))
    });
    going.into_iter().map(|candidate| candidate.place).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::bytes::Bytes;
    use crate::membrane::plan::{MembraneOptions, plan_levels};

    /// 1, 1, 2, 4, 9, 20, 48, 115 pages a membrane.
    fn levels() -> Vec<LevelPlan> {
        let options = MembraneOptions::new(Bytes(200 * 4 * 4096));
        plan_levels(&options, Bytes::mib(16)).unwrap()
    }

    #[track_caller]
    fn check(len: u64, lifetime: Lifetime, level: Option<usize>) {
        assert_eq!(level_for(&levels(), len, lifetime), level);
    }

    /// A3
    #[test]
    fn size_and_lifetime_say_the_level() {
        check(0, Lifetime::Emotional, Some(0));
        check(4096, Lifetime::Emotional, Some(0));
        check(4096, Lifetime::Procedural, Some(2));
        check(4096, Lifetime::Semantic, Some(3));
        check(4096, Lifetime::Episodic, Some(5));
        check(4097, Lifetime::Episodic, Some(5));
        check(30 * 4096, Lifetime::Episodic, Some(7));
        check(115 * 4096, Lifetime::Episodic, Some(7));
        check(115 * 4096 + 1, Lifetime::Emotional, None);
        check(u64::MAX, Lifetime::Episodic, None);
    }

    #[test]
    fn what_is_full_spills_down_then_up() {
        let order = |own, pages: u64| -> Vec<usize> {
            spill_levels(&levels(), own, pages * 4096).collect()
        };
        assert_eq!(order(5, 1), [6, 7, 4, 3, 2, 1, 0]);
        assert_eq!(order(5, 4), [6, 7, 4, 3]);
        assert_eq!(order(7, 100), [0_usize; 0]);
    }

    #[test]
    fn the_least_important_goes_first() {
        let new = Experience {
            idle_takes: 0,
            uses: 1,
            age_takes: 1,
            used_bytes: [0; 4],
        };
        let idle = Experience {
            idle_takes: 10_000,
            ..new
        };
        assert!(importance(&idle) < importance(&new));
        let episodic = Experience {
            used_bytes: [0, 100, 0, 0],
            ..idle
        };
        let pinned = Experience {
            used_bytes: [0, 0, 0, 100],
            ..idle
        };
        assert!(importance(&episodic) < importance(&pinned));
        let seldom = Experience {
            age_takes: 1_000_000,
            ..new
        };
        let often = Experience {
            uses: 900_000,
            ..seldom
        };
        assert!(importance(&seldom) < importance(&often));

        let candidate = |place, used_bytes, importance| Candidate {
            place,
            span_bytes: 100,
            used_bytes,
            movable_bytes: 40,
            importance,
        };
        let candidates = [
            candidate((0, 0), 40, 0.9),
            candidate((1, 0), 50, 0.0),
            candidate((0, 7), 41, 0.0),
            candidate((1, 1), 20, 0.1),
            candidate((1, 2), 10, 0.1),
        ];
        let order = evacuation_order(&candidates, 0.5);
        assert_eq!(order, [(1, 2), (1, 1), (0, 0)]);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 512, failure_persistence: None, ..Default::default() })]

        /// A3: against the rule read out loud.
        #[test]
        fn the_level_is_the_first_with_room_for_company(
            len in 1..600_000_u64,
            lifetime in prop::sample::select(Lifetime::ALL.to_vec()),
        ) {
            let levels = levels();
            let many = companions(lifetime);
            let mut expected = None;
            for (at, level) in levels.iter().enumerate().rev() {
                if level.membrane_bytes / len >= many {
                    expected = Some(at);
                }
            }
            if expected.is_none() && len <= 115 * 4096 {
                expected = Some(7);
            }
            prop_assert_eq!(level_for(&levels, len, lifetime), expected);
        }

        #[test]
        fn importance_is_a_share(
            idle_takes: u64, uses: u64, age_takes: u64, used in prop::array::uniform4(0..1_u64 << 50),
        ) {
            let share = importance(&Experience { idle_takes, uses, age_takes, used_bytes: used });
            prop_assert!((0.0..=1.0).contains(&share), "{share}");
        }
    }
}
