//! What a block stores, as 32 bytes, and the index that finds the block that stores it.
//!
//! The key of a block follows from everything that its contents follow from: what computes them (the
//! *fingerprint*), whose they are (the *salt*), all tokens before it (the *parent's* key) and its own.
//! A collision would be a wrong answer, so it is a keyed BLAKE3: nobody finds two chains with one key,
//! and who does not know the salt cannot tell a key. (BLAKE3: O'Connor, Aumasson, Neves,
//! Wilcox-O'Hearn, 2020.)

use std::fmt;

use crate::blocks::BlockId;
use crate::list::NONE;

/// What a block stores.
#[derive(Copy, Clone, PartialEq, Eq, Hash)]
pub struct BlockKey(pub [u8; 32]);

impl fmt::Debug for BlockKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, ..] = self.0;
        write!(f, "BlockKey({a:02x}{b:02x}{c:02x}{d:02x}..)")
    }
}

/// Makes the keys of one owner's blocks, as one program computes them.
#[derive(Clone)]
pub struct PrefixHasher {
    key: [u8; 32],
}

impl fmt::Debug for PrefixHasher {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key is as secret as the salt.
        f.write_str("PrefixHasher(..)")
    }
}

/// Tokens that are turned to bytes at a time.
const TOKENS_AT_ONCE: usize = 64;

impl PrefixHasher {
    /// For contents that `fingerprint` computes and only those with the same `salt` may share.
    pub fn new(fingerprint: &[u8; 32], salt: &[u8; 32]) -> Self {
        Self {
            key: *blake3::keyed_hash(salt, fingerprint).as_bytes(),
        }
    }

    /// The key of a sequence's first tokens.
    pub fn first(&self, tokens: &[u32]) -> BlockKey {
        self.hash(None, tokens)
    }

    /// The key of the tokens that follow those of `parent`.
    pub fn next(&self, parent: &BlockKey, tokens: &[u32]) -> BlockKey {
        self.hash(Some(parent), tokens)
    }

    fn hash(&self, parent: Option<&BlockKey>, tokens: &[u32]) -> BlockKey {
        let mut hasher = blake3::Hasher::new_keyed(&self.key);
        // Neither a parent nor a number of tokens can be taken for another: the first byte tells
        // whether there is a parent, a parent is 32 bytes, and each token is four.
        hasher.update(&[u8::from(parent.is_some())]);
        if let Some(BlockKey(parent)) = parent {
            hasher.update(parent);
        }
        let mut bytes = [0; TOKENS_AT_ONCE * 4];
        for tokens in tokens.chunks(TOKENS_AT_ONCE) {
            let bytes = &mut bytes[..tokens.len() * 4];
            for (token, bytes) in tokens.iter().zip(bytes.chunks_exact_mut(4)) {
                bytes.copy_from_slice(&token.to_le_bytes());
            }
            hasher.update(bytes);
        }
        BlockKey(*hasher.finalize().as_bytes())
    }
}

/// Finds blocks by their keys: open addressing with linear probing, made for all blocks at once, so
/// that it never grows.
#[derive(Debug)]
pub(crate) struct PrefixIndex {
    /// The key of each block that is in the index.
    keys: Box<[BlockKey]>,
    /// A block, or `NONE`. Each is at its key's home or behind it, with no gap between.
    slots: Box<[u32]>,
}

impl PrefixIndex {
    /// Slots for each block: at most half are taken, so that searches stay short.
    const SLOTS_PER_BLOCK: usize = 2;

    pub(crate) fn new(blocks: u32) -> Self {
        Self {
            keys: vec![BlockKey([0; 32]); blocks as usize].into(),
            slots: vec![NONE; blocks as usize * Self::SLOTS_PER_BLOCK].into(),
        }
    }

    /// Bytes on the heap for each block.
    pub(crate) const BYTES_PER_BLOCK: usize =
        size_of::<BlockKey>() + Self::SLOTS_PER_BLOCK * size_of::<u32>();

