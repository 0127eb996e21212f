//! One sequence, from prompt to text: prefill in chunks, then one token at a time.

use std::ops::ControlFlow;
use std::time::Instant;

use bursar_files::ModelFile;
use bursar_kernels::isa::Isa;
use bursar_kv::{BlockTable, KvCache, KvOptions};
use bursar_memory::{Bytes, Ledger, Lifetime, Mapping, Reservation};
use bursar_model::{ForwardBatch, Model, Purpose, SequenceRows};
use bursar_workers::Workers;

use crate::EngineError;
use crate::load::{map_arena, open_account, reserve_lists, start_workers};
use crate::plan::MemoryPlan;
use crate::sample::{Sampler, SamplingParams};
use crate::stop::{StopMatcher, StopRules};
use crate::vocabulary::Vocabulary;

/// How a model is loaded.
#[derive(Copy, Clone, Debug)]
pub struct LoadOptions {
    /// Which instruction set to compute with.
    pub isa: Isa,
}

/// Why a text ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum FinishReason {
    /// An end token or a stop string.
    Stop,
    /// `max_tokens`, or the end of the context.
    Length,
    /// The receiver asked for no more.
    Cancelled,
}

impl FinishReason {
    /// The name that OpenAI's API gives it.
    pub fn name(self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::Cancelled => "cancelled",
        }
    }
}

/// What a generation came to.
#[derive(Clone, Debug)]
pub struct Generated {
    /// The tokens generated, an end token not among them.
    pub tokens: Vec<u32>,
    /// Why it ended.
    pub finish: FinishReason,
    /// Tokens of the prompt.
    pub prefill_tokens: usize,
    /// Time from the start to the first token's logits.
    pub prefill_seconds: f64,
    /// Passes after the first token.
    pub decode_tokens: usize,
    /// Time in them.
    pub decode_seconds: f64,
}

/// A loaded decoder with room for one sequence.
pub struct Generator {
    model: Model,
    arena: Mapping,
    kv: KvCache,
    workers: Workers,
    vocabulary: Vocabulary,
    sampler: Sampler,
    context: usize,
    chunk: usize,
    vocab: usize,
    plan: MemoryPlan,
    _sampling: Reservation,
    _lists: Reservation,
    _process: Reservation,
}

