//! Embedding step by step: texts of all requests packed into batches without padding (`pack`), one
//! batch a step, so that whoever else computes gets a turn between them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bursar_memory::{Account, Bytes, Reservation};
use bursar_model::{Model, ModelError, ModelPlan};
use bursar_profile::span;
use bursar_workers::Workers;

use crate::EngineError;
use crate::embed::finish;
use crate::lists::Lists;
use crate::look::{Made, RequestView, Sight, Waits};
use crate::optimize;
use crate::options::BatchOptions;
use crate::pace::Pace;
use crate::pack::{PackLimits, Pending, Pick, pack};
use crate::reply::{Usage, VectorSender};
use crate::request::EmbedRequest;
use crate::step::{Totals, WaitsFor};
use crate::text_batch::TextBatch;

/// A request that has been checked, on its way to the engine's thread.
#[derive(Debug)]
pub(crate) struct EmbedArrival {
    pub(crate) arrived: Instant,
    pub(crate) request: EmbedRequest,
    pub(crate) reply: VectorSender,
}

/// A request with the texts that are still to be embedded.
struct Texts {
    arrival: EmbedArrival,
    pending: Pending,
    /// Tokens of all of them.
    tokens: usize,
}

impl Texts {
    fn begun(&self) -> bool {
        self.pending.len() < self.arrival.request.tokens.len()
    }

    fn view(&self, waits: Option<Waits>) -> RequestView {
        let all = self.arrival.request.tokens.len();
        RequestView {
            age: self.arrival.arrived.elapsed(),
            prompt_tokens: self.tokens,
            made: Made::Vectors {
                done: all - self.pending.len(),
                all,
            },
            stored_tokens: 0,
            blocks: 0,
            priority: 0,
            waits,
        }
    }
}

impl AsMut<Pending> for Texts {
    fn as_mut(&mut self) -> &mut Pending {
        &mut self.pending
    }
}

/// All embedding requests of a model, and what runs them.
pub(crate) struct Embedding {
    model: Model,
    workers: Arc<Workers>,
    normalizes: bool,
    requests: VecDeque<Texts>,
    options: BatchOptions,
    pace: Pace,
    /// Who comes after the oldest in the next batch.
    turn: usize,
    picks: Vec<Pick>,
    batch: TextBatch,
    totals: Totals,
    /// Whether the lists of a batch are kept for the next; not where pools are switched off.
    keeps_lists: bool,
    _lists: Reservation,
}

impl Embedding {
    pub(crate) fn new(
        model: Model,
        workers: Arc<Workers>,
        normalizes: bool,
        options: BatchOptions,
        keeps_lists: bool,
        reserved: Reservation,
    ) -> Self {
        let lists = Lists::embedding(model.plan());
        let (picks, batch) = match keeps_lists {
            true => (
                Vec::with_capacity(lists.sequences),
                TextBatch::with_capacity(lists.tokens, lists.sequences),
            ),
            false => Default::default(),
        };
        Self {
            pace: Pace::new(model.plan().options().batch_tokens),
            model,
            workers,
            normalizes,
            requests: VecDeque::new(),
            options,
            turn: 0,
            picks,
            batch,
            totals: Totals::default(),
            keeps_lists,
            _lists: reserved,
        }
    }

    pub(crate) fn model(&self) -> &Model {
        &self.model
    }

    /// Takes the model to another form; gives the bytes of memory that went back.
    pub(crate) fn convert(
        &mut self,
        plan: ModelPlan,
        account: &Account,
    ) -> Result<Bytes, EngineError> {
        optimize::convert(&mut self.model, plan, &self.workers, account)
    }

    pub(crate) fn accept(&mut self, arrival: EmbedArrival) {
        self.totals.requests += 1;
        let pending = Pending::new(arrival.request.tokens.iter().map(Vec::len));
        let tokens = arrival.request.tokens.iter().map(Vec::len).sum();
        self.requests.push_back(Texts {
            arrival,
            pending,
            tokens,
        });
    }

    /// Requests that have begun.
    pub(crate) fn running(&self) -> usize {
        self.requests.iter().filter(|texts| texts.begun()).count()
    }

