//! What a model is: its architecture and sizes, the same words whichever file they came from.
//!
//! The types are filled by `gguf::config` and `hf::config`; `ModelConfig::check` holds the rules
//! that both must keep.

use std::path::Path;

use crate::error::FileError;

/// The architectures that can be run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Arch {
    /// Llama 2, 3 and Mistral: grouped-query attention, rotary positions, gated SiLU.
    Llama,
    /// Qwen2: Llama with a bias on Q, K and V.
    Qwen2,
    /// Qwen3: Llama with RMS norms on each head of Q and K.
    Qwen3,
    /// BERT: an encoder with learned positions and layer norm after each part.
    Bert,
}

/// The names of all architectures, for errors.
pub(crate) const ARCHES: &str = "llama, mistral, qwen2, qwen3, bert";

impl Arch {
    /// The name that GGUF files use.
    pub fn name(self) -> &'static str {
        match self {
            Arch::Llama => "llama",
            Arch::Qwen2 => "qwen2",
            Arch::Qwen3 => "qwen3",
            Arch::Bert => "bert",
        }
    }
}

/// The gate or activation of the feed-forward part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// x * sigmoid(x), gated.
    Silu,
    /// The exact GELU, with erf.
    Gelu,
    /// GELU by the tanh approximation.
    GeluTanh,
}

/// Which elements of a head rotate together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RopeStyle {
    /// Element i with element i + dims/2 (GPT-NeoX, all Hugging Face checkpoints, Qwen in GGUF).
    Neox,
    /// Element 2i with element 2i + 1 (Llama in GGUF, whose Q and K rows are stored permuted).
    Interleaved,
}

/// How rotary frequencies are stretched for longer contexts.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum RopeScaling {
    /// Not at all.
    None,
    /// All frequencies divided by `factor`.
    Linear {
        /// The divisor.
        factor: f32,
    },
    /// Llama 3's: long waves divided by `factor`, short ones kept, a ramp between.
    Llama3 {
        /// The divisor of long waves.
        factor: f32,
        /// Waves longer than `original / low` are long.
        low: f32,
        /// Waves shorter than `original / high` are short.
        high: f32,
        /// Context that the model was first trained with, in tokens.
        original: usize,
    },
    /// YaRN (Peng et al., 2023, arXiv:2309.00071).
    Yarn {
        /// The divisor of interpolated frequencies.
        factor: f32,
        /// Context that the model was first trained with, in tokens.
        original: usize,
        /// What cos and sin are multiplied with; already resolved from its defaults.
        attn_factor: f32,
        /// Rotations over `original` tokens above which a frequency is kept.
        beta_fast: f32,
        /// Rotations over `original` tokens below which a frequency is interpolated.
        beta_slow: f32,
        /// Whether the ends of the ramp are rounded outwards to whole dimensions.
        truncate: bool,
    },
}

/// Rotary position embedding.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rope {
    /// The base of the frequencies.
    pub theta: f32,
    /// Which elements rotate together.
    pub style: RopeStyle,
    /// Leading elements of each head that rotate; even, at most `head_dim`.
    pub dims: usize,
    /// Stretching.
    pub scaling: RopeScaling,
    /// Whether the file has a tensor ([`crate::Role::RopeFactors`], `dims / 2` values) by which
    /// each frequency is divided. Never together with `Llama3`, whose effect it carries in GGUF.
    pub has_factors: bool,
}

/// How the rows of a text become one vector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pooling {
    /// The mean over the text's tokens.
    Mean,
    /// The first token's row.
    Cls,
    /// The last token's row.
    Last,
}

/// What an embedding model needs beyond its architecture.
#[derive(Clone, Debug, PartialEq)]
pub struct EmbeddingSpec {
    /// How rows become a vector.
    pub pooling: Pooling,
    /// Whether vectors are scaled to length 1 (after any truncation of their dimensions).
    pub normalize: bool,
    /// Prefixes by name ("query", "document", ...), put before the text as they are.
    pub prompts: Vec<(String, String)>,
    /// The prompt used if the caller names none.
    pub default_prompt: Option<String>,
    /// Longest text in tokens, special tokens included.
    pub max_tokens: usize,
    /// Whether each text must end with the end-of-sequence token even where the file's tokenizer
    /// adds none: early conversions of some models forgot to say so.
    pub append_eos: bool,
}

impl EmbeddingSpec {
    /// The prefix called `name`.
    pub fn prompt(&self, name: &str) -> Option<&str> {
        self.prompts
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, prefix)| prefix.as_str())
    }

    /// The prefix for search queries; empty if the model has none.
    pub fn query_prefix(&self) -> &str {
        self.prompt("query").unwrap_or("")
    }

    /// The prefix for documents; empty if the model has none.
    pub fn document_prefix(&self) -> &str {
        self.prompt("document")
            .or_else(|| self.prompt("passage"))
            .unwrap_or("")
    }
}

