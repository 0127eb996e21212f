//! The events of an embedding request. Its vectors have their memory before the first is made: the
//! engine's thread writes each where it belongs, and the client gets all of them with the end.

use std::collections::VecDeque;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bursar_memory::buffer_pool::TypedBuffer;
use bursar_memory::{BufferPool, Lifetime, PoolError};

use super::{Heard, Receiver, Sender, Usage, channel};
use crate::EngineError;

/// Something that happened to an embedding request.
#[derive(Debug)]
pub enum EmbedEvent {
    /// One text's vector is there. Texts may finish in any order.
    Vector {
        /// The text's place in the request.
        index: usize,
    },
    /// The end, with all vectors.
    Done {
        /// What it came to.
        usage: Usage,
        /// One vector for each text, in the order of the request.
        vectors: Vectors,
    },
    /// The end, for another reason.
    Failed(EngineError),
}

/// The vectors of the texts of a request, in its order.
#[derive(Debug, Default)]
pub struct Vectors {
    /// Row after row.
    values: Values,
    dimensions: usize,
    texts: usize,
}

#[derive(Debug)]
enum Values {
    Heap(Vec<f32>),
    Pooled(TypedBuffer<f32>),
}

impl Default for Values {
    fn default() -> Self {
        Self::Heap(Vec::new())
    }
}

impl Vectors {
    /// Memory for so many vectors, of the heap.
    pub(crate) fn on_heap(texts: usize, dimensions: usize) -> Self {
        Self {
            values: Values::Heap(vec![0.0; texts.saturating_mul(dimensions)]),
            dimensions,
            texts,
        }
    }

    /// Memory for so many vectors, of a pool.
    pub(crate) fn pooled(
        texts: usize,
        dimensions: usize,
        pool: &BufferPool,
    ) -> Result<Self, PoolError> {
        let values = pool.acquire_typed([texts, dimensions], Lifetime::Episodic)?;
        Ok(Self {
            values: Values::Pooled(values),
            dimensions,
            texts,
        })
    }

    /// Texts.
    pub fn len(&self) -> usize {
        self.texts
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.texts == 0
    }

    /// The vectors, one after the other.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[f32]> {
        let values: &[f32] = match &self.values {
            Values::Heap(values) => values,
            Values::Pooled(values) => values,
        };
        // No dimensions, no texts: there is no model of that kind.
        values.chunks_exact(self.dimensions.max(1))
    }

    fn row_mut(&mut self, index: usize) -> Option<&mut [f32]> {
        let values: &mut [f32] = match &mut self.values {
            Values::Heap(values) => values,
            Values::Pooled(values) => values,
        };
        values.chunks_exact_mut(self.dimensions.max(1)).nth(index)
    }
}

/// The vectors, and which of them are there that nobody has heard of yet.
#[derive(Debug)]
pub(crate) struct Rows {
    vectors: Vectors,
    ready: VecDeque<usize>,
}

/// The engine's end of an embedding request.
pub(crate) type VectorSender = Sender<Rows, Usage>;

/// Both ends of the events of a request.
pub(crate) fn vectors(vectors: Vectors) -> (VectorSender, VectorStream) {
    let ready = VecDeque::with_capacity(vectors.len());
    let (sender, receiver) = channel(Rows { vectors, ready });
    (sender, VectorStream { receiver })
}

impl VectorSender {
    /// Has a text's vector written to its place, and tells of it.
    pub(crate) fn vector(&self, index: usize, write: impl FnOnce(&mut [f32])) {
        self.push(|rows| {
            if let Some(row) = rows.vectors.row_mut(index) {
                write(row);
                rows.ready.push_back(index);
            }
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
    receiver: Receiver<Rows, Usage>,
}

/// The next text whose vector is there.
fn ready(rows: &mut Rows) -> Option<usize> {
    rows.ready.pop_front()
}

impl VectorStream {
    fn event(&self, heard: Heard<usize, Usage>) -> EmbedEvent {
        match heard {
            Heard::Item(index) => EmbedEvent::Vector { index },
            Heard::End(Ok(usage)) => EmbedEvent::Done {
                usage,
                vectors: self
                    .receiver
                    .backlog(|rows| std::mem::take(&mut rows.vectors)),
            },
            Heard::End(Err(error)) => EmbedEvent::Failed(error),
        }
    }

    /// The next event; `None` after the terminal one.
    pub async fn recv(&mut self) -> Option<EmbedEvent> {
        std::future::poll_fn(|context| self.poll_recv(context)).await
    }

    /// The next event as a future's poll.
    pub fn poll_recv(&mut self, context: &mut Context<'_>) -> Poll<Option<EmbedEvent>> {
        let heard = self.receiver.poll(context, ready);
        heard.map(|heard| heard.map(|heard| self.event(heard)))
    }

    /// The next event if there is one now.
    pub fn try_recv(&mut self) -> Option<EmbedEvent> {
        let heard = self.receiver.now(ready)?;
        Some(self.event(heard))
    }

    /// The next event, waiting for it on this thread; `None` after the terminal one.
    pub fn recv_blocking(&mut self) -> Option<EmbedEvent> {
        let heard = self.receiver.wait(None, ready)?;
        Some(self.event(heard))
    }

    /// The next event, waiting at most so long on this thread.
    pub fn recv_timeout(&mut self, longest: Duration) -> Option<EmbedEvent> {
        let deadline = Instant::now() + longest;
        let heard = self.receiver.wait(Some(deadline), ready)?;
        Some(self.event(heard))
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
    use bursar_memory::{Bytes, Ledger, Pools};

    use super::*;

    #[test]
    fn a_lost_engine_ends_the_stream() {
        let (sender, mut stream) = vectors(Vectors::on_heap(2, 1));
        sender.vector(1, |row| row.fill(0.5));
        let reader = std::thread::spawn(move || {
            assert!(matches!(
                stream.recv_blocking(),
                Some(EmbedEvent::Vector { index: 1 })
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

    /// A1
    #[test]
    fn vectors_come_in_order_from_the_heap_and_from_a_pool() {
        let ledger = Ledger::new(Bytes::mib(1));
        let pools = Pools::off(&ledger.root());
        let pooled = Vectors::pooled(2, 3, pools.buffers()).expect("room for six values");
        for memory in [Vectors::on_heap(2, 3), pooled] {
            let (sender, mut stream) = vectors(memory);
            sender.vector(1, |row| row.fill(1.0));
            sender.vector(0, |row| row.fill(0.0));
            sender.done(Usage::default());
            for want in [1, 0] {
                let event = stream.try_recv();
                assert!(
                    matches!(event, Some(EmbedEvent::Vector { index }) if index == want),
                    "{event:?}"
                );
            }
            let Some(EmbedEvent::Done { vectors, .. }) = stream.try_recv() else {
                panic!("the end");
            };
            assert_eq!(vectors.len(), 2);
            let rows: Vec<&[f32]> = vectors.iter().collect();
            assert_eq!(rows, [[0.0; 3], [1.0; 3]]);
            assert!(stream.try_recv().is_none());
        }
        assert_eq!(ledger.granted(), Bytes::ZERO);
        let most = Vectors::pooled(1 << 20, 1 << 20, pools.buffers());
        assert!(matches!(most, Err(PoolError::Refused(_))), "{most:?}");
    }
}
