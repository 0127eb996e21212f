//! The packed vocabulary: one buffer with every token's bytes, and a hash from bytes to id that
//! stores ids only.
//!
//! A token costs its bytes, four bytes of end offset and about seven bytes of hash slot; the
//! string itself is stored once. A map of owned strings in both directions costs over a hundred.

use crate::error::TokenizerError;
use crate::hash::hash_bytes;

/// Ids are below this: a hash slot keeps 24 bits of id beside 8 bits of hash.
pub(crate) const IDS_MAX: usize = (1 << 24) - 1;

/// Collects tokens in any order of ids, then packs them.
#[derive(Debug, Default)]
pub(crate) struct VocabBuilder {
    bytes: Vec<u8>,
    // (id, start, end) in `bytes`, in order of arrival.
    entries: Vec<Entry>,
}

#[derive(Clone, Copy, Debug)]
struct Entry {
    id: u32,
    start: u32,
    len: u32,
    findable: bool,
}

impl VocabBuilder {
    pub(crate) fn with_capacity(tokens: usize, bytes: usize) -> VocabBuilder {
        VocabBuilder {
            bytes: Vec::with_capacity(bytes),
            entries: Vec::with_capacity(tokens),
        }
    }

    /// Adds token `id`. A token that is not `findable` has bytes, but no text becomes it.
    pub(crate) fn push(
        &mut self,
        id: u32,
        bytes: &[u8],
        findable: bool,
    ) -> Result<(), TokenizerError> {
        if id as usize >= IDS_MAX {
            return Err(TokenizerError::TooLarge {
                what: "a token id",
                got: u64::from(id),
                limit: IDS_MAX as u64 - 1,
            });
        }
        let too_long = |got: usize| TokenizerError::TooLarge {
            what: "the vocabulary's text in bytes",
            got: got as u64,
            limit: u64::from(u32::MAX),
        };
        let start = u32::try_from(self.bytes.len()).map_err(|_| too_long(self.bytes.len()))?;
        let end = self.bytes.len().saturating_add(bytes.len());
        u32::try_from(end).map_err(|_| too_long(end))?;
        let len = u32::try_from(bytes.len()).map_err(|_| too_long(bytes.len()))?;
        self.bytes.extend_from_slice(bytes);
        self.entries.push(Entry {
            id,
            start,
            len,
            findable,
        });
        Ok(())
    }

    pub(crate) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Packs the tokens. Ids without a token are holes, which decode to nothing.
    ///
    /// An id given twice keeps its last bytes. Of two findable tokens with equal bytes, the one
    /// with the higher id is found, as in a map filled in order of ids.
    pub(crate) fn build(mut self) -> Result<Vocab, TokenizerError> {
        // A stable sort keeps the order of arrival among equal ids.
        self.entries.sort_by_key(|entry| entry.id);
        let ids = self.entries.last().map_or(0, |entry| entry.id as usize + 1);
        // A file may not make us allocate for ids that it does not have.
        let ids_max = self.entries.len().saturating_mul(8).saturating_add(65_536);
        if ids > ids_max {
            return Err(TokenizerError::TooLarge {
                what: "the highest token id, for so few tokens,",
                got: ids as u64 - 1,
                limit: ids_max as u64 - 1,
            });
        }
        let mut bytes = Vec::with_capacity(self.bytes.len());
        let mut ends = Vec::with_capacity(ids);
        let slot_count = (self.entries.len() * 8 / 5).max(8);
        let mut slots = vec![EMPTY; slot_count].into_boxed_slice();
        let mut entries = self.entries.iter().peekable();
        while let Some(entry) = entries.next() {
            if entries.peek().is_some_and(|next| next.id == entry.id) {
                continue;
            }
            let at = entry.start as usize;
            let token = &self.bytes[at..at + entry.len as usize];
            // Holes below this id end where the previous token ended.
            ends.resize(entry.id as usize, bytes.len() as u32);
            bytes.extend_from_slice(token);
            ends.push(bytes.len() as u32);
            if entry.findable && !token.is_empty() {
                let (mut at, tag) = place(token, slot_count);
                loop {
                    let slot = slots[at];
                    if slot == EMPTY {
                        break;
                    }
                    if slot >> 24 == tag && span(&bytes, &ends, slot & ID_MASK) == token {
                        break;
                    }
                    at = if at + 1 == slot_count { 0 } else { at + 1 };
                }
                slots[at] = tag << 24 | entry.id;
            }
        }
        let longest = (0..ends.len())
            .map(|id| span(&bytes, &ends, id as u32).len())
            .max();
        Ok(Vocab {
            bytes: bytes.into_boxed_slice(),
            ends: ends.into_boxed_slice(),
            slots,
            longest: longest.unwrap_or(0),
        })
    }
}

