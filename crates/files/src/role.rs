//! What a tensor is for, whatever its file calls it, and the shape that the configuration gives it.

use std::fmt;

use crate::config::{Arch, ModelConfig};

/// The weight or the bias of a norm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Part {
    /// The weight.
    W,
    /// The bias.
    B,
}

/// A tensor's purpose.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// `vocab x dim`.
    TokenEmbedding,
    /// `context_max x dim` (BERT).
    PositionEmbedding,
    /// `type_vocab x dim` (BERT).
    TypeEmbedding,
    /// Norm of the embeddings, `dim` (BERT).
    EmbeddingNorm(Part),
    /// Logits, `vocab x dim`; absent if tied or if the model only embeds.
    Output,
    /// The last norm, `dim` (decoders).
    OutputNorm(Part),
    /// Divisors of the rotary frequencies, `dims / 2` (Llama 3 in GGUF).
    RopeFactors,
    /// A tensor of one layer.
    Layer(usize, LayerRole),
}

/// A layer tensor's purpose. Matrices are `outputs x inputs`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LayerRole {
    /// Norm before attention; in BERT the one after attention and its residual.
    AttnNorm,
    /// Its bias (BERT).
    AttnNormB,
    /// Query product, `q_dim x dim`.
    Q,
    /// Its bias.
    QB,
    /// Key product, `kv_dim x dim`.
    K,
    /// Its bias.
    KB,
    /// Value product, `kv_dim x dim`.
    V,
    /// Its bias.
    VB,
    /// Attention output, `dim x q_dim`.
    O,
    /// Its bias.
    OB,
    /// Norm over each query head, `head_dim` (Qwen3).
    QNorm,
    /// Norm over each key head, `head_dim` (Qwen3).
    KNorm,
    /// Norm before the feed-forward part; in BERT the one after it and its residual.
    FfnNorm,
    /// Its bias (BERT).
    FfnNormB,
    /// Gate product, `ffn_dim x dim` (decoders).
    Gate,
    /// Its bias.
    GateB,
    /// Up product, `ffn_dim x dim`.
    Up,
    /// Its bias.
    UpB,
    /// Down product, `dim x ffn_dim`.
    Down,
    /// Its bias.
    DownB,
}

impl LayerRole {
    /// Every role a layer can have, in the order in which a layer uses them.
    pub const ALL: [LayerRole; 20] = {
        use LayerRole::*;
        [
            AttnNorm, AttnNormB, Q, QB, K, KB, V, VB, O, OB, QNorm, KNorm, FfnNorm, FfnNormB, Gate,
            GateB, Up, UpB, Down, DownB,
        ]
    };
}

/// How a file names its tensors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Naming {
    /// `blk.0.attn_q.weight`.
    Gguf,
    /// `model.layers.0.self_attn.q_proj.weight`, with the prefix that the checkpoint uses.
    HfDecoder { prefix: &'static str },
    /// `bert.encoder.layer.0.attention.self.query.weight`, with the checkpoint's prefix and its
    /// words for the parts of a norm.
    HfBert {
        prefix: &'static str,
        gamma_beta: bool,
    },
}

impl Naming {
    /// The name under which the file would hold `role`; `None` if the architecture has no such.
    pub(crate) fn name(self, arch: Arch, role: Role) -> Option<String> {
        match self {
            Naming::Gguf => gguf_name(arch, role),
            Naming::HfDecoder { prefix } => hf_decoder_name(prefix, role),
            Naming::HfBert { prefix, gamma_beta } => hf_bert_name(prefix, gamma_beta, role),
        }
    }
}

fn gguf_name(arch: Arch, role: Role) -> Option<String> {
    let part = |p: Part| if p == Part::W { "weight" } else { "bias" };
    Some(match role {
        Role::TokenEmbedding => "token_embd.weight".into(),
        Role::PositionEmbedding => "position_embd.weight".into(),
        Role::TypeEmbedding => "token_types.weight".into(),
        Role::EmbeddingNorm(p) => format!("token_embd_norm.{}", part(p)),
        Role::Output => "output.weight".into(),
        Role::OutputNorm(p) => format!("output_norm.{}", part(p)),
        Role::RopeFactors => "rope_freqs.weight".into(),
        Role::Layer(n, role) => {
            use LayerRole::*;
            let (attn_norm, ffn_norm) = match arch {
                Arch::Bert => ("attn_output_norm", "layer_output_norm"),
                _ => ("attn_norm", "ffn_norm"),
            };
            let (stem, end) = match role {
                AttnNorm => (attn_norm, "weight"),
                AttnNormB => (attn_norm, "bias"),
                Q => ("attn_q", "weight"),
                QB => ("attn_q", "bias"),
                K => ("attn_k", "weight"),
                KB => ("attn_k", "bias"),
                V => ("attn_v", "weight"),
                VB => ("attn_v", "bias"),
                O => ("attn_output", "weight"),
                OB => ("attn_output", "bias"),
                QNorm => ("attn_q_norm", "weight"),
                KNorm => ("attn_k_norm", "weight"),
                FfnNorm => (ffn_norm, "weight"),
                FfnNormB => (ffn_norm, "bias"),
                Gate => ("ffn_gate", "weight"),
                GateB => ("ffn_gate", "bias"),
                Up => ("ffn_up", "weight"),
                UpB => ("ffn_up", "bias"),
                Down => ("ffn_down", "weight"),
                DownB => ("ffn_down", "bias"),
            };
            format!("blk.{n}.{stem}.{end}")
        }
    })
}

