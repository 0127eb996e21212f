//! Generation and embedding over models, inside the ledger.
//!
//! - `plan`: every byte of the process before anything is loaded.
//! - `process`: what the process itself takes: code, stacks, small heap.
//! - `vocabulary`: a model's tokenizer, chat template and end tokens.
//! - `generate`: one sequence, from prompt to text.
//! - `sample`, `stop`: which token comes next, and where the text ends.
//! - `embed`, `encoder`: texts to vectors in ragged batches. `pack`: which texts make up a batch.
//! - `text_batch`: a batch of texts as a model takes it.
//!
//! Many requests at once:
//!
//! - `host`: start an engine, put models on it, take them off; `solo` for one model alone. `load` makes a
//!   model ready for it.
//! - `handle`: the way to a model there: submit, snapshot, drain. `request`: what it is asked.
//! - `optimize`: a loaded model into a smaller form while nobody asks it.
//! - `options`: how a model runs.
//! - `look`: its requests and blocks, for who wants to see them.
//! - `reply`: what flows back, and how dropping it cancels.
//! - `params`: how tokens are chosen, one value for all that ask the same.
//! - `schedule`: who runs in a step, as a pure function; `sim` drives it from a seed. `pace`: how many tokens fit its time.
//! - `step`, `sequence`, `batch`: generation step by step. `vectors`: embedding step by step.
//! - `fingerprint`, `chain`: what blocks are found by. `holdings`: what a decision is told of them.
//! - `spill`: blocks on disk, and whether that is worth it.
//! - `inbox`, `bell`: the way in, and what wakes the thread.
//! - `thread`, `seat`, `work`: the thread that owns everything, a model's place on it, and what it does.
//! - `arena`: the memory that all of them run their steps in.
//! - `turns`: whose step is next, as a pure function.
//!
//! Several models: `models`: which are there, who uses them, who goes for whom. `ladder`: what is done
//! when memory is short, cheapest first. `monitor`: looks whether it is.

#![forbid(unsafe_code)]

mod arena;
mod batch;
mod bell;
mod chain;
mod embed;
mod encoder;
mod error;
mod fingerprint;
mod generate;
mod ground;
mod handle;
mod holdings;
mod host;
mod inbox;
mod ladder;
mod lists;
mod load;
mod look;
#[cfg(test)]
mod mixes;
mod models;
mod monitor;
mod optimize;
mod options;
mod pace;
mod pack;
mod params;
mod plan;
mod process;
mod reply;
mod request;
mod sample;
pub mod schedule;
mod seat;
mod sequence;
#[cfg(test)]
mod sim;
mod solo;
mod spill;
mod step;
mod stop;
mod text_batch;
mod thread;
mod turns;
mod vectors;
mod vocabulary;
mod words;
mod work;

pub use arena::ArenaClaim;
pub use bursar_model::{Purpose, Rates, StreamFigures, WeightsDtype};
pub use embed::{EmbedOptions, EmbedStats, Embedder};
pub use encoder::TextEncoder;
pub use error::EngineError;
pub use generate::{FinishReason, Generated, Generator, LoadOptions};
pub use handle::{EngineHandle, EngineSnapshot};
pub use host::{Ended, Endings, Engine, EngineController};
pub use ladder::{Climb, Evicted, Goal, Ladder};
pub use load::EngineModel;
pub use look::{Looking, Made, RequestView, Sight, Waits};
pub use models::{
    Acquire, CacheOptions, CacheTotals, Denied, Eviction, Footprint, Held, KeepAlive, Keeper,
    Lease, LoadError, ModelCache, ModelSource, ModelState, ModelStatus, Shedded, Why, WhyKind,
    unload,
};
pub use monitor::{Listener, Monitor, MonitorOptions, Residents};
pub use optimize::{HeldPart, OptimizeReport};
pub use options::{BatchOptions, CompactionOptions, EngineOptions, SpillOptions};
pub use params::{GenerateParams, ParamsPool, ParamsPoolOptions, ParamsReport, Penalties};
pub use plan::{
    DtypeChoice, Expected, MemoryPlan, Need, PlanPart, PlanRequest, ResidencyChoice, Streaming,
    WeightsRequest, longest_of,
};
pub use process::ProcessBase;
pub use reply::{EmbedEvent, Event, TokenStream, Usage, VectorStream, Vectors};
pub use request::{EmbedRequest, GenerateRequest, Rejected};
pub use sample::{History, Sampler, SamplingError, SamplingParams, argmax};
pub use schedule::Admission;
pub use solo::SoloEngine;
pub use step::{Totals, WaitsFor};
pub use stop::{StopMatcher, StopRules};
pub use turns::TurnWeights;
pub use vocabulary::Vocabulary;
