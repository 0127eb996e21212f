//! Which queries and tokens meet: panels of queries walk over the spans of tokens that any of them sees.
//!
//! ```text
//! for each K and V head
//!   queries = rows x heads of the group, row by row; cut into panels of 64
//!   for each panel: for each span (64 tokens) that one of its queries sees
//!     widen the span's K and V if several blocks will read it
//!     for each block of up to 8 queries: scores, weights, values
//!     at a segment's end: fold into the total
//! ```
//!
//! So a span is fetched once per 64 queries and stays in the nearest caches while they use it.

use std::ops::Range;

use super::span::{Finish, Fold, NOTHING, Scores, SpanRow, Values, Weights, Widen};
use super::{AttentionShape, SEGMENT_TOKENS, SPAN_TILES, SPAN_TOKENS};
use crate::kv_view::{KvDtype, KvView, TILE_TOKENS};
use crate::lanes::{Kernel, LANES, Lanes, Vec16};
use crate::mat::{MatMut, MatRef};

/// Queries that walk together.
const PANEL: usize = 64;

/// With more queries than this, a span's K and V are widened once instead of by every block.
const WIDEN_FROM: usize = 16;

/// Queries of a block at most.
const BLOCK: usize = 8;

/// What attention is computed of, and where to.
pub(super) struct Attention<'a> {
    pub(super) shape: &'a AttentionShape,
    pub(super) kv: KvView<'a>,
    pub(super) layer: usize,
    pub(super) kv_heads: Range<usize>,
    pub(super) q: MatRef<'a>,
    pub(super) pos0: usize,
    pub(super) out: MatMut<'a>,
    pub(super) scratch: &'a mut [f32],
}

/// Values of scratch: see [`Scratch`].
pub(super) fn scratch_len(head_dim: usize) -> usize {
    let vectors = head_dim.div_ceil(LANES);
    // Queries, two outputs and two sums per query; widened K and V; up to a vector lost to alignment.
    PANEL * (head_dim + 2 * vectors * LANES + 2 * LANES)
        + SPAN_TOKENS * (head_dim + vectors * LANES)
        + LANES
}

/// The panel's state.
struct Scratch<'a> {
    /// Scaled queries, block by block, `[head_dim][block's queries]`.
    q: &'a mut [f32],
    /// Output of the segment and of all before it, `[PANEL][vectors]`.
    out: &'a mut [Vec16],
    total_out: &'a mut [Vec16],
    /// Sums of weights, likewise.
    sums: &'a mut [Vec16],
    total_sums: &'a mut [Vec16],
    /// Widened K and V of a span.
    k: &'a mut [Vec16],
    v: &'a mut [Vec16],
    maxima: [f32; PANEL],
    total_maxima: [f32; PANEL],
}

impl<'a> Scratch<'a> {
    fn new(scratch: &'a mut [f32], head_dim: usize) -> Self {
        let vectors = head_dim.div_ceil(LANES);
        let skip = scratch.as_ptr().align_offset(64).min(LANES);
        let (all, _) = scratch[skip..].as_chunks_mut::<LANES>();
        let (v, all) = all.split_at_mut(SPAN_TOKENS * vectors);
        let (k, all) = all.split_at_mut(SPAN_TILES * head_dim);
        let (out, all) = all.split_at_mut(PANEL * vectors);
        let (total_out, all) = all.split_at_mut(PANEL * vectors);
        let (sums, all) = all.split_at_mut(PANEL);
        let (total_sums, all) = all.split_at_mut(PANEL);
        let q = &mut all.as_flattened_mut()[..PANEL * head_dim];
        let maxima = [NOTHING; PANEL];
        Self {
            q,
            out,
            total_out,
            sums,
            total_sums,
            k,
            v,
            maxima,
            total_maxima: maxima,
        }
    }
}

