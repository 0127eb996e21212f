//! The engine's thread: takes what has arrived, runs a step, publishes its figures, sleeps when there
//! is nothing to do.

use std::time::{Duration, Instant, SystemTime};

use bursar_kv::{KvReport, keep};

use crate::EngineError;
use crate::batch::LoadedModel;
use crate::handle::{Ended, Face, Published};
use crate::inbox::lock;
use crate::load::{EngineModel, Job};
use crate::schedule::Admission;
use crate::sequence::Arrival;
use crate::spill::Spill;
use crate::step::{Clock, Generation, Rules, Totals};
use crate::vectors::{EmbedArrival, Embedding};

/// A request on its way in.
pub(crate) enum Task {
    Generate(Arrival),
    Embed(EmbedArrival),
}

/// What the model does with tasks; those for the other kind are refused before they get here, and
/// would fail by being dropped.
trait Work {
    fn accept(&mut self, task: Task);
    /// Frees what cancelled requests hold.
    fn sweep(&mut self);
    fn step(&mut self);
    /// Puts memory in order between steps; whether there may be more to do.
    fn tidy(&mut self) -> bool;
    fn running(&self) -> usize;
    fn waiting(&self) -> usize;
    fn totals(&self) -> Totals;
    fn kv(&self) -> Option<KvReport>;
    /// Tokens whose keys and values sequences hold.
    fn stored_tokens(&self) -> usize;
    /// Notes how many bytes of the keys and values are really there.
    fn measure(&self);
    fn chunk_tokens(&self) -> usize;
}

impl Work for Generation<LoadedModel> {
    fn accept(&mut self, task: Task) {
        if let Task::Generate(arrival) = task {
            self.accept(arrival);
        }
    }

    fn sweep(&mut self) {
        self.sweep();
    }

    fn step(&mut self) {
        self.step();
    }

    fn tidy(&mut self) -> bool {
        self.tidy()
    }

    fn running(&self) -> usize {
        self.running()
    }

    fn waiting(&self) -> usize {
        self.waiting()
    }

    fn totals(&self) -> Totals {
        self.totals()
    }

    fn kv(&self) -> Option<KvReport> {
        Some(self.kv())
    }

    fn stored_tokens(&self) -> usize {
        self.stored_tokens()
    }

    fn measure(&self) {
        self.measure();
    }

    fn chunk_tokens(&self) -> usize {
        self.chunk_tokens()
    }
}

impl Work for Embedding {
    fn accept(&mut self, task: Task) {
        if let Task::Embed(arrival) = task {
            self.accept(arrival);
        }
    }

    fn sweep(&mut self) {
        self.sweep();
    }

    fn step(&mut self) {
        self.step();
    }

    fn tidy(&mut self) -> bool {
        false
    }

    fn running(&self) -> usize {
        self.running()
    }

    fn waiting(&self) -> usize {
        self.waiting()
    }

    fn totals(&self) -> Totals {
        self.totals()
    }

    fn kv(&self) -> Option<KvReport> {
        None
    }

    fn stored_tokens(&self) -> usize {
        0
    }

    fn measure(&self) {}

    fn chunk_tokens(&self) -> usize {
        self.chunk_tokens()
    }
}

/// Closes the inbox however the thread ends, so that no client waits for nobody.
struct Farewell<'a>(&'a Face);

impl Drop for Farewell<'_> {
    fn drop(&mut self) {
        self.0.inbox.stop();
        self.0.inbox.settle(0, 0);
        let mut published = lock(&self.0.published);
        published.alive = false;
        published.running = 0;
        published.waiting = 0;
    }
}

/// Milliseconds of this clock are those since 1970, and never go back.
fn clock() -> Clock {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let (since, start) = (since.unwrap_or_default(), Instant::now());
    Box::new(move || since + start.elapsed())
}

