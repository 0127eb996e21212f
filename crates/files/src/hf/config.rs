//! From `config.json` and `generation_config.json` to a [`ModelConfig`] and sampling defaults.
//!
//! Defaults of absent keys are those of transformers' configuration classes.

use super::settings::Settings;
use crate::config::*;
use crate::error::FileError;
use crate::model_file::GenerationDefaults;
use crate::tensor::TensorIndex;

use crate::role::{LayerRole, Naming, Role};

/// The architecture named by `config.json`, and whether it is Mistral.
pub(crate) fn arch(settings: &Settings) -> Result<Arch, FileError> {
    let remedy = "convert or download a model of a supported architecture";
    match settings.string("model_type")? {
        Some("llama" | "mistral") => Ok(Arch::Llama),
        Some("qwen2") => Ok(Arch::Qwen2),
        Some("qwen3") => Ok(Arch::Qwen3),
        Some("bert") => Ok(Arch::Bert),
        Some(other) => Err(unsupported(settings, "architecture", other, ARCHES, remedy)),
        None => Err(settings.missing("model_type", "an architecture's name")),
    }
}

fn unsupported(
    settings: &Settings,
    what: &str,
    got: &str,
    supported: &'static str,
    remedy: &'static str,
) -> FileError {
    FileError::unsupported(&settings.path, what, got, supported, remedy)
}

/// How the checkpoint names its tensors: saved with a head they carry the inner model's name.
pub(crate) fn naming(arch: Arch, tensors: &TensorIndex) -> Naming {
    let has = |name: &str| tensors.get(name).is_some();
    match arch {
        Arch::Bert => {
            let bare = has("embeddings.word_embeddings.weight");
            let prefix = if bare { "" } else { "bert." };
            let gamma_beta = has(&format!("{prefix}embeddings.LayerNorm.gamma"));
            Naming::HfBert { prefix, gamma_beta }
        }
        _ => {
            let bare = has("embed_tokens.weight");
            Naming::HfDecoder {
                prefix: if bare { "" } else { "model." },
            }
        }
    }
}

/// Reads the configuration. `embedding` comes from the sentence-transformers files.
pub(crate) fn config(
    settings: &Settings,
    name: String,
    naming: Naming,
    tensors: &TensorIndex,
    embedding: Option<EmbeddingSpec>,
) -> Result<ModelConfig, FileError> {
    let arch = arch(settings)?;
    if let Some(quantised) = settings.object("quantization_config")? {
        let method = quantised
            .string("quant_method")?
            .unwrap_or("unknown")
            .to_owned();
        let remedy = "use the unquantised checkpoint, or a GGUF file";
        return Err(unsupported(
            settings,
            "quantisation",
            &method,
            "none in safetensors",
            remedy,
        ));
    }
    let bert = arch == Arch::Bert;
    let dim = settings.must_size("hidden_size")?;
    let heads = settings.must_size("num_attention_heads")?;
    let layers = settings.must_size("num_hidden_layers")?;
    let head_dim = match (settings.size("head_dim")?, arch) {
        (Some(width), Arch::Llama | Arch::Qwen2 | Arch::Qwen3) => width,
        (None, Arch::Qwen3) => 128,
        _ if heads > 0 && dim % heads == 0 => dim / heads,
        _ => {
            let want = format!("a divisor of hidden_size {dim}");
            return Err(FileError::config(
                &settings.path,
                "num_attention_heads",
                heads,
                want,
            ));
        }
    };
    let mistral = settings.string("model_type")? == Some("mistral");
    let kv_heads = match (settings.size("num_key_value_heads")?, bert) {
        (Some(kv_heads), false) => kv_heads,
        (None, false) if mistral => 8,
        _ => heads,
    };
    let has = |role: LayerRole| {
        let name = naming.name(arch, Role::Layer(0, role));
        name.is_some_and(|name| tensors.get(&name).is_some())
    };
    let attention_bias = settings.truth("attention_bias")?.unwrap_or(false);
    let tied = settings.truth("tie_word_embeddings")?.unwrap_or(false);
    let head = naming
        .name(arch, Role::Output)
        .is_some_and(|name| tensors.get(&name).is_some());
    // Checkpoints of embedding models lack a head whatever the configuration says.
    let embeds_only = embedding.is_some() && (tied || !head);
    let (sliding_window, sliding_from) = sliding_window(settings, arch, mistral, layers)?;
    let eps = if bert {
        "layer_norm_eps"
    } else {
        "rms_norm_eps"
    };
    if bert {
        check_bert(settings)?;
    }
    let config = ModelConfig {
        arch,
        name,
        layers,
        dim,
        heads,
        kv_heads,
        head_dim,
        ffn_dim: settings.must_size("intermediate_size")?,
        vocab: settings.must_size("vocab_size")?,
        context_max: settings.must_size("max_position_embeddings")?,
        norm_eps: settings
            .float(eps)?
            .unwrap_or(if bert { 1e-12 } else { 1e-6 }),
        activation: activation(settings, bert)?,
        tied_output: !bert && tied,
        generates: !bert && !embeds_only,
        rope: if bert {
            None
        } else {
            Some(rope(settings, head_dim)?)
        },
        sliding_window,
        sliding_from,
        qkv_bias: bert || arch == Arch::Qwen2 || attention_bias || has(LayerRole::QB),
        o_bias: bert || (arch != Arch::Qwen2 && attention_bias) || has(LayerRole::OB),
        mlp_bias: bert || settings.truth("mlp_bias")?.unwrap_or(false) || has(LayerRole::DownB),
        qk_norm: arch == Arch::Qwen3,
        type_vocab: if bert {
            settings.size("type_vocab_size")?.unwrap_or(2)
        } else {
            0
        },
        embedding,
    };
    Ok(config)
}

