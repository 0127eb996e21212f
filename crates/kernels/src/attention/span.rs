//! One span of 64 tokens and a block of up to eight queries: scores, weights, weighted values.
//!
//! A block's queries share every load of K and V. `M` is their number, `T` the tiles and `C` the vectors
//! of columns whose sums are kept in registers at once: `M * T` and `M * C` fill half of them or more.
//! Neither changes any bit of a query's result.

use half::{bf16, f16};

use super::SPAN_TILES;
use crate::kv_view::{KvDtype, Q8, Stored, TILE_TOKENS, Tile};
use crate::lanes::{Kernel, LANES, Lanes, Vec16};
use crate::ops::math;

/// Scores, then weights, of one query and the tokens of a span, from the first tile on that a query of
/// its block sees.
pub(super) type SpanRow = [Vec16; SPAN_TILES];

/// The largest score of a query that has seen nothing yet; below any score, and finite, so that its
/// difference from itself is 0.
pub(super) const NOTHING: f32 = f32::MIN / 2.0;

/// Scores of a block of queries with some tiles of a span.
pub(super) struct Scores<'a, const M: usize> {
    /// The K tiles, each `[head_dim][16 tokens]`.
    pub(super) tiles: &'a [&'a [u8]],
    pub(super) dtype: KvDtype,
    /// What to prefetch on the way, a slice per tile: what will be read next.
    pub(super) next: &'a [&'a [u8]],
    /// The queries, `[head_dim][M]`.
    pub(super) q: &'a [[f32; M]],
    /// Where the scores go, tile by tile.
    pub(super) scores: &'a mut [SpanRow; M],
}

impl<const M: usize> Kernel for Scores<'_, M> {
    type Out = ();
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        match self.dtype {
            KvDtype::F32 => self.score::<L, f32>(l),
            KvDtype::F16 => self.score::<L, f16>(l),
            KvDtype::BF16 => self.score::<L, bf16>(l),
            KvDtype::Q8_0 => self.score::<L, Q8>(l),
        }
    }
}

impl<const M: usize> Scores<'_, M> {
    #[inline(always)]
    fn score<L: Lanes, S: Stored>(self, l: L) {
        let mut at = 0;
        // Half of the registers sum, the others hold tiles and queries.
        if L::REGISTERS >= 8 * M {
            while at + 4 <= self.tiles.len() {
                score_tiles::<L, S, M, 4>(l, self.tiles, self.next, at, self.q, self.scores);
                at += 4;
            }
        }
        if L::REGISTERS >= 4 * M {
            while at + 2 <= self.tiles.len() {
                score_tiles::<L, S, M, 2>(l, self.tiles, self.next, at, self.q, self.scores);
                at += 2;
            }
        }
        while at < self.tiles.len() {
            score_tiles::<L, S, M, 1>(l, self.tiles, self.next, at, self.q, self.scores);
            at += 1;
        }
    }
}

/// `tiles[at..at + T]`, of `len` vectors each.
#[inline(always)]
fn pick<'a, S: Stored, const T: usize>(
    tiles: &[&'a [u8]],
    at: usize,
    len: usize,
) -> [Tile<'a, S>; T] {
    std::array::from_fn(|t| Tile::new(tiles[at + t], len))
}

/// Stored vectors in a cache line.
const fn vectors_per_line<S: Stored>() -> usize {
    let n = 64 / size_of::<[S::Element; LANES]>();
    if n == 0 { 1 } else { n }
}