impl Kernel for Attention<'_> {
    type Out = ();
    #[inline(always)]
    fn run<L: Lanes>(mut self, l: L) {
        let group = self.shape.group();
        let head_dim = self.shape.head_dim;
        let mut scratch = Scratch::new(self.scratch, head_dim);
        let queries = self.q.rows() * group;
        for kv_head in self.kv_heads.clone() {
            for first in (0..queries).step_by(PANEL) {
                // Other panels of this head find its tiles in a cache; what comes next is another head.
                let alone = queries <= PANEL;
                let panel = Panel {
                    shape: self.shape,
                    kv: self.kv,
                    layer: self.layer,
                    kv_head,
                    next_head: (alone && kv_head + 1 < self.kv_heads.end).then_some(kv_head + 1),
                    pos0: self.pos0,
                    group,
                    queries: first..queries.min(first + PANEL),
                    scratch: &mut scratch,
                };
                let column = (kv_head - self.kv_heads.start) * group * head_dim;
                panel.attend(l, self.q, &mut self.out, column);
            }
        }
    }
}

/// Up to [`PANEL`] queries of one K and V head. Query `i` is head `i % group` of row `i / group`.
struct Panel<'a, 's> {
    shape: &'a AttentionShape,
    kv: KvView<'a>,
    layer: usize,
    kv_head: usize,
    /// The head that will be attended to next, to prefetch its first tiles.
    next_head: Option<usize>,
    pos0: usize,
    group: usize,
    queries: Range<usize>,
    scratch: &'s mut Scratch<'a>,
}

/// Queries of the block that starts `at` queries into a panel of `count`: a power of two, the last block
/// being filled up with queries that nobody asked for.
#[inline(always)]
fn block_len<L: Lanes>(at: usize, count: usize) -> usize {
    // Twice as many sums as queries must fit in the registers, beside their operands.
    let most = if L::REGISTERS >= 4 * BLOCK {
        BLOCK
    } else {
        BLOCK / 2
    };
    (count - at).next_power_of_two().min(most)
}

impl Panel<'_, '_> {
    /// The tokens that query `i` of the panel sees; those past the end are like the last one.
    #[inline(always)]
    fn visible(&self, i: usize) -> Range<usize> {
        let query = (self.queries.start + i).min(self.queries.end - 1);
        self.shape
            .visible(self.pos0 + query / self.group, self.kv.len)
    }

    #[inline(always)]
    fn attend<L: Lanes>(mut self, l: L, q: MatRef<'_>, out: &mut MatMut<'_>, column: usize) {
        self.fetch_queries::<L>(q);
        let count = self.queries.len();
        // Later queries see later tokens: the first one's start and the last one's end bound them all.
        let (start, end) = (self.visible(0).start, self.visible(count - 1).end);
        // The last block may be filled up to a power of two.
        let (filled, filled_out) = (
            count.next_power_of_two(),
            count.next_power_of_two() * self.vectors(),
        );
        self.scratch.total_maxima = [NOTHING; PANEL];
        self.scratch.total_sums[..filled].fill([0.0; LANES]);
        self.scratch.total_out[..filled_out].fill([0.0; LANES]);
        let mut segment = start / SEGMENT_TOKENS * SEGMENT_TOKENS;
        while segment < end {
            self.scratch.maxima = [NOTHING; PANEL];
            self.scratch.sums[..filled].fill([0.0; LANES]);
            self.scratch.out[..filled_out].fill([0.0; LANES]);
            let segment_end = (segment + SEGMENT_TOKENS).min(end);
            let first = start.max(segment) / SPAN_TOKENS * SPAN_TOKENS;
            for span in (first..segment_end).step_by(SPAN_TOKENS) {
                self.span(l, span, start..end);
            }
            self.fold(l, count);
            segment += SEGMENT_TOKENS;
        }
        self.finish(l, count, out, column);
    }

    /// Adds the segment that is complete to the total.
    #[inline(always)]
    fn fold<L: Lanes>(&mut self, l: L, count: usize) {
        let vectors = self.vectors();
        let Scratch {
            maxima,
            sums,
            out,
            total_maxima,
            total_sums,
            total_out,
            ..
        } = self.scratch;
        for i in 0..count {
            let columns = i * vectors..(i + 1) * vectors;
            l.outline(Fold {
                maximum: maxima[i],
                sum: &sums[i],
                out: &out[columns.clone()],
                total_maximum: &mut total_maxima[i],
                total_sum: &mut total_sums[i],
                total_out: &mut total_out[columns],
            });
        }
    }

