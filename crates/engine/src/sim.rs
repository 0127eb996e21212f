//! Generation in a seeded simulator: the real scheduler, sequences and KV books, over a model that is
//! a hash of every cell that it reads.
//!
//! What must hold, after every step of every seed:
//! 1. No block is leaked: a block's references are the tables of running sequences that hold it; those
//!    held are all that the cache counts as used; waiting sequences hold none.
//! 2. No block that is still written is shared, and none at all among those of different tenants.
//! 3. Never over limits: sequences at once, rows of a step, rows of prompts in a step.
//! 4. No starvation: while anything is inside, each step runs something; the most senior running
//!    sequence advances in every step; no running sequence is junior to a waiting one of its priority;
//!    and none is passed by later ones more than a bounded number of times. With no more arrivals, all
//!    end within a bound of steps.
//! 5. Same words: every answer is what the same prompt gives alone, whoever else ran, left, was
//!    preempted, written away, or computed its beginning; of those who leave, as far as they listened. A
//!    cell overwritten by another sequence, skipped, or written twice with something else, would change
//!    the hash and all that follows.
//! 6. What is reserved up front is not taken away, unless for a higher priority.
//! 7. Every stream ends, once.
//! 8. All of that while memory is taken from the model and given back: whatever rung is taken, its cache
//!    is as large as the longest sequence, and no larger than its capacity.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bursar_files::ModelFile;
use bursar_kernels::kv_view::{KvDtype, KvLayout, KvShape};
use bursar_kernels::mat::MatRef;
use bursar_kv::{KvCache, KvOptions, KvPlan};
use bursar_memory::{Bytes, Ledger, Lifetime, Reservation, Rung};
use bursar_model::{ForwardBatch, ModelError};

use crate::batch::Decoder;
use crate::generate::FinishReason;
use crate::options::{CompactionOptions, SpillOptions};
use crate::reply::{self, Event, Lag, TokenStream};
use crate::request::GenerateRequest;
use crate::sample::Sampler;
use crate::schedule::{Admission, OVERTAKES_MAX, Seniority};
use crate::sequence::Arrival;
use crate::spill::Spill;
use crate::step::{Generation, Rules, Totals};
use crate::stop::StopRules;
use crate::vocabulary::Vocabulary;
use crate::words::Words;

const BLOCK_TOKENS: usize = 16;
/// Logits rows at once, as a real model's head has them in chunks.
const OUTPUT_ROWS: usize = 3;

/// SplitMix64 (Steele et al. 2014).
pub(crate) struct Random(pub(crate) u64);

impl Random {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }

    pub(crate) fn range(&mut self, low: usize, high: usize) -> usize {
        low + self.below(high - low + 1)
    }

    pub(crate) fn one_in(&mut self, n: usize) -> bool {
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
        _arena: &mut [u8],
        cache: &mut [u8],
        emit: &mut dyn FnMut(usize, MatRef<'_>),
    ) -> Result<(), ModelError> {
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
        Ok(())
    }
}

