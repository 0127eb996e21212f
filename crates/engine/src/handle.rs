//! The way to a model on an engine: hand it requests, watch it.
//!
//! One thread owns the models, their caches and their sequences; handles only put requests into a
//! model's inbox and read what is published of it. A request that can never be served is refused by the
//! handle itself, at once; one that cannot be served now waits, and if too many wait already, is refused
//! for now.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bursar_kv::KvReport;
use bursar_memory::{
    Account, BufferPool, Bytes, PoolError, Pools, ReclaimBooks, ReclaimEvent, Rung,
};
use bursar_model::Purpose;

use crate::EngineError;
use crate::bell::Bell;
use crate::encoder::TextEncoder;
use crate::inbox::{Closed, Inbox, lock};
use crate::ladder::unix_ms;
use crate::load::{EngineModel, Job};
use crate::look::{Lookers, Looking, Sight};
use crate::options::EngineOptions;
use crate::plan::MemoryPlan;
use crate::reply::{self, RingSource, TokenStream, VectorStream, Vectors};
use crate::request::{EmbedRequest, GenerateRequest, Rejected};
use crate::sequence::Arrival;
use crate::step::{Totals, WaitsFor};
use crate::vectors::EmbedArrival;
use crate::vocabulary::Vocabulary;
use crate::words::Words;
use crate::work::Task;

/// A model on an engine at a moment.
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
    /// What the first of those who wait needs; `None` where nobody does.
    pub waits_for: Option<WaitsFor>,
    /// How long the last step took.
    pub step_ms: u64,
    /// Time since the last step ended, or the first request came after a pause; 0 while there is
    /// nothing to do. Grows only when the engine is stuck, or a step takes long.
    pub last_progress_ms: u64,
    /// Whether it is on the engine, and the engine's thread there.
    pub alive: bool,
}

/// What the engine's thread publishes after each step of a model.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Published {
    pub(crate) running: usize,
    pub(crate) waiting: usize,
    pub(crate) kv: Option<KvReport>,
    pub(crate) stored_tokens: usize,
    pub(crate) totals: Totals,
    pub(crate) chunk_tokens: usize,
    pub(crate) waits_for: Option<WaitsFor>,
    pub(crate) step: Duration,
    pub(crate) progress: Instant,
    pub(crate) alive: bool,
    /// Mean time between ends of requests, for as long as there were any to end.
    pub(crate) between_ends: Duration,
}

/// What all handles of a model and the thread share.
pub(crate) struct Face {
    pub(crate) inbox: Inbox<Task>,
    pub(crate) lookers: Lookers,
    bell: Arc<Bell>,
    pub(crate) published: Mutex<Published>,
    name: String,
    purpose: Purpose,
    vocab: usize,
    /// Longest one sequence may become.
    longest: usize,
    batch_tokens: usize,
    /// Requests that may wait.
    queue: usize,
    /// Where refusals are written down.
    books: Option<ReclaimBooks>,
    /// Where the memory of requests comes from.
    pools: Option<Pools>,
    plan: Arc<MemoryPlan>,
    vocabulary: Arc<Vocabulary>,
    encoder: Option<Arc<TextEncoder>>,
    account: Account,
    warnings: Vec<String>,
}

