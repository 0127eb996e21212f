//! Opens the small models that the golden tests use, and a few real shapes, and checks what is
//! understood of them.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::path::{Path, PathBuf};

use bursar_files::{
    Activation, Arch, LayerRole, ModelFile, Part, Pooling, Role, RopeScaling, RopeStyle,
    TokenizerSource,
};

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures/models")
        .join(name)
}

fn open(name: &str) -> ModelFile {
    ModelFile::open(&fixture(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

#[test]
fn every_fixture_opens_and_reads() {
    let directory = fixture("");
    let mut names: Vec<_> = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    assert!(names.len() >= 30);
    for name in names {
        let model = open(&name);
        let mut bytes = Vec::new();
        for (role, tensor) in model.used() {
            bytes.resize(tensor.bytes as usize, 0);
            model
                .read_at(tensor, 0, &mut bytes)
                .unwrap_or_else(|e| panic!("{name} {role:?}: {e}"));
            model.drop_cache(tensor, 0..tensor.bytes);
            assert_eq!(
                tensor.rows * tensor.row_bytes(),
                bytes.len(),
                "{name} {role:?}"
            );
        }
        match model
            .tokenizer_source()
            .unwrap_or_else(|e| panic!("{name}: {e}"))
        {
            TokenizerSource::Json { tokenizer, config } => {
                assert!(tokenizer.starts_with(b"{") && config.is_some(), "{name}");
            }
            TokenizerSource::Gguf(tokens) => {
                assert_eq!(tokens.tokens.len(), model.config().vocab, "{name}");
                assert_eq!(tokens.types.len(), tokens.tokens.len(), "{name}");
            }
        }
    }
}

#[test]
fn gguf_fixtures_are_understood() {
    let model = open("llama-q4_k_m.gguf");
    let config = model.config();
    let rope = config.rope.unwrap();
    assert_eq!(
        (config.arch, rope.style),
        (Arch::Llama, RopeStyle::Interleaved)
    );
    assert!(
        model
            .gguf()
            .unwrap()
            .settings
            .contains_key("llama.block_count")
    );

    let model = open("llama-rope-freqs.gguf");
    let rope = model.config().rope.unwrap();
    assert!(rope.has_factors && rope.scaling == RopeScaling::None);
    assert_eq!(model.find(Role::RopeFactors).unwrap().cols, rope.dims / 2);

    let model = open("qwen3-yarn.gguf");
    let rope = model.config().rope.unwrap();
    assert_eq!(rope.style, RopeStyle::Neox);
    assert!(matches!(rope.scaling, RopeScaling::Yarn { factor, .. } if factor > 1.0));
    assert!(model.config().qk_norm);

    assert!(open("qwen2-bias.gguf").config().qkv_bias);
    let spec = |name: &str| open(name).config().embedding.clone().unwrap();
    assert_eq!(spec("bert-cls.gguf").pooling, Pooling::Cls);
    assert_eq!(spec("bert-mean.gguf").pooling, Pooling::Mean);
    assert_eq!(spec("qwen3-embedding.gguf").pooling, Pooling::Last);
    assert!(spec("qwen3-embedding.gguf").append_eos);
}

#[test]
fn shards_are_put_together() {
    let model = open("llama-sharded");
    assert_eq!(model.tensors().map(|t| t.file).max(), Some(2));
    assert_eq!(model.used().count(), model.tensors().len());
}

#[test]
fn biases_are_seen() {
    let model = open("llama-bias");
    let config = model.config();
    assert!(config.qkv_bias && config.o_bias && config.mlp_bias && !config.qk_norm);
    for role in [
        LayerRole::QB,
        LayerRole::OB,
        LayerRole::GateB,
        LayerRole::UpB,
        LayerRole::DownB,
    ] {
        assert!(model.find(Role::Layer(1, role)).is_some(), "{role:?}");
    }
    let model = open("qwen2");
    assert!(model.config().qkv_bias && !model.config().o_bias && !model.config().mlp_bias);
    assert!(!open("llama").config().qkv_bias);
}

#[test]
fn rotary_settings_are_understood() {
    let rope = |name: &str| open(name).config().rope.unwrap();
    assert_eq!(rope("llama").scaling, RopeScaling::None);
    assert_eq!(rope("llama").style, RopeStyle::Neox);
    assert!(
        matches!(rope("llama-rope-linear").scaling, RopeScaling::Linear { factor } if factor > 1.0)
    );
    assert!(matches!(
        rope("llama-rope-llama3").scaling,
        RopeScaling::Llama3 { .. }
    ));
    match rope("llama-rope-yarn").scaling {
        RopeScaling::Yarn {
            factor,
            original,
            attn_factor,
            beta_fast,
            beta_slow,
            truncate,
        } => {
            assert_eq!(
                (factor, original, beta_fast, beta_slow),
                (4.0, 64, 4.0, 1.0)
            );
            assert!((attn_factor - 1.138_629_4).abs() < 1e-6 && truncate);
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(rope("qwen3").dims, open("qwen3").config().head_dim);
}

#[test]
fn windows_are_understood() {
    let mistral = open("mistral-sliding-window");
    assert_eq!(mistral.config().arch, Arch::Llama);
    assert_eq!(mistral.config().window(0), Some(12));
    // `sliding_window` is set, `use_sliding_window` is false.
    assert_eq!(open("nomic-embed-code").config().window(1), None);
}

#[test]
fn heads_and_ties_are_understood() {
    let tied = open("llama-tied");
    assert!(tied.config().tied_output && tied.config().generates);
    assert!(tied.find(Role::Output).is_none());
    let own = open("llama");
    assert!(!own.config().tied_output && own.find(Role::Output).is_some());
    let embeds = open("nomic-embed-code");
    assert!(!embeds.config().generates && embeds.find(Role::Output).is_none());
    assert_eq!(
        embeds.find(Role::OutputNorm(Part::W)).unwrap().name,
        "norm.weight"
    );
}

#[test]
fn embedding_models_say_how_they_embed() {
    let spec = |name: &str| open(name).config().embedding.clone().unwrap();
    let qwen = spec("qwen3-embedding");
    assert_eq!(
        (qwen.pooling, qwen.normalize, qwen.append_eos),
        (Pooling::Last, true, true)
    );
    assert_eq!(
        qwen.query_prefix(),
        "Instruct: Given a web search query, retrieve relevant passages that answer the \
         query\nQuery:"
    );
    assert_eq!(qwen.document_prefix(), "");
    assert_eq!(qwen.max_tokens, 112);
    let nomic = spec("nomic-embed-code");
    assert_eq!(
        nomic.query_prefix(),
        "Represent this query for searching relevant code: "
    );
    let cls = spec("bert-cls");
    assert_eq!(
        (cls.pooling, cls.normalize, cls.append_eos),
        (Pooling::Cls, false, false)
    );
    assert_eq!(cls.max_tokens, 64);
    assert_eq!(spec("bert-mean").pooling, Pooling::Mean);
    assert!(open("llama").config().embedding.is_none());
}

#[test]
fn generation_defaults_and_templates_are_read() {
    let model = open("llama");
    assert!(!model.generation().eos.is_empty());
    assert!(model.chat_template().is_some());
    let bert = open("bert-mean");
    assert_eq!(bert.config().activation, Activation::Gelu);
    assert_eq!(bert.config().type_vocab, 2);
}

#[test]
fn requests_outside_a_tensor_are_refused() {
    let model = open("llama");
    let tensor = model.find(Role::TokenEmbedding).unwrap();
    let mut buf = [0; 8];
    assert!(model.read_at(tensor, tensor.bytes - 8, &mut buf).is_ok());
    assert!(model.read_at(tensor, tensor.bytes - 7, &mut buf).is_err());
    assert!(model.read_at(tensor, u64::MAX, &mut buf).is_err());
}
