//! The ways of a block: out of a magazine, a shelf or the source, and back.
//!
//! ```text
//! acquire: magazine of this thread ─► shelves ─► (near the limit: empty the shelves) ─► source
//! release: magazine of this thread, whose older half goes to the shelves when it is full
//! ```
//!
//! The quick ways take one latch each, and nothing else that other threads write. A thread that finds
//! its latch taken (somebody is cleaning up, or more threads than magazines) goes to the shelves.
//! Order of locks: latch, shelves, then registry or heap; nobody waits for a latch with the shelves held.

use std::cell::{Cell, RefCell};
use std::panic::Location;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};

use crate::account::Lifetime;
use crate::buffer_pool::block::{Block, Leak, Registry};
use crate::buffer_pool::buffer::Buffer;
use crate::buffer_pool::class::{CLASSES, DTYPES, Dtype, Key};
use crate::buffer_pool::magazine::{Stacks, capacity_next, depth_of};
use crate::bytes::Bytes;
use crate::cell::{Latch, LatchGuard};
use crate::node::lock;
use crate::source::{Device, PoolError, SpanSource};
use crate::trace::Recorder;

/// Magazines of a pool: more than the threads that use one. With yet more threads some share one.
const MAGAZINES: usize = 32;
/// A request's buffer that has been out for so many clean-ups counts as leaked.
const LEAKED_AFTER: u32 = 100;

/// What a pool and its buffers share.
#[derive(Debug)]
pub(crate) struct Shared {
    device: Device,
    /// Whether blocks are kept at all.
    keeps: bool,
    tracks: bool,
    /// Utilisation of the source from which on the shelves are emptied before more is drawn.
    cleanup_utilisation: f64,
    magazines: Box<[Magazine]>,
    shelves: Mutex<Shelves>,
    pub(crate) registry: Mutex<Registry>,
    /// `None` once the pool is closed.
    source: Mutex<Option<Arc<dyn SpanSource>>>,
    next_ordinal: AtomicU32,
    recorder: Recorder,
}

/// One thread's, on cache lines of its own (two, since processors fetch them in pairs).
#[derive(Debug)]
#[repr(align(128))]
struct Magazine(Latch<Drawer>);

#[derive(Debug)]
struct Drawer {
    open: bool,
    /// Which interval between clean-ups it is.
    interval: u32,
    counts: Counts,
    stacks: Stacks,
}

#[derive(Debug)]
struct Shelves {
    open: bool,
    interval: u32,
    counts: Counts,
    stacks: Stacks,
    /// Blocks to keep alive, by key.
    capacities: Vec<usize>,
}

/// What is counted of acquiring.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) acquired: u64,
    pub(crate) reused: u64,
    pub(crate) bytes: u64,
    pub(crate) largest: u64,
}

impl Counts {
    #[inline]
    fn add(&mut self, len: usize, reused: bool) {
        // Wrapping: a count of bytes that came round is better than a request that died of it.
        self.acquired = self.acquired.wrapping_add(1);
        self.reused = self.reused.wrapping_add(u64::from(reused));
        self.bytes = self.bytes.wrapping_add(len as u64);
        self.largest = self.largest.max(len as u64);
    }

    fn merge(&mut self, other: &Counts) {
        self.acquired = self.acquired.wrapping_add(other.acquired);
        self.reused = self.reused.wrapping_add(other.reused);
        self.bytes = self.bytes.wrapping_add(other.bytes);
        self.largest = self.largest.max(other.largest);
    }
}

/// A thread's place at the pools: which magazine is its own, and the pool that it last gave a block
/// back to. Keeping that one alive spares counting its owners up and down with every block; a closed
/// pool holds nothing any more.
struct Seat {
    ordinal: Cell<Option<u32>>,
    home: RefCell<Option<Arc<Shared>>>,
}

thread_local! {
    static SEAT: Seat = const {
        Seat {
            ordinal: Cell::new(None),
            home: RefCell::new(None),
        }
    };
}

impl Seat {
    /// Numbered by the first pool that the thread comes to.
    #[inline]
    fn ordinal(&self, shared: &Shared) -> usize {
        let ordinal = self.ordinal.get().unwrap_or_else(|| {
            let ordinal = shared.next_ordinal.fetch_add(1, Ordering::Relaxed);
            self.ordinal.set(Some(ordinal));
            ordinal
        });
        ordinal as usize
    }

