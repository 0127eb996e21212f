//! What flows back from the engine: one queue per request, read by one client.
//!
//! What a reader has not read yet is charged to an account; where that has no room, the request ends.
//!
//! The engine never waits for a reader. Dropping the reader is how a request is cancelled: the
//! engine sees it before its next step. Every queue ends with one terminal event, even if the
//! engine's thread dies: a sender that is dropped without one leaves it behind.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bursar_memory::{Account, Bytes, Refusal, Reservation};

use crate::EngineError;
use crate::generate::FinishReason;
use crate::inbox::lock;

/// What a request came to, in tokens.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Tokens of the prompt (of all texts, for embedding).
    pub prompt_tokens: usize,
    /// Tokens generated, an end token not among them.
    pub completion_tokens: usize,
    /// Tokens of the prompt that did not have to be computed.
    pub cached_tokens: usize,
}

/// The log-probability of one token of a prompt.
#[derive(Clone, Debug, PartialEq)]
pub struct PromptLogprob {
    /// The token.
    pub token: u32,
    /// Its log-probability given the tokens before it; `None` for the first.
    pub logprob: Option<f32>,
    /// The most likely tokens in its place, best first; empty for the first.
    pub top: Vec<(u32, f32)>,
}

/// Something that happened to a generation.
#[derive(Debug)]
pub enum Event {
    /// A token was chosen.
    Token {
        /// Text that became certain with it: often that of the token, sometimes none (half a
        /// character, the possible start of a stop string), sometimes of tokens before it too.
        text: String,
        /// The token.
        token: u32,
        /// Its log-probability before temperature and penalties, where asked for.
        logprob: Option<f32>,
        /// The most likely tokens in its place, best first, as many as asked for.
        top: Vec<(u32, f32)>,
    },
    /// Text that had been held back and turned out to be part of the answer; comes before `Done`.
    Text(String),
    /// Log-probabilities of the next tokens of the prompt, where asked for; all of the prompt in
    /// pieces, in order, before the first `Token`.
    PromptLogprobs(Vec<PromptLogprob>),
    /// The end, as it should be.
    Done {
        /// Why.
        finish: FinishReason,
        /// What it came to.
        usage: Usage,
    },
    /// The end, for another reason.
    Failed(EngineError),
}

/// Something that happened to an embedding request.
#[derive(Debug)]
pub enum EmbedEvent {
    /// One text's vector. Texts may finish in any order.
    Vector {
        /// The text's place in the request.
        index: usize,
        /// Its vector.
        values: Vec<f32>,
    },
    /// All vectors have been sent.
    Done {
        /// What it came to.
        usage: Usage,
    },
    /// The end, for another reason.
    Failed(EngineError),
}

/// Events of a kind, the last of which ends its queue.
pub(crate) trait Reply {
    /// Whether nothing follows.
    fn ends(&self) -> bool;
    /// The end for want of an engine.
    fn stopped() -> Self;
    /// The end for want of memory.
    fn refused(refusal: Refusal) -> Self;
    /// Bytes that it takes while nobody has read it.
    fn bytes(&self) -> usize;
}

/// An event in a queue, which grows by doubling.
const fn queued<E>() -> usize {
    2 * size_of::<E>()
}

/// Bytes of the alternatives to a token.
fn top_bytes(top: &[(u32, f32)]) -> usize {
    size_of_val(top)
}

impl Reply for Event {
    fn ends(&self) -> bool {
        matches!(self, Event::Done { .. } | Event::Failed(_))
    }

    fn stopped() -> Self {
        Event::Failed(EngineError::Stopped)
    }

    fn refused(refusal: Refusal) -> Self {
        Event::Failed(EngineError::Refused(refusal))
    }

    fn bytes(&self) -> usize {
        queued::<Event>()
            + match self {
                Event::Token { text, top, .. } => text.capacity() + top_bytes(top),
                Event::Text(text) => text.capacity(),
                Event::PromptLogprobs(list) => list
                    .iter()
                    .map(|found| size_of::<PromptLogprob>() + top_bytes(&found.top))
                    .sum(),
                Event::Done { .. } | Event::Failed(_) => 0,
            }
    }
}

impl Reply for EmbedEvent {
    fn ends(&self) -> bool {
        matches!(self, EmbedEvent::Done { .. } | EmbedEvent::Failed(_))
    }

    fn stopped() -> Self {
        EmbedEvent::Failed(EngineError::Stopped)
    }

    fn refused(refusal: Refusal) -> Self {
        EmbedEvent::Failed(EngineError::Refused(refusal))
    }

    fn bytes(&self) -> usize {
        queued::<EmbedEvent>()
            + match self {
                EmbedEvent::Vector { values, .. } => size_of_val(values.as_slice()),
                EmbedEvent::Done { .. } | EmbedEvent::Failed(_) => 0,
            }
    }
}

