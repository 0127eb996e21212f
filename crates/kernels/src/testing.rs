//! Random rows and inputs for the tests of this crate.

use half::f16;

use crate::quant::{BlockQ6K, Dtype};

/// A small generator (xorshift64*), so that tests need no crate and repeat exactly.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// Uniform in -1..1.
    pub(crate) fn unit(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    pub(crate) fn units(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.unit()).collect()
    }
}

/// Rows as they lie in a file: every quant bit random, scales finite and of ordinary size.
pub(crate) fn random_rows(random: &mut Random, dtype: Dtype, rows: usize, cols: usize) -> Vec<u8> {
    let blocks = rows * cols / dtype.block_elems();
    let mut bytes = Vec::new();
    for _ in 0..blocks {
        let mut block: Vec<u8> = (0..dtype.block_bytes())
            .map(|_| random.next() as u8)
            .collect();
        let mut half_at = |at: usize, size: f32| {
            let half = f16::from_f32(random.unit() * size);
            block[at..at + 2].copy_from_slice(&half.to_le_bytes());
        };
        match dtype {
            Dtype::F32 => block = random.unit().to_le_bytes().to_vec(),
            Dtype::F16 => half_at(0, 1.0),
            Dtype::BF16 => block = half::bf16::from_f32(random.unit()).to_le_bytes().to_vec(),
            Dtype::Q4_0 | Dtype::Q5_0 | Dtype::Q8_0 => half_at(0, 0.1),
            Dtype::Q4_1 | Dtype::Q5_1 => {
                half_at(0, 0.1);
                half_at(2, 0.5);
            }
            Dtype::Q4K | Dtype::Q5K => {
                half_at(0, 0.01);
                half_at(2, 0.01);
            }
            Dtype::Q6K => half_at(size_of::<BlockQ6K>() - 2, 0.001),
        }
        bytes.extend(block);
    }
    bytes
}
