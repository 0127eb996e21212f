//! Prints what a fork-join costs on this machine: `cargo run --release -p bursar-workers --example fork_join`.

use std::time::{Duration, Instant};

use bursar_workers::Workers;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// The median time of `call`, each time after `pause` of work on this thread alone.
fn time(rounds: usize, pause: Duration, mut call: impl FnMut()) -> Duration {
    let samples = (0..rounds).map(|_| {
        let idle = Instant::now();
        while idle.elapsed() < pause {
            std::hint::spin_loop();
        }
        let start = Instant::now();
        call();
        start.elapsed()
    });
    median(samples.collect())
}

fn main() {
    println!("threads  after us  empty loop  everyone once  16 items of ~5 us");
    for threads in [1, 2, 4] {
        let workers = Workers::new(threads);
        let mut items = vec![0_u64; 16];
        for (rounds, pause) in [(20_000, 0), (5_000, 20), (300, 1_000)] {
            let after = Duration::from_micros(pause);
            let empty = time(rounds, after, || {
                workers.for_each_mut(&mut items, |_, x| *x += 1)
            });
            let everyone = time(rounds, after, || workers.broadcast(|_| ()));
            let loaded = time(rounds / 10, after, || {
                workers.for_each_mut(&mut items, |_, x| {
                    let start = Instant::now();
                    while start.elapsed() < Duration::from_micros(5) {
                        *x += 1;
                    }
                });
            });
            println!("{threads:7}  {pause:8}  {empty:>10.1?}  {everyone:>13.1?}  {loaded:>16.1?}");
        }
    }
}
