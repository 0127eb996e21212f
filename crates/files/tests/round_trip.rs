//! Whatever the GGUF writer writes, the reader reads back.
#![allow(clippy::unwrap_used, reason = "a test may")]

use bursar_files::gguf::{Value, Writer};
use bursar_files::{FileError, ModelFile, TokenizerSource};
use bursar_kernels::quant::Dtype;
use proptest::prelude::*;

/// A setting to write.
#[derive(Clone, Debug)]
enum Setting {
    U32(u32),
    U64(u64),
    F32(f32),
    Bool(bool),
    Text(String),
    Texts(Vec<String>),
}

fn setting() -> impl Strategy<Value = Setting> {
    prop_oneof![
        any::<u32>().prop_map(Setting::U32),
        any::<u64>().prop_map(Setting::U64),
        any::<f32>()
            .prop_filter("comparable", |x| !x.is_nan())
            .prop_map(Setting::F32),
        any::<bool>().prop_map(Setting::Bool),
        ".{0,40}".prop_map(Setting::Text),
        prop::collection::vec(".{0,8}", 0..5).prop_map(Setting::Texts),
    ]
}

/// A tensor beside the model's own: name, type, rows and blocks per row.
fn extra() -> impl Strategy<Value = (String, Dtype, u64, u64)> {
    (
        "[a-z]{1,12}",
        prop::sample::select(Dtype::ALL.to_vec()),
        1u64..5,
        1u64..4,
    )
}

/// The least model that opens: an encoder of one layer.
fn least(w: &mut Writer, tokens: &[String]) -> Result<(), FileError> {
    w.string("general.architecture", "bert");
    for (key, value) in [
        ("block_count", 1),
        ("context_length", 4),
        ("embedding_length", 8),
        ("feed_forward_length", 8),
        ("attention.head_count", 2),
    ] {
        w.u32(&format!("bert.{key}"), value);
    }
    w.f32("bert.attention.layer_norm_epsilon", 1e-12);
    w.string("tokenizer.ggml.model", "bert");
    w.strings(
        "tokenizer.ggml.tokens",
        tokens.iter().map(|token| token.as_bytes()),
    );
    w.tensor("token_embd.weight", Dtype::F32, &[8, 16])?;
    w.tensor("position_embd.weight", Dtype::F32, &[8, 4])?;
    w.tensor("token_types.weight", Dtype::F32, &[8, 2])?;
    for norm in [
        "token_embd_norm",
        "blk.0.attn_output_norm",
        "blk.0.layer_output_norm",
    ] {
        w.tensor(&format!("{norm}.weight"), Dtype::F32, &[8])?;
        w.tensor(&format!("{norm}.bias"), Dtype::F32, &[8])?;
    }
    for product in [
        "attn_q",
        "attn_k",
        "attn_v",
        "attn_output",
        "ffn_up",
        "ffn_down",
    ] {
        w.tensor(&format!("blk.0.{product}.weight"), Dtype::F32, &[8, 8])?;
        w.tensor(&format!("blk.0.{product}.bias"), Dtype::F32, &[8])?;
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn files_come_back(
        settings in prop::collection::btree_map("[a-z]{1,10}", setting(), 0..8),
        tokens in prop::collection::vec(".{0,12}", 0..16),
        extras in prop::collection::vec(extra(), 0..6),
        alignment in prop::sample::select(vec![8u32, 32, 64, 4096]),
    ) {
        let mut w = Writer::with_alignment(alignment);
        for (key, value) in &settings {
            let key = format!("x.{key}");
            match value {
                Setting::U32(n) => w.u32(&key, *n),
                Setting::U64(n) => w.u64(&key, *n),
                Setting::F32(x) => w.f32(&key, *x),
                Setting::Bool(b) => w.bool(&key, *b),
                Setting::Text(s) => w.string(&key, s),
                Setting::Texts(s) => w.strings(&key, s.iter().map(|s| s.as_bytes())),
            }
        }
        least(&mut w, &tokens).unwrap();
        let mut names = std::collections::HashSet::new();
        for (name, dtype, rows, blocks) in &extras {
            if names.insert(name) {
                let cols = blocks * dtype.block_elems() as u64;
                w.tensor(&format!("extra.{name}"), *dtype, &[cols, *rows]).unwrap();
            }
        }

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.gguf");
        let file = std::fs::File::create(&path).unwrap();
        // Each tensor is filled with its number.
        let bytes = w
            .write(file, |index, tensor, out| {
                out.write_all(&vec![index as u8; tensor.bytes as usize])
            })
            .unwrap();
        prop_assert_eq!(bytes, w.file_bytes(w.header().len()));

        let model = ModelFile::open(&path).unwrap();
        prop_assert_eq!(model.file_bytes(), bytes);
        prop_assert_eq!(model.tensors().len(), w.tensors().len());
        for (index, (got, spec)) in model.tensors().zip(w.tensors()).enumerate() {
            prop_assert_eq!(&got.name, &spec.name);
            prop_assert_eq!(got.dtype, spec.dtype);
            prop_assert_eq!(got.cols as u64, spec.dims[0]);
            prop_assert_eq!(got.rows as u64, spec.dims[1..].iter().product::<u64>());
            prop_assert_eq!(got.offset % u64::from(alignment), 0);
            let mut data = vec![0; got.bytes as usize];
            model.read_at(got, 0, &mut data).unwrap();
            prop_assert!(data.iter().all(|byte| *byte == index as u8));
        }
        let header = model.gguf().unwrap();
        for (key, value) in &settings {
            let got = &header.settings[&format!("x.{key}")];
            let same = match (value, got) {
                (Setting::U32(n), Value::Unsigned(got)) => u64::from(*n) == *got,
                (Setting::U64(n), Value::Unsigned(got)) => n == got,
                (Setting::F32(x), Value::Float(got)) => f64::from(*x) == *got,
                (Setting::Bool(b), Value::Bool(got)) => b == got,
                (Setting::Text(s), Value::String(got)) => s == got,
                (Setting::Texts(s), Value::Array(got)) => s.len() as u64 == got.count,
                _ => false,
            };
            prop_assert!(same, "{value:?} came back as {got:?}");
        }
        let TokenizerSource::Gguf(source) = model.tokenizer_source().unwrap() else {
            panic!("a GGUF file has a GGUF tokenizer")
        };
        prop_assert!(source.tokens.iter().eq(tokens.iter().map(|token| token.as_bytes())));
    }
}
