//! BERT encoders (Devlin et al. 2018) as sentence-transformers use them: learned positions,
//! post-norm layers, bidirectional attention, mean or first-token pooling.

use bursar_files::{Activation, LayerRole, ModelFile, Part, Pooling, Role};
use bursar_kernels::attention::attention_scratch_len;
use bursar_kernels::kv_view::{KvDtype, KvShape};

use super::builder::Builder;
use super::{Architecture, Purpose};
use crate::ModelError;
use crate::graph::{EmbedIndex, NormKind, Op, Rows, Stage};
use crate::recast::WeightsDtype;

/// Tokens per block of a pass's own keys and values: the attention tile, so that a short text
/// wastes less than one tile.
pub(crate) const SCRATCH_BLOCK_TOKENS: usize = 16;

/// One layer of keys and values that lives for one layer of one pass.
pub(super) fn scratch_shape(kv_heads: usize, head_dim: usize) -> KvShape {
    KvShape {
        layers: 1,
        kv_heads,
        head_dim,
        block_tokens: SCRATCH_BLOCK_TOKENS,
        dtype_k: KvDtype::F32,
        dtype_v: KvDtype::F32,
    }
}

pub(super) fn build(file: &ModelFile, weights: WeightsDtype) -> Result<Architecture, ModelError> {
    let config = file.config();
    let (dim, ffn, heads) = (config.dim, config.ffn_dim, config.heads);
    let kv = super::kv_layout(Purpose::Embed, scratch_shape(heads, config.head_dim))?;
    let shape = super::attention_shape(config);

    let tanh = match config.activation {
        Activation::Gelu => false,
        Activation::GeluTanh => true,
        Activation::Silu => {
            return Err(ModelError::Unsuited {
                model: config.name.clone(),
                what: "run as BERT: its activation is SiLU",
                remedy: "BERT checkpoints with hidden_act gelu are supported",
            });
        }
    };
    let mut b = Builder::new(file, weights);
    b.fetch(Stage::Embedding);
    let h = b.f32s("hidden", Rows::Tokens, dim);
    let table = b.matrix(Role::TokenEmbedding, config.vocab, dim)?;
    b.push(Op::Embed {
        table,
        index: EmbedIndex::Token,
        out: h,
    });
    // Added in this order: word + type first, as the reference implementation sums them.
    let table = b.matrix(Role::TypeEmbedding, config.type_vocab, dim)?;
    let types = b.f32s("type embeddings", Rows::Tokens, dim);
    b.push(Op::Embed {
        table,
        index: EmbedIndex::First,
        out: types,
    });
    b.push(Op::Add { x: types, inout: h });
    let table = b.matrix(Role::PositionEmbedding, config.context_max, dim)?;
    let positions = b.f32s("position embeddings", Rows::Tokens, dim);
    b.push(Op::Embed {
        table,
        index: EmbedIndex::Position,
        out: positions,
    });
    b.push(Op::Add {
        x: positions,
        inout: h,
    });
    let weight = b.vector(Role::EmbeddingNorm(Part::W), dim)?;
    let bias = b.vector(Role::EmbeddingNorm(Part::B), dim)?;
    b.push(Op::Norm {
        x: h,
        kind: NormKind::Layer { bias },
        weight,
        out: h,
    });
    b.release();

    let scratch_kv = Some(b.bytes("scratch kv", Rows::ScratchBlocks, kv.block_bytes()));
    for layer in 0..config.layers {
        let role = |r| Role::Layer(layer, r);
        b.fetch(Stage::Layer(layer));
        let q = b.f32s("q", Rows::Tokens, dim);
        let k = b.f32s("k", Rows::Tokens, dim);
        let v = b.f32s("v", Rows::Tokens, dim);
        b.linear(
            layer,
            (LayerRole::Q, LayerRole::QB),
            (dim, dim),
            h,
            q,
            false,
        )?;
        b.linear(
            layer,
            (LayerRole::K, LayerRole::KB),
            (dim, dim),
            h,
            k,
            false,
        )?;
        b.linear(
            layer,
            (LayerRole::V, LayerRole::VB),
            (dim, dim),
            h,
            v,
            false,
        )?;
        b.push(Op::KvWrite {
            layer: 0,
            k,
            v,
            scratch_kv,
        });
        let a = b.f32s("attended", Rows::Tokens, dim);
        let scratch = b.f32s(
            "attention scratch",
            Rows::Workers,
            attention_scratch_len(&shape),
        );
        b.push(Op::Attention {
            layer: 0,
            q,
            out: a,
            scratch,
            window: None,
            scratch_kv,
        });
        b.linear(layer, (LayerRole::O, LayerRole::OB), (dim, dim), a, h, true)?;
        let weight = b.vector(role(LayerRole::AttnNorm), dim)?;
        let bias = b.vector(role(LayerRole::AttnNormB), dim)?;
        b.push(Op::Norm {
            x: h,
            kind: NormKind::Layer { bias },
            weight,
            out: h,
        });

        let up = b.f32s("up", Rows::Tokens, ffn);
        b.linear(
            layer,
            (LayerRole::Up, LayerRole::UpB),
            (ffn, dim),
            h,
            up,
            false,
        )?;
        b.push(Op::Gelu { inout: up, tanh });
        b.linear(
            layer,
            (LayerRole::Down, LayerRole::DownB),
            (dim, ffn),
            up,
            h,
            true,
        )?;
        let weight = b.vector(role(LayerRole::FfnNorm), dim)?;
        let bias = b.vector(role(LayerRole::FfnNormB), dim)?;
        b.push(Op::Norm {
            x: h,
            kind: NormKind::Layer { bias },
            weight,
            out: h,
        });
        b.release();
    }
    let body = b.take_ops();

    b.fetch(Stage::Head);
    let pooling = config
        .embedding
        .as_ref()
        .map_or(Pooling::Mean, |e| e.pooling);
    let pooled = b.f32s("pooled", Rows::Outputs, dim);
    b.push(Op::Pool {
        x: h,
        pooling,
        out: pooled,
    });
    b.release();
    let (program, tensors) = b.finish(body, pooled, dim, kv.block_bytes());
    Ok(Architecture {
        program,
        tensors,
        kv,
        rope_factors: None,
    })
}
