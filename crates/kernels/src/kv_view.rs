//! Keys and values in blocks of tokens: where each lies, how they are written, what attention reads.
//!
//! ```text
//! slab space   [ slab: block 0 | block 1 | ... | pad ][ slab ] ...       see `KvLayout::block_offset`
//! block        [ layer 0 ][ layer 1 ] ...                       so that a block moves as one piece
//! layer        [ head 0 K | head 0 V ][ head 1 K | head 1 V ] ...
//! K            [ tile ][ tile ] ...     tile = [head_dim][16 tokens]          lanes are tokens
//! V            [ tile ][ tile ] ...     tile = [16 tokens][head_dim up to 16s] lanes are columns
//! ```
//!
//! A query's products with a K tile and the sum of a V tile's rows then both run down memory with a whole
//! vector at a time, whatever the head's size: rows of V are padded to a multiple of 16 columns, and a K
//! row of 16 tokens is a vector by construction. Every part starts at a multiple of 64 bytes.

#[cfg(test)]
mod tests;

use half::{bf16, f16};

use crate::isa::Isa;
use crate::lanes::{Kernel, LANES, Lanes, Vec16, run};
use crate::mat::MatRef;

/// Tokens of a tile, the unit in which blocks are made and attention proceeds.
pub const TILE_TOKENS: usize = LANES;

/// Every part of a block starts at a multiple of so many bytes.
const PART_ALIGN: usize = 64;

/// Slabs are multiples of so many bytes: a huge page, the least that the operating system takes back
/// without breaking one.
const SLAB_UNIT: usize = 2 << 20;

/// The largest slab that is looked at.
const SLAB_MAX: usize = 32 << 20;

/// A slab may leave a 64th of itself unused.
const SLAB_PADDING: usize = 64;

/// What a K or V element is stored as.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum KvDtype {
    /// 32-bit IEEE float.
    F32,
    /// 16-bit IEEE float.
    F16,
    /// The upper half of a 32-bit IEEE float.
    BF16,
}

impl KvDtype {
    /// Bytes of an element.
    pub const fn bytes(self) -> usize {
        match self {
            KvDtype::F32 => 4,
            KvDtype::F16 | KvDtype::BF16 => 2,
        }
    }

    /// The name that users type: `f32`, `f16`, `bf16`.
    pub const fn name(self) -> &'static str {
        match self {
            KvDtype::F32 => "f32",
            KvDtype::F16 => "f16",
            KvDtype::BF16 => "bf16",
        }
    }

    /// The dtype of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        [KvDtype::F32, KvDtype::F16, KvDtype::BF16]
            .into_iter()
            .find(|dtype| dtype.name() == name)
    }
}

/// What a block must hold.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct KvShape {
    /// Layers of the model, each with K and V of its own.
    pub layers: usize,
    /// K (and V) heads of a layer.
    pub kv_heads: usize,
    /// Columns of a head.
    pub head_dim: usize,
    /// Tokens of a block: a multiple of 16.
    pub block_tokens: usize,
    /// How K is stored.
    pub dtype_k: KvDtype,
    /// How V is stored.
    pub dtype_v: KvDtype,
}

/// Where everything lies within a block; see the top of the file.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct KvLayout {
    shape: KvShape,
    /// Bytes of one head's K tile and V tile.
    tile_bytes: [usize; 2],
    /// Bytes of one head's K and V in one layer.
    head_bytes: usize,
    block_bytes: usize,
    blocks_per_slab: u32,
    slab_bytes: usize,
}

impl KvLayout {
    /// The layout for a shape, one block right behind the other, each a slab of its own; `None` when a
    /// count is zero, `block_tokens` is no multiple of 16, or the bytes exceed `usize`.
    pub fn new(shape: KvShape) -> Option<Self> {
        let KvShape {
            layers,
            kv_heads,
            head_dim,
            block_tokens,
            dtype_k,
            dtype_v,
        } = shape;
        if [layers, kv_heads, head_dim, block_tokens].contains(&0)
            || !block_tokens.is_multiple_of(TILE_TOKENS)
        {
            return None;
        }
        let tile = |columns: usize, dtype: KvDtype| {
            columns
                .checked_mul(TILE_TOKENS * dtype.bytes())?
                .checked_next_multiple_of(PART_ALIGN)
        };
        let tile_bytes = [
            tile(head_dim, dtype_k)?,
            tile(head_dim.checked_next_multiple_of(LANES)?, dtype_v)?,
        ];
        let head_bytes = tile_bytes[0]
            .checked_add(tile_bytes[1])?
            .checked_mul(block_tokens / TILE_TOKENS)?;
        let block_bytes = head_bytes.checked_mul(kv_heads)?.checked_mul(layers)?;
        Some(Self {
            shape,
            tile_bytes,
            head_bytes,
            block_bytes,
            blocks_per_slab: 1,
            slab_bytes: block_bytes,
        })
    }