#[derive(Debug)]
struct Queue<E> {
    events: VecDeque<E>,
    reader: Option<Waker>,
    /// A terminal event has been pushed.
    ended: bool,
    /// Bytes of the events.
    held: usize,
    /// What they are charged to, if to anybody; a terminal event is not.
    charge: Option<Reservation>,
}

/// The ledger is asked for this much at a time.
const CHARGE_STEP: usize = 4 << 10;

impl<E: Reply> Queue<E> {
    fn push(&mut self, event: E) -> Result<(), Refusal> {
        let held = self.held + event.bytes();
        if let Some(charge) = &mut self.charge
            && !event.ends()
        {
            let missing = (held as u64).saturating_sub(charge.bytes().get());
            if missing > 0 {
                charge.grow(Bytes(missing.next_multiple_of(CHARGE_STEP as u64)))?;
            }
        }
        self.held = held;
        self.ended = event.ends();
        self.events.push_back(event);
        Ok(())
    }

    fn pop(&mut self) -> Option<E> {
        let event = self.events.pop_front()?;
        self.held -= event.bytes();
        if let Some(charge) = &mut self.charge {
            // Some is kept for the next ones.
            let spare = charge.bytes().get().saturating_sub(self.held as u64);
            let keep = 2 * CHARGE_STEP as u64;
            if spare > 2 * keep {
                charge.shrink(Bytes(spare - keep));
                self.events.shrink_to(self.events.len() * 2);
            }
        }
        Some(event)
    }
}

#[derive(Debug)]
struct Shared<E> {
    queue: Mutex<Queue<E>>,
    arrived: Condvar,
    abandoned: AtomicBool,
}

/// The engine's end.
#[derive(Debug)]
pub(crate) struct Sender<E: Reply> {
    shared: Arc<Shared<E>>,
}

/// The client's end of a generation. Dropping it cancels the request and frees its memory before
/// the engine's next step.
#[derive(Debug)]
pub struct TokenStream(Receiver<Event>);

/// The client's end of an embedding request. Dropping it cancels what has not been computed yet.
#[derive(Debug)]
pub struct VectorStream(Receiver<EmbedEvent>);

#[derive(Debug)]
struct Receiver<E> {
    shared: Arc<Shared<E>>,
}

fn queue<E: Reply>(account: Option<&Account>) -> (Sender<E>, Receiver<E>) {
    let shared = Arc::new(Shared {
        queue: Mutex::new(Queue {
            events: VecDeque::new(),
            reader: None,
            ended: false,
            held: 0,
            // Nothing yet, which no budget refuses.
            charge: account.and_then(|account| account.reserve(Bytes::ZERO).ok()),
        }),
        arrived: Condvar::new(),
        abandoned: AtomicBool::new(false),
    });
    let sender = Sender {
        shared: Arc::clone(&shared),
    };
    (sender, Receiver { shared })
}

/// Both ends of a generation's events; those that wait to be read are charged to `account`.
pub(crate) fn tokens(account: Option<&Account>) -> (Sender<Event>, TokenStream) {
    let (sender, receiver) = queue(account);
    (sender, TokenStream(receiver))
}

/// Both ends of an embedding request's events. How many bytes they are is known beforehand, and
/// charged by who asks.
pub(crate) fn vectors() -> (Sender<EmbedEvent>, VectorStream) {
    let (sender, receiver) = queue(None);
    (sender, VectorStream(receiver))
}