/// A model's architecture and sizes.
#[derive(Clone, Debug, PartialEq)]
pub struct ModelConfig {
    /// The architecture.
    pub arch: Arch,
    /// A name for people.
    pub name: String,
    /// Transformer layers.
    pub layers: usize,
    /// Width of the residual stream.
    pub dim: usize,
    /// Query heads.
    pub heads: usize,
    /// Key and value heads; divides `heads`.
    pub kv_heads: usize,
    /// Width of one head; `heads * head_dim` may differ from `dim`.
    pub head_dim: usize,
    /// Width inside the feed-forward part.
    pub ffn_dim: usize,
    /// Rows of the token embedding.
    pub vocab: usize,
    /// Longest context in tokens that the model was made for.
    pub context_max: usize,
    /// Epsilon of the norms.
    pub norm_eps: f32,
    /// Activation of the feed-forward part.
    pub activation: Activation,
    /// Whether logits are made with the token embedding.
    pub tied_output: bool,
    /// Whether logits can be made at all (an output tensor, or tied).
    pub generates: bool,
    /// Rotary positions; `None` for BERT.
    pub rope: Option<Rope>,
    /// Tokens that a position sees, itself included, in the layers of [`ModelConfig::window`].
    pub sliding_window: Option<usize>,
    /// First layer with the sliding window; earlier ones see everything.
    pub sliding_from: usize,
    /// Whether Q, K and V have biases.
    pub qkv_bias: bool,
    /// Whether the attention output has a bias.
    pub o_bias: bool,
    /// Whether the feed-forward products have biases.
    pub mlp_bias: bool,
    /// Whether each head of Q and K goes through an RMS norm.
    pub qk_norm: bool,
    /// Rows of the token type embedding (BERT), else 0.
    pub type_vocab: usize,
    /// Set if the model is meant to embed.
    pub embedding: Option<EmbeddingSpec>,
}

// Limits far above any real model. They keep sums of products inside 64 bits before tensors are
// compared with them.
const LAYERS_MAX: usize = 4096;
const DIM_MAX: usize = 1 << 20;
const HEADS_MAX: usize = 1 << 12;
const HEAD_DIM_MAX: usize = 1 << 12;
const VOCAB_MAX: usize = 1 << 24;
const CONTEXT_MAX: usize = 1 << 30;

impl ModelConfig {
    /// The sliding window of `layer`, if it has one.
    pub fn window(&self, layer: usize) -> Option<usize> {
        self.sliding_window.filter(|_| layer >= self.sliding_from)
    }

    /// Width of Q and of the attention output: `heads * head_dim`.
    pub fn q_dim(&self) -> usize {
        self.heads * self.head_dim
    }

    /// Width of K and of V: `kv_heads * head_dim`.
    pub fn kv_dim(&self) -> usize {
        self.kv_heads * self.head_dim
    }

    /// Whether attention sees only earlier positions.
    pub fn causal(&self) -> bool {
        self.arch != Arch::Bert
    }

    /// Checks every size against the limits and each other. `path` is for the error.
    pub(crate) fn check(&self, path: &Path) -> Result<(), FileError> {
        let within = |key: &str, got: usize, max: usize| match got {
            _ if (1..=max).contains(&got) => Ok(()),
            _ => Err(FileError::config(path, key, got, format!("1 to {max}"))),
        };
        within("number of layers", self.layers, LAYERS_MAX)?;
        within("embedding width", self.dim, DIM_MAX)?;
        within("attention heads", self.heads, HEADS_MAX)?;
        within("key-value heads", self.kv_heads, HEADS_MAX)?;
        within("head width", self.head_dim, HEAD_DIM_MAX)?;
        within("feed-forward width", self.ffn_dim, DIM_MAX)?;
        within("vocabulary size", self.vocab, VOCAB_MAX)?;
        within("context length", self.context_max, CONTEXT_MAX)?;
        within("width of all heads", self.heads * self.head_dim, DIM_MAX)?;
        if !self.heads.is_multiple_of(self.kv_heads) {
            return Err(FileError::config(
                path,
                "key-value heads",
                self.kv_heads,
                format!("a divisor of the {} attention heads", self.heads),
            ));
        }
        if !(self.norm_eps > 0.0 && self.norm_eps < 1.0) {
            return Err(FileError::config(
                path,
                "norm epsilon",
                self.norm_eps,
                "above 0, below 1",
            ));
        }
        if let Some(window) = self.sliding_window {
            within("sliding window", window, CONTEXT_MAX)?;
        }
        if let Some(spec) = &self.embedding {
            within("longest text to embed", spec.max_tokens, self.context_max)?;
        }
        match (&self.rope, self.arch) {
            (Some(rope), Arch::Llama | Arch::Qwen2 | Arch::Qwen3) => {
                rope.check(path, self.head_dim)
            }
            (None, Arch::Bert) => within("token types", self.type_vocab, 1 << 16),
            _ => Err(FileError::config(
                path,
                "rotary positions",
                "the wrong kind",
                "rotary unless BERT",
            )),
        }
    }
}