    /// Writes the panel's output to its rows, from `column` on.
    #[inline(always)]
    fn finish<L: Lanes>(&mut self, l: L, count: usize, out: &mut MatMut<'_>, column: usize) {
        let (vectors, head_dim) = (self.vectors(), self.shape.head_dim);
        for i in 0..count {
            let query = self.queries.start + i;
            let column = column + query % self.group * head_dim;
            l.outline(Finish {
                sum: &self.scratch.total_sums[i],
                out: &self.scratch.total_out[i * vectors..(i + 1) * vectors],
                to: &mut out.row_mut(query / self.group)[column..column + head_dim],
            });
        }
    }

    /// Vectors of a head's columns.
    #[inline(always)]
    fn vectors(&self) -> usize {
        self.shape.head_dim.div_ceil(LANES)
    }

    /// Scales the panel's queries and lays them out block by block.
    #[inline(always)]
    fn fetch_queries<L: Lanes>(&mut self, q: MatRef<'_>) {
        let (head_dim, count) = (self.shape.head_dim, self.queries.len());
        let mut at = 0;
        while at < count {
            let block = block_len::<L>(at, count);
            let to = &mut self.scratch.q[at * head_dim..(at + block) * head_dim];
            for m in 0..block {
                let query = self.queries.start + at + m;
                if query >= self.queries.end {
                    to.iter_mut().skip(m).step_by(block).for_each(|x| *x = 0.0);
                    continue;
                }
                let head = self.kv_head * self.group + query % self.group;
                let from = &q.row(query / self.group)[head * head_dim..][..head_dim];
                for (to, from) in to.iter_mut().skip(m).step_by(block).zip(from) {
                    *to = from * self.shape.scale;
                }
            }
            at += block;
        }
    }

    /// Brings every query of the panel up to date with the span that starts at token `span`; `seen` is
    /// what any of them sees.
    #[inline(always)]
    fn span<L: Lanes>(&mut self, l: L, span: usize, seen: Range<usize>) {
        let tiles_of = |span: usize| {
            let first = seen.start.max(span) / TILE_TOKENS;
            first..seen.end.min(span + SPAN_TOKENS).div_ceil(TILE_TOKENS)
        };
        let stored = self.kv.layout.shape();
        let count = self.queries.len();
        let mut source = Source {
            k: [&[]; SPAN_TILES],
            v: [&[]; SPAN_TILES],
            dtype_k: stored.dtype_k,
            dtype_v: stored.dtype_v,
            next_k: [&[]; SPAN_TILES],
            next_v: [&[]; SPAN_TILES],
            next: 0,
        };
        for tile in tiles_of(span) {
            let place = tile - span / TILE_TOKENS;
            [source.k[place], source.v[place]] = self.kv.tile(self.layer, self.kv_head, tile);
        }
        let next = if span + SPAN_TOKENS < seen.end {
            Some((self.kv_head, span + SPAN_TOKENS))
        } else {
            self.next_head
                .map(|head| (head, seen.start / SPAN_TOKENS * SPAN_TOKENS))
        };
        if let Some((head, span)) = next {
            for (place, tile) in tiles_of(span).enumerate() {
                [source.next_k[place], source.next_v[place]] = self.kv.tile(self.layer, head, tile);
                source.next = place + 1;
            }
        }
        // Taken out of the scratch, so that blocks can read these and write the rest.
        let (k, v) = (
            std::mem::take(&mut self.scratch.k),
            std::mem::take(&mut self.scratch.v),
        );
        if count > WIDEN_FROM {
            widen(
                l,
                &mut source.k,
                &source.next_k,
                &mut source.dtype_k,
                None,
                &mut *k,
            );
            widen(
                l,
                &mut source.v,
                &source.next_v,
                &mut source.dtype_v,
                Some(self.vectors()),
                &mut *v,
            );
            source.next = 0;
        }
        let mut at = 0;
        while at < count {
            let block = block_len::<L>(at, count);
            match block {
                1 => self.block::<L, 1>(l, span, at, &source),
                2 => self.block::<L, 2>(l, span, at, &source),
                4 => self.block::<L, 4>(l, span, at, &source),
                _ => self.block::<L, BLOCK>(l, span, at, &source),
            }
            at += block;
            // Once is enough.
            source.next = 0;
        }
        (self.scratch.k, self.scratch.v) = (k, v);
    }

