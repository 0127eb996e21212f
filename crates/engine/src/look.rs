//! What people see of a model between two of its steps: its requests one by one, and its blocks.
//!
//! Nothing of it is kept up to date while nobody looks. Who looks brings the memory, so that the engine's
//! thread allocates nothing, asks, and hears when it has been filled; the thread fills it before it takes
//! its next step.

use std::future::Future;
use std::mem::size_of;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bursar_kv::{Cell, MapShape};
use bursar_memory::Bytes;

use crate::inbox::lock;
use crate::step::WaitsFor;

/// Requests of a model that are told one by one; of more, only how many there are.
const REQUESTS_MAX: usize = 64;
/// Cells of a map.
const CELLS_MAX: usize = 4096;

/// A request that runs or waits.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct RequestView {
    /// Time since it came.
    pub age: Duration,
    /// Tokens of its prompt, or of all its texts.
    pub prompt_tokens: usize,
    /// What has come of it so far.
    pub made: Made,
    /// Tokens whose keys and values are stored for it, those shared with others included.
    pub stored_tokens: usize,
    /// Blocks that these are in.
    pub blocks: usize,
    /// Higher goes first.
    pub priority: i32,
    /// Why it does not run; `None` of one that does.
    pub waits: Option<Waits>,
}

/// What has come of a request, of how much that may.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Made {
    /// Tokens of an answer.
    Tokens {
        /// So far.
        done: usize,
        /// At most.
        most: usize,
    },
    /// Vectors.
    Vectors {
        /// So far.
        done: usize,
        /// In all.
        all: usize,
    },
}

/// Why a request does not run.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Waits {
    /// Those who go before it.
    pub before: usize,
    /// What the first of all needs; `None` where there is nothing to be had.
    pub first: Option<WaitsFor>,
    /// Whether it ran before, and gave its blocks to others.
    pub displaced: bool,
}

/// Room for what is seen of a model, and what was seen.
#[derive(Debug, Default)]
pub struct Sight {
    /// Those that run, then those that wait, each in their order.
    pub requests: Vec<RequestView>,
    /// Requests that there was no room for.
    pub left_out: usize,
    /// Its blocks in order; none of a model that embeds.
    pub cells: Vec<Cell>,
    /// How the cells stand for blocks.
    pub shape: Option<MapShape>,
}

impl Sight {
    /// Room for as much as is ever told.
    pub fn new() -> Self {
        Self {
            requests: Vec::with_capacity(REQUESTS_MAX),
            cells: Vec::with_capacity(CELLS_MAX),
            ..Self::default()
        }
    }

    /// What that takes.
    pub fn bytes() -> Bytes {
        let requests = REQUESTS_MAX * size_of::<RequestView>();
        Bytes((requests + CELLS_MAX * size_of::<Cell>()) as u64)
    }

    /// One more request, if there is room.
    pub(crate) fn push(&mut self, request: RequestView) {
        match self.requests.len() < self.requests.capacity() {
            true => self.requests.push(request),
            false => self.left_out += 1,
        }
    }

    fn clear(&mut self) {
        self.requests.clear();
        self.cells.clear();
        self.left_out = 0;
        self.shape = None;
    }
}

/// Those who look at a model.
#[derive(Debug, Default)]
pub(crate) struct Lookers(Mutex<Asked>);

#[derive(Debug, Default)]
struct Asked {
    slots: Vec<Arc<Slot>>,
    /// Nobody will be answered any more.
    closed: bool,
}

type Slot = Mutex<Turn>;

/// Whose turn it is with a sight.
#[derive(Debug)]
enum Turn {
    Engine(Sight, Option<Waker>),
    Asker(Option<Sight>),
}

