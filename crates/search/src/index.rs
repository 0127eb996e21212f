//! All pieces of all files with their vectors. Equal pieces share a vector; everything is charged.

use std::path::PathBuf;

use bursar_memory::{Account, Bytes, HugePages, Lifetime, Mapping, Reservation};
use half::f16;

use crate::chunk::Chunk;
use crate::error::SearchError;

/// Tells pieces apart: half of a BLAKE3 digest of everything that decides a vector.
pub type Key = [u8; 16];

/// One piece of one file.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Digest of what its vector is made from.
    pub key: Key,
    /// Index into [`Index::files`].
    pub file: u32,
    /// First line, counted from 0.
    pub line: u32,
    /// Number of lines.
    pub lines: u32,
    /// First byte.
    pub start: u32,
    /// Number of bytes.
    pub len: u32,
    /// Which vector is its own, once [`Index::seal`] has counted them.
    pub row: u32,
}

/// The pieces of some files.
pub struct Index {
    files: Vec<PathBuf>,
    entries: Vec<Entry>,
    /// One entry for each row, in the order of the keys.
    rows: Vec<u32>,
    filled: Vec<bool>,
    dimensions: usize,
    vectors: Option<Mapping>,
    account: Account,
    /// What `files`, `entries`, `rows` and `filled` take.
    books: Reservation,
}

impl Index {
    /// An index of `files` for vectors of so many values, charged to a child of `account`.
    ///
    /// # Errors
    /// When the budget does not hold the names.
    pub fn new(
        files: Vec<PathBuf>,
        dimensions: usize,
        account: &Account,
    ) -> Result<Index, SearchError> {
        let account = account.child("index", Lifetime::Episodic);
        let name = |path: &PathBuf| size_of::<PathBuf>() + path.capacity() + HEAP_HEADER_BYTES;
        let names = files.iter().map(name).sum::<usize>();
        let books = account.reserve(Bytes(names as u64))?;
        u32::try_from(files.len()).map_err(|_| SearchError::TooMany {
            what: "the number of files",
            most: u32::MAX.into(),
        })?;
        Ok(Index {
            files,
            entries: Vec::new(),
            rows: Vec::new(),
            filled: Vec::new(),
            dimensions,
            vectors: None,
            account,
            books,
        })
    }

    /// Adds a piece of file number `file`, which is below 4 GiB.
    ///
    /// # Errors
    /// When the budget does not hold one more.
    pub fn push(&mut self, file: usize, chunk: &Chunk, key: Key) -> Result<(), SearchError> {
        if self.entries.len() == self.entries.capacity() {
            // The old entries are there until the new ones are.
            let more = self.entries.len().max(1024);
            let new = (self.entries.len() + more) * size_of::<Entry>();
            let old = self.entries.len() * size_of::<Entry>();
            self.books.grow(Bytes(new as u64))?;
            self.entries.reserve_exact(more);
            self.books.shrink(Bytes(old as u64));
        }
        self.entries.push(Entry {
            key,
            file: file as u32,
            line: chunk.lines.start as u32,
            lines: chunk.lines.len() as u32,
            start: chunk.bytes.start as u32,
            len: chunk.bytes.len() as u32,
            row: 0,
        });
        Ok(())
    }

    /// Ends adding: gives equal pieces one row, and maps the rows' memory, none of it filled.
    ///
    /// # Errors
    /// When the budget does not hold the vectors.
    pub fn seal(&mut self) -> Result<(), SearchError> {
        let count = self.entries.len();
        u32::try_from(count).map_err(|_| SearchError::TooMany {
            what: "the number of pieces",
            most: u32::MAX.into(),
        })?;
        // Rows and whether they are filled; later which are missing, and a score for each.
        let each = 2 * size_of::<u32>() + size_of::<bool>() + size_of::<f32>();
        self.books.grow(Bytes((count * each) as u64))?;
        self.rows = (0..count as u32).collect();
        let entries = &mut self.entries;
        self.rows
            .sort_unstable_by_key(|&entry| (entries[entry as usize].key, entry));
        let mut row = 0;
        let mut last: Option<Key> = None;
        for &entry in &self.rows {
            let entry = &mut entries[entry as usize];
            row += u32::from(last.is_some_and(|last| last != entry.key));
            last = Some(entry.key);
            entry.row = row;
        }
        self.rows.dedup_by_key(|entry| entries[*entry as usize].key);
        self.filled = vec![false; self.rows.len()];
        let bytes = self.rows.len() * self.dimensions * size_of::<f16>();
        let vectors = self.account.child("vectors", Lifetime::Episodic);
        let reserved = vectors.reserve(bursar_memory::region::charge_of(Bytes(bytes as u64)))?;
        self.vectors = Some(Mapping::new(reserved, HugePages::Default)?);
        Ok(())
    }

    /// The files, as they were given.
    pub fn files(&self) -> &[PathBuf] {
        &self.files
    }

    /// The pieces, in the order in which they were added.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Number of vectors: of pieces that differ.
    pub fn rows(&self) -> usize {
        self.rows.len()
    }

    /// Values of a vector.
    pub fn dimensions(&self) -> usize {
        self.dimensions
    }

