//! Broken files: every truncation and every flipped bit of the headers of small models, and a
//! catalogue of single faults. Each must be an error that names the file, or a sound model;
//! nothing may panic.
#![allow(clippy::unwrap_used, reason = "a test may")]

use std::fs::{File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bursar_files::gguf::{ValueType, Writer};
use bursar_files::{FileError, ModelFile};
use bursar_kernels::quant::Dtype;
use tempfile::TempDir;

/// Opens a model and uses everything of it.
fn use_all(path: &Path) -> Result<(), FileError> {
    let model = ModelFile::open(path)?;
    let mut bytes = Vec::new();
    for (_, tensor) in model.used() {
        bytes.resize(usize::try_from(tensor.bytes).unwrap(), 0);
        model.read_at(tensor, 0, &mut bytes)?;
    }
    model.tokenizer_source()?;
    Ok(())
}

/// Runs [`use_all`]; an error must name the file or its directory. Says whether it loaded.
fn check(path: &Path, what: &dyn Fn() -> String) -> bool {
    match use_all(path) {
        Ok(()) => true,
        Err(error) => {
            let text = error.to_string();
            let directory = path.parent().unwrap().to_str().unwrap();
            assert!(text.contains(directory), "{}: {text}", what());
            false
        }
    }
}

/// Flips every bit of the first `header` bytes of `file`, one at a time, and opens `model`.
/// Returns how many of the flips loaded.
fn flip_every_bit(file: &Path, header: u64, model: &Path) -> usize {
    let bytes = std::fs::read(file).unwrap();
    let handle = OpenOptions::new().write(true).open(file).unwrap();
    let mut loaded = 0;
    for at in 0..header {
        let byte = bytes[usize::try_from(at).unwrap()];
        for bit in 0..8 {
            handle.write_all_at(&[byte ^ (1 << bit)], at).unwrap();
            loaded += usize::from(check(model, &|| format!("bit {bit} of byte {at} flipped")));
        }
        handle.write_all_at(&[byte], at).unwrap();
    }
    assert!(check(model, &|| "restored".into()));
    loaded
}

/// Cuts `file` to every shorter length, longest first, and opens `model`: always an error.
fn truncate_everywhere(file: &Path, model: &Path) {
    let handle = OpenOptions::new().write(true).open(file).unwrap();
    let len = handle.metadata().unwrap().len();
    for short in (0..len).rev() {
        handle.set_len(short).unwrap();
        assert!(
            !check(model, &|| format!("{short} bytes")),
            "loaded with {short} of {len} bytes"
        );
    }
}

const LLAMA_TENSORS: [(&str, &[u64]); 11] = [
    ("token_embd.weight", &[32, 8]),
    ("blk.0.attn_norm.weight", &[32]),
    ("blk.0.attn_q.weight", &[32, 32]),
    ("blk.0.attn_k.weight", &[32, 16]),
    ("blk.0.attn_v.weight", &[32, 16]),
    ("blk.0.attn_output.weight", &[32, 32]),
    ("blk.0.ffn_norm.weight", &[32]),
    ("blk.0.ffn_gate.weight", &[32, 32]),
    ("blk.0.ffn_up.weight", &[32, 32]),
    ("blk.0.ffn_down.weight", &[32, 32]),
    ("output_norm.weight", &[32]),
];

/// Settings of a one-layer model, with every type of value.
fn settings(w: &mut Writer) {
    w.string("general.architecture", "llama");
    w.u32("llama.block_count", 1);
    w.u64("llama.context_length", 64);
    w.u32("llama.embedding_length", 32);
    w.u32("llama.feed_forward_length", 32);
    w.u32("llama.attention.head_count", 2);
    w.u32("llama.attention.head_count_kv", 1);
    w.f32("llama.attention.layer_norm_rms_epsilon", 1e-5);
    w.string("tokenizer.ggml.model", "gpt2");
    w.strings(
        "tokenizer.ggml.tokens",
        (b'a'..b'i')
            .map(|b| [b])
            .collect::<Vec<_>>()
            .iter()
            .map(|s| &s[..]),
    );
    w.i32s("tokenizer.ggml.token_type", [1; 8].into_iter());
    w.f32s("tokenizer.ggml.scores", [0.5; 8].into_iter());
    w.strings("tokenizer.ggml.merges", [&b"a b"[..]].into_iter());
    w.bool("tokenizer.ggml.add_bos_token", true);
    w.u32("tokenizer.ggml.eos_token_id", 7);
    w.encoded("x.u8", ValueType::U8, &[1]);
    w.encoded("x.i8", ValueType::I8, &[255]);
    w.encoded("x.u16", ValueType::U16, &[1, 2]);
    w.encoded("x.i16", ValueType::I16, &[1, 2]);
    w.encoded("x.i32", ValueType::I32, &[1, 2, 3, 4]);
    w.encoded("x.i64", ValueType::I64, &[1; 8]);
    w.encoded("x.f64", ValueType::F64, &1.5f64.to_le_bytes());
    // Two arrays in an array: [[1, 2], ["ab"]].
    let mut nested = Vec::new();
    nested.extend_from_slice(&(ValueType::Array as u32).to_le_bytes());
    nested.extend_from_slice(&2u64.to_le_bytes());
    nested.extend_from_slice(&(ValueType::U8 as u32).to_le_bytes());
    nested.extend_from_slice(&2u64.to_le_bytes());
    nested.extend_from_slice(&[1, 2]);
    nested.extend_from_slice(&(ValueType::String as u32).to_le_bytes());
    nested.extend_from_slice(&1u64.to_le_bytes());
    nested.extend_from_slice(&2u64.to_le_bytes());
    nested.extend_from_slice(b"ab");
    w.encoded("x.nested", ValueType::Array, &nested);
}

fn tensors(w: &mut Writer) {
    for (name, dims) in LLAMA_TENSORS {
        let dtype = if dims.len() == 1 {
            Dtype::F32
        } else {
            Dtype::Q8_0
        };
        w.tensor(name, dtype, dims).unwrap();
    }
}

/// A small sound model.
fn tiny() -> Writer {
    let mut w = Writer::new();
    settings(&mut w);
    tensors(&mut w);
    w
}

fn write(w: &Writer, path: &Path) {
    w.write(File::create(path).unwrap(), |_, tensor, out| {
        out.write_all(&vec![0; usize::try_from(tensor.bytes).unwrap()])
    })
    .unwrap();
}

fn gguf_file(w: &Writer) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("model.gguf");
    write(w, &path);
    (directory, path)
}

