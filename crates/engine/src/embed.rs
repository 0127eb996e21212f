//! Texts to vectors: ragged batches without padding, as `pack` makes them up.

use std::sync::Arc;
use std::time::Instant;

use bursar_files::ModelFile;
use bursar_memory::{Ledger, Mapping, Reservation};
use bursar_model::{Model, ModelError, StreamFigures};
use bursar_profile::span;
use bursar_workers::Workers;

use crate::EngineError;
use crate::encoder::TextEncoder;
use crate::generate::LoadOptions;
use crate::load::{map_arena, open_account, reserve_lists, start_workers};
use crate::options::BatchOptions;
use crate::pack::{PackLimits, Pending, Pick, pack};
use crate::plan::MemoryPlan;
use crate::text_batch::TextBatch;
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
    /// Passes through the model.
    pub batches: usize,
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
    batches: BatchOptions,
    picks: Vec<Pick>,
    batch: TextBatch,
    vector: Vec<f32>,
    plan: MemoryPlan,
    _lists: Reservation,
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
        let reserved = reserve_lists(&account, &plan)?;
        let lists = plan.lists();
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
            batches: BatchOptions::default(),
            picks: Vec::with_capacity(lists.sequences),
            batch: TextBatch::with_capacity(lists.tokens, lists.sequences),
            vector: Vec::with_capacity(dim),
            plan,
            _lists: reserved,
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

    /// What streaming has done and waited for; `None` where all weights stay in memory.
    pub fn stream_figures(&self) -> Option<StreamFigures> {
        self.model.stream_figures()
    }

    /// The tokenizer and what belongs to it.
    pub fn vocabulary(&self) -> &Vocabulary {
        self.encoder.vocabulary()
    }

    /// Checks options before any text is read, and gives the prefix that each text will get.
    pub fn check(&self, options: &EmbedOptions) -> Result<&str, EngineError> {
        self.encoder.check(options)
    }

    /// Gathers texts into batches by these options from now on.
    pub fn set_batches(&mut self, options: BatchOptions) {
        self.batches = options;
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
        let encoded = span!("embed.tokenize", texts.len());
        let (tokens, truncated) = self.encoder.encode(texts, options)?;
        drop(encoded);
        let mut stats = self.embed_tokens(&tokens, options, emit)?;
        stats.truncated = truncated;
        stats.seconds = start.elapsed().as_secs_f64();
        Ok(stats)
    }

    /// The same for texts that are tokens already, as [`Embedder::tokenize`] makes them.
    pub fn embed_tokens(
        &mut self,
        tokens: &[Vec<u32>],
        options: &EmbedOptions,
        emit: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<EmbedStats, EngineError> {
        let start = Instant::now();
        self.encoder.check_dimensions(options.dimensions)?;
        let mut stats = EmbedStats {
            texts: tokens.len(),
            tokens: tokens.iter().map(Vec::len).sum(),
            ..EmbedStats::default()
        };
        // Nobody waits: a batch may take as long as it takes.
        let limits = PackLimits::new(self.model.plan(), &self.batches, usize::MAX);
        let mut pending = [Pending::new(tokens.iter().map(Vec::len))];
        let mut turn = 0;
        loop {
            let packing = span!("embed.pack", pending[0].len());
            pack(&mut pending, &limits, &mut turn, &mut self.picks);
            if self.picks.is_empty() {
                break;
            }
            self.batch.clear();
            for pick in &self.picks {
                self.batch.push(&tokens[pick.text]);
            }
            drop(packing);
            stats.batches += 1;
            self.forward(options, emit)?;
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

    /// Runs the batch.
    fn forward(
        &mut self,
        options: &EmbedOptions,
        emit: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), ModelError> {
        let _span = span!("embed.forward", self.batch.tokens());
        let keep = options.dimensions.unwrap_or(self.dimensions());
        let normalize = self.encoder.normalizes() || options.normalize;
        let (picks, vector) = (&self.picks, &mut self.vector);
        self.model.forward(
            &self.batch.forward(),
            self.arena.as_mut_slice(),
            &mut [],
            &self.workers,
            &mut |first, rows| {
                for row in 0..rows.rows() {
                    vector.clear();
                    vector.extend_from_slice(&rows.row(row)[..keep]);
                    finish(vector, normalize);
                    emit(picks[first + row].text, vector);
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
