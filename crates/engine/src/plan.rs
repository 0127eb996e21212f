//! The memory plan of a whole process: what one model will take, part by part, before any weight
//! is read, and what would make it fit if it does not.

mod texts;

use bursar_files::{ModelConfig, ModelFile};
use bursar_kernels::kv_view::{KvDtype, KvShape};
use bursar_kv::KvPlan;
use bursar_memory::Bytes;
use bursar_memory::region::charge_of;
use bursar_model::{ModelPlan, PlanOptions, Purpose};

mod weights;

use weights::Held;
pub use weights::{DtypeChoice, Expected, ResidencyChoice, Streaming, WeightsRequest};

use crate::EngineError;
use crate::lists::Lists;
use crate::process::ProcessBase;
use crate::sample::Sampler;
use crate::vocabulary::Vocabulary;

/// Tokens per prefill chunk unless told otherwise: enough rows that each weight that is unpacked
/// serves many of them, few enough that activations stay small.
const BATCH_TOKENS: usize = 512;
/// Longest sequence unless told otherwise. Models allow far more, at a price in bytes that should
/// be asked for.
const CONTEXT: usize = 4096;
/// Logits rows at once.
const LOGIT_ROWS: usize = 8;
/// Pooled rows at once.
const POOLED_ROWS: usize = 64;

/// What is asked of a plan.
#[derive(Copy, Clone, Debug)]
pub struct PlanRequest {
    /// Generation or embedding.
    pub purpose: Purpose,
    /// Longest one sequence may become, in tokens; by default what the model and the budget allow,
    /// at most 4,096 (2,048 for texts to embed).
    pub context: Option<usize>,
    /// Sequences that run at once.
    pub parallel: usize,
    /// Most tokens in one batch; 512 by default, or the longest text to embed.
    pub batch_tokens: Option<usize>,
    /// Bytes for the activations of one batch of texts to embed: as many tokens as they hold, if
    /// `batch_tokens` does not say.
    pub batch_memory: Option<Bytes>,
    /// How keys are stored.
    pub kv_dtype_k: KvDtype,
    /// How values are stored.
    pub kv_dtype_v: KvDtype,
    /// Tokens per KV block, a multiple of 16.
    pub kv_block_tokens: usize,
    /// Bytes for keys and values; by default what `parallel` sequences of `context` need.
    pub kv_memory: Option<Bytes>,
    /// Worker threads, the caller among them.
    pub threads: usize,
    /// What form weights take, and where they are.
    pub weights: WeightsRequest,
}

/// One owner of bytes in a plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanPart {
    /// The owner, as its account is called.
    pub name: &'static str,
    /// Its bytes.
    pub bytes: Bytes,
    /// What they are made of.
    pub note: String,
}

/// What a model adds to what is there.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// At most, while it is loaded.
    pub loading: Bytes,
    /// From then on.
    pub loaded: Bytes,
}

/// Every byte that the process will take.
#[derive(Clone, Debug)]
pub struct MemoryPlan {
    request: PlanRequest,
    context: usize,
    vocab: usize,
    budget: Bytes,
    parts: Vec<PlanPart>,
    pub(crate) model: ModelPlan,
    pub(crate) kv: Option<KvPlan>,
    pub(crate) base: ProcessBase,
    remedies: Vec<String>,
}

impl MemoryPlan {
    /// Plans `file` within `budget`. What does not fit is still planned, so that it can be shown.
    pub fn new(
        file: &ModelFile,
        vocabulary: &Vocabulary,
        base: ProcessBase,
        request: &PlanRequest,
        budget: Bytes,
    ) -> Result<Self, EngineError> {
        check(file.config(), request)?;
        let subject = Subject {
            file,
            vocabulary,
            base,
            budget,
        };
        let mut first = None;
        if request.weights.residency != ResidencyChoice::Streamed {
            for &dtype in request.weights.dtype.candidates() {
                let plan = subject.plan(request, Held::resident(dtype))?;
                if plan.fits() {
                    return Ok(plan);
                }
                first.get_or_insert(plan);
            }
        }
        let Some(mut plan) = first else {
            return subject.streamed(request);
        };
        plan.remedies = remedies(&plan, &subject)?;
        if request.weights.residency == ResidencyChoice::Auto && plan.remedies.is_empty() {
            // It is the weights that do not fit.
            let streamed = subject.streamed(request)?;
            if streamed.fits() {
                return Ok(streamed);
            }
        }
        plan.remedies.extend(weights::remedy(&plan, &subject)?);
        Ok(plan)
    }

