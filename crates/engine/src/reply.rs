//! What flows back from the engine: one queue per request, read by one client.
//!
//! What a reader has not read yet is charged to pools or an account; where they have no room, the request ends.
//!
//! The engine never waits for a reader. Dropping the reader is how a request is cancelled: the
//! engine sees it before its next step. Every queue ends with one terminal event, even if the
//! engine's thread dies: a sender that is dropped without one leaves it behind.

mod ring;
mod tokens;
mod vectors;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use crate::EngineError;
use crate::inbox::lock;

pub(crate) use ring::RingSource;
pub use tokens::{Event, TokenStream};
pub(crate) use tokens::{Lag, TokenSender, tokens};
pub use vectors::{EmbedEvent, VectorStream, Vectors};
pub(crate) use vectors::{VectorSender, vectors};

/// What a request came to, in tokens, and how long it waited before.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt (of all texts, for embedding).
    pub prompt_tokens: usize,
    /// Tokens generated, an end token not among them.
    pub completion_tokens: usize,
    /// Tokens of the prompt that did not have to be computed.
    pub cached_tokens: usize,
    /// From its arrival until it was let in first; `None` where texts share batches.
    pub waited: Option<Duration>,
}

/// What waits to be read: a backlog of one kind of events, then the end.
#[derive(Debug)]
struct State<B, D> {
    backlog: B,
    /// The end, until it is read.
    end: Option<Result<D, EngineError>>,
    /// Nothing follows what is here.
    ended: bool,
    reader: Option<Waker>,
}

impl<B, D> State<B, D> {
    /// The next thing to be read, if there is one.
    fn next<I>(&mut self, take: impl FnOnce(&mut B) -> Option<I>) -> Option<Heard<I, D>> {
        match take(&mut self.backlog) {
            Some(item) => Some(Heard::Item(item)),
            None => self.end.take().map(Heard::End),
        }
    }
}

/// What a reader hears next.
#[derive(Debug)]
enum Heard<I, D> {
    Item(I),
    End(Result<D, EngineError>),
}

#[derive(Debug)]
struct Shared<B, D> {
    state: Mutex<State<B, D>>,
    arrived: Condvar,
    abandoned: AtomicBool,
}

/// The engine's end of a request.
#[derive(Debug)]
pub(crate) struct Sender<B, D> {
    shared: Arc<Shared<B, D>>,
}

/// The client's end.
#[derive(Debug)]
struct Receiver<B, D> {
    shared: Arc<Shared<B, D>>,
}

fn channel<B, D>(backlog: B) -> (Sender<B, D>, Receiver<B, D>) {
    let shared = Arc::new(Shared {
        state: Mutex::new(State {
            backlog,
            end: None,
            ended: false,
            reader: None,
        }),
        arrived: Condvar::new(),
        abandoned: AtomicBool::new(false),
    });
    let sender = Sender {
        shared: Arc::clone(&shared),
    };
    (sender, Receiver { shared })
}

impl<B, D> Sender<B, D> {
    /// Hands something to the reader; what comes after the end is dropped. Where there is no room for
    /// it, that is the end: the reader is told, and the request counts as abandoned.
    fn push(&self, put: impl FnOnce(&mut B) -> Result<(), EngineError>) {
        let mut state = lock(&self.shared.state);
        if state.ended {
            return;
        }
        if let Err(error) = put(&mut state.backlog) {
            state.end = Some(Err(error));
            state.ended = true;
            self.shared.abandoned.store(true, Ordering::Relaxed);
        }
        self.wake(state);
    }

    /// Hands the end to the reader, unless he has been told of one.
    fn end(&self, end: Result<D, EngineError>) {
        let mut state = lock(&self.shared.state);
        if state.ended {
            return;
        }
        state.end = Some(end);
        state.ended = true;
        self.wake(state);
    }

    fn wake(&self, mut state: MutexGuard<'_, State<B, D>>) {
        let reader = state.reader.take();
        drop(state);
        self.shared.arrived.notify_one();
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Whether nobody reads any more.
    pub(crate) fn abandoned(&self) -> bool {
        self.shared.abandoned.load(Ordering::Relaxed)
    }
}

impl<B, D> Drop for Sender<B, D> {
    fn drop(&mut self) {
        self.end(Err(EngineError::Stopped));
    }
}

impl<B, D> Receiver<B, D> {
    /// Does something with what waits.
    fn backlog<T>(&self, act: impl FnOnce(&mut B) -> T) -> T {
        act(&mut lock(&self.shared.state).backlog)
    }

    /// The next thing if there is one now.
    fn now<I>(&self, take: impl FnOnce(&mut B) -> Option<I>) -> Option<Heard<I, D>> {
        lock(&self.shared.state).next(take)
    }

    /// The next thing as a future's poll.
    fn poll<I>(
        &self,
        context: &mut Context<'_>,
        take: impl FnOnce(&mut B) -> Option<I>,
    ) -> Poll<Option<Heard<I, D>>> {
        let mut state = lock(&self.shared.state);
        match state.next(take) {
            Some(heard) => Poll::Ready(Some(heard)),
            None if state.ended => Poll::Ready(None),
            None => {
                state.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    /// The next thing, waiting for it on this thread, at most until `deadline`.
    fn wait<I>(
        &self,
        deadline: Option<Instant>,
        mut take: impl FnMut(&mut B) -> Option<I>,
    ) -> Option<Heard<I, D>> {
        let mut state = lock(&self.shared.state);
        loop {
            if let Some(heard) = state.next(&mut take) {
                return Some(heard);
            }
            if state.ended {
                return None;
            }
            let arrived = &self.shared.arrived;
            state = match deadline {
                None => arrived.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(deadline) => {
                    let left = deadline.saturating_duration_since(Instant::now());
                    if left.is_zero() {
                        return None;
                    }
                    let waited = arrived.wait_timeout(state, left);
                    waited.unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }
}

impl<B, D> Drop for Receiver<B, D> {
    fn drop(&mut self) {
        self.shared.abandoned.store(true, Ordering::Relaxed);
    }
}
