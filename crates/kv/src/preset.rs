//! Sizes of a cache for those who would rather name a kind of model than count blocks and bytes.

use bursar_memory::Bytes;

/// A size of the cache. Larger models are used with longer contexts, for which larger blocks keep
/// the books small; smaller blocks waste less at the end of each sequence.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Preset {
    /// Models of 1 to 3 billion parameters.
    Small,
    /// 7 to 13 billion.
    Medium,
    /// 30 to 70 billion.
    Large,
}

impl Preset {
    /// All of them, smallest first.
    pub const ALL: [Preset; 3] = [Preset::Small, Preset::Medium, Preset::Large];

    /// What it is called.
    pub fn name(self) -> &'static str {
        match self {
            Preset::Small => "small",
            Preset::Medium => "medium",
            Preset::Large => "large",
        }
    }

    /// Tokens of a block.
    pub fn block_tokens(self) -> usize {
        match self {
            Preset::Small => 16,
            Preset::Medium => 32,
            Preset::Large => 64,
        }
    }

    /// Most bytes of the cache.
    pub fn bytes(self) -> Bytes {
        Bytes(match self {
            Preset::Small => 4_000_000_000,
            Preset::Medium => 12_000_000_000,
            Preset::Large => 40_000_000_000,
        })
    }

    /// Bytes of the cache where everything else leaves `left` of a budget and the sequences that are
    /// to run at once need `needed`, if that is known: the least of all, so that neither a budget
    /// nor a wish is overrun.
    pub fn bytes_within(self, left: Bytes, needed: Option<Bytes>) -> Bytes {
        self.bytes()
            .min(left)
            .min(needed.unwrap_or(Bytes(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_least_of_preset_budget_and_need_holds() {
        let small = Preset::Small;
        assert_eq!(small.bytes(), Bytes(4_000_000_000));
        assert_eq!(small.bytes_within(Bytes::gib(64), None), small.bytes());
        assert_eq!(small.bytes_within(Bytes::gib(1), None), Bytes::gib(1));
        let needed = Some(Bytes::mib(448));
        assert_eq!(small.bytes_within(Bytes::gib(1), needed), Bytes::mib(448));
        assert_eq!(small.bytes_within(Bytes::mib(100), needed), Bytes::mib(100));
        assert_eq!(
            Preset::ALL.map(Preset::block_tokens),
            [16, 32, 64],
            "multiples of the tile that attention reads"
        );
    }
}