    /// Keys in it.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.slots.iter().filter(|&&slot| slot != NONE).count()
    }

    /// The key of a block that is in the index.
    pub(crate) fn key(&self, block: BlockId) -> &BlockKey {
        &self.keys[block as usize]
    }

    /// Where the search for a key begins: keys are evenly distributed by themselves.
    fn home(&self, BlockKey(key): &BlockKey) -> usize {
        let [a, b, c, d, e, f, g, h, ..] = *key;
        let hash = u64::from_le_bytes([a, b, c, d, e, f, g, h]);
        ((u128::from(hash) * self.slots.len() as u128) >> 64) as usize
    }

    fn after(&self, slot: usize) -> usize {
        if slot + 1 == self.slots.len() {
            0
        } else {
            slot + 1
        }
    }

    /// The slot of a key, or the empty one where it belongs.
    fn slot(&self, key: &BlockKey) -> usize {
        let mut slot = self.home(key);
        while self.slots[slot] != NONE && self.keys[self.slots[slot] as usize] != *key {
            slot = self.after(slot);
        }
        slot
    }

    /// The block with that key.
    pub(crate) fn find(&self, key: &BlockKey) -> Option<BlockId> {
        let block = self.slots[self.slot(key)];
        (block != NONE).then_some(block)
    }

    /// Adds a block that is not in the index under a key that is not either.
    pub(crate) fn insert(&mut self, key: &BlockKey, block: BlockId) {
        let slot = self.slot(key);
        debug_assert_eq!(self.slots[slot], NONE);
        self.slots[slot] = block;
        self.keys[block as usize] = *key;
    }

    /// Removes a block that is in the index.
    pub(crate) fn remove(&mut self, block: BlockId) {
        let mut gap = self.slot(&self.keys[block as usize]);
        debug_assert_eq!(self.slots[gap], block);
        // Those behind move up, unless that put them before their home.
        let mut slot = self.after(gap);
        while self.slots[slot] != NONE {
            let home = self.home(&self.keys[self.slots[slot] as usize]);
            let cyclic = |from: usize, to: usize| match to >= from {
                true => to - from,
                false => to + self.slots.len() - from,
            };
            if cyclic(home, slot) >= cyclic(gap, slot) {
                self.slots[gap] = self.slots[slot];
                gap = slot;
            }
            slot = self.after(slot);
        }
        self.slots[gap] = NONE;
    }

    /// What a block stores is in another now.
    pub(crate) fn relocate(&mut self, from: BlockId, to: BlockId) {
        let key = self.keys[from as usize];
        let slot = self.slot(&key);
        debug_assert_eq!(self.slots[slot], from);
        self.keys[to as usize] = key;
        self.slots[slot] = to;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn keys_follow_from_everything_that_contents_follow_from() {
        let (a, b) = ([1; 32], [2; 32]);
        let hasher = PrefixHasher::new(&a, &b);
        let parent = hasher.first(&[1, 2, 3]);
        let long: Vec<u32> = (0..150).collect();
        let keys = [
            parent,
            hasher.first(&[1, 2]),
            hasher.first(&[1, 2, 4]),
            hasher.first(&[]),
            hasher.next(&parent, &[1, 2, 3]),
            hasher.next(&hasher.first(&[9]), &[1, 2, 3]),
            PrefixHasher::new(&b, &b).first(&[1, 2, 3]),
            PrefixHasher::new(&a, &a).first(&[1, 2, 3]),
            hasher.first(&long),
            hasher.first(&long[..149]),
        ];
        for (i, a) in keys.iter().enumerate() {
            assert!(keys[..i].iter().all(|b| a != b), "{i}");
        }
        assert_eq!(hasher.clone().first(&[1, 2, 3]), parent);
        assert!(
            !format!("{hasher:?}").contains("1"),
            "the salt stays secret"
        );
        // As the specification of keys says, by the one-shot function.
        let mut bytes = vec![1];
        bytes.extend_from_slice(&parent.0);
        bytes.extend(long.iter().flat_map(|token| token.to_le_bytes()));
        let want = blake3::keyed_hash(blake3::keyed_hash(&b, &a).as_bytes(), &bytes);
        assert_eq!(hasher.next(&parent, &long).0, *want.as_bytes());
    }

    proptest! {
        /// Keys that crowd the same few homes, so that searches wrap and removals move others.
        #[test]
        fn the_index_agrees_with_a_map(
            blocks in 1..40u32,
            steps in proptest::collection::vec((any::<u32>(), 0..3u8, 0..6u8, any::<u8>()), 0..150),
        ) {
            let mut index = PrefixIndex::new(blocks);
            let mut map: BTreeMap<u32, BlockKey> = BTreeMap::new();
            for (block, what, home, rest) in steps {
                let block = block % blocks;
                let mut key = [rest; 32];
                key[..8].copy_from_slice(&((u64::from(home) << 62) | u64::from(rest)).to_le_bytes());
                let key = BlockKey(key);
                let known = map.values().any(|k| *k == key);
                match what {
                    0 if !known && !map.contains_key(&block) => {
                        index.insert(&key, block);
                        map.insert(block, key);
                    }
                    1 if map.contains_key(&block) => {
                        index.remove(block);
                        map.remove(&block);
                    }
                    _ => {
                        let to = (0..blocks).find(|to| !map.contains_key(to));
                        if let (Some(to), Some(key)) = (to, map.get(&block).copied()) {
                            index.relocate(block, to);
                            map.remove(&block);
                            map.insert(to, key);
                        }
                    }
                }
                prop_assert_eq!(index.len(), map.len());
                for (block, key) in &map {
                    prop_assert_eq!(index.find(key), Some(*block));
                    prop_assert_eq!(index.key(*block), key);
                }
                let expected = map.iter().find(|(_, k)| **k == key).map(|(block, _)| *block);
                prop_assert_eq!(index.find(&key), expected);
            }
        }
    }
}
