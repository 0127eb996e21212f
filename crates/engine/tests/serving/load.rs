//! Engines for tests, and what comes back from them.

use std::sync::Arc;

use bursar_engine::{
    EngineModel, EngineOptions, Event, FinishReason, GenerateRequest, LoadOptions, MemoryPlan,
    PlanRequest, ProcessBase, Purpose, SoloEngine, StopRules, TokenStream, Usage, Vocabulary,
    WeightsRequest,
};
use bursar_files::ModelFile;
use bursar_kernels::isa::Isa;
use bursar_kernels::kv_view::KvDtype;
use bursar_memory::{Bytes, Ledger};
use bursar_workers::Workers;

/// What differs from test to test.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) purpose: Purpose,
    pub(crate) parallel: usize,
    pub(crate) batch_tokens: usize,
    /// KV blocks in all; what `parallel` contexts take if `None`.
    pub(crate) blocks: Option<usize>,
    pub(crate) weights: WeightsRequest,
    pub(crate) options: EngineOptions,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            purpose: Purpose::Generate,
            parallel: 8,
            batch_tokens: 32,
            blocks: None,
            weights: WeightsRequest::default(),
            options: EngineOptions::default(),
        }
    }
}

/// An engine over a file, with exact f32 keys and values.
pub(crate) fn start(file: &ModelFile, setup: Setup) -> (SoloEngine, Ledger) {
    let ledger = Ledger::new(BUDGET);
    let model = load("model", file, &setup, &ledger, &Arc::new(Workers::new(2)));
    let engine = SoloEngine::start(model, setup.options, &ledger);
    (engine.unwrap_or_else(|e| panic!("{e}")), ledger)
}

/// What tests may take.
pub(crate) const BUDGET: Bytes = Bytes::gib(4);

/// The plan of a file, as it will be loaded.
pub(crate) fn plan(file: &ModelFile, setup: &Setup) -> (Vocabulary, MemoryPlan) {
    let mut request = PlanRequest {
        purpose: setup.purpose,
        context: None,
        parallel: setup.parallel,
        batch_tokens: Some(setup.batch_tokens),
        batch_memory: None,
        kv_dtype_k: KvDtype::F32,
        kv_dtype_v: KvDtype::F32,
        kv_block_tokens: 16,
        kv_memory: None,
        threads: 2,
        weights: setup.weights,
    };
    let base = ProcessBase::measure().unwrap_or_else(|e| panic!("{e}"));
    let plan = |request: &PlanRequest| {
        let vocabulary = Vocabulary::open(file).unwrap_or_else(|e| panic!("{e}"));
        let plan = MemoryPlan::new(file, &vocabulary, base, request, BUDGET);
        (vocabulary, plan.unwrap_or_else(|e| panic!("{e}")))
    };
    if let Some(blocks) = setup.blocks {
        let (_, full) = plan(&request);
        let kv = full.kv().expect("a decoder");
        let each = kv.bytes_per_token().0 * 16;
        // Whole pages are charged: the smallest sum that holds so many blocks.
        let most = each * blocks as u64 + 64 * blocks as u64 + 8192;
        let fits = (0..16).map(|less| most - less * 1024);
        let exact = fits.into_iter().find(|&bytes| {
            request.kv_memory = Some(Bytes(bytes));
            plan(&request).1.kv().expect("a decoder").blocks() == blocks
        });
        exact.expect("some sum holds exactly so many blocks");
    }
    plan(&request)
}

/// A loaded model.
pub(crate) fn load(
    name: &str,
    file: &ModelFile,
    setup: &Setup,
    ledger: &Ledger,
    workers: &Arc<Workers>,
) -> EngineModel {
    let (vocabulary, plan) = plan(file, setup);
    let model = EngineModel::load(
        name,
        file,
        vocabulary,
        plan,
        ledger,
        LoadOptions { isa: Isa::best() },
        Arc::clone(workers),
        &mut |_| {},
    );
    model.unwrap_or_else(|e| panic!("{e}"))
}

/// A greedy request that goes on past end tokens.
pub(crate) fn greedy(prompt: &[u32], max_tokens: usize) -> GenerateRequest {
    GenerateRequest {
        prompt: prompt.to_vec(),
        stop: StopRules {
            ignore_end: true,
            ..StopRules::default()
        },
        max_tokens: Some(max_tokens),
        ..GenerateRequest::default()
    }
}

/// The log-probability of a token of a prompt.
#[derive(Debug)]
pub(crate) struct PromptToken {
    pub(crate) token: u32,
    pub(crate) logprob: Option<f32>,
    pub(crate) top: Vec<(u32, f32)>,
}

/// Everything that a stream gave.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) tokens: Vec<u32>,
    pub(crate) text: String,
    pub(crate) logprobs: Vec<Option<f32>>,
    pub(crate) tops: Vec<Vec<(u32, f32)>>,
    /// The prompt's tokens: log-probability and alternatives of each.
    pub(crate) prompt: Vec<PromptToken>,
    pub(crate) end: Option<(FinishReason, Usage)>,
    pub(crate) failed: Option<String>,
}

impl Answer {
    /// Takes an event; whether it was the last.
    pub(crate) fn take(&mut self, event: Event<'_>) -> bool {
        assert!(self.end.is_none() && self.failed.is_none(), "{event:?}");
        match event {
            Event::Token {
                text,
                token,
                logprob,
                top,
            } => {
                self.text.push_str(text);
                self.tokens.push(token);
                self.logprobs.push(logprob);
                self.tops.push(top.to_vec());
            }
            Event::Text(text) => self.text.push_str(text),
            Event::PromptToken {
                token,
                logprob,
                top,
            } => self.prompt.push(PromptToken {
                token,
                logprob,
                top: top.to_vec(),
            }),
            Event::Done { finish, usage } => self.end = Some((finish, usage)),
            Event::Failed(error) => self.failed = Some(error.to_string()),
        }
        self.end.is_some() || self.failed.is_some()
    }
}

/// Reads a stream to its end.
pub(crate) fn read(mut stream: TokenStream) -> Answer {
    let mut answer = Answer::default();
    while let Some(event) = stream.recv_blocking() {
        answer.take(event);
    }
    answer
}