/// Refuses the variants of BERT that compute something else.
fn check_bert(settings: &Settings) -> Result<(), FileError> {
    let positions = settings
        .string("position_embedding_type")?
        .unwrap_or("absolute");
    if positions != "absolute" {
        let remedy = "use a model with absolute positions";
        return Err(unsupported(
            settings,
            "position embedding",
            positions,
            "absolute",
            remedy,
        ));
    }
    if settings.truth("is_decoder")?.unwrap_or(false) {
        let remedy = "use an encoder";
        return Err(unsupported(
            settings,
            "kind of BERT",
            "decoder",
            "encoder",
            remedy,
        ));
    }
    Ok(())
}

fn activation(settings: &Settings, bert: bool) -> Result<Activation, FileError> {
    let name = settings
        .string("hidden_act")?
        .unwrap_or(if bert { "gelu" } else { "silu" });
    match (name, bert) {
        ("silu" | "swish", false) => Ok(Activation::Silu),
        ("gelu" | "gelu_python", true) => Ok(Activation::Gelu),
        ("gelu_new" | "gelu_pytorch_tanh" | "gelu_fast", true) => Ok(Activation::GeluTanh),
        _ => {
            let supported = "silu in decoders; gelu, gelu_new in BERT";
            Err(unsupported(
                settings,
                "activation",
                name,
                supported,
                "use another model",
            ))
        }
    }
}

/// The window and the first layer that has it.
fn sliding_window(
    settings: &Settings,
    arch: Arch,
    mistral: bool,
    layers: usize,
) -> Result<(Option<usize>, usize), FileError> {
    let (on, from) = match arch {
        Arch::Bert => (false, 0),
        Arch::Llama => (mistral, 0),
        Arch::Qwen2 | Arch::Qwen3 => (
            settings.truth("use_sliding_window")?.unwrap_or(false),
            settings.size("max_window_layers")?.unwrap_or(28),
        ),
    };
    let window = match on {
        true => settings.size("sliding_window")?,
        false => None,
    };
    let Some(window) = window else {
        return Ok((None, 0));
    };
    let from = match settings.get("layer_types") {
        None => from,
        Some(types) => {
            let want = "a list of full_attention, then sliding_attention, one per layer";
            let wrong = || settings.wrong("layer_types", types, want);
            let types = types.as_array().ok_or_else(wrong)?;
            let full = |t: &serde_json::Value| t.as_str() == Some("full_attention");
            let sliding = |t: &serde_json::Value| t.as_str() == Some("sliding_attention");
            let from = types.iter().take_while(|t| full(t)).count();
            if types.len() != layers || !types[from..].iter().all(sliding) {
                return Err(wrong());
            }
            from
        }
    };
    match from < layers {
        true => Ok((Some(window), from)),
        false => Ok((None, 0)),
    }
}

/// Rotary positions from `rope_parameters` (transformers 5) or `rope_theta` and `rope_scaling`.
fn rope(settings: &Settings, head_dim: usize) -> Result<Rope, FileError> {
    let parameters = match settings.object("rope_parameters")? {
        Some(parameters) => Some(parameters),
        None => settings.object("rope_scaling")?,
    };
    let own = parameters.as_ref();
    let theta = match own.map(|p| p.float("rope_theta")).transpose()?.flatten() {
        Some(theta) => theta,
        None => settings.float("rope_theta")?.unwrap_or(10_000.0),
    };
    let partial = match own
        .map(|p| p.float("partial_rotary_factor"))
        .transpose()?
        .flatten()
    {
        Some(factor) => factor,
        None => settings.float("partial_rotary_factor")?.unwrap_or(1.0),
    };
    if !(partial > 0.0 && partial <= 1.0) {
        let want = "above 0, at most 1";
        return Err(FileError::config(
            &settings.path,
            "partial_rotary_factor",
            partial,
            want,
        ));
    }
    let scaling = match &parameters {
        Some(parameters) => scaling(settings, parameters)?,
        None => RopeScaling::None,
    };
    // Truncates, as transformers does.
    let dims = (head_dim as f64 * f64::from(partial)) as usize;
    Ok(Rope {
        theta,
        style: RopeStyle::Neox,
        dims,
        scaling,
        has_factors: false,
    })
}

