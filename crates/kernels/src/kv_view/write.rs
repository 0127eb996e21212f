//! Writing keys and values, token by token, into the tiles of a sequence's blocks.

use half::{bf16, f16};

use super::{GROUP_COLUMNS, KvDtype, KvLayout, Q8, Stored, TILE_TOKENS};
use crate::isa::Isa;
use crate::lanes::{Kernel, LANES, Lanes, run};
use crate::mat::MatRef;

/// Rows of K or V on their way into one layer's tiles.
struct Write<'a> {
    layout: KvLayout,
    bytes: &'a mut [u8],
    blocks: &'a [u32],
    layer: usize,
    pos0: usize,
    rows: MatRef<'a>,
    /// V, else K.
    is_v: bool,
}

impl Kernel for Write<'_> {
    type Out = ();
    #[inline(always)]
    fn run<L: Lanes>(self, l: L) {
        let shape = self.layout.shape;
        match if self.is_v {
            shape.dtype_v
        } else {
            shape.dtype_k
        } {
            KvDtype::F32 => self.write::<L, f32>(l),
            KvDtype::F16 => self.write::<L, f16>(l),
            KvDtype::BF16 => self.write::<L, bf16>(l),
            KvDtype::Q8_0 => self.write::<L, Q8>(l),
        }
    }
}

impl Write<'_> {
    #[inline(always)]
    fn write<L: Lanes, S: Stored>(self, l: L) {
        let layout = self.layout;
        let (block_tokens, head_dim) = (layout.block_tokens(), layout.shape.head_dim);
        let columns = if self.is_v {
            layout.v_columns()
        } else {
            head_dim
        };
        for i in 0..self.rows.rows() {
            let pos = self.pos0 + i;
            let block = layout.block_offset(self.blocks[pos / block_tokens]);
            let (tile, place) = (pos % block_tokens / TILE_TOKENS, pos % TILE_TOKENS);
            for (head, row) in self.rows.row(i).chunks_exact(head_dim).enumerate() {
                let (part, tile_bytes) = if self.is_v {
                    (layout.v_offset(self.layer, head), layout.tile_bytes[1])
                } else {
                    (layout.k_offset(self.layer, head), layout.tile_bytes[0])
                };
                let start = block + part + tile * tile_bytes;
                let tile = &mut self.bytes[start..start + tile_bytes];
                let (values, scales) =
                    tile.split_at_mut(columns * TILE_TOKENS * size_of::<S::Element>());
                let values = bytemuck::cast_slice_mut::<u8, S::Element>(values);
                let (values, _) = values.as_chunks_mut::<LANES>();
                for (group, row) in row.chunks(GROUP_COLUMNS).enumerate() {
                    let (low, high) = row.split_at(row.len().min(LANES));
                    let vector = [load_up_to(l, low), load_up_to(l, high)];
                    let scale = S::scale_for(l, vector[0], vector[1]);
                    if S::SCALED {
                        let scales = bytemuck::cast_slice_mut::<u8, f16>(scales);
                        scales[group * TILE_TOKENS + place] = scale;
                    }
                    for (half, row) in [low, high].into_iter().enumerate() {
                        if row.is_empty() {
                            continue;
                        }
                        let stored = S::narrow(l, vector[half], scale);
                        let at = 2 * group + half;
                        if self.is_v {
                            values[place * (columns / LANES) + at] = stored;
                        } else {
                            // The last columns may be fewer than 16.
                            for (value, column) in stored
                                .into_iter()
                                .zip(&mut values[at * LANES..])
                                .take(row.len())
                            {
                                column[place] = value;
                            }
                        }
                    }
                }
            }
        }
    }
}

/// Up to sixteen values, zeros behind them.
#[inline(always)]
fn load_up_to<L: Lanes>(l: L, row: &[f32]) -> L::V {
    match row.as_array() {
        Some(all) => l.load(all),
        None => l.load_some(row, 0.0),
    }
}

/// Writes the K and V of consecutive positions, from `pos0` on, into a layer of the sequence's blocks.
///
/// `k` and `v` have a row per position and `kv_heads * head_dim` columns. `bytes` is the slab space and
/// `blocks` the sequence's table, as in [`KvView`](super::KvView). Values are rounded to nearest, ties to even; those
/// beyond an f16 become infinite.
///
/// For [`KvDtype::Q8_0`], with `a` the largest magnitude of up to 32 columns: the scale `s` is `a / 127`
/// as an f16; a value `x` is stored as the integer next to `x / s`, at most 127 from 0; and it is read as
/// that integer times `s`, which is within `s / 2` of `x` unless `s` is denormal. If `s` is 0 the integers
/// are; if a column is no number, or `s` exceeds an f16, the columns are read as NaN. (The blocks of ggml's
/// type of that name, whose integers are of the unrounded scale.) A token's bytes depend on its columns
/// only.
///
/// # Panics
/// When the shapes differ from the layout's, the table is too short, or a block lies beyond `bytes`.
#[track_caller]
#[allow(clippy::too_many_arguments)]
pub fn kv_write(
    isa: Isa,
    layout: KvLayout,
    bytes: &mut [u8],
    blocks: &[u32],
    layer: usize,
    pos0: usize,
    k: MatRef<'_>,
    v: MatRef<'_>,
) {
    let shape = layout.shape;
    let columns = shape.kv_heads * shape.head_dim;
    assert_eq!([k.cols(), v.cols()], [columns; 2], "columns of K and V");
    assert_eq!(k.rows(), v.rows(), "rows of K and V");
    assert!(layer < shape.layers, "layer {layer} of {}", shape.layers);
    run(
        isa,
        Write {
            layout,
            bytes,
            blocks,
            layer,
            pos0,
            rows: k,
            is_v: false,
        },
    );
    run(
        isa,
        Write {
            layout,
            bytes,
            blocks,
            layer,
            pos0,
            rows: v,
            is_v: true,
        },
    );
}
