//! Layouts against what a layout must be.

use half::{bf16, f16};

use super::*;
use crate::isa::Isa;
use crate::mat::MatRef;
use crate::testing::Random;

const MIB: usize = 1 << 20;

fn shape(layers: usize, kv_heads: usize, head_dim: usize, block_tokens: usize) -> KvShape {
    KvShape {
        layers,
        kv_heads,
        head_dim,
        block_tokens,
        dtype_k: KvDtype::F16,
        dtype_v: KvDtype::F16,
    }
}

#[test]
fn slabs_of_known_models() {
    // layers, heads, columns, tokens; blocks and MiB of a slab.
    for (of, blocks, mib) in [
        ((28, 8, 128, 16), 8, 14),
        ((24, 2, 64, 16), 21, 4),
        ((2, 1, 32, 16), 512, 2),
        ((80, 8, 128, 64), 1, 20),
        ((126, 8, 128, 64), 1, 32),
    ] {
        let layout = KvLayout::in_slabs(shape(of.0, of.1, of.2, of.3)).expect("a layout");
        let found = (layout.blocks_per_slab(), layout.slab_bytes());
        assert_eq!(found, (blocks, mib * MIB), "{of:?}");
    }
}

#[test]
fn slabs_hold_whole_blocks_apart() {
    for layers in [1, 2, 5, 7, 22, 28, 36, 61, 80, 400] {
        for kv_heads in [1, 2, 3, 8] {
            for head_dim in [1, 24, 64, 80, 128, 256] {
                for block_tokens in [16, 32, 48, 64] {
                    let shape = shape(layers, kv_heads, head_dim, block_tokens);
                    let layout = KvLayout::in_slabs(shape).expect("a layout");
                    let dense = KvLayout::new(shape).expect("a layout");
                    let (block, slab) = (layout.block_bytes(), layout.slab_bytes());
                    let per_slab = layout.blocks_per_slab();
                    assert_eq!(block, dense.block_bytes());
                    assert_eq!(slab % (2 * MIB), 0);
                    assert_eq!(per_slab as usize, slab / block, "as many as fit");
                    assert!(slab <= (32 * MIB).max(block.next_multiple_of(2 * MIB)));
                    let padding = slab - per_slab as usize * block;
                    assert!(padding <= slab / 8, "{shape:?} wastes {padding} of {slab}");
                    let mut end = 0;
                    for count in 0..2 * per_slab.min(600) + 3 {
                        assert_eq!(layout.bytes_for(count as usize), Some(end));
                        assert_eq!(
                            dense.bytes_for(count as usize),
                            Some(count as usize * block)
                        );
                        let start = layout.block_offset(count);
                        assert!(start >= end && start - end <= padding);
                        assert_eq!(start / slab, (start + block - 1) / slab, "within a slab");
                        assert_eq!(dense.block_offset(count), count as usize * block);
                        end = start + block;
                    }
                }
            }
        }
    }
}

#[test]
fn bytes_beyond_the_machine_are_refused() {
    let layout = KvLayout::in_slabs(shape(28, 8, 128, 16)).expect("a layout");
    assert_eq!(layout.bytes_for(usize::MAX), None);
    assert_eq!(
        layout.bytes_for(usize::MAX / layout.block_bytes() + 1),
        None
    );
    assert!(layout.bytes_for(u32::MAX as usize).is_some());
    assert_eq!(
        KvLayout::in_slabs(shape(usize::MAX >> 13, 1, 128, 16)),
        None
    );
}

/// A stored value, found by the picture at the top of the file.
fn read(view: KvView<'_>, [layer, head, position, column]: [usize; 4], is_v: bool) -> f32 {
    let shape = view.layout.shape();
    let block_tokens = shape.block_tokens;
    let block = view
        .layout
        .block_offset(view.blocks[position / block_tokens]);
    let (dtype, columns, part, tile_bytes) = if is_v {
        let part = view.layout.v_offset(layer, head);
        let columns = shape.head_dim.next_multiple_of(16);
        (shape.dtype_v, columns, part, view.layout.v_tile_bytes())
    } else {
        let part = view.layout.k_offset(layer, head);
        (
            shape.dtype_k,
            shape.head_dim,
            part,
            view.layout.k_tile_bytes(),
        )
    };
    let (tile, token) = (position % block_tokens / 16, position % 16);
    let start = block + part + tile * tile_bytes;
    let tile = &view.bytes[start..start + tile_bytes];
    let place = if is_v {
        token * columns + column
    } else {
        column * 16 + token
    };
    let half = |place: usize| [tile[2 * place], tile[2 * place + 1]];
    match dtype {
        KvDtype::F32 => {
            f32::from_le_bytes(tile[4 * place..4 * place + 4].try_into().expect("four"))
        }
        KvDtype::F16 => f16::from_le_bytes(half(place)).to_f32(),
        KvDtype::BF16 => bf16::from_le_bytes(half(place)).to_f32(),
        KvDtype::Q8_0 => {
            let at = 16 * columns + 2 * (column / 32 * 16 + token);
            let scale = f16::from_le_bytes([tile[at], tile[at + 1]]);
            f32::from(tile[place] as i8) * scale.to_f32()
        }
    }
}