/// A client with what it has heard.
struct Client {
    tenant: u8,
    want: Vec<u32>,
    leaves_after: Option<usize>,
    echo: usize,
    heard: Vec<u32>,
    echoed: usize,
    cached: usize,
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
                Event::PromptToken { .. } => self.echoed += 1,
                Event::Text(_) => {}
                Event::Done { finish, usage } => {
                    assert_eq!(finish, FinishReason::Length);
                    assert_eq!(usage.completion_tokens, self.want.len());
                    assert!(usage.cached_tokens < usage.prompt_tokens);
                    self.cached = usage.cached_tokens;
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
    /// Blocks that one sequence may need.
    longest: usize,
    ledger: Ledger,
    /// What others hold; memory is taken and given back if there is such.
    others: Option<Vec<Reservation>>,
    /// Times that each rung did something.
    taken: [u64; Rung::ALL.len()],
    vocab: usize,
    clients: Vec<Client>,
    priorities: bool,
    /// What prompts begin with.
    beginnings: Vec<Vec<u32>>,
}

impl Simulation {
    fn new(seed: u64, vocabulary: &Arc<Vocabulary>) -> Self {
        let mut random = Random(seed);
        let compacts = random.one_in(3);
        let reclaims = random.one_in(3);
        let shape = KvShape {
            layers: 1,
            kv_heads: 1,
            // Eight blocks to a slab, so that slabs run empty; or all of them.
            head_dim: if compacts && !reclaims { 2048 } else { 16 },
            block_tokens: BLOCK_TOKENS,
            dtype_k: KvDtype::F32,
            dtype_v: KvDtype::F32,
        };
        // Four blocks to a slab, where memory is to be given back.
        let layout = match reclaims {
            true => KvLayout::in_slabs_of(shape, 8192),
            false => KvLayout::in_slabs(shape),
        };
        let layout = layout.expect("a layout");
        let blocks = random.range(3, 24);
        let plan = KvPlan::for_context(layout, blocks * BLOCK_TOKENS, 1).expect("a plan");
        let longest = match reclaims {
            true => random.range(1, blocks),
            false => blocks,
        };
        let ledger = Ledger::new(plan.bytes());
        let kv = KvCache::new(plan, &ledger.root(), KvOptions::default()).expect("fits");
        let vocab = vocabulary.len();
        let rules = Rules {
            batch_tokens: [1, 5, 16, 32, 64][random.below(5)],
            parallel: random.range(1, 9),
            longest: longest * BLOCK_TOKENS,
            admission: match random.below(3) {
                0 => Admission::Reserve,
                _ => Admission::Grow,
            },
            contiguous: false,
            fingerprint: (!random.one_in(4)).then_some([7; 32]),
            salt: [0; 32],
            books: None,
            compaction: compacts.then(CompactionOptions::default),
            keeps_lists: !random.one_in(4),
        };
        let spill = random.one_in(2).then(|| {
            let options = SpillOptions {
                dir: std::env::temp_dir(),
                bytes: Bytes((layout.block_bytes() * random.range(1, 2 * blocks)) as u64),
            };
            Spill::create(&options, layout.block_bytes()).unwrap_or_else(|e| panic!("{e}"))
        });
        let decoder = HashModel {
            layout,
            vocab,
            rows: 0,
        };
        let sampler = Sampler::new(vocab);
        // Everything seems to take from nothing to half a second, so that pieces grow and shrink, and
        // writing away is sometimes cheaper than computing.
        let mut times = Random(seed ^ 0xC10C);
        let mut now = Duration::ZERO;
        let clock = Box::new(move || {
            now += Duration::from_micros(times.next() % 500_000);
            now
        });
        let mut beginnings = Vec::new();
        for _ in 0..3 {
            let tokens = random.range(1, 70);
            beginnings.push((0..tokens).map(|_| random.below(vocab) as u32).collect());
        }
        let generation = Generation::new(
            decoder,
            kv,
            sampler,
            Arc::clone(vocabulary),
            rules.clone(),
            spill,
            clock,
        );
        Self {
            priorities: random.one_in(3),
            generation,
            random,
            rules,
            blocks,
            longest,
            ledger,
            others: reclaims.then(Vec::new),
            taken: Default::default(),
            vocab,
            clients: Vec::new(),
            beginnings,
        }
    }

    /// Some tokens that no longer than `most`, often beginning like others.
    fn prompt(&mut self, most: usize) -> Vec<u32> {
        let random = &mut self.random;
        let mut prompt = match random.below(3) {
            0 => Vec::new(),
            _ => self.beginnings[random.below(self.beginnings.len())].clone(),
        };
        let more = match random.one_in(3) {
            true if !prompt.is_empty() => 0,
            _ => random.range(1, most),
        };
        prompt.extend((0..more).map(|_| random.below(self.vocab) as u32));
        prompt.truncate(most);
        prompt
    }