    /// The layout for a shape with its blocks in slabs of whole 2 MiB, so that the memory of a slab
    /// without blocks in use can be given back. The smallest slab that wastes at most a 64th of itself,
    /// up to 32 MiB; where there is none, the one that wastes the least share. `None` as for [`new`].
    ///
    /// [`new`]: Self::new
    pub fn in_slabs(shape: KvShape) -> Option<Self> {
        Self::in_slabs_of(shape, SLAB_UNIT)
    }

    /// As [`in_slabs`], in slabs of whole `unit`s of bytes, where memory goes back in smaller pieces.
    ///
    /// [`in_slabs`]: Self::in_slabs
    pub fn in_slabs_of(shape: KvShape, unit: usize) -> Option<Self> {
        let layout = Self::new(shape)?;
        let block = layout.block_bytes;
        let least = block.checked_next_multiple_of(unit)?;
        let mut best = (least, least - block);
        for slab in (least..=SLAB_MAX).step_by(unit) {
            let padding = slab % block;
            if padding <= slab / SLAB_PADDING {
                best = (slab, padding);
                break;
            }
            // Shares of slabs of at most 32 MiB: these products do not overflow.
            if padding * best.0 < best.1 * slab {
                best = (slab, padding);
            }
        }
        Some(Self {
            blocks_per_slab: u32::try_from(best.0 / block).ok()?,
            slab_bytes: best.0,
            ..layout
        })
    }

    /// What a block holds.
    pub fn shape(&self) -> KvShape {
        self.shape
    }

    /// Bytes of a block: all layers, K and V.
    pub fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    /// Blocks of a slab, at least one.
    pub fn blocks_per_slab(&self) -> u32 {
        self.blocks_per_slab
    }

    /// Bytes from one slab's start to the next one's: its blocks and what they leave unused.
    pub fn slab_bytes(&self) -> usize {
        self.slab_bytes
    }

    /// Where a block starts in the slab space.
    ///
    /// # Panics
    /// When that is beyond `usize`.
    #[inline]
    #[track_caller]
    pub fn block_offset(&self, block: u32) -> usize {
        let (slab, within) = (block / self.blocks_per_slab, block % self.blocks_per_slab);
        slab as usize * self.slab_bytes + within as usize * self.block_bytes
    }

    /// Bytes of a slab space of so many blocks, up to the end of the last one: the last slab may be
    /// shorter than the others. `None` when they exceed `usize`.
    pub fn bytes_for(&self, blocks: usize) -> Option<usize> {
        let per_slab = self.blocks_per_slab as usize;
        let whole = (blocks / per_slab).checked_mul(self.slab_bytes)?;
        match blocks % per_slab {
            // The last slab's padding holds nothing.
            0 if blocks > 0 => Some(whole - self.slab_bytes + per_slab * self.block_bytes),
            // At most a slab's bytes.
            rest => whole.checked_add(rest * self.block_bytes),
        }
    }

    /// Tokens of a block.
    pub fn block_tokens(&self) -> usize {
        self.shape.block_tokens
    }

    /// Columns of a stored V row: `head_dim` up to a multiple of 16.
    pub fn v_columns(&self) -> usize {
        self.shape.head_dim.next_multiple_of(LANES)
    }

    /// Where a head's K starts within a block.
    pub fn k_offset(&self, layer: usize, kv_head: usize) -> usize {
        (layer * self.shape.kv_heads + kv_head) * self.head_bytes
    }

    /// Where a head's V starts within a block.
    pub fn v_offset(&self, layer: usize, kv_head: usize) -> usize {
        self.k_offset(layer, kv_head) + self.tile_bytes[0] * (self.shape.block_tokens / TILE_TOKENS)
    }

    /// Bytes of one head's K tile of 16 tokens.
    pub fn k_tile_bytes(&self) -> usize {
        self.tile_bytes[0]
    }

    /// Bytes of one head's V tile of 16 tokens.
    pub fn v_tile_bytes(&self) -> usize {
        self.tile_bytes[1]
    }
}