    fn with(
        subject: &Subject<'_>,
        request: &PlanRequest,
        context: Option<usize>,
        held: Held,
    ) -> Result<Self, EngineError> {
        let Subject {
            file,
            vocabulary,
            base,
            budget,
        } = *subject;
        let config = file.config();
        let embed = request.purpose == Purpose::Embed;
        let longest = longest_of(config, request.purpose);
        let context = context
            .unwrap_or(if embed { CONTEXT / 2 } else { CONTEXT })
            .min(longest);
        let shape = KvShape {
            layers: config.layers,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            block_tokens: request.kv_block_tokens,
            dtype_k: request.kv_dtype_k,
            dtype_v: request.kv_dtype_v,
        };
        let options = |batch_tokens| PlanOptions {
            purpose: request.purpose,
            kv: shape,
            batch_tokens,
            output_rows: if embed { POOLED_ROWS } else { LOGIT_ROWS },
            workers: request.threads,
            weights: held.dtype,
            residency: held.residency,
        };
        let batch_tokens = match (request.batch_tokens, request.batch_memory) {
            (None, Some(bytes)) if embed => {
                let planned = |tokens| Ok(ModelPlan::new(file, options(tokens))?.activation_bytes());
                let found = texts::tokens_within(bytes, context, planned)?;
                found.map_err(|needed| EngineError::Setting {
                    name: "batch-memory",
                    got: bytes.to_string(),
                    want: format!(
                        "at least {needed}, which one text of {context} tokens takes; or a shorter --context"
                    ),
                })?
            }
            // A text is never split: a batch holds at least the longest one, in whole blocks.
            (tokens, _) if embed => tokens.unwrap_or(BATCH_TOKENS).max(context),
            (tokens, _) => tokens.unwrap_or(BATCH_TOKENS).min(context),
        }
        .next_multiple_of(16);
        let model = ModelPlan::new(file, options(batch_tokens))?;
        let kv = if embed {
            None
        } else {
            let layout = *model.kv();
            Some(match request.kv_memory {
                Some(bytes) => KvPlan::within(layout, bytes)?,
                None => KvPlan::for_context(layout, context, request.parallel)?,
            })
        };

        let mut parts = vec![
            PlanPart {
                name: "process",
                bytes: base.bytes().saturating_sub(vocabulary.bytes()),
                note: base.note(),
            },
            PlanPart {
                name: "tokenizer",
                bytes: vocabulary.bytes(),
                note: format!("{} tokens, measured", vocabulary.len()),
            },
            PlanPart {
                name: "weights",
                bytes: model.weights_bytes(),
                note: weights::note(&model),
            },
            activations(&model, base.arena),
        ];
        if let Some(streaming) = Streaming::of(&model) {
            parts.push(PlanPart {
                name: "window",
                bytes: model.window_bytes(),
                note: streaming.to_string(),
            });
        }
        if let Some(kv) = &kv {
            parts.push(PlanPart {
                name: "kv",
                bytes: kv.bytes(),
                note: format!(
                    "{} blocks of {} tokens, {} per token",
                    kv.blocks(),
                    shape.block_tokens,
                    kv.bytes_per_token()
                ),
            });
            parts.push(PlanPart {
                name: "sampling",
                bytes: Bytes(Sampler::bytes(config.vocab) as u64),
                note: "candidates".to_owned(),
            });
        }
        let lists = Lists::of(&model, request.purpose, request.parallel);
        parts.push(PlanPart {
            name: "lists",
            bytes: lists.bytes,
            note: match request.purpose {
                Purpose::Generate => "who runs in a step, and what comes of it".to_owned(),
                Purpose::Embed => "texts of a batch".to_owned(),
            },
        });
        let staging = staging(&model, kv.as_ref(), config.vocab, lists);
        if base.arena.is_some() && staging > Bytes::ZERO {
            parts.push(PlanPart {
                name: "staging",
                bytes: staging,
                note: "pieces of the file, while it is loaded".to_owned(),
            });
        }
        Ok(Self {
            request: *request,
            context,
            vocab: config.vocab,
            budget,
            parts,
            model,
            kv,
            base,
            remedies: Vec::new(),
        })
    }

    /// Bytes by owner.
    pub fn parts(&self) -> &[PlanPart] {
        &self.parts
    }

    /// All bytes: the most that the process will have resident.
    pub fn total(&self) -> Bytes {
        self.parts
            .iter()
            .fold(Bytes(0), |sum, part| sum.saturating_add(part.bytes))
    }

    /// What its steps take down.
    pub(crate) fn lists(&self) -> Lists {
        Lists::of(&self.model, self.request.purpose, self.request.parallel)
    }

    /// What it was planned for.
    pub fn budget(&self) -> Bytes {
        self.budget
    }