impl Face {
    /// The face of a model that has not begun; `bell` wakes the engine that it will be on.
    pub(crate) fn new(
        model: &EngineModel,
        options: &EngineOptions,
        warnings: Vec<String>,
        bell: Arc<Bell>,
    ) -> Self {
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
        Self {
            inbox: Inbox::new(Arc::clone(&bell)),
            lookers: Lookers::default(),
            bell,
            published: Mutex::new(Published {
                running: 0,
                waiting: 0,
                kv,
                stored_tokens: 0,
                totals: Totals::default(),
                chunk_tokens: 0,
                waits_for: None,
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
            queue: options.queue,
            books: options.reclaim.clone(),
            pools: options.pools.clone(),
            vocabulary: Arc::clone(&model.vocabulary),
            encoder,
            account: model.account.clone(),
            plan,
            warnings,
        }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }
}

/// The way to a model on an engine; cheap to clone.
#[derive(Clone)]
pub struct EngineHandle {
    face: Arc<Face>,
}

impl EngineHandle {
    pub(crate) fn new(face: Arc<Face>) -> Self {
        Self { face }
    }

    pub(crate) fn face(&self) -> &Arc<Face> {
        &self.face
    }

    /// Continues a prompt.
    ///
    /// # Errors
    /// When it can never be served, too many wait, or the engine drains.
    pub fn submit(&self, mut request: GenerateRequest) -> Result<TokenStream, Rejected> {
        let longest = self.check(&request)?;
        let first = request.prompt.len();
        let told = match request.echo_logprobs {
            true => first + longest,
            false => longest,
        };
        let lag = match self.face.pools.as_ref().is_none_or(Pools::are_on) {
            true => reply::Lag {
                events: told.saturating_add(1),
                top: request.logprobs.map_or(0, usize::from),
            },
            false => reply::Lag::default(),
        };
        let source = match (&self.face.pools, &request.account) {
            (Some(pools), _) => RingSource::Pooled(pools.clone()),
            (None, Some(account)) => RingSource::Charged(account.clone()),
            (None, None) => RingSource::Heap,
        };
        let (sender, stream) = reply::tokens(source, lag);
        let prompt = std::mem::take(&mut request.prompt);
        let words = Words::new(&prompt, longest, self.face.pools.as_ref())?;
        drop(prompt);
        let arrival = || {
            Task::Generate(Box::new(Arrival {
                request,
                words,
                longest,
                arrived: Instant::now(),
                reply: sender,
            }))
        };
        self.push(first, arrival)?;
        Ok(stream)
    }

    /// Embeds texts.
    ///
    /// # Errors
    /// As for [`EngineHandle::submit`].
    pub fn embed(&self, request: EmbedRequest) -> Result<VectorStream, Rejected> {
        self.embed_into(request, |texts, dimensions| {
            Ok(Vectors::on_heap(texts, dimensions))
        })
    }

    /// The same, into memory of a pool, which charges it.
    ///
    /// # Errors
    /// As [`EngineHandle::embed`], and where the pool has no memory.
    #[track_caller]
    pub fn embed_in(
        &self,
        request: EmbedRequest,
        pool: &BufferPool,
    ) -> Result<VectorStream, Rejected> {
        self.embed_into(request, |texts, dimensions| {
            Vectors::pooled(texts, dimensions, pool)
        })
    }

    fn embed_into(
        &self,
        request: EmbedRequest,
        memory: impl FnOnce(usize, usize) -> Result<Vectors, PoolError>,
    ) -> Result<VectorStream, Rejected> {
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
        let dimensions = request.dimensions.unwrap_or(encoder.dimensions());
        let memory = memory(request.tokens.len(), dimensions)?;
        let (sender, stream) = reply::vectors(memory);
        self.push(first, || {
            Task::Embed(EmbedArrival {
                arrived: Instant::now(),
                request,
                reply: sender,
            })
        })?;
        Ok(stream)
    }

    fn push(&self, tokens: usize, task: impl FnOnce() -> Task) -> Result<(), Rejected> {
        let limit = self.face.queue;
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
            let free = kv.blocks_available() * kv.block_tokens;
            (
                asked,
                Bytes(kv.bytes_per_token.0.saturating_mul(free as u64)),
            )
        });
        if let Some(books) = &self.face.books {
            books.record(ReclaimEvent {
                unix_ms: unix_ms(),
                rung: Rung::Refuse,
                model: Some(self.face.name.clone()),
                bytes: Bytes::ZERO,
                reason: format!("{waiting} requests wait already, as many as may"),
            });
        }
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

    /// Waits until no request is inside; false if that takes until after `deadline`.
    pub fn wait_empty(&self, deadline: Instant) -> bool {
        self.face.inbox.wait_empty(deadline)
    }

    /// Whether no request is inside, waiting or running.
    pub fn is_empty(&self) -> bool {
        self.inside() == 0
    }

    /// Requests inside, waiting and running.
    pub fn inside(&self) -> usize {
        self.face.inbox.inside()
    }

    /// Since when no request has been inside; `None` while one is.
    pub fn idle_since(&self) -> Option<Instant> {
        self.face.inbox.idle_since()
    }

    /// What went wrong when it was put on the engine without being in the way, such as a damaged file of
    /// kept prefixes.
    pub fn warnings(&self) -> &[String] {
        &self.face.warnings
    }

    /// Bytes promised to its keys and values that it could do without for now: what
    /// [`Rung::ShrinkKv`](bursar_memory::Rung::ShrinkKv) makes free at most.
    pub fn spare(&self) -> Bytes {
        let published = *lock(&self.face.published);
        let Some(kv) = published.kv else {
            return Bytes::ZERO;
        };
        let busy = kv.blocks_used + published.running;
        let least = busy.max(self.face.longest.div_ceil(kv.block_tokens));
        // In whole slabs, all but the last of which have as many blocks.
        let per_slab = kv.blocks_total.div_ceil(kv.slabs_total.max(1)).max(1);
        let slabs = kv.blocks_capacity.saturating_sub(least) / per_slab;
        let slab = kv.bytes_total.get() / (kv.slabs_total as u64).max(1);
        Bytes(slab.saturating_mul(slabs as u64)).min(kv.bytes_promised)
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
            queue: face.queue,
            parallel: face.plan.parallel(),
            draining: face.inbox.draining(),
            kv: published.kv,
            stored_tokens: published.stored_tokens,
            totals: published.totals,
            chunk_tokens: published.chunk_tokens,
            waits_for: published.waits_for,
            step_ms: published.step.as_millis() as u64,
            last_progress_ms: since.as_millis() as u64,
            alive: published.alive,
        }
    }

    /// Its requests and blocks, seen between two of its steps; not while its work is lent. `sight` is the
    /// room for it.
    pub fn look(&self, sight: Sight) -> Looking {
        let looking = self.face.lookers.ask(sight);
        self.face.bell.ring();
        looking
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
