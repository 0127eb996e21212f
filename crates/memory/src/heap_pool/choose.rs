//! Which heap a block comes from, and which heap is emptied: plain functions of plain data.

/// By what a heap is chosen.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum Strategy {
    /// One after the other: spreads what is used at once.
    RoundRobin,
    /// The fullest in which the block may fit: leaves the others whole, so that they can be given back.
    #[default]
    BestFit,
    /// The emptiest: the quickest to find room.
    LeastUsed,
}

impl Strategy {
    /// All of them.
    pub const ALL: [Strategy; 3] = [Strategy::RoundRobin, Strategy::BestFit, Strategy::LeastUsed];

    /// The word in settings: `best-fit`.
    pub const fn name(self) -> &'static str {
        match self {
            Strategy::RoundRobin => "round-robin",
            Strategy::BestFit => "best-fit",
            Strategy::LeastUsed => "least-used",
        }
    }
}

impl std::fmt::Display for Strategy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(self.name())
    }
}

impl std::str::FromStr for Strategy {
    type Err = String;

    fn from_str(word: &str) -> Result<Strategy, String> {
        Strategy::ALL
            .into_iter()
            .find(|strategy| strategy.name() == word)
            .ok_or_else(|| format!("{word:?} is none of round-robin, best-fit and least-used"))
    }
}

/// How full a heap is, in bytes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Fill {
    /// In use.
    pub used: u64,
    /// In all.
    pub len: u64,
}

impl Fill {
    fn free(self) -> u64 {
        self.len.saturating_sub(self.used)
    }
}

/// The most heaps of a pool: a bit each in what a choice has passed over.
pub const HEAPS_MAX: usize = 64;

/// The heap to try for a block of `len` bytes, among `count` heaps as full as `fill` says: one that has
/// so many bytes free and whose bit in `passed_over` is not set. `turn` counts the blocks taken so far.
/// `None` where there is none; a heap that is chosen may still be too fragmented.
pub fn choose(
    strategy: Strategy,
    turn: u64,
    len: u64,
    count: usize,
    fill: impl Fn(usize) -> Fill,
    passed_over: u64,
) -> Option<usize> {
    let fits = |at: &usize| passed_over & (1 << at) == 0 && fill(*at).free() >= len;
    match strategy {
        Strategy::RoundRobin => {
            let first = turn.checked_rem(count as u64)? as usize;
            (first..count).chain(0..first).find(fits)
        }
        Strategy::BestFit => (0..count).filter(fits).min_by_key(|at| fill(*at).free()),
        Strategy::LeastUsed => (0..count).filter(fits).min_by_key(|at| fill(*at).used),
    }
}

/// Whether so much is in use that another heap is opened before the last byte is taken: a share of
/// `trigger` (0 to 1) or more.
pub fn should_grow(used: u64, capacity: u64, trigger: f64) -> bool {
    used as f64 >= capacity as f64 * trigger
}

/// The heaps that are worth emptying: in use, but by less than a share of `threshold` (0 to 1), as long
/// as the free bytes of those that stay have room for what is moved. Emptiest first; their bits.
pub fn sparse(count: usize, fill: impl Fn(usize) -> Fill, threshold: f64) -> u64 {
    let mut room: u64 = (0..count).map(|at| fill(at).free()).sum();
    let mut moved = 0;
    let mut sparse = 0_u64;
    loop {
        let next = (0..count)
            .filter(|at| sparse & (1 << at) == 0)
            .filter(|at| fill(*at).used > 0)
            .filter(|at| (fill(*at).used as f64) < fill(*at).len as f64 * threshold)
            .min_by_key(|at| fill(*at).used);
        let Some(at) = next else { return sparse };
        // What a heap that is emptied has free is no room for anything.
        let left = room.saturating_sub(fill(at).free());
        if moved + fill(at).used > left {
            return sparse;
        }
        room = left;
        moved += fill(at).used;
        sparse |= 1 << at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEN: u64 = 1000;

    fn fills(used: &[u64]) -> impl Fn(usize) -> Fill {
        move |at| Fill {
            used: used[at],
            len: LEN,
        }
    }

    fn check(strategy: Strategy, used: &[u64], len: u64, expected: Option<usize>) {
        let chosen = choose(strategy, 1, len, used.len(), fills(used), 0);
        assert_eq!(chosen, expected, "{strategy} among {used:?} for {len}");
    }

    /// P1
    #[test]
    fn heaps_are_chosen_as_the_strategy_says() {
        for strategy in Strategy::ALL {
            assert_eq!(strategy.name().parse(), Ok(strategy));
            check(strategy, &[], 1, None);
            check(strategy, &[LEN, LEN], 1, None);
        }
        assert!("worst-fit".parse::<Strategy>().is_err());
        check(Strategy::RoundRobin, &[0, 100, 0], 900, Some(1));
        check(Strategy::RoundRobin, &[0, 101, 0], 900, Some(2));
        check(Strategy::RoundRobin, &[0, 101, 500], 900, Some(0));
        check(Strategy::BestFit, &[0, 500, 900], 100, Some(2));
        check(Strategy::BestFit, &[0, 500, 900], 101, Some(1));
        check(Strategy::LeastUsed, &[800, 500, 900], 100, Some(1));
        check(Strategy::LeastUsed, &[800, 500, 900], 501, None);
        let passed = choose(Strategy::BestFit, 0, 1, 2, fills(&[500, 0]), 0b01);
        assert_eq!(passed, Some(1));
    }

    /// P6
    #[test]
    fn pools_grow_at_the_trigger() {
        assert!(should_grow(90, 100, 0.9));
        assert!(!should_grow(89, 100, 0.9));
        assert!(should_grow(0, 0, 0.9), "a pool without heaps");
    }

    /// P6
    #[test]
    fn sparse_heaps_are_those_whose_blocks_fit_elsewhere() {
        assert_eq!(sparse(3, fills(&[100, 0, 900]), 0.25), 0b001);
        assert_eq!(sparse(3, fills(&[100, 200, 900]), 0.25), 0b001);
        assert_eq!(sparse(3, fills(&[100, 200, 500]), 0.25), 0b011);
        assert_eq!(sparse(2, fills(&[100, 950]), 0.25), 0, "no room elsewhere");
        assert_eq!(sparse(1, fills(&[100]), 0.25), 0, "nowhere else");
    }
}
