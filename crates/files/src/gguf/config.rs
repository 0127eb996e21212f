//! From GGUF settings to a [`ModelConfig`].

use std::path::Path;

use super::header::Header;
use super::value::Value;
use crate::config::*;
use crate::error::{FileError, quoted};
use crate::model_file::GenerationDefaults;
use crate::source::Source;
use crate::tensor::TensorIndex;

/// Own settings, for what GGUF has no key for: prompts and the longest text of embedding models.
pub(crate) const PROMPT_KEY: &str = "bursar.embedding.prompt.";
pub(crate) const MAX_TOKENS_KEY: &str = "bursar.embedding.max_tokens";

/// The settings of one architecture, `{arch}.{rest}`.
struct Keys<'a> {
    header: &'a Header,
    source: &'a Source,
    path: &'a Path,
    arch: &'static str,
}

impl Keys<'_> {
    fn key(&self, rest: &str) -> String {
        format!("{}.{rest}", self.arch)
    }

    /// A size. Also takes an array with one number per layer, if all are the same.
    fn size(&self, rest: &str) -> Result<Option<usize>, FileError> {
        let key = self.key(rest);
        let number = match self.header.settings.get(&key) {
            Some(Value::Array(array)) if array.count <= 1 << 16 => {
                let numbers = self.header.integers(self.source, &key)?.unwrap_or_default();
                let first = numbers.first().copied().unwrap_or(0);
                if numbers.iter().any(|n| *n != first) {
                    return Err(FileError::unsupported(
                        self.path,
                        format!("setting {key}"),
                        "different values per layer",
                        "the same value in all layers",
                        "use a model whose layers are alike",
                    ));
                }
                Some(u64::try_from(first).unwrap_or(0))
            }
            _ => self.header.natural(self.path, &key)?,
        };
        match number.map(usize::try_from) {
            None => Ok(None),
            Some(Ok(number)) => Ok(Some(number)),
            Some(Err(_)) => Err(FileError::config(self.path, key, "a huge number", "a size")),
        }
    }

    fn must(&self, rest: &str) -> Result<usize, FileError> {
        self.size(rest)?
            .ok_or_else(|| FileError::config(self.path, self.key(rest), "nothing", "a number"))
    }

    fn float(&self, rest: &str) -> Result<Option<f32>, FileError> {
        self.header.float(self.path, &self.key(rest))
    }

    fn string(&self, rest: &str) -> Result<Option<&str>, FileError> {
        self.header.string(self.path, &self.key(rest))
    }
}

/// The architecture named by the file.
fn arch(header: &Header, path: &Path) -> Result<Arch, FileError> {
    const KEY: &str = "general.architecture";
    let remedy = "convert or download a model of a supported architecture";
    match header.string(path, KEY)? {
        Some("llama") => Ok(Arch::Llama),
        Some("qwen2") => Ok(Arch::Qwen2),
        Some("qwen3") => Ok(Arch::Qwen3),
        Some("bert") => Ok(Arch::Bert),
        Some(other) => Err(FileError::unsupported(
            path,
            "architecture",
            other,
            ARCHES,
            remedy,
        )),
        None => Err(FileError::config(
            path,
            KEY,
            "nothing",
            "an architecture's name",
        )),
    }
}