fn hf_decoder_name(prefix: &str, role: Role) -> Option<String> {
    Some(match role {
        Role::TokenEmbedding => format!("{prefix}embed_tokens.weight"),
        // The head lies outside the inner model, so it never carries the prefix.
        Role::Output => "lm_head.weight".into(),
        Role::OutputNorm(Part::W) => format!("{prefix}norm.weight"),
        Role::Layer(n, role) => {
            use LayerRole::*;
            let rest = match role {
                AttnNorm => "input_layernorm.weight",
                Q => "self_attn.q_proj.weight",
                QB => "self_attn.q_proj.bias",
                K => "self_attn.k_proj.weight",
                KB => "self_attn.k_proj.bias",
                V => "self_attn.v_proj.weight",
                VB => "self_attn.v_proj.bias",
                O => "self_attn.o_proj.weight",
                OB => "self_attn.o_proj.bias",
                QNorm => "self_attn.q_norm.weight",
                KNorm => "self_attn.k_norm.weight",
                FfnNorm => "post_attention_layernorm.weight",
                Gate => "mlp.gate_proj.weight",
                GateB => "mlp.gate_proj.bias",
                Up => "mlp.up_proj.weight",
                UpB => "mlp.up_proj.bias",
                Down => "mlp.down_proj.weight",
                DownB => "mlp.down_proj.bias",
                AttnNormB | FfnNormB => return None,
            };
            format!("{prefix}layers.{n}.{rest}")
        }
        _ => return None,
    })
}

fn hf_bert_name(prefix: &str, gamma_beta: bool, role: Role) -> Option<String> {
    // Checkpoints converted from TensorFlow call a norm's parts gamma and beta.
    let (weight, bias) = if gamma_beta {
        ("gamma", "beta")
    } else {
        ("weight", "bias")
    };
    let part = |p: Part| if p == Part::W { weight } else { bias };
    Some(match role {
        Role::TokenEmbedding => format!("{prefix}embeddings.word_embeddings.weight"),
        Role::PositionEmbedding => format!("{prefix}embeddings.position_embeddings.weight"),
        Role::TypeEmbedding => format!("{prefix}embeddings.token_type_embeddings.weight"),
        Role::EmbeddingNorm(p) => format!("{prefix}embeddings.LayerNorm.{}", part(p)),
        Role::Layer(n, role) => {
            use LayerRole::*;
            let (stem, end) = match role {
                AttnNorm => ("attention.output.LayerNorm", weight),
                AttnNormB => ("attention.output.LayerNorm", bias),
                Q => ("attention.self.query", "weight"),
                QB => ("attention.self.query", "bias"),
                K => ("attention.self.key", "weight"),
                KB => ("attention.self.key", "bias"),
                V => ("attention.self.value", "weight"),
                VB => ("attention.self.value", "bias"),
                O => ("attention.output.dense", "weight"),
                OB => ("attention.output.dense", "bias"),
                FfnNorm => ("output.LayerNorm", weight),
                FfnNormB => ("output.LayerNorm", bias),
                Up => ("intermediate.dense", "weight"),
                UpB => ("intermediate.dense", "bias"),
                Down => ("output.dense", "weight"),
                DownB => ("output.dense", "bias"),
                QNorm | KNorm | Gate | GateB => return None,
            };
            format!("{prefix}encoder.layer.{n}.{stem}.{end}")
        }
        _ => return None,
    })
}

/// The shape a tensor must have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// One dimension.
    Vector(usize),
    /// Rows by columns (the contiguous dimension).
    Matrix(usize, usize),
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Shape::Vector(cols) => write!(f, "{cols}"),
            Shape::Matrix(rows, cols) => write!(f, "{rows} x {cols}"),
        }
    }
}