#[test]
fn gguf_survives_every_flipped_bit() {
    let w = tiny();
    let (_directory, path) = gguf_file(&w);
    let header = w.header().len() as u64;
    let loaded = flip_every_bit(&path, header, &path);
    // Names of unused settings and values like a token's text may change without harm; lengths,
    // counts, types, offsets and tensor names may not.
    assert!(
        loaded > 0 && (loaded as u64) < header * 8 / 2,
        "{loaded} of {}",
        header * 8
    );
}

#[test]
fn gguf_survives_every_truncation() {
    let (_directory, path) = gguf_file(&tiny());
    truncate_everywhere(&path, &path);
}

/// A model directory with one layer.
fn directory() -> (TempDir, PathBuf, u64) {
    let directory = tempfile::tempdir().unwrap();
    let config = r#"{"model_type":"llama","hidden_size":8,"intermediate_size":8,
        "num_hidden_layers":1,"num_attention_heads":2,"num_key_value_heads":1,"vocab_size":8,
        "max_position_embeddings":64,"tie_word_embeddings":true,"rope_theta":10000.0,
        "rope_scaling":{"rope_type":"linear","factor":2.0},"eos_token_id":[1,2]}"#;
    std::fs::write(directory.path().join("config.json"), config).unwrap();
    std::fs::write(directory.path().join("tokenizer.json"), "{}").unwrap();
    let tensors: [(&str, &[u64]); 11] = [
        ("embed_tokens.weight", &[8, 8]),
        ("layers.0.input_layernorm.weight", &[8]),
        ("layers.0.self_attn.q_proj.weight", &[8, 8]),
        ("layers.0.self_attn.k_proj.weight", &[4, 8]),
        ("layers.0.self_attn.v_proj.weight", &[4, 8]),
        ("layers.0.self_attn.o_proj.weight", &[8, 8]),
        ("layers.0.post_attention_layernorm.weight", &[8]),
        ("layers.0.mlp.gate_proj.weight", &[8, 8]),
        ("layers.0.mlp.up_proj.weight", &[8, 8]),
        ("layers.0.mlp.down_proj.weight", &[8, 8]),
        ("norm.weight", &[8]),
    ];
    let mut entries = vec![r#""__metadata__":{"format":"pt"}"#.to_owned()];
    let mut end = 0;
    for (name, shape) in tensors {
        let start = end;
        end += 2 * shape.iter().product::<u64>();
        entries.push(format!(
            r#""{name}":{{"dtype":"BF16","shape":{shape:?},"data_offsets":[{start},{end}]}}"#
        ));
    }
    let path = directory.path().join("model.safetensors");
    let header = format!("{{{}}}", entries.join(","));
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend_from_slice(header.as_bytes());
    let header_len = bytes.len() as u64;
    bytes.resize(bytes.len() + usize::try_from(end).unwrap(), 0);
    std::fs::write(&path, bytes).unwrap();
    (directory, path, header_len)
}

