//! The two hash functions of the tables: bytes of a token, and a pair of ids.
//!
//! Multiply-and-fold in the manner of wyhash: the tables hold a model's vocabulary, which is fixed
//! at load, so the hash is not keyed and a run can be repeated exactly.

const K0: u64 = 0xa076_1d64_78bd_642f;
const K1: u64 = 0xe703_7ed1_a0b4_28db;

#[inline]
fn fold(a: u64, b: u64) -> u64 {
    let product = u128::from(a) * u128::from(b);
    (product as u64) ^ ((product >> 64) as u64)
}

/// Hashes a token's bytes.
#[inline]
pub(crate) fn hash_bytes(bytes: &[u8]) -> u64 {
    let mut hash = K0 ^ bytes.len() as u64;
    let mut chunks = bytes.chunks_exact(8);
    for chunk in &mut chunks {
        let word = u64::from_le_bytes(chunk.try_into().expect("chunks of eight bytes"));
        hash = fold(hash ^ word, K1);
    }
    let rest = chunks.remainder();
    let mut word = 0_u64;
    for &byte in rest {
        word = word << 8 | u64::from(byte);
    }
    fold(hash ^ word, K1 ^ K0.rotate_left(17))
}

/// Hashes a pair of ids.
#[inline]
pub(crate) fn hash_pair(pair: u64) -> u64 {
    fold(pair ^ K0, K1)
}