fn scaling(settings: &Settings, parameters: &Settings) -> Result<RopeScaling, FileError> {
    let supported = "default, linear, llama3, yarn";
    let remedy = "use a model without it";
    // The old files call it `type`.
    let kind = match parameters.string("rope_type")? {
        Some(kind) => kind,
        None => parameters.string("type")?.unwrap_or("default"),
    };
    if parameters.get("full_attention").is_some() || parameters.get("sliding_attention").is_some() {
        let got = "different per kind of layer";
        return Err(unsupported(
            settings,
            "rotary scaling",
            got,
            supported,
            remedy,
        ));
    }
    let must = |key: &str| {
        parameters
            .float(key)?
            .ok_or_else(|| parameters.missing(key, "a number"))
    };
    let context = settings.must_size("max_position_embeddings")?;
    let original = || match settings.size("original_max_position_embeddings")? {
        Some(original) => Ok(original),
        None => Ok(parameters
            .size("original_max_position_embeddings")?
            .unwrap_or(context)),
    };
    match kind {
        "default" => Ok(RopeScaling::None),
        "linear" => Ok(RopeScaling::Linear {
            factor: must("factor")?,
        }),
        "llama3" => Ok(RopeScaling::Llama3 {
            factor: must("factor")?,
            low: must("low_freq_factor")?,
            high: must("high_freq_factor")?,
            original: original()?,
        }),
        "yarn" => {
            let original: usize = original()?;
            let factor = match parameters.float("factor")? {
                Some(factor) => factor,
                None => context as f32 / original.max(1) as f32,
            };
            let nonzero = |key: &str| Ok(parameters.float(key)?.filter(|x| *x != 0.0));
            let attn_factor = match parameters.float("attention_factor")? {
                Some(own) => own,
                None => match (nonzero("mscale")?, nonzero("mscale_all_dim")?) {
                    (Some(over), Some(under)) => {
                        yarn_mscale(factor, over) / yarn_mscale(factor, under)
                    }
                    _ => yarn_attn_factor(factor),
                },
            };
            Ok(RopeScaling::Yarn {
                factor,
                original,
                attn_factor,
                beta_fast: nonzero("beta_fast")?.unwrap_or(32.0),
                beta_slow: nonzero("beta_slow")?.unwrap_or(1.0),
                truncate: parameters.truth("truncate")?.unwrap_or(true),
            })
        }
        other => Err(unsupported(
            settings,
            "rotary scaling",
            other,
            supported,
            remedy,
        )),
    }
}

fn yarn_mscale(factor: f32, mscale: f32) -> f32 {
    if factor <= 1.0 {
        1.0
    } else {
        0.1 * mscale * factor.ln() + 1.0
    }
}

/// Sampling defaults. `config.json` is asked for ids that `generation_config.json` lacks.
pub(crate) fn generation(
    config: &Settings,
    generation: Option<&Settings>,
) -> Result<GenerationDefaults, FileError> {
    let ids = |key: &str| {
        let own = generation
            .map(|g| g.token_ids(key))
            .transpose()?
            .unwrap_or_default();
        if own.is_empty() {
            config.token_ids(key)
        } else {
            Ok(own)
        }
    };
    let float = |key: &str| Ok(generation.map(|g| g.float(key)).transpose()?.flatten());
    let top_k = generation.map(|g| g.size("top_k")).transpose()?.flatten();
    let sample = generation
        .map(|g| g.truth("do_sample"))
        .transpose()?
        .flatten();
    Ok(GenerationDefaults {
        temperature: float("temperature")?,
        top_k: top_k.map(|k| u32::try_from(k).unwrap_or(u32::MAX)),
        top_p: float("top_p")?,
        min_p: float("min_p")?,
        repetition_penalty: float("repetition_penalty")?,
        greedy: sample.map(|sample| !sample),
        eos: ids("eos_token_id")?,
        bos: ids("bos_token_id")?.first().copied(),
        pad: ids("pad_token_id")?.first().copied(),
    })
}