#[test]
fn safetensors_survives_every_flipped_bit() {
    let (_directory, path, header) = directory();
    let loaded = flip_every_bit(&path, header, &path);
    // The text of metadata may change without harm, and little else.
    assert!(
        (loaded as u64) < header * 8 / 8,
        "{loaded} of {}",
        header * 8
    );
}

#[test]
fn safetensors_survives_every_truncation() {
    let (_directory, path, _) = directory();
    truncate_everywhere(&path, &path);
}

#[test]
fn configurations_survive_every_flipped_bit_and_truncation() {
    let (directory, path, _) = directory();
    let config = directory.path().join("config.json");
    let len = std::fs::metadata(&config).unwrap().len();
    flip_every_bit(&config, len, &path);
    truncate_everywhere(&config, &path);
}

/// Changes a model's header, and expects an error with these words.
#[track_caller]
fn expect(change: impl FnOnce(&mut Writer), words: &[&str]) {
    let mut w = Writer::new();
    change(&mut w);
    let (_directory, path) = gguf_file(&w);
    expect_error(&path, words);
}

#[track_caller]
fn expect_error(path: &Path, words: &[&str]) {
    let text = use_all(path).expect_err("a broken file").to_string();
    for word in words {
        assert!(text.contains(word), "{word:?} is not in: {text}");
    }
}

#[test]
fn gguf_faults_are_named() {
    expect(
        |w| {
            settings(w);
            w.u32("llama.block_count", 2);
            tensors(w);
        },
        &["\"llama.block_count\" twice"],
    );
    expect(
        |w| {
            settings(w);
            tensors(w);
            w.tensor("output_norm.weight", Dtype::F32, &[32]).unwrap();
        },
        &["\"output_norm.weight\" twice"],
    );
    expect(
        |w| {
            settings(w);
            tensors(w);
            w.tensor("blk.1.attn_q.weight", Dtype::F32, &[32]).unwrap();
        },
        &["blk.1.attn_q.weight", "not supported"],
    );
    expect(
        |w| {
            w.string("general.architecture", "mamba");
            tensors(w);
        },
        &["mamba", "llama, mistral, qwen2, qwen3, bert"],
    );
    expect(tensors, &["general.architecture", "nothing"]);
    expect(settings, &["token_embd.weight is missing"]);
    expect(
        |w| {
            settings(w);
            w.u32("general.alignment", 24);
            tensors(w);
        },
        &["general.alignment", "24", "power of two"],
    );
    expect(
        |w| {
            settings(w);
            w.u32("llama.expert_count", 8);
            tensors(w);
        },
        &["mixture of experts"],
    );
    expect(
        |w| {
            settings(w);
            w.u32("split.count", 3);
            tensors(w);
        },
        &["merge the parts"],
    );
    expect(
        |w| {
            settings(w);
            w.u32("llama.attention.key_length", 24);
            tensors(w);
        },
        &["blk.0.attn_q.weight", "32 x 32", "48 x 32"],
    );
    expect(
        |w| {
            settings(w);
            w.string("llama.rope.scaling.type", "longrope");
            tensors(w);
        },
        &["longrope", "yarn"],
    );
    expect(
        |w| {
            settings(w);
            w.u32("tokenizer.ggml.bos_token_id", 8);
            tensors(w);
        },
        &["tokenizer.ggml.bos_token_id", "below 8"],
    );
    // Nine arrays within each other.
    expect(
        |w| {
            settings(w);
            let mut nested = Vec::new();
            for _ in 0..9 {
                nested.extend_from_slice(&(ValueType::Array as u32).to_le_bytes());
                nested.extend_from_slice(&1u64.to_le_bytes());
            }
            w.encoded("x.deep", ValueType::Array, &nested);
            tensors(w);
        },
        &["x.deep", "nested"],
    );
}

/// Overwrites bytes of a sound file, and expects an error with these words.
#[track_caller]
fn expect_patched(patch: impl FnOnce(&[u8]) -> (usize, Vec<u8>), words: &[&str]) {
    let (_directory, path) = gguf_file(&tiny());
    let mut bytes = std::fs::read(&path).unwrap();
    let (at, new) = patch(&bytes);
    bytes[at..at + new.len()].copy_from_slice(&new);
    std::fs::write(&path, bytes).unwrap();
    expect_error(&path, words);
}

/// Position behind `text` in `bytes`.
fn behind(bytes: &[u8], text: &str) -> usize {
    bytes
        .windows(text.len())
        .position(|w| w == text.as_bytes())
        .unwrap()
        + text.len()
}