    #[inline(always)]
    fn block<L: Lanes, const M: usize>(
        &mut self,
        l: L,
        span: usize,
        at: usize,
        source: &Source<'_>,
    ) {
        // The first query's start and the last one's end bound what the block sees of the span.
        let start = self.visible(at).start.max(span);
        let end = self.visible(at + M - 1).end.min(span + SPAN_TOKENS);
        if start >= end {
            return;
        }
        let first = start / TILE_TOKENS * TILE_TOKENS;
        let seen: [Range<usize>; M] = std::array::from_fn(|m| {
            let seen = self.visible(at + m);
            let within = |token: usize| token.clamp(first, span + SPAN_TOKENS) - first;
            within(seen.start)..within(seen.end)
        });
        let tiles = (first - span) / TILE_TOKENS..(end - span).div_ceil(TILE_TOKENS);
        let (head_dim, vectors) = (self.shape.head_dim, self.vectors());
        let (q, _) = self.scratch.q[at * head_dim..(at + M) * head_dim].as_chunks::<M>();
        let mut scores: [SpanRow; M] = [[[0.0; LANES]; SPAN_TILES]; M];
        l.outline(Scores {
            tiles: &source.k[tiles.clone()],
            dtype: source.dtype_k,
            next: &source.next_k[..source.next],
            q,
            scores: &mut scores,
        });
        let maxima = self.scratch.maxima[at..]
            .first_chunk_mut::<M>()
            .expect("M queries");
        let sums = self.scratch.sums[at..]
            .first_chunk_mut::<M>()
            .expect("M queries");
        let factors = l.outline(Weights {
            scores: &mut scores,
            tiles: tiles.len(),
            seen: &seen,
            maxima,
            sums,
        });
        l.outline(Values {
            tiles: &source.v[tiles],
            dtype: source.dtype_v,
            next: &source.next_v[..source.next],
            vectors,
            tokens: end - first,
            weights: &scores,
            factors,
            out: &mut self.scratch.out[at * vectors..(at + M) * vectors],
        });
    }
}

/// Puts a span's tiles, widened into `to`, in the place of the stored ones.
#[inline(always)]
fn widen<'a, L: Lanes>(
    l: L,
    tiles: &mut [&'a [u8]; SPAN_TILES],
    next: &[&[u8]; SPAN_TILES],
    dtype: &mut KvDtype,
    v_vectors: Option<usize>,
    to: &'a mut [Vec16],
) {
    if *dtype == KvDtype::F32 {
        return;
    }
    let room = to.len() / SPAN_TILES;
    for ((tile, next), to) in tiles.iter_mut().zip(next).zip(to.chunks_exact_mut(room)) {
        // Places that nobody sees have no tile.
        if !tile.is_empty() {
            l.outline(Widen {
                tile,
                dtype: *dtype,
                v_vectors,
                next,
                to,
            });
            *tile = bytemuck::cast_slice(to);
        }
    }
    *dtype = KvDtype::F32;
}

/// A span's tiles; the places that nobody sees are empty.
struct Source<'a> {
    k: [&'a [u8]; SPAN_TILES],
    v: [&'a [u8]; SPAN_TILES],
    dtype_k: KvDtype,
    dtype_v: KvDtype,
    /// The tiles that will be read next, and how many.
    next_k: [&'a [u8]; SPAN_TILES],
    next_v: [&'a [u8]; SPAN_TILES],
    next: usize,
}
