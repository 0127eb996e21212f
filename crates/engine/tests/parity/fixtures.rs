//! Reading the fixtures: the manifest, .npy arrays, and models loaded for a test.

use std::path::{Path, PathBuf};

use bursar_engine::{
    Embedder, Generator, LoadOptions, MemoryPlan, PlanRequest, ProcessBase, Purpose, Vocabulary,
    WeightsRequest,
};
use bursar_files::ModelFile;
use bursar_kernels::isa::Isa;
use bursar_kernels::kv_view::KvDtype;
use bursar_memory::{Bytes, Ledger};
use serde_json::Value;

/// The folder of all fixtures.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures")
}

/// The cases of one kind.
pub(crate) fn cases(kind: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(root().join("MANIFEST.json")).expect("the manifest");
    let manifest: Value = serde_json::from_str(&text).expect("valid JSON");
    let cases = manifest["cases"].as_array().expect("a list of cases");
    let found: Vec<Value> = cases
        .iter()
        .filter(|c| c["kind"] == kind)
        .cloned()
        .collect();
    assert!(!found.is_empty(), "no case of kind {kind}");
    found
}

/// The ids under a key.
pub(crate) fn ids(value: &Value) -> Vec<u32> {
    let list = value.as_array().expect("a list of ids");
    list.iter()
        .map(|v| v.as_u64().expect("an id") as u32)
        .collect()
}

/// A C-ordered array of four-byte elements: its shape and its values' bytes.
fn npy(path: &str, descr: &str) -> (Vec<usize>, Vec<[u8; 4]>) {
    let bytes = std::fs::read(root().join(path)).unwrap_or_else(|e| panic!("{path}: {e}"));
    assert_eq!(&bytes[..6], b"\x93NUMPY", "{path}");
    let len = u16::from_le_bytes([bytes[8], bytes[9]]) as usize;
    let header = std::str::from_utf8(&bytes[10..10 + len]).expect("an ASCII header");
    assert!(
        header.contains(descr) && header.contains("'fortran_order': False"),
        "{header}"
    );
    let open = header.find('(').expect("a shape");
    let close = header[open..].find(')').expect("a shape") + open;
    let shape = header[open + 1..close]
        .split(',')
        .map(str::trim)
        .filter(|s| !s.is_empty())
        .map(|s| s.parse().expect("a dimension"))
        .collect();
    let data = bytes[10 + len..]
        .chunks_exact(4)
        .map(|c| [c[0], c[1], c[2], c[3]])
        .collect();
    (shape, data)
}

/// A float32 array.
pub(crate) fn npy_f32(path: &str) -> (Vec<usize>, Vec<f32>) {
    let (shape, data) = npy(path, "'<f4'");
    (shape, data.into_iter().map(f32::from_le_bytes).collect())
}

/// Opens a case's model.
pub(crate) fn open(case: &Value) -> ModelFile {
    let path = root().join(case["model"].as_str().expect("a model path"));
    ModelFile::open(&path).unwrap_or_else(|e| panic!("{e}"))
}

/// What tests ask of a plan: exact f32 keys and values.
fn request(purpose: Purpose, dequantize: bool) -> PlanRequest {
    PlanRequest {
        purpose,
        context: None,
        parallel: 1,
        batch_tokens: Some(128),
        batch_memory: None,
        kv_dtype_k: KvDtype::F32,
        kv_dtype_v: KvDtype::F32,
        kv_block_tokens: 16,
        kv_memory: None,
        threads: 2,
        weights: if dequantize {
            WeightsRequest::F32
        } else {
            WeightsRequest::default()
        },
    }
}

fn planned(file: &ModelFile, request: PlanRequest) -> (Vocabulary, MemoryPlan, Ledger) {
    let vocabulary = Vocabulary::open(file).unwrap_or_else(|e| panic!("{e}"));
    let base = ProcessBase::measure().unwrap_or_else(|e| panic!("{e}"));
    let budget = Bytes(4 << 30);
    let plan = MemoryPlan::new(file, &vocabulary, base, &request, budget)
        .unwrap_or_else(|e| panic!("{e}"));
    (vocabulary, plan, Ledger::new(budget))
}

/// Loads a model to generate with.
pub(crate) fn generator(file: &ModelFile, isa: Isa, dequantize: bool) -> Generator {
    let (vocabulary, plan, ledger) = planned(file, request(Purpose::Generate, dequantize));
    Generator::load(
        file,
        vocabulary,
        plan,
        &ledger,
        LoadOptions { isa },
        &mut |_| {},
    )
    .unwrap_or_else(|e| panic!("{e}"))
}

/// Loads a model to embed with.
pub(crate) fn embedder(file: &ModelFile, isa: Isa) -> Embedder {
    let (vocabulary, plan, ledger) = planned(file, request(Purpose::Embed, false));
    Embedder::load(
        file,
        vocabulary,
        plan,
        &ledger,
        LoadOptions { isa },
        &mut |_| {},
    )
    .unwrap_or_else(|e| panic!("{e}"))
}

/// All logits of a run over `tokens`, row by row.
pub(crate) fn logits(generator: &mut Generator, tokens: &[u32]) -> Vec<f32> {
    let width = generator.vocab();
    let mut all = vec![f32::NAN; tokens.len() * width];
    generator
        .logits(tokens, &mut |position, row| {
            all[position * width..][..width].copy_from_slice(row);
        })
        .unwrap_or_else(|e| panic!("{e}"));
    all
}