    #[inline]
    fn release(&self, block: Block) {
        let Ok(mut home) = self.home.try_borrow_mut() else {
            return;
        };
        if !home
            .as_ref()
            .is_some_and(|home| Arc::ptr_eq(home, &block.home))
        {
            *home = Some(Arc::clone(&block.home));
        }
        if let Some(shared) = home.as_ref() {
            shared.put(self.ordinal(shared), block);
        }
    }
}

/// What is known of a pool at one moment.
#[derive(Debug, Default)]
pub(crate) struct Survey {
    pub(crate) counts: Counts,
    /// Blocks that are alive, and their bytes.
    pub(crate) blocks: u64,
    pub(crate) bytes: u64,
    /// Those of them that lie in stacks.
    pub(crate) blocks_free: u64,
    pub(crate) bytes_free: u64,
    /// The longest of these.
    pub(crate) largest_free: u64,
    pub(crate) leaked: u64,
}

impl Shared {
    pub(crate) fn new(
        source: Arc<dyn SpanSource>,
        keeps: bool,
        tracks: bool,
        cleanup_utilisation: f64,
        recorder: Recorder,
    ) -> Shared {
        let magazine = || {
            Magazine(Latch::new(Drawer {
                open: true,
                interval: 0,
                counts: Counts::default(),
                stacks: Stacks::default(),
            }))
        };
        Shared {
            device: source.device(),
            keeps,
            tracks,
            cleanup_utilisation,
            magazines: (0..MAGAZINES).map(|_| magazine()).collect(),
            shelves: Mutex::new(Shelves {
                open: true,
                interval: 0,
                counts: Counts::default(),
                stacks: Stacks::default(),
                capacities: vec![0; CLASSES * DTYPES],
            }),
            registry: Mutex::new(Registry::new()),
            source: Mutex::new(Some(source)),
            next_ordinal: AtomicU32::new(0),
            recorder,
        }
    }

    pub(crate) fn device(&self) -> Device {
        self.device
    }

