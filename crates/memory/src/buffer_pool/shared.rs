//! The ways of a block: out of a magazine, a shelf or the source, and back.
//!
//! ```text
//! acquire: magazine of this thread ─► shelves ─► (near the limit: empty the shelves) ─► source
//! release: magazine of this thread, whose older half goes to the shelves when it is full
//! ```
//!
//! The quick ways enter the thread's own magazine, and touch nothing else that other threads write. A
//! thread that cannot (somebody looks at all magazines, or there are more threads than magazines) goes to
//! the shelves. Order of locks: magazine, shelves, then registry or heap; nobody waits for a magazine with
//! the shelves held.

use std::cell::RefCell;
use std::panic::Location;
use std::sync::{Arc, Mutex};

use crate::account::Lifetime;
use crate::buffer_pool::block::{Block, Leak, Registry};
use crate::buffer_pool::buffer::Buffer;
use crate::buffer_pool::class::{CLASSES, DTYPES, Dtype, Key};
use crate::buffer_pool::magazine::{Stacks, capacity_next, depth_of};
use crate::bytes::Bytes;
use crate::cell::{Inside, Seat, Seats};
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
    magazines: Arc<Seats<Drawer>>,
    shelves: Mutex<Shelves>,
    pub(crate) registry: Mutex<Registry>,
    /// `None` once the pool is closed.
    source: Mutex<Option<Arc<dyn SpanSource>>>,
    recorder: Recorder,
}

/// What lies in a magazine.
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
    /// Those for which a new block was drawn.
    pub(crate) drawn: u64,
    pub(crate) bytes: u64,
    pub(crate) largest: u64,
}

impl Counts {
    #[inline]
    fn add(&mut self, len: usize, drawn: bool) {
        // Wrapping: a count of bytes that came round is better than a request that died of it.
        self.acquired = self.acquired.wrapping_add(1);
        self.drawn = self.drawn.wrapping_add(u64::from(drawn));
        self.bytes = self.bytes.wrapping_add(len as u64);
        self.largest = self.largest.max(len as u64);
    }

    fn merge(&mut self, other: &Counts) {
        self.acquired = self.acquired.wrapping_add(other.acquired);
        self.drawn = self.drawn.wrapping_add(other.drawn);
        self.bytes = self.bytes.wrapping_add(other.bytes);
        self.largest = self.largest.max(other.largest);
    }
}

/// A thread at the pool that it used last. Keeping that one alive spares counting its owners up and down
/// with every block; a closed pool holds nothing any more.
struct Desk {
    home: Arc<Shared>,
    /// `None` where all magazines have owners.
    seat: Option<Seat<Drawer>>,
}

thread_local! {
    static DESK: RefCell<Option<Desk>> = const { RefCell::new(None) };
}

