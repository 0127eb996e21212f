//! The memory that what belongs to one request lies in: a pool's, where there are pools, or the heap's.

use std::ops::{Deref, DerefMut};

use bursar_memory::buffer_pool::Buffer;
use bursar_memory::{Lifetime, PoolError, Pools};

/// Memory of a request.
#[derive(Debug)]
pub(crate) enum Ground {
    /// Of the heap; words of eight bytes, so that any element may lie there.
    Heap(Box<[u64]>),
    /// Of a pool, which charges it.
    Pooled(Buffer),
}

impl Ground {
    /// At least `len` bytes of the heap, all 0.
    pub(crate) fn on_heap(len: usize) -> Self {
        Self::Heap(vec![0; len.div_ceil(size_of::<u64>())].into_boxed_slice())
    }

    /// `len` bytes of these pools, whatever is in them.
    ///
    /// # Errors
    /// Where they have no memory.
    #[track_caller]
    pub(crate) fn pooled(len: usize, pools: &Pools) -> Result<Self, PoolError> {
        let buffer = pools.buffers().acquire(len, Lifetime::Episodic)?;
        Ok(Self::Pooled(buffer))
    }
}

impl Default for Ground {
    fn default() -> Self {
        Self::Heap(Box::default())
    }
}

impl Deref for Ground {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Ground::Heap(words) => bytemuck::cast_slice(words),
            Ground::Pooled(buffer) => buffer,
        }
    }
}

impl DerefMut for Ground {
    fn deref_mut(&mut self) -> &mut [u8] {
        match self {
            Ground::Heap(words) => bytemuck::cast_slice_mut(words),
            Ground::Pooled(buffer) => buffer,
        }
    }
}
