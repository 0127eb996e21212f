//! The engine's thread: sleeps until the bell rings, does what it is told, lets every model take what
//! has arrived for it, and runs the step of the one whose turn it is.

use std::collections::VecDeque;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use bursar_memory::Bytes;

use bursar_memory::region::RegionError;

use crate::arena::{Arena, ArenaClaim};
use crate::handle::Face;
use crate::host::{Endings, Shared};
use crate::seat::{Measured, Seat};
use crate::turns::Turns;
use crate::work::Work;

/// What the thread is told between steps.
pub(crate) enum Message {
    /// A model takes a seat.
    Add(Box<Seat>, mpsc::Sender<Result<(), RegionError>>),
    /// A model leaves for good.
    Remove(Arc<Face>, mpsc::Sender<Seat>),
    /// A model's share of the arena becomes another.
    Claim(Arc<Face>, ArenaClaim, mpsc::Sender<Result<(), RegionError>>),
    /// A model's work is asked for, to come back.
    Lend(Arc<Face>, mpsc::Sender<Box<dyn Work>>),
    /// It comes back; `None` if it cannot be used any more.
    Return(Arc<Face>, Option<Box<dyn Work>>),
    /// The arena's memory is asked for; if there is something to do, only where that is meant.
    Trim {
        busy: bool,
        reply: mpsc::Sender<Bytes>,
    },
}

/// All models of an engine, on its thread.
pub(crate) struct Host<'a> {
    shared: &'a Shared,
    seats: Vec<Seat>,
    turns: Turns,
    arena: Arena,
    measured: Measured,
    /// What waits for work that is lent.
    deferred: VecDeque<Message>,
}

/// However the thread ends, nobody waits for it.
struct Farewell<'a>(&'a Shared);

impl Drop for Farewell<'_> {
    fn drop(&mut self) {
        self.0.close();
    }
}

/// Runs models until it is told to stop; gives what each of those left behind that were still there.
pub(crate) fn run(shared: &Shared, turns: Turns, arena: Arena) -> Endings {
    let _farewell = Farewell(shared);
    let mut host = Host {
        shared,
        seats: Vec::new(),
        turns,
        arena,
        measured: Measured::default(),
        deferred: VecDeque::new(),
    };
    while host.turn() {}
    shared.close();
    let ends = host.seats.into_iter().map(|seat| {
        let name = seat.face().name().to_owned();
        (name, seat.end())
    });
    ends.collect()
}

impl Host<'_> {
    /// Does what has come up, then one step; false when it was told to stop.
    fn turn(&mut self) -> bool {
        let idle = !self.seats.iter().any(Seat::runnable);
        self.shared.bell.answer(idle);
        let Some(messages) = self.shared.take() else {
            return false;
        };
        for message in messages {
            self.obey(message);
        }
        // From the back, so that places stay what they are when one fails.
        for place in (0..self.seats.len()).rev() {
            self.guarded(place, |seat, _| seat.receive());
        }
        if let Some(place) = self.turns.next(|place| self.seats[place].runnable()) {
            let start = Instant::now();
            if self.guarded(place, Seat::step) {
                self.turns.ran(place, start.elapsed());
            }
            let pause = !self.seats.iter().any(Seat::runnable);
            self.measured.refresh(pause, || self.arena.measure());
        }
        true
    }

    /// Lets a model do something. One that panics is dropped, which tells its clients; the others have
    /// nothing to do with it. The panic has been reported where it happened.
    fn guarded(&mut self, place: usize, act: impl FnOnce(&mut Seat, &mut [u8])) -> bool {
        let (seat, arena) = (&mut self.seats[place], self.arena.as_mut_slice());
        let alive = catch_unwind(AssertUnwindSafe(|| act(seat, arena))).is_ok();
        if !alive {
            drop(self.leave(place));
        }
        alive
    }

    fn leave(&mut self, place: usize) -> Seat {
        self.turns.leave(place);
        let seat = self.seats.remove(place);
        // An arena that stays larger than it has to be is charged as it is.
        let _ = self.arena.fit(self.seats.iter().map(Seat::claim));
        seat
    }

    fn place(&self, face: &Arc<Face>) -> Option<usize> {
        self.seats
            .iter()
            .position(|seat| Arc::ptr_eq(seat.face(), face))
    }

    /// Who has asked and is not answered because the model is not there finds the reply dropped.
    fn obey(&mut self, message: Message) {
        match message {
            Message::Add(seat, reply) => {
                let claims = self.seats.iter().chain([&*seat]).map(Seat::claim);
                let fitted = self.arena.fit(claims);
                if fitted.is_ok() {
                    self.turns.join(seat.class());
                    self.seats.push(*seat);
                }
                let _ = reply.send(fitted);
            }
            Message::Remove(face, reply) => {
                let Some(place) = self.place(&face) else {
                    return;
                };
                if self.seats[place].is_lent() {
                    self.deferred.push_back(Message::Remove(face, reply));
                    return;
                }
                let seat = self.leave(place);
                // The last to hold a face gives its tokenizer back, which is to be who asked.
                drop(face);
                // Whoever asked lets go of it: giving memory back takes long, and others want to run.
                let _ = reply.send(seat);
            }
            Message::Claim(face, claim, reply) => {
                let Some(place) = self.place(&face) else {
                    return;
                };
                let old = self.seats[place].reclaim(claim);
                let fitted = self.arena.fit(self.seats.iter().map(Seat::claim));
                if fitted.is_err() {
                    drop(self.seats[place].reclaim(old));
                }
                let _ = reply.send(fitted);
            }
            Message::Lend(face, reply) => {
                let Some(place) = self.place(&face) else {
                    return;
                };
                match self.seats[place].lend() {
                    Some(work) => {
                        if let Err(mpsc::SendError(work)) = reply.send(work) {
                            self.seats[place].give_back(work);
                        }
                    }
                    None => self.deferred.push_back(Message::Lend(face, reply)),
                }
            }
            Message::Trim { busy, reply } => {
                let free = busy || !self.seats.iter().any(Seat::is_busy);
                let _ = reply.send(if free { self.arena.trim() } else { Bytes::ZERO });
            }
            Message::Return(face, work) => {
                if let Some(place) = self.place(&face) {
                    match work {
                        Some(work) => self.seats[place].give_back(work),
                        None => drop(self.leave(place)),
                    }
                }
                for message in std::mem::take(&mut self.deferred) {
                    self.obey(message);
                }
            }
        }
    }
}