#[test]
fn what_is_written_is_read() {
    let mut random = Random::new(1);
    for dtype_k in KvDtype::ALL {
        for dtype_v in KvDtype::ALL {
            for (kv_heads, head_dim, block_tokens) in [(2, 40, 16), (1, 64, 32), (3, 17, 48)] {
                let shape = KvShape {
                    layers: 2,
                    kv_heads,
                    head_dim,
                    block_tokens,
                    dtype_k,
                    dtype_v,
                };
                let layout = KvLayout::new(shape).expect("a layout");
                let blocks = [3, 0, 4, 1, 2];
                let len = 70;
                let columns = kv_heads * head_dim;
                // Magnitudes over many binades.
                let mut values = random.units(len * columns);
                for (i, x) in values.iter_mut().enumerate() {
                    *x *= 2.0_f32.powi((i / 7 % 34) as i32 - 20);
                }
                let rows = MatRef::dense(&values, len, columns);
                let words = layout.bytes_for(5).expect("some") / 4;
                let mut words = vec![f32::NAN; words];
                let mut start = 0;
                // In pieces that end within tiles.
                for end in [1, 15, 16, 33, 64, len] {
                    let rows = rows.rows_in(start..end);
                    let bytes = bytemuck::cast_slice_mut(&mut words);
                    kv_write(Isa::best(), layout, bytes, &blocks, 1, start, rows, rows);
                    start = end;
                }
                let view = KvView {
                    layout,
                    bytes: bytemuck::cast_slice(&words),
                    blocks: &blocks,
                    len,
                };
                for position in 0..len {
                    for column in 0..columns {
                        let (head, column) = (column / head_dim, column % head_dim);
                        let row = &rows.row(position)[head * head_dim..][..head_dim];
                        for (dtype, is_v) in [(dtype_k, false), (dtype_v, true)] {
                            let found = read(view, [1, head, position, column], is_v);
                            let (x, within) = (row[column], tolerance(row, column, dtype));
                            assert!(
                                (f64::from(found) - f64::from(x)).abs() <= within,
                                "{dtype:?} {shape:?} at {position}, {column}: {found}, not {x}"
                            );
                        }
                    }
                }
            }
        }
    }
}

/// How far what is stored may be from a row's column.
fn tolerance(row: &[f32], column: usize, dtype: KvDtype) -> f64 {
    let magnitude = f64::from(row[column].abs());
    match dtype {
        KvDtype::F32 => 0.0,
        // Half a step of the last place, or of the smallest number.
        KvDtype::F16 => magnitude / 2048.0 + 0.5_f64.powi(25),
        KvDtype::BF16 => magnitude / 256.0,
        KvDtype::Q8_0 => {
            let group = row.chunks(32).nth(column / 32).expect("a group");
            let largest = group.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
            // Half of an integer step; the scale is rounded too, which in a small one is a larger share.
            f64::from(largest) / 253.5 + 127.0 * 0.5_f64.powi(25)
        }
    }
}

#[test]
fn what_is_no_number_is_not_hidden_by_a_scale() {
    let layout = KvLayout::new(KvShape {
        dtype_k: KvDtype::Q8_0,
        dtype_v: KvDtype::Q8_0,
        ..shape(1, 1, 96, 16)
    })
    .expect("a layout");
    for &isa in Isa::available() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, 1e9, -f32::MAX] {
            for at in [0, 15, 16, 31] {
                let mut row = [1.0; 96];
                // The second group; the third is too small to be told from 0.
                row[32 + at] = bad;
                row[64..].fill(1e-7);
                let row = MatRef::dense(&row, 1, 96);
                let mut words = vec![0_u64; layout.block_bytes() / 8];
                let bytes = bytemuck::cast_slice_mut(&mut words);
                kv_write(isa, layout, bytes, &[0], 0, 5, row, row);
                let view = KvView {
                    layout,
                    bytes: bytemuck::cast_slice(&words),
                    blocks: &[0],
                    len: 6,
                };
                for is_v in [false, true] {
                    let read = |column| read(view, [0, 0, 5, column], is_v);
                    // 1 / 127 is no f16.
                    assert!((read(0) - 1.0).abs() < 5e-4);
                    assert!(
                        (32..64).all(|column| read(column).is_nan()),
                        "{bad} at {at}"
                    );
                    assert!((64..96).all(|column| read(column) == 0.0));
                }
            }
        }
    }
}
