//! How near the products come to what the machine can do.
//!
//! `cargo bench -p bursar-kernels -- [TYPE...] [--isa NAME] [--threads N] [--k K]` prints, per stored type
//! and 1, 8 and 512 rows, the time, the bytes of weights read per second, the operations per second, and
//! their shares of the bandwidth and the arithmetic peak measured in the same run. One row reads weights
//! that no cache holds; more rows use a matrix of the size of a small model's layer.
#![forbid(unsafe_code)]

use std::time::Instant;

use bursar_kernels::acts::{ActKind, ActLayout, Acts, quantize_acts};
use bursar_kernels::isa::Isa;
use bursar_kernels::mat::{MatMut, MatRef};
use bursar_kernels::matmul::{Mode, matmul};
use bursar_kernels::panel::{PANEL_ROWS, PanelLayout, Panels};
use bursar_kernels::peak;
use bursar_kernels::quant::Dtype;
use rustix::time::{ClockId, clock_gettime};

/// Bytes that no cache holds.
const COLD_BYTES: usize = 192 << 20;
/// Output rows of the matrix for several rows.
const WARM_ROWS: usize = 512;

struct Options {
    dtypes: Vec<Dtype>,
    isas: Vec<Isa>,
    threads: usize,
    k: usize,
    rows: Vec<usize>,
}

fn options() -> Result<Options, String> {
    let mut o = Options {
        dtypes: Vec::new(),
        isas: vec![Isa::best()],
        threads: 1,
        k: 1024,
        rows: vec![1, 8, 512],
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} wants a value"));
        let number = |s: String| s.parse::<usize>().map_err(|e| format!("{s}: {e}"));
        match arg.as_str() {
            "--bench" => {}
            "--isa" => {
                let name = value()?;
                o.isas = match name.as_str() {
                    "all" => Isa::available().to_vec(),
                    _ => vec![Isa::from_name(&name).ok_or(format!("no {name} here"))?],
                };
            }
            "--threads" => o.threads = number(value()?)?.max(1),
            "--k" => o.k = number(value()?)?,
            "--rows" => o.rows = vec![number(value()?)?],
            name => o
                .dtypes
                .push(Dtype::from_name(name).ok_or(format!("no type {name}"))?),
        }
    }
    if o.dtypes.is_empty() {
        o.dtypes = Dtype::ALL.to_vec();
    }
    Ok(o)
}

/// Runs `f(thread)` on each of `threads` threads and waits.
fn on_each(threads: usize, f: impl Fn(usize) + Sync) {
    std::thread::scope(|scope| {
        for t in 1..threads {
            let f = &f;
            scope.spawn(move || f(t));
        }
        f(0);
    });
}

/// Seconds on the clock: with one thread its processor time, so that what else runs on the machine
/// counts less; with several the time on the wall.
fn clock(threads: usize) -> f64 {
    let id = if threads == 1 {
        ClockId::ThreadCPUTime
    } else {
        ClockId::Monotonic
    };
    let now = clock_gettime(id);
    now.tv_sec as f64 + now.tv_nsec as f64 * 1e-9
}

/// Median and best seconds of several runs.
fn seconds(threads: usize, mut f: impl FnMut()) -> (f64, f64) {
    f();
    let mut times = Vec::new();
    let all = Instant::now();
    while times.len() < 7 || (times.len() < 101 && all.elapsed().as_secs_f64() < 0.4) {
        let start = clock(threads);
        f();
        times.push(clock(threads) - start);
    }
    times.sort_by(f64::total_cmp);
    (times[times.len() / 2], times[0])
}

/// Bytes and operations per second that the machine reaches at best.
struct Peaks {
    bandwidth: f64,
    bytes: f64,
    floats: f64,
}

fn peaks(isa: Isa, threads: usize) -> Peaks {
    let words = vec![1u64; COLD_BYTES / 8];
    let share = words.len() / threads;
    let (_, read) = seconds(threads, || {
        on_each(threads, |t| {
            peak::read(&words[t * share..(t + 1) * share]);
        });
    });
    let rate = |ops: fn(Isa, usize) -> u64| {
        let rounds = 200_000;
        let (_, best) = seconds(threads, || {
            on_each(threads, |_| {
                ops(isa, rounds);
            });
        });
        (ops(isa, rounds) * threads as u64) as f64 / best
    };
    Peaks {
        bandwidth: COLD_BYTES as f64 / read,
        bytes: rate(peak::byte_ops),
        floats: rate(peak::f32_ops),
    }
}

