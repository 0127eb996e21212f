//! The three phases of a server: it serves, it drains, it has ended.

use tokio::sync::watch;

/// Where a server is in its life.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    /// Requests are taken.
    Serving,
    /// What runs may finish; nothing new is taken.
    Draining,
    /// What still runs is cut off, with a word.
    Ended,
}

/// Moves a server on; clones move the same one.
#[derive(Clone, Debug)]
pub struct Stopper(watch::Sender<Phase>);

impl Stopper {
    pub(crate) fn new() -> Stopper {
        Stopper(watch::Sender::new(Phase::Serving))
    }

    /// Takes no new requests and lets the running ones finish, for as long as the server was told
    /// to; asked a second time, ends at once.
    pub fn stop(&self) {
        self.0.send_modify(|phase| {
            *phase = match *phase {
                Phase::Serving => Phase::Draining,
                Phase::Draining | Phase::Ended => Phase::Ended,
            }
        });
    }

    pub(crate) fn end(&self) {
        self.0.send_replace(Phase::Ended);
    }

    pub(crate) fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Waits until the server has come to `phase`.
    pub(crate) fn reached(&self, phase: Phase) -> impl Future<Output = ()> + Send + 'static {
        let mut watch = self.0.subscribe();
        async move {
            // The sender lives as long as the server: an error means the same as the end.
            let _ = watch.wait_for(|now| *now >= phase).await;
        }
    }

    pub(crate) fn ended(&self) -> Ended {
        Ended(self.clone())
    }
}

/// Tells when what still runs is cut off.
#[derive(Clone, Debug)]
pub(crate) struct Ended(Stopper);

impl Ended {
    pub(crate) fn wait(&self) -> impl Future<Output = ()> + Send + 'static {
        self.0.reached(Phase::Ended)
    }
}