    fn arrive(&mut self) {
        let most = self.longest * BLOCK_TOKENS;
        // Mostly short, sometimes all that there is.
        let most = match self.random.one_in(4) {
            true => most,
            false => most.min(48 + self.random.below(60)),
        };
        let prompt = self.prompt(most - 1);
        let random = &mut self.random;
        let wants = random.range(1, (most - prompt.len()).min(60));
        let priority = match self.priorities {
            true => random.below(3) as i32 - 1,
            false => 0,
        };
        let echo = random.one_in(5);
        let tenant = random.below(2) as u8;
        // Sometimes several answers to the same.
        let choices = if random.one_in(4) {
            random.range(2, 4)
        } else {
            1
        };
        for _ in 0..choices {
            let random = &mut self.random;
            let (sender, stream) = reply::tokens(reply::RingSource::Heap, Lag::default());
            self.clients.push(Client {
                tenant,
                want: alone(&prompt, wants, self.vocab),
                leaves_after: random.one_in(4).then(|| random.below(wants + 1)),
                echo: if echo { prompt.len() } else { 0 },
                heard: Vec::new(),
                echoed: 0,
                cached: 0,
                ended: false,
                stream: Some(stream),
            });
            let request = GenerateRequest {
                prompt: prompt.clone(),
                stop: StopRules {
                    ignore_end: true,
                    ..StopRules::default()
                },
                echo_logprobs: echo,
                priority,
                salt: Some([tenant; 32]),
                ..GenerateRequest::default()
            };
            self.generation.accept(Arrival {
                words: Words::new(&request.prompt, wants, None).expect("the heap has room"),
                request,
                longest: wants,
                arrived: Instant::now(),
                reply: sender,
            });
        }
    }

    fn step(&mut self) {
        let before = self.lengths();
        let (_, waiting) = self.generation.sequences();
        let highest = waiting.iter().map(|s| s.seniority().priority).max();
        let chunk = self.generation.chunk_tokens();
        let preempted = self.generation.totals().preemptions;
        self.generation.decoder_mut().rows = 0;
        let prompts = self.generation.step(&mut []);
        let rows = self.generation.decoder().rows;
        assert!(rows <= self.rules.batch_tokens, "{rows} rows");
        assert!(prompts <= chunk, "{prompts} rows of prompts");
        let preempted = self.generation.totals().preemptions - preempted;
        if self.rules.admission == Admission::Reserve && !self.priorities {
            assert_eq!(preempted, 0);
        }
        self.check_blocks();
        self.check_order(before, highest, rows);
        self.generation.tidy();
        self.check_blocks();
        self.reclaim();
        for client in &mut self.clients {
            client.listen();
        }
    }

    /// Now and then takes a rung, or lets others take or leave what was freed.
    fn reclaim(&mut self) {
        let Some(others) = &mut self.others else {
            return;
        };
        let random = &mut self.random;
        match random.below(12) {
            0 | 1 => {
                let bytes = Bytes(self.ledger.free().0 * random.range(1, 4) as u64 / 4);
                let account = self.ledger.root().child("others", Lifetime::Episodic);
                others.push(account.reserve(bytes).expect("it is free"));
            }
            2 => others.clear(),
            3..8 => {
                let rung = Rung::ALL[random.below(7)];
                let bytes = Bytes(random.below(self.blocks << 11) as u64);
                let freed = self.generation.reclaim(rung, bytes);
                assert!(freed.bytes.is_zero() || !freed.what.is_empty());
                self.taken[rung as usize] += u64::from(!freed.what.is_empty());
                self.check_blocks();
            }
            _ => {}
        }
    }

    /// Tokens stored of each sequence that runs and is still wanted, most senior first.
    fn lengths(&self) -> Vec<(Seniority, usize)> {
        let (running, _) = self.generation.sequences();
        let mut all: Vec<_> = running
            .iter()
            .filter(|sequence| !sequence.abandoned())
            .map(|sequence| (sequence.seniority(), sequence.table.len()))
            .collect();
        all.sort_unstable_by(|a, b| a.0.order(b.0));
        all
    }

    fn check_blocks(&mut self) {
        let cache = self.generation.cache();
        let references: Vec<usize> = (0..self.blocks as u32)
            .map(|block| cache.references(block) as usize)
            .collect();
        let (available, report) = (cache.available(), cache.report());
        let (running, waiting) = self.generation.sequences();
        assert!(running.len() <= self.rules.parallel);
        assert!(waiting.iter().all(|s| s.table.blocks().is_empty()));
        let mut held: BTreeMap<u32, Vec<u8>> = BTreeMap::new();
        for sequence in running {
            let blocks = sequence.table.blocks();
            let tokens = sequence.table.len();
            assert_eq!(blocks.len(), tokens.div_ceil(BLOCK_TOKENS));
            let tenant = self.clients[sequence.seniority().order as usize].tenant;
            for &block in blocks {
                held.entry(block).or_default().push(tenant);
            }
            if let Some(&last) = blocks.last()
                && !tokens.is_multiple_of(BLOCK_TOKENS)
            {
                assert_eq!(references[last as usize], 1, "block {last} is written");
            }
        }
        for (block, &references) in (0..).zip(&references) {
            let tenants = held.get(&block).map_or(&[][..], Vec::as_slice);
            assert_eq!(references, tenants.len(), "holders of block {block}");
            let shared = tenants.len() > 1;
            assert!(!shared || self.rules.fingerprint.is_some());
            assert!(tenants.iter().all(|&t| t == tenants[0]), "block {block}");
        }
        assert_eq!(report.blocks_used, held.len());
        assert_eq!(available, report.blocks_capacity - held.len());
        assert!(report.blocks_capacity >= self.longest);
        assert!(self.others.is_some() || report.blocks_capacity == self.blocks);
    }

