//! The cache with its keeper over models that are nothing but reservations, on a clock of the test's.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::Thread;
use std::time::Duration;

use bursar_memory::{Bytes, Ledger, Lifetime, Reservation};
use bursar_model::Purpose;

use super::cache::{CacheOptions, Denied, KeepAlive, ModelCache};
use super::keeper::Keeper;
use super::lease::{Acquire, Lease};
use super::policy::{Eviction, Footprint};
use super::source::{Held, LoadError, ModelSource, Why, WhyKind};
use super::status::ModelState;
use crate::inbox::lock;
use crate::sim::Random;

const BUDGET: u64 = 100;

/// A model that holds bytes.
struct Dummy {
    id: String,
    held: Reservation,
    spare: Mutex<Option<Reservation>>,
    in_use: AtomicU64,
}

/// Models of so many bytes, at least and beyond.
struct Dummies {
    ledger: Ledger,
    models: Mutex<BTreeMap<&'static str, (u64, u64)>>,
    broken: AtomicBool,
    /// Loads wait while it is closed.
    gate: (Mutex<bool>, Condvar),
    loads: Mutex<Vec<String>>,
    unloads: Mutex<Vec<(String, WhyKind)>>,
    there: Mutex<Vec<std::sync::Weak<Dummy>>>,
}

impl Dummies {
    fn gate(&self, closed: bool) {
        *lock(&self.gate.0) = closed;
        self.gate.1.notify_all();
    }
}

impl ModelSource for Dummies {
    type Model = Arc<Dummy>;

    fn list(&self) -> Vec<String> {
        lock(&self.models)
            .keys()
            .map(|id| (*id).to_owned())
            .collect()
    }

    fn purpose(&self, _id: &str) -> Option<Purpose> {
        None
    }

    fn load(&self, id: &str, progress: &mut dyn FnMut(u64, u64)) -> Result<Arc<Dummy>, LoadError> {
        lock(&self.loads).push(id.to_owned());
        progress(1, 2);
        let mut closed = lock(&self.gate.0);
        while *closed {
            closed = self.gate.1.wait(closed).unwrap();
        }
        drop(closed);
        let Some((own, wish)) = lock(&self.models).get(id).copied() else {
            return Err(LoadError::Missing);
        };
        if self.broken.load(Ordering::Relaxed) {
            return Err(LoadError::Failed("a bit has fallen over".to_owned()));
        }
        let account = self.ledger.root().child(id, Lifetime::Semantic);
        let held = account.reserve(Bytes(own)).map_err(|_| {
            LoadError::NeedsMore(Footprint {
                own: Bytes(own),
                ..Footprint::default()
            })
        })?;
        let spare = account.reserve(Bytes(wish).min(self.ledger.free())).ok();
        progress(2, 2);
        let model = Arc::new(Dummy {
            id: id.to_owned(),
            held,
            spare: Mutex::new(spare),
            in_use: AtomicU64::new(0),
        });
        lock(&self.there).push(Arc::downgrade(&model));
        Ok(model)
    }

    fn unload(&self, id: &str, model: Arc<Arc<Dummy>>, why: &Why) {
        assert_eq!(model.in_use.load(Ordering::SeqCst), 0, "{id} is in use");
        assert_eq!(model.id, id);
        lock(&self.unloads).push((id.to_owned(), why.kind));
    }

    fn held(&self, model: &Arc<Dummy>) -> Held {
        let spare = lock(&model.spare);
        let spare = spare.as_ref().map_or(Bytes(0), Reservation::bytes);
        Held {
            footprint: Footprint {
                own: model.held.bytes().saturating_add(spare),
                ..Footprint::default()
            },
            spare,
        }
    }

    fn reclaim(&self, _bytes: Bytes, _why: &str) {
        for model in lock(&self.there).iter().filter_map(|model| model.upgrade()) {
            *lock(&model.spare) = None;
        }
    }

