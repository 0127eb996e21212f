//! [`Workers`]: a few threads that join in a loop over a borrowed slice, again and again, cheaply.
#![allow(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use crate::gate::{Gate, Padded, THREADS_MAX};

/// How long a worker looks for the next job before it sleeps: longer than the serial parts between two
/// parallel ones within a step, short enough that an idle process costs nothing.
const SPIN: Duration = Duration::from_micros(80);

/// The same when there are more threads than cores: then whoever spins keeps another from working.
const SPIN_CROWDED: Duration = Duration::from_micros(4);

/// Stack of a worker thread. The kernels need a few KiB.
const STACK_BYTES: usize = 256 << 10;

/// How a pool is made; `Options::default()` suits a machine of our own.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Options {
    /// Threads in all, the caller included; 0 is taken as 1.
    pub threads: usize,
    /// Stack of each thread that is spawned, in bytes (the system rounds it up to pages).
    pub stack_bytes: usize,
    /// How long to spin before sleeping; `None` chooses by the number of cores.
    pub spin: Option<Duration>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: 1,
            stack_bytes: STACK_BYTES,
            spin: None,
        }
    }
}

/// Why a pool could not be made.
#[derive(Debug)]
pub enum WorkersError {
    /// More threads were asked for than a pool can count.
    TooMany {
        /// Threads asked for.
        threads: usize,
    },
    /// The system gave fewer threads than asked for.
    Spawn {
        /// Number of the worker that could not be started.
        worker: usize,
        /// Threads asked for.
        threads: usize,
        /// What the system said.
        source: std::io::Error,
    },
}

impl std::fmt::Display for WorkersError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::TooMany { threads } => {
                write!(
                    f,
                    "{threads} worker threads asked for, {THREADS_MAX} possible; ask for fewer"
                )
            }
            Self::Spawn {
                worker,
                threads,
                source,
            } => write!(
                f,
                "worker thread {worker} of {threads} could not be started: {source}; \
                 ask for fewer threads or raise the process limit"
            ),
        }
    }
}

impl std::error::Error for WorkersError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::TooMany { .. } => None,
            Self::Spawn { source, .. } => Some(source),
        }
    }
}

/// A pool of threads for fork-join; the thread that calls is worker 0 and works too.
///
/// A call hands borrowed data to the workers and returns when all of it is done; it allocates nothing.
/// Which worker gets which item varies from run to run, so results may not depend on it. One call runs at
/// a time: a call from within a call, or from a second thread meanwhile, does all its work on the calling
/// thread.
#[derive(Debug)]
pub struct Workers {
    gate: Arc<Gate>,
    handles: Vec<JoinHandle<()>>,
    stack_bytes: usize,
}

impl std::fmt::Debug for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Gate")
            .field("sleepers", &self.sleepers())
            .finish_non_exhaustive()
    }
}

/// A pointer that workers may share; what is done with it is argued where it is used.
struct Shared<T>(*mut T);

// SAFETY: the users of `Shared` give each element to one worker at a time, for which `T: Send` is enough.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T> Shared<T> {
    /// # Safety
    /// `i` lies within the slice this came from, and nobody else uses element `i` for the life of the
    /// returned borrow.
    #[allow(clippy::mut_from_ref)]
    unsafe fn element(&self, i: usize) -> &mut T {
        // SAFETY: the caller's duty, stated above.
        unsafe { &mut *self.0.add(i) }
    }
}

impl Workers {
    /// A pool of `threads` in all. Where the system refuses to start some, the pool has fewer;
    /// [`Workers::threads`] tells. See [`Workers::with_options`] to be told why.
    pub fn new(threads: usize) -> Self {
        let threads = threads.clamp(1, THREADS_MAX);
        Self::start(Options {
            threads,
            ..Options::default()
        })
        .0
    }

    /// A pool as the options say.
    ///
    /// # Errors
    /// When a thread could not be started, or there are more than a pool can count.
    pub fn with_options(options: Options) -> Result<Self, WorkersError> {
        if options.threads > THREADS_MAX {
            return Err(WorkersError::TooMany {
                threads: options.threads,
            });
        }
        match Self::start(options) {
            (workers, None) => Ok(workers),
            (_, Some(error)) => Err(error),
        }
    }

    fn start(options: Options) -> (Self, Option<WorkersError>) {
        let threads = options.threads.max(1);
        let cores = std::thread::available_parallelism().map_or(1, |n| n.get());
        let spin = options
            .spin
            .unwrap_or(if threads > cores { SPIN_CROWDED } else { SPIN });
        let gate = Arc::new(Gate::new(spin));
        let mut handles = Vec::with_capacity(threads - 1);
        let mut refused = None;
        for worker in 1..threads {
            let inner = Arc::clone(&gate);
            let spawned = std::thread::Builder::new()
                .name(format!("worker-{worker}"))
                .stack_size(options.stack_bytes)
                .spawn(move || inner.serve(worker));
            match spawned {
                Ok(handle) => handles.push(handle),
                Err(source) => {
                    refused = Some(WorkersError::Spawn {
                        worker,
                        threads,
                        source,
                    });
                    break;
                }
            }
        }
        (
            Self {
                gate,
                handles,
                stack_bytes: options.stack_bytes,
            },
            refused,
        )
    }