/// Reads the configuration. Presence of biases is seen from the tensors; shapes are checked later.
pub(crate) fn config(
    header: &Header,
    source: &Source,
    tensors: &TensorIndex,
) -> Result<ModelConfig, FileError> {
    let path = source.path();
    refuse_partial(header, path)?;
    let arch = arch(header, path)?;
    let keys = Keys {
        header,
        source,
        path,
        arch: arch.name(),
    };
    if keys.size("expert_count")?.unwrap_or(0) > 0 {
        return Err(FileError::unsupported(
            path,
            "feed-forward part",
            "mixture of experts",
            "dense layers",
            "use a dense model",
        ));
    }
    let bert = arch == Arch::Bert;
    if let Some(causal) = header.truth(path, &keys.key("attention.causal"))?
        && causal == bert
    {
        let got = if causal { "causal" } else { "bidirectional" };
        let what = format!("attention of the {} architecture", arch.name());
        let supported = "causal decoders, bidirectional BERT";
        return Err(FileError::unsupported(
            path,
            what,
            got,
            supported,
            "use another model",
        ));
    }

    let dim = keys.must("embedding_length")?;
    let heads = keys.must("attention.head_count")?;
    let head_dim = match keys.size("attention.key_length")? {
        Some(width) => width,
        None if heads > 0 && dim % heads == 0 => dim / heads,
        None => {
            let key = keys.key("attention.head_count");
            return Err(FileError::config(
                path,
                key,
                heads,
                format!("a divisor of {dim}"),
            ));
        }
    };
    if let Some(value) = keys
        .size("attention.value_length")?
        .filter(|value| *value != head_dim)
    {
        let key = keys.key("attention.value_length");
        return Err(FileError::config(
            path,
            key,
            value,
            format!("the key length {head_dim}"),
        ));
    }
    let has = |name: &str| tensors.get(name).is_some();
    let name = header
        .string(path, "general.name")?
        .unwrap_or(arch.name())
        .to_owned();
    let context_max = keys.must("context_length")?;
    let embedding = embedding(&keys, header, path, arch, &name, context_max)?;
    let tied_output = !bert && !has("output.weight");
    Ok(ModelConfig {
        arch,
        name,
        layers: keys.must("block_count")?,
        dim,
        heads,
        kv_heads: keys.size("attention.head_count_kv")?.unwrap_or(heads),
        head_dim,
        ffn_dim: keys.must("feed_forward_length")?,
        vocab: tensors.get("token_embd.weight").map_or(0, |t| t.rows),
        context_max,
        norm_eps: norm_eps(&keys, bert)?,
        activation: if bert {
            Activation::Gelu
        } else {
            Activation::Silu
        },
        tied_output,
        generates: !bert && (embedding.is_none() || !tied_output),
        rope: if bert {
            None
        } else {
            Some(rope(&keys, arch, head_dim, has("rope_freqs.weight"))?)
        },
        sliding_window: match arch {
            // Converters write the number for Qwen2 too, whose checkpoints switch it off.
            Arch::Llama => keys
                .size("attention.sliding_window")?
                .filter(|window| *window > 0),
            _ => None,
        },
        sliding_from: 0,
        qkv_bias: bert || arch == Arch::Qwen2 || has("blk.0.attn_q.bias"),
        o_bias: bert || has("blk.0.attn_output.bias"),
        mlp_bias: bert || has("blk.0.ffn_down.bias"),
        qk_norm: arch == Arch::Qwen3,
        type_vocab: tensors
            .get("token_types.weight")
            .filter(|_| bert)
            .map_or(0, |t| t.rows),
        embedding,
    })
}

/// Refuses files that are not one whole model.
fn refuse_partial(header: &Header, path: &Path) -> Result<(), FileError> {
    if let Some(kind) = header.string(path, "general.type")?
        && kind != "model"
    {
        let remedy = "give the model itself, not its adapter or projector";
        return Err(FileError::unsupported(
            path,
            "file type",
            kind,
            "model",
            remedy,
        ));
    }
    match header.natural(path, "split.count")? {
        Some(count) if count > 1 => Err(FileError::unsupported(
            path,
            "number of parts",
            count,
            "one",
            "merge the parts with llama-gguf-split --merge",
        )),
        _ => Ok(()),
    }
}

fn norm_eps(keys: &Keys<'_>, bert: bool) -> Result<f32, FileError> {
    let rest = match bert {
        true => "attention.layer_norm_epsilon",
        false => "attention.layer_norm_rms_epsilon",
    };
    keys.float(rest)?
        .ok_or_else(|| FileError::config(keys.path, keys.key(rest), "nothing", "a small number"))
}