#[inline(always)]
fn score_tiles<L: Lanes, S: Stored, const M: usize, const T: usize>(
    l: L,
    tiles: &[&[u8]],
    next: &[&[u8]],
    at: usize,
    q: &[[f32; M]],
    scores: &mut [SpanRow; M],
) {
    let ahead = at + T <= next.len();
    let next = pick::<S, T>(if ahead { next } else { tiles }, at, q.len());
    let tiles = pick::<S, T>(tiles, at, q.len());
    let mut sums = [[l.splat(0.0); T]; M];
    // All columns at once where there are no scales.
    for (group, q) in q.chunks(S::GROUP).enumerate() {
        let first = if S::SCALED { group * S::GROUP } else { 0 };
        let scales = tiles.map(|tile| tile.scales_of_tokens(l, group));
        let values = tiles.map(|tile| &tile.values[first..first + q.len()]);
        let next_values = next.map(|tile| &tile.values[first..first + q.len()]);
        if ahead && S::SCALED {
            for next in next {
                l.prefetch(&next.scales[group]);
            }
        }
        for (d, q) in q.iter().enumerate() {
            if ahead && d.is_multiple_of(vectors_per_line::<S>()) {
                for next in next_values {
                    l.prefetch(&next[d]);
                }
            }
            let mut k = [l.splat(0.0); T];
            for t in 0..T {
                k[t] = S::load(l, &values[t][d], scales[t]);
            }
            for m in 0..M {
                let q = l.splat(q[m]);
                for t in 0..T {
                    sums[m][t] = l.fma(q, k[t], sums[m][t]);
                }
            }
        }
    }
    for (sums, scores) in sums.iter().zip(scores) {
        for (t, sum) in sums.iter().enumerate() {
            l.store(*sum, &mut scores[at + t]);
        }
    }
}

/// Turns the scores of a block into weights and brings the queries' maxima and sums up to date.
pub(super) struct Weights<'a, const M: usize> {
    pub(super) scores: &'a mut [SpanRow; M],
    /// How many tiles have scores.
    pub(super) tiles: usize,
    /// Per query, the tokens that it sees, counted from the first tile's first.
    pub(super) seen: &'a [std::ops::Range<usize>; M],
    pub(super) maxima: &'a mut [f32; M],
    pub(super) sums: &'a mut [Vec16; M],
}

impl<const M: usize> Kernel for Weights<'_, M> {
    /// Per query, what its output so far is to be multiplied by.
    type Out = [f32; M];
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) -> [f32; M] {
        const { assert!(M <= LANES) };
        let hidden = l.splat(f32::NEG_INFINITY);
        let mut before = [0.0; LANES];
        let mut after = [0.0; LANES];
        for m in 0..M {
            let seen = &self.seen[m];
            let mut most = hidden;
            for (tile, scores) in self.scores[m][..self.tiles].iter_mut().enumerate() {
                let start = tile * TILE_TOKENS;
                let mut values = l.load(scores);
                if seen.start > start || seen.end < start + TILE_TOKENS {
                    let place: Vec16 = std::array::from_fn(|i| (start + i) as f32);
                    let place = l.load(&place);
                    let end = l.splat(seen.end as f32);
                    values = l.if_less(place, end, values, hidden);
                    values = l.if_less(place, l.splat(seen.start as f32), hidden, values);
                    l.store(values, scores);
                }
                most = l.max(most, values);
            }
            let most = l.largest(most);
            before[m] = self.maxima[m];
            after[m] = if before[m] < most { most } else { before[m] };
            self.maxima[m] = after[m];
        }
        let mut factors = [0.0; LANES];
        l.store(
            math::exp(l, l.sub(l.load(&before), l.load(&after))),
            &mut factors,
        );
        for m in 0..M {
            let most = l.splat(after[m]);
            let mut sum = l.mul(l.load(&self.sums[m]), l.splat(factors[m]));
            for scores in &mut self.scores[m][..self.tiles] {
                let weights = math::exp(l, l.sub(l.load(scores), most));
                l.store(weights, scores);
                sum = l.add(sum, weights);
            }
            l.store(sum, &mut self.sums[m]);
        }
        std::array::from_fn(|m| factors[m])
    }
}

/// Adds the weighted values of a span's tokens to a block's output columns.
pub(super) struct Values<'a, const M: usize> {
    /// The V tiles, each `[16 tokens][columns]`.
    pub(super) tiles: &'a [&'a [u8]],
    pub(super) dtype: KvDtype,
    /// What to prefetch on the way, a slice per tile: what will be read next.
    pub(super) next: &'a [&'a [u8]],
    /// Vectors of a token's columns.
    pub(super) vectors: usize,
    /// Tokens to add of those in `tiles`.
    pub(super) tokens: usize,
    pub(super) weights: &'a [SpanRow; M],
    /// Per query, what the output so far is multiplied by.
    pub(super) factors: [f32; M],
    /// The output columns, `[M][vectors]`.
    pub(super) out: &'a mut [Vec16],
}

