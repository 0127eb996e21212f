//! The public face of the engine: start it, hand it requests, watch it, stop it.
//!
//! One thread owns the model, its cache and its sequences; handles only put requests into its inbox
//! and read what it publishes. A request that can never be served is refused by the handle itself, at
//! once; one that cannot be served now waits, and if too many wait already, is refused for now.

use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bursar_kv::{KvReport, keep};
use bursar_memory::{Account, Bytes};
use bursar_model::Purpose;

use crate::EngineError;
use crate::encoder::TextEncoder;
use crate::inbox::{Closed, Inbox, lock};
use crate::load::{EngineModel, Job};
use crate::options::EngineOptions;
use crate::params::GenerateParams;
use crate::plan::MemoryPlan;
use crate::reply::{self, TokenStream, VectorStream};
use crate::sequence::Arrival;
use crate::spill::Spill;
use crate::step::Totals;
use crate::stop::StopRules;
use crate::thread::{self, Task};
use crate::vectors::EmbedArrival;
use crate::vocabulary::Vocabulary;

/// Stack of the engine's thread; a step touches less than 128 KiB of it.
const STACK_BYTES: usize = 1 << 20;

/// What a client asks to be continued.
#[derive(Clone, Debug, Default)]
pub struct GenerateRequest {
    /// Token ids; at least one.
    pub prompt: Vec<u32>,
    /// How tokens are chosen.
    pub params: Arc<GenerateParams>,
    /// Where the answer ends.
    pub stop: StopRules,
    /// Most tokens to generate, if fewer than `stop` allows. More than fits is refused; `None` leaves
    /// what fits as the bound. With 0 only the prompt is computed.
    pub max_tokens: Option<usize>,
    /// Give the log-probability of each token generated, and of so many alternatives to it.
    pub logprobs: Option<u8>,
    /// Give the log-probabilities of the prompt's tokens too, with as many alternatives.
    pub echo_logprobs: bool,
    /// Higher goes first, and may take the place of lower; 0 for everyone, usually.
    pub priority: i32,
    /// Whose prompt it is: keys and values are shared among requests with the same salt only. Derived
    /// from a secret by the server, never chosen by a client; the engine's own if `None`.
    pub salt: Option<[u8; 32]>,
    /// What the client has not read yet is charged to it; to nobody if `None`. The tokens are whoever's
    /// who made them: count the prompt and `max_tokens`, four bytes each.
    pub account: Option<Account>,
}

/// Texts to embed, as tokens: see [`TextEncoder`].
#[derive(Clone, Debug, Default)]
pub struct EmbedRequest {
    /// The tokens of each text, special ones included.
    pub tokens: Vec<Vec<u32>>,
    /// Leading values to keep of each vector; all if `None`.
    pub dimensions: Option<usize>,
    /// Scale vectors to length 1 though the model would not.
    pub normalize: bool,
}

/// Why a request was not taken.
#[derive(Debug, thiserror::Error)]
pub enum Rejected {
    /// It could never be served as it is.
    #[error(transparent)]
    Never(#[from] EngineError),
    /// As many wait as may.
    #[error(
        "{waiting} requests wait already, as many as may; try again in {} s", .retry_after_ms.div_ceil(1000)
    )]
    QueueFull {
        /// Requests that wait.
        waiting: usize,
        /// How long the next place is likely to take.
        retry_after_ms: u64,
        /// Bytes of keys and values that the request would hold at first.
        asked: Bytes,
        /// Bytes of keys and values that nobody holds.
        free: Bytes,
    },
    /// The engine takes no more requests: the server is going down.
    #[error("the server is shutting down and takes no more requests")]
    Draining,
}

