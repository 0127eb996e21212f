//! Layouts against what a layout must be.

use super::*;

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