/// Bytes that look like weights: small finite scales wherever halves may lie.
fn weights(layout: &PanelLayout, packed: &mut [u8]) {
    let row_bytes = layout.row_bytes();
    let piece: Vec<u8> = (0..PANEL_ROWS * row_bytes)
        .map(|i| ((i * 2_654_435_761) >> 13) as u8 & 0x3B)
        .collect();
    for panel in packed.chunks_exact_mut(layout.panel_bytes()) {
        layout.pack_panel(&piece, panel);
    }
}

fn bench(isa: Isa, dtype: Dtype, rows: usize, o: &Options, peaks: &Peaks) {
    let row_bytes = dtype.row_bytes(o.k).expect("--k must be whole blocks");
    let outputs = if rows == 1 {
        (COLD_BYTES / row_bytes).next_multiple_of(PANEL_ROWS)
    } else {
        WARM_ROWS
    };
    let layout = PanelLayout::new(dtype, outputs, o.k).expect("a layout");
    let mut packed = vec![0; layout.bytes() + 64];
    let aligned = packed.as_ptr().align_offset(64);
    let packed = &mut packed[aligned..][..layout.bytes()];
    weights(&layout, packed);
    let x: Vec<f32> = (0..rows * o.k)
        .map(|i| ((i * 7919) % 1999) as f32 / 1000.0 - 1.0)
        .collect();
    let kind = ActKind::of(dtype);
    let acts = ActLayout::new(kind, o.k).expect("whole blocks");
    let mut bytes = Vec::new();
    if kind != ActKind::F32 {
        bytes.resize(rows * acts.row_bytes() + 64, 0);
    }
    let aligned = bytes.as_ptr().align_offset(64).min(bytes.len());
    let len = bytes.len().saturating_sub(64);
    let bytes = &mut bytes[aligned..][..len];
    if kind != ActKind::F32 {
        quantize_acts(isa, kind, MatRef::dense(&x, rows, o.k), bytes);
    }
    let acts = match kind {
        ActKind::F32 => Acts::F32(MatRef::dense(&x, rows, o.k)),
        _ => Acts::Quantized {
            layout: acts,
            rows,
            bytes,
        },
    };
    let mut out = vec![0.0; rows * outputs + 16];
    // As buffers of a model are: at the start of a cache line.
    let aligned = out.as_ptr().align_offset(64);
    let out = &mut out[aligned..][..rows * outputs];
    let all = Panels::new(layout, packed);
    let per = all.panels().div_ceil(o.threads);
    let (median, best) = seconds(o.threads, || {
        std::thread::scope(|scope| {
            let mut rest = MatMut::dense(out, rows, outputs);
            let mut done = 0;
            for t in 0..o.threads {
                let part =
                    all.range((t * per).min(all.panels())..((t + 1) * per).min(all.panels()));
                let (mine, after) = rest.split_at_col(part.rows().end - done);
                (rest, done) = (after, part.rows().end);
                if t + 1 == o.threads {
                    matmul(isa, part, acts, mine, Mode::Store);
                } else {
                    scope.spawn(move || matmul(isa, part, acts, mine, Mode::Store));
                }
            }
        });
    });
    let ops = 2.0 * (rows * outputs * o.k) as f64;
    let peak = if dtype.is_float() {
        peaks.floats
    } else {
        peaks.bytes
    };
    let size = packed.len() as f64;
    println!(
        "{isa:7} {dtype:5} {rows:4} {:10.1} {:8.2} {:5.0} % {:9.1} {:5.0} %  (best {:.0} % {:.0} %)",
        median * 1e6,
        size / median / 1e9,
        100.0 * size / median / peaks.bandwidth,
        ops / median / 1e9,
        100.0 * ops / median / peak,
        100.0 * size / best / peaks.bandwidth,
        100.0 * ops / best / peak,
    );
}

fn main() -> Result<(), String> {
    let o = options()?;
    for &isa in &o.isas {
        let peaks = peaks(isa, o.threads);
        println!(
            "{} thread(s), k = {}: reads {:.1} GB/s, {isa} bytes {:.0} GOPS, floats {:.0} GOPS",
            o.threads,
            o.k,
            peaks.bandwidth / 1e9,
            peaks.bytes / 1e9,
            peaks.floats / 1e9
        );
        println!("isa     type  rows  median us     GB/s  of it      GOPS  of it");
        for &dtype in &o.dtypes {
            for &rows in &o.rows {
                bench(isa, dtype, rows, &o, &peaks);
            }
        }
    }
    Ok(())
}