impl Desk {
    /// The thread's magazine at `home`. `None` where it has none, or somebody looks at all of them.
    #[inline]
    fn enter<'a>(
        desk: &'a mut Option<Desk>,
        home: &Arc<Shared>,
    ) -> Option<(&'a Shared, Inside<'a, Drawer>)> {
        if !desk
            .as_ref()
            .is_some_and(|desk| Arc::ptr_eq(&desk.home, home))
        {
            Desk::change(desk, home);
        }
        let Desk { home, seat } = desk.as_mut()?;
        Some((home, seat.as_mut()?.enter()?))
    }

    #[cold]
    #[inline(never)]
    fn change(desk: &mut Option<Desk>, home: &Arc<Shared>) {
        // The seat at the old pool is free first: it may be the same pool's, after all were taken.
        *desk = None;
        *desk = Some(Desk {
            home: Arc::clone(home),
            seat: home.magazines.claim(),
        });
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
        let drawer = || Drawer {
            open: true,
            interval: 0,
            counts: Counts::default(),
            stacks: Stacks::default(),
        };
        Shared {
            device: source.device(),
            keeps,
            tracks,
            cleanup_utilisation,
            magazines: Seats::new(MAGAZINES, drawer),
            shelves: Mutex::new(Shelves {
                open: true,
                interval: 0,
                counts: Counts::default(),
                stacks: Stacks::default(),
                capacities: vec![0; CLASSES * DTYPES],
            }),
            registry: Mutex::new(Registry::new()),
            source: Mutex::new(Some(source)),
            recorder,
        }
    }

    pub(crate) fn device(&self) -> Device {
        self.device
    }

    /// Runs `work` in this thread's magazine. `None` where it cannot be entered, or `work` says so.
    #[inline]
    fn in_magazine<T>(
        self: &Arc<Self>,
        work: impl FnOnce(&Shared, &mut Drawer) -> Option<T>,
    ) -> Option<T> {
        // A thread that is ending has no desk any more.
        let done = DESK.try_with(|desk| {
            let mut desk = desk.try_borrow_mut().ok()?;
            let (shared, mut drawer) = Desk::enter(&mut desk, self)?;
            work(shared, &mut drawer)
        });
        done.ok().flatten()
    }

    #[inline]
    pub(crate) fn acquire(
        self: &Arc<Self>,
        len: usize,
        dtype: Dtype,
        lifetime: Lifetime,
        place: &'static Location<'static>,
    ) -> Result<Buffer, PoolError> {
        let key = Key::of(len, dtype).filter(|_| self.keeps);
        // Only the block's address travels until the end: results and buffers in memory are what the
        // quick way would spend most of its time on.
        let quick = key.and_then(|key| {
            self.in_magazine(|shared, drawer| {
                let block = drawer.stacks.take(key, len)?;
                if shared.tracks {
                    drawer.counts.add(len, false);
                }
                block.note(place, drawer.interval, lifetime);
                Some(block)
            })
        });
        let block = match quick {
            Some(block) => {
                block.check_poison();
                block
            }
            None => self.acquire_slowly(len, key, lifetime, place)?,
        };
        let address = block.span.as_ptr() as usize;
        self.recorder.take(address, len, lifetime, place);
        Ok(Buffer::new(block, len, lifetime))
    }

    #[cold]
    #[inline(never)]
    fn acquire_slowly(
        self: &Arc<Self>,
        len: usize,
        key: Option<Key>,
        lifetime: Lifetime,
        place: &'static Location<'static>,
    ) -> Result<Box<Block>, PoolError> {
        let found = key.and_then(|key| self.take_from_shelves(len, key));
        if let Some(block) = &found {
            block.check_poison();
        }
        let drawn = found.is_none();
        let block = match found {
            Some(block) => block,
            None => self.draw(len, key, lifetime)?,
        };
        let interval = self.count(len, drawn);
        block.note(place, interval, lifetime);
        Ok(block)
    }

    /// Counts one acquired; which interval it is.
    fn count(self: &Arc<Self>, len: usize, drawn: bool) -> u32 {
        let counted = self.in_magazine(|shared, drawer| {
            if shared.tracks {
                drawer.counts.add(len, drawn);
            }
            Some(drawer.interval)
        });
        counted.unwrap_or_else(|| {
            let mut shelves = lock(&self.shelves);
            if self.tracks {
                shelves.counts.add(len, drawn);
            }
            shelves.interval
        })
    }

    /// A block from the shelves, and up to half a magazine of the same key for the next asks.
    fn take_from_shelves(self: &Arc<Self>, len: usize, key: Key) -> Option<Box<Block>> {
        let with_more = self.in_magazine(|shared, drawer| {
            let mut shelves = lock(&shared.shelves);
            let block = shelves.stacks.take(key, len)?;
            if drawer.open {
                let more = depth_of(key) / 2;
                shelves.stacks.move_newest(key, more, &mut drawer.stacks);
            }
            Some(block)
        });
        if with_more.is_some() {
            return with_more;
        }
        let mut shelves = lock(&self.shelves);
        let own = shelves.stacks.take(key, len);
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
    ) -> Result<Box<Block>, PoolError> {
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
    pub(crate) fn release(mut block: Box<Block>) {
        // Before anybody else can take it: of one address, gives and takes alternate.
        block.home.recorder.give(block.span.as_ptr() as usize);
        if block.key().is_none() {
            return;
        }
        block.poison();
        let mut block = Some(block);
        // A thread that is ending has no desk any more: its blocks go to the shelves.
        let _ = DESK.try_with(|desk| {
            let Ok(mut desk) = desk.try_borrow_mut() else {
                return;
            };
            let Some(home) = block.as_ref().map(|block| &block.home) else {
                return;
            };
            if let Some((shared, mut drawer)) = Desk::enter(&mut desk, home)
                && drawer.open
                && let Some(block) = block.take()
            {
                shared.put(&mut drawer, block);
            }
        });
        if let Some(block) = block {
            Shared::put_on_shelf(block);
        }
    }

    #[inline]
    fn put(&self, drawer: &mut Drawer, block: Box<Block>) {
        let Some(key) = block.key() else { return };
        if drawer.stacks.count(key) < depth_of(key) {
            return drawer.stacks.put(block);
        }
        self.put_into_full(drawer, key, block);
    }

    #[cold]
    #[inline(never)]
    fn put_into_full(&self, drawer: &mut Drawer, key: Key, block: Box<Block>) {
        let half = depth_of(key).div_ceil(2);
        let mut shelves = lock(&self.shelves);
        drawer.stacks.move_oldest(key, half, &mut shelves.stacks);
        if half == 0 {
            // Too long for a magazine.
            return shelves.stacks.put(block);
        }
        drop(shelves);
        drawer.stacks.put(block);
    }

    #[cold]
    #[inline(never)]
    fn put_on_shelf(block: Box<Block>) {
        // Kept alive: in the shelves the block may be another thread's before the lock is free.
        let home = Arc::clone(&block.home);
        let mut shelves = lock(&home.shelves);
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
        // Dropped when the magazines are free again.
        let blocks: Vec<Box<Block>> = self.magazines.look(|drawers| {
            let all = drawers
                .iter_mut()
                .flat_map(|drawer| drawer.stacks.drain_all());
            all.collect()
        });
        let count = blocks.len();
        drop(blocks);
        count + self.empty_shelves()
    }

    /// Gives up the blocks that were not wanted for an interval, as far as the capacities say, and what
    /// the source keeps beyond need. Says how many blocks went, and their bytes.
    pub(crate) fn clean_up(&self) -> (u64, Bytes) {
        let mut idle = vec![0; CLASSES * DTYPES];
        self.magazines.look(|drawers| {
            let mut shelves = lock(&self.shelves);
            for drawer in drawers {
                for key in Key::all() {
                    let unwanted = drawer.stacks.idle(key);
                    idle[key.index()] += unwanted;
                    // On the shelves others find them, and below they are judged with the rest.
                    let to = &mut shelves.stacks;
                    drawer.stacks.move_oldest(key, unwanted, to);
                }
                drawer.stacks.begin_interval();
                drawer.interval = drawer.interval.wrapping_add(1);
            }
        });
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
        self.magazines.look(|drawers| {
            let shelves = lock(&self.shelves);
            let mut counts = shelves.counts;
            let mut stacks = vec![&shelves.stacks];
            for drawer in drawers.iter() {
                counts.merge(&drawer.counts);
                stacks.push(&drawer.stacks);
            }
            look(&stacks, counts, shelves.interval, &lock(&self.registry))
        })
    }

    /// Starts the largest block again.
    pub(crate) fn reset_largest(&self) {
        self.magazines.look(|drawers| {
            for drawer in drawers {
                drawer.counts.largest = 0;
            }
        });
        lock(&self.shelves).counts.largest = 0;
    }

    /// The source, until the pool is closed.
    pub(crate) fn source(&self) -> Option<Arc<dyn SpanSource>> {
        lock(&self.source).clone()
    }

    /// Gives everything up that nobody uses, and lets go of the source. Buffers that are out go back to
    /// it when they are dropped.
    pub(crate) fn close(&self) {
        self.magazines.look(|drawers| {
            for drawer in drawers {
                drawer.open = false;
            }
        });
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
