//! A trace run against pools that are set up one way or another: what each would have held, and how long
//! it would have taken.
//!
//! A replay takes and gives in the order of the trace, as fast as it can; upkeep that a server does once
//! a second is done when the trace's clock says so. It runs twice over: once only timed, once looked at
//! after every event.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::account::Lifetime;
use crate::buffer_pool::{Buffer, BufferPool};
use crate::bytes::Bytes;
use crate::heap_pool::{HeapPool, Strategy};
use crate::ledger::Ledger;
use crate::membrane::{MembraneOptions, Membranes, MembranesReport, Weights};
use crate::pools::PoolsOptions;
use crate::source::{PoolError, SpanSource};
use crate::trace::file::Trace;

/// What a replay may be charged: as much as it asks for. The memory is mapped but never written, so
/// that it takes none.
const BUDGET: Bytes = Bytes(1 << 46);
/// How often a server looks after its pools.
const UPKEEP: Duration = Duration::from_secs(1);
/// Of so many timed runs the quickest counts: what was slower was disturbed.
const TIMED_RUNS: usize = 5;

/// One way to serve the asks of a trace.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// The process allocator, block by block.
    ProcessAllocator,
    /// Pools.
    Pools {
        /// By what a heap is chosen.
        strategy: Strategy,
        /// Whether there are membranes over the heaps, and how their levels are weighted.
        membranes: Option<Weights>,
        /// Whether buffers are kept to be used again.
        buffers: bool,
    },
}

impl fmt::Display for Way {
    /// `least-used, membranes rooted-trees, buffers`
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let text = match self {
            Way::ProcessAllocator => "process allocator".to_owned(),
            Way::Pools {
                strategy,
                membranes,
                buffers,
            } => {
                let membranes = membranes.map_or_else(
                    || "no membranes".to_owned(),
                    |weights| format!("membranes {weights}"),
                );
                let buffers = if *buffers { "buffers" } else { "no buffers" };
                format!("{}, {membranes}, {buffers}", strategy.name())
            }
        };
        f.pad(&text)
    }
}

/// What was held after an event.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Sample {
    /// Microseconds, by the trace's clock.
    pub time_us: u64,
    /// Bytes of the blocks that are out, as asked for.
    pub used_bytes: u64,
    /// Bytes that the heaps have handed out: blocks, rounded, with what buffers and membranes keep.
    pub held_bytes: u64,
    /// Bytes that are charged.
    pub committed_bytes: u64,
}

/// Where a block lay, and how long.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Placed {
    /// Address of its first byte.
    pub start: usize,
    /// Bytes asked for.
    pub len: usize,
    /// When it was taken, by the trace's clock.
    pub from_us: u64,
    /// When it was given back; the end of the trace where it was not.
    pub to_us: u64,
    /// How long it was said to live.
    pub lifetime: Lifetime,
}

/// What came of it.
#[derive(Clone, Debug)]
pub struct Replay {
    /// Which way it was.
    pub way: Way,
    /// Takes and gives.
    pub events: usize,
    /// Time per event: the quickest of a few runs, the loop included.
    pub event_ns: f64,
    /// The most bytes that blocks had asked for at one moment.
    pub used_peak_bytes: u64,
    /// The most that heaps had handed out; `None` of the process allocator, which does not tell.
    pub held_peak_bytes: Option<u64>,
    /// The most that was charged; `None` of the process allocator.
    pub committed_peak_bytes: Option<u64>,
    /// External fragmentation of the heaps, averaged over the events.
    pub fragmentation_ratio: Option<f64>,
    /// The share of takes that reused a buffer.
    pub hit_ratio: Option<f64>,
    /// Blocks that were mapped one by one.
    pub fallbacks: u64,
    /// Blocks that could not be had.
    pub refused: u64,
    /// The membranes at the end of it.
    pub membranes: Option<MembranesReport>,
    /// After each event.
    pub samples: Vec<Sample>,
    /// Where each block lay.
    pub placed: Vec<Placed>,
}

impl Replay {
    /// What was held at the most beyond what was asked for at the most.
    pub fn overhead_ratio(&self) -> Option<f64> {
        let used = self.used_peak_bytes;
        let held = self.held_peak_bytes?;
        (used > 0).then(|| held as f64 / used as f64 - 1.0)
    }
}

/// A block that is out.
enum Held {
    Buffer(Buffer),
    Plain(Vec<u8>),
}

impl Held {
    fn address(&self) -> usize {
        match self {
            Held::Buffer(buffer) => buffer.as_ptr() as usize,
            Held::Plain(plain) => plain.as_ptr() as usize,
        }
    }
}

/// Pools set up one way, with an account of their own.
struct Setting {
    ledger: Ledger,
    pools: Option<(HeapPool, Option<Membranes>, BufferPool)>,
}

impl Setting {
    fn new(way: Way, options: &PoolsOptions) -> Result<Setting, PoolError> {
        let ledger = Ledger::new(BUDGET);
        let account = ledger.root();
        let Way::Pools {
            strategy,
            membranes,
            buffers,
        } = way
        else {
            return Ok(Setting {
                ledger,
                pools: None,
            });
        };
        let mut heap_options = options.heap_pool();
        heap_options.strategy = strategy;
        let heaps = HeapPool::start(heap_options, &account)?;
        let membranes = membranes
            .map(|weights| {
                let options = MembraneOptions {
                    weights,
                    ..options.membrane_levels()
                };
                Membranes::new(options, &heaps)
            })
            .transpose()?;
        let source: Arc<dyn SpanSource> = match &membranes {
            Some(membranes) => Arc::new(membranes.clone()),
            None => Arc::new(heaps.clone()),
        };
        let mut buffer_options = options.buffer_pool();
        buffer_options.keep = buffers;
        Ok(Setting {
            ledger,
            pools: Some((heaps, membranes, BufferPool::new(source, buffer_options))),
        })
    }

