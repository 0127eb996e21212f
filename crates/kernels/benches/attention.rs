//! Attention beside the machine's floor: `cargo bench -p bursar-kernels --bench attention [isa ...]`.
//!
//! One thread; processor time, so that what others take of the machine does not count. A block holds all
//! layers, as in the server; each call takes the next layer, so that decode finds its keys and values in
//! memory and not in a cache. (The server's cache lies in huge pages; this one may not.)

#![forbid(unsafe_code)]

use std::hint::black_box;

use bursar_kernels::attention::{AttentionShape, attention, attention_scratch_len};
use bursar_kernels::isa::Isa;
use bursar_kernels::kv_view::{KvDtype, KvLayout, KvShape, KvView, kv_write};
use bursar_kernels::mat::{MatMut, MatRef};
use bursar_kernels::peak;
use rustix::time::{ClockId, clock_gettime};

/// Seconds that this thread has run: what others take of the machine is left out.
fn clock() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}

/// Seconds of a call, the lower quartile of `rounds`.
fn time(rounds: usize, mut f: impl FnMut(usize)) -> f64 {
    let mut times: Vec<f64> = (0..rounds)
        .map(|round| {
            let start = clock();
            f(round);
            clock() - start
        })
        .collect();
    times.sort_unstable_by(f64::total_cmp);
    times[times.len() / 4]
}

const LAYERS: usize = 28;

struct Cache {
    layout: KvLayout,
    words: Vec<u64>,
    blocks: Vec<u32>,
}

fn cache(heads: usize, head_dim: usize, context: usize, dtype: KvDtype) -> Cache {
    let (dtype_k, dtype_v) = (dtype, dtype);
    let shape = KvShape {
        layers: LAYERS,
        kv_heads: heads,
        head_dim,
        block_tokens: 16,
        dtype_k,
        dtype_v,
    };
    let layout = KvLayout::new(shape).expect("a good shape");
    let count = context / 16;
    let mut words = vec![0_u64; layout.block_bytes() / 8 * count];
    // Every other block, then the rest backwards: no two neighbours.
    let blocks: Vec<u32> = (0..count as u32)
        .step_by(2)
        .chain((0..count as u32).skip(1).step_by(2).rev())
        .collect();
    let columns = heads * head_dim;
    let rows: Vec<f32> = (0..16 * columns)
        .map(|i| ((i * 7919) % 2003) as f32 / 1000.0 - 1.0)
        .collect();
    let rows = MatRef::dense(&rows, 16, columns);
    for layer in 0..LAYERS {
        for pos in (0..context).step_by(16) {
            let bytes = bytemuck::cast_slice_mut(&mut words);
            kv_write(Isa::best(), layout, bytes, &blocks, layer, pos, rows, rows);
        }
    }
    Cache {
        layout,
        words,
        blocks,
    }
}

fn main() {
    let asked: Vec<String> = std::env::args()
        .skip(1)
        .filter(|arg| !arg.starts_with('-'))
        .collect();
    let data = vec![1_u64; 32 << 20];
    let part = data.len() / 32;
    let seconds = time(32, |i| {
        black_box(peak::read(&data[i * part..][..part]));
    });
    let bandwidth = (part * 8) as f64 / seconds;
    println!("read {:.1} GB/s", bandwidth / 1e9);
    drop(data);
    for (head_dim, dtype) in [
        (128, KvDtype::F16),
        (128, KvDtype::F32),
        (64, KvDtype::F16),
        (64, KvDtype::F32),
        (128, KvDtype::Q8_0),
        (64, KvDtype::Q8_0),
    ] {
        let (heads, kv_heads) = (16, 8);
        for context in [512, 4096] {
            // f32 at the longer context would take GiBs.
            let context = if dtype == KvDtype::F32 {
                context / 2
            } else {
                context
            };
            let cache = cache(kv_heads, head_dim, context, dtype);
            let shape = AttentionShape {
                heads,
                kv_heads,
                head_dim,
                scale: 0.1,
                causal: true,
                window: None,
            };
            let mut scratch = vec![0.0; attention_scratch_len(&shape)];
            for &isa in Isa::available() {
                if !asked.is_empty() && !asked.iter().any(|name| name == isa.name()) {
                    continue;
                }
                let mut ops = 0;
                let floor = time(9, |_| ops = peak::f32_ops(isa, 500_000));
                let floor = ops as f64 / floor;
                for rows in [1, 8, context.min(512)] {
                    let width = heads * head_dim;
                    let q: Vec<f32> = (0..rows * width)
                        .map(|i| ((i * 31) % 101) as f32 / 101.0)
                        .collect();
                    let mut out = vec![0.0; rows * width];
                    let rounds = match (isa.name(), rows) {
                        ("scalar", _) => 3,
                        (_, 1..=8) => 2 * LAYERS,
                        _ => 7,
                    };
                    let seconds = time(rounds, |round| {
                        let kv = KvView {
                            layout: cache.layout,
                            bytes: bytemuck::cast_slice(&cache.words),
                            blocks: &cache.blocks,
                            len: context,
                        };
                        attention(
                            isa,
                            &shape,
                            kv,
                            round % LAYERS,
                            0..kv_heads,
                            MatRef::dense(&q, rows, width),
                            context - rows,
                            MatMut::dense(&mut out, rows, width),
                            &mut scratch,
                        );
                        black_box(&out);
                    });
                    let pairs: usize = (0..rows).map(|row| context - rows + row + 1).sum();
                    let flops = (pairs * heads * head_dim * 4) as f64 / seconds;
                    let of_layer = cache.layout.block_bytes() / LAYERS;
                    let bytes = (context / 16 * of_layer) as f64 / seconds;
                    println!(
                        "{:6} {:4} head_dim {head_dim:3} context {context:4} rows {rows:3}: \
                         {:9.1} us  {:6.1} GB/s ({:3.0}%)  {:6.1} GFLOP/s ({:3.0}% of {:.0})",
                        isa.name(),
                        dtype.name(),
                        seconds * 1e6,
                        bytes / 1e9,
                        100.0 * bytes / bandwidth,
                        flops / 1e9,
                        100.0 * flops / floor,
                        floor / 1e9,
                    );
                }
            }
        }
    }
}
