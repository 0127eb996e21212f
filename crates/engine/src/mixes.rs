//! Random mixes of requests over real, tiny models: whatever else runs, each answer is that of the same
//! request alone on a cold engine, tokens and log-probabilities, bit for bit.
//!
//! Everything is drawn from a seed: model, types, sizes, lengths, arrivals, shared beginnings,
//! tenants, priorities, who leaves, what memory is taken away and given back meanwhile. What is to be survived has to happen: the runs in which cached
//! blocks were evicted, sequences preempted, blocks written to disk and read again, blocks moved, and
//! the cache made smaller are counted.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bursar_files::synth::{self, Preset};
use bursar_files::{ModelConfig, ModelFile};
use bursar_kernels::isa::Isa;
use bursar_kernels::kv_view::{KvDtype, KvLayout, KvShape};
use bursar_kv::KvPlan;
use bursar_memory::region::charge_of;
use bursar_memory::{Bytes, HugePages, Ledger, Mapping, Rung};
use bursar_workers::Workers;

use crate::batch::LoadedModel;
use crate::generate::LoadOptions;
use crate::load::{EngineModel, Job};
use crate::options::{CompactionOptions, SpillOptions};
use crate::plan::{MemoryPlan, PlanRequest, WeightsRequest};
use crate::process::ProcessBase;
use crate::reply::{self, Event, Lag, TokenStream};
use crate::request::GenerateRequest;
use crate::schedule::Admission;
use crate::sequence::Arrival;
use crate::sim::Random;
use crate::spill::Spill;
use crate::step::{Generation, Rules, Totals};
use crate::stop::StopRules;
use crate::vocabulary::Vocabulary;
use crate::words::Words;
use bursar_model::Purpose;

const ARCHES: [&str; 3] = ["tiny-llama", "tiny-qwen2", "tiny-qwen3"];
const WEIGHTS: [&str; 4] = ["f32", "bf16", "q8_0", "q4_k"];

/// How keys and values are stored in a mix.
const STORED: [[KvDtype; 2]; 6] = [
    [KvDtype::F32, KvDtype::F32],
    [KvDtype::F16, KvDtype::F16],
    [KvDtype::BF16, KvDtype::BF16],
    [KvDtype::Q8_0, KvDtype::Q8_0],
    [KvDtype::F16, KvDtype::BF16],
    [KvDtype::Q8_0, KvDtype::F16],
];

/// Most blocks of a slab where slabs are to run empty.
const FEW: usize = 8;

/// The cache of a mix.
#[derive(Copy, Clone)]
struct Cache {
    stored: [KvDtype; 2],
    block_tokens: usize,
    blocks: usize,
}

/// Models written to a folder of their own, which goes with them.
struct Models {
    dir: std::path::PathBuf,
    files: Vec<ModelFile>,
    base: ProcessBase,
    workers: Arc<Workers>,
}

