//! Texts to vectors: ragged batches without padding, packed by tokens.

use std::sync::Arc;
use std::time::Instant;

use bursar_files::ModelFile;
use bursar_memory::{Ledger, Mapping, Reservation};
use bursar_model::{ForwardBatch, Model, ModelError, SequenceRows};
use bursar_workers::Workers;

use crate::EngineError;
use crate::encoder::TextEncoder;
use crate::generate::LoadOptions;
use crate::load::{map_arena, open_account, start_workers};
use crate::plan::MemoryPlan;
use crate::vocabulary::Vocabulary;

/// How texts are embedded.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EmbedOptions {
    /// Which of the model's prompts goes before each text; its default one if `None`.
    pub prompt_name: Option<String>,
    /// Put nothing before the texts, not even the default prompt.
    pub no_prompt: bool,
    /// Leading values to keep of each vector (Matryoshka models are trained for it); all if `None`.
    pub dimensions: Option<usize>,
    /// Scale vectors to length 1 though the model would not.
    pub normalize: bool,
}

/// What an embedding run came to.
#[derive(Copy, Clone, Debug, Default)]
pub struct EmbedStats {
    /// Texts embedded.
    pub texts: usize,
    /// Tokens of all texts, special ones included.
    pub tokens: usize,
    /// Texts that were cut to the longest length.
    pub truncated: usize,
    /// Time taken.
    pub seconds: f64,
}

/// A loaded embedding model.
pub struct Embedder {
    model: Model,
    arena: Mapping,
    workers: Workers,
    encoder: TextEncoder,
    plan: MemoryPlan,
    _process: Reservation,
}

impl Embedder {
    /// Reserves everything that `plan` names, then reads the weights. `progress` is told the file
    /// bytes read so far.
    pub fn load(
        file: &ModelFile,
        mut vocabulary: Vocabulary,
        plan: MemoryPlan,
        ledger: &Ledger,
        options: LoadOptions,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self, EngineError> {
        let config = file.config();
        let account = open_account(&config.name, &mut vocabulary, &plan, ledger)?;
        let process = plan.base.reserve(ledger, vocabulary.bytes())?;
        let workers = start_workers(&plan)?;
        // Pieces of the file are staged where activations will be.
        let mut arena = map_arena(&account, plan.model.arena_bytes())?;
        let model = Model::load(
            file,
            plan.model.clone(),
            &account,
            options.isa,
            &workers,
            arena.as_mut_slice(),
            progress,
        )?;
        let dim = model.output_width();
        let encoder = TextEncoder::new(config, Arc::new(vocabulary), plan.context(), dim);
        Ok(Self {
            model,
            arena,
            workers,
            encoder,
            plan,
            _process: process,
        })
    }

    /// Values of a whole vector.
    pub fn dimensions(&self) -> usize {
        self.encoder.dimensions()
    }

    /// The plan that it was loaded by.
    pub fn plan(&self) -> &MemoryPlan {
        &self.plan
    }

    /// The tokenizer and what belongs to it.
    pub fn vocabulary(&self) -> &Vocabulary {
        self.encoder.vocabulary()
    }

    /// Checks options before any text is read, and gives the prefix that each text will get.
    pub fn check(&self, options: &EmbedOptions) -> Result<&str, EngineError> {
        self.encoder.check(options)
    }

    /// Embeds texts, in batches of as many as fit; `emit` gets the index of each text and its
    /// vector, not in the order of the texts.
    pub fn embed<T: AsRef<str>>(
        &mut self,
        texts: &[T],
        options: &EmbedOptions,
        emit: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<EmbedStats, EngineError> {
        let start = Instant::now();
        let keep = options.dimensions.unwrap_or(self.dimensions());
        let (tokens, truncated) = self.encoder.encode(texts, options)?;
        let mut stats = EmbedStats {
            texts: texts.len(),
            truncated,
            ..Default::default()
        };
        stats.tokens = tokens.iter().map(Vec::len).sum();
        // Texts of one length together: each batch then ends with little room left over.
        let mut order: Vec<usize> = (0..texts.len()).collect();
        order.sort_by_key(|&i| std::cmp::Reverse(tokens[i].len()));
        let mut vector = vec![0.0f32; self.dimensions()];
        let mut rest = order.as_slice();
        while !rest.is_empty() {
            let count = self.batch_len(rest, &tokens);
            let (batch, others) = rest.split_at(count);
            rest = others;
            let normalize = self.encoder.normalizes() || options.normalize;
            self.forward(batch, &tokens, &mut |index, row| {
                vector.copy_from_slice(row);
                finish(&mut vector[..keep], normalize);
                emit(index, &vector[..keep]);
            })?;
        }
        stats.seconds = start.elapsed().as_secs_f64();
        Ok(stats)
    }

    /// The tokens that each text will be embedded as: prompt, text, special tokens, cut to the
    /// longest length.
    pub fn tokenize<T: AsRef<str>>(
        &self,
        texts: &[T],
        options: &EmbedOptions,
    ) -> Result<Vec<Vec<u32>>, EngineError> {
        Ok(self.encoder.encode(texts, options)?.0)
    }

    /// How many texts of `order` fill one batch; each takes whole KV blocks.
    fn batch_len(&self, order: &[usize], tokens: &[Vec<u32>]) -> usize {
        let block = self.model.plan().kv().block_tokens();
        let room = self.plan.batch_tokens();
        let mut used = 0;
        order
            .iter()
            .take_while(|&&i| {
                used += tokens[i].len().next_multiple_of(block);
                used <= room
            })
            .count()
            .max(1)
    }

    fn forward(
        &mut self,
        batch: &[usize],
        tokens: &[Vec<u32>],
        emit: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), ModelError> {
        let mut ids = Vec::new();
        let mut sequences = Vec::with_capacity(batch.len());
        for &index in batch {
            let first = ids.len();
            ids.extend_from_slice(&tokens[index]);
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
        let arena = self.arena.as_mut_slice();
        self.model.forward(
            &forward,
            arena,
            &mut [],
            &self.workers,
            &mut |first, rows| {
                for row in 0..rows.rows() {
                    emit(batch[first + row], rows.row(row));
                }
            },
        )
    }
}

/// Scales a vector (already cut to its dimensions) to length 1 where the model wants it.
pub(crate) fn finish(vector: &mut [f32], normalize: bool) {
    if !normalize {
        return;
    }
    let norm = vector
        .iter()
        .map(|v| f64::from(*v) * f64::from(*v))
        .sum::<f64>()
        .sqrt();
    // As torch.nn.functional.normalize: a zero vector stays zero.
    let scale = (1.0 / norm.max(1e-12)) as f32;
    for value in vector {
        *value *= scale;
    }
}
