//! The small model with random weights that benches of the engine run: its file, and how it is loaded.

use std::path::PathBuf;
use std::sync::Arc;

use bursar_engine::{
    EngineHandle, EngineModel, GenerateRequest, LoadOptions, MemoryPlan, PlanRequest, ProcessBase,
    Purpose, StopRules, TokenStream, Vocabulary, WeightsRequest,
};
use bursar_files::ModelFile;
use bursar_files::synth::{self, Preset};
use bursar_kernels::isa::Isa;
use bursar_kernels::kv_view::KvDtype;
use bursar_memory::Ledger;
use bursar_workers::Workers;

use crate::bundled;
use crate::failure::Failure;
use crate::verbs::Shared;

/// The model.
pub(super) const MODEL: &str = "tiny-qwen3:q8_0";
/// Tokens of a block.
pub(super) const BLOCK_TOKENS: usize = 16;

/// The model's file in the user's cache folder, made if need be.
pub(super) fn model(shared: &Shared) -> Result<PathBuf, Failure> {
    let cache = shared.surroundings.xdg("XDG_CACHE_HOME", ".cache");
    let folder = cache.unwrap_or_else(std::env::temp_dir).join("bursar");
    std::fs::create_dir_all(&folder).map_err(|error| Failure::io("create", &folder, &error))?;
    let path = folder.join("bench-memory-1.gguf");
    if !path.exists() {
        synth::write(&Preset::parse(MODEL)?, 0, &path, &mut |_| {})?;
    }
    Ok(path)
}

/// Loads it for `parallel` requests of at most `longest` tokens, with keys and values in f16, on one thread.
pub(super) fn load(
    name: &str,
    file: &ModelFile,
    longest: usize,
    parallel: usize,
    ledger: &Ledger,
) -> Result<EngineModel, Failure> {
    let vocabulary = Vocabulary::open(file)?;
    let request = PlanRequest {
        purpose: Purpose::Generate,
        context: Some(longest.next_multiple_of(BLOCK_TOKENS)),
        parallel,
        batch_tokens: None,
        batch_memory: None,
        kv_dtype_k: KvDtype::F16,
        kv_dtype_v: KvDtype::F16,
        kv_block_tokens: BLOCK_TOKENS,
        kv_memory: None,
        threads: 1,
        weights: WeightsRequest::default(),
    };
    let base = ProcessBase::measure()?.beside(bundled::bytes());
    let plan = MemoryPlan::new(file, &vocabulary, base, &request, ledger.budget())?;
    let workers = Workers::with_options(bursar_workers::Options {
        threads: 1,
        ..Default::default()
    });
    let workers = workers.map_err(|error| Failure::failed(error.to_string()))?;
    let model = EngineModel::load(
        name,
        file,
        vocabulary,
        plan,
        ledger,
        LoadOptions { isa: Isa::best() },
        Arc::new(workers),
        &mut |_| {},
    )?;
    Ok(model)
}

/// Has it go on with a prompt for `tokens` tokens, whatever they are.
pub(super) fn submit(
    handle: &EngineHandle,
    prompt: Vec<u32>,
    tokens: usize,
) -> Result<TokenStream, Failure> {
    let request = GenerateRequest {
        prompt,
        stop: StopRules {
            ignore_end: true,
            ..StopRules::default()
        },
        max_tokens: Some(tokens),
        ..GenerateRequest::default()
    };
    let stream = handle.submit(request);
    stream.map_err(|rejected| Failure::failed(rejected.to_string()))
}
