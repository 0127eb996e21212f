//! One heap: blocks of any length out of a range of offsets, in constant time.
//!
//! The heap hands out offsets and never touches the memory behind them, so it serves a mapping, a
//! region or a device alike, and its books survive that pages are given back. It is a two-level
//! segregated fit (Masmano, Ripoll, Crespo, Real: "TLSF: a New Dynamic Memory Allocator for Real-Time
//! Systems", ECRTS 2004), with two departures:
//!
//! * The books are outside the heap, in one vector of nodes linked by index.
//! * An ask that no larger class can serve looks at a few blocks of its own class as well (TLSF gives
//!   up there), so that the last block of a heap can be used whole.
//!
//! ```text
//! take(n):  class c = n rounded up to a class    free list of the first class >= c that has one
//!           cut the block's front to alignment, its end to length; both remain as free blocks
//! free(b):  merge with a free neighbour before and after; into the list of its class
//! ```

use std::fmt;
use std::ops::Range;

/// Each power of two is cut into so many classes: a block is at most 1/16 longer than its class.
const SPLITS_LOG2: u32 = 4;
const SPLITS: usize = 1 << SPLITS_LOG2;
/// Lengths below `SPLITS` have a class each; then one row per power of two up to 2^31.
const ROWS: usize = (32 - SPLITS_LOG2 + 1) as usize;
/// Blocks that are looked at where no larger class can serve.
const LOOKS: usize = 32;

/// No node. The links are the bulk of the books, so they are kept to four bytes.
const NIL: u32 = u32::MAX;

/// A range of the heap that is in use. Given back by [`Heap::free`]; dropped, it stays taken.
#[derive(Debug, PartialEq, Eq)]
#[must_use = "a block that is not freed stays taken"]
pub struct Block {
    offset: u64,
    len: u64,
    node: u32,
}

impl Block {
    /// Where it starts, in bytes from the start of the heap.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Its length in bytes, as asked for.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// Whether it has no bytes.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Where it is, in bytes from the start of the heap.
    pub fn range(&self) -> Range<u64> {
        self.offset..self.offset + self.len
    }
}

/// Why a heap cannot be made or grown.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeapError {
    /// A granule must be a power of two.
    #[error("a granule of {0} bytes is not a power of two")]
    Granule(u64),
    /// More granules than the books count.
    #[error(
        "{len} bytes in granules of {granule} are more than 2^31 granules: use larger granules"
    )]
    TooLong {
        /// Length in bytes.
        len: u64,
        /// Granule in bytes.
        granule: u64,
    },
}

/// No free block is long enough.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "no free block holds {asked} bytes at a multiple of {align}: {free} bytes are free, the longest \
     block has {largest_free}"
)]
pub struct HeapFull {
    /// Bytes asked for.
    pub asked: u64,
    /// The alignment asked for.
    pub align: u64,
    /// Bytes that are free in all.
    pub free: u64,
    /// The longest free block in bytes.
    pub largest_free: u64,
}

/// How a heap is filled.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct HeapStats {
    /// All bytes.
    pub len: u64,
    /// Bytes in use, rounding to granules included.
    pub used: u64,
    /// The most that was in use at one moment.
    pub used_peak: u64,
    /// Bytes that are free.
    pub free: u64,
    /// The longest free block in bytes.
    pub largest_free: u64,
    /// Blocks in use.
    pub blocks: usize,
    /// Free blocks.
    pub blocks_free: usize,
    /// Bytes of books, which lie outside the heap.
    pub metadata: usize,
}

impl HeapStats {
    /// External fragmentation: the share of the free bytes that the longest free block does not have.
    /// A full heap has none.
    pub fn fragmentation_ratio(&self) -> f64 {
        match self.free {
            0 => 0.0,
            free => 1.0 - self.largest_free as f64 / free as f64,
        }
    }
}

/// A piece of the heap, used or free. Lengths in granules.
#[derive(Copy, Clone, Debug)]
struct Node {
    start: u32,
    len: u32,
    /// Neighbours in the heap.
    before: u32,
    after: u32,
    /// Neighbours in the list of free blocks of one class; `next_free` also links unused nodes.
    previous_free: u32,
    next_free: u32,
    used: bool,
}

