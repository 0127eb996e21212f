//! Numbers nobody can foresee, for ids and for seeds that were not given.

use std::hash::{BuildHasher, RandomState};

/// A number from the system's randomness, by way of the hasher that the standard library seeds
/// from it: good enough to tell things apart, no secret.
pub(crate) fn number() -> u64 {
    RandomState::new().hash_one(std::time::Instant::now())
}

/// An id such as `chatcmpl-4f1c...`.
pub(crate) fn id(prefix: &str) -> String {
    format!("{prefix}-{:016x}{:016x}", number(), number())
}

#[cfg(test)]
mod tests {
    #[test]
    fn ids_differ() {
        assert_ne!(super::id("a"), super::id("a"));
    }
}
