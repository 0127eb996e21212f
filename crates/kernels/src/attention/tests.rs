//! Attention against its naive twin in `f64`, and against itself cut differently.

use half::{bf16, f16};

use super::*;
use crate::kv_view::{KvDtype, KvLayout, KvShape, kv_write};
use crate::testing::Random;

/// A sequence with its cache, everything random.
struct Case {
    shape: AttentionShape,
    layout: KvLayout,
    layer: usize,
    len: usize,
    blocks: Vec<u32>,
    bytes: Vec<f32>,
    q: Vec<f32>,
    k: Vec<f32>,
    v: Vec<f32>,
}

/// The parameters that tests vary.
#[derive(Copy, Clone)]
struct Params {
    heads: usize,
    kv_heads: usize,
    head_dim: usize,
    len: usize,
    block_tokens: usize,
    /// Of K and of V.
    dtypes: [KvDtype; 2],
    causal: bool,
    window: Option<usize>,
}

const PLAIN: Params = Params {
    heads: 4,
    kv_heads: 2,
    head_dim: 32,
    len: 70,
    block_tokens: 16,
    dtypes: [KvDtype::F32; 2],
    causal: true,
    window: None,
};

impl Case {
    fn new(params: Params, seed: u64) -> Self {
        let Params {
            heads,
            kv_heads,
            head_dim,
            len,
            block_tokens,
            dtypes: [dtype_k, dtype_v],
            causal,
            window,
        } = params;
        let mut random = Random::new(seed);
        let layout = KvLayout::new(KvShape {
            layers: 2,
            kv_heads,
            head_dim,
            block_tokens,
            dtype_k,
            dtype_v,
        })
        .unwrap();
        let count = len.div_ceil(block_tokens);
        // Some blocks more than needed, taken in a random order.
        let mut all: Vec<u32> = (0..count as u32 + 3).collect();
        for i in (1..all.len()).rev() {
            all.swap(i, (random.next() % (i as u64 + 1)) as usize);
        }
        let words = layout.block_bytes() * all.len() / 4;
        all.truncate(count);
        let columns = kv_heads * head_dim;
        let scale = 1.0 / (head_dim as f32).sqrt();
        // Larger queries than usual, so that weights differ by orders of magnitude.
        let q = random
            .units(len * heads * head_dim)
            .iter()
            .map(|x| 4.0 * x)
            .collect();
        Self {
            shape: AttentionShape {
                heads,
                kv_heads,
                head_dim,
                scale,
                causal,
                window,
            },
            layout,
            layer: 1,
            len,
            blocks: all,
            // What was never written may be anything.
            bytes: vec![f32::NAN; words],
            q,
            k: random.units(len * columns),
            v: random.units(len * columns),
        }
    }

    fn columns(&self) -> usize {
        self.shape.kv_heads * self.shape.head_dim
    }

    fn width(&self) -> usize {
        self.shape.heads * self.shape.head_dim
    }

    fn write(&mut self, isa: Isa, range: Range<usize>) {
        let columns = self.columns();
        let rows = |data| MatRef::new(data, self.len, columns, columns).rows_in(range.clone());
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(&mut self.bytes);
        let (k, v) = (rows(&self.k), rows(&self.v));
        kv_write(
            isa,
            self.layout,
            bytes,
            &self.blocks,
            self.layer,
            range.start,
            k,
            v,
        );
    }

    /// Output rows of positions `range`, with `len` tokens written.
    fn attend(&self, isa: Isa, range: Range<usize>, len: usize) -> Vec<f32> {
        let mut out = vec![f32::NAN; range.len() * self.width()];
        let to = MatMut::dense(&mut out, range.len(), self.width());
        self.attend_heads(isa, range, len, 0..self.shape.kv_heads, to);
        out
    }

