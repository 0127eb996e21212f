//! A seeded trace of requests: chats that share beginnings, sampled and greedy, embeddings, and clients
//! that leave.

use std::sync::Arc;

use bursar_engine::{
    EmbedEvent, EmbedRequest, EngineError, Event, GenerateParams, GenerateRequest, Rejected,
    SamplingParams, TokenStream, VectorStream,
};

use crate::house::House;
use crate::load::greedy;

/// As many are in at once.
const WAVE: usize = 40;

/// How a request ended: its answer, to the bit, or that it was refused.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Outcome {
    Words(Vec<(u32, u32)>, String),
    Vectors(Vec<Vec<u32>>),
    Refused(String),
    /// It left; what it had read.
    Left(Vec<u32>),
}

enum Job {
    Write {
        model: usize,
        request: GenerateRequest,
        leaves_after: Option<usize>,
    },
    Embed(Vec<Vec<u32>>),
}

pub(crate) struct Trace(Vec<Job>);

/// Xorshift (Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, n: u32) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 32) as u32 % n
    }
}

impl Trace {
    pub(crate) fn new(seed: u64, count: usize) -> Self {
        let mut random = Random(seed);
        let mut job = |_| match random.below(20) {
            0..5 => {
                let texts = 1 + random.below(4);
                let mut text = |_| {
                    (0..1 + random.below(20))
                        .map(|_| 3 + random.below(90))
                        .collect()
                };
                Job::Embed((0..texts).map(&mut text).collect())
            }
            kind => {
                let model = usize::from(kind > 16);
                // Several begin alike.
                let shared = 16 * random.below(3);
                let own = 1 + random.below(8) + 100 * model as u32;
                let mut prompt: Vec<u32> = (0..shared).map(|i| 3 + i * 7 % 90).collect();
                prompt.extend((0..own).map(|_| 3 + random.below(90)));
                let mut request = greedy(&prompt, 2 + random.below(10) as usize);
                request.logprobs = (random.below(3) == 0).then_some(1);
                if random.below(2) == 0 {
                    request.seed = u64::from(random.below(1000));
                    let sampling = SamplingParams {
                        temperature: 0.8,
                        ..SamplingParams::default()
                    };
                    request.params = Arc::new(GenerateParams::from(sampling));
                }
                let leaves = (random.below(8) == 0).then(|| random.below(3) as usize);
                Job::Write {
                    model,
                    request,
                    leaves_after: leaves,
                }
            }
        };
        Self((0..count).map(&mut job).collect())
    }

    /// Runs the first `count`, a wave at a time, and says how each ended.
    pub(crate) fn run(&self, house: &House, count: usize) -> Vec<Outcome> {
        let mut outcomes = Vec::new();
        for wave in self.0[..count].chunks(WAVE) {
            let begun: Vec<_> = wave.iter().map(|job| begin(house, job)).collect();
            outcomes.extend(begun.into_iter().map(Begun::end));
        }
        outcomes
    }
}

enum Begun {
    Words(TokenStream, Option<usize>),
    Vectors(VectorStream),
    Refused(String),
}

fn begin(house: &House, job: &Job) -> Begun {
    let rejected = |error: Rejected| match error {
        Rejected::Never(error) => Begun::Refused(refusal(&error)),
        Rejected::NoMemory(error) => {
            let refusal = error.refusal().expect("for want of memory");
            assert!(refusal.injected, "{refusal}");
            Begun::Refused(refusal.to_string())
        }
        error => panic!("{error}"),
    };
    match job {
        Job::Write {
            model,
            request,
            leaves_after,
        } => {
            let request = GenerateRequest {
                account: Some(house.account.clone()),
                ..request.clone()
            };
            match house.models[*model].submit(request) {
                Ok(stream) => Begun::Words(stream, *leaves_after),
                Err(error) => rejected(error),
            }
        }
        Job::Embed(texts) => {
            let request = EmbedRequest {
                tokens: texts.clone(),
                ..EmbedRequest::default()
            };
            match house.models[2].embed_in(request, house.pools.buffers()) {
                Ok(stream) => Begun::Vectors(stream),
                Err(error) => rejected(error),
            }
        }
    }
}

impl Begun {
    fn end(self) -> Outcome {
        match self {
            Begun::Words(stream, leaves_after) => words(stream, leaves_after),
            Begun::Vectors(stream) => vectors(stream),
            Begun::Refused(why) => Outcome::Refused(why),
        }
    }
}

fn words(mut stream: TokenStream, leaves_after: Option<usize>) -> Outcome {
    let (mut tokens, mut all) = (Vec::new(), String::new());
    loop {
        if leaves_after.is_some_and(|after| tokens.len() >= after) {
            return Outcome::Left(tokens.into_iter().map(|(token, _)| token).collect());
        }
        match stream.recv_blocking().expect("an end") {
            Event::Token {
                token,
                text,
                logprob,
                ..
            } => {
                tokens.push((token, logprob.map_or(0, f32::to_bits)));
                all.push_str(text);
            }
            Event::Text(text) => all.push_str(text),
            Event::PromptToken { .. } => {}
            Event::Done { .. } => return Outcome::Words(tokens, all),
            Event::Failed(error) => return Outcome::Refused(refusal(&error)),
        }
    }
}

fn vectors(mut stream: VectorStream) -> Outcome {
    loop {
        match stream.recv_blocking().expect("an end") {
            EmbedEvent::Vector { .. } => {}
            EmbedEvent::Done { vectors, .. } => {
                let bits = |row: &[f32]| row.iter().map(|x| x.to_bits()).collect();
                return Outcome::Vectors(vectors.iter().map(bits).collect());
            }
            EmbedEvent::Failed(error) => return Outcome::Refused(refusal(&error)),
        }
    }
}

/// That a request may end so for want of memory, in words.
fn refusal(error: &EngineError) -> String {
    let refusal = error.refusal().unwrap_or_else(|| panic!("{error:?}"));
    assert!(refusal.injected, "{error}");
    error.to_string()
}