impl ModelConfig {
    /// Every tensor that the model must have, with its shape, in the order in which a step uses
    /// them.
    pub(crate) fn roles(&self) -> impl Iterator<Item = (Role, Shape)> + '_ {
        let bert = self.arch == Arch::Bert;
        let dim = Shape::Vector(self.dim);
        let head = self.generates && !self.tied_output;
        let first = [
            (
                true,
                Role::TokenEmbedding,
                Shape::Matrix(self.vocab, self.dim),
            ),
            (
                bert,
                Role::PositionEmbedding,
                Shape::Matrix(self.context_max, self.dim),
            ),
            (
                bert,
                Role::TypeEmbedding,
                Shape::Matrix(self.type_vocab, self.dim),
            ),
            (bert, Role::EmbeddingNorm(Part::W), dim),
            (bert, Role::EmbeddingNorm(Part::B), dim),
        ];
        let factors = self.rope.filter(|rope| rope.has_factors);
        let factors = factors.map(|rope| (Role::RopeFactors, Shape::Vector(rope.dims / 2)));
        let layers = (0..self.layers).flat_map(move |n| {
            LayerRole::ALL
                .into_iter()
                .filter_map(move |role| Some((Role::Layer(n, role), self.layer_shape(role)?)))
        });
        let last = [
            (!bert, Role::OutputNorm(Part::W), dim),
            (head, Role::Output, Shape::Matrix(self.vocab, self.dim)),
        ];
        let there = |(there, role, shape): (bool, Role, Shape)| there.then_some((role, shape));
        first
            .into_iter()
            .filter_map(there)
            .chain(factors)
            .chain(layers)
            .chain(last.into_iter().filter_map(there))
    }

    /// The shape of a layer's tensor; `None` if the model has no such.
    fn layer_shape(&self, role: LayerRole) -> Option<Shape> {
        use LayerRole::*;
        let bert = self.arch == Arch::Bert;
        let (dim, q, kv, ffn) = (self.dim, self.q_dim(), self.kv_dim(), self.ffn_dim);
        let (there, shape) = match role {
            AttnNorm | FfnNorm => (true, Shape::Vector(dim)),
            AttnNormB | FfnNormB => (bert, Shape::Vector(dim)),
            Q => (true, Shape::Matrix(q, dim)),
            K | V => (true, Shape::Matrix(kv, dim)),
            O => (true, Shape::Matrix(dim, q)),
            QB => (self.qkv_bias, Shape::Vector(q)),
            KB | VB => (self.qkv_bias, Shape::Vector(kv)),
            OB => (self.o_bias, Shape::Vector(dim)),
            QNorm | KNorm => (self.qk_norm, Shape::Vector(self.head_dim)),
            Gate => (!bert, Shape::Matrix(ffn, dim)),
            Up => (true, Shape::Matrix(ffn, dim)),
            Down => (true, Shape::Matrix(dim, ffn)),
            GateB => (!bert && self.mlp_bias, Shape::Vector(ffn)),
            UpB => (self.mlp_bias, Shape::Vector(ffn)),
            DownB => (self.mlp_bias, Shape::Vector(dim)),
        };
        there.then_some(shape)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(naming: Naming, arch: Arch, role: Role, want: &str) {
        assert_eq!(naming.name(arch, role).as_deref(), Some(want));
    }

    #[test]
    fn names_are_those_of_real_files() {
        use LayerRole::*;
        let hf = Naming::HfDecoder { prefix: "model." };
        let bare = Naming::HfDecoder { prefix: "" };
        let bert = Naming::HfBert {
            prefix: "bert.",
            gamma_beta: false,
        };
        let old = Naming::HfBert {
            prefix: "",
            gamma_beta: true,
        };
        check(
            Naming::Gguf,
            Arch::Llama,
            Role::Layer(3, AttnNorm),
            "blk.3.attn_norm.weight",
        );
        check(
            Naming::Gguf,
            Arch::Bert,
            Role::Layer(3, AttnNorm),
            "blk.3.attn_output_norm.weight",
        );
        check(
            Naming::Gguf,
            Arch::Bert,
            Role::Layer(0, FfnNormB),
            "blk.0.layer_output_norm.bias",
        );
        check(
            Naming::Gguf,
            Arch::Qwen3,
            Role::Layer(1, KNorm),
            "blk.1.attn_k_norm.weight",
        );
        check(
            Naming::Gguf,
            Arch::Bert,
            Role::EmbeddingNorm(Part::B),
            "token_embd_norm.bias",
        );
        check(
            hf,
            Arch::Llama,
            Role::TokenEmbedding,
            "model.embed_tokens.weight",
        );
        check(hf, Arch::Llama, Role::Output, "lm_head.weight");
        check(
            hf,
            Arch::Qwen2,
            Role::Layer(9, QB),
            "model.layers.9.self_attn.q_proj.bias",
        );
        check(bare, Arch::Qwen3, Role::OutputNorm(Part::W), "norm.weight");
        check(
            bare,
            Arch::Qwen3,
            Role::Layer(0, Down),
            "layers.0.mlp.down_proj.weight",
        );
        check(
            bert,
            Arch::Bert,
            Role::Layer(0, Up),
            "bert.encoder.layer.0.intermediate.dense.weight",
        );
        check(
            old,
            Arch::Bert,
            Role::EmbeddingNorm(Part::W),
            "embeddings.LayerNorm.gamma",
        );
        assert_eq!(hf.name(Arch::Llama, Role::PositionEmbedding), None);
        assert_eq!(bert.name(Arch::Bert, Role::Layer(0, Gate)), None);
    }
}