const ID_MASK: u32 = 0x00ff_ffff;
// No id reaches 2^24 - 1, so no slot in use looks like this.
const EMPTY: u32 = u32::MAX;

/// Where a token's search starts, and its tag of 8 bits.
fn place(token: &[u8], slot_count: usize) -> (usize, u32) {
    let hash = hash_bytes(token);
    // The high half of a product spreads a 32-bit hash over any count of slots.
    let at = ((hash >> 32) * slot_count as u64) >> 32;
    (at as usize, hash as u32 & 0xff)
}

fn span<'a>(bytes: &'a [u8], ends: &[u32], id: u32) -> &'a [u8] {
    let id = id as usize;
    let start = if id == 0 { 0 } else { ends[id - 1] as usize };
    &bytes[start..ends[id] as usize]
}

/// Every token's bytes by id, and the id by bytes.
#[derive(Debug)]
pub(crate) struct Vocab {
    bytes: Box<[u8]>,
    // Exclusive end of each token in `bytes`; its start is its predecessor's end.
    ends: Box<[u32]>,
    // Open addressing with linear probing: 8 bits of hash, 24 bits of id.
    slots: Box<[u32]>,
    longest: usize,
}

impl Vocab {
    /// One more than the highest id.
    pub(crate) fn len(&self) -> usize {
        self.ends.len()
    }

    /// Bytes of the longest token.
    pub(crate) fn longest(&self) -> usize {
        self.longest
    }

    /// A token's bytes; none for a hole or an id past the end.
    pub(crate) fn bytes(&self, id: u32) -> &[u8] {
        if (id as usize) < self.ends.len() {
            span(&self.bytes, &self.ends, id)
        } else {
            &[]
        }
    }

    /// The id of the token with exactly these bytes.
    #[inline]
    pub(crate) fn find(&self, token: &[u8]) -> Option<u32> {
        if token.len() > self.longest {
            return None;
        }
        let (mut at, tag) = place(token, self.slots.len());
        loop {
            let slot = self.slots[at];
            if slot == EMPTY {
                return None;
            }
            if slot >> 24 == tag && span(&self.bytes, &self.ends, slot & ID_MASK) == token {
                return Some(slot & ID_MASK);
            }
            at = if at + 1 == self.slots.len() {
                0
            } else {
                at + 1
            };
        }
    }

    pub(crate) fn heap_bytes(&self) -> usize {
        self.bytes.len() + (self.ends.len() + self.slots.len()) * size_of::<u32>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_in_any_order_are_found_and_holes_are_empty() {
        let mut builder = VocabBuilder::default();
        builder.push(5, b"five", true).unwrap();
        builder.push(0, b"zero", true).unwrap();
        builder.push(2, "zw\u{f6}lf".as_bytes(), false).unwrap();
        let vocab = builder.build().unwrap();
        assert_eq!(vocab.len(), 6);
        assert_eq!(vocab.bytes(5), b"five");
        assert_eq!(vocab.bytes(0), b"zero");
        assert_eq!(vocab.bytes(1), b"");
        assert_eq!(vocab.bytes(4), b"");
        assert_eq!(vocab.bytes(6), b"");
        assert_eq!(vocab.find(b"five"), Some(5));
        assert_eq!(vocab.find(b"zero"), Some(0));
        assert_eq!(vocab.find("zw\u{f6}lf".as_bytes()), None);
        assert_eq!(vocab.find(b""), None);
    }

    #[test]
    fn a_lone_huge_id_is_refused_before_anything_is_allocated() {
        let mut builder = VocabBuilder::default();
        builder.push(9_000_000, b"x", true).unwrap();
        assert!(matches!(
            builder.build(),
            Err(TokenizerError::TooLarge { .. })
        ));
        assert!(VocabBuilder::default().push(1 << 24, b"x", true).is_err());
    }

    #[test]
    fn every_one_of_many_tokens_is_found() {
        let mut builder = VocabBuilder::default();
        for id in 0..5000_u32 {
            builder.push(id, format!("t{id}").as_bytes(), true).unwrap();
        }
        let vocab = builder.build().unwrap();
        for id in 0..5000_u32 {
            assert_eq!(vocab.find(format!("t{id}").as_bytes()), Some(id));
        }
        assert_eq!(vocab.find(b"t5000"), None);
    }
}