impl<const M: usize> Kernel for Values<'_, M> {
    type Out = ();
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        match self.dtype {
            KvDtype::F32 => self.add::<L, f32>(l),
            KvDtype::F16 => self.add::<L, f16>(l),
            KvDtype::BF16 => self.add::<L, bf16>(l),
            KvDtype::Q8_0 => self.add::<L, Q8>(l),
        }
    }
}

impl<const M: usize> Values<'_, M> {
    #[inline(always)]
    fn add<L: Lanes, S: Stored>(mut self, l: L) {
        let mut at = 0;
        // Half of the registers sum, as in `Scores`.
        if L::REGISTERS >= 16 * M {
            while at + 8 <= self.vectors {
                self.add_columns::<L, S, 8>(l, at);
                at += 8;
            }
        }
        if L::REGISTERS >= 8 * M {
            while at + 4 <= self.vectors {
                self.add_columns::<L, S, 4>(l, at);
                at += 4;
            }
        }
        if L::REGISTERS >= 4 * M {
            while at + 2 <= self.vectors {
                self.add_columns::<L, S, 2>(l, at);
                at += 2;
            }
        }
        while at < self.vectors {
            self.add_columns::<L, S, 1>(l, at);
            at += 1;
        }
    }

    /// The columns of vectors `at..at + C`.
    #[inline(always)]
    fn add_columns<L: Lanes, S: Stored, const C: usize>(&mut self, l: L, at: usize) {
        let mut sums = [[l.splat(0.0); C]; M];
        let outs = self.out.chunks_exact(self.vectors);
        for ((sums, out), &factor) in sums.iter_mut().zip(outs).zip(&self.factors) {
            let out = out[at..].first_chunk::<C>().expect("at + C <= vectors");
            for (sum, out) in sums.iter_mut().zip(out) {
                *sum = l.mul(l.load(out), l.splat(factor));
            }
        }
        let mut left = self.tokens;
        for (i, tile) in self.tiles.iter().enumerate() {
            let weights = self.weights.each_ref().map(|row| &row[i]);
            let (ahead, next) = match self.next.get(i) {
                Some(next) => (true, next),
                None => (false, tile),
            };
            let tile = Tile::<S>::new(tile, TILE_TOKENS * self.vectors);
            let next = Tile::<S>::new(next, TILE_TOKENS * self.vectors);
            if ahead && at == 0 {
                for scales in next.scales {
                    l.prefetch(scales);
                }
            }
            let rows = tile.values.chunks_exact(self.vectors);
            let next = next.values.chunks_exact(self.vectors);
            for ((token, row), next) in (0..TILE_TOKENS.min(left)).zip(rows).zip(next) {
                let (Some(row), Some(next)) =
                    (row[at..].first_chunk::<C>(), next[at..].first_chunk::<C>())
                else {
                    unreachable!("at + C <= vectors");
                };
                let mut scale = l.splat(1.0);
                for c in 0..C {
                    // `at` is a multiple of `C`, so that a group does not end elsewhere.
                    let column = (at + c) * LANES;
                    if S::SCALED && (c == 0 || column.is_multiple_of(S::GROUP)) {
                        scale = tile.scale_of_token(l, column / S::GROUP, token);
                    }
                    if ahead && c.is_multiple_of(vectors_per_line::<S>()) {
                        l.prefetch(&next[c]);
                    }
                    let v = S::load(l, &row[c], scale);
                    for m in 0..M {
                        sums[m][c] = l.fma(l.splat(weights[m][token]), v, sums[m][c]);
                    }
                }
            }
            left = left.saturating_sub(TILE_TOKENS);
        }
        for (sums, out) in sums.iter().zip(self.out.chunks_exact_mut(self.vectors)) {
            let out = out[at..].first_chunk_mut::<C>().expect("at + C <= vectors");
            for (&sum, out) in sums.iter().zip(out) {
                l.store(sum, out);
            }
        }
    }
}

