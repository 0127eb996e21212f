//! Generation in a seeded simulator: the real scheduler, sequences and KV books, over a model that is
//! a hash of every cell that it reads.
//!
//! What must hold, after every step of every seed:
//! 1. No block is leaked or held twice: the tables of running sequences are disjoint, hold just the
//!    blocks that their tokens need, and are all that the cache counts as used; waiting ones hold none.
//! 2. Never over limits: sequences at once, rows of a step, rows of prompts in a step.
//! 3. No starvation: while anything is inside, each step runs something; the most senior running
//!    sequence advances in every step; and no running sequence is junior to a waiting one of its
//!    priority. With no more arrivals, all end within a bound of steps.
//! 4. Same words: every answer is what the same prompt gives alone, whoever else ran, left, or was
//!    preempted; of those who leave, as far as they listened. A cell overwritten by another sequence,
//!    skipped, or written twice with something else, would change the hash and all that follows.
//! 5. What is reserved up front is not taken away, unless for a higher priority.
//! 6. Every stream ends, once.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bursar_files::ModelFile;
use bursar_kernels::kv_view::{KvDtype, KvLayout, KvShape};
use bursar_kernels::mat::MatRef;
use bursar_kv::{KvCache, KvOptions, KvPlan};
use bursar_memory::{Bytes, Ledger};
use bursar_model::ForwardBatch;

use crate::batch::Decoder;
use crate::generate::FinishReason;
use crate::handle::GenerateRequest;
use crate::reply::{self, Event, TokenStream};
use crate::sample::Sampler;
use crate::schedule::Admission;
use crate::sequence::Arrival;
use crate::step::{Generation, Rules};
use crate::stop::StopRules;
use crate::vocabulary::Vocabulary;

const BLOCK_TOKENS: usize = 16;
/// Logits rows at once, as a real model's head has them in chunks.
const OUTPUT_ROWS: usize = 3;

/// SplitMix64 (Steele et al. 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    fn range(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// What is stored for a token at a position.
fn cell(token: u32, position: usize) -> u64 {
    mix((u64::from(token) << 32) ^ position as u64 ^ 0xB10C)
}

/// The token after those whose cells are given.
fn next_token(cells: impl Iterator<Item = u64>, vocab: usize) -> u32 {
    let hash = cells.fold(7, |hash: u64, cell| mix(hash ^ cell).wrapping_add(1));
    (hash % vocab as u64) as u32
}

/// What a prompt gives alone.
fn alone(prompt: &[u32], wants: usize, vocab: usize) -> Vec<u32> {
    let mut tokens = prompt.to_vec();
    for _ in 0..wants {
        let cells = tokens
            .iter()
            .enumerate()
            .map(|(at, &token)| cell(token, at));
        tokens.push(next_token(cells, vocab));
    }
    tokens.split_off(prompt.len())
}

/// A model whose logits point at the hash of all cells up to the row's position.
struct HashModel {
    layout: KvLayout,
    vocab: usize,
    /// Rows of the last pass.
    rows: usize,
}

impl HashModel {
    fn place(&self, blocks: &[u32], position: usize) -> usize {
        let block = blocks[position / BLOCK_TOKENS];
        self.layout.block_offset(block) + position % BLOCK_TOKENS * 8
    }
}

impl Decoder for HashModel {
    fn forward(
        &mut self,
        batch: &ForwardBatch<'_>,
        cache: &mut [u8],
        emit: &mut dyn FnMut(usize, MatRef<'_>),
    ) {
        self.rows = batch.tokens.len();
        let mut at = 0;
        for sequence in batch.sequences {
            assert_eq!(sequence.rows.start, at, "rows without gaps");
            at = sequence.rows.end;
            for (offset, row) in sequence.rows.clone().enumerate() {
                let position = sequence.position + offset;
                let place = self.place(sequence.blocks, position);
                let value = cell(batch.tokens[row], position);
                cache[place..place + 8].copy_from_slice(&value.to_le_bytes());
            }
        }
        assert_eq!(at, batch.tokens.len(), "every row belongs to a sequence");
        assert!(batch.outputs.is_sorted());
        for (chunk, outputs) in batch.outputs.chunks(OUTPUT_ROWS).enumerate() {
            let mut logits = vec![0.0; outputs.len() * self.vocab];
            for (line, &row) in logits.chunks_exact_mut(self.vocab).zip(outputs) {
                let row = row as usize;
                let owner = batch.sequences.iter().find(|s| s.rows.contains(&row));
                let sequence = owner.expect("an output of some sequence");
                let last = sequence.position + row - sequence.rows.start;
                let cells = (0..=last).map(|position| {
                    let place = self.place(sequence.blocks, position);
                    let bytes = cache[place..place + 8].try_into().expect("eight bytes");
                    u64::from_le_bytes(bytes)
                });
                line[next_token(cells, self.vocab) as usize] = 1.0;
            }
            let rows = MatRef::dense(&logits, outputs.len(), self.vocab);
            emit(chunk * OUTPUT_ROWS, rows);
        }
    }
}

/// A client with what it has heard.
struct Client {
    want: Vec<u32>,
    leaves_after: Option<usize>,
    echo: usize,
    heard: Vec<u32>,
    echoed: usize,
    ended: bool,
    /// `None` once it has left.
    stream: Option<TokenStream>,
}

impl Client {
    /// Hears what there is; leaves when it has had enough.
    fn listen(&mut self) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        while let Some(event) = stream.try_recv() {
            assert!(!self.ended, "something after the end: {event:?}");
            match event {
                Event::Token { token, .. } => self.heard.push(token),
                Event::PromptLogprobs(found) => self.echoed += found.len(),
                Event::Text(_) => {}
                Event::Done { finish, usage } => {
                    assert_eq!(finish, FinishReason::Length);
                    assert_eq!(usage.completion_tokens, self.want.len());
                    assert_eq!(self.heard, self.want);
                    assert_eq!(self.echoed, self.echo);
                    self.ended = true;
                }
                Event::Failed(error) => panic!("{error}"),
            }
        }
        assert!(self.want.starts_with(&self.heard));
        if self
            .leaves_after
            .is_some_and(|after| self.heard.len() >= after)
        {
            self.stream = None;
        }
    }

