//! A buffer: memory of a pool that goes back to it when dropped, and grows like a `Vec`.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::sync::Arc;

use crate::account::Lifetime;
use crate::buffer_pool::block::Block;
use crate::buffer_pool::class::{Dtype, Element};
use crate::buffer_pool::shared::Shared;
use crate::source::PoolError;

/// Bytes of a pool, given back when dropped.
///
/// A new one holds whatever its memory held before: write before you read, or ask for zeros.
pub struct Buffer {
    /// `None` only while it is dropped.
    block: Option<Box<Block>>,
    /// At most the block's.
    len: usize,
    lifetime: Lifetime,
}

impl Buffer {
    #[inline]
    pub(crate) fn new(block: Box<Block>, len: usize, lifetime: Lifetime) -> Buffer {
        Buffer {
            block: Some(block),
            len,
            lifetime,
        }
    }

    /// Bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Bytes it may have without moving.
    pub fn capacity(&self) -> usize {
        self.block.as_ref().map_or(0, |block| block.span.len())
    }

    /// How long it was said to live.
    pub fn lifetime(&self) -> Lifetime {
        self.lifetime
    }

    /// Leaves it with the first `len` bytes, if it has more.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(len);
    }

    /// Leaves it without bytes, and with its capacity.
    pub fn clear(&mut self) {
        self.len = 0;
    }

    /// Makes room for `more` bytes, moving into a longer block where it has to: at least half as long
    /// again, so that growing step by step copies each byte a few times at most.
    ///
    /// # Errors
    /// Where the pool has no longer block and cannot get one; the buffer is as it was.
    #[track_caller]
    pub fn reserve(&mut self, more: usize) -> Result<(), PoolError> {
        let too_large = || PoolError::TooLarge {
            what: format!("{} and {more} bytes", self.len),
        };
        let needed = self.len.checked_add(more).ok_or_else(too_large)?;
        let capacity = self.capacity();
        if needed <= capacity {
            return Ok(());
        }
        self.move_to(needed.max(capacity + capacity / 2), Location::caller())
    }

    #[cold]
    fn move_to(&mut self, len: usize, place: &'static Location<'static>) -> Result<(), PoolError> {
        let block = self.block.as_ref().ok_or(PoolError::Closed)?;
        let dtype = block.key().map_or(Dtype::U8, |key| key.dtype);
        let mut longer = block.home.acquire(len, dtype, self.lifetime, place)?;
        longer.len = self.len;
        longer.copy_from_slice(self);
        *self = longer;
        Ok(())
    }

    /// Adds bytes at the end.
    ///
    /// # Errors
    /// As [`Buffer::reserve`].
    #[track_caller]
    pub fn extend_from_slice(&mut self, bytes: &[u8]) -> Result<(), PoolError> {
        self.reserve(bytes.len())?;
        let start = self.len;
        self.len += bytes.len();
        self[start..].copy_from_slice(bytes);
        Ok(())
    }

    /// Makes it `len` bytes long; new ones are `value`.
    ///
    /// # Errors
    /// As [`Buffer::reserve`].
    #[track_caller]
    pub fn resize(&mut self, len: usize, value: u8) -> Result<(), PoolError> {
        let start = self.len;
        self.reserve(len.saturating_sub(start))?;
        self.len = len;
        if let Some(new) = self.get_mut(start..) {
            new.fill(value);
        }
        Ok(())
    }
}

impl Drop for Buffer {
    #[inline]
    fn drop(&mut self) {
        if let Some(block) = self.block.take() {
            Shared::release(block);
        }
    }
}

impl Deref for Buffer {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.block
            .as_ref()
            .map_or(&[], |block| &block.span[..self.len])
    }
}

impl DerefMut for Buffer {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        let len = self.len;
        self.block
            .as_mut()
            .map_or(&mut [], |block| &mut block.span[..len])
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for Buffer {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

/// Adds at the end; a refusal is an error of the kind `OutOfMemory`, with the whole message.
impl io::Write for Buffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.extend_from_slice(bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::OutOfMemory, error))?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Debug for Buffer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buffer({} of {} bytes)", self.len, self.capacity())
    }
}

/// Up to four dimensions, outermost first.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    dims: [usize; 4],
    rank: usize,
}

macro_rules! shapes {
    ($($rank:literal)*) => {$(
        impl From<[usize; $rank]> for Shape {
            fn from(given: [usize; $rank]) -> Shape {
                let mut dims = [1; 4];
                dims[..$rank].copy_from_slice(&given);
                Shape { dims, rank: $rank }
            }
        }
    )*};
}

shapes!(1 2 3 4);

impl Shape {
    /// The dimensions.
    pub fn dims(&self) -> &[usize] {
        &self.dims[..self.rank]
    }

    /// Bytes of so many elements of `size` bytes.
    pub(crate) fn bytes(&self, size: usize) -> Result<usize, PoolError> {
        self.dims
            .iter()
            .try_fold(size, |bytes, dim| bytes.checked_mul(*dim))
            .ok_or_else(|| PoolError::TooLarge {
                what: format!("{:?} elements of {size} bytes", self.dims()),
            })
    }
}

/// Elements of a pool in a shape, given back when dropped. A new one holds whatever its memory held
/// before.
pub struct TypedBuffer<T> {
    bytes: Buffer,
    shape: Shape,
    elements: PhantomData<T>,
}

impl<T: Element> TypedBuffer<T> {
    pub(crate) fn acquire(
        home: &Arc<Shared>,
        shape: Shape,
        lifetime: Lifetime,
        place: &'static Location<'static>,
    ) -> Result<TypedBuffer<T>, PoolError> {
        let len = shape.bytes(size_of::<T>())?;
        Ok(TypedBuffer {
            bytes: home.acquire(len, T::DTYPE, lifetime, place)?,
            shape,
            elements: PhantomData,
        })
    }

    /// Its dimensions, outermost first.
    pub fn shape(&self) -> &[usize] {
        self.shape.dims()
    }

    /// The bytes behind it.
    pub fn into_bytes(self) -> Buffer {
        self.bytes
    }
}

impl<T: Element> Deref for TypedBuffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // Spans are aligned beyond any element, and the length is of whole ones.
        bytemuck::cast_slice(&self.bytes)
    }
}

impl<T: Element> DerefMut for TypedBuffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.bytes)
    }
}

impl<T: Element> fmt::Debug for TypedBuffer<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TypedBuffer({} {:?})", T::DTYPE.name(), self.shape())
    }
}
