//! Leases, and how they are waited for.

use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use super::cache::{Denied, Shared};
use super::state::State;
use crate::inbox::lock;

/// A lease on its way. Dropping it gives up.
#[must_use = "a lease that nobody waits for is given back"]
pub struct Acquire<M: Send + Sync + 'static> {
    shared: Arc<Shared<M>>,
    place: usize,
    /// `None` when it has been used.
    ticket: Option<u64>,
}

impl<M: Send + Sync + 'static> Acquire<M> {
    pub(super) fn new(shared: &Arc<Shared<M>>, place: usize, ticket: u64) -> Self {
        Self {
            shared: Arc::clone(shared),
            place,
            ticket: Some(ticket),
        }
    }
}

impl<M: Send + Sync + 'static> Future for Acquire<M> {
    type Output = Result<Lease<M>, Denied>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let Some(number) = this.ticket else {
            return Poll::Pending;
        };
        let mut state = lock(&this.shared.state);
        let entry = &mut state.places[this.place];
        let Some(ticket) = entry.tickets.get_mut(&number) else {
            // The keeper has ended.
            this.ticket = None;
            return Poll::Ready(Err(Denied::Stopping));
        };
        let Some(outcome) = ticket.outcome.take() else {
            ticket.waker = Some(context.waker().clone());
            return Poll::Pending;
        };
        entry.tickets.remove(&number);
        this.ticket = None;
        if let Err(denied) = outcome {
            return Poll::Ready(Err(denied));
        }
        // Granted, it is counted: the model cannot have gone.
        let Some(model) = entry.model().cloned() else {
            return Poll::Ready(Err(Denied::Stopping));
        };
        let shared = Arc::clone(&this.shared);
        drop(state);
        Poll::Ready(Ok(Lease {
            shared,
            place: this.place,
            model: Some(model),
        }))
    }
}

impl<M: Send + Sync + 'static> Drop for Acquire<M> {
    fn drop(&mut self) {
        let Some(number) = self.ticket.take() else {
            return;
        };
        let mut state = lock(&self.shared.state);
        let ticket = state.places[self.place].tickets.remove(&number);
        if ticket.is_some_and(|ticket| matches!(ticket.outcome, Some(Ok(())))) {
            self.shared.release(&mut state, self.place);
        }
        self.shared.bell.notify_all();
    }
}

impl<M: Send + Sync + 'static> Shared<M> {
    fn release(&self, state: &mut State<M>, place: usize) {
        let entry = &mut state.places[place];
        entry.leases -= 1;
        if entry.leases == 0 {
            entry.used_at = (self.clock)();
            self.bell.notify_all();
        }
    }
}

/// The right to use a model: it stays as long as this lives.
pub struct Lease<M: Send + Sync + 'static> {
    shared: Arc<Shared<M>>,
    place: usize,
    /// Gone before the lease is counted as ended, so that who unloads the model finds it unused.
    model: Option<Arc<M>>,
}

impl<M: Send + Sync + 'static> Deref for Lease<M> {
    type Target = M;

    fn deref(&self) -> &M {
        self.model.as_ref().expect("taken out by drop alone")
    }
}

impl<M: Send + Sync + 'static> Drop for Lease<M> {
    fn drop(&mut self) {
        self.model = None;
        let mut state = lock(&self.shared.state);
        self.shared.release(&mut state, self.place);
    }
}

impl<M: Send + Sync + 'static> std::fmt::Debug for Lease<M> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Lease({})", self.place)
    }
}