    fn attend_heads(
        &self,
        isa: Isa,
        range: Range<usize>,
        len: usize,
        kv_heads: Range<usize>,
        out: MatMut<'_>,
    ) {
        let bytes = bytemuck::cast_slice(&self.bytes);
        let kv = KvView {
            layout: self.layout,
            bytes,
            blocks: &self.blocks,
            len,
        };
        let q = MatRef::dense(&self.q, self.len, self.width()).rows_in(range.clone());
        let mut scratch = vec![f32::NAN; attention_scratch_len(&self.shape)];
        attention(
            isa,
            &self.shape,
            kv,
            self.layer,
            kv_heads,
            q,
            range.start,
            out,
            &mut scratch,
        );
    }

    /// Rows of all heads' K or V as they are stored.
    fn stored(&self, rows: &[f32], dtype: KvDtype) -> Vec<f64> {
        let groups = rows
            .chunks(self.shape.head_dim)
            .flat_map(|head| head.chunks(32));
        let stored = groups.flat_map(|group| stored_group(group, dtype));
        stored.collect()
    }

    /// All positions' outputs, by the definition.
    fn naive(&self) -> Vec<f64> {
        let AttentionShape {
            heads,
            head_dim,
            scale,
            causal,
            window,
            ..
        } = self.shape;
        let group = self.shape.group();
        let stored = self.layout.shape();
        let k = self.stored(&self.k, stored.dtype_k);
        let v = self.stored(&self.v, stored.dtype_v);
        let mut out = vec![0.0; self.len * self.width()];
        for pos in 0..self.len {
            for head in 0..heads {
                let at = |t: usize| t * self.columns() + head / group * head_dim;
                let q = &self.q[pos * self.width() + head * head_dim..][..head_dim];
                let seen = |t: &usize| {
                    (!causal || *t <= pos) && window.is_none_or(|window| t + window > pos)
                };
                let score = |t: usize| {
                    let k = &k[at(t)..][..head_dim];
                    let dot: f64 = q.iter().zip(k).map(|(&q, &k)| f64::from(q) * k).sum();
                    dot * f64::from(scale)
                };
                let scores: Vec<(usize, f64)> =
                    (0..self.len).filter(seen).map(|t| (t, score(t))).collect();
                let top = scores.iter().map(|s| s.1).fold(f64::NEG_INFINITY, f64::max);
                let total: f64 = scores.iter().map(|s| (s.1 - top).exp()).sum();
                let out = &mut out[pos * self.width() + head * head_dim..][..head_dim];
                for (t, score) in scores {
                    let weight = (score - top).exp() / total;
                    for (out, &v) in out.iter_mut().zip(&v[at(t)..]) {
                        *out += weight * v;
                    }
                }
            }
        }
        out
    }
}

/// Up to 32 columns of a token as they are stored.
fn stored_group(group: &[f32], dtype: KvDtype) -> Vec<f64> {
    let largest = group.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
    let scale = f16::from_f32(largest / 127.0).to_f32();
    let stored = |&x: &f32| match dtype {
        KvDtype::F32 => x.into(),
        KvDtype::F16 => f16::from_f32(x).to_f64(),
        KvDtype::BF16 => bf16::from_f32(x).to_f64(),
        KvDtype::Q8_0 if scale == 0.0 => 0.0,
        KvDtype::Q8_0 => {
            let steps = (x / scale).round_ties_even().clamp(-127.0, 127.0);
            f64::from(steps) * f64::from(scale)
        }
    };
    group.iter().map(stored).collect()
}

/// Near the naive twin on every instruction set; the same bits on all, one position after the other,
/// in chunks, and head by head.
fn check(params: Params, seed: u64) {
    let mut case = Case::new(params, seed);
    let len = case.len;
    case.write(Isa::best(), 0..len);
    let expected = case.naive();
    let whole = case.attend(Isa::best(), 0..len, len);
    for (i, (&got, want)) in whole.iter().zip(&expected).enumerate() {
        // Values are below 1; weights sum to 1.
        assert!(
            (f64::from(got) - want).abs() < 4e-6,
            "value {i}: {got}, expected {want}"
        );
    }
    for &isa in Isa::available() {
        assert_bits(&whole, &case.attend(isa, 0..len, len), isa.name());
    }

    // Chunks, each written just before it is attended to.
    for chunk in [1, 3, 16, 50] {
        let mut other = Case::new(params, seed);
        if !params.causal {
            other.write(Isa::best(), 0..len);
        }
        let mut out = Vec::new();
        for start in (0..len).step_by(chunk) {
            let range = start..len.min(start + chunk);
            if params.causal {
                other.write(Isa::best(), range.clone());
                out.extend(other.attend(Isa::best(), range.clone(), range.end));
            } else {
                out.extend(other.attend(Isa::best(), range, len));
            }
        }
        assert_bits(&whole, &out, "chunks");
    }

    let mut out = vec![0.0; whole.len()];
    let mut rest = MatMut::dense(&mut out, len, case.width());
    for head in 0..params.kv_heads {
        let (own, others) = rest.split_at_col(case.shape.group() * params.head_dim);
        case.attend_heads(Isa::best(), 0..len, len, head..head + 1, own);
        rest = others;
    }
    assert_bits(&whole, &out, "head by head");
}