fn rope(
    keys: &Keys<'_>,
    arch: Arch,
    head_dim: usize,
    has_factors: bool,
) -> Result<Rope, FileError> {
    let legacy = keys
        .float("rope.scale_linear")?
        .filter(|factor| *factor != 1.0);
    let kind = keys.string("rope.scaling.type")?;
    let factor = keys
        .float("rope.scaling.factor")?
        .or(legacy)
        .filter(|factor| *factor != 0.0);
    let scaling = match kind {
        None | Some("none") => match legacy {
            Some(factor) => RopeScaling::Linear { factor },
            None => RopeScaling::None,
        },
        Some("linear") => RopeScaling::Linear {
            factor: factor.unwrap_or(1.0),
        },
        Some("yarn") => {
            let factor = factor.unwrap_or(1.0);
            let own = match keys.float("rope.scaling.yarn_attn_factor")? {
                Some(own) => own,
                None => keys.float("rope.scaling.attn_factor")?.unwrap_or(1.0),
            };
            let original = match keys.size("rope.scaling.original_context_length")? {
                Some(original) => original,
                None => keys.must("context_length")?,
            };
            RopeScaling::Yarn {
                factor,
                original,
                // The file's own factor multiplies YaRN's default.
                attn_factor: own * yarn_attn_factor(factor),
                beta_fast: keys.float("rope.scaling.yarn_beta_fast")?.unwrap_or(32.0),
                beta_slow: keys.float("rope.scaling.yarn_beta_slow")?.unwrap_or(1.0),
                truncate: true,
            }
        }
        Some(other) => {
            return Err(FileError::unsupported(
                keys.path,
                "rotary scaling",
                other,
                "none, linear, yarn, Llama 3's factors",
                "use a model without it",
            ));
        }
    };
    Ok(Rope {
        theta: keys.float("rope.freq_base")?.unwrap_or(10_000.0),
        style: if arch == Arch::Llama {
            RopeStyle::Interleaved
        } else {
            RopeStyle::Neox
        },
        dims: keys.size("rope.dimension_count")?.unwrap_or(head_dim),
        scaling,
        has_factors,
    })
}

/// What an embedding model needs: from its pooling type, our own keys, or its well-known name.
fn embedding(
    keys: &Keys<'_>,
    header: &Header,
    path: &Path,
    arch: Arch,
    name: &str,
    context_max: usize,
) -> Result<Option<EmbeddingSpec>, FileError> {
    let base = header.string(path, "general.basename")?.unwrap_or("");
    let mut prompts: Vec<(String, String)> = Vec::new();
    for (key, value) in &header.settings {
        if let (Some(prompt), Value::String(prefix)) = (key.strip_prefix(PROMPT_KEY), value) {
            prompts.push((prompt.to_owned(), prefix.clone()));
        }
    }
    if prompts.is_empty() {
        prompts = known_prompts(name);
        if prompts.is_empty() {
            prompts = known_prompts(base);
        }
    }
    let bert = arch == Arch::Bert;
    let pooling = match (keys.size("pooling_type")?, bert) {
        (Some(1), _) => Pooling::Mean,
        (Some(2), _) => Pooling::Cls,
        (Some(3), _) => Pooling::Last,
        (None | Some(0), true) => Pooling::Mean,
        (None, false) if !prompts.is_empty() => Pooling::Last,
        (None | Some(0), false) => return Ok(None),
        (Some(other), _) => {
            return Err(FileError::unsupported(
                path,
                "pooling type",
                other,
                "1 (mean), 2 (cls), 3 (last)",
                "use an embedding model, not a reranker",
            ));
        }
    };
    let longest = header.natural(path, MAX_TOKENS_KEY)?;
    let longest = longest.map_or(context_max, |n| usize::try_from(n).unwrap_or(usize::MAX));
    Ok(Some(EmbeddingSpec {
        pooling,
        normalize: true,
        prompts,
        default_prompt: None,
        max_tokens: longest.min(context_max),
        append_eos: known_to_append_eos(name) || known_to_append_eos(base),
    }))
}

/// Sampling defaults and the ids that end a turn.
pub(crate) fn generation(header: &Header, path: &Path) -> Result<GenerationDefaults, FileError> {
    let id = |name: &str| {
        let key = format!("tokenizer.ggml.{name}_token_id");
        let number = header.natural(path, &key)?;
        number.map(|n| token_id(path, &key, n)).transpose()
    };
    let mut eos = Vec::new();
    for name in ["eos", "eot", "eom"] {
        eos.extend(id(name)?.filter(|id| !eos.contains(id)));
    }
    let float = |name: &str| header.float(path, &format!("general.sampling.{name}"));
    let top_k = header.natural(path, "general.sampling.top_k")?;
    Ok(GenerationDefaults {
        temperature: float("temp")?,
        top_k: top_k.map(|k| u32::try_from(k).unwrap_or(u32::MAX)),
        top_p: float("top_p")?,
        min_p: float("min_p")?,
        repetition_penalty: float("penalty_repeat")?,
        greedy: None,
        eos,
        bos: id("bos")?,
        pad: id("padding")?,
    })
}

/// A token id as it should be.
pub(crate) fn token_id(path: &Path, key: &str, number: u64) -> Result<u32, FileError> {
    u32::try_from(number)
        .map_err(|_| FileError::config(path, quoted(key.as_bytes()), number, "a token id"))
}
