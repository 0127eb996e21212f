//! The shapes of real models, from their published `config.json` files.

use bursar_kernels::quant::Dtype;

use super::mix::Mix;
use crate::config::*;
use crate::error::FileError;
use crate::model_file::ModelFile;
use crate::source::Source;

/// A model to synthesise: a shape and the types to store it in.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Preset {
    shape: &'static Shape,
    mix: Mix,
}

/// Sizes as in the models' own configuration.
#[derive(Debug, PartialEq)]
pub(super) struct Shape {
    name: &'static str,
    title: &'static str,
    arch: Arch,
    layers: usize,
    dim: usize,
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    ffn_dim: usize,
    vocab: usize,
    context_max: usize,
    norm_eps: f32,
    theta: f32,
    /// Llama 3's stretching, as divisors of the frequencies.
    llama3: Option<(f32, f32, f32, usize)>,
    embeds: Option<Embeds>,
    tied: bool,
    mix: Mix,
}

/// How an embedding model pools, its longest text and its query prefix.
#[derive(Debug, PartialEq)]
struct Embeds {
    pooling: Pooling,
    max_tokens: usize,
    query: &'static str,
}

/// Common to the small models for tests.
const TINY: Shape = Shape {
    name: "tiny-llama",
    title: "Tiny Llama",
    arch: Arch::Llama,
    layers: 2,
    dim: 256,
    heads: 4,
    kv_heads: 2,
    head_dim: 64,
    ffn_dim: 512,
    vocab: 1024,
    context_max: 2048,
    norm_eps: 1e-5,
    theta: 10_000.0,
    llama3: None,
    embeds: None,
    tied: false,
    mix: Mix::Plain(Dtype::F32),
};

const SHAPES: [Shape; 10] = [
    Shape {
        name: "qwen3-0.6b",
        title: "Qwen3 0.6B",
        arch: Arch::Qwen3,
        layers: 28,
        dim: 1024,
        heads: 16,
        kv_heads: 8,
        head_dim: 128,
        ffn_dim: 3072,
        vocab: 151_936,
        context_max: 40_960,
        norm_eps: 1e-6,
        theta: 1_000_000.0,
        tied: true,
        mix: Mix::Q4KM,
        ..TINY
    },
    Shape {
        name: "llama-3.2-1b",
        title: "Llama 3.2 1B",
        arch: Arch::Llama,
        layers: 16,
        dim: 2048,
        heads: 32,
        kv_heads: 8,
        head_dim: 64,
        ffn_dim: 8192,
        vocab: 128_256,
        context_max: 131_072,
        theta: 500_000.0,
        llama3: Some((32.0, 1.0, 4.0, 8192)),
        tied: true,
        mix: Mix::Q4KM,
        ..TINY
    },
    Shape {
        name: "qwen3-embedding-0.6b",
        title: "Qwen3 Embedding 0.6B",
        arch: Arch::Qwen3,
        layers: 28,
        dim: 1024,
        heads: 16,
        kv_heads: 8,
        head_dim: 128,
        ffn_dim: 3072,
        vocab: 151_669,
        context_max: 32_768,
        norm_eps: 1e-6,
        theta: 1_000_000.0,
        embeds: Some(Embeds {
            pooling: Pooling::Last,
            max_tokens: 32_768,
            query: QWEN3_QUERY,
        }),
        tied: true,
        mix: Mix::Plain(Dtype::BF16),
        ..TINY
    },
    Shape {
        name: "nomic-embed-code",
        title: "nomic-embed-code",
        arch: Arch::Qwen2,
        layers: 28,
        dim: 3584,
        heads: 28,
        kv_heads: 4,
        head_dim: 128,
        ffn_dim: 18_944,
        vocab: 152_064,
        context_max: 32_768,
        norm_eps: 1e-6,
        theta: 1_000_000.0,
        embeds: Some(Embeds {
            pooling: Pooling::Last,
            max_tokens: 32_768,
            query: NOMIC_CODE_QUERY,
        }),
        // Its file has no output tensor.
        tied: true,
        mix: Mix::Q5KS,
        ..TINY
    },
    Shape {
        name: "all-minilm-l6-v2",
        title: "all-MiniLM-L6-v2",
        layers: 6,
        embeds: Some(Embeds {
            pooling: Pooling::Mean,
            max_tokens: 256,
            query: "",
        }),
        ..SMALL_BERT
    },
    Shape {
        name: "bge-small-en-v1.5",
        title: "bge-small-en-v1.5",
        layers: 12,
        embeds: Some(Embeds {
            pooling: Pooling::Cls,
            max_tokens: 512,
            query: BGE_QUERY,
        }),
        ..SMALL_BERT
    },
    TINY,
    Shape {
        name: "tiny-qwen2",
        title: "Tiny Qwen2",
        arch: Arch::Qwen2,
        ..TINY
    },
    Shape {
        name: "tiny-qwen3",
        title: "Tiny Qwen3",
        arch: Arch::Qwen3,
        // Heads wider in all than the model, as in the real ones.
        head_dim: 128,
        tied: true,
        ..TINY
    },
    Shape {
        name: "tiny-bert",
        title: "Tiny BERT",
        arch: Arch::Bert,
        kv_heads: 4,
        context_max: 256,
        norm_eps: 1e-12,
        embeds: Some(Embeds {
            pooling: Pooling::Mean,
            max_tokens: 256,
            query: "",
        }),
        ..TINY
    },
];

