//! What a pool promises, over many sizes and thread counts (more than the machine has cores, too).

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use bursar_workers::{Options, Workers, WorkersError};

const SIZES: [usize; 12] = [0, 1, 2, 3, 5, 8, 16, 17, 63, 64, 65, 130];

/// Every item of every size is visited once, with its own index, on `workers`.
fn check(workers: &Workers) {
    for size in SIZES {
        let mut items = vec![(0_usize, usize::MAX); size];
        workers.for_each_mut(&mut items, |i, item| {
            item.0 += 1;
            item.1 = i;
        });
        for (i, item) in items.iter().enumerate() {
            assert_eq!(*item, (1, i), "size {size}, {} threads", workers.threads());
        }
    }
}

#[test]
fn every_item_is_visited_once() {
    for threads in [0, 1, 2, 3, 8] {
        let workers = Workers::new(threads);
        assert_eq!(workers.threads(), threads.max(1));
        for _ in 0..50 {
            check(&workers);
        }
    }
}

#[test]
fn waits_for_sleepers_and_wakes_them() {
    let workers = Workers::new(2);
    for _ in 0..20 {
        let limit = Instant::now() + Duration::from_secs(30);
        while workers.parked() < 1 {
            assert!(Instant::now() < limit, "an idle worker never went to sleep");
            std::thread::yield_now();
        }
        check(&workers);
        workers.broadcast(|_| ());
    }
}

#[test]
fn without_spinning_it_still_joins() {
    let options = Options {
        threads: 4,
        spin: Some(Duration::ZERO),
        ..Options::default()
    };
    let workers = Workers::with_options(options).unwrap();
    for _ in 0..200 {
        check(&workers);
        workers.broadcast(|_| ());
    }
}

#[test]
fn broadcast_reaches_every_worker_once() {
    for threads in [1, 2, 5] {
        let workers = Workers::new(threads);
        let ids: Vec<_> = (0..threads).map(|_| AtomicUsize::new(0)).collect();
        for round in 1..=100 {
            workers.broadcast(|worker| {
                ids[worker].fetch_add(1, Ordering::Relaxed);
            });
            assert!(ids.iter().all(|n| n.load(Ordering::Relaxed) == round));
        }
        let own = std::thread::current().id();
        workers.broadcast(|worker| assert_eq!(worker == 0, std::thread::current().id() == own));
    }
}

#[test]
fn locals_are_one_workers_own() {
    let workers = Workers::new(3);
    let mut locals = [0_usize; 3];
    let mut items = vec![0_usize; 500];
    for _ in 0..20 {
        workers.for_each_mut_with(&mut locals, &mut items, |local, i, item| {
            *local += 1;
            *item += i;
        });
    }
    assert_eq!(locals.iter().sum::<usize>(), 20 * 500);
    assert!(items.iter().enumerate().all(|(i, &item)| item == 20 * i));
}

#[test]
fn a_panic_comes_out_of_the_call_and_the_pool_lives_on() {
    for threads in [1, 2, 4] {
        let workers = Workers::new(threads);
        for bad in [0, 7, 63] {
            let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
                workers.for_each(64, |i| assert_ne!(i, bad, "the bad one"));
            }));
            let payload = caught.expect_err("the panic was swallowed");
            let text = payload
                .downcast_ref::<String>()
                .expect("assert_ne formats a String");
            assert!(text.contains("the bad one"), "{text}");
            check(&workers);
        }
        let caught = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            workers.broadcast(|worker| assert_ne!(worker, threads - 1));
        }));
        assert!(caught.is_err());
        check(&workers);
    }
}

#[test]
fn calls_within_and_beside_a_call_run_on_their_own_thread() {
    let workers = Workers::new(3);
    let total = AtomicUsize::new(0);
    workers.for_each(10, |_| {
        let own = std::thread::current().id();
        workers.for_each(10, |_| {
            assert_eq!(std::thread::current().id(), own);
            total.fetch_add(1, Ordering::Relaxed);
        });
        workers.broadcast(|_| assert_eq!(std::thread::current().id(), own));
    });
    assert_eq!(total.load(Ordering::Relaxed), 100);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| (0..20).for_each(|_| check(&workers)));
        }
    });
}

#[test]
fn too_many_threads_are_an_error() {
    let options = Options {
        threads: usize::MAX,
        ..Options::default()
    };
    assert!(matches!(
        Workers::with_options(options),
        Err(WorkersError::TooMany { .. })
    ));
}
