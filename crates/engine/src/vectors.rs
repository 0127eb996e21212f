//! Embedding step by step: texts of all requests packed into batches without padding, in the order
//! in which they came.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Instant;

use bursar_memory::Mapping;
use bursar_model::{ForwardBatch, Model, ModelError, SequenceRows};
use bursar_workers::Workers;

use crate::EngineError;
use crate::embed::finish;
use crate::pace::Pace;
use crate::reply::{EmbedEvent, Sender, Usage};
use crate::request::EmbedRequest;
use crate::step::Totals;

/// A request that has been checked, on its way to the engine's thread.
#[derive(Debug)]
pub(crate) struct EmbedArrival {
    pub(crate) request: EmbedRequest,
    pub(crate) reply: Sender<EmbedEvent>,
}

/// A request with the texts that are still to be embedded.
struct Texts {
    arrival: EmbedArrival,
    /// Texts before this one are done.
    next: usize,
}

/// All embedding requests of a model, and what runs them.
pub(crate) struct Embedding {
    model: Model,
    arena: Mapping,
    workers: Arc<Workers>,
    normalizes: bool,
    requests: VecDeque<Texts>,
    pace: Pace,
    totals: Totals,
}

impl Embedding {
    pub(crate) fn new(
        model: Model,
        arena: Mapping,
        workers: Arc<Workers>,
        normalizes: bool,
    ) -> Self {
        Self {
            pace: Pace::new(model.plan().options().batch_tokens),
            model,
            arena,
            workers,
            normalizes,
            requests: VecDeque::new(),
            totals: Totals::default(),
        }
    }

    pub(crate) fn accept(&mut self, arrival: EmbedArrival) {
        self.totals.requests += 1;
        self.requests.push_back(Texts { arrival, next: 0 });
    }

    /// Requests that have begun.
    pub(crate) fn running(&self) -> usize {
        self.requests.iter().filter(|texts| texts.next > 0).count()
    }

    /// Requests that have not.
    pub(crate) fn waiting(&self) -> usize {
        self.requests.len() - self.running()
    }

    pub(crate) fn totals(&self) -> Totals {
        self.totals
    }

    pub(crate) fn chunk_tokens(&self) -> usize {
        self.pace.tokens()
    }

    /// Lets go of what cancelled requests hold.
    pub(crate) fn sweep(&mut self) {
        let before = self.requests.len();
        self.requests
            .retain(|texts| !texts.arrival.reply.abandoned());
        self.totals.cancelled += (before - self.requests.len()) as u64;
    }

    /// One batch. Does nothing if there is nothing to do.
    pub(crate) fn step(&mut self) {
        let start = Instant::now();
        self.sweep();
        if self.requests.is_empty() {
            return;
        }
        let batch = self.pack();
        let tokens = match self.forward(&batch) {
            Ok(tokens) => tokens,
            Err(error) => return self.fail(&batch, error),
        };
        for &(request, _) in &batch {
            self.requests[request].next += 1;
        }
        self.requests.retain(|texts| {
            let EmbedRequest { tokens, .. } = &texts.arrival.request;
            if texts.next < tokens.len() {
                return true;
            }
            let usage = Usage {
                prompt_tokens: tokens.iter().map(Vec::len).sum(),
                ..Usage::default()
            };
            texts.arrival.reply.send(EmbedEvent::Done { usage });
            false
        });
        self.totals.steps += 1;
        self.totals.prefill_tokens += tokens as u64;
        self.totals.outputs += batch.len() as u64;
        self.pace.observe(tokens, start.elapsed());
    }

    /// Ends the requests whose texts were in a batch that could not be finished.
    fn fail(&mut self, batch: &[(usize, usize)], error: ModelError) {
        let error = Arc::new(error);
        // In the order of the requests, each once or more.
        let mut failed: Vec<usize> = batch.iter().map(|&(request, _)| request).collect();
        failed.dedup();
        for &request in failed.iter().rev() {
            if let Some(texts) = self.requests.remove(request) {
                let error = EngineError::Pass(Arc::clone(&error));
                texts.arrival.reply.send(EmbedEvent::Failed(error));
            }
        }
    }

    /// The next texts, as (request, text): at least one, then as many as can be computed in the time
    /// that others may wait. Each takes whole blocks of the batch's own keys and values.
    fn pack(&self) -> Vec<(usize, usize)> {
        let block = self.model.plan().kv().block_tokens();
        let most = self.model.plan().options().batch_tokens;
        let (mut room, mut time) = (most, self.pace.tokens());
        let mut batch = Vec::new();
        for (request, texts) in self.requests.iter().enumerate() {
            let tokens = &texts.arrival.request.tokens;
            for (index, text) in tokens.iter().enumerate().skip(texts.next) {
                let takes = text.len().next_multiple_of(block);
                if !batch.is_empty() && (takes > room || text.len() > time) {
                    return batch;
                }
                room = room.saturating_sub(takes);
                time = time.saturating_sub(text.len());
                batch.push((request, index));
            }
        }
        batch
    }

    /// Runs a batch and sends its vectors; gives its tokens.
    fn forward(&mut self, batch: &[(usize, usize)]) -> Result<usize, ModelError> {
        let mut ids = Vec::new();
        let mut sequences = Vec::with_capacity(batch.len());
        for &(request, index) in batch {
            let first = ids.len();
            ids.extend_from_slice(&self.requests[request].arrival.request.tokens[index]);
            sequences.push(SequenceRows {
                rows: first..ids.len(),
                position: 0,
                blocks: &[],
            });
        }
        let forward = ForwardBatch {
            tokens: &ids,
            sequences: &sequences,
            outputs: &[],
        };
        let (requests, normalizes) = (&self.requests, self.normalizes);
        let arena = self.arena.as_mut_slice();
        self.model.forward(
            &forward,
            arena,
            &mut [],
            &self.workers,
            &mut |first, rows| {
                for row in 0..rows.rows() {
                    let (request, index) = batch[first + row];
                    let EmbedArrival { request, reply } = &requests[request].arrival;
                    let row = rows.row(row);
                    let keep = request.dimensions.unwrap_or(row.len()).min(row.len());
                    let mut values = row[..keep].to_vec();
                    finish(&mut values, normalizes || request.normalize);
                    reply.send(EmbedEvent::Vector { index, values });
                }
            },
        )?;
        Ok(ids.len())
    }
}
