//! Stacks of blocks that nobody uses: the same for a thread's magazine and for the shelves that all
//! threads share.
//!
//! A stack gives out what came in last, which is warm in the cache, and notes how low it has been since
//! the last clean-up: so many blocks at its bottom have not been wanted in all that time. That is how old
//! blocks are found without a clock being read for any.

use crate::buffer_pool::block::Block;
use crate::buffer_pool::class::{CLASSES, DTYPES, Key, class_bytes, serves};

/// The most bytes of one class in a magazine.
const MAGAZINE_BYTES: usize = 256 << 10;
/// The most blocks of one class in a magazine.
const MAGAZINE_BLOCKS: usize = 64;

/// How many blocks of a class a magazine holds; 0 where they all go to the shelves.
#[inline]
pub(crate) fn depth_of(key: Key) -> usize {
    DEPTHS[key.class as usize] as usize
}

/// By class: worked out once, since dividing takes as long as all else on the quick way.
const DEPTHS: [u8; CLASSES] = {
    let mut depths = [0; CLASSES];
    let mut class = 0;
    while class < CLASSES {
        let blocks = MAGAZINE_BYTES / class_bytes(class);
        depths[class] = if blocks < MAGAZINE_BLOCKS {
            blocks as u8
        } else {
            MAGAZINE_BLOCKS as u8
        };
        class += 1;
    }
    depths
};

#[derive(Debug, Default)]
struct Stack {
    /// Boxed, so that a block that changes hands moves by its address.
    #[allow(clippy::vec_box, reason = "see above")]
    blocks: Vec<Box<Block>>,
    /// The fewest there were since the last clean-up.
    low: usize,
}

/// Blocks by key.
#[derive(Debug, Default)]
pub(crate) struct Stacks {
    /// One per key; none before the first block comes.
    stacks: Vec<Stack>,
    /// Bit c of a dtype: that class has a block.
    filled: [u128; DTYPES],
}

impl Stacks {
    /// Takes a block that serves an ask of `len` bytes: of its own class, or of the next that is less
    /// than twice as long.
    #[inline]
    pub(crate) fn take(&mut self, key: Key, len: usize) -> Option<Box<Block>> {
        let at_least = self.filled[key.dtype as usize] >> key.class;
        if at_least == 0 {
            return None;
        }
        let further = at_least.trailing_zeros() as usize;
        let class = key.class as usize + further;
        if further > 0 && !serves(class, len) {
            return None;
        }
        self.pop(Key {
            class: class as u8,
            dtype: key.dtype,
        })
    }

    #[inline]
    fn pop(&mut self, key: Key) -> Option<Box<Block>> {
        let stack = &mut self.stacks[key.index()];
        let block = stack.blocks.pop()?;
        let left = stack.blocks.len();
        stack.low = stack.low.min(left);
        if left == 0 {
            self.filled[key.dtype as usize] &= !(1 << key.class);
        }
        Some(block)
    }

    /// Puts a block that has a key on top.
    #[inline]
    pub(crate) fn put(&mut self, block: Box<Block>) {
        if self.stacks.is_empty() {
            self.stacks.resize_with(CLASSES * DTYPES, Stack::default);
        }
        let Some(key) = block.key() else { return };
        self.filled[key.dtype as usize] |= 1 << key.class;
        self.stacks[key.index()].blocks.push(block);
    }

    /// How many blocks of that key there are.
    #[inline]
    pub(crate) fn count(&self, key: Key) -> usize {
        self.stacks
            .get(key.index())
            .map_or(0, |stack| stack.blocks.len())
    }

    /// All blocks there are.
    pub(crate) fn count_all(&self) -> usize {
        self.stacks.iter().map(|stack| stack.blocks.len()).sum()
    }

    /// The numbers of all blocks there are.
    pub(crate) fn slots(&self) -> impl Iterator<Item = u32> + '_ {
        let blocks = self.stacks.iter().flat_map(|stack| &stack.blocks);
        blocks.filter_map(|block| block.slot())
    }

    /// All bytes there are.
    pub(crate) fn bytes(&self) -> usize {
        Key::all().map(|key| self.count(key) * key.bytes()).sum()
    }

    /// Moves `count` blocks of one key to `to`, from the top.
    pub(crate) fn move_newest(&mut self, key: Key, count: usize, to: &mut Stacks) {
        for _ in 0..count {
            let Some(block) = self.pop(key) else { return };
            to.put(block);
        }
    }

    /// Moves `count` blocks of one key to `to`, from the bottom.
    pub(crate) fn move_oldest(&mut self, key: Key, count: usize, to: &mut Stacks) {
        for block in self.drain_oldest(key, count) {
            to.put(block);
        }
    }

    /// Takes out `count` blocks of one key, from the bottom.
    pub(crate) fn drain_oldest(
        &mut self,
        key: Key,
        count: usize,
    ) -> impl Iterator<Item = Box<Block>> + '_ {
        let count = count.min(self.count(key));
        if count > 0 && count == self.count(key) {
            self.filled[key.dtype as usize] &= !(1 << key.class);
        }
        let stack = self.stacks.get_mut(key.index());
        stack.into_iter().flat_map(move |stack| {
            stack.low = stack.low.min(stack.blocks.len() - count);
            stack.blocks.drain(..count)
        })
    }

    /// How many blocks of a key have not been wanted since the last clean-up.
    pub(crate) fn idle(&self, key: Key) -> usize {
        self.stacks.get(key.index()).map_or(0, |stack| stack.low)
    }

    /// Begins anew to look for blocks that nobody wants.
    pub(crate) fn begin_interval(&mut self) {
        for stack in &mut self.stacks {
            stack.low = stack.blocks.len();
        }
    }

    /// Takes out everything.
    #[allow(clippy::vec_box, reason = "as they lie in the stacks")]
    pub(crate) fn drain_all(&mut self) -> Vec<Box<Block>> {
        self.filled = [0; DTYPES];
        let stacks = self.stacks.iter_mut();
        stacks
            .flat_map(|stack| {
                stack.low = 0;
                std::mem::take(&mut stack.blocks)
            })
            .collect()
    }
}

/// How many blocks of a class to keep alive, given how many it was and how many were wanted at once
/// since the last clean-up: as many as were wanted, at once; fewer by half of what was not.
pub(crate) fn capacity_next(previous: usize, wanted: usize) -> usize {
    match previous.checked_sub(wanted) {
        None => wanted,
        Some(spare) => wanted + spare / 2,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A6
    #[test]
    fn capacity_follows_what_was_wanted() {
        assert_eq!(capacity_next(0, 10), 10, "up at once");
        assert_eq!(capacity_next(10, 2), 6, "down by halves");
        assert_eq!(capacity_next(3, 2), 2);
        let rounds = std::iter::successors(Some(1000), |n| Some(capacity_next(*n, 0)));
        assert_eq!(rounds.take_while(|n| *n > 0).count(), 10);
    }
}