impl Models {
    /// All pairs, in a folder that is told apart by `name`.
    fn write(name: &str, weights: &[&str], arches: &[&str]) -> Self {
        let folder = format!("bursar-{name}-{}", std::process::id());
        let dir = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&dir).expect("a temporary folder");
        let mut files = Vec::new();
        for weights in weights {
            for arch in arches {
                let spec = format!("{arch}:{weights}");
                let preset = Preset::parse(&spec).unwrap_or_else(|e| panic!("{e}"));
                let path = dir.join(format!("{arch}-{weights}.gguf"));
                synth::write(&preset, 1, &path, &mut |_| {}).unwrap_or_else(|e| panic!("{e}"));
                files.push(ModelFile::open(&path).unwrap_or_else(|e| panic!("{e}")));
            }
        }
        Self {
            dir,
            files,
            base: ProcessBase::measure().unwrap_or_else(|e| panic!("{e}")),
            workers: Arc::new(Workers::new(1)),
        }
    }

    /// A model with a cache. Times are drawn from `seed`; `spill` is the size of a file.
    fn load(
        &self,
        file: &ModelFile,
        cache: Cache,
        rules: Rules,
        spill: Option<u64>,
        seed: u64,
    ) -> Running {
        let Cache {
            stored,
            block_tokens,
            blocks,
        } = cache;
        let budget = Bytes(1 << 30);
        let vocabulary = Vocabulary::open(file).unwrap_or_else(|e| panic!("{e}"));
        let request = request(stored, block_tokens, &rules);
        let plan = MemoryPlan::new(file, &vocabulary, self.base, &request, budget);
        let mut plan = plan.unwrap_or_else(|e| panic!("{e}"));
        let layout = *plan.model.kv();
        let kv = KvPlan::for_context(layout, blocks * block_tokens, 1);
        plan.kv = Some(kv.unwrap_or_else(|e| panic!("{e}")));
        let ledger = Ledger::new(budget);
        let options = LoadOptions { isa: Isa::best() };
        let workers = Arc::clone(&self.workers);
        let model = EngineModel::load(
            "model",
            file,
            vocabulary,
            plan,
            &ledger,
            options,
            workers,
            &mut |_| {},
        );
        let model = model.unwrap_or_else(|e| panic!("{e}"));
        let Job::Generate {
            kv,
            sampler,
            fingerprint,
            ..
        } = model.job
        else {
            panic!("it generates");
        };
        let spill = spill.map(|bytes| {
            let options = SpillOptions {
                dir: self.dir.clone(),
                bytes: Bytes(bytes),
            };
            Spill::create(&options, layout.block_bytes()).unwrap_or_else(|e| panic!("{e}"))
        });
        let decoder = LoadedModel {
            model: model.model,
            workers: model.workers,
        };
        let rules = Rules {
            contiguous: false,
            fingerprint: rules.fingerprint.map(|_| fingerprint),
            ..rules
        };
        let mut times = Random(seed);
        let mut now = Duration::ZERO;
        let clock = Box::new(move || {
            now += Duration::from_micros(times.next() % 60_000);
            now
        });
        let arena = charge_of(decoder.model.plan().activation_bytes());
        let arena = ledger.root().reserve(arena).expect("room");
        Running {
            arena: Mapping::new(arena, HugePages::Never).expect("memory"),
            generation: Generation::new(
                decoder,
                kv,
                sampler,
                model.vocabulary,
                rules,
                spill,
                clock,
            ),
        }
    }
}

/// A model at work, and the arena that its steps run in.
struct Running {
    generation: Generation<LoadedModel>,
    arena: Mapping,
}

impl Running {
    /// A step in an arena that is full of what others have left there: no numbers, read as such.
    fn step(&mut self) {
        let arena = self.arena.as_mut_slice();
        arena.fill(0xff);
        self.generation.step(arena);
    }
}

impl Deref for Running {
    type Target = Generation<LoadedModel>;

    fn deref(&self) -> &Self::Target {
        &self.generation
    }
}

impl DerefMut for Running {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.generation
    }
}

impl Drop for Models {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn request(stored: [KvDtype; 2], block_tokens: usize, rules: &Rules) -> PlanRequest {
    PlanRequest {
        purpose: Purpose::Generate,
        context: None,
        parallel: rules.parallel,
        batch_tokens: Some(rules.batch_tokens),
        batch_memory: None,
        kv_dtype_k: stored[0],
        kv_dtype_v: stored[1],
        kv_block_tokens: block_tokens,
        kv_memory: None,
        threads: 1,
        weights: WeightsRequest::default(),
    }
}

/// What a client has heard: comparable to the bit.
#[derive(Clone, Debug, Default, PartialEq)]
struct Heard {
    tokens: Vec<u32>,
    text: String,
    /// Each token's log-probability and the alternatives'.
    logprobs: Vec<Vec<(u32, u32)>>,
    prompt: Vec<Vec<(u32, u32)>>,
    ended: bool,
    cached: usize,
}

fn bits(token: u32, own: Option<f32>, top: &[(u32, f32)]) -> Vec<(u32, u32)> {
    let own = (token, own.map_or(0, f32::to_bits));
    let others = top.iter().map(|&(token, l)| (token, l.to_bits()));
    std::iter::once(own).chain(others).collect()
}

impl Heard {
    fn listen(&mut self, stream: &mut TokenStream) {
        while let Some(event) = stream.try_recv() {
            match event {
                Event::Token {
                    text,
                    token,
                    logprob,
                    top,
                } => {
                    self.text.push_str(text);
                    self.tokens.push(token);
                    self.logprobs.push(bits(token, logprob, top));
                }
                Event::Text(text) => self.text.push_str(text),
                Event::PromptToken {
                    token,
                    logprob,
                    top,
                } => self.prompt.push(bits(token, logprob, top)),
                Event::Done { usage, .. } => {
                    assert!(usage.cached_tokens < usage.prompt_tokens);
                    self.cached = usage.cached_tokens;
                    self.ended = true;
                }
                Event::Failed(error) => panic!("{error}"),
            }
        }
    }

