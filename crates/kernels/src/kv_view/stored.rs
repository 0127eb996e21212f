//! Element types of stored keys and values: how sixteen of them become numbers, and back.
//!
//! Widening is exact for all of them: an integer of 8 bits times a scale of 11 has at most 19. So what is
//! computed of stored values depends on the values only, not on how they are stored.

use bytemuck::Pod;
use half::{bf16, f16};

use super::{GROUP_COLUMNS, TILE_TOKENS};
use crate::lanes::{LANES, Lanes};

/// A stored element type.
pub(crate) trait Stored {
    /// What lies in memory per value.
    type Element: Pod;
    /// Neighbouring columns that share a scale: no end of them where there are no scales.
    const GROUP: usize;
    /// Whether there are scales.
    const SCALED: bool = Self::GROUP != usize::MAX;

    /// Sixteen values, `scale` being that of each lane.
    fn load<L: Lanes>(l: L, from: &[Self::Element; LANES], scale: L::V) -> L::V;

    /// The scale of up to 32 columns of a token, which are `low` and `high` with zeros behind.
    #[inline(always)]
    fn scale_for<L: Lanes>(l: L, low: L::V, high: L::V) -> f16 {
        let _ = (l, low, high);
        f16::ONE
    }

    /// Sixteen values to be stored, `scale` being that of each.
    fn narrow<L: Lanes>(l: L, v: L::V, scale: f16) -> [Self::Element; LANES];
}

impl Stored for f32 {
    type Element = f32;
    const GROUP: usize = usize::MAX;

    #[inline(always)]
    fn load<L: Lanes>(l: L, from: &[f32; LANES], _: L::V) -> L::V {
        l.load(from)
    }
    #[inline(always)]
    fn narrow<L: Lanes>(l: L, v: L::V, _: f16) -> [f32; LANES] {
        let mut out = [0.0; LANES];
        l.store(v, &mut out);
        out
    }
}

impl Stored for f16 {
    type Element = f16;
    const GROUP: usize = usize::MAX;

    #[inline(always)]
    fn load<L: Lanes>(l: L, from: &[f16; LANES], _: L::V) -> L::V {
        l.load_f16(from)
    }
    #[inline(always)]
    fn narrow<L: Lanes>(l: L, v: L::V, _: f16) -> [f16; LANES] {
        l.to_f16(v)
    }
}

impl Stored for bf16 {
    type Element = bf16;
    const GROUP: usize = usize::MAX;

    #[inline(always)]
    fn load<L: Lanes>(l: L, from: &[bf16; LANES], _: L::V) -> L::V {
        l.load_bf16(from)
    }
    #[inline(always)]
    fn narrow<L: Lanes>(l: L, v: L::V, _: f16) -> [bf16; LANES] {
        l.to_bf16(v)
    }
}

/// [`KvDtype::Q8_0`](super::KvDtype::Q8_0).
pub(crate) struct Q8;

/// The largest magnitude of a stored integer.
const MOST: f32 = 127.0;

impl Stored for Q8 {
    type Element = i8;
    const GROUP: usize = GROUP_COLUMNS;

    #[inline(always)]
    fn load<L: Lanes>(l: L, from: &[i8; LANES], scale: L::V) -> L::V {
        l.mul(l.load_i8(from), scale)
    }
    #[inline(always)]
    fn scale_for<L: Lanes>(l: L, low: L::V, high: L::V) -> f16 {
        let zero = l.splat(0.0);
        // 0 unless a value is infinite or NaN, which the maximum may miss.
        let probe = l.sum(l.add(l.mul(low, zero), l.mul(high, zero)));
        let largest = l.largest(l.max(l.abs(low), l.abs(high)));
        let scale = f16::from_f32(largest / MOST + probe);
        if scale.is_finite() { scale } else { f16::NAN }
    }
    #[inline(always)]
    fn narrow<L: Lanes>(l: L, v: L::V, scale: f16) -> [i8; LANES] {
        let scale = scale.to_f32();
        if scale > 0.0 {
            let steps = l.round(l.div(v, l.splat(scale)));
            let steps = l.if_less(steps, l.splat(-MOST), l.splat(-MOST), steps);
            l.to_i8(l.if_less(l.splat(MOST), steps, l.splat(MOST), steps))
        } else {
            // Values too small to be told from 0, or not numbers: the scale says which.
            [0; LANES]
        }
    }
}

/// One head's K or V of 16 tokens.
pub(crate) struct Tile<'a, S: Stored> {
    /// The values, in vectors.
    pub(crate) values: &'a [[S::Element; LANES]],
    /// Per group of columns, the tokens' scales; empty where there are none.
    pub(crate) scales: &'a [[f16; TILE_TOKENS]],
}

// Derived, they would ask the same of `S`.
impl<S: Stored> Copy for Tile<'_, S> {}
impl<S: Stored> Clone for Tile<'_, S> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<'a, S: Stored> Tile<'a, S> {
    /// A tile of so many vectors of values.
    #[inline(always)]
    pub(crate) fn new(bytes: &'a [u8], vectors: usize) -> Self {
        let (values, scales) = bytes.split_at(vectors * size_of::<[S::Element; LANES]>());
        Self {
            values: bytemuck::cast_slice::<u8, S::Element>(values).as_chunks().0,
            scales: if S::SCALED {
                bytemuck::cast_slice::<u8, f16>(scales).as_chunks().0
            } else {
                &[]
            },
        }
    }

    /// The scales of a group of columns, a lane per token.
    #[inline(always)]
    pub(crate) fn scales_of_tokens<L: Lanes>(&self, l: L, group: usize) -> L::V {
        if S::SCALED {
            l.load_f16(&self.scales[group])
        } else {
            l.splat(1.0)
        }
    }

    /// The scale of a group of columns of one token, in every lane.
    #[inline(always)]
    pub(crate) fn scale_of_token<L: Lanes>(&self, l: L, group: usize, token: usize) -> L::V {
        if S::SCALED {
            l.splat_f16(self.scales[group][token])
        } else {
            l.splat(1.0)
        }
    }
}
