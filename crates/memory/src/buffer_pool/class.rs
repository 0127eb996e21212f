//! Size classes, and by what else buffers are told apart.
//!
//! ```text
//! class   0    1    2  |  3    4    5    6  |  7    8    9   10  | ...
//! bytes  64  128  192  | 256  320  384  448 | 512  640  768  896 | ...     four per doubling
//! ```
//!
//! A block is at most a quarter longer than the ask (and 63 bytes, for the shortest), so that a block
//! of the next three classes is still less than twice as long.

use bytemuck::Pod;

/// Classes there are: up to 64 MiB. What is longer is not kept.
pub(crate) const CLASSES: usize = 76;

/// Bytes of the shortest class, of which all are multiples.
const GRANULE: usize = 64;
/// Classes below 256 bytes, one per granule.
const SHORT: usize = 3;

/// Bytes of a class.
pub(crate) const fn class_bytes(class: usize) -> usize {
    if class < SHORT {
        return GRANULE * (class + 1);
    }
    let (octave, quarter) = ((class - SHORT) / 4, (class - SHORT) % 4);
    (4 + quarter) << (octave + 6)
}

/// The class of an ask of `len` bytes: the first that is as long. `None` where none is.
#[inline]
pub(crate) const fn class_of(len: usize) -> Option<usize> {
    let last = len.saturating_sub(1);
    if last < GRANULE * SHORT {
        return Some(last / GRANULE);
    }
    if last < 256 {
        return Some(SHORT);
    }
    let log2 = last.ilog2() as usize;
    let class = SHORT + (log2 - 8) * 4 + ((last >> (log2 - 2)) & 3) + 1;
    if class < CLASSES { Some(class) } else { None }
}

/// Whether a block of that class may serve an ask of `len` bytes: as long, and less than twice as long,
/// or the shortest there is.
#[inline]
pub(crate) const fn serves(class: usize, len: usize) -> bool {
    let bytes = class_bytes(class);
    bytes >= len && (bytes / 2 < len || bytes == GRANULE)
}

/// What a buffer's elements are.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// Bytes of no certain meaning.
    #[default]
    U8,
    /// 16 bits: half-precision numbers as they are stored.
    U16,
    /// 32-bit whole numbers, such as tokens.
    U32,
    /// 32-bit numbers.
    F32,
}

/// How many there are.
pub(crate) const DTYPES: usize = 4;

impl Dtype {
    /// All of them.
    pub const ALL: [Dtype; DTYPES] = [Dtype::U8, Dtype::U16, Dtype::U32, Dtype::F32];

    /// The word as it appears in reports: `f32`.
    pub const fn name(self) -> &'static str {
        match self {
            Dtype::U8 => "u8",
            Dtype::U16 => "u16",
            Dtype::U32 => "u32",
            Dtype::F32 => "f32",
        }
    }
}

/// What a typed buffer can be made of.
pub trait Element: Pod {
    /// Its name.
    const DTYPE: Dtype;
}

impl Element for u8 {
    const DTYPE: Dtype = Dtype::U8;
}

impl Element for u16 {
    const DTYPE: Dtype = Dtype::U16;
}

impl Element for u32 {
    const DTYPE: Dtype = Dtype::U32;
}

impl Element for f32 {
    const DTYPE: Dtype = Dtype::F32;
}

/// By what blocks are kept apart. The third part of the key, the device, is which pool it is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) class: u8,
    pub(crate) dtype: Dtype,
}

impl Key {
    /// The key of an ask, where blocks of its length are kept.
    #[inline]
    pub(crate) fn of(len: usize, dtype: Dtype) -> Option<Key> {
        let class = class_of(len)? as u8;
        Some(Key { class, dtype })
    }

    /// All of them.
    pub(crate) fn all() -> impl Iterator<Item = Key> {
        let of = |dtype| (0..CLASSES as u8).map(move |class| Key { class, dtype });
        Dtype::ALL.into_iter().flat_map(of)
    }

    /// Its place among all keys.
    #[inline]
    pub(crate) fn index(self) -> usize {
        self.dtype as usize * CLASSES + self.class as usize
    }

    /// How long its blocks are.
    pub(crate) fn bytes(self) -> usize {
        class_bytes(self.class as usize)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_the_first_as_long_as_the_ask() {
        let mut last = 0;
        for class in 0..CLASSES {
            let bytes = class_bytes(class);
            assert!(bytes > last && bytes.is_multiple_of(GRANULE));
            assert!(class < SHORT + 1 || bytes - last <= last / 4);
            assert_eq!(class_of(last + 1), Some(class));
            assert_eq!(class_of(bytes), Some(class));
            last = bytes;
        }
        assert_eq!((last, class_of(0)), (64 << 20, Some(0)));
        assert_eq!(class_of(last + 1), None);
        assert_eq!(class_of(usize::MAX), None);
    }

    /// A1
    #[test]
    fn a_block_serves_what_is_more_than_half_as_long() {
        for len in (1..5000).chain([1 << 20, (1 << 20) + 1, 3 << 20]) {
            let own = class_of(len).unwrap();
            assert!(serves(own, len), "{len}");
            for class in 0..CLASSES {
                let bytes = class_bytes(class);
                let fair = bytes >= len && (bytes < 2 * len || class == 0);
                assert_eq!(serves(class, len), fair, "{bytes} for {len}");
            }
        }
    }
}