    /// `before` and `highest` are the lengths of the running and the highest priority among the waiting
    /// before the step.
    fn check_order(&self, before: Vec<(Seniority, usize)>, highest: Option<i32>, rows: usize) {
        let inside = |client: &Client| client.inside();
        if self.clients.iter().any(inside) {
            assert!(rows > 0, "nothing ran");
        }
        let after: BTreeMap<_, _> = self
            .lengths()
            .into_iter()
            .map(|(s, len)| (s.order, len))
            .collect();
        let (running, waiting) = self.generation.sequences();
        if let Some((first, len)) = before.first() {
            let advanced = after.get(&first.order).is_none_or(|now| now > len);
            assert!(advanced, "{first:?} stood still");
            // It has ended if it is not there any more, or was displaced by a higher priority.
            let displaced = waiting.iter().any(|s| s.seniority().order == first.order);
            let above = highest.is_some_and(|priority| priority > first.priority);
            assert!(!displaced || above, "{first:?} was preempted");
        }
        for waits in waiting {
            let waits = waits.seniority();
            assert!(
                waits.overtaken < OVERTAKES_MAX + self.rules.parallel as u32,
                "{waits:?} starves"
            );
            for runs in running {
                let runs = runs.seniority();
                assert!(
                    waits.priority != runs.priority || runs.order < waits.order || runs.promoted(),
                    "{runs:?} overtook {waits:?}"
                );
            }
        }
    }
}

/// Runs a seed to its end.
fn simulate(seed: u64, vocabulary: &Arc<Vocabulary>, taken: &mut [u64]) -> Totals {
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
    for (sum, times) in taken.iter_mut().zip(simulation.taken) {
        *sum += times;
    }
    simulation.generation.totals()
}

fn vocabulary() -> Arc<Vocabulary> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models/llama");
    let file = ModelFile::open(&folder).unwrap_or_else(|e| panic!("{e}"));
    Arc::new(Vocabulary::open(&file).unwrap_or_else(|e| panic!("{e}")))
}

#[test]
fn every_seed_keeps_its_promises() {
    let vocabulary = vocabulary();
    let mut sum = Totals::default();
    let mut taken = [0; Rung::ALL.len()];
    for seed in 0..2000 {
        let run = std::panic::AssertUnwindSafe(|| simulate(seed, &vocabulary, &mut taken));
        match std::panic::catch_unwind(run) {
            Ok(totals) => {
                sum.preemptions += totals.preemptions;
                sum.overtakes += totals.overtakes;
                sum.forks += totals.forks;
                sum.prefix_hit_tokens += totals.prefix_hit_tokens;
                sum.restored_bytes += totals.restored_bytes;
                sum.evicted_blocks += totals.evicted_blocks;
                sum.moved_bytes += totals.moved_bytes;
                sum.spill_failures += totals.spill_failures;
            }
            Err(panic) => {
                eprintln!("seed {seed}");
                std::panic::resume_unwind(panic);
            }
        }
    }
    let common = [
        sum.preemptions,
        sum.overtakes,
        sum.forks,
        sum.prefix_hit_tokens,
        sum.restored_bytes,
        sum.evicted_blocks,
        sum.moved_bytes,
    ];
    assert!(common.iter().all(|&count| count > 100), "{sum:?}");
    assert_eq!(sum.spill_failures, 0);
    for rung in Rung::ALL {
        let acts = matches!(
            rung,
            Rung::TrimPools
                | Rung::DropPrefixes
                | Rung::Compact
                | Rung::ShrinkKv
                | Rung::ShrinkPrefill
                | Rung::Preempt
        );
        assert_eq!(taken[rung as usize] > 10, acts, "{rung}: {taken:?}");
    }
}