#[track_caller]
fn assert_bits(a: &[f32], b: &[f32], what: &str) {
    assert_eq!(a.len(), b.len());
    for (i, (a, b)) in a.iter().zip(b).enumerate() {
        assert!(
            a.to_bits() == b.to_bits(),
            "{what}: value {i} is {b}, not {a}"
        );
    }
}

#[test]
fn every_length_around_the_edges() {
    for len in [1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 79, 81, 127, 129, 130] {
        check(Params { len, ..PLAIN }, len as u64);
    }
}

#[test]
fn segments_are_folded() {
    check(
        Params {
            len: 1100,
            heads: 2,
            kv_heads: 1,
            ..PLAIN
        },
        1,
    );
    let window = Some(600);
    check(
        Params {
            len: 1100,
            heads: 2,
            kv_heads: 1,
            window,
            ..PLAIN
        },
        2,
    );
}

#[test]
fn every_head_dim() {
    for head_dim in [1, 5, 8, 16, 24, 31, 40, 64, 72, 80, 96, 128, 136, 256] {
        for dtype in KvDtype::ALL {
            check(
                Params {
                    head_dim,
                    dtypes: [dtype; 2],
                    len: 50,
                    ..PLAIN
                },
                head_dim as u64,
            );
        }
    }
}

#[test]
fn every_pair_of_types() {
    for dtype_k in KvDtype::ALL {
        for dtype_v in KvDtype::ALL {
            for (head_dim, len, heads) in [(40, 130, 2), (64, 33, 12), (96, 17, 4)] {
                let params = Params {
                    heads,
                    head_dim,
                    len,
                    dtypes: [dtype_k, dtype_v],
                    ..PLAIN
                };
                check(params, (head_dim + len) as u64);
            }
        }
    }
}

#[test]
fn scaled_values_at_every_edge() {
    let dtypes = [KvDtype::Q8_0; 2];
    for len in [1, 15, 16, 17, 63, 64, 65, 129, 530] {
        for (head_dim, window) in [(1, None), (33, Some(20)), (80, None)] {
            let params = Params {
                len,
                head_dim,
                window,
                block_tokens: 32,
                dtypes,
                ..PLAIN
            };
            check(params, (len + head_dim) as u64);
        }
    }
}

#[test]
fn every_grouping() {
    for (heads, kv_heads) in [
        (1, 1),
        (3, 3),
        (6, 2),
        (4, 1),
        (5, 1),
        (7, 1),
        (14, 2),
        (9, 1),
        (70, 1),
    ] {
        check(
            Params {
                heads,
                kv_heads,
                dtypes: [KvDtype::F16; 2],
                ..PLAIN
            },
            heads as u64,
        );
    }
}

#[test]
fn windows_and_both_directions() {
    for window in [1, 2, 15, 16, 17, 40, 64, 65, 1000] {
        check(
            Params {
                window: Some(window),
                len: 140,
                ..PLAIN
            },
            window as u64,
        );
    }
    for len in [1, 17, 64, 90, 140] {
        check(
            Params {
                causal: false,
                len,
                ..PLAIN
            },
            len as u64,
        );
        check(
            Params {
                causal: false,
                len,
                window: Some(20),
                ..PLAIN
            },
            len as u64,
        );
    }
}

