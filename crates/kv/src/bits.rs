//! A set of small numbers that finds its least member, and runs of members, a word at a time.

/// Numbers below a length that was given once.
#[derive(Debug)]
pub(crate) struct Bits {
    words: Box<[u64]>,
    /// A bit for each word that is not zero.
    summary: Box<[u64]>,
    len: u32,
}

impl Bits {
    /// The empty set of numbers below `len`.
    pub(crate) fn new(len: u32) -> Self {
        let words = len.div_ceil(64) as usize;
        Self {
            words: vec![0; words].into(),
            summary: vec![0; words.div_ceil(64)].into(),
            len,
        }
    }

    /// Bytes on the heap of a set of numbers below `len`.
    pub(crate) const fn bytes(len: u32) -> usize {
        let words = len.div_ceil(64) as usize;
        (words + words.div_ceil(64)) * size_of::<u64>()
    }

    pub(crate) fn insert(&mut self, i: u32) {
        let word = (i / 64) as usize;
        self.words[word] |= 1 << (i % 64);
        self.summary[word / 64] |= 1 << (word % 64);
    }

    pub(crate) fn remove(&mut self, i: u32) {
        let word = (i / 64) as usize;
        self.words[word] &= !(1 << (i % 64));
        if self.words[word] == 0 {
            self.summary[word / 64] &= !(1 << (word % 64));
        }
    }

    /// Removes `first .. first + count`.
    pub(crate) fn remove_run(&mut self, first: u32, count: u32) {
        let end = first + count;
        let mut at = first;
        while at < end {
            let word = (at / 64) as usize;
            let upto = end.min((at / 64 + 1) * 64);
            self.words[word] &= !mask(at % 64, upto - at);
            if self.words[word] == 0 {
                self.summary[word / 64] &= !(1 << (word % 64));
            }
            at = upto;
        }
    }

    pub(crate) fn contains(&self, i: u32) -> bool {
        (self.words[(i / 64) as usize] >> (i % 64)) & 1 == 1
    }

    /// The least member.
    pub(crate) fn first(&self) -> Option<u32> {
        let (i, summary) = (0u32..).zip(&self.summary).find(|(_, s)| **s != 0)?;
        let word = i * 64 + summary.trailing_zeros();
        Some(word * 64 + self.words[word as usize].trailing_zeros())
    }

    /// The least member that is at least `from`.
    fn next(&self, from: u32) -> Option<u32> {
        let word = (from / 64) as usize;
        let here = self.words.get(word)? & (u64::MAX << (from % 64));
        if here != 0 {
            return Some(word as u32 * 64 + here.trailing_zeros());
        }
        let after = word + 1;
        let mut skip = u64::MAX << (after % 64);
        for (i, summary) in self.summary.iter().enumerate().skip(after / 64) {
            let found = summary & skip;
            skip = u64::MAX;
            if found != 0 {
                let word = i as u32 * 64 + found.trailing_zeros();
                return Some(word * 64 + self.words[word as usize].trailing_zeros());
            }
        }
        None
    }

    /// The least number from `from` to `end` that is no member, or `end`.
    fn next_gap(&self, from: u32, end: u32) -> u32 {
        let mut at = from;
        while at < end {
            let gaps = !self.words[(at / 64) as usize] & (u64::MAX << (at % 64));
            if gaps != 0 {
                return end.min(at / 64 * 64 + gaps.trailing_zeros());
            }
            at = (at / 64 + 1) * 64;
        }
        end
    }

    /// The least `first` so that `first .. first + count` are all members and lie between two multiples
    /// of `edge`.
    pub(crate) fn find_run(&self, count: u32, edge: u32) -> Option<u32> {
        let mut from = 0;
        loop {
            let first = self.next(from)?;
            let upto = (first / edge).saturating_add(1).saturating_mul(edge);
            let enough = first.checked_add(count)?.min(upto).min(self.len);
            let end = self.next_gap(first, enough);
            if end - first == count {
                return Some(first);
            }
            // A gap, the edge, or the end.
            from = end;
        }
    }
}

/// `count` ones from bit `first` on; `first + count` is at most 64.
fn mask(first: u32, count: u32) -> u64 {
    if count == 64 {
        u64::MAX
    } else {
        ((1 << count) - 1) << first
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_agrees_with_a_tree(
            len in prop_oneof![1..400u32, 4000..9000u32],
            steps in proptest::collection::vec((any::<u32>(), 0..3u8, 1..150u32), 0..60),
            count in 1..80u32,
            edge in 1..200u32,
        ) {
            let mut bits = Bits::new(len);
            let mut tree = BTreeSet::new();
            for (i, what, run) in steps {
                let i = i % len;
                let run = run.min(len - i);
                match what {
                    0 => for i in i..i + run {
                        bits.insert(i);
                        tree.insert(i);
                    },
                    1 => {
                        bits.remove(i);
                        tree.remove(&i);
                    }
                    _ => {
                        bits.remove_run(i, run);
                        tree.retain(|&n| n < i || n >= i + run);
                    }
                }
                prop_assert_eq!(bits.first(), tree.first().copied());
                prop_assert_eq!(bits.next(i), tree.range(i..).next().copied());
                let gap = (i..len).find(|n| !tree.contains(n));
                prop_assert_eq!(bits.next_gap(i, len), gap.unwrap_or(len));
            }
            for i in 0..len {
                prop_assert_eq!(bits.contains(i), tree.contains(&i));
            }
            let fits = |&first: &u32| {
                (first..first + count).all(|i| tree.contains(&i))
                    && first / edge == (first + count - 1) / edge
            };
            prop_assert_eq!(bits.find_run(count, edge), (0..len).find(fits));
        }
    }
}
