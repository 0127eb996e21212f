//! A span that its pool may move: what compaction can take out of a sparse heap.
//!
//! Whoever holds one sees the bytes only inside a closure or through a guard, so that between two looks
//! they may be elsewhere. Moving never waits for a look: a span that is being read is left where it is.

use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, MutexGuard, TryLockError};

use crate::node::lock;
use crate::span::{Span, SpanHeap};

/// The only handle of a span that may be moved.
#[derive(Debug)]
pub struct MovableSpan {
    place: Arc<MovablePlace>,
}

/// Where the span is now: what the pool keeps a weak hold of.
#[derive(Debug)]
pub struct MovablePlace {
    span: Mutex<Span>,
}

impl MovableSpan {
    /// A span that may be moved from now on.
    pub fn new(span: Span) -> MovableSpan {
        MovableSpan {
            place: Arc::new(MovablePlace {
                span: Mutex::new(span),
            }),
        }
    }

    /// What a pool needs to move it.
    pub fn place(&self) -> &Arc<MovablePlace> {
        &self.place
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        lock(&self.place.span).len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Looks at the bytes. They are not moved meanwhile.
    pub fn read<T>(&self, look: impl FnOnce(&[u8]) -> T) -> T {
        look(&lock(&self.place.span))
    }

    /// Changes the bytes. They are not moved meanwhile.
    pub fn write<T>(&mut self, change: impl FnOnce(&mut [u8]) -> T) -> T {
        change(&mut lock(&self.place.span))
    }

    /// Pins the bytes where they are until the guard is dropped. Waits where they are being moved at this
    /// moment: for one copy at most.
    pub fn pin(&mut self) -> Pinned<'_> {
        Pinned(lock(&self.place.span))
    }
}

/// Bytes of a [`MovableSpan`] that are not moved while this lives.
#[derive(Debug)]
pub struct Pinned<'a>(MutexGuard<'a, Span>);

impl Deref for Pinned<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Pinned<'_> {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

impl MovablePlace {
    /// Whether the span lies in that heap and nobody looks at it now: then its length.
    pub fn len_in(&self, heap: &SpanHeap) -> Option<usize> {
        let span = match self.span.try_lock() {
            Ok(span) => span,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return None,
        };
        span.is_of(heap).then(|| span.len())
    }

    /// Copies the bytes to `to` and hands out the span in which they were; gives `to` back where
    /// somebody looks at them now, or it has another length.
    ///
    /// # Errors
    /// `to`, unused.
    pub fn relocate(&self, mut to: Span) -> Result<Span, Span> {
        let mut span = match self.span.try_lock() {
            Ok(span) => span,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(to),
        };
        if span.len() != to.len() {
            return Err(to);
        }
        to.copy_from_slice(&span);
        Ok(std::mem::replace(&mut *span, to))
    }
}