impl<E: Reply> Sender<E> {
    /// Hands an event to the reader; what comes after a terminal event is dropped. Where there is no
    /// room for it, that is the end: the reader is told, and the request counts as abandoned.
    pub(crate) fn send(&self, event: E) {
        let mut queue = lock(&self.shared.queue);
        if queue.ended {
            return;
        }
        if let Err(refusal) = queue.push(event) {
            // What was read already makes room for the word itself; it is not charged.
            let _ = queue.push(E::refused(refusal));
            self.shared.abandoned.store(true, Ordering::Relaxed);
        }
        let reader = queue.reader.take();
        drop(queue);
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

impl<E: Reply> Drop for Sender<E> {
    fn drop(&mut self) {
        self.send(E::stopped());
    }
}

impl<E: Reply> Receiver<E> {
    fn try_recv(&self) -> Option<E> {
        lock(&self.shared.queue).pop()
    }

    fn poll_recv(&self, context: &mut Context<'_>) -> Poll<Option<E>> {
        let mut queue = lock(&self.shared.queue);
        match queue.pop() {
            Some(event) => Poll::Ready(Some(event)),
            None if queue.ended => Poll::Ready(None),
            None => {
                queue.reader = Some(context.waker().clone());
                Poll::Pending
            }
        }
    }

    fn recv_deadline(&self, deadline: Option<Instant>) -> Option<E> {
        let mut queue = lock(&self.shared.queue);
        loop {
            if let Some(event) = queue.pop() {
                return Some(event);
            }
            if queue.ended {
                return None;
            }
            let left = match deadline {
                Some(deadline) => deadline.saturating_duration_since(Instant::now()),
                None => Duration::MAX,
            };
            if left.is_zero() {
                return None;
            }
            queue = match deadline {
                Some(_) => {
                    let waited = self.shared.arrived.wait_timeout(queue, left);
                    waited.unwrap_or_else(|poisoned| poisoned.into_inner()).0
                }
                None => {
                    let waited = self.shared.arrived.wait(queue);
                    waited.unwrap_or_else(|poisoned| poisoned.into_inner())
                }
            };
        }
    }
}

impl<E> Drop for Receiver<E> {
    fn drop(&mut self) {
        self.shared.abandoned.store(true, Ordering::Relaxed);
    }
}

macro_rules! stream {
    ($stream:ident, $event:ident) => {
        impl $stream {
            /// The next event; `None` after the terminal one.
            pub async fn recv(&mut self) -> Option<$event> {
                std::future::poll_fn(|context| self.0.poll_recv(context)).await
            }

            /// The next event as a future's poll.
            pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<$event>> {
                self.0.poll_recv(context)
            }

            /// The next event if there is one now.
            pub fn try_recv(&mut self) -> Option<$event> {
                self.0.try_recv()
            }

            /// The next event, waiting for it on this thread; `None` after the terminal one.
            pub fn recv_blocking(&mut self) -> Option<$event> {
                self.0.recv_deadline(None)
            }

            /// The next event, waiting at most so long on this thread.
            pub fn recv_timeout(&mut self, longest: Duration) -> Option<$event> {
                self.0.recv_deadline(Some(Instant::now() + longest))
            }
        }

        impl futures_core::Stream for $stream {
            type Item = $event;

            fn poll_next(
                self: Pin<&mut Self>,
                context: &mut Context<'_>,
            ) -> Poll<Option<Self::Item>> {
                self.0.poll_recv(context)
            }
        }
    };
}

stream!(TokenStream, Event);
stream!(VectorStream, EmbedEvent);

#[cfg(test)]
mod tests {
    use bursar_memory::{Ledger, Lifetime};

    use super::*;

    #[test]
    fn events_arrive_in_order_and_end_once() {
        let (sender, mut stream) = tokens(None);
        assert!(stream.try_recv().is_none());
        sender.send(Event::Text("a".into()));
        let usage = Usage::default();
        let finish = FinishReason::Stop;
        sender.send(Event::Done { finish, usage });
        sender.send(Event::Text("too late".into()));
        drop(sender);
        assert!(matches!(stream.recv_blocking(), Some(Event::Text(text)) if text == "a"));
        assert!(matches!(stream.recv_blocking(), Some(Event::Done { .. })));
        assert!(stream.recv_blocking().is_none());
    }

    #[test]
    fn a_lost_engine_ends_the_stream_and_a_lost_reader_is_seen() {
        let (sender, mut stream) = vectors();
        let reader = std::thread::spawn(move || stream.recv_blocking());
        drop(sender);
        let event = reader.join().expect("no panic");
        assert!(matches!(
            event,
            Some(EmbedEvent::Failed(EngineError::Stopped))
        ));
        let (sender, stream) = tokens(None);
        assert!(!sender.abandoned());
        drop(stream);
        assert!(sender.abandoned());
    }

    fn token(text: &str) -> Event {
        Event::Token {
            text: text.to_owned(),
            token: 1,
            logprob: None,
            top: Vec::new(),
        }
    }

    #[test]
    fn what_nobody_reads_is_charged_until_it_is_read_or_dropped() {
        let ledger = Ledger::new(Bytes::mib(1));
        let account = ledger.root().child("requests", Lifetime::Episodic);
        let (sender, mut stream) = tokens(Some(&account));
        assert_eq!(ledger.granted(), Bytes::ZERO);
        let long = "x".repeat(1000);
        for _ in 0..100 {
            sender.send(token(&long));
        }
        assert!(ledger.granted() > Bytes(100_000));
        for _ in 0..100 {
            assert!(stream.try_recv().is_some());
        }
        assert!(ledger.granted() < Bytes(20_000), "{}", ledger.granted());
        sender.send(token(&long));
        drop((sender, stream));
        assert_eq!(ledger.granted(), Bytes::ZERO);
    }

    #[test]
    fn a_reader_too_slow_for_the_budget_is_told_and_cut_off() {
        let ledger = Ledger::new(Bytes::kib(64));
        let account = ledger.root().child("requests", Lifetime::Episodic);
        let (sender, mut stream) = tokens(Some(&account));
        let long = "x".repeat(1000);
        let mut sent = 0;
        while !sender.abandoned() {
            sender.send(token(&long));
            sent += 1;
            assert!(sent < 100, "the budget holds no more than 64");
        }
        let mut read = 0;
        let last = loop {
            match stream.try_recv() {
                Some(Event::Token { .. }) => read += 1,
                other => break other,
            }
        };
        assert_eq!(read, sent - 1);
        assert!(
            matches!(&last, Some(Event::Failed(EngineError::Refused(_)))),
            "{last:?}"
        );
        assert!(stream.try_recv().is_none());
    }
}