const SMALL_BERT: Shape = Shape {
    arch: Arch::Bert,
    dim: 384,
    heads: 12,
    kv_heads: 12,
    head_dim: 32,
    ffn_dim: 1536,
    vocab: 30_522,
    context_max: 512,
    norm_eps: 1e-12,
    ..TINY
};

impl Preset {
    /// Every preset in the types its model is usually found in.
    pub fn all() -> impl ExactSizeIterator<Item = Preset> {
        SHAPES.iter().map(|shape| Preset {
            shape,
            mix: shape.mix,
        })
    }

    /// Parses `NAME` or `NAME:QUANTISATION`, as `nomic-embed-code:q5_k_s`, in any case.
    ///
    /// # Errors
    /// If either is unknown; the error lists what is known.
    pub fn parse(spec: &str) -> Result<Preset, FileError> {
        let (name, mix) = match spec.split_once(':') {
            Some((name, mix)) => (name, Some(Mix::from_name(mix)?)),
            None => (spec, None),
        };
        let found = Preset::all().find(|preset| preset.name().eq_ignore_ascii_case(name));
        let preset = found.ok_or_else(|| FileError::UnknownName {
            what: "architecture",
            got: name.chars().take(64).collect(),
            known: Preset::all()
                .map(Preset::name)
                .collect::<Vec<_>>()
                .join(", "),
        })?;
        Ok(mix.map_or(preset, |mix| preset.with_mix(mix)))
    }

    /// The same shape in other types.
    pub fn with_mix(self, mix: Mix) -> Preset {
        Preset { mix, ..self }
    }

    /// The name that [`Preset::parse`] takes.
    pub fn name(self) -> &'static str {
        self.shape.name
    }

    /// The types.
    pub fn mix(self) -> Mix {
        self.mix
    }

    /// The configuration that a file of it has.
    pub fn config(self) -> ModelConfig {
        let s = self.shape;
        let bert = s.arch == Arch::Bert;
        let style = match s.arch {
            Arch::Llama => RopeStyle::Interleaved,
            _ => RopeStyle::Neox,
        };
        let rope = Rope {
            theta: s.theta,
            style,
            dims: s.head_dim,
            scaling: RopeScaling::None,
            has_factors: s.llama3.is_some(),
        };
        ModelConfig {
            arch: s.arch,
            name: s.title.into(),
            layers: s.layers,
            dim: s.dim,
            heads: s.heads,
            kv_heads: s.kv_heads,
            head_dim: s.head_dim,
            ffn_dim: s.ffn_dim,
            vocab: s.vocab,
            context_max: s.context_max,
            norm_eps: s.norm_eps,
            activation: if bert {
                Activation::Gelu
            } else {
                Activation::Silu
            },
            tied_output: s.tied,
            generates: s.embeds.is_none(),
            rope: (!bert).then_some(rope),
            sliding_window: None,
            sliding_from: 0,
            qkv_bias: bert || s.arch == Arch::Qwen2,
            o_bias: bert,
            mlp_bias: bert,
            qk_norm: s.arch == Arch::Qwen3,
            type_vocab: if bert { 2 } else { 0 },
            embedding: s.embeds.as_ref().map(|embeds| EmbeddingSpec {
                pooling: embeds.pooling,
                normalize: true,
                prompts: match embeds.query {
                    "" => Vec::new(),
                    // In the order of keys in a file, which is alphabetical.
                    query => vec![
                        ("document".into(), String::new()),
                        ("query".into(), query.into()),
                    ],
                },
                default_prompt: None,
                max_tokens: embeds.max_tokens,
                append_eos: known_to_append_eos(self.shape.name),
            }),
        }
    }

    /// The divisors of the rotary frequencies, for the shapes that have them.
    ///
    /// Llama 3's rule: waves shorter than `original / high` are kept, those longer than
    /// `original / low` are stretched by `factor`, and between them the change is gradual.
    pub(super) fn rope_factors(self) -> Vec<f32> {
        let Some((factor, low, high, original)) = self.shape.llama3 else {
            return Vec::new();
        };
        let dims = self.shape.head_dim;
        let divisor = |pair: usize| {
            let frequency = self.shape.theta.powf(-((2 * pair) as f32) / dims as f32);
            let waves = original as f32 * frequency / std::f32::consts::TAU;
            let kept = ((waves - low) / (high - low)).clamp(0.0, 1.0);
            1.0 / (kept + (1.0 - kept) / factor)
        };
        (0..dims / 2).map(divisor).collect()
    }

    /// The header of a file of it, opened as a model. Its weights do not exist; everything else,
    /// [`ModelFile::file_bytes`] included, is what a written file would say.
    ///
    /// # Errors
    /// None for the presets there are.
    pub fn model_file(self) -> Result<ModelFile, FileError> {
        let writer = super::header::build(self)?;
        let bytes = writer.header();
        let len = writer.file_bytes(bytes.len());
        let name = format!("{}:{}", self.name(), self.mix.name().to_lowercase());
        ModelFile::open_gguf(Source::Header {
            name: name.into(),
            bytes,
            len,
        })
    }
}

impl ModelFile {
    /// As [`Preset::model_file`].
    ///
    /// # Errors
    /// None for the presets there are.
    pub fn from_preset(preset: &Preset) -> Result<ModelFile, FileError> {
        preset.model_file()
    }
}