    /// Bytes granted to it.
    pub fn granted(&self) -> Bytes {
        self.account.granted()
    }

    /// The key of a row.
    pub(crate) fn key(&self, row: usize) -> &Key {
        &self.entries[self.rows[row] as usize].key
    }

    /// The row of a key, if a piece has it.
    pub(crate) fn row_of(&self, key: &Key) -> Option<usize> {
        self.rows
            .binary_search_by_key(key, |&entry| self.entries[entry as usize].key)
            .ok()
    }

    /// Whether a row has its vector.
    pub fn is_filled(&self, row: usize) -> bool {
        self.filled[row]
    }

    /// Rows that have their vectors.
    pub fn filled_rows(&self) -> usize {
        self.filled.iter().filter(|filled| **filled).count()
    }

    /// One piece for each row without a vector, in the order in which they were added.
    pub fn missing(&self) -> Vec<u32> {
        let missing = (0..self.rows.len()).filter(|&row| !self.filled[row]);
        let mut pieces: Vec<u32> = missing.map(|row| self.rows[row]).collect();
        pieces.sort_unstable();
        pieces
    }

    /// Forgets all vectors.
    pub(crate) fn clear(&mut self) {
        self.filled.fill(false);
    }

    /// Takes a vector; it is kept in half precision, which moves a cosine by less than 0.001.
    pub fn fill(&mut self, row: usize, vector: &[f32]) {
        for (kept, value) in self.row_mut(row).chunks_exact_mut(2).zip(vector) {
            kept.copy_from_slice(&f16::from_f32(*value).to_le_bytes());
        }
        self.filled[row] = true;
    }

    /// Takes a vector as it is kept.
    pub(crate) fn fill_bytes(&mut self, row: usize, bytes: &[u8]) {
        self.row_mut(row).copy_from_slice(bytes);
        self.filled[row] = true;
    }

    /// A vector as it is kept: values in half precision, little-endian.
    pub(crate) fn row(&self, row: usize) -> &[u8] {
        let len = self.row_bytes();
        match &self.vectors {
            Some(vectors) => &vectors.as_slice()[row * len..][..len],
            None => &[],
        }
    }

    /// Bytes of a vector as it is kept.
    pub(crate) fn row_bytes(&self) -> usize {
        self.dimensions * size_of::<f16>()
    }

    fn row_mut(&mut self, row: usize) -> &mut [u8] {
        let len = self.row_bytes();
        match &mut self.vectors {
            Some(vectors) => &mut vectors.as_mut_slice()[row * len..][..len],
            None => &mut [],
        }
    }
}

/// What the allocator adds to a block.
const HEAP_HEADER_BYTES: usize = 16;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use bursar_memory::Ledger;

    pub(crate) fn key(of: &str) -> Key {
        let mut key = [0; 16];
        key.copy_from_slice(&blake3::hash(of.as_bytes()).as_bytes()[..16]);
        key
    }

    /// An index of pieces with these contents, in one file.
    pub(crate) fn index(contents: &[&str], dimensions: usize, ledger: &Ledger) -> Index {
        let files = vec![PathBuf::from("a.rs")];
        let account = ledger.root().child("search", Lifetime::Episodic);
        let mut index = Index::new(files, dimensions, &account).unwrap();
        for (number, content) in contents.iter().enumerate() {
            let chunk = Chunk {
                lines: number..number + 1,
                bytes: number * 10..number * 10 + 9,
            };
            index.push(0, &chunk, key(content)).unwrap();
        }
        index.seal().unwrap();
        index
    }

    #[test]
    fn equal_pieces_share_a_vector() {
        let ledger = Ledger::new(Bytes(1 << 20));
        let mut index = index(&["one", "two", "one", "three"], 2, &ledger);
        assert_eq!((index.entries().len(), index.rows()), (4, 3));
        let rows: Vec<u32> = index.entries().iter().map(|entry| entry.row).collect();
        assert_eq!(rows[0], rows[2]);
        for (content, row) in ["one", "two", "one", "three"].iter().zip(&rows) {
            assert_eq!(index.row_of(&key(content)), Some(*row as usize));
            assert_eq!(index.key(*row as usize), &key(content));
        }
        assert_eq!(index.row_of(&key("four")), None);
        index.fill(1, &[0.5, -2.0]);
        assert_eq!(index.row(1), [0x00, 0x38, 0x00, 0xc0]);
        assert_eq!((index.is_filled(0), index.filled_rows()), (false, 1));
        drop(index);
        assert_eq!(ledger.granted(), Bytes(0));
    }

    #[test]
    fn what_the_budget_does_not_hold_is_refused() {
        let ledger = Ledger::new(Bytes(100 << 10));
        let account = ledger.root().child("search", Lifetime::Episodic);
        let mut index = Index::new(vec![PathBuf::from("a")], 4, &account).unwrap();
        let chunk = Chunk {
            lines: 0..1,
            bytes: 0..9,
        };
        let refused = (0..5000u32).find_map(|number| {
            let key = key(&number.to_string());
            index.push(0, &chunk, key).err()
        });
        assert!(refused.expect("it does not hold 5,000").does_not_fit());
        assert!(ledger.granted() <= ledger.budget());
    }
}
