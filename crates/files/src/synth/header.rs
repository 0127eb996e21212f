//! A preset as GGUF settings and tensor descriptions: what `gguf::config` reads, written.

use super::preset::Preset;
use super::vocabulary::{self, Vocabulary};
use crate::config::{Arch, Pooling};
use crate::error::FileError;
use crate::gguf::Writer;
use crate::gguf::config::{MAX_TOKENS_KEY, PROMPT_KEY};
use crate::role::{Naming, Role, Shape};

/// ChatML, which Qwen's models use.
const CHAT_TEMPLATE: &str = "{% for message in messages %}{{ '<|im_start|>' + message['role'] + \
    '\\n' + message['content'] + '<|im_end|>' + '\\n' }}{% endfor %}{% if add_generation_prompt \
    %}{{ '<|im_start|>assistant\\n' }}{% endif %}";

/// Settings and tensors of a preset's file.
pub(super) fn build(preset: Preset) -> Result<Writer, FileError> {
    let config = preset.config();
    let arch = config.arch.name();
    let mut w = Writer::new();
    let key = |rest: &str| format!("{arch}.{rest}");
    // Sizes are below 2^32: the presets are ours.
    let n = |size: usize| u32::try_from(size).expect("a preset's size fits 32 bits");

    w.string("general.architecture", arch);
    w.string("general.type", "model");
    w.string("general.name", &config.name);
    w.u32("general.file_type", preset.mix().file_type());
    w.u32("general.quantization_version", 2);
    w.u32(&key("block_count"), n(config.layers));
    w.u32(&key("context_length"), n(config.context_max));
    w.u32(&key("embedding_length"), n(config.dim));
    w.u32(&key("feed_forward_length"), n(config.ffn_dim));
    w.u32(&key("attention.head_count"), n(config.heads));
    w.u32(&key("attention.head_count_kv"), n(config.kv_heads));
    match config.rope {
        Some(rope) => {
            w.u32(&key("attention.key_length"), n(config.head_dim));
            w.u32(&key("attention.value_length"), n(config.head_dim));
            w.f32(&key("attention.layer_norm_rms_epsilon"), config.norm_eps);
            w.u32(&key("rope.dimension_count"), n(rope.dims));
            w.f32(&key("rope.freq_base"), rope.theta);
        }
        None => {
            w.f32(&key("attention.layer_norm_epsilon"), config.norm_eps);
            w.bool(&key("attention.causal"), false);
        }
    }
    if let Some(spec) = &config.embedding {
        let pooling = match spec.pooling {
            Pooling::Mean => 1,
            Pooling::Cls => 2,
            Pooling::Last => 3,
        };
        w.u32(&key("pooling_type"), pooling);
        w.u32(MAX_TOKENS_KEY, n(spec.max_tokens));
        for (name, prefix) in &spec.prompts {
            w.string(&format!("{PROMPT_KEY}{name}"), prefix);
        }
    }
    match config.arch {
        Arch::Bert => word_piece(&mut w, config.vocab),
        _ => byte_pairs(
            &mut w,
            config.arch,
            config.vocab,
            config.embedding.is_some(),
        ),
    }

    for (role, shape) in config.roles() {
        let name = Naming::Gguf
            .name(config.arch, role)
            .expect("GGUF names every role");
        let dims = match shape {
            Shape::Vector(cols) => vec![cols as u64],
            Shape::Matrix(rows, cols) => vec![cols as u64, rows as u64],
        };
        w.tensor(&name, preset.mix().dtype(&config, role, shape), &dims)?;
    }
    Ok(w)
}

/// The tensors' roles and shapes in the order in which [`build`] adds them.
pub(super) fn roles(preset: Preset) -> Vec<(Role, Shape)> {
    preset.config().roles().collect()
}

fn put(w: &mut Writer, vocabulary: &Vocabulary) {
    w.strings("tokenizer.ggml.tokens", vocabulary.tokens.iter());
    w.i32s(
        "tokenizer.ggml.token_type",
        vocabulary.types.iter().map(|ty| i32::from(*ty)),
    );
    if !vocabulary.merges.is_empty() {
        w.strings("tokenizer.ggml.merges", vocabulary.merges.iter());
    }
}

fn byte_pairs(w: &mut Writer, arch: Arch, size: usize, embeds: bool) {
    let llama = arch == Arch::Llama;
    let pre = if llama { "llama-bpe" } else { "qwen2" };
    let specials: &[&str] = match llama {
        true => &[
            "<|begin_of_text|>",
            "<|endoftext|>",
            "<|im_start|>",
            "<|im_end|>",
        ],
        false => &["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
    };
    let vocabulary = vocabulary::byte_pairs(size, specials);
    let id = |token: &str| {
        let at = specials.iter().position(|special| *special == token);
        let id = size - specials.len() + at.expect("one of the specials");
        u32::try_from(id).expect("a preset's vocabulary fits 32 bits")
    };
    w.string("tokenizer.ggml.model", "gpt2");
    w.string("tokenizer.ggml.pre", pre);
    put(w, &vocabulary);
    w.u32("tokenizer.ggml.bos_token_id", id(specials[0]));
    w.u32(
        "tokenizer.ggml.eos_token_id",
        id(if embeds {
            "<|endoftext|>"
        } else {
            "<|im_end|>"
        }),
    );
    w.u32("tokenizer.ggml.padding_token_id", id("<|endoftext|>"));
    w.bool("tokenizer.ggml.add_bos_token", llama && !embeds);
    w.bool("tokenizer.ggml.add_eos_token", embeds);
    if !embeds {
        w.string("tokenizer.chat_template", CHAT_TEMPLATE);
    }
}

fn word_piece(w: &mut Writer, size: usize) {
    let vocabulary = vocabulary::word_pieces(size);
    w.string("tokenizer.ggml.model", "bert");
    w.string("tokenizer.ggml.pre", "bert-bge");
    w.u32("tokenizer.ggml.token_type_count", 2);
    put(w, &vocabulary);
    let ids = [
        ("padding", vocabulary::PAD),
        ("unknown", vocabulary::UNK),
        ("bos", vocabulary::CLS),
        ("cls", vocabulary::CLS),
        ("eos", vocabulary::SEP),
        // The format's own spelling.
        ("seperator", vocabulary::SEP),
        ("mask", vocabulary::MASK),
    ];
    for (name, id) in ids {
        w.u32(&format!("tokenizer.ggml.{name}_token_id"), id);
    }
}
