//! Prints what a fork-join costs on this machine: `cargo run --release -p bursar-workers --example fork_join`.

use std::time::{Duration, Instant};

use bursar_workers::Workers;

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

fn main() {
    for threads in [1, 2, 4] {
        let workers = Workers::new(threads);
        let mut items = vec![0_u64; 16 * threads];
        let mut time = |rounds: usize, spins: u32, pause: Duration| {
            let samples = (0..rounds).map(|_| {
                let idle = Instant::now();
                while idle.elapsed() < pause {
                    std::hint::spin_loop();
                }
                let start = Instant::now();
                workers.for_each_mut(&mut items[..threads], |_, item| {
                    *item += 1;
                    (0..spins).for_each(|_| std::hint::spin_loop());
                });
                start.elapsed()
            });
            median(samples.collect())
        };
        println!(
            "{threads} threads: empty join {:?}, after 20 us of serial work {:?}, after 1 ms (parked) {:?}",
            time(20_000, 0, Duration::ZERO),
            time(5_000, 0, Duration::from_micros(20)),
            time(500, 0, Duration::from_millis(1)),
        );
    }
}