    /// Whether this, to the point where it stopped listening, is the same as the whole.
    fn begins(&self, whole: &Heard) -> bool {
        whole.tokens.starts_with(&self.tokens)
            && whole.logprobs.starts_with(&self.logprobs)
            && whole.text.starts_with(&self.text)
            && whole.prompt.starts_with(&self.prompt)
            && (!self.ended || self.tokens.len() == whole.tokens.len())
            && (!self.ended || self.prompt.len() == whole.prompt.len())
    }
}

/// What a client asks.
#[derive(Clone)]
struct Ask {
    prompt: Vec<u32>,
    wants: usize,
    echo: bool,
    priority: i32,
    tenant: u8,
    leaves_after: Option<usize>,
}

fn accept(generation: &mut Generation<LoadedModel>, ask: &Ask) -> TokenStream {
    let (sender, stream) = reply::tokens(reply::RingSource::Heap, Lag::default());
    let request = GenerateRequest {
        prompt: ask.prompt.clone(),
        stop: StopRules {
            ignore_end: true,
            ..StopRules::default()
        },
        logprobs: Some(2),
        echo_logprobs: ask.echo,
        priority: ask.priority,
        salt: Some([ask.tenant; 32]),
        ..GenerateRequest::default()
    };
    generation.accept(Arrival {
        words: Words::new(&request.prompt, ask.wants, None).expect("the heap has room"),
        request,
        longest: ask.wants,
        arrived: Instant::now(),
        reply: sender,
    });
    stream
}

/// Each of them alone, one after the other, with nothing shared.
fn alone(generation: &mut Running, asks: &[Ask]) -> Vec<Heard> {
    let run = |ask| {
        let mut stream = accept(generation, ask);
        let mut heard = Heard::default();
        while !heard.ended {
            generation.step();
            heard.listen(&mut stream);
        }
        heard
    };
    asks.iter().map(run).collect()
}

/// One mix; gives what happened in it, and whether the cache was made smaller.
fn mix(models: &Models, seed: u64) -> (Totals, bool) {
    let random = &mut Random(seed);
    let index = seed as usize;
    let file = &models.files[index % models.files.len()];
    let config = file.config();
    let stored = STORED[index / models.files.len() % STORED.len()];
    // Few small blocks, which run out; or large ones, enough for all, in several slabs.
    let large = random.one_in(2);
    let block_tokens = match large {
        true => large_block(config, stored),
        false => 16,
    };
    let blocks = match large {
        true => random.range(18, 30),
        false => random.range(8, 13),
    };
    let cache = Cache {
        stored,
        block_tokens,
        blocks,
    };
    let rules = Rules {
        batch_tokens: [32, 64, 128][random.below(3)],
        longest: 0,
        parallel: if large {
            random.range(12, 16)
        } else {
            random.range(4, 8)
        },
        admission: match random.below(8) {
            0 => Admission::Reserve,
            _ => Admission::Grow,
        },
        contiguous: false,
        fingerprint: Some([0; 32]),
        salt: [0; 32],
        books: None,
        compaction: Some(CompactionOptions {
            fragmentation: 0.05,
            efficiency: 0.95,
            bytes_per_step: Bytes(random.range(1 << 18, 1 << 20) as u64),
        }),
        keeps_lists: random.below(4) != 0,
    };
    let cold = Rules {
        fingerprint: None,
        compaction: None,
        parallel: 1,
        ..rules.clone()
    };
    let spill = (!random.one_in(8)).then(|| random.range(4 << 20, 16 << 20) as u64);
    let reclaims = random.one_in(2);
    let asks = asks(random, config.vocab, block_tokens, blocks);
    let longest = asks.iter().map(|ask| ask.prompt.len() + ask.wants).max();
    let rules = Rules {
        longest: longest.unwrap_or(0),
        ..rules
    };
    let mut solo = models.load(file, cache, cold, None, 0);
    let want = alone(&mut solo, &asks);
    drop(solo);

    let mut generation = models.load(file, cache, rules, spill, seed);
    let mut clients: Vec<(usize, Option<TokenStream>, Heard)> = Vec::new();
    let (mut steps, mut shrunk) = (0, false);
    loop {
        let inside = generation.running() + generation.waiting() > 0;
        while clients.len() < asks.len() && (!random.one_in(4) || !inside) {
            let stream = accept(&mut generation, &asks[clients.len()]);
            clients.push((clients.len(), Some(stream), Heard::default()));
            if !inside {
                break;
            }
        }
        if !inside && clients.len() == asks.len() {
            break;
        }
        generation.step();
        generation.tidy();
        if reclaims && random.one_in(6) {
            let rung = Rung::ALL[random.below(7)];
            generation.reclaim(rung, Bytes(random.range(1, 4 << 20) as u64));
            shrunk |= generation.kv().blocks_capacity < blocks;
        }
        for (index, stream, heard) in &mut clients {
            if let Some(open) = stream {
                heard.listen(open);
                let ask = &asks[*index];
                if heard.ended || ask.leaves_after.is_some_and(|n| heard.tokens.len() >= n) {
                    *stream = None;
                }
            }
        }
        steps += 1;
        assert!(steps < 100_000, "seed {seed} does not end");
    }
    for (index, _, heard) in &clients {
        let (ask, want) = (&asks[*index], &want[*index]);
        assert!(heard.ended || ask.leaves_after.is_some());
        assert!(
            heard.begins(want),
            "seed {seed}, {}: request {index} of {} tokens: {:?} instead of {:?}",
            config.name,
            ask.prompt.len(),
            heard.tokens,
            want.tokens,
        );
    }
    let totals = generation.totals();
    let cache = generation.generation.finish();
    assert_eq!(cache.report().blocks_used, 0);
    (totals, shrunk)
}

/// Tokens of a block of which a slab has few.
fn large_block(config: &ModelConfig, [dtype_k, dtype_v]: [KvDtype; 2]) -> usize {
    let few = |&block_tokens: &usize| {
        let layout = KvLayout::in_slabs(KvShape {
            layers: config.layers,
            kv_heads: config.kv_heads,
            head_dim: config.head_dim,
            block_tokens,
            dtype_k,
            dtype_v,
        });
        layout.is_some_and(|layout| layout.blocks_per_slab() as usize <= FEW)
    };
    (64..4096).step_by(64).find(few).expect("some size")
}

/// Requests that often begin alike.
fn asks(random: &mut Random, vocab: usize, block_tokens: usize, blocks: usize) -> Vec<Ask> {
    let tokens = |random: &mut Random, count: usize| -> Vec<u32> {
        (0..count).map(|_| random.below(vocab) as u32).collect()
    };
    let large = block_tokens > 16;
    let beginnings: Vec<Vec<u32>> = (0..2)
        .map(|_| {
            let count = match large {
                true => random.range(1, block_tokens + block_tokens / 4),
                false => random.range(10, 80),
            };
            tokens(random, count)
        })
        .collect();
    let most = (block_tokens * blocks).min(if large { block_tokens * 2 } else { 160 });
    let tenants = random.range(1, 2);
    let priorities = random.one_in(3);
    let mut asks = Vec::new();
    for _ in 0..if large { 16 } else { random.range(7, 12) } {
        // Some end soon and leave gaps between those who stay.
        let wants = match random.one_in(2) {
            true => random.range(1, 8),
            false => random.range(20, 70),
        };
        let mut prompt = match random.below(3) {
            0 => Vec::new(),
            _ => beginnings[random.below(2)].clone(),
        };
        let more = random.range(1, 40);
        prompt.extend(tokens(random, more));
        prompt.truncate(most - wants);
        let ask = Ask {
            prompt,
            wants,
            echo: random.one_in(6),
            priority: if priorities {
                random.below(3) as i32
            } else {
                0
            },
            tenant: random.below(tenants) as u8,
            leaves_after: random.one_in(5).then(|| random.below(wants)),
        };
        // Sometimes the same twice.
        for _ in 0..if random.one_in(5) { 2 } else { 1 } {
            asks.push(ask.clone());
        }
    }
    asks
}

#[test]
fn random_mixes_answer_as_each_request_alone() {
    let models = Models::write("mixes", &WEIGHTS, &ARCHES);
    let mut happened = [
        ("evicted", 0),
        ("preempted", 0),
        ("spilled", 0),
        ("moved", 0),
    ];
    let (mut hits, mut forks, mut restored, mut shrunk) = (0, 0, 0, 0);
    const MIXES: u64 = 200;
    for seed in 0..MIXES {
        let (totals, was_shrunk) = mix(&models, seed);
        shrunk += u64::from(was_shrunk);
        let counts = [
            totals.evicted_blocks,
            totals.preemptions,
            totals.spills,
            totals.moved_bytes,
        ];
        for ((_, runs), count) in happened.iter_mut().zip(counts) {
            *runs += u64::from(count > 0);
        }
        hits += u64::from(totals.prefix_hit_tokens > 0);
        forks += u64::from(totals.forks > 0);
        restored += u64::from(totals.restored_bytes > 0);
        assert_eq!(totals.spill_failures, 0);
    }
    eprintln!(
        "{happened:?}, {hits} with hits, {forks} with forks, {restored} restored, {shrunk} shrunk"
    );
    for (what, runs) in happened {
        assert!(runs * 5 >= MIXES, "{what} in {runs} of {MIXES} runs");
    }
    assert!(hits * 5 >= MIXES && forks > 0 && restored * 10 >= MIXES);
    assert!(shrunk * 10 >= MIXES);
}

/// Eight arrive together on a cold engine, each with 528 tokens of which the first 512 are the same:
/// those are computed once, not eight times.
#[test]
fn a_beginning_that_eight_bring_together_is_computed_once() {
    let models = Models::write("together", &["q8_0"], &["tiny-qwen3"]);
    let vocab = models.files[0].config().vocab as u32;
    let ask = |client: u32| Ask {
        prompt: (0..528)
            .map(|at| (at * 7 + if at < 512 { 0 } else { 1 + client }) % vocab)
            .collect(),
        wants: 64,
        echo: false,
        priority: 0,
        tenant: 0,
        leaves_after: None,
    };
    let asks: Vec<Ask> = (0..8).map(ask).collect();
    let cache = Cache {
        stored: [KvDtype::F16; 2],
        block_tokens: 16,
        blocks: 512,
    };
    let rules = Rules {
        batch_tokens: 256,
        parallel: 8,
        longest: 592,
        admission: Admission::Grow,
        fingerprint: Some([0; 32]),
        salt: [0; 32],
        books: None,
        compaction: None,
        contiguous: false,
        keeps_lists: true,
    };
    let cold = Rules {
        fingerprint: None,
        parallel: 1,
        ..rules.clone()
    };
    let want = alone(
        &mut models.load(&models.files[0], cache, cold, None, 0),
        &asks,
    );
    let mut generation = models.load(&models.files[0], cache, rules, None, 0);
    let mut streams: Vec<TokenStream> = asks
        .iter()
        .map(|ask| accept(&mut generation, ask))
        .collect();
    while generation.running() + generation.waiting() > 0 {
        generation.step();
    }
    let mut cached = Vec::new();
    for (stream, want) in streams.iter_mut().zip(&want) {
        let mut heard = Heard::default();
        heard.listen(stream);
        assert!(heard.ended && heard.begins(want));
        cached.push(heard.cached);
    }
    assert_eq!(generation.totals().prefill_tokens, 512 + 8 * 16);
    cached.sort_unstable();
    assert_eq!(cached, [0, 512, 512, 512, 512, 512, 512, 512]);
}