    /// How many threads work, the caller included.
    pub fn threads(&self) -> usize {
        self.handles.len() + 1
    }

    /// Bytes of stack reserved for the spawned threads together.
    pub fn stack_bytes(&self) -> usize {
        self.handles.len() * self.stack_bytes
    }

    /// Workers asleep at this moment; all but the caller soon after the last call.
    pub fn parked(&self) -> usize {
        self.gate.sleepers()
    }

    /// Calls `f(i)` once for every `i < count`, each on whichever worker claims it first; returns when all
    /// are done.
    ///
    /// # Panics
    /// When `f` does: with the first payload, after every worker has stopped. Some items may then never
    /// have been visited.
    pub fn for_each<F: Fn(usize) + Sync>(&self, count: usize, f: F) {
        if count <= 1 || self.handles.is_empty() {
            return (0..count).for_each(f);
        }
        let next = Padded(AtomicUsize::new(0));
        let claim = |_worker: usize| {
            // Claims stop soon after `count`, one per worker, so this cannot wrap.
            let mut i = next.0.fetch_add(1, Ordering::Relaxed);
            while i < count {
                f(i);
                i = next.0.fetch_add(1, Ordering::Relaxed);
            }
        };
        if !self.gate.run(&claim, None) {
            (0..count).for_each(f);
        }
    }

    /// Calls `f(i, &mut items[i])` once for every item, each on whichever worker claims it first; returns
    /// when all are done.
    ///
    /// # Panics
    /// As [`Workers::for_each`].
    pub fn for_each_mut<T: Send, F: Fn(usize, &mut T) + Sync>(&self, items: &mut [T], f: F) {
        let count = items.len();
        let shared = Shared(items.as_mut_ptr());
        let shared = &shared;
        self.for_each(count, |i| {
            // SAFETY: `i < count`, and `for_each` passes each `i` once; `items` is ours for the call.
            f(i, unsafe { shared.element(i) });
        });
    }

    /// As [`Workers::for_each_mut`], and each worker has one of `locals` to itself (scratch space), which
    /// it finds as the last item on it left it.
    ///
    /// # Panics
    /// As [`Workers::for_each`]; and when there are fewer locals than threads.
    #[track_caller]
    pub fn for_each_mut_with<L: Send, T: Send, F: Fn(&mut L, usize, &mut T) + Sync>(
        &self,
        locals: &mut [L],
        items: &mut [T],
        f: F,
    ) {
        let threads = self.threads();
        assert!(
            locals.len() >= threads,
            "{} locals for {threads} workers",
            locals.len()
        );
        let count = items.len();
        if count > 1 && threads > 1 {
            let locals_shared = &Shared(locals.as_mut_ptr());
            let items_shared = &Shared(items.as_mut_ptr());
            let next = Padded(AtomicUsize::new(0));
            let claim = |worker: usize| {
                // SAFETY: `worker < threads <= locals.len()`; one job runs a worker's number once.
                let local = unsafe { locals_shared.element(worker) };
                let mut i = next.0.fetch_add(1, Ordering::Relaxed);
                while i < count {
                    // SAFETY: `i < count`, and the counter gives each `i` to one worker only.
                    f(local, i, unsafe { items_shared.element(i) });
                    i = next.0.fetch_add(1, Ordering::Relaxed);
                }
            };
            if self.gate.run(&claim, None) {
                return;
            }
        }
        let local = &mut locals[0];
        for (i, item) in items.iter_mut().enumerate() {
            f(local, i, item);
        }
    }

    /// Calls `f(worker)` once on every worker, worker 0 being the caller; returns when all are done. For
    /// what belongs to a thread (touching its pages first, pinning it, asking what it is).
    ///
    /// A call from within a call, or from a second thread meanwhile, runs every number on the calling
    /// thread.
    ///
    /// # Panics
    /// As [`Workers::for_each`].
    pub fn broadcast<F: Fn(usize) + Sync>(&self, f: F) {
        let others = self.handles.len();
        let finished = AtomicUsize::new(0);
        let counted = |worker: usize| {
            /// Counts even when `f` panics, else the caller would wait forever.
            struct Count<'a>(&'a AtomicUsize);
            impl Drop for Count<'_> {
                fn drop(&mut self) {
                    self.0.fetch_add(1, Ordering::SeqCst);
                }
            }
            let _count = (worker != 0).then(|| Count(&finished));
            f(worker);
        };
        let all = || finished.load(Ordering::SeqCst) == others;
        if others == 0 {
            f(0);
        } else if !self.gate.run(&counted, Some(&all)) {
            (0..=others).for_each(f);
        }
    }
}

impl Drop for Workers {
    fn drop(&mut self) {
        self.gate.stop();
        for handle in self.handles.drain(..) {
            // A worker catches its job's panics, so it has none of its own to report.
            let _ = handle.join();
        }
    }
}
