//! The events of an embedding request: a vector for each of its texts, in a queue that is as long as
//! there are texts when it is made.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use super::{Heard, Receiver, Sender, Usage, channel};
use crate::EngineError;

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

/// Vectors that nobody has read yet, each with its text's place.
type Vectors = VecDeque<(usize, Vec<f32>)>;

/// The engine's end of an embedding request.
pub(crate) type VectorSender = Sender<Vectors, Usage>;

/// Both ends of the events of a request with so many texts. How many bytes they are is known
/// beforehand, and charged by who asks.
pub(crate) fn vectors(texts: usize) -> (VectorSender, VectorStream) {
    let (sender, receiver) = channel(VecDeque::with_capacity(texts));
    (sender, VectorStream { receiver })
}

impl VectorSender {
    /// Tells of a text's vector.
    pub(crate) fn vector(&self, index: usize, values: Vec<f32>) {
        self.push(|queue| {
            queue.push_back((index, values));
            Ok(())
        });
    }

    /// Tells of the end, as it should be.
    pub(crate) fn done(&self, usage: Usage) {
        self.end(Ok(usage));
    }

    /// Tells of the end, for another reason.
    pub(crate) fn fail(&self, error: EngineError) {
        self.end(Err(error));
    }
}

/// The client's end of an embedding request. Dropping it cancels what has not been computed yet.
#[derive(Debug)]
pub struct VectorStream {
    receiver: Receiver<Vectors, Usage>,
}

fn event(heard: Heard<(usize, Vec<f32>), Usage>) -> EmbedEvent {
    match heard {
        Heard::Item((index, values)) => EmbedEvent::Vector { index, values },
        Heard::End(Ok(usage)) => EmbedEvent::Done { usage },
        Heard::End(Err(error)) => EmbedEvent::Failed(error),
    }
}

impl VectorStream {
    /// The next event; `None` after the terminal one.
    pub async fn recv(&mut self) -> Option<EmbedEvent> {
        std::future::poll_fn(|context| self.poll_recv(context)).await
    }

    /// The next event as a future's poll.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<EmbedEvent>> {
        let heard = self.receiver.poll(context, VecDeque::pop_front);
        heard.map(|heard| heard.map(event))
    }

    /// The next event if there is one now.
    pub fn try_recv(&mut self) -> Option<EmbedEvent> {
        self.receiver.now(VecDeque::pop_front).map(event)
    }

    /// The next event, waiting for it on this thread; `None` after the terminal one.
    pub fn recv_blocking(&mut self) -> Option<EmbedEvent> {
        self.receiver.wait(None, VecDeque::pop_front).map(event)
    }

    /// The next event, waiting at most so long on this thread.
    pub fn recv_timeout(&mut self, longest: Duration) -> Option<EmbedEvent> {
        let deadline = Instant::now() + longest;
        let heard = self.receiver.wait(Some(deadline), VecDeque::pop_front);
        heard.map(event)
    }
}

impl futures_core::Stream for VectorStream {
    type Item = EmbedEvent;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<EmbedEvent>> {
        self.poll_recv(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_engine_ends_the_stream() {
        let (sender, mut stream) = vectors(2);
        sender.vector(1, vec![0.5]);
        let reader = std::thread::spawn(move || {
            assert!(matches!(
                stream.recv_blocking(),
                Some(EmbedEvent::Vector { index: 1, .. })
            ));
            stream.recv_blocking()
        });
        drop(sender);
        let event = reader.join().expect("no panic");
        assert!(matches!(
            event,
            Some(EmbedEvent::Failed(EngineError::Stopped))
        ));
    }
}