/// An engine at a moment.
#[derive(Copy, Clone, Debug)]
pub struct EngineSnapshot {
    /// Sequences, or embedding requests, that run.
    pub running: usize,
    /// Requests that wait.
    pub waiting: usize,
    /// Requests that may wait.
    pub queue: usize,
    /// Sequences that may run at once.
    pub parallel: usize,
    /// Whether no more requests are taken.
    pub draining: bool,
    /// Keys and values; `None` for embedding.
    pub kv: Option<KvReport>,
    /// Tokens whose keys and values sequences hold, those that several share counted for each.
    pub stored_tokens: usize,
    /// Counts since the start.
    pub totals: Totals,
    /// Tokens of prompts that a step takes at most, for now.
    pub chunk_tokens: usize,
    /// How long the last step took.
    pub step_ms: u64,
    /// Time since the last step ended, or the first request came after a pause; 0 while there is
    /// nothing to do. Grows only when the engine is stuck, or a step takes long.
    pub last_progress_ms: u64,
    /// Whether the engine's thread is there.
    pub alive: bool,
}

/// What the engine's thread publishes after each step.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Published {
    pub(crate) running: usize,
    pub(crate) waiting: usize,
    pub(crate) kv: Option<KvReport>,
    pub(crate) stored_tokens: usize,
    pub(crate) totals: Totals,
    pub(crate) chunk_tokens: usize,
    pub(crate) step: Duration,
    pub(crate) progress: Instant,
    pub(crate) alive: bool,
    /// Mean time between ends of requests, for as long as there were any to end.
    pub(crate) between_ends: Duration,
}

/// What all handles and the thread share.
pub(crate) struct Face {
    pub(crate) inbox: Inbox<Task>,
    pub(crate) published: Mutex<Published>,
    name: String,
    purpose: Purpose,
    vocab: usize,
    /// Longest one sequence may become.
    longest: usize,
    batch_tokens: usize,
    options: EngineOptions,
    plan: Arc<MemoryPlan>,
    vocabulary: Arc<Vocabulary>,
    encoder: Option<Arc<TextEncoder>>,
    account: Account,
}

impl Face {
    pub(crate) fn options(&self) -> &EngineOptions {
        &self.options
    }
}

/// What an engine leaves behind.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Ended {
    /// Blocks in the file of kept prefixes; `None` if none was asked for.
    pub kept_blocks: Option<usize>,
}

/// A running engine. Dropping it ends its thread, fails what is left, and unloads the model.
pub struct Engine {
    handle: EngineHandle,
    thread: Option<JoinHandle<Result<Ended, EngineError>>>,
    warnings: Vec<String>,
}

/// The way to an engine; cheap to clone.
#[derive(Clone)]
pub struct EngineHandle {
    face: Arc<Face>,
}

impl Engine {
    /// Starts the thread that runs `model`.
    ///
    /// # Errors
    /// When the system refuses the thread, or the file for preempted sequences. A file of kept
    /// prefixes that cannot be used is a warning: see [`Engine::warnings`].
    pub fn start(mut model: EngineModel, options: EngineOptions) -> Result<Engine, EngineError> {
        let mut warnings = Vec::new();
        let mut spill = None;
        if let Job::Generate {
            kv, fingerprint, ..
        } = &mut model.job
        {
            if let Some(options) = &options.spill {
                spill = Some(Spill::create(options, kv.layout().block_bytes())?);
            }
            if let Some(path) = &options.keep
                && let Err(error) = keep::load(path, fingerprint, kv)
            {
                warnings.push(format!("starting without kept prefixes: {error}"));
            }
        }
        let plan = Arc::clone(&model.plan);
        let (kv, encoder) = match &model.job {
            Job::Generate { kv, .. } => (Some(kv.report()), None),
            Job::Embed { encoder } => (None, Some(Arc::clone(encoder))),
        };
        let longest = match (&kv, &encoder) {
            (Some(kv), _) => plan.context().min(kv.blocks_total * kv.block_tokens),
            (None, Some(encoder)) => encoder.longest(),
            (None, None) => plan.context(),
        };
        let face = Arc::new(Face {
            inbox: Inbox::new(),
            published: Mutex::new(Published {
                running: 0,
                waiting: 0,
                kv,
                stored_tokens: 0,
                totals: Totals::default(),
                chunk_tokens: 0,
                step: Duration::ZERO,
                progress: Instant::now(),
                alive: true,
                between_ends: Duration::ZERO,
            }),
            name: model.name.clone(),
            purpose: model.purpose(),
            vocab: model.vocab,
            longest,
            batch_tokens: plan.batch_tokens(),
            options,
            vocabulary: Arc::clone(&model.vocabulary),
            encoder,
            account: model.account.clone(),
            plan,
        });
        let inner = Arc::clone(&face);
        let thread = std::thread::Builder::new()
            .name("engine".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || thread::run(model, spill, &inner))
            .map_err(EngineError::Thread)?;
        Ok(Engine {
            handle: EngineHandle { face },
            thread: Some(thread),
            warnings,
        })
    }