/// The books of one heap.
pub struct Heap {
    granule_log2: u32,
    /// Granules in all.
    len: u32,
    used: u32,
    used_peak: u32,
    blocks: usize,
    blocks_free: usize,
    /// Bit r: some class of row r has a free block.
    rows: u32,
    /// Bit c of row r: that class has a free block.
    classes: [u16; ROWS],
    heads: [[u32; SPLITS]; ROWS],
    nodes: Vec<Node>,
    /// First of the nodes that stand for nothing.
    unused: u32,
    /// The piece at the heap's end; `NIL` for a heap of length 0.
    last: u32,
}

/// Row and column of the class that a free block of this length is in.
fn class_of(len: u32) -> (usize, usize) {
    if (len as usize) < SPLITS {
        return (0, len as usize);
    }
    let log2 = len.ilog2();
    let row = (log2 - SPLITS_LOG2 + 1) as usize;
    (row, (len >> (log2 - SPLITS_LOG2)) as usize & (SPLITS - 1))
}

/// The least length of a class all of whose blocks are at least `len` long; `None` past 32 bits.
fn class_ceiling(len: u32) -> Option<u32> {
    if (len as usize) < SPLITS {
        return Some(len);
    }
    len.checked_next_multiple_of(1 << (len.ilog2() - SPLITS_LOG2))
}

impl Heap {
    /// A heap of `len` bytes, all free, that hands out multiples of `granule` bytes (a power of two).
    /// What remains of `len` beyond whole granules is not used.
    ///
    /// # Errors
    /// Where the granule is not a power of two, or there would be 2^31 granules or more.
    pub fn new(len: u64, granule: u64) -> Result<Heap, HeapError> {
        if !granule.is_power_of_two() {
            return Err(HeapError::Granule(granule));
        }
        let mut heap = Heap {
            granule_log2: granule.ilog2(),
            len: 0,
            used: 0,
            used_peak: 0,
            blocks: 0,
            blocks_free: 0,
            rows: 0,
            classes: [0; ROWS],
            heads: [[NIL; SPLITS]; ROWS],
            nodes: Vec::new(),
            unused: NIL,
            last: NIL,
        };
        heap.grow(len)?;
        Ok(heap)
    }

    /// Adds `more` free bytes at the end.
    ///
    /// # Errors
    /// Where there would be 2^31 granules or more; the heap stays as it was.
    pub fn grow(&mut self, more: u64) -> Result<(), HeapError> {
        let too_long = HeapError::TooLong {
            len: self.bytes(self.len).saturating_add(more),
            granule: 1 << self.granule_log2,
        };
        let added = u32::try_from(more >> self.granule_log2).map_err(|_| too_long.clone())?;
        let len = self
            .len
            .checked_add(added)
            .filter(|len| *len < 1 << 31)
            .ok_or(too_long)?;
        if added == 0 {
            return Ok(());
        }
        let start = self.len;
        self.len = len;
        if self.last != NIL && !self.node(self.last).used {
            let last = self.last;
            self.unlist(last);
            self.nodes[last as usize].len += added;
            self.list(last);
            return Ok(());
        }
        let node = self.new_node(start, added, self.last, NIL);
        if self.last != NIL {
            self.nodes[self.last as usize].after = node;
        }
        self.last = node;
        self.list(node);
        Ok(())
    }

    /// Makes room in the books for `blocks` blocks in use at once, after which taking and freeing so
    /// many allocates nothing.
    pub fn reserve_books(&mut self, blocks: usize) {
        // Between and around so many blocks there is at most one more free one.
        let nodes = blocks.saturating_mul(2).saturating_add(1);
        self.nodes.reserve(nodes.saturating_sub(self.nodes.len()));
    }

    /// Takes a block of `len` bytes at a multiple of `align` bytes (a power of two). A length of 0
    /// takes one granule.
    ///
    /// # Errors
    /// Where no free block is long enough. A block that is 1/16 longer than `len` in whole granules
    /// (and, for an alignment beyond the granule, longer by the alignment too) always is.
    pub fn take(&mut self, len: u64, align: u64) -> Result<Block, HeapFull> {
        let found = self.granules(len, align).and_then(|(granules, align)| {
            self.find(granules, align)
                .map(|node| (node, granules, align))
        });
        let Some((node, granules, align)) = found else {
            let HeapStats {
                free, largest_free, ..
            } = self.stats();
            return Err(HeapFull {
                asked: len,
                align,
                free,
                largest_free,
            });
        };
        self.unlist(node);
        let start = self.node(node).start.next_multiple_of(align);
        let front = start - self.node(node).start;
        let node = if front > 0 {
            self.split(node, front)
        } else {
            node
        };
        if self.node(node).len > granules {
            let rest = self.split(node, granules);
            self.list(rest);
        }
        if front > 0 {
            let before = self.node(node).before;
            self.list(before);
        }
        self.nodes[node as usize].used = true;
        self.blocks += 1;
        self.used += granules;
        self.used_peak = self.used_peak.max(self.used);
        Ok(Block {
            offset: self.bytes(start),
            len,
            node,
        })
    }