impl Rope {
    fn check(&self, path: &Path, head_dim: usize) -> Result<(), FileError> {
        let positive = |key: &str, got: f32| match got {
            _ if got.is_finite() && got > 0.0 => Ok(()),
            _ => Err(FileError::config(path, key, got, "a finite number above 0")),
        };
        let context = |original: usize| match original {
            1..=CONTEXT_MAX => Ok(()),
            _ => Err(FileError::config(
                path,
                "original context length",
                original,
                format!("1 to {CONTEXT_MAX}"),
            )),
        };
        if self.dims == 0 || !self.dims.is_multiple_of(2) || self.dims > head_dim {
            return Err(FileError::config(
                path,
                "rotary dimensions",
                self.dims,
                format!("an even number up to the head width {head_dim}"),
            ));
        }
        positive("rotary base", self.theta)?;
        match self.scaling {
            RopeScaling::None => Ok(()),
            RopeScaling::Linear { factor } => positive("rotary scaling factor", factor),
            RopeScaling::Llama3 {
                factor,
                low,
                high,
                original,
            } => {
                positive("rotary scaling factor", factor)?;
                positive("low_freq_factor", low)?;
                positive("high_freq_factor", high)?;
                if high <= low {
                    let want = format!("above low_freq_factor {low}");
                    return Err(FileError::config(path, "high_freq_factor", high, want));
                }
                context(original)
            }
            RopeScaling::Yarn {
                factor,
                original,
                attn_factor,
                beta_fast,
                beta_slow,
                ..
            } => {
                positive("rotary scaling factor", factor)?;
                positive("attention factor", attn_factor)?;
                positive("beta_fast", beta_fast)?;
                positive("beta_slow", beta_slow)?;
                if self.theta == 1.0 {
                    return Err(FileError::config(
                        path,
                        "rotary base",
                        1.0,
                        "not 1 with YaRN",
                    ));
                }
                context(original)
            }
        }
    }
}

/// YaRN's default for the multiplier of cos and sin: `0.1 ln(factor) + 1`.
pub(crate) fn yarn_attn_factor(factor: f32) -> f32 {
    if factor > 1.0 {
        0.1 * factor.ln() + 1.0
    } else {
        1.0
    }
}

/// Prompts of well-known embedding models whose files do not carry them: GGUF has no key for them.
///
/// `name` is the model's own name in any spelling. Sources: the models' cards and
/// `config_sentence_transformers.json`.
pub(crate) fn known_prompts(name: &str) -> Vec<(String, String)> {
    let plain: String = name
        .to_lowercase()
        .chars()
        .filter(char::is_ascii_alphanumeric)
        .collect();
    let query = if plain.contains("qwen3embedding") {
        QWEN3_QUERY
    } else if plain.contains("nomicembedcode") {
        NOMIC_CODE_QUERY
    } else if plain.contains("bge") && plain.contains("env15") {
        BGE_QUERY
    } else {
        return Vec::new();
    };
    vec![
        ("query".into(), query.into()),
        ("document".into(), String::new()),
    ]
}

/// Whether a model was trained with an end token after each text. The others take what their
/// tokenizer adds, as sentence-transformers does.
pub(crate) fn known_to_append_eos(name: &str) -> bool {
    let plain = name
        .to_lowercase()
        .replace(|c: char| !c.is_ascii_alphanumeric(), "");
    plain.contains("qwen3embedding")
}

/// Qwen3-Embedding's default instruction for queries. There is no space after `Query:`.
pub(crate) const QWEN3_QUERY: &str = "Instruct: Given a web search query, retrieve relevant \
                                      passages that answer the query\nQuery:";
/// nomic-embed-code's prefix for queries.
pub(crate) const NOMIC_CODE_QUERY: &str = "Represent this query for searching relevant code: ";
/// The English BGE models' prefix for queries.
pub(crate) const BGE_QUERY: &str = "Represent this sentence for searching relevant passages: ";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn knows_prompts_in_any_spelling() {
        for name in [
            "Qwen3-Embedding-0.6B",
            "qwen3_embedding",
            "Qwen3 Embedding 8B",
        ] {
            let prompts = known_prompts(name);
            assert!(prompts[0].1.ends_with("answer the query\nQuery:"), "{name}");
            assert_eq!(prompts[1], ("document".to_owned(), String::new()));
        }
        assert!(known_prompts("nomic-embed-code")[0].1.ends_with("code: "));
        assert_eq!(known_prompts("llama"), []);
    }
}