    /// What went wrong at the start without being in the way, such as a damaged file of kept prefixes.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// A way to it.
    pub fn handle(&self) -> EngineHandle {
        self.handle.clone()
    }

    /// Ends the thread, fails what is left, unloads the model; says what was kept for the next start.
    ///
    /// # Errors
    /// When the thread ended badly, or the file of kept prefixes could not be written.
    pub fn shut_down(mut self) -> Result<Ended, EngineError> {
        self.handle.face.inbox.stop();
        let Some(thread) = self.thread.take() else {
            return Err(EngineError::Stopped);
        };
        // A panic of the thread has been reported where it happened.
        thread.join().unwrap_or(Err(EngineError::Stopped))
    }

    /// Takes no more requests, and waits until those inside have ended; false if that takes longer
    /// than `longest`. What is left then fails when the engine is dropped.
    pub fn drain(&self, longest: Duration) -> bool {
        self.handle.drain();
        let deadline = Instant::now() + longest;
        self.handle.face.inbox.wait_empty(deadline)
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        self.handle.face.inbox.stop();
        if let Some(thread) = self.thread.take() {
            // A panic of the thread has been reported where it happened; who wants to hear of the rest
            // shuts down.
            let _ = thread.join();
        }
    }
}

impl EngineHandle {
    /// Continues a prompt.
    ///
    /// # Errors
    /// When it can never be served, too many wait, or the engine drains.
    pub fn submit(&self, request: GenerateRequest) -> Result<TokenStream, Rejected> {
        let longest = self.check(&request)?;
        let first = request.prompt.len();
        let (sender, stream) = reply::tokens(request.account.as_ref());
        let arrival = || {
            Task::Generate(Arrival {
                request,
                longest,
                reply: sender,
            })
        };
        self.push(first, arrival)?;
        Ok(stream)
    }

    /// Embeds texts.
    ///
    /// # Errors
    /// As for [`EngineHandle::submit`].
    pub fn embed(&self, request: EmbedRequest) -> Result<VectorStream, Rejected> {
        let encoder = self.face.encoder.as_ref();
        let encoder = encoder.ok_or_else(|| self.purpose_error("embed"))?;
        encoder.check_dimensions(request.dimensions)?;
        for (index, tokens) in request.tokens.iter().enumerate() {
            self.check_tokens(tokens)?;
            if tokens.len() > self.face.longest {
                return Err(Rejected::Never(EngineError::TextTooLong {
                    index,
                    got: tokens.len(),
                    limit: self.face.longest,
                }));
            }
        }
        let first = request.tokens.iter().map(Vec::len).sum();
        let (sender, stream) = reply::vectors();
        self.push(first, || {
            Task::Embed(EmbedArrival {
                request,
                reply: sender,
            })
        })?;
        Ok(stream)
    }

    fn push(&self, tokens: usize, task: impl FnOnce() -> Task) -> Result<(), Rejected> {
        let limit = self.face.options.queue;
        let closed = match self.face.inbox.push(limit, task) {
            Ok(()) => return Ok(()),
            Err(closed) => closed,
        };
        let Closed::Full { waiting } = closed else {
            return Err(Rejected::Draining);
        };
        let published = *lock(&self.face.published);
        let (asked, free) = published.kv.map_or((Bytes(0), Bytes(0)), |kv| {
            let blocks = tokens.div_ceil(kv.block_tokens) * kv.block_tokens;
            let asked = Bytes(kv.bytes_per_token.0.saturating_mul(blocks as u64));
            (asked, kv.bytes_total.saturating_sub(kv.bytes_used))
        });
        let wait = published.between_ends.as_millis() as u64;
        Err(Rejected::QueueFull {
            waiting,
            retry_after_ms: wait.clamp(1000, 60_000),
            asked,
            free,
        })
    }