/// Widens a tile for queries that will read it many times.
pub(super) struct Widen<'a> {
    pub(super) tile: &'a [u8],
    pub(super) dtype: KvDtype,
    /// Vectors of a token's columns if it is a V tile, `None` if it is a K tile.
    pub(super) v_vectors: Option<usize>,
    /// What to prefetch on the way.
    pub(super) next: &'a [u8],
    pub(super) to: &'a mut [Vec16],
}

impl Kernel for Widen<'_> {
    type Out = ();
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        for line in self.next.chunks(64) {
            l.prefetch(&line[0]);
        }
        match self.dtype {
            KvDtype::F32 => self.widen::<L, f32>(l),
            KvDtype::F16 => self.widen::<L, f16>(l),
            KvDtype::BF16 => self.widen::<L, bf16>(l),
            KvDtype::Q8_0 => self.widen::<L, Q8>(l),
        }
    }
}

impl Widen<'_> {
    #[inline(always)]
    fn widen<L: Lanes, S: Stored>(self, l: L) {
        let tile = Tile::<S>::new(self.tile, self.to.len());
        let one = l.splat(1.0);
        match self.v_vectors {
            _ if !S::SCALED => {
                for (from, to) in tile.values.iter().zip(self.to) {
                    l.store(S::load(l, from, one), to);
                }
            }
            None => {
                let columns = tile
                    .values
                    .chunks(S::GROUP)
                    .zip(self.to.chunks_mut(S::GROUP));
                for (group, (columns, to)) in columns.enumerate() {
                    let scales = tile.scales_of_tokens(l, group);
                    for (from, to) in columns.iter().zip(to) {
                        l.store(S::load(l, from, scales), to);
                    }
                }
            }
            Some(vectors) => {
                let rows = tile.values.chunks_exact(vectors);
                for (token, (row, to)) in rows.zip(self.to.chunks_exact_mut(vectors)).enumerate() {
                    let of_group = S::GROUP / LANES;
                    let groups = row.chunks(of_group).zip(to.chunks_mut(of_group));
                    for (group, (columns, to)) in groups.enumerate() {
                        let scale = tile.scale_of_token(l, group, token);
                        for (from, to) in columns.iter().zip(to) {
                            l.store(S::load(l, from, scale), to);
                        }
                    }
                }
            }
        }
    }
}

/// Folds a segment's state into the total of those before it.
pub(super) struct Fold<'a> {
    pub(super) maximum: f32,
    pub(super) sum: &'a Vec16,
    pub(super) out: &'a [Vec16],
    pub(super) total_maximum: &'a mut f32,
    pub(super) total_sum: &'a mut Vec16,
    pub(super) total_out: &'a mut [Vec16],
}

impl Kernel for Fold<'_> {
    type Out = ();
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let before = *self.total_maximum;
        let most = if before < self.maximum {
            self.maximum
        } else {
            before
        };
        *self.total_maximum = most;
        let most = l.splat(most);
        let factor = math::exp(l, l.sub(l.splat(before), most));
        let factor_new = math::exp(l, l.sub(l.splat(self.maximum), most));
        let fold = |total: &mut Vec16, new: &Vec16| {
            let sum = l.fma(l.load(new), factor_new, l.mul(l.load(total), factor));
            l.store(sum, total);
        };
        fold(self.total_sum, self.sum);
        for (total, new) in self.total_out.iter_mut().zip(self.out) {
            fold(total, new);
        }
    }
}

/// Divides the sums of values by the sum of weights (multiplies by its reciprocal).
pub(super) struct Finish<'a> {
    pub(super) sum: &'a Vec16,
    pub(super) out: &'a [Vec16],
    /// A head's columns.
    pub(super) to: &'a mut [f32],
}

impl Kernel for Finish<'_> {
    type Out = ();
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let sum = l.sum(l.load(self.sum));
        // A query that has seen nothing has sums of 0.
        let factor = l.splat(if sum == 0.0 { 1.0 } else { 1.0 / sum });
        for (from, to) in self.out.iter().zip(self.to.chunks_mut(LANES)) {
            let value = l.mul(l.load(from), factor);
            match to.as_mut_array() {
                Some(to) => l.store(value, to),
                None => l.store_some(value, to),
            }
        }
    }
}
