//! Llama, Mistral, Qwen2 and Qwen3: pre-norm decoders with grouped-query attention, rotary
//! positions and a gated MLP. They differ in biases, QK norm and head width, which the file tells.

use bursar_files::{Activation, LayerRole, ModelFile, Part, Pooling, Role};
use bursar_kernels::attention::attention_scratch_len;
use bursar_kernels::kv_view::KvShape;

use super::builder::Builder;
use super::{Architecture, Purpose};
use crate::ModelError;
use crate::graph::{EmbedIndex, NormKind, Op, Rows, Stage};
use crate::recast::WeightsDtype;

pub(super) fn build(
    file: &ModelFile,
    purpose: Purpose,
    kv: KvShape,
    weights: WeightsDtype,
) -> Result<Architecture, ModelError> {
    let config = file.config();
    let (dim, ffn) = (config.dim, config.ffn_dim);
    let (heads, kv_heads, head_dim) = (config.heads, config.kv_heads, config.head_dim);
    let (q_dim, kv_dim) = (heads * head_dim, kv_heads * head_dim);
    let rope = config.rope.as_ref().ok_or_else(|| ModelError::Unsuited {
        model: config.name.clone(),
        what: "run as a decoder: its config has no rotary positions",
        remedy: "check the file: llama, mistral, qwen2 and qwen3 all have them",
    })?;
    if config.activation != Activation::Silu {
        return Err(ModelError::Unsuited {
            model: config.name.clone(),
            what: "run as a decoder: its MLP is not gated by SiLU",
            remedy: "llama, mistral, qwen2 and qwen3 checkpoints with hidden_act silu are supported",
        });
    }
    let kv = super::kv_layout(
        purpose,
        match purpose {
            Purpose::Generate => kv,
            Purpose::Embed => super::bert::scratch_shape(kv_heads, head_dim),
        },
    )?;

    if purpose == Purpose::Generate && !config.generates {
        return Err(ModelError::Unsuited {
            model: config.name.clone(),
            what: "generate text: it has no output matrix",
            remedy: "use `bursar embed` with it",
        });
    }
    let mut b = Builder::new(file, weights);
    b.fetch(Stage::Embedding);
    let table = b.matrix(Role::TokenEmbedding, config.vocab, dim)?;
    let h = b.f32s("hidden", Rows::Tokens, dim);
    b.push(Op::Embed {
        table,
        index: EmbedIndex::Token,
        out: h,
    });
    let angles = b.f32s("rope table", Rows::Tokens, rope.dims);
    b.push(Op::RopeTable { out: angles });
    b.release();

    let shape = super::attention_shape(config);
    let rope_factors = if rope.has_factors {
        Some(b.vector(Role::RopeFactors, rope.dims / 2)?)
    } else {
        None
    };
    let scratch_kv = match purpose {
        Purpose::Generate => None,
        Purpose::Embed => Some(b.bytes("scratch kv", Rows::ScratchBlocks, kv.block_bytes())),
    };
    for layer in 0..config.layers {
        let kv_layer = if purpose == Purpose::Generate {
            layer
        } else {
            0
        };
        let role = |r| Role::Layer(layer, r);
        b.fetch(Stage::Layer(layer));

        let n = b.f32s("normed", Rows::Tokens, dim);
        let weight = b.vector(role(LayerRole::AttnNorm), dim)?;
        b.push(Op::Norm {
            x: h,
            kind: NormKind::Rms,
            weight,
            out: n,
        });
        let q = b.f32s("q", Rows::Tokens, q_dim);
        let k = b.f32s("k", Rows::Tokens, kv_dim);
        let v = b.f32s("v", Rows::Tokens, kv_dim);
        b.linear(
            layer,
            (LayerRole::Q, LayerRole::QB),
            (q_dim, dim),
            n,
            q,
            false,
        )?;
        b.linear(
            layer,
            (LayerRole::K, LayerRole::KB),
            (kv_dim, dim),
            n,
            k,
            false,
        )?;
        b.linear(
            layer,
            (LayerRole::V, LayerRole::VB),
            (kv_dim, dim),
            n,
            v,
            false,
        )?;
        if let Some(weight) = b.vector_if_any(role(LayerRole::QNorm), head_dim)? {
            b.push(Op::HeadNorm { inout: q, weight });
        }
        if let Some(weight) = b.vector_if_any(role(LayerRole::KNorm), head_dim)? {
            b.push(Op::HeadNorm { inout: k, weight });
        }
        b.push(Op::Rope {
            inout: q,
            table: angles,
        });
        b.push(Op::Rope {
            inout: k,
            table: angles,
        });
        b.push(Op::KvWrite {
            layer: kv_layer,
            k,
            v,
            scratch_kv,
        });
        let a = b.f32s("attended", Rows::Tokens, q_dim);
        let scratch = b.f32s(
            "attention scratch",
            Rows::Workers,
            attention_scratch_len(&shape),
        );
        let window = config.window(layer);
        b.push(Op::Attention {
            layer: kv_layer,
            q,
            out: a,
            scratch,
            window,
            scratch_kv,
        });
        b.linear(
            layer,
            (LayerRole::O, LayerRole::OB),
            (dim, q_dim),
            a,
            h,
            true,
        )?;

        let n = b.f32s("normed", Rows::Tokens, dim);
        let weight = b.vector(role(LayerRole::FfnNorm), dim)?;
        b.push(Op::Norm {
            x: h,
            kind: NormKind::Rms,
            weight,
            out: n,
        });
        let gate = b.f32s("gate", Rows::Tokens, ffn);
        let up = b.f32s("up", Rows::Tokens, ffn);
        b.linear(
            layer,
            (LayerRole::Gate, LayerRole::GateB),
            (ffn, dim),
            n,
            gate,
            false,
        )?;
        b.linear(
            layer,
            (LayerRole::Up, LayerRole::UpB),
            (ffn, dim),
            n,
            up,
            false,
        )?;
        b.push(Op::SiluMul { gate, up });
        b.linear(
            layer,
            (LayerRole::Down, LayerRole::DownB),
            (dim, ffn),
            gate,
            h,
            true,
        )?;
        b.release();
    }
    let body = b.take_ops();

    b.fetch(Stage::Head);
    let (program, tensors) = match purpose {
        Purpose::Generate => {
            let rows = b.f32s("output rows", Rows::Outputs, dim);
            b.push(Op::SelectRows { x: h, out: rows });
            let weight = b.vector(Role::OutputNorm(Part::W), dim)?;
            b.push(Op::Norm {
                x: rows,
                kind: NormKind::Rms,
                weight,
                out: rows,
            });
            let output = if config.tied_output {
                table
            } else {
                b.matrix(Role::Output, config.vocab, dim)?
            };
            let logits = b.f32s("logits", Rows::Outputs, config.vocab);
            b.product(rows, output, None, logits, false);
            b.release();
            b.finish(body, logits, config.vocab, 0)
        }
        Purpose::Embed => {
            let pooling = config
                .embedding
                .as_ref()
                .map_or(Pooling::Last, |e| e.pooling);
            let weight = b.vector(Role::OutputNorm(Part::W), dim)?;
            let pooled = b.f32s("pooled", Rows::Outputs, dim);
            if pooling == Pooling::Mean {
                // The mean is over normed rows; first and last rows are normed after selection.
                let n = b.f32s("normed", Rows::Tokens, dim);
                b.push(Op::Norm {
                    x: h,
                    kind: NormKind::Rms,
                    weight,
                    out: n,
                });
                b.push(Op::Pool {
                    x: n,
                    pooling,
                    out: pooled,
                });
            } else {
                b.push(Op::Pool {
                    x: h,
                    pooling,
                    out: pooled,
                });
                b.push(Op::Norm {
                    x: pooled,
                    kind: NormKind::Rms,
                    weight,
                    out: pooled,
                });
            }
            b.release();
            b.finish(body, pooled, dim, kv.block_bytes())
        }
    };
    Ok(Architecture {
        program,
        tensors,
        kv,
        rope_factors,
    })
}