    /// Takes a block back.
    ///
    /// # Panics
    /// Where the block is of another heap.
    pub fn free(&mut self, block: Block) {
        let mut node = block.node;
        let known = self
            .nodes
            .get(node as usize)
            .is_some_and(|node| node.used && self.bytes(node.start) == block.offset);
        assert!(known, "{block:?} was not taken from this heap");
        self.nodes[node as usize].used = false;
        self.blocks -= 1;
        self.used -= self.node(node).len;
        let Node { before, after, .. } = *self.node(node);
        if after != NIL && !self.node(after).used {
            self.unlist(after);
            self.absorb_next(node);
        }
        if before != NIL && !self.node(before).used {
            self.unlist(before);
            self.absorb_next(before);
            node = before;
        }
        self.list(node);
    }

    /// Bytes in use, rounding to granules included.
    pub fn used(&self) -> u64 {
        self.bytes(self.used)
    }

    /// How it is filled. Looks at the free blocks of the highest class only.
    pub fn stats(&self) -> HeapStats {
        HeapStats {
            len: self.bytes(self.len),
            used: self.bytes(self.used),
            used_peak: self.bytes(self.used_peak),
            free: self.bytes(self.len - self.used),
            largest_free: self.bytes(self.largest_free()),
            blocks: self.blocks,
            blocks_free: self.blocks_free,
            metadata: size_of::<Heap>() + self.nodes.capacity() * size_of::<Node>(),
        }
    }

    /// The free ranges in bytes, last first.
    pub fn free_ranges(&self) -> impl Iterator<Item = Range<u64>> {
        let mut at = self.last;
        std::iter::from_fn(move || {
            while at != NIL {
                let node = self.node(at);
                at = node.before;
                if !node.used {
                    return Some(self.bytes(node.start)..self.bytes(node.start + node.len));
                }
            }
            None
        })
    }

    /// What of the free ranges is whole units of `unit` bytes, last first: what can be decommitted
    /// from the memory behind this heap.
    pub fn trim_list(&self, unit: u64) -> impl Iterator<Item = Range<u64>> {
        self.free_ranges().filter_map(move |range| {
            let start = range.start.checked_next_multiple_of(unit)?;
            let end = range.end / unit * unit;
            (start < end).then_some(start..end)
        })
    }

    fn node(&self, index: u32) -> &Node {
        &self.nodes[index as usize]
    }

    fn bytes(&self, granules: u32) -> u64 {
        u64::from(granules) << self.granule_log2
    }

    /// Length and alignment in granules, where such a block can exist at all.
    fn granules(&self, len: u64, align: u64) -> Option<(u32, u32)> {
        let granule = 1_u64 << self.granule_log2;
        let len = u32::try_from(len.div_ceil(granule).max(1)).ok()?;
        let align = u32::try_from(align.div_ceil(granule).max(1)).ok()?;
        (align.is_power_of_two() && len <= self.len && align <= 1 << 31).then_some((len, align))
    }

    /// A free block with room for `len` granules at a multiple of `align`.
    fn find(&self, len: u32, align: u32) -> Option<u32> {
        let safe = len.checked_add(align - 1).and_then(class_ceiling);
        if let Some((row, class)) = safe.and_then(|safe| self.first_class(safe)) {
            return Some(self.heads[row][class]);
        }
        // No block is sure to do; one of the longest that are not sure may.
        let fits = |node: &Node| {
            let start = node.start.checked_next_multiple_of(align);
            let front = start.map(|start| start - node.start);
            front
                .and_then(|front| front.checked_add(len))
                .is_some_and(|whole| whole <= node.len)
        };
        let mut class = self.first_class_from(class_of(len));
        let mut looks = 0..LOOKS;
        while let Some((row, column)) = class {
            let mut at = self.heads[row][column];
            while at != NIL {
                looks.next()?;
                if fits(self.node(at)) {
                    return Some(at);
                }
                at = self.node(at).next_free;
            }
            class = match column + 1 {
                SPLITS if row + 1 == ROWS => None,
                SPLITS => self.first_class_from((row + 1, 0)),
                next => self.first_class_from((row, next)),
            };
        }
        None
    }