    fn failed(&self, _id: &str, _why: &str) {}
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// Waits for a future on this thread.
fn wait<F: Future>(future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
    loop {
        match future.as_mut().poll(&mut Context::from_waker(&waker)) {
            Poll::Ready(value) => return value,
            Poll::Pending => std::thread::park(),
        }
    }
}

fn poll(acquire: &mut Acquire<Arc<Dummy>>) -> Poll<Result<Lease<Arc<Dummy>>, Denied>> {
    let mut context = Context::from_waker(Waker::noop());
    std::pin::Pin::new(acquire).poll(&mut context)
}

struct Place {
    source: Arc<Dummies>,
    cache: ModelCache<Arc<Dummy>>,
    keeper: Keeper<Arc<Dummy>>,
    ledger: Ledger,
    /// In milliseconds.
    clock: Arc<AtomicU64>,
}

impl Place {
    fn new(models: &[(&'static str, u64, u64)], options: CacheOptions) -> Place {
        let ledger = Ledger::new(Bytes(BUDGET));
        let source = Arc::new(Dummies {
            ledger: ledger.clone(),
            models: Mutex::new(
                models
                    .iter()
                    .map(|&(id, own, wish)| (id, (own, wish)))
                    .collect(),
            ),
            broken: AtomicBool::new(false),
            gate: (Mutex::new(false), Condvar::new()),
            loads: Mutex::default(),
            unloads: Mutex::default(),
            there: Mutex::default(),
        });
        let clock = Arc::new(AtomicU64::new(0));
        let inner = Arc::clone(&clock);
        let cache = ModelCache::with_clock(
            Arc::clone(&source) as Arc<dyn ModelSource<Model = Arc<Dummy>>>,
            &ledger,
            options,
            Box::new(move || Duration::from_millis(inner.load(Ordering::SeqCst))),
        );
        let keeper = Keeper::start(&cache).unwrap();
        Place {
            source,
            cache,
            keeper,
            ledger,
            clock,
        }
    }

    fn lease(&self, id: &str) -> Result<Lease<Arc<Dummy>>, Denied> {
        wait(self.cache.acquire(id, None)?)
    }

    /// Lets time pass, and the keeper see it.
    fn pass(&self, ms: u64) {
        self.clock.fetch_add(ms, Ordering::SeqCst);
        self.cache.0.bell.notify_all();
    }

    fn state(&self, id: &str) -> ModelState {
        self.cache.status_of(id).unwrap().state
    }

    /// Waits until a model is in a state.
    fn until(&self, id: &str, state: ModelState) {
        wait(std::future::poll_fn(|context| {
            lock(&self.cache.0.state)
                .watchers
                .push(context.waker().clone());
            match self.state(id) == state {
                true => Poll::Ready(()),
                false => Poll::Pending,
            }
        }));
    }

    fn unloads(&self) -> Vec<(String, WhyKind)> {
        lock(&self.source.unloads).clone()
    }

    /// Everything goes, and nothing is left.
    fn end(self) {
        assert!(self.keeper.end());
        assert_eq!(self.ledger.granted(), Bytes(0));
        assert!(self.ledger.granted_peak() <= Bytes(BUDGET));
    }
}

fn options() -> CacheOptions {
    CacheOptions {
        min_residency: Duration::ZERO,
        eviction: Eviction::Cheapest,
        keep_alive: None,
        pinned: Vec::new(),
        kept: Vec::new(),
        queue: 16,
        room: Bytes(BUDGET),
    }
}

#[test]
fn however_many_ask_it_is_loaded_once() {
    let place = Place::new(&[("a", 60, 0)], options());
    place.source.gate(true);
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| place.lease("a").unwrap()))
            .collect();
        while place.cache.status_of("a").unwrap().waiting < 8 {
            std::thread::yield_now();
        }
        place.source.gate(false);
        for client in clients {
            assert_eq!(client.join().unwrap().id, "a");
        }
    });
    drop(place.lease("a").unwrap());
    let totals = place.cache.totals();
    assert_eq!((totals.loads, totals.misses, totals.hits), (1, 8, 1));
    assert_eq!(place.lease("b").unwrap_err(), Denied::Unknown);
    place.end();
}

