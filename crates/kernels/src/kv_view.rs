//! Keys and values in blocks of tokens: where each lies, how they are written, what attention reads.
//!
//! ```text
//! slab space   [ slab: block 0 | block 1 | ... | pad ][ slab ] ...       see `KvLayout::block_offset`
//! block        [ layer 0 ][ layer 1 ] ...                       so that a block moves as one piece
//! layer        [ head 0 K | head 0 V ][ head 1 K | head 1 V ] ...
//! K            [ tile ][ tile ] ...     tile = [head_dim][16 tokens]          lanes are tokens
//! V            [ tile ][ tile ] ...     tile = [16 tokens][head_dim up to 16s] lanes are columns
//! scales       behind a q8_0 tile's values: [head_dim / 32, rounded up][16 tokens], of K and of V
//! ```
//!
//! A query's products with a K tile and the sum of a V tile's rows then both run down memory with a whole
//! vector at a time, whatever the head's size: rows of V are padded to a multiple of 16 columns, and a K
//! row of 16 tokens is a vector by construction. Every part starts at a multiple of 64 bytes.

mod stored;
#[cfg(test)]
mod tests;
mod write;

use crate::lanes::LANES;

pub(crate) use stored::{Q8, Stored, Tile};
pub use write::kv_write;

/// Tokens of a tile, the unit in which blocks are made and attention proceeds.
pub const TILE_TOKENS: usize = LANES;

/// Columns that share a scale, where there are scales.
const GROUP_COLUMNS: usize = 32;

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
    /// 8-bit integers, and a 16-bit float by which 32 of them are multiplied: neighbouring columns of
    /// one token and head, from a multiple of 32 on. See [`kv_write`] for how they are chosen.
    Q8_0,
}

impl KvDtype {
    /// All of them, the most exact one first.
    pub const ALL: [Self; 4] = [Self::F32, Self::F16, Self::BF16, Self::Q8_0];

    /// The name that users type: `f32`, `f16`, `bf16`, `q8_0`.
    pub const fn name(self) -> &'static str {
        match self {
            KvDtype::F32 => "f32",
            KvDtype::F16 => "f16",
            KvDtype::BF16 => "bf16",
            KvDtype::Q8_0 => "q8_0",
        }
    }

    /// The dtype of that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dtype| dtype.name() == name)
    }

    /// Bytes of a tile of 16 tokens and so many columns.
    fn tile_bytes(self, columns: usize) -> Option<usize> {
        let of_column = match self {
            KvDtype::F32 => 4,
            KvDtype::F16 | KvDtype::BF16 => 2,
            KvDtype::Q8_0 => 1,
        };
        let of_group = match self {
            KvDtype::Q8_0 => 2,
            _ => 0,
        };
        let values = columns.checked_mul(of_column * TILE_TOKENS)?;
        values
            .checked_add(columns.div_ceil(GROUP_COLUMNS) * (of_group * TILE_TOKENS))?
            .checked_next_multiple_of(PART_ALIGN)
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
        let tile_bytes = [
            dtype_k.tile_bytes(head_dim)?,
            dtype_v.tile_bytes(head_dim.checked_next_multiple_of(LANES)?)?,
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