    #[inline]
    fn take(&self, len: usize, lifetime: Lifetime) -> Option<Held> {
        match &self.pools {
            Some((_, _, buffers)) => buffers.acquire(len, lifetime).ok().map(Held::Buffer),
            None => {
                let mut plain = Vec::new();
                plain.try_reserve_exact(len).ok()?;
                Some(Held::Plain(plain))
            }
        }
    }

    /// What a server does once a second.
    fn look_after(&self, now: Instant) {
        if let Some((heaps, _, buffers)) = &self.pools {
            buffers.clean_up_if_due(now);
            heaps.compact_if_due(now);
        }
    }

    fn sample(&self, time_us: u64, used_bytes: u64) -> Sample {
        let held = self
            .pools
            .as_ref()
            .map_or(0, |(heaps, _, _)| heaps.report().used_bytes);
        Sample {
            time_us,
            used_bytes,
            held_bytes: held,
            committed_bytes: self.ledger.granted().0,
        }
    }
}

/// Runs a trace against pools of the sizes of `options`, set up the way that `way` says.
///
/// # Errors
/// Where there can be no such pools.
pub fn replay(trace: &Trace, way: Way, options: &PoolsOptions) -> Result<Replay, PoolError> {
    let mut event_ns = f64::INFINITY;
    for _ in 0..TIMED_RUNS {
        event_ns = event_ns.min(timed(trace, &Setting::new(way, options)?));
    }
    let mut replay = observed(trace, way, &Setting::new(way, options)?);
    replay.event_ns = event_ns;
    Ok(replay)
}

/// Calls `each` with every event, and `upkeep` whenever a second of the trace has passed.
fn run(trace: &Trace, mut each: impl FnMut(usize), mut upkeep: impl FnMut(Duration)) {
    let mut next = UPKEEP;
    for (at, event) in trace.events.iter().enumerate() {
        let time = Duration::from_micros(event.time_us);
        if time >= next {
            upkeep(time);
            next = time + UPKEEP;
        }
        each(at);
    }
}

fn timed(trace: &Trace, setting: &Setting) -> f64 {
    let mut out: Vec<Option<Held>> = Vec::new();
    out.resize_with(trace.blocks.len(), || None);
    let begun = Instant::now();
    let mut kept_up = Duration::ZERO;
    run(
        trace,
        |at| {
            let event = &trace.events[at];
            let block = event.block as usize;
            out[block] = if event.gives {
                None
            } else {
                let traced = &trace.blocks[block];
                setting.take(len_of(traced.bytes), traced.lifetime)
            };
        },
        |time| {
            let upkeep = Instant::now();
            setting.look_after(begun + time);
            kept_up += upkeep.elapsed();
        },
    );
    let took = begun.elapsed().saturating_sub(kept_up);
    took.as_nanos() as f64 / trace.events.len().max(1) as f64
}

fn observed(trace: &Trace, way: Way, setting: &Setting) -> Replay {
    let begun = Instant::now();
    let mut out: Vec<Option<Held>> = Vec::new();
    out.resize_with(trace.blocks.len(), || None);
    let end_us = trace.events.last().map_or(0, |event| event.time_us);
    let mut placed: Vec<Placed> = Vec::with_capacity(trace.blocks.len());
    let mut places: Vec<Option<usize>> = vec![None; trace.blocks.len()];
    let mut samples: Vec<Sample> = Vec::with_capacity(trace.events.len());
    let (mut used, mut refused, mut fragmentation) = (0_u64, 0, 0.0);
    run(
        trace,
        |at| {
            let event = &trace.events[at];
            let block = event.block as usize;
            let traced = &trace.blocks[block];
            if event.gives {
                if out[block].take().is_some() {
                    used = used.saturating_sub(traced.bytes);
                }
                if let Some(place) = places[block] {
                    placed[place].to_us = event.time_us;
                }
            } else {
                let len = len_of(traced.bytes);
                match setting.take(len, traced.lifetime) {
                    Some(held) => {
                        used = used.saturating_add(traced.bytes);
                        places[block] = Some(placed.len());
                        placed.push(Placed {
                            start: held.address(),
                            len,
                            from_us: event.time_us,
                            to_us: end_us,
                            lifetime: traced.lifetime,
                        });
                        out[block] = Some(held);
                    }
                    None => refused += 1,
                }
            }
            samples.push(setting.sample(event.time_us, used));
            if let Some((heaps, _, _)) = &setting.pools {
                fragmentation += heaps.report().fragmentation_ratio;
            }
        },
        |time| setting.look_after(begun + time),
    );
    let peak = |part: fn(&Sample) -> u64| samples.iter().map(part).max().unwrap_or(0);
    let pooled = setting.pools.as_ref();
    Replay {
        way,
        events: trace.events.len(),
        event_ns: f64::INFINITY,
        used_peak_bytes: peak(|sample| sample.used_bytes),
        held_peak_bytes: pooled.map(|_| peak(|sample| sample.held_bytes)),
        committed_peak_bytes: pooled.map(|_| peak(|sample| sample.committed_bytes)),
        fragmentation_ratio: pooled.map(|_| fragmentation / samples.len().max(1) as f64),
        hit_ratio: pooled.and_then(|(_, _, buffers)| buffers.report().hit_ratio),
        fallbacks: pooled.map_or(0, |(heaps, _, _)| heaps.report().fallback_total),
        refused,
        membranes: pooled.and_then(|(_, membranes, _)| membranes.as_ref().map(Membranes::report)),
        samples,
        placed,
    }
}

/// A length of this address space; one beyond it is refused like any that is too long.
fn len_of(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}