#[test]
fn a_model_in_use_stays_and_goes_when_it_is_not() {
    let place = Place::new(&[("a", 60, 0), ("b", 50, 0), ("c", 101, 0)], options());
    let a = place.lease("a").unwrap();
    let mut b = place.cache.acquire("b", None).unwrap();
    place.until("a", ModelState::Closing);
    assert!(poll(&mut b).is_pending());
    place.pass(1);
    // It gives no new leases while another waits for its place.
    let mut again = place.cache.acquire("a", None).unwrap();
    assert!(poll(&mut again).is_pending());
    drop(a);
    let b = wait(b).unwrap();
    assert_eq!(place.unloads(), [("a".to_owned(), WhyKind::Room)]);
    // And gets its turn again in the same way.
    place.until("b", ModelState::Closing);
    drop(b);
    assert_eq!(wait(again).unwrap().id, "a");
    assert_eq!(place.cache.totals().evictions(), 2);
    let (need, most) = (Bytes(101), Bytes(100));
    assert_eq!(
        place.lease("c").unwrap_err(),
        Denied::TooLarge { need, most }
    );
    place.end();
}

#[test]
fn who_gives_up_is_not_waited_for() {
    let place = Place::new(&[("a", 60, 0), ("b", 50, 0)], options());
    let a = place.lease("a").unwrap();
    let b = place.cache.acquire("b", None).unwrap();
    place.until("a", ModelState::Closing);
    let again = place.cache.acquire("a", None).unwrap();
    drop(b);
    // Nobody needs its place any more: it is open to all.
    let again = wait(again).unwrap();
    assert_eq!(place.state("a"), ModelState::Loaded);
    // One that was granted and never taken counts as ended.
    let taken = place.cache.acquire("a", None).unwrap();
    drop((a, again, taken));
    assert_eq!(place.cache.status_of("a").unwrap().leases, 0);
    assert!(place.unloads().is_empty());
    place.end();
}

#[test]
fn models_go_in_their_time_unless_they_are_pinned_or_kept() {
    let options = CacheOptions {
        keep_alive: Some(Duration::from_secs(300)),
        pinned: vec!["p".to_owned()],
        kept: vec!["k".to_owned()],
        ..options()
    };
    let place = Place::new(
        &[("a", 10, 0), ("b", 10, 0), ("k", 10, 0), ("p", 30, 0)],
        options,
    );
    for id in ["a", "k", "p"] {
        drop(place.lease(id).unwrap());
    }
    let at_once = Some(KeepAlive::For(Duration::ZERO));
    drop(wait(place.cache.acquire("b", at_once).unwrap()).unwrap());
    place.until("b", ModelState::Absent);
    let expires = place.cache.status_of("a").unwrap().expires;
    assert_eq!(expires, Some(Duration::from_secs(300)));
    place.pass(300_001);
    place.until("a", ModelState::Absent);
    for id in ["k", "p"] {
        assert_eq!(place.state(id), ModelState::Loaded);
        assert_eq!(place.cache.status_of(id).unwrap().expires, None);
    }
    // Asked for, a pinned one goes too; used, not before that has ended.
    let lease = place.lease("p").unwrap();
    place.cache.unload("p").unwrap();
    place.until("p", ModelState::Closing);
    drop(lease);
    wait(place.cache.gone("p"));
    let gone = [
        ("b", WhyKind::Idle),
        ("a", WhyKind::Idle),
        ("p", WhyKind::Asked),
    ];
    assert_eq!(
        place.unloads(),
        gone.map(|(id, kind)| (id.to_owned(), kind))
    );
    assert_eq!(place.cache.unload("x"), Err(Denied::Unknown));
    place.end();
}

#[test]
fn nobody_makes_room_too_early_or_by_a_pinned_model() {
    let options = CacheOptions {
        min_residency: Duration::from_secs(5),
        pinned: vec!["p".to_owned()],
        ..options()
    };
    let place = Place::new(
        &[("a", 50, 0), ("b", 60, 0), ("p", 30, 0), ("q", 71, 0)],
        options,
    );
    drop(place.lease("p").unwrap());
    drop(place.lease("a").unwrap());
    let mut b = place.cache.acquire("b", None).unwrap();
    place.pass(4000);
    assert!(poll(&mut b).is_pending());
    assert_eq!(place.state("a"), ModelState::Loaded);
    place.pass(1000);
    assert_eq!(wait(b).unwrap().id, "b");
    assert_eq!(place.unloads(), [("a".to_owned(), WhyKind::Room)]);
    let (need, most) = (Bytes(71), Bytes(70));
    assert_eq!(
        place.lease("q").unwrap_err(),
        Denied::Blocked { need, most }
    );
    place.end();
}

