//! A block: a span that a pool keeps, and what is known of it while it is out.

use std::panic::Location;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::account::Lifetime;
use crate::buffer_pool::class::{CLASSES, DTYPES, Key};
use crate::buffer_pool::shared::Shared;
use crate::bytes::Bytes;
use crate::cell::PlaceCell;
use crate::node::lock;
use crate::span::Span;

/// What a freed block is filled with where it is checked that nobody writes into it any more.
#[cfg(any(debug_assertions, feature = "poison"))]
const POISON: u8 = 0xd5;

/// A span with the way home.
#[derive(Debug)]
pub(crate) struct Block {
    pub(crate) span: Span,
    /// Also while it lies in a stack there: a closed pool empties its stacks, so that this is no ring.
    pub(crate) home: Arc<Shared>,
    /// `None`: goes straight back to where it was drawn from.
    key: Option<Key>,
    /// `None` where nothing is tracked.
    listed: Option<Listed>,
}

#[derive(Debug)]
struct Listed {
    mark: Arc<Mark>,
    slot: u32,
}

/// Who had a block last, readable while it is out.
#[derive(Debug, Default)]
pub(crate) struct Mark {
    place: PlaceCell,
    /// Bits 0..2 the lifetime, bits 2..32 the interval between clean-ups in which it was acquired.
    since: AtomicU32,
}

const fn lifetime_bits(lifetime: Lifetime) -> u32 {
    match lifetime {
        Lifetime::Procedural => 0,
        Lifetime::Episodic => 1,
        Lifetime::Semantic => 2,
        Lifetime::Emotional => 3,
    }
}

impl Block {
    pub(crate) fn new(
        span: Span,
        home: &Arc<Shared>,
        key: Option<Key>,
        listed: bool,
    ) -> Box<Block> {
        let listed = listed.then(|| {
            let mark = Arc::new(Mark::default());
            let slot = lock(&home.registry).add(&mark, key, span.len());
            Listed { mark, slot }
        });
        Box::new(Block {
            span,
            home: Arc::clone(home),
            key,
            listed,
        })
    }

    pub(crate) fn key(&self) -> Option<Key> {
        self.key
    }

    /// Its number among all blocks that are alive.
    pub(crate) fn slot(&self) -> Option<u32> {
        self.listed.as_ref().map(|listed| listed.slot)
    }

    /// Notes who takes it: two plain stores.
    #[inline]
    pub(crate) fn note(
        &self,
        place: &'static Location<'static>,
        interval: u32,
        lifetime: Lifetime,
    ) {
        if let Some(Listed { mark, .. }) = &self.listed {
            mark.place.note(place);
            let since = interval << 2 | lifetime_bits(lifetime);
            mark.since.store(since, Ordering::Relaxed);
        }
    }

    /// Fills it, so that a later look sees whether somebody still wrote into it.
    pub(crate) fn poison(&mut self) {
        #[cfg(any(debug_assertions, feature = "poison"))]
        self.span.fill(POISON);
    }

    /// Checks that nobody wrote into it while it was free.
    ///
    /// # Panics
    /// Where somebody did.
    pub(crate) fn check_poison(&self) {
        #[cfg(any(debug_assertions, feature = "poison"))]
        if let Some(at) = self.span.iter().position(|byte| *byte != POISON) {
            let last = self
                .listed
                .as_ref()
                .and_then(|listed| listed.mark.place.get());
            let last = last.map_or_else(|| "nobody known".to_owned(), ToString::to_string);
            panic!("byte {at} of a free block was written to; it was last acquired at {last}");
        }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        if let Some(Listed { slot, .. }) = &self.listed {
            lock(&self.home.registry).remove(*slot);
        }
    }
}

/// All blocks of a pool that are alive, in stacks or out.
#[derive(Debug)]
pub(crate) struct Registry {
    entries: Vec<Option<Entry>>,
    unused: Vec<u32>,
    /// How many there are, by key.
    live: Vec<usize>,
    bytes: u64,
}

#[derive(Debug)]
struct Entry {
    mark: Arc<Mark>,
    key: Option<Key>,
    bytes: u64,
}