    /// The first class with a free block whose blocks are all at least `len` long; `len` is a
    /// class's least.
    fn first_class(&self, len: u32) -> Option<(usize, usize)> {
        self.first_class_from(class_of(len))
    }

    fn first_class_from(&self, (row, column): (usize, usize)) -> Option<(usize, usize)> {
        let in_row = self.classes[row] & (u16::MAX << column);
        if in_row != 0 {
            return Some((row, in_row.trailing_zeros() as usize));
        }
        let above = self.rows & u32::MAX.checked_shl(row as u32 + 1).unwrap_or(0);
        if above == 0 {
            return None;
        }
        let row = above.trailing_zeros() as usize;
        Some((row, self.classes[row].trailing_zeros() as usize))
    }

    fn largest_free(&self) -> u32 {
        if self.rows == 0 {
            return 0;
        }
        let row = self.rows.ilog2() as usize;
        let column = self.classes[row].ilog2() as usize;
        let listed = |at: u32| (at != NIL).then_some(at);
        std::iter::successors(listed(self.heads[row][column]), |at| {
            listed(self.node(*at).next_free)
        })
        .map(|at| self.node(at).len)
        .max()
        .unwrap_or(0)
    }

    /// Puts a free piece into the list of its class.
    fn list(&mut self, index: u32) {
        let (row, column) = class_of(self.node(index).len);
        let head = self.heads[row][column];
        let node = &mut self.nodes[index as usize];
        node.previous_free = NIL;
        node.next_free = head;
        if head != NIL {
            self.nodes[head as usize].previous_free = index;
        }
        self.heads[row][column] = index;
        self.classes[row] |= 1 << column;
        self.rows |= 1 << row;
        self.blocks_free += 1;
    }

    /// Takes a free piece out of the list of its class.
    fn unlist(&mut self, index: u32) {
        let Node {
            len,
            previous_free,
            next_free,
            ..
        } = *self.node(index);
        if next_free != NIL {
            self.nodes[next_free as usize].previous_free = previous_free;
        }
        self.blocks_free -= 1;
        if previous_free != NIL {
            self.nodes[previous_free as usize].next_free = next_free;
            return;
        }
        let (row, column) = class_of(len);
        self.heads[row][column] = next_free;
        if next_free == NIL {
            self.classes[row] &= !(1 << column);
            if self.classes[row] == 0 {
                self.rows &= !(1 << row);
            }
        }
    }

    /// Cuts a piece after `len` granules; the second part is returned. Neither is listed.
    fn split(&mut self, index: u32, len: u32) -> u32 {
        let Node {
            start,
            len: whole,
            after,
            ..
        } = *self.node(index);
        let second = self.new_node(start + len, whole - len, index, after);
        let first = &mut self.nodes[index as usize];
        first.len = len;
        first.after = second;
        match after {
            NIL => self.last = second,
            after => self.nodes[after as usize].before = second,
        }
        second
    }

    /// Adds the piece after this one to it. Neither is listed.
    fn absorb_next(&mut self, index: u32) {
        let next = self.node(index).after;
        let Node { len, after, .. } = *self.node(next);
        let node = &mut self.nodes[index as usize];
        node.len += len;
        node.after = after;
        match after {
            NIL => self.last = index,
            after => self.nodes[after as usize].before = index,
        }
        self.nodes[next as usize].next_free = self.unused;
        self.unused = next;
    }

    fn new_node(&mut self, start: u32, len: u32, before: u32, after: u32) -> u32 {
        let node = Node {
            start,
            len,
            before,
            after,
            previous_free: NIL,
            next_free: NIL,
            used: false,
        };
        if self.unused == NIL {
            // No overflow: fewer nodes than granules.
            self.nodes.push(node);
            return (self.nodes.len() - 1) as u32;
        }
        let index = self.unused;
        self.unused = self.node(index).next_free;
        self.nodes[index as usize] = node;
        index
    }
}

impl fmt::Debug for Heap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Heap").field(&self.stats()).finish()
    }
}