#[test]
fn gguf_numbers_are_checked() {
    let huge = || u64::MAX.to_le_bytes().to_vec();
    expect_patched(
        |_| (0, b"tjgg".to_vec()),
        &["at byte 0", "magic", "predates GGUF"],
    );
    expect_patched(
        |_| (4, vec![1]),
        &["at byte 4", "version", "got 1", "want 2 or 3"],
    );
    expect_patched(|_| (4, vec![0, 0, 0, 3]), &["big-endian"]);
    expect_patched(|_| (8, huge()), &["at byte 8", "number of tensors"]);
    expect_patched(|_| (16, huge()), &["at byte 16", "number of settings"]);
    expect_patched(
        |b| (behind(b, "x.u8"), vec![13]),
        &["type of setting \"x.u8\"", "13"],
    );
    expect_patched(|b| (behind(b, "add_bos_token") + 4, vec![2]), &["0 or 1"]);
    let tokens = |b: &[u8]| behind(b, "tokenizer.ggml.tokens") + 8;
    expect_patched(
        |b| (tokens(b), huge()),
        &["length of the array tokenizer.ggml.tokens"],
    );
    expect_patched(
        |b| (tokens(b) + 8, huge()),
        &["string of tokenizer.ggml.tokens"],
    );
    // Behind a tensor's name: rank, dimensions, type, offset.
    let norm = |b: &[u8]| behind(b, "output_norm.weight");
    expect_patched(
        |b| (norm(b), vec![5]),
        &["rank of tensor \"output_norm.weight\"", "at most 4"],
    );
    expect_patched(|b| (norm(b) + 4, vec![0; 8]), &["dimension", "at least 1"]);
    expect_patched(
        |b| (norm(b) + 4, vec![31]),
        &["output_norm.weight", "31 F32", "want 32"],
    );
    expect_patched(|b| (norm(b) + 4, huge()), &["output_norm.weight"]);
    expect_patched(|b| (norm(b) + 12, vec![23]), &["IQ4_XS", "Q4_K"]);
    expect_patched(
        |b| (norm(b) + 12, vec![12]),
        &["row length", "multiple of 256"],
    );
    expect_patched(|b| (norm(b) + 16, vec![1]), &["offset", "multiple of 32"]);
    expect_patched(|b| (norm(b) + 16, vec![0; 8]), &["bytes shared with"]);
    expect_patched(
        |b| (norm(b) + 16, vec![0, 0, 0, 0, 0, 0, 0, 0x40]),
        &["inside the file"],
    );
    expect_patched(
        |b| (norm(b) + 16, vec![0xE0, 255, 255, 255, 255, 255, 255, 255]),
        &["inside the file"],
    );
}

#[test]
fn things_that_are_no_models_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("absent.gguf");
    expect_error(&path, &["absent.gguf", "cannot open"]);
    expect_error(directory.path(), &["no config.json"]);
    expect_error(Path::new("/dev/null"), &["special file"]);
    let empty = directory.path().join("empty.gguf");
    std::fs::write(&empty, b"").unwrap();
    expect_error(&empty, &["empty.gguf", "magic number"]);
    std::fs::write(directory.path().join("config.json"), "{\"model_type\": ").unwrap();
    std::fs::remove_file(&empty).unwrap();
    expect_error(directory.path(), &["config.json", "line 1 column"]);
    std::fs::write(
        directory.path().join("config.json"),
        "{\"model_type\":\"llama\"}",
    )
    .unwrap();
    expect_error(directory.path(), &["no weights", "model.safetensors"]);
}

#[test]
fn indexes_stay_in_their_directory() {
    let (directory, path, _) = directory();
    let index = directory.path().join("model.safetensors.index.json");
    std::fs::rename(&path, directory.path().join("a.safetensors")).unwrap();
    let expect_index = |file: &str, words: &[&str]| {
        let map = format!(r#"{{"weight_map":{{"norm.weight":"{file}"}}}}"#);
        std::fs::write(&index, map).unwrap();
        expect_error(directory.path(), words);
    };
    for outside in [
        "../a.safetensors",
        "/etc/passwd",
        "x/../../y",
        ".",
        "a\\u0000b",
    ] {
        expect_index(outside, &["inside the model's directory"]);
    }
    expect_index("b.safetensors", &["b.safetensors", "cannot open"]);
    let map = r#"{"weight_map":{"norm.weight":"a.safetensors","gone.weight":"a.safetensors"}}"#;
    std::fs::write(&index, map).unwrap();
    expect_error(
        directory.path(),
        &["gone.weight is missing", "a.safetensors"],
    );
    std::fs::write(&index, r#"{"weight_map":{"norm.weight":"a.safetensors"}}"#).unwrap();
    use_all(directory.path()).unwrap();
    use_all(&index).unwrap();
}
