//! Seeded numbers: xoshiro256++ (Blackman and Vigna, 2019), seeded by splitmix64, the same on
//! every machine.

/// A stream of random numbers.
pub(super) struct Random {
    state: [u64; 4],
}

/// The next state and output of splitmix64.
fn splitmix(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Random {
    /// The stream with this seed and address; different addresses give unrelated streams.
    pub(super) fn new(seed: u64, address: [u64; 2]) -> Random {
        let mut state = seed;
        for part in address {
            state = splitmix(&mut state) ^ part.wrapping_mul(0xD6E8_FEB8_6659_FD93);
        }
        Random {
            state: std::array::from_fn(|_| splitmix(&mut state)),
        }
    }

    /// 64 random bits.
    #[inline]
    pub(super) fn bits(&mut self) -> u64 {
        let s = &mut self.state;
        let out = s[0].wrapping_add(s[3]).rotate_left(23).wrapping_add(s[0]);
        let t = s[1] << 17;
        s[2] ^= s[0];
        s[3] ^= s[1];
        s[1] ^= s[2];
        s[0] ^= s[3];
        s[2] ^= t;
        s[3] = s[3].rotate_left(45);
        out
    }

    /// A number below `n`, which must not be 0. Biased by less than `n / 2^32`.
    pub(super) fn below(&mut self, n: usize) -> usize {
        let high = (u128::from(self.bits()) * n as u128) >> 64;
        usize::try_from(high).expect("below n")
    }

    /// About normal with mean 0 and variance 1: the sum of four uniform numbers, so within 3.5.
    #[inline]
    pub(super) fn normal(&mut self) -> f32 {
        let bits = self.bits();
        let lane = |shift: u32| (bits >> shift & 0xFFFF) as u32;
        let sum = lane(0) + lane(16) + lane(32) + lane(48);
        // Four lanes of variance 2^32 / 12 each, around 4 * 65,535 / 2.
        const DEVIATION: f32 = 65_536.0 * 0.577_350_26;
        (sum as f32 - 131_070.0) / DEVIATION
    }

    /// Fills `bytes`.
    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        let (words, rest) = bytes.as_chunks_mut::<8>();
        for word in words {
            *word = self.bits().to_le_bytes();
        }
        let last = self.bits().to_le_bytes();
        rest.copy_from_slice(&last[..rest.len()]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normal_numbers_have_mean_0_and_variance_1() {
        let mut random = Random::new(1, [2, 3]);
        let n = 100_000;
        let (mut sum, mut squares) = (0f64, 0f64);
        for _ in 0..n {
            let x = f64::from(random.normal());
            sum += x;
            squares += x * x;
        }
        assert!((sum / f64::from(n)).abs() < 0.02);
        assert!((squares / f64::from(n) - 1.0).abs() < 0.02);
    }

    #[test]
    fn streams_depend_on_seed_and_address_alone() {
        let first = |seed, address| Random::new(seed, address).bits();
        assert_eq!(first(1, [2, 3]), first(1, [2, 3]));
        let others = [
            first(2, [2, 3]),
            first(1, [3, 2]),
            first(1, [2, 4]),
            first(1, [0, 0]),
        ];
        for (i, a) in others.iter().enumerate() {
            assert_ne!(*a, first(1, [2, 3]));
            assert!(others[..i].iter().all(|b| a != b));
        }
    }
}