    fn inside(&self) -> bool {
        self.stream.is_some() && !self.ended
    }
}

struct Simulation {
    random: Random,
    generation: Generation<HashModel>,
    rules: Rules,
    blocks: usize,
    vocab: usize,
    clients: Vec<Client>,
    priorities: bool,
}

impl Simulation {
    fn new(seed: u64, vocabulary: &Arc<Vocabulary>) -> Self {
        let mut random = Random(seed);
        let shape = KvShape {
            layers: 1,
            kv_heads: 1,
            head_dim: 16,
            block_tokens: BLOCK_TOKENS,
            dtype_k: KvDtype::F32,
            dtype_v: KvDtype::F32,
        };
        let layout = KvLayout::in_slabs(shape).expect("a layout");
        let blocks = random.range(3, 24);
        let plan = KvPlan::for_context(layout, blocks * BLOCK_TOKENS, 1).expect("a plan");
        let ledger = Ledger::new(Bytes(1 << 24));
        let kv = KvCache::new(plan, &ledger.root(), KvOptions::default()).expect("fits");
        let vocab = vocabulary.len();
        let rules = Rules {
            batch_tokens: [1, 5, 16, 32, 64][random.below(5)],
            parallel: random.range(1, 9),
            admission: match random.below(3) {
                0 => Admission::Reserve,
                _ => Admission::Grow,
            },
        };
        let decoder = HashModel {
            layout,
            vocab,
            rows: 0,
        };
        let sampler = Sampler::new(vocab);
        Self {
            priorities: random.one_in(3),
            generation: Generation::new(decoder, kv, sampler, Arc::clone(vocabulary), rules),
            random,
            rules,
            blocks,
            vocab,
            clients: Vec::new(),
        }
    }

    fn arrive(&mut self) {
        let random = &mut self.random;
        let most = self.blocks * BLOCK_TOKENS;
        // Mostly short, sometimes all that there is.
        let most = if random.one_in(4) { most } else { most.min(48) };
        let prompt = random.range(1, most - 1);
        let wants = random.range(1, (most - prompt).min(60));
        let prompt: Vec<u32> = (0..prompt)
            .map(|_| random.below(self.vocab) as u32)
            .collect();
        let priority = match self.priorities {
            true => random.below(3) as i32 - 1,
            false => 0,
        };
        let echo = random.one_in(5);
        let (sender, stream) = reply::tokens(None);
        self.clients.push(Client {
            want: alone(&prompt, wants, self.vocab),
            leaves_after: random.one_in(4).then(|| random.below(wants + 1)),
            echo: if echo { prompt.len() } else { 0 },
            heard: Vec::new(),
            echoed: 0,
            ended: false,
            stream: Some(stream),
        });
        let request = GenerateRequest {
            prompt,
            stop: StopRules {
                ignore_end: true,
                ..StopRules::default()
            },
            echo_logprobs: echo,
            priority,
            ..GenerateRequest::default()
        };
        self.generation.accept(Arrival {
            request,
            longest: wants,
            reply: sender,
        });
    }