#[test]
fn blocks_of_any_size_and_order() {
    let mut first = None;
    for block_tokens in [16, 32, 48, 64, 128] {
        for seed in [7, 8] {
            let mut case = Case::new(
                Params {
                    block_tokens,
                    dtypes: [KvDtype::F16; 2],
                    ..PLAIN
                },
                seed,
            );
            // The same numbers whatever the blocks.
            let mut random = Random::new(99);
            for data in [&mut case.q, &mut case.k, &mut case.v] {
                data.iter_mut().for_each(|x| *x = random.unit());
            }
            case.write(Isa::best(), 0..case.len);
            let out = case.attend(Isa::best(), 0..case.len, case.len);
            let first = first.get_or_insert_with(|| out.clone());
            assert_bits(first, &out, "other blocks");
        }
    }
}

#[test]
fn writes_are_the_same_on_every_isa() {
    for dtype in KvDtype::ALL {
        for head_dim in [8, 24, 64] {
            let written = Isa::available().iter().map(|&isa| {
                let mut case = Case::new(
                    Params {
                        dtypes: [dtype; 2],
                        head_dim,
                        ..PLAIN
                    },
                    3,
                );
                case.k[5] = f32::INFINITY;
                case.k[6] = 1e30;
                case.k[7] = f32::from_bits(0x7f80_0001);
                case.k[8] = f32::MAX;
                case.v[9] = f32::from_bits(0x3f80_8000);
                case.v[7] = 1e-42;
                case.write(isa, 0..33);
                case.write(isa, 33..case.len);
                case.bytes.iter().map(|x| x.to_bits()).collect::<Vec<_>>()
            });
            let written: Vec<_> = written.collect();
            assert!(
                written.iter().all(|w| w == &written[0]),
                "{dtype:?} {head_dim}"
            );
        }
    }
}

#[test]
fn one_large_score_takes_all() {
    for isa in Isa::available() {
        let mut case = Case::new(Params { len: 200, ..PLAIN }, 4);
        // Token 70 beats the others by thousands, after smaller ones have been summed.
        let (columns, width) = (case.columns(), case.width());
        case.k[70 * columns..71 * columns].fill(1000.0);
        case.q.fill(1.0);
        case.write(*isa, 0..200);
        let out = case.attend(*isa, 70..200, 200);
        for row in out.chunks(width) {
            for (i, &x) in row.iter().enumerate() {
                let head = i / case.shape.head_dim / case.shape.group();
                let column = head * case.shape.head_dim + i % case.shape.head_dim;
                assert_eq!(x, case.v[70 * columns + column]);
            }
        }
    }
}

/// M3
#[test]
fn a_small_stack_is_enough() {
    let params = Params {
        head_dim: 256,
        dtypes: [KvDtype::F16; 2],
        len: 200,
        ..PLAIN
    };
    let run = move || {
        let mut case = Case::new(params, 5);
        for &isa in Isa::available() {
            case.write(isa, 0..case.len);
            case.attend(isa, 0..case.len, case.len);
        }
    };
    let thread = std::thread::Builder::new().stack_size(64 << 10).spawn(run);
    thread.expect("a thread").join().expect("no overflow");
}

#[test]
fn layouts_that_cannot_be_are_refused() {
    let good = KvShape {
        layers: 1,
        kv_heads: 1,
        head_dim: 8,
        block_tokens: 16,
        dtype_k: KvDtype::F32,
        dtype_v: KvDtype::BF16,
    };
    let layout = KvLayout::new(good).unwrap();
    assert_eq!(layout.k_tile_bytes(), 8 * 16 * 4);
    assert_eq!(layout.v_tile_bytes(), 16 * 16 * 2);
    assert_eq!(layout.block_bytes(), 1024);
    for bad in [
        KvShape {
            block_tokens: 24,
            ..good
        },
        KvShape {
            block_tokens: 0,
            ..good
        },
        KvShape { layers: 0, ..good },
        KvShape {
            head_dim: usize::MAX / 2,
            ..good
        },
        KvShape {
            layers: usize::MAX / 512,
            ..good
        },
    ] {
        assert_eq!(KvLayout::new(bad), None);
    }
}
