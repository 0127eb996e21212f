//! What a span costs: off, counted in a histogram, and traced; beside reading the clock twice, which
//! is most of it.
//!
//! `cargo bench -p bursar-profile --bench spans`

use std::hint::black_box;
use std::time::Instant;

use bursar_profile::{Level, span, spans};

const ROUNDS: usize = 31;
const SPANS: u32 = 100_000;

/// Nanoseconds of one call: median, least and most of the rounds.
fn measure(mut call: impl FnMut(u64)) -> [f64; 3] {
    let mut times: Vec<f64> = (0..ROUNDS)
        .map(|_| {
            let begun = Instant::now();
            for number in 0..SPANS {
                call(u64::from(number));
            }
            begun.elapsed().as_nanos() as f64 / f64::from(SPANS)
        })
        .collect();
    times.sort_by(f64::total_cmp);
    [times[ROUNDS / 2], times[0], times[ROUNDS - 1]]
}

fn main() {
    let spanned = |number: u64| {
        let _span = span!("bench", number);
        black_box(number);
    };
    println!("{:<24}  MEDIAN ns  LEAST ns  MOST ns", "WHAT");
    let print = |name: &str, [median, least, most]: [f64; 3]| {
        println!("{name:<24}  {median:>9.2}  {least:>8.2}  {most:>7.2}");
    };
    print(
        "nothing",
        measure(|number| {
            black_box(number);
        }),
    );
    for (name, level) in [
        ("span, off", Level::Off),
        ("span, histograms", Level::Histograms),
        ("span, trace", Level::Trace),
    ] {
        spans::set_level(level);
        print(name, measure(spanned));
    }
    print(
        "the clock, twice",
        measure(|number| {
            let begun = Instant::now();
            black_box(number);
            black_box(begun.elapsed());
        }),
    );
}