    /// Whether the total is within the budget.
    pub fn fits(&self) -> bool {
        self.total() <= self.budget
    }

    /// What would make it fit, most useful first; empty if it does. `beside` is what others hold of
    /// the memory that `--memory` gives: nothing, if the plan's budget is all of it.
    pub fn remedies(&self, beside: Bytes) -> Vec<String> {
        if self.fits() {
            return Vec::new();
        }
        let mut remedies = self.remedies.clone();
        let need = self.total().saturating_add(beside);
        // Rounded up to what people type; the plan itself is exact.
        let need = need.saturating_add(REMEDY_MARGIN).0.div_ceil(1 << 20);
        remedies.push(format!("--memory {need}MiB or more"));
        if remedies.len() == 1 {
            remedies.push("a smaller model, or the same one in a smaller quantisation".into());
        }
        remedies
    }

    /// Longest one sequence may become, in tokens.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Sequences that run at once.
    pub fn parallel(&self) -> usize {
        self.request.parallel
    }

    /// Most tokens in one batch.
    pub fn batch_tokens(&self) -> usize {
        self.model.options().batch_tokens
    }

    /// Bytes of the arena that its steps need, in whole pages.
    pub fn activations(&self) -> Bytes {
        charge_of(self.model.activation_bytes())
    }

    /// What the model adds to what others hold where an arena of `arena` bytes is shared with them,
    /// which is as large as the largest of their [`MemoryPlan::activations`].
    pub fn need(&self, arena: Bytes) -> Need {
        let beside = ["process", "activations", "staging"];
        let own = self
            .parts
            .iter()
            .filter(|part| !beside.contains(&part.name));
        let own = own.fold(Bytes::ZERO, |sum, part| sum.saturating_add(part.bytes));
        let loaded = own.saturating_add(self.activations().saturating_sub(arena));
        let vocab = self.vocab;
        Need {
            loaded,
            loading: loaded.saturating_add(staging(
                &self.model,
                self.kv.as_ref(),
                vocab,
                self.lists(),
            )),
        }
    }

    /// What was asked.
    pub fn request(&self) -> &PlanRequest {
        &self.request
    }

    /// What was chosen for the weights, as a request that leaves no choice.
    pub fn chosen_weights(&self) -> WeightsRequest {
        WeightsRequest {
            dtype: DtypeChoice::Held(self.model.options().weights),
            residency: match self.streaming() {
                Some(_) => ResidencyChoice::Streamed,
                None => ResidencyChoice::Resident,
            },
            held_layers: self.request.weights.held_layers,
        }
    }

    /// Whether matrices are held in another form than the file's.
    pub fn converts(&self) -> bool {
        self.model.converts()
    }

    /// How layers are streamed, if they are.
    pub fn streaming(&self) -> Option<Streaming> {
        Streaming::of(&self.model)
    }

    /// What the model itself takes.
    pub fn model(&self) -> &ModelPlan {
        &self.model
    }

    /// What the keys and values take; `None` for embedding.
    pub fn kv(&self) -> Option<&KvPlan> {
        self.kv.as_ref()
    }

    /// The longest context whose keys and values fit a budget beside everything else, or 0.
    fn context_that_fits(&self, budget: Bytes) -> usize {
        let Some(kv) = &self.kv else { return 0 };
        let others = self.total().saturating_sub(kv.bytes());
        let left = budget.saturating_sub(others);
        match KvPlan::within(*kv.layout(), left) {
            Ok(within) => (within.tokens() / self.request.parallel).min(self.context),
            Err(_) => 0,
        }
    }
}

/// What passes run in: an arena of the model's own, through which it is loaded first, or one that is
/// shared, of which `there` are there already.
fn activations(model: &ModelPlan, there: Option<Bytes>) -> PlanPart {
    let (tokens, takes) = (model.options().batch_tokens, model.activation_bytes());
    let (bytes, rest) = match there {
        None => {
            let staging = model.staging_bytes();
            let rest = format!("loading stages {staging} in the same place");
            (model.arena_bytes(), rest)
        }
        Some(there) => {
            let rest = format!("all models share an arena, of which {there} are there");
            (charge_of(takes).saturating_sub(there), rest)
        }
    };
    PlanPart {
        name: "activations",
        bytes,
        note: format!("{tokens} tokens per batch take {takes}; {rest}"),
    }
}

/// Bytes that loading a served model takes for a while beyond what it takes in the end: the buffer that
/// pieces of the file are staged in lies where keys and values will, but for the rest of it.
fn staging(model: &ModelPlan, kv: Option<&KvPlan>, vocab: usize, lists: Lists) -> Bytes {
    let staging = charge_of(model.staging_bytes());
    let after = after_loading(kv, vocab, lists);
    staging.saturating_sub(after)
}