    fn step(&mut self) {
        let before = self.lengths();
        let (_, waiting) = self.generation.sequences();
        let highest = waiting.iter().map(|s| s.seniority().priority).max();
        let chunk = self.generation.chunk_tokens();
        let preempted = self.generation.totals().preemptions;
        self.generation.decoder().rows = 0;
        let prompts = self.generation.step();
        let rows = self.generation.decoder().rows;
        // Steps seem to take from nothing to half a second, so that pieces grow and shrink.
        let time = Duration::from_micros(self.random.next() % 500_000);
        self.generation.observe(prompts, time);

        assert!(rows <= self.rules.batch_tokens, "{rows} rows");
        assert!(prompts <= chunk, "{prompts} rows of prompts");
        let preempted = self.generation.totals().preemptions - preempted;
        if self.rules.admission == Admission::Reserve && !self.priorities {
            assert_eq!(preempted, 0);
        }
        self.check_blocks();
        self.check_order(before, highest, rows);
        for client in &mut self.clients {
            client.listen();
        }
    }

    /// Tokens stored of each sequence that runs and is still wanted, most senior first.
    fn lengths(&self) -> Vec<((i32, u64), usize)> {
        let (running, _) = self.generation.sequences();
        let mut all: Vec<_> = running
            .iter()
            .filter(|sequence| !sequence.abandoned())
            .map(|sequence| {
                let seniority = sequence.seniority();
                let rank = (-seniority.priority, seniority.order);
                (rank, sequence.table.len())
            })
            .collect();
        all.sort_unstable();
        all
    }

    fn check_blocks(&self) {
        let (running, waiting) = self.generation.sequences();
        assert!(running.len() <= self.rules.parallel);
        assert!(waiting.iter().all(|s| s.table.blocks().is_empty()));
        let mut held = BTreeSet::new();
        for sequence in running {
            let blocks = sequence.table.blocks();
            assert_eq!(blocks.len(), sequence.table.len().div_ceil(BLOCK_TOKENS));
            for &block in blocks {
                assert!(held.insert(block), "block {block} is held twice");
            }
        }
        assert_eq!(self.generation.kv().blocks_used, held.len());
    }

    /// `before` and `highest` are the lengths of the running and the highest priority among the waiting
    /// before the step.
    fn check_order(&self, before: Vec<((i32, u64), usize)>, highest: Option<i32>, rows: usize) {
        let inside = |client: &Client| client.inside();
        if self.clients.iter().any(inside) {
            assert!(rows > 0, "nothing ran");
        }
        let after: BTreeMap<_, _> = self.lengths().into_iter().collect();
        let (running, waiting) = self.generation.sequences();
        if let Some((rank, len)) = before.first() {
            let advanced = after.get(rank).is_none_or(|now| now > len);
            assert!(advanced, "{rank:?} stood still");
            // It has ended if it is not there any more, or was displaced by a higher priority.
            let displaced = waiting.iter().any(|s| s.seniority().order == rank.1);
            let above = highest.is_some_and(|priority| -priority < rank.0);
            assert!(!displaced || above, "{rank:?} was preempted");
        }
        for waits in waiting {
            for runs in running {
                let (waits, runs) = (waits.seniority(), runs.seniority());
                assert!(
                    waits.priority != runs.priority || runs.order < waits.order,
                    "{runs:?} overtook {waits:?}"
                );
            }
        }
    }
}

/// Runs a seed to its end; gives the preemptions.
fn simulate(seed: u64, vocabulary: &Arc<Vocabulary>) -> u64 {
    let mut simulation = Simulation::new(seed, vocabulary);
    let arrivals = simulation.random.range(1, 20);
    let busy = simulation.random.one_in(2);
    for _ in 0..arrivals {
        simulation.arrive();
        let steps = simulation.random.below(if busy { 3 } else { 30 });
        for _ in 0..steps {
            simulation.step();
        }
    }
    // Each step runs at least one token of the most senior, so that it ends within so many steps as
    // it has tokens; then so does the next. One more step clears those who left.
    let most = simulation.blocks * BLOCK_TOKENS * simulation.clients.len() + 1;
    let mut steps = 0;
    while simulation.generation.running() + simulation.generation.waiting() > 0 {
        simulation.step();
        steps += 1;
        assert!(steps <= most, "{steps} steps");
    }
    for client in &simulation.clients {
        assert!(!client.inside(), "a stream without an end");
    }
    assert_eq!(simulation.generation.kv().blocks_used, 0);
    simulation.generation.totals().preemptions
}

#[test]
fn every_seed_keeps_its_promises() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models/llama");
    let file = ModelFile::open(&folder).unwrap_or_else(|e| panic!("{e}"));
    let vocabulary = Arc::new(Vocabulary::open(&file).unwrap_or_else(|e| panic!("{e}")));
    let mut preemptions = 0;
    for seed in 0..2000 {
        let run = std::panic::AssertUnwindSafe(|| simulate(seed, &vocabulary));
        match std::panic::catch_unwind(run) {
            Ok(count) => preemptions += count,
            Err(panic) => {
                eprintln!("seed {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    assert!(preemptions > 100, "only {preemptions} preemptions");
}