impl Lookers {
    /// Asks to see; the bell is to be rung then.
    pub(crate) fn ask(&self, sight: Sight) -> Looking {
        let mut asked = lock(&self.0);
        let turn = match asked.closed {
            true => Turn::Asker(None),
            false => Turn::Engine(sight, None),
        };
        let slot = Arc::new(Mutex::new(turn));
        if !asked.closed {
            // Who has given up while the model was lent to somebody is forgotten.
            asked.slots.retain(|slot| Arc::strong_count(slot) > 1);
            asked.slots.push(Arc::clone(&slot));
        }
        Looking(slot)
    }

    /// Has `look` fill what those brought who ask.
    pub(crate) fn answer(&self, mut look: impl FnMut(&mut Sight)) {
        let mut asked = lock(&self.0);
        for slot in asked.slots.drain(..) {
            hand_back(&slot, |sight| {
                sight.clear();
                look(sight);
                true
            });
        }
    }

    /// Tells all who ask that there is nothing to be seen, from now on.
    pub(crate) fn close(&self) {
        let mut asked = lock(&self.0);
        asked.closed = true;
        for slot in asked.slots.drain(..) {
            hand_back(&slot, |_| false);
        }
    }
}

/// Gives a sight back to who brought it, if `fill` fills it.
fn hand_back(slot: &Slot, fill: impl FnOnce(&mut Sight) -> bool) {
    let mut turn = lock(slot);
    let Turn::Engine(sight, waker) = &mut *turn else {
        return;
    };
    let filled = fill(sight).then(|| std::mem::take(sight));
    let waker = waker.take();
    *turn = Turn::Asker(filled);
    drop(turn);
    if let Some(waker) = waker {
        waker.wake();
    }
}

/// What comes of a look; `None` of a model that has gone. Dropping it gives up.
#[derive(Debug)]
pub struct Looking(Arc<Slot>);

impl Future for Looking {
    type Output = Option<Sight>;

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Sight>> {
        match &mut *lock(&self.0) {
            Turn::Engine(_, waker) => {
                *waker = Some(context.waker().clone());
                Poll::Pending
            }
            Turn::Asker(sight) => Poll::Ready(sight.take()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn view(prompt_tokens: usize) -> RequestView {
        RequestView {
            age: Duration::ZERO,
            prompt_tokens,
            made: Made::Vectors { done: 0, all: 1 },
            stored_tokens: 0,
            blocks: 0,
            priority: 0,
            waits: None,
        }
    }

    fn poll(looking: &mut Looking) -> Poll<Option<Sight>> {
        Pin::new(looking).poll(&mut Context::from_waker(Waker::noop()))
    }

    #[test]
    fn who_asks_gets_back_what_he_brought_filled() {
        let lookers = Lookers::default();
        let mut sight = Sight::new();
        let room = sight.requests.capacity();
        sight.push(view(1));
        let mut looking = lookers.ask(sight);
        let mut given_up = lookers.ask(Sight::new());
        assert!(poll(&mut looking).is_pending());
        lookers.answer(|sight| {
            for request in 0..room + 3 {
                sight.push(view(request));
            }
        });
        let Poll::Ready(Some(seen)) = poll(&mut looking) else {
            panic!("it has been answered");
        };
        assert_eq!((seen.requests.len(), seen.left_out), (room, 3));
        assert_eq!(seen.requests.capacity(), room, "nothing is allocated");
        assert!(matches!(poll(&mut given_up), Poll::Ready(Some(_))));
        lookers.answer(|_| panic!("nobody asks"));
    }

    #[test]
    fn who_gives_up_is_forgotten_and_the_end_is_told() {
        let lookers = Lookers::default();
        drop(lookers.ask(Sight::new()));
        let mut looking = lookers.ask(Sight::new());
        assert_eq!(lock(&lookers.0).slots.len(), 1);
        lookers.close();
        assert!(matches!(poll(&mut looking), Poll::Ready(None)));
        assert!(matches!(
            poll(&mut lookers.ask(Sight::new())),
            Poll::Ready(None)
        ));
    }
}