/// Bytes that a model takes when its weights have been read.
pub(crate) fn after_loading(kv: Option<&KvPlan>, vocab: usize, lists: Lists) -> Bytes {
    let writes = kv.map_or(Bytes::ZERO, |kv| {
        let sampler = Bytes::from(Sampler::bytes(vocab));
        kv.bytes().saturating_add(sampler)
    });
    writes.saturating_add(lists.bytes)
}

/// What is planned, and within what.
#[derive(Copy, Clone)]
struct Subject<'a> {
    file: &'a ModelFile,
    vocabulary: &'a Vocabulary,
    base: ProcessBase,
    budget: Bytes,
}

impl Subject<'_> {
    /// The plan of a request. The default context is a wish: the longest that fits is taken instead,
    /// if it is useful.
    fn plan(&self, request: &PlanRequest, held: Held) -> Result<MemoryPlan, EngineError> {
        let plan = MemoryPlan::with(self, request, request.context, held)?;
        if !plan.fits() && request.context.is_none() && request.purpose == Purpose::Generate {
            let context = plan.context_that_fits(self.budget);
            if context >= CONTEXT_MIN {
                return MemoryPlan::with(self, request, Some(context), held);
            }
        }
        Ok(plan)
    }
}

/// A context shorter than this is not worth having: better to say that the model does not fit.
const CONTEXT_MIN: usize = 256;

fn check(config: &ModelConfig, request: &PlanRequest) -> Result<(), EngineError> {
    let longest = longest_of(config, request.purpose);
    if let Some(context) = request.context
        && (context == 0 || context > longest)
    {
        return Err(EngineError::Setting {
            name: "context",
            got: context.to_string(),
            want: format!(
                "1 to {longest}, the longest that {} was made for",
                config.name
            ),
        });
    }
    let positive = |name, got: usize| match got {
        0 => Err(EngineError::Setting {
            name,
            got: "0".into(),
            want: "at least 1".into(),
        }),
        _ => Ok(()),
    };
    positive("parallel", request.parallel)?;
    positive("threads", request.threads)?;
    positive("batch-tokens", request.batch_tokens.unwrap_or(1))?;
    if request.kv_block_tokens == 0 || !request.kv_block_tokens.is_multiple_of(16) {
        return Err(EngineError::Setting {
            name: "kv-block-tokens",
            got: request.kv_block_tokens.to_string(),
            want: "a multiple of 16".into(),
        });
    }
    Ok(())
}

/// The longest sequence, or text to embed, that a model was made for, in tokens.
pub fn longest_of(config: &ModelConfig, purpose: Purpose) -> usize {
    match &config.embedding {
        Some(spec) if purpose == Purpose::Embed => spec.max_tokens,
        _ => config.context_max,
    }
}

/// What the process itself takes differs by some pages from one run to the next; a remedy named in
/// one run must hold in another.
const REMEDY_MARGIN: Bytes = Bytes(256 << 10);

/// What would make a plan fit with its weights as they are. Each remedy is planned before it is named:
/// none is offered that would not help.
fn remedies(plan: &MemoryPlan, subject: &Subject<'_>) -> Result<Vec<String>, EngineError> {
    let budget = subject.budget.saturating_sub(REMEDY_MARGIN);
    let subject = Subject { budget, ..*subject };
    let mut remedies = Vec::new();
    let held = Held::of(&plan.model);
    let mut try_with = |request: PlanRequest, context: usize, words: String| {
        let other = MemoryPlan::with(&subject, &request, Some(context), held)?;
        if other.fits() {
            remedies.push(format!("{words} ({} in all)", other.total()));
        }
        Ok::<_, EngineError>(())
    };
    let request = plan.request;
    let small = PlanRequest {
        batch_tokens: Some(64),
        ..request
    };
    let context = plan.context_that_fits(budget);
    if context >= CONTEXT_MIN && request.kv_memory.is_none() {
        try_with(request, context, format!("--context {context}"))?;
    }
    if request.purpose == Purpose::Generate {
        try_with(small, plan.context, "--batch-tokens 64".into())?;
        try_with(
            PlanRequest {
                kv_memory: None,
                ..small
            },
            CONTEXT_MIN,
            format!("--batch-tokens 64 --context {CONTEXT_MIN}"),
        )?;
    } else if plan.context > CONTEXT_MIN {
        let words = format!("--batch-tokens {CONTEXT_MIN} --context {CONTEXT_MIN}");
        let request = PlanRequest {
            batch_tokens: Some(CONTEXT_MIN),
            ..request
        };
        try_with(request, CONTEXT_MIN, words)?;
    }
    Ok(remedies)
}
