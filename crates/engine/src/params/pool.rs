//! Parameters that many requests share: one immutable value each, found by content, as long as it is
//! asked for often enough to be kept.
//!
//! Consumers: the requests of chats and completions, one look each, whatever their number of answers.
//! The seed is the request's own and not among them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bursar_memory::{Account, Bytes, Reservation};

use super::{GenerateParams, form};
use crate::inbox::lock;

/// What bounds a pool.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ParamsPoolOptions {
    /// Most values that are kept; with 0, none is.
    pub capacity: usize,
    /// How long one is kept that nobody asks for.
    pub max_age: Duration,
    /// How often those that are too old are looked for.
    pub cleanup_interval: Duration,
}

impl Default for ParamsPoolOptions {
    /// A thousand values, an hour, a minute.
    fn default() -> Self {
        Self {
            capacity: 1024,
            max_age: Duration::from_secs(3600),
            cleanup_interval: Duration::from_secs(60),
        }
    }
}

/// Gives equal parameters one place in memory. Clones are the same pool.
///
/// What it keeps is charged to an account; what that has no room for is not kept.
#[derive(Clone, Debug)]
pub struct ParamsPool(Arc<Mutex<Interned>>);

/// What a pool has done.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub struct ParamsReport {
    /// Different parameters that are kept.
    pub unique: usize,
    /// Times that parameters were asked for.
    pub requests_total: u64,
    /// Times that they were there.
    pub hits_total: u64,
    /// Values that gave way to others.
    pub evictions_total: u64,
    /// Values that nobody had asked for in time.
    pub expired_total: u64,
    /// What the values kept take, keys and places included.
    pub bytes: Bytes,
}

impl ParamsReport {
    /// The share of requests that brought nothing new; 0 before the first.
    pub fn dedup_ratio(&self) -> f64 {
        match self.requests_total {
            0 => 0.0,
            all => self.hits_total as f64 / all as f64,
        }
    }
}

impl ParamsPool {
    /// An empty pool, charged to `account`.
    pub fn new(options: ParamsPoolOptions, account: &Account) -> Self {
        let interned = Interned {
            options,
            account: account.clone(),
            charged: None,
            kept: HashMap::new(),
            key: Vec::new(),
            report: ParamsReport::default(),
            cleaned: Instant::now(),
        };
        Self(Arc::new(Mutex::new(interned)))
    }

    /// The shared value equal to `params`. One that is there already costs no allocation.
    pub fn intern(&self, params: &GenerateParams) -> Arc<GenerateParams> {
        lock(&self.0).intern(params, Instant::now())
    }

    /// Drops what is too old, if it is time to; does nothing most of the time.
    pub fn tidy(&self) {
        lock(&self.0).tidy(Instant::now());
    }

    /// What it holds now.
    pub fn report(&self) -> ParamsReport {
        let inner = lock(&self.0);
        ParamsReport {
            unique: inner.kept.len(),
            ..inner.report
        }
    }
}

#[derive(Debug)]
struct Interned {
    options: ParamsPoolOptions,
    account: Account,
    /// The bytes of all that is kept; `None` before anything was.
    charged: Option<Reservation>,
    /// By their binary form: the map hashes its bytes.
    kept: HashMap<Box<[u8]>, Kept>,
    /// The form of the parameters that are looked for.
    key: Vec<u8>,
    report: ParamsReport,
    /// When old values were last looked for.
    cleaned: Instant,
}

#[derive(Debug)]
struct Kept {
    params: Arc<GenerateParams>,
    /// When it was last asked for, and the how manieth request that was: clocks may stand still.
    used: Instant,
    turn: u64,
}

/// What a value takes with this key: the two, the counts of its `Arc`, and its place in the map with the
/// byte that marks it. Maps are up to an eighth empty, or half after growing: twice the place.
fn bytes_of(key: &[u8], params: &GenerateParams) -> Bytes {
    let value = size_of::<GenerateParams>() + 2 * size_of::<usize>();
    let biases = size_of_val(params.logit_bias.as_slice());
    let place = size_of::<(Box<[u8]>, Kept)>() + 1;
    Bytes((key.len() + value + biases + 2 * place) as u64)
}

impl Interned {
    fn intern(&mut self, params: &GenerateParams, now: Instant) -> Arc<GenerateParams> {
        self.tidy(now);
        self.report.requests_total += 1;
        let turn = self.report.requests_total;
        self.key.clear();
        form::write(params, &mut self.key);
        if let Some(kept) = self.kept.get_mut(self.key.as_slice()) {
            self.report.hits_total += 1;
            (kept.used, kept.turn) = (now, turn);
            return Arc::clone(&kept.params);
        }
        // From the key, so that what is shared is exactly what was compared.
        let shared = form::read(&self.key).expect("a form that was just written can be read");
        let shared = Arc::new(shared);
        while self.kept.len() >= self.options.capacity.max(1) {
            self.evict();
        }
        let bytes = bytes_of(&self.key, &shared);
        if self.options.capacity > 0 && self.charge(bytes) {
            let kept = Kept {
                params: Arc::clone(&shared),
                used: now,
                turn,
            };
            self.kept.insert(self.key.as_slice().into(), kept);
            self.report.bytes = self.report.bytes.saturating_add(bytes);
        }
        shared
    }

    /// Whether the account has room for so many more bytes.
    fn charge(&mut self, bytes: Bytes) -> bool {
        match &mut self.charged {
            Some(charged) => charged.grow(bytes).is_ok(),
            None => {
                self.charged = self.account.reserve(bytes).ok();
                self.charged.is_some()
            }
        }
    }

