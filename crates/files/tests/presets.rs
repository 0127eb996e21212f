//! The presets' shapes, sizes and types, against what is known of the real models' files.
#![allow(clippy::unwrap_used, reason = "a test may")]

use bursar_files::synth::{Mix, Preset};
use bursar_files::{LayerRole, ModelFile, Role, TokenizerSource};

fn plan(spec: &str) -> ModelFile {
    Preset::parse(spec)
        .unwrap()
        .model_file()
        .unwrap_or_else(|e| panic!("{spec}: {e}"))
}

/// Opens a preset and compares it with what it should be.
fn check(preset: Preset) -> ModelFile {
    let model = preset
        .model_file()
        .unwrap_or_else(|e| panic!("{}: {e}", preset.name()));
    assert_eq!(model.config(), &preset.config(), "{}", preset.name());
    assert_eq!(
        model.used().count(),
        model.tensors().len(),
        "{}",
        preset.name()
    );
    model
}

#[test]
fn presets_have_the_sizes_of_the_real_models() {
    for preset in Preset::all() {
        let model = check(preset);
        let weights: u64 = model.tensors().map(|t| t.rows as u64 * t.cols as u64).sum();
        // From the models' cards, in millions.
        let millions = match preset.name() {
            "qwen3-0.6b" | "qwen3-embedding-0.6b" => 596,
            "llama-3.2-1b" => 1236,
            "nomic-embed-code" => 7071,
            "all-minilm-l6-v2" => 23,
            "bge-small-en-v1.5" => 33,
            _ => (weights + 500_000) / 1_000_000,
        };
        assert_eq!(
            (weights + 500_000) / 1_000_000,
            millions,
            "{}: {weights}",
            preset.name()
        );
        match preset.name() {
            "nomic-embed-code" => assert_eq!(model.file_bytes() / 10_000_000, 493),
            "llama-3.2-1b" => {
                assert!(model.config().rope.unwrap().has_factors);
                assert_eq!(model.find(Role::RopeFactors).unwrap().cols, 32);
            }
            _ => {}
        }
        let TokenizerSource::Gguf(tokens) = model.tokenizer_source().unwrap() else {
            panic!("presets are GGUF files")
        };
        assert_eq!(tokens.tokens.len(), preset.config().vocab);
    }
}

#[test]
fn every_type_can_be_stored() {
    // The larger vocabularies take a while to make up.
    for preset in Preset::all().filter(|preset| preset.config().vocab < 10_000) {
        for mix in Mix::all() {
            check(preset.with_mix(mix));
        }
    }
    for mix in Mix::all() {
        check(Preset::parse("all-minilm-l6-v2").unwrap().with_mix(mix));
    }
}

#[test]
fn mixes_are_llama_cpps() {
    let types = |model: &ModelFile, role: LayerRole| -> Vec<&'static str> {
        let layers = 0..model.config().layers;
        layers
            .map(|n| model.find(Role::Layer(n, role)).unwrap().dtype.name())
            .collect()
    };
    let embedding = |model: &ModelFile| model.find(Role::TokenEmbedding).unwrap().dtype.name();

    // 28 layers: the first three, the last four (24..), and every third from 5 on.
    let more = [0, 1, 2, 5, 8, 11, 14, 17, 20, 23, 24, 25, 26, 27];
    let qwen = plan("qwen3-0.6b:q4_k_m");
    for role in [LayerRole::V, LayerRole::Down] {
        for (layer, name) in types(&qwen, role).into_iter().enumerate() {
            assert_eq!(
                name == "Q6_K",
                more.contains(&layer),
                "{role:?} of layer {layer}"
            );
            assert!(name == "Q6_K" || name == "Q4_K");
        }
    }
    assert_eq!(types(&qwen, LayerRole::Q), ["Q4_K"; 28]);
    assert_eq!(types(&qwen, LayerRole::AttnNorm), ["F32"; 28]);
    assert_eq!(embedding(&qwen), "Q6_K");

    let nomic = plan("nomic-embed-code:q5_k_s");
    assert_eq!(types(&nomic, LayerRole::V), ["Q5_K"; 28]);
    assert_eq!(embedding(&nomic), "Q6_K");

    // Not tied: the output has the bits.
    let llama = plan("tiny-llama:q4_k_m");
    assert_eq!(embedding(&llama), "Q4_K");
    assert_eq!(llama.find(Role::Output).unwrap().dtype.name(), "Q6_K");

    // Rows of 384 are no whole blocks of 256.
    let bert = plan("all-minilm-l6-v2:q4_k_m");
    assert_eq!(types(&bert, LayerRole::Q), ["Q5_0"; 6]);
    assert_eq!(types(&bert, LayerRole::V)[5], "Q8_0");
    assert_eq!(types(&bert, LayerRole::Down)[5], "Q6_K");
    assert_eq!(embedding(&bert), "Q8_0");
    assert_eq!(
        types(&plan("all-minilm-l6-v2:q5_k_s"), LayerRole::Q),
        ["Q5_1"; 6]
    );
}

#[test]
fn names_that_are_unknown_are_listed() {
    let error = Preset::parse("gpt-5").unwrap_err().to_string();
    assert!(
        error.contains("gpt-5") && error.contains("nomic-embed-code"),
        "{error}"
    );
    let error = Preset::parse("tiny-llama:q3").unwrap_err().to_string();
    assert!(error.contains("q3") && error.contains("q4_k_m"), "{error}");
    assert_eq!(Preset::parse("TINY-llama:Q4_K_M").unwrap().mix(), Mix::Q4KM);
}