    #[inline]
    fn drawer(&self, ordinal: usize) -> Option<LatchGuard<'_, Drawer>> {
        self.magazines[ordinal % MAGAZINES].0.try_lock()
    }

    #[inline]
    fn own_drawer(&self) -> Option<LatchGuard<'_, Drawer>> {
        // A thread that is ending has no seat any more: it goes to the shelves.
        let ordinal = SEAT.try_with(|seat| seat.ordinal(self)).ok()?;
        self.drawer(ordinal)
    }

    #[inline]
    pub(crate) fn acquire(
        self: &Arc<Self>,
        len: usize,
        dtype: Dtype,
        lifetime: Lifetime,
        place: &'static Location<'static>,
    ) -> Result<Buffer, PoolError> {
        let buffer = self.find(len, dtype, lifetime, place)?;
        self.recorder.take(buffer.address(), len, lifetime, place);
        Ok(buffer)
    }

    #[inline]
    fn find(
        self: &Arc<Self>,
        len: usize,
        dtype: Dtype,
        lifetime: Lifetime,
        place: &'static Location<'static>,
    ) -> Result<Buffer, PoolError> {
        let key = Key::of(len, dtype).filter(|_| self.keeps);
        if let Some(key) = key
            && let Some(mut drawer) = self.own_drawer()
            && let Some(block) = drawer.stacks.take(key, len)
        {
            if self.tracks {
                drawer.counts.add(len, true);
            }
            block.note(place, drawer.interval, lifetime);
            drop(drawer);
            block.check_poison();
            return Ok(Buffer::new(block, len, lifetime));
        }
        self.acquire_slowly(len, key, lifetime, place)
    }

    #[cold]
    #[inline(never)]
    fn acquire_slowly(
        self: &Arc<Self>,
        len: usize,
        key: Option<Key>,
        lifetime: Lifetime,
        place: &'static Location<'static>,
    ) -> Result<Buffer, PoolError> {
        let found = key.and_then(|key| self.take_from_shelves(len, key));
        if let Some(block) = &found {
            block.check_poison();
        }
        let reused = found.is_some();
        let block = match found {
            Some(block) => block,
            None => self.draw(len, key, lifetime)?,
        };
        let interval = self.count(len, reused);
        block.note(place, interval, lifetime);
        Ok(Buffer::new(block, len, lifetime))
    }

    /// Counts one acquired; which interval it is.
    fn count(&self, len: usize, reused: bool) -> u32 {
        if let Some(mut drawer) = self.own_drawer() {
            if self.tracks {
                drawer.counts.add(len, reused);
            }
            return drawer.interval;
        }
        let mut shelves = lock(&self.shelves);
        if self.tracks {
            shelves.counts.add(len, reused);
        }
        shelves.interval
    }

    /// A block from the shelves, and up to half a magazine of the same key for the next asks.
    fn take_from_shelves(&self, len: usize, key: Key) -> Option<Block> {
        let mut drawer = self.own_drawer();
        let mut shelves = lock(&self.shelves);
        let own = shelves.stacks.take(key, len);
        if own.is_some()
            && let Some(drawer) = &mut drawer
            && drawer.open
        {
            let more = depth_of(key) / 2;
            shelves.stacks.move_newest(key, more, &mut drawer.stacks);
        }
        // A block of another dtype is better than a new one.
        own.or_else(|| {
            Dtype::ALL
                .into_iter()
                .filter(|dtype| *dtype != key.dtype)
                .find_map(|dtype| shelves.stacks.take(Key { dtype, ..key }, len))
        })
    }

    /// A new block.
    fn draw(
        self: &Arc<Self>,
        len: usize,
        key: Option<Key>,
        lifetime: Lifetime,
    ) -> Result<Block, PoolError> {
        let source = lock(&self.source).clone().ok_or(PoolError::Closed)?;
        let near_limit = source
            .utilisation_ratio()
            .is_some_and(|ratio| ratio >= self.cleanup_utilisation);
        if near_limit {
            self.empty_shelves();
        }
        let bytes = key.map_or(len, Key::bytes);
        let span = match source.take_span(bytes, lifetime) {
            Ok(span) => span,
            // What lies about unused may be what is missing.
            Err(_) if self.empty_all() > 0 => source.take_span(bytes, lifetime)?,
            Err(error) => return Err(error),
        };
        Ok(Block::new(span, self, key, self.keeps))
    }

    /// Takes a block back, from any thread.
    #[inline]
    pub(crate) fn release(mut block: Block) {
        // Before anybody else can take it: of one address, gives and takes alternate.
        block.home.recorder.give(block.span.as_ptr() as usize);
        if block.key().is_none() {
            return;
        }
        block.poison();
        // A thread that is ending has no seat any more: its blocks go back to the source.
        let _ = SEAT.try_with(|seat| seat.release(block));
    }

    #[inline]
    fn put(&self, ordinal: usize, block: Block) {
        let Some(key) = block.key() else { return };
        let Some(mut drawer) = self.drawer(ordinal).filter(|drawer| drawer.open) else {
            return self.put_on_shelf(block);
        };
        let depth = depth_of(key);
        if drawer.stacks.count(key) < depth {
            return drawer.stacks.put(block);
        }
        self.put_into_full(drawer, key, depth, block);
    }

    #[cold]
    #[inline(never)]
    fn put_into_full(
        &self,
        mut drawer: LatchGuard<'_, Drawer>,
        key: Key,
        depth: usize,
        block: Block,
    ) {
        if depth == 0 {
            drop(drawer);
            return self.put_on_shelf(block);
        }
        let half = depth.div_ceil(2);
        let mut shelves = lock(&self.shelves);
        drawer.stacks.move_oldest(key, half, &mut shelves.stacks);
        drop(shelves);
        drawer.stacks.put(block);
    }

    #[cold]
    #[inline(never)]
    fn put_on_shelf(&self, block: Block) {
        let mut shelves = lock(&self.shelves);
        if shelves.open {
            return shelves.stacks.put(block);
        }
        drop(shelves);
        drop(block);
    }

    /// Gives up the blocks on the shelves; how many.
    fn empty_shelves(&self) -> usize {
        // Dropped when the lock is free again.
        let blocks = lock(&self.shelves).stacks.drain_all();
        blocks.len()
    }

    /// Gives up all blocks that nobody uses; how many.
    pub(crate) fn empty_all(&self) -> usize {
        let mut count = 0;
        for magazine in &self.magazines {
            let blocks = magazine.0.lock().stacks.drain_all();
            count += blocks.len();
        }
        count + self.empty_shelves()
    }

    /// Gives up the blocks that were not wanted for an interval, as far as the capacities say, and what
    /// the source keeps beyond need. Says how many blocks went, and their bytes.
    pub(crate) fn clean_up(&self) -> (u64, Bytes) {
        let mut idle = vec![0; CLASSES * DTYPES];
        for magazine in &self.magazines {
            let mut drawer = magazine.0.lock();
            let mut shelves = lock(&self.shelves);
            for key in Key::all() {
                let unwanted = drawer.stacks.idle(key);
                idle[key.index()] += unwanted;
                // On the shelves others find them, and below they are judged with the rest.
                drawer
                    .stacks
                    .move_oldest(key, unwanted, &mut shelves.stacks);
            }
            drawer.stacks.begin_interval();
            drawer.interval = drawer.interval.wrapping_add(1);
        }
        let mut gone = Vec::new();
        {
            let shelves = &mut *lock(&self.shelves);
            for key in Key::all() {
                let idle = idle[key.index()] + shelves.stacks.idle(key);
                let live = lock(&self.registry).live(key);
                let capacity = &mut shelves.capacities[key.index()];
                *capacity = capacity_next(*capacity, live.saturating_sub(idle));
                let excess = live.saturating_sub(*capacity).min(idle);
                gone.extend(shelves.stacks.drain_oldest(key, excess));
            }
            shelves.stacks.begin_interval();
            shelves.interval = shelves.interval.wrapping_add(1);
        }
        let bytes = gone.iter().map(|block| Bytes::from(block.span.len())).sum();
        (gone.len() as u64, bytes)
    }

    /// Everything that is known, of one moment.
    pub(crate) fn survey(&self) -> Survey {
        self.at_rest(|stacks, counts, interval, registry| {
            let blocks_free: usize = stacks.iter().map(|stacks| stacks.count_all()).sum();
            let bytes_free: usize = stacks.iter().map(|stacks| stacks.bytes()).sum();
            let largest = Key::all()
                .filter(|key| stacks.iter().any(|stacks| stacks.count(*key) > 0))
                .map(Key::bytes)
                .max();
            let before = interval.saturating_sub(LEAKED_AFTER);
            let leaks = registry.out(&in_stacks(stacks), Some(before));
            Survey {
                counts,
                blocks: registry.count() as u64,
                bytes: registry.bytes(),
                blocks_free: blocks_free as u64,
                bytes_free: bytes_free as u64,
                largest_free: largest.unwrap_or(0) as u64,
                leaked: leaks.iter().map(|leak| leak.buffers).sum(),
            }
        })
    }

    /// Where the buffers that are out now were acquired.
    pub(crate) fn out(&self) -> Vec<Leak> {
        self.at_rest(|stacks, _, _, registry| registry.out(&in_stacks(stacks), None))
    }

    /// Runs `look` while no block moves.
    fn at_rest<T>(&self, look: impl FnOnce(&[&Stacks], Counts, u32, &Registry) -> T) -> T {
        let drawers: Vec<_> = self.magazines.iter().map(|one| one.0.lock()).collect();
        let shelves = lock(&self.shelves);
        let mut counts = shelves.counts;
        let mut stacks = vec![&shelves.stacks];
        for drawer in &drawers {
            counts.merge(&drawer.counts);
            stacks.push(&drawer.stacks);
        }
        look(&stacks, counts, shelves.interval, &lock(&self.registry))
    }

    /// Starts the largest block again.
    pub(crate) fn reset_largest(&self) {
        for magazine in &self.magazines {
            magazine.0.lock().counts.largest = 0;
        }
        lock(&self.shelves).counts.largest = 0;
    }

    /// The source, until the pool is closed.
    pub(crate) fn source(&self) -> Option<Arc<dyn SpanSource>> {
        lock(&self.source).clone()
    }

    /// Gives everything up that nobody uses, and lets go of the source. Buffers that are out go back to
    /// it when they are dropped.
    pub(crate) fn close(&self) {
        for magazine in &self.magazines {
            magazine.0.lock().open = false;
        }
        lock(&self.shelves).open = false;
        self.empty_all();
        *lock(&self.source) = None;
    }
}

fn in_stacks(stacks: &[&Stacks]) -> Vec<bool> {
    let mut seen = Vec::new();
    for slot in stacks.iter().flat_map(|stacks| stacks.slots()) {
        let slot = slot as usize;
        if seen.len() <= slot {
            seen.resize(slot + 1, false);
        }
        seen[slot] = true;
    }
    seen
}