    /// Drops the value that was asked for longest ago. Looks at all of them: there are a thousand or so,
    /// and it takes a request unlike all of those to come here.
    fn evict(&mut self) {
        let oldest = self.kept.iter().min_by_key(|(_, kept)| kept.turn);
        if let Some(key) = oldest.map(|(key, _)| key.clone())
            && let Some(kept) = self.kept.remove(&key)
        {
            self.discharge(bytes_of(&key, &kept.params));
            self.report.evictions_total += 1;
        }
    }

    fn discharge(&mut self, bytes: Bytes) {
        if let Some(charged) = &mut self.charged {
            charged.shrink(bytes);
        }
        self.report.bytes = self.report.bytes.saturating_sub(bytes);
    }

    fn tidy(&mut self, now: Instant) {
        if now.saturating_duration_since(self.cleaned) < self.options.cleanup_interval {
            return;
        }
        self.cleaned = now;
        let max_age = self.options.max_age;
        let mut freed = Bytes::ZERO;
        let before = self.kept.len();
        self.kept.retain(|key, kept| {
            let stays = now.saturating_duration_since(kept.used) < max_age;
            if !stays {
                freed = freed.saturating_add(bytes_of(key, &kept.params));
            }
            stays
        });
        let gone = before - self.kept.len();
        if gone > 0 {
            self.report.expired_total += gone as u64;
            self.kept.shrink_to(2 * self.kept.len());
            self.discharge(freed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sample::SamplingParams;
    use bursar_memory::{Ledger, Lifetime};
    use proptest::prelude::*;

    fn account(budget: Bytes) -> Account {
        Ledger::new(budget)
            .root()
            .child("params", Lifetime::Semantic)
    }

    fn params(top_k: usize) -> GenerateParams {
        let sampling = SamplingParams {
            top_k,
            ..SamplingParams::default()
        };
        sampling.into()
    }

    fn pool(capacity: usize, budget: Bytes) -> (ParamsPool, Account) {
        let account = account(budget);
        let options = ParamsPoolOptions {
            capacity,
            ..ParamsPoolOptions::default()
        };
        (ParamsPool::new(options, &account), account)
    }

    /// A2
    #[test]
    fn equal_parameters_share_one_value() {
        let (pool, account) = pool(8, Bytes::mib(1));
        let a = pool.intern(&params(40));
        assert!(Arc::ptr_eq(&a, &pool.intern(&params(40))));
        let mut biased = params(40);
        biased.logit_bias = vec![(7, 1.0), (3, 2.0)];
        let b = pool.intern(&biased);
        biased.logit_bias.reverse();
        assert!(
            Arc::ptr_eq(&b, &pool.intern(&biased)),
            "an order of no meaning"
        );
        assert!(!Arc::ptr_eq(&a, &b));
        let report = pool.report();
        assert_eq!((report.unique, report.requests_total), (2, 4));
        assert_eq!(report.dedup_ratio(), 0.5);
        assert_eq!(report.bytes, account.granted());
        drop(pool);
        assert_eq!(account.granted(), Bytes::ZERO);
        assert_eq!(*a, params(40), "who holds a value keeps it");
    }

    #[test]
    fn what_the_budget_has_no_room_for_is_not_kept() {
        let (pool, account) = pool(8, Bytes(1));
        assert_eq!(*pool.intern(&params(1)), params(1));
        assert_eq!((pool.report().unique, account.granted()), (0, Bytes::ZERO));
        let (pool, _) = self::pool(0, Bytes::mib(1));
        assert_eq!(*pool.intern(&params(1)), params(1));
        assert_eq!(pool.report().unique, 0);
    }

    /// A2
    #[test]
    fn old_values_go() {
        let account = account(Bytes::mib(1));
        let options = ParamsPoolOptions {
            capacity: 8,
            max_age: Duration::from_secs(10),
            cleanup_interval: Duration::from_secs(4),
        };
        let pool = ParamsPool::new(options, &account);
        let mut inner = lock(&pool.0);
        let begun = inner.cleaned;
        let at = |seconds| begun + Duration::from_secs(seconds);
        inner.intern(&params(1), at(0));
        inner.intern(&params(2), at(3));
        inner.intern(&params(1), at(9));
        inner.tidy(at(12));
        assert_eq!(inner.kept.len(), 2, "it is not time to look yet");
        inner.tidy(at(13));
        assert_eq!((inner.kept.len(), inner.report.expired_total), (1, 1));
        assert_eq!(inner.report.bytes, account.granted());
        inner.tidy(at(19));
        assert!(inner.kept.is_empty() && account.granted().is_zero());
    }

    proptest! {
        /// A2: the least recently used go, as from a list that is kept in order.
        #[test]
        fn the_least_recently_used_go(asked in prop::collection::vec(0usize..12, 1..200)) {
            let (pool, account) = pool(5, Bytes::mib(1));
            let (mut order, mut hits) = (Vec::<usize>::new(), 0u64);
            for &ask in &asked {
                let there = order.iter().position(|kept| *kept == ask);
                match there {
                    Some(place) => {
                        hits += 1;
                        order.remove(place);
                    }
                    None if order.len() == 5 => {
                        order.remove(0);
                    }
                    None => {}
                }
                order.push(ask);
                prop_assert_eq!(&*pool.intern(&params(ask)), &params(ask));
                let mut kept: Vec<usize> =
                    lock(&pool.0).kept.values().map(|kept| kept.params.sampling.top_k).collect();
                let mut expected = order.clone();
                kept.sort_unstable();
                expected.sort_unstable();
                prop_assert_eq!(kept, expected);
            }
            let report = pool.report();
            prop_assert_eq!(report.hits_total, hits);
            prop_assert_eq!(report.bytes, account.granted());
        }
    }
}