/// One sequence's keys and values, as attention reads them.
#[derive(Copy, Clone, Debug)]
pub struct KvView<'a> {
    /// Where things lie within a block.
    pub layout: KvLayout,
    /// The slab space, its start aligned for the stored types; see [`KvLayout::block_offset`].
    pub bytes: &'a [u8],
    /// The sequence's blocks: token `t` lies in `blocks[t / block_tokens]`.
    pub blocks: &'a [u32],
    /// Tokens that are written, counted from the sequence's start.
    pub len: usize,
}

impl<'a> KvView<'a> {
    /// The bytes of a head's K and V tile, which holds tokens `16 tile ..`.
    ///
    /// # Panics
    /// When the table does not reach so far, or the bytes do not.
    #[inline]
    #[track_caller]
    pub(crate) fn tile(&self, layer: usize, kv_head: usize, tile: usize) -> [&'a [u8]; 2] {
        let per_block = self.layout.block_tokens() / TILE_TOKENS;
        let start = self.layout.block_offset(self.blocks[tile / per_block]);
        let block = &self.bytes[start..start + self.layout.block_bytes];
        let [k_bytes, v_bytes] = self.layout.tile_bytes;
        let within = tile % per_block;
        let k = self.layout.k_offset(layer, kv_head) + within * k_bytes;
        let v = self.layout.v_offset(layer, kv_head) + within * v_bytes;
        [&block[k..k + k_bytes], &block[v..v + v_bytes]]
    }
}

/// A stored element type.
pub(crate) trait Stored: bytemuck::Pod {
    fn load<L: Lanes>(l: L, from: &[Self; LANES]) -> L::V;
    fn narrow<L: Lanes>(l: L, v: L::V) -> [Self; LANES];
}

impl Stored for f32 {
    #[inline(always)]
    fn load<L: Lanes>(l: L, from: &Vec16) -> L::V {
        l.load(from)
    }
    #[inline(always)]
    fn narrow<L: Lanes>(l: L, v: L::V) -> Vec16 {
        let mut out = [0.0; LANES];
        l.store(v, &mut out);
        out
    }
}

impl Stored for f16 {
    #[inline(always)]
    fn load<L: Lanes>(l: L, from: &[f16; LANES]) -> L::V {
        l.load_f16(from)
    }
    #[inline(always)]
    fn narrow<L: Lanes>(l: L, v: L::V) -> [f16; LANES] {
        l.to_f16(v)
    }
}

impl Stored for bf16 {
    #[inline(always)]
    fn load<L: Lanes>(l: L, from: &[bf16; LANES]) -> L::V {
        l.load_bf16(from)
    }
    #[inline(always)]
    fn narrow<L: Lanes>(l: L, v: L::V) -> [bf16; LANES] {
        l.to_bf16(v)
    }
}

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
        }
    }
}

impl Write<'_> {
    #[inline(always)]
    fn write<L: Lanes, S: Stored>(self, l: L) {
        let layout = self.layout;
        let block_tokens = layout.block_tokens();
        for i in 0..self.rows.rows() {
            let pos = self.pos0 + i;
            let block = layout.block_offset(self.blocks[pos / block_tokens]);
            let (tile, place) = (pos % block_tokens / TILE_TOKENS, pos % TILE_TOKENS);
            for (head, row) in self
                .rows
                .row(i)
                .chunks_exact(layout.shape.head_dim)
                .enumerate()
            {
                let (part, tile_bytes) = if self.is_v {
                    (layout.v_offset(self.layer, head), layout.tile_bytes[1])
                } else {
                    (layout.k_offset(self.layer, head), layout.tile_bytes[0])
                };
                let start = block + part + tile * tile_bytes;
                let tile = &mut self.bytes[start..start + tile_bytes];
                let (tile, _) = bytemuck::cast_slice_mut::<u8, S>(tile).as_chunks_mut::<LANES>();
                if self.is_v {
                    let vectors = layout.v_columns() / LANES;
                    let stored = &mut tile[place * vectors..(place + 1) * vectors];
                    for (row, stored) in row.chunks(LANES).zip(stored) {
                        *stored = S::narrow(l, load_up_to(l, row));
                    }
                } else {
                    for (row, columns) in row.chunks(LANES).zip(tile.chunks_mut(LANES)) {
                        let values = S::narrow(l, load_up_to(l, row));
                        // The last columns may be fewer than 16.
                        for (value, column) in values.into_iter().zip(columns).take(row.len()) {
                            column[place] = value;
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
/// `blocks` the sequence's table, as in [`KvView`]. Values are rounded to nearest, ties to even; those
/// beyond an f16 become infinite.
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