/// Buffers that one place in the source has acquired and that have not come back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leak {
    /// File of the place.
    pub file: &'static str,
    /// Line of the place.
    pub line: u32,
    /// How many buffers.
    pub buffers: u64,
    /// Their bytes.
    pub bytes: Bytes,
}

impl std::fmt::Display for Leak {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Leak {
            file,
            line,
            buffers,
            bytes,
        } = self;
        write!(f, "{buffers} buffers of {bytes} acquired at {file}:{line}")
    }
}

impl Registry {
    pub(crate) fn new() -> Registry {
        Registry {
            entries: Vec::new(),
            unused: Vec::new(),
            live: vec![0; CLASSES * DTYPES],
            bytes: 0,
        }
    }

    fn add(&mut self, mark: &Arc<Mark>, key: Option<Key>, len: usize) -> u32 {
        let entry = Entry {
            mark: Arc::clone(mark),
            key,
            bytes: len as u64,
        };
        self.bytes += entry.bytes;
        if let Some(key) = key {
            self.live[key.index()] += 1;
        }
        if let Some(slot) = self.unused.pop() {
            self.entries[slot as usize] = Some(entry);
            return slot;
        }
        self.entries.push(Some(entry));
        u32::try_from(self.entries.len() - 1).expect("fewer blocks than 2^32 granules")
    }

    fn remove(&mut self, slot: u32) {
        let entry = self.entries[slot as usize]
            .take()
            .expect("a block is listed until it is dropped");
        self.bytes -= entry.bytes;
        if let Some(key) = entry.key {
            self.live[key.index()] -= 1;
        }
        self.unused.push(slot);
    }

    /// Blocks of that key that are alive.
    pub(crate) fn live(&self, key: Key) -> usize {
        self.live[key.index()]
    }

    /// All blocks that are alive.
    pub(crate) fn count(&self) -> usize {
        self.entries.len() - self.unused.len()
    }

    /// Their bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Where the blocks that are out were acquired, given which lie in stacks; only those of requests
    /// that have been out since interval `before`, if that is said. Most bytes first.
    pub(crate) fn out(&self, in_stacks: &[bool], before: Option<u32>) -> Vec<Leak> {
        let mut leaks: Vec<Leak> = Vec::new();
        for (slot, entry) in self.entries.iter().enumerate() {
            let Some(entry) = entry else { continue };
            let since = entry.mark.since.load(Ordering::Relaxed);
            let counts = before.is_none_or(|before| {
                since & 3 == lifetime_bits(Lifetime::Episodic) && since >> 2 < before
            });
            let in_stack = in_stacks.get(slot).is_some_and(|in_stack| *in_stack);
            let Some(place) = entry.mark.place.get().filter(|_| counts && !in_stack) else {
                continue;
            };
            let (file, line) = (place.file(), place.line());
            let known = leaks
                .iter_mut()
                .find(|leak| leak.file == file && leak.line == line);
            match known {
                Some(leak) => {
                    leak.buffers += 1;
                    leak.bytes = leak.bytes.saturating_add(Bytes(entry.bytes));
                }
                None => leaks.push(Leak {
                    file,
                    line,
                    buffers: 1,
                    bytes: Bytes(entry.bytes),
                }),
            }
        }
        leaks.sort_by_key(|leak| std::cmp::Reverse(leak.bytes));
        leaks
    }
}

#[cfg(all(test, any(debug_assertions, feature = "poison")))]
mod tests {
    use super::*;
    use crate::buffer_pool::class::Dtype;
    use crate::ledger::Ledger;
    use crate::source::{FreshSource, SpanSource};
    use crate::trace::Recorder;

    #[test]
    #[should_panic(expected = "byte 7 of a free block was written to")]
    fn writing_into_a_free_block_is_found() {
        let ledger = Ledger::new(Bytes(1000));
        let source = Arc::new(FreshSource::new(&ledger.root()));
        let span = source.take_span(64, Lifetime::Episodic).unwrap();
        let home = Arc::new(Shared::new(source, true, true, 1.0, Recorder::default()));
        let mut block = Block::new(span, &home, Key::of(64, Dtype::U8), true);
        block.poison();
        block.check_poison();
        block.span[7] = 0;
        block.check_poison();
    }
}
