//! What computes, in 32 bytes: keys and values may be shared exactly among computations that have the
//! same.

use bursar_files::ModelConfig;
use bursar_kernels::RESULTS_VERSION;
use bursar_model::Model;

/// BLAKE3 over everything that a key or value depends on besides the tokens before it: the weights, how
/// they are held, the configuration (sizes, rotary angles, norms), how keys and values are stored, and
/// the kernels with their instruction set, since not every one gives the bits of every other.
pub(crate) fn fingerprint(config: &ConfigDigest, model: &Model) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(model.weights_digest());
    hasher.update(&config.0);
    let words = format!(
        "{:?} {:?} {RESULTS_VERSION}",
        model.plan().kv(),
        model.isa()
    );
    hasher.update(words.as_bytes());
    hasher.finalize().into()
}

/// A configuration in 32 bytes.
#[derive(Copy, Clone, Debug)]
pub(crate) struct ConfigDigest([u8; 32]);

impl ConfigDigest {
    pub(crate) fn new(config: &ModelConfig) -> Self {
        // The name of a model is not part of what it computes, but files that differ in it alone are
        // rare.
        Self(blake3::hash(format!("{config:?}").as_bytes()).into())
    }
}