    /// Checks a request; gives the most tokens that it may generate.
    fn check(&self, request: &GenerateRequest) -> Result<usize, EngineError> {
        if self.face.purpose != Purpose::Generate {
            return Err(self.purpose_error("generate text"));
        }
        request.params.check()?;
        let biased = request.params.logit_bias.iter().map(|&(token, _)| token);
        for token in biased.chain(request.stop.tokens.iter().copied()) {
            self.check_token(token)?;
        }
        let prompt = request.prompt.len();
        self.check_tokens(&request.prompt)?;
        let limit = self.face.longest;
        let wanted = match (request.max_tokens, request.stop.max_tokens) {
            (Some(a), Some(b)) => Some(a.min(b)),
            (a, b) => a.or(b),
        };
        let fits = limit.saturating_sub(prompt);
        if prompt > limit || (fits == 0 && wanted != Some(0)) {
            let context = limit;
            return Err(EngineError::PromptTooLong {
                got: prompt,
                context,
            });
        }
        match wanted {
            Some(max_tokens) if max_tokens > fits => Err(EngineError::RequestTooLong {
                prompt,
                max_tokens,
                limit,
            }),
            wanted => Ok(wanted.unwrap_or(fits)),
        }
    }

    fn check_tokens(&self, tokens: &[u32]) -> Result<(), EngineError> {
        if tokens.is_empty() {
            return Err(EngineError::PromptEmpty);
        }
        tokens.iter().try_for_each(|&token| self.check_token(token))
    }

    fn check_token(&self, got: u32) -> Result<(), EngineError> {
        match self.face.vocab {
            vocab if got as usize >= vocab => Err(EngineError::TokenUnknown { got, vocab }),
            _ => Ok(()),
        }
    }

    fn purpose_error(&self, verb: &'static str) -> EngineError {
        let model = self.face.name.clone();
        EngineError::Purpose { model, verb }
    }

    /// Takes no more requests; those inside go on.
    pub fn drain(&self) {
        self.face.inbox.drain();
    }

    /// Whether no request is inside, waiting or running.
    pub fn is_empty(&self) -> bool {
        self.face.inbox.inside() == 0
    }

    /// What it is doing.
    pub fn snapshot(&self) -> EngineSnapshot {
        let face = &*self.face;
        let published = *lock(&face.published);
        // What has just arrived has not waited since the last step, which may be long ago.
        let busy = face.inbox.busy_since();
        let since = busy.map_or(Duration::ZERO, |busy| {
            busy.max(published.progress).elapsed()
        });
        EngineSnapshot {
            running: published.running,
            waiting: face.inbox.waiting(),
            queue: face.options.queue,
            parallel: face.plan.parallel(),
            draining: face.inbox.draining(),
            kv: published.kv,
            stored_tokens: published.stored_tokens,
            totals: published.totals,
            chunk_tokens: published.chunk_tokens,
            step_ms: published.step.as_millis() as u64,
            last_progress_ms: since.as_millis() as u64,
            alive: published.alive,
        }
    }

    /// The model's name.
    pub fn name(&self) -> &str {
        &self.face.name
    }

    /// Generation or embedding.
    pub fn purpose(&self) -> Purpose {
        self.face.purpose
    }

    /// Token ids below this exist.
    pub fn vocab(&self) -> usize {
        self.face.vocab
    }

    /// Longest one sequence may become, prompt and answer together, or one text to embed.
    pub fn longest(&self) -> usize {
        self.face.longest
    }

    /// Most tokens of a step.
    pub fn batch_tokens(&self) -> usize {
        self.face.batch_tokens
    }

    /// The tokenizer and what belongs to it.
    pub fn vocabulary(&self) -> &Arc<Vocabulary> {
        &self.face.vocabulary
    }

    /// How texts to embed become tokens; `None` for a model that generates.
    pub fn encoder(&self) -> Option<&Arc<TextEncoder>> {
        self.face.encoder.as_ref()
    }

    /// The plan that the model was loaded by.
    pub fn plan(&self) -> &Arc<MemoryPlan> {
        &self.face.plan
    }

    /// The account that the model's bytes are charged to.
    pub fn account(&self) -> &Account {
        &self.face.account
    }
}