#[test]
fn what_models_can_spare_goes_before_models() {
    let place = Place::new(&[("a", 40, 100), ("b", 50, 100)], options());
    drop(place.lease("a").unwrap());
    assert_eq!(place.ledger.free(), Bytes(0));
    drop(place.lease("b").unwrap());
    assert!(place.unloads().is_empty());
    assert_eq!(
        place.ledger.free(),
        Bytes(0),
        "the rest is put to use again"
    );
    assert_eq!(place.cache.totals().loads, 2);

    // Under pressure, those that nobody uses go.
    let lease = place.lease("b").unwrap();
    let gone = place.cache.shed(Bytes(90), "others need it");
    assert_eq!(gone.len(), 1);
    assert_eq!((gone[0].id.as_str(), gone[0].bytes), ("a", Bytes(40)));
    assert_eq!(place.unloads(), [("a".to_owned(), WhyKind::Pressure)]);
    drop(lease);
    place.end();
}

#[test]
fn what_failed_is_left_alone_for_a_while() {
    let place = Place::new(&[("a", 60, 0)], options());
    place.source.broken.store(true, Ordering::Relaxed);
    let failed = |seconds| Denied::Failed {
        why: "a bit has fallen over".to_owned(),
        retry: Duration::from_secs(seconds),
    };
    assert_eq!(place.lease("a").unwrap_err(), failed(1));
    assert_eq!(place.state("a"), ModelState::Failed);
    assert_eq!(place.lease("a").unwrap_err(), failed(1));
    place.pass(1000);
    assert_eq!(place.lease("a").unwrap_err(), failed(2));
    assert_eq!(lock(&place.source.loads).len(), 2);
    assert_eq!(place.cache.totals().failures, 2);
    place.source.broken.store(false, Ordering::Relaxed);
    place.pass(2000);
    drop(place.lease("a").unwrap());
    assert_eq!(place.cache.status_of("a").unwrap().error, None);

    // A file that has gone is unknown, and one that has come is found.
    place.cache.unload("a").unwrap();
    wait(place.cache.gone("a"));
    lock(&place.source.models).clear();
    assert_eq!(place.lease("a").unwrap_err(), Denied::Unknown);
    assert!(place.cache.status().is_empty());
    lock(&place.source.models).insert("new", (5, 0));
    drop(place.lease("new").unwrap());
    place.end();
}

#[test]
fn no_more_wait_than_may_and_none_when_it_ends() {
    let place = Place::new(
        &[("a", 60, 0)],
        CacheOptions {
            queue: 2,
            ..options()
        },
    );
    place.source.gate(true);
    let first = place.cache.acquire("a", None).unwrap();
    let second = place.cache.acquire("a", None).unwrap();
    let full = place.cache.acquire("a", None).map(drop).unwrap_err();
    assert_eq!(full, Denied::QueueFull { waiting: 2 });
    place.until("a", ModelState::Loading);
    while place.cache.status_of("a").unwrap().loaded_ratio < 0.5 {
        std::thread::yield_now();
    }
    // It does not wait for what is being loaded.
    assert!(!place.keeper.end());
    assert_eq!(wait(first).unwrap_err(), Denied::Stopping);
    assert_eq!(wait(second).unwrap_err(), Denied::Stopping);
    let late = place.cache.acquire("a", None).map(drop).unwrap_err();
    assert_eq!(late, Denied::Stopping);
    place.source.gate(false);
}

#[test]
fn many_clients_of_many_models_all_get_what_they_came_for() {
    let models = [("a", 45, 10), ("b", 40, 30), ("c", 30, 0), ("d", 60, 5)];
    let place = Place::new(&models, options());
    std::thread::scope(|scope| {
        for client in 0..8 {
            let place = &place;
            scope.spawn(move || {
                let mut random = Random(client);
                for _ in 0..60 {
                    let (id, ..) = models[random.below(models.len())];
                    let acquire = place.cache.acquire(id, None).unwrap();
                    if random.one_in(10) {
                        continue;
                    }
                    let lease = wait(acquire).unwrap();
                    lease.in_use.fetch_add(1, Ordering::SeqCst);
                    assert_eq!(lease.id, id);
                    std::thread::yield_now();
                    lease.in_use.fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
    });
    let totals = place.cache.totals();
    assert!(totals.evictions() > 0);
    assert_eq!(totals.loads, lock(&place.source.there).len() as u64);
    place.end();
}