impl Generator {
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
        let sampling = account
            .child("sampling", Lifetime::Procedural)
            .reserve(Bytes(Sampler::bytes(config.vocab) as u64))?;
        let lists = reserve_lists(&account, &plan)?;
        let kv_plan = plan.kv.ok_or(EngineError::Setting {
            name: "purpose",
            got: format!("{:?}", plan.request().purpose),
            want: format!("{:?}, to generate text", Purpose::Generate),
        })?;
        let kv = KvCache::new(kv_plan, &account, KvOptions::default())?;
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
        Ok(Self {
            model,
            arena,
            kv,
            workers,
            sampler: Sampler::new(config.vocab),
            context: plan.context(),
            chunk: plan.batch_tokens(),
            vocab: config.vocab,
            vocabulary,
            plan,
            _sampling: sampling,
            _lists: lists,
            _process: process,
        })
    }

    /// The tokenizer and what belongs to it.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// The plan that it was loaded by.
    pub fn plan(&self) -> &MemoryPlan {
        &self.plan
    }

    /// Longest one sequence may become, in tokens.
    pub fn context(&self) -> usize {
        self.context
    }

    /// Ids below this exist.
    pub fn vocab(&self) -> usize {
        self.vocab
    }

    /// Continues `prompt`, with random numbers made from `seed`; `emit` gets text as it becomes certain.
    pub fn generate(
        &mut self,
        prompt: &[u32],
        params: &SamplingParams,
        seed: u64,
        stop: &StopRules,
        emit: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generated, EngineError> {
        params.check()?;
        self.check_tokens(prompt)?;
        if prompt.len() >= self.context {
            return Err(EngineError::PromptTooLong {
                got: prompt.len(),
                context: self.context,
            });
        }
        let longest = (self.context - prompt.len()).min(stop.max_tokens.unwrap_or(usize::MAX));
        let mut table = BlockTable::new();
        let result = self.run(prompt, (params, seed), stop, longest, &mut table, emit);
        self.kv.free(&mut table);
        result
    }

    fn run(
        &mut self,
        prompt: &[u32],
        (params, seed): (&SamplingParams, u64),
        stop: &StopRules,
        longest: usize,
        table: &mut BlockTable,
        emit: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<Generated, EngineError> {
        let mut matcher = StopMatcher::new(&stop.strings);
        let mut detokenizer = self.vocabulary.tokenizer().detokenizer(true);
        let mut out = Generated {
            tokens: Vec::new(),
            finish: FinishReason::Length,
            prefill_tokens: prompt.len(),
            prefill_seconds: 0.0,
            decode_tokens: 0,
            decode_seconds: 0.0,
        };
        let start = Instant::now();
        let Self {
            model,
            arena,
            kv,
            workers,
            sampler,
            chunk,
            vocabulary,
            ..
        } = self;
        let mut next = 0;
        extend(
            model,
            arena.as_mut_slice(),
            kv,
            workers,
            *chunk,
            table,
            prompt,
            Outputs::Last,
            &mut |_, logits| {
                next = sampler.sample(logits, params, seed, 0);
            },
        )?;
        out.prefill_seconds = start.elapsed().as_secs_f64();
        let start = Instant::now();
        let mut cut = false;
        loop {
            if (vocabulary.is_end(next) && !stop.ignore_end) || stop.tokens.contains(&next) {
                out.finish = FinishReason::Stop;
                break;
            }
            if out.tokens.len() == longest {
                break;
            }
            out.tokens.push(next);
            let (text, found) = matcher.push(detokenizer.push(vocabulary.tokenizer(), next));
            if !text.is_empty() && emit(text).is_break() {
                out.finish = FinishReason::Cancelled;
                break;
            }
            if found {
                out.finish = FinishReason::Stop;
                cut = true;
                break;
            }
            if out.tokens.len() == longest {
                break;
            }
            let index = out.tokens.len() as u64;
            let token = [next];
            extend(
                model,
                arena.as_mut_slice(),
                kv,
                workers,
                *chunk,
                table,
                &token,
                Outputs::Last,
                &mut |_, logits| {
                    next = sampler.sample(logits, params, seed, index);
                },
            )?;
            out.decode_tokens += 1;
        }
        out.decode_seconds = start.elapsed().as_secs_f64();
        // After a stop string comes nothing, not even the half of a character.
        if out.finish != FinishReason::Cancelled && !cut {
            let (rest, _) = matcher.finish(detokenizer.finish());
            if !rest.is_empty() {
                let _ = emit(rest);
            }
        }
        Ok(out)
    }

    /// The logits of every position of `tokens` (teacher forcing), in chunks as in generation;
    /// `emit` gets each position and its row.
    pub fn logits(
        &mut self,
        tokens: &[u32],
        emit: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), EngineError> {
        let chunk = [self.chunk];
        self.logits_in_chunks(tokens, &chunk, emit)
    }

    /// As `logits`, in chunks of the given sizes, over and over: the result is the same to the bit.
    pub fn logits_in_chunks(
        &mut self,
        tokens: &[u32],
        chunks: &[usize],
        emit: &mut dyn FnMut(usize, &[f32]),
    ) -> Result<(), EngineError> {
        self.check_tokens(tokens)?;
        if tokens.len() > self.context {
            return Err(EngineError::PromptTooLong {
                got: tokens.len(),
                context: self.context,
            });
        }
        let mut table = BlockTable::new();
        let mut rest = tokens;
        let mut result = Ok(());
        for &size in chunks.iter().cycle() {
            if rest.is_empty() || result.is_err() {
                break;
            }
            let size = size.clamp(1, self.chunk);
            let (part, others) = rest.split_at(size.min(rest.len()));
            rest = others;
            let Self {
                model,
                arena,
                kv,
                workers,
                ..
            } = self;
            result = extend(
                model,
                arena.as_mut_slice(),
                kv,
                workers,
                size,
                &mut table,
                part,
                Outputs::All,
                emit,
            );
        }
        self.kv.free(&mut table);
        result
    }

    fn check_tokens(&self, tokens: &[u32]) -> Result<(), EngineError> {
        if tokens.is_empty() {
            return Err(EngineError::PromptEmpty);
        }
        match tokens.iter().find(|&&token| token as usize >= self.vocab) {
            Some(&got) => Err(EngineError::TokenUnknown {
                got,
                vocab: self.vocab,
            }),
            None => Ok(()),
        }
    }
}

/// Which positions' logits are wanted.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Outputs {
    All,
    Last,
}

/// Runs `tokens` after what `table` already holds, in chunks.
#[allow(
    clippy::too_many_arguments,
    reason = "the generator's parts, borrowed apart"
)]
fn extend(
    model: &mut Model,
    arena: &mut [u8],
    kv: &mut KvCache,
    workers: &Workers,
    chunk: usize,
    table: &mut BlockTable,
    tokens: &[u32],
    outputs: Outputs,
    emit: &mut dyn FnMut(usize, &[f32]),
) -> Result<(), EngineError> {
    let mut done = 0;
    while done < tokens.len() {
        let part = &tokens[done..(done + chunk).min(tokens.len())];
        let position = table.len();
        kv.append(table, part.len())?;
        let last = done + part.len() == tokens.len();
        let rows: Vec<u32> = match outputs {
            Outputs::All => (0..part.len() as u32).collect(),
            Outputs::Last if last => vec![part.len() as u32 - 1],
            Outputs::Last => Vec::new(),
        };
        let sequence = SequenceRows {
            rows: 0..part.len(),
            position,
            blocks: table.blocks(),
        };
        let batch = ForwardBatch {
            tokens: part,
            sequences: &[sequence],
            outputs: &rows,
        };
        let cache = kv.bytes_mut();
        model.forward(&batch, arena, cache, workers, &mut |first, logits| {
            for row in 0..logits.rows() {
                emit(position + rows[first + row] as usize, logits.row(row));
            }
        })?;
        done += part.len();
    }
    Ok(())
}
