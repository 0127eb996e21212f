//! Attention over paged keys and values.
//!
//! **The order of everything** for one query (a row's head), whatever is computed beside it:
//!
//! 1. The query is multiplied by the scale. Its score with a token is a sum over the head's columns in
//!    ascending order by fused multiply-add (lanes are tokens, see [`crate::kv_view`]).
//! 2. Tokens are taken in *spans* of 64, counted from the sequence's start. In each, with `m` the largest
//!    score so far and `m'` the largest including this span: `a = e^(m - m')`; each token's weight is
//!    `p = e^(s - m')`, or 0 where the query does not see it; the 16 lanes of the weights' sum become
//!    `l = l a + p` (tiles of 16 tokens in ascending order), the output columns `o = o a + p v` (tokens in
//!    ascending order). (Online softmax: Milakov and Gimelshein, 2018; Dao et al., 2022.)
//! 3. Spans belong to *segments* of 512 tokens. Each segment starts afresh and is folded, when complete,
//!    into the total of those before: `m'` the larger maximum, `l' = l e^(m - m') + l_s e^(m_s - m')` and
//!    `o'` likewise. So one day segments may be computed by several workers and folded in this order.
//! 4. The output is `o (1 / l)`, the lanes of `l` added by the tree of [`crate::ops`].
//!
//! Nothing in this depends on the rows of a call, on which blocks hold the tokens, on how K and V are
//! stored (once rounded), or on the instruction set: the bits are the same. A token that is not seen adds
//! exactly nothing, so leaving it out is the same as giving it the weight 0.
//!
//! The loops are in `panel` (which queries and tokens meet), the arithmetic in `span`.

mod panel;
mod span;
#[cfg(test)]
mod tests;

use std::ops::Range;

use crate::isa::Isa;
use crate::kv_view::{KvView, TILE_TOKENS};
use crate::lanes::run;
use crate::mat::{MatMut, MatRef};

/// Tokens whose scores are looked at together.
const SPAN_TOKENS: usize = 64;

/// Tiles of a span.
const SPAN_TILES: usize = SPAN_TOKENS / TILE_TOKENS;

/// Tokens whose sums are independent of what lies before.
const SEGMENT_TOKENS: usize = 512;

/// What kind of attention.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct AttentionShape {
    /// Query heads: a multiple of `kv_heads`; query head `h` reads K and V head `h / (heads / kv_heads)`.
    pub heads: usize,
    /// K and V heads.
    pub kv_heads: usize,
    /// Columns of a head.
    pub head_dim: usize,
    /// What scores are multiplied by before the softmax, usually `1 / sqrt(head_dim)`.
    pub scale: f32,
    /// Whether a position sees only itself and what is before it.
    pub causal: bool,
    /// How many positions a position sees, itself included, if not all: tokens `t > position - window`.
    pub window: Option<usize>,
}

impl AttentionShape {
    /// Query heads that share a K and V head.
    ///
    /// # Panics
    /// When `heads` is no positive multiple of `kv_heads`.
    #[track_caller]
    pub fn group(&self) -> usize {
        assert!(
            self.kv_heads > 0 && self.heads > 0 && self.heads.is_multiple_of(self.kv_heads),
            "{} heads do not share {} K and V heads evenly",
            self.heads,
            self.kv_heads
        );
        self.heads / self.kv_heads
    }

    /// The tokens that the query at `position` sees, of `len` written ones.
    fn visible(&self, position: usize, len: usize) -> Range<usize> {
        let end = if self.causal {
            (position + 1).min(len)
        } else {
            len
        };
        let start = match self.window {
            Some(window) => (position + 1).saturating_sub(window),
            None => 0,
        };
        start.min(end)..end
    }
}

/// How much scratch space [`attention`] needs, in values; the same for any number of rows and tokens.
pub fn attention_scratch_len(shape: &AttentionShape) -> usize {
    panel::scratch_len(shape.head_dim)
}

/// Attention of consecutive positions of one sequence, for some of the K and V heads.
///
/// `q` has a row per position, from `pos0` on, and `heads * head_dim` columns; `out` has as many rows and
/// the columns of the query heads that read `kv_heads` (a range), in order. The K and V of the rows' own
/// positions must be written already. A query that sees nothing gets zeros. `scratch` has at least
/// [`attention_scratch_len`] values, whatever they are.
///
/// # Panics
/// When a shape does not fit the others, or the view's table or bytes end before its length.
#[track_caller]
#[allow(clippy::too_many_arguments)]
pub fn attention(
    isa: Isa,
    shape: &AttentionShape,
    kv: KvView<'_>,
    layer: usize,
    kv_heads: Range<usize>,
    q: MatRef<'_>,
    pos0: usize,
    out: MatMut<'_>,
    scratch: &mut [f32],
) {
    let group = shape.group();
    let stored = kv.layout.shape();
    assert_eq!(
        (stored.kv_heads, stored.head_dim),
        (shape.kv_heads, shape.head_dim),
        "stored and asked K and V heads and columns"
    );
    assert!(layer < stored.layers, "layer {layer} of {}", stored.layers);
    assert!(
        kv_heads.start <= kv_heads.end && kv_heads.end <= shape.kv_heads,
        "K and V heads {kv_heads:?} of {}",
        shape.kv_heads
    );
    assert_eq!(
        q.cols(),
        shape.heads * shape.head_dim,
        "columns of the queries"
    );
    assert_eq!(
        (out.rows(), out.cols()),
        (q.rows(), kv_heads.len() * group * shape.head_dim),
        "shape of the output"
    );
    assert!(
        !shape.causal || pos0 + q.rows() <= kv.len,
        "positions {pos0}..{} of {} written tokens",
        pos0 + q.rows(),
        kv.len
    );
    let needed = attention_scratch_len(shape);
    assert!(
        scratch.len() >= needed,
        "{} values of scratch, {needed} needed",
        scratch.len()
    );
    run(
        isa,
        panel::Attention {
            shape,
            kv,
            layer,
            kv_heads,
            q,
            pos0,
            out,
            scratch,
        },
    );
}
