//! Many short strings in little memory: one byte buffer and one end offset per string.
//!
//! A vocabulary has some 150,000 tokens of about six bytes; a `Vec<String>` spends 24 bytes and an
//! allocation on each, this spends four bytes and none.

/// An append-only list of byte strings, packed.
///
/// The strings are whatever the file holds, usually UTF-8; nothing here checks it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StringTable {
    bytes: Vec<u8>,
    // Exclusive end of each string in `bytes`; its start is its predecessor's end.
    ends: Vec<u32>,
}

impl StringTable {
    /// An empty table.
    pub fn new() -> StringTable {
        StringTable::default()
    }

    /// An empty table with room for `strings` strings of `bytes` bytes in all.
    pub fn with_capacity(strings: usize, bytes: usize) -> StringTable {
        StringTable {
            bytes: Vec::with_capacity(bytes),
            ends: Vec::with_capacity(strings),
        }
    }

    /// Appends a string. Returns `false`, changing nothing, if the table would pass 4 GiB.
    #[must_use]
    pub fn push(&mut self, string: &[u8]) -> bool {
        let Some(end) = self.bytes.len().checked_add(string.len()) else {
            return false;
        };
        let Ok(end) = u32::try_from(end) else {
            return false;
        };
        self.bytes.extend_from_slice(string);
        self.ends.push(end);
        true
    }

    /// The number of strings.
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are no strings.
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// The string at `index`.
    pub fn get(&self, index: usize) -> Option<&[u8]> {
        let end = *self.ends.get(index)? as usize;
        let start = match index {
            0 => 0,
            _ => self.ends[index - 1] as usize,
        };
        Some(&self.bytes[start..end])
    }

    /// The string at `index`, if it is UTF-8.
    pub fn get_str(&self, index: usize) -> Option<&str> {
        std::str::from_utf8(self.get(index)?).ok()
    }

    /// The strings in order.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &[u8]> {
        (0..self.len()).map(|index| self.get(index).expect("index is below len"))
    }

    /// Bytes of heap memory that the table holds.
    pub fn heap_bytes(&self) -> usize {
        self.bytes.capacity() + self.ends.capacity() * size_of::<u32>()
    }

    /// Gives back what growing left over.
    pub fn shrink_to_fit(&mut self) {
        self.bytes.shrink_to_fit();
        self.ends.shrink_to_fit();
    }
}

impl<S: AsRef<[u8]>> FromIterator<S> for StringTable {
    /// Collects strings.
    ///
    /// # Panics
    /// Past 4 GiB in all; use [`StringTable::push`] for input from outside.
    fn from_iter<I: IntoIterator<Item = S>>(strings: I) -> StringTable {
        let mut table = StringTable::new();
        for string in strings {
            assert!(
                table.push(string.as_ref()),
                "a string table holds at most 4 GiB"
            );
        }
        table.shrink_to_fit();
        table
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gives_back_what_was_pushed() {
        let words = ["", "a", "bc", "", "déf"];
        let table: StringTable = words.iter().collect();
        assert_eq!(table.len(), words.len());
        for (index, word) in words.iter().enumerate() {
            assert_eq!(table.get_str(index), Some(*word));
        }
        assert_eq!(table.get(words.len()), None);
        assert_eq!(table.iter().collect::<Vec<_>>(), words.map(str::as_bytes));
        assert_eq!(table.heap_bytes(), 7 + 4 * words.len());
    }
}
