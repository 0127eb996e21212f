//! Architectures: each turns a model file's config into a program and a tensor list.

mod bert;
mod builder;
mod decoder;

use bursar_files::{Arch, ModelConfig, ModelFile};
use bursar_kernels::attention::AttentionShape;
use bursar_kernels::kv_view::{KvLayout, KvShape};

pub use builder::{TensorForm, TensorSpec};

use crate::ModelError;
use crate::graph::{Program, TensorId};
use crate::recast::WeightsDtype;

/// What the model is loaded for; it decides the head and where keys and values live.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// Next-token logits; keys and values live in a cache that outlives the pass.
    Generate,
    /// One pooled vector per sequence; keys and values of one layer at a time live in the arena.
    Embed,
}

/// A program and the tensors it names, in the order of their ids.
#[derive(Clone, Debug)]
pub struct Architecture {
    /// What is computed; its products read f32 rows, whatever the weights.
    pub program: Program,
    /// What it reads.
    pub tensors: Vec<TensorSpec>,
    /// Layout of the keys and values that the program writes and reads.
    pub kv: KvLayout,
    /// Divisors of the rotary frequencies, where the file carries them.
    pub rope_factors: Option<TensorId>,
}

/// Builds the architecture of `file` for a purpose. `kv` is what the cache is to hold;
/// embedding programs keep one layer in f32 instead. Matrices are held as `weights` says.
pub fn build(
    file: &ModelFile,
    purpose: Purpose,
    kv: KvShape,
    weights: WeightsDtype,
) -> Result<Architecture, ModelError> {
    match (file.config().arch, purpose) {
        (Arch::Bert, Purpose::Generate) => Err(ModelError::Unsuited {
            model: file.config().name.clone(),
            what: "generate text: it is an encoder",
            remedy: "use `bursar embed` with it, or choose a decoder model",
        }),
        (Arch::Bert, Purpose::Embed) => bert::build(file, weights),
        (Arch::Llama | Arch::Qwen2 | Arch::Qwen3, _) => decoder::build(file, purpose, kv, weights),
    }
}

/// Generation's cache is in slabs, which are given back as they empty; the keys and values of an
/// embedding pass lie in its arena, one block behind the other.
fn kv_layout(purpose: Purpose, shape: KvShape) -> Result<KvLayout, ModelError> {
    let layout = match purpose {
        Purpose::Generate => KvLayout::in_slabs(shape),
        Purpose::Embed => KvLayout::new(shape),
    };
    layout.ok_or_else(|| ModelError::TooLarge {
        what: format!("{shape:?}"),
    })
}

/// How a config attends, windows aside. Encoders look both ways, decoders back only.
pub(crate) fn attention_shape(config: &ModelConfig) -> AttentionShape {
    AttentionShape {
        heads: config.heads,
        kv_heads: config.kv_heads,
        head_dim: config.head_dim,
        scale: (config.head_dim as f32).sqrt().recip(),
        causal: config.causal(),
        window: None,
    }
}