/// Runs a model until the inbox is stopped.
pub(crate) fn run(
    model: EngineModel,
    spill: Option<Spill>,
    face: &Face,
) -> Result<Ended, EngineError> {
    // Declared first, so that it speaks last, when all sequences have been dropped.
    let _farewell = Farewell(face);
    let EngineModel {
        model,
        arena,
        workers,
        vocabulary,
        plan,
        job,
        ..
    } = model;
    match job {
        Job::Generate {
            kv,
            sampler,
            fingerprint,
            _sampling,
        } => {
            let options = face.options();
            let contiguous = options.contiguous;
            let shares = options.prefix_cache && !contiguous;
            let rules = Rules {
                batch_tokens: plan.batch_tokens(),
                parallel: plan.parallel(),
                admission: match contiguous {
                    true => Admission::Reserve,
                    false => options.admission,
                },
                contiguous,
                fingerprint: shares.then_some(fingerprint),
                salt: options.salt,
                compaction: options.compaction.filter(|_| !contiguous),
            };
            let spill = spill.filter(|_| !contiguous);
            let decoder = LoadedModel {
                model,
                arena,
                workers,
            };
            let mut generation =
                Generation::new(decoder, kv, sampler, vocabulary, rules, spill, clock());
            serve(&mut generation, face);
            let kv = generation.finish();
            let Some(path) = &options.keep else {
                return Ok(Ended::default());
            };
            let kept = keep::save(path, &fingerprint, &kv)?;
            Ok(Ended {
                kept_blocks: Some(kept.blocks),
            })
        }
        Job::Embed { encoder } => {
            let mut embedding = Embedding::new(model, arena, workers, encoder.normalizes());
            serve(&mut embedding, face);
            Ok(Ended::default())
        }
    }
}

fn serve(work: &mut impl Work, face: &Face) {
    let mut ends = Ends::default();
    let mut measured = Measured::default();
    let mut untidy = false;
    loop {
        let idle = work.running() + work.waiting() == 0 && !untidy;
        let taken = face.inbox.take(idle);
        if taken.stopping {
            return;
        }
        if idle {
            // Time spent asleep is not the length of a queue.
            ends.at = None;
        }
        let start = Instant::now();
        for task in taken.arrivals {
            work.accept(task);
        }
        let before = work.running() + work.waiting();
        work.sweep();
        if work.running() + work.waiting() < before {
            // Who waits for the memory of the cancelled need not wait for a step.
            publish(work, face, &ends);
        }
        work.step();
        untidy = work.tidy();
        let (running, waiting) = (work.running(), work.waiting());
        ends.observe(before - (running + waiting));
        measured.refresh(running + waiting == 0, || work.measure());
        lock(&face.published).step = start.elapsed();
        publish(work, face, &ends);
    }
}

/// Shows what there is now.
fn publish(work: &impl Work, face: &Face, ends: &Ends) {
    let (running, waiting) = (work.running(), work.waiting());
    {
        let mut published = lock(&face.published);
        *published = Published {
            running,
            waiting,
            kv: work.kv(),
            stored_tokens: work.stored_tokens(),
            totals: work.totals(),
            chunk_tokens: work.chunk_tokens(),
            step: published.step,
            progress: Instant::now(),
            alive: true,
            between_ends: ends.mean,
        };
    }
    // Last: who waits for nobody to be inside finds the end of all.
    face.inbox.settle(waiting, running);
}

/// When the resident bytes were last counted, and how long that took.
#[derive(Default)]
struct Measured {
    last: Option<(Instant, Duration)>,
}

/// While there is work, as often, and never more than a hundredth of the time.
const MEASURE_INTERVAL: Duration = Duration::from_secs(1);
const MEASURE_PART: u32 = 100;

impl Measured {
    /// Counts again if it is time; before a pause, at any time that is not dominated by it, because
    /// what is told then is told for long.
    fn refresh(&mut self, pause: bool, measure: impl FnOnce()) {
        if let Some((at, took)) = self.last {
            let wait = match pause {
                true => took * (MEASURE_PART / 10),
                false => (took * MEASURE_PART).max(MEASURE_INTERVAL),
            };
            if at.elapsed() < wait {
                return;
            }
        }
        let begun = Instant::now();
        measure();
        self.last = Some((Instant::now(), begun.elapsed()));
    }
}

/// How long it takes from the end of one request to that of the next.
#[derive(Default)]
struct Ends {
    at: Option<Instant>,
    mean: Duration,
}

impl Ends {
    fn observe(&mut self, ended: usize) {
        let Ok(ended @ 1..) = u32::try_from(ended) else {
            self.at.get_or_insert_with(Instant::now);
            return;
        };
        let now = Instant::now();
        if let Some(at) = self.at {
            let each = (now - at) / ended;
            self.mean = match self.mean {
                Duration::ZERO => each,
                mean => (mean * 7 + each) / 8,
            };
        }
        self.at = Some(now);
    }
}