    /// Requests that have not.
    pub(crate) fn waiting(&self) -> usize {
        self.requests.len() - self.running()
    }

    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    /// Shows its requests: those that have begun before those that have not.
    pub(crate) fn look(&self, sight: &mut Sight) {
        for texts in self.requests.iter().filter(|texts| texts.begun()) {
            sight.push(texts.view(None));
        }
        let waiting = self.requests.iter().filter(|texts| !texts.begun());
        for (before, texts) in waiting.enumerate() {
            let waits = Waits {
                before,
                first: Some(WaitsFor::Step),
                displaced: false,
            };
            sight.push(texts.view(Some(waits)));
        }
    }

    /// Tokens that the next batch takes at most.
    pub(crate) fn chunk_tokens(&self) -> usize {
        match self.options.yields {
            true => self.pace.tokens(),
            false => self.model.plan().options().batch_tokens,
        }
    }

    /// Lets go of what cancelled requests hold.
    pub(crate) fn sweep(&mut self) {
        let before = self.requests.len();
        self.requests
            .retain(|texts| !texts.arrival.reply.abandoned());
        self.totals.cancelled += (before - self.requests.len()) as u64;
    }

    /// One batch in `arena`. Does nothing if there is nothing to do.
    pub(crate) fn step(&mut self, arena: &mut [u8]) {
        let start = Instant::now();
        self.sweep();
        if self.requests.is_empty() {
            return;
        }
        self.pack();
        if let Err(error) = self.forward(arena) {
            return self.fail(error);
        }
        self.requests.retain(|texts| {
            if !texts.pending.is_empty() {
                return true;
            }
            let usage = Usage {
                prompt_tokens: texts.tokens,
                ..Usage::default()
            };
            texts.arrival.reply.done(usage);
            false
        });
        let tokens = self.batch.tokens();
        self.totals.steps += 1;
        self.totals.prefill_tokens += tokens as u64;
        self.totals.outputs += self.picks.len() as u64;
        self.pace.observe(tokens, start.elapsed());
        if !self.keeps_lists {
            (self.picks, self.batch) = Default::default();
        }
    }

    /// Ends the requests whose texts were in a batch that could not be finished.
    fn fail(&mut self, error: ModelError) {
        let error = Arc::new(error);
        let mut failed: Vec<usize> = self.picks.iter().map(|pick| pick.request).collect();
        failed.sort_unstable();
        failed.dedup();
        for &request in failed.iter().rev() {
            if let Some(texts) = self.requests.remove(request) {
                let error = EngineError::Pass(Arc::clone(&error));
                texts.arrival.reply.fail(error);
            }
        }
    }

    /// Takes the texts of the next batch out of what is pending.
    fn pack(&mut self) {
        let _span = span!("embed.pack", self.requests.len());
        let limits = PackLimits::new(self.model.plan(), &self.options, self.chunk_tokens());
        let requests = self.requests.make_contiguous();
        pack(requests, &limits, &mut self.turn, &mut self.picks);
        self.batch.clear();
        for pick in &self.picks {
            let request = &self.requests[pick.request].arrival.request;
            self.batch.push(&request.tokens[pick.text]);
        }
    }

    /// Runs the batch and sends its vectors.
    fn forward(&mut self, arena: &mut [u8]) -> Result<(), ModelError> {
        let _span = span!("embed.forward", self.batch.tokens());
        let (requests, picks, normalizes) = (&self.requests, &self.picks, self.normalizes);
        let copied = &mut self.totals.reply_bytes;
        self.model.forward(
            &self.batch.forward(),
            arena,
            &mut [],
            &self.workers,
            &mut |first, rows| {
                for row in 0..rows.rows() {
                    let pick = picks[first + row];
                    let EmbedArrival { request, reply, .. } = &requests[pick.request].arrival;
                    let row = rows.row(row);
                    reply.vector(pick.text, |values| {
                        values.copy_from_slice(&row[..values.len()]);
                        *copied += size_of_val(values) as u64;
                        finish(values, normalizes || request.normalize);
                    });
                }
            },
        )
    }
}
