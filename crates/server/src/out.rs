//! Bytes on their way out: a buffer that grows, and JSON that is written straight into it.
//!
//! An answer is written as it comes from the engine. As a tree of values, each of its tokens would take a dozen
//! blocks of heap before it were text again. The bytes are those that `serde_json` makes of the same values:
//! clients see no difference.

use axum::body::Bytes;
use bursar_memory::buffer_pool::{Buffer, BufferPool};
use bursar_memory::{Lifetime, PoolError};

/// Most digits of a count.
const DIGITS_MAX: usize = 20;
/// Most characters of a number with a fraction: the shortest decimal of an f64.
const FLOAT_CHARS_MAX: usize = 24;
/// Bytes that a buffer has room for at first where nobody says: an event or two.
const FIRST_BYTES: usize = 512;

/// A growing text of bytes in a buffer of the server's pool, which charges it. Takes nothing until it is
/// written to.
#[derive(Debug)]
pub(crate) struct Out {
    pool: BufferPool,
    buffer: Option<Buffer>,
}

impl Out {
    /// Nothing yet.
    pub(crate) fn new(pool: &BufferPool) -> Out {
        Out {
            pool: pool.clone(),
            buffer: None,
        }
    }

    /// Nothing yet, with room for `capacity` bytes.
    ///
    /// # Errors
    /// Where the budget has none; so with all that writes.
    pub(crate) fn with_capacity(pool: &BufferPool, capacity: usize) -> Result<Out, PoolError> {
        Ok(Out {
            pool: pool.clone(),
            buffer: Some(pool.acquire_empty(capacity, Lifetime::Episodic)?),
        })
    }

    /// Bytes so far.
    pub(crate) fn len(&self) -> usize {
        self.bytes().len()
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// Leaves the first `len` bytes, if there are more, and keeps the place of the others.
    pub(crate) fn truncate(&mut self, len: usize) {
        if let Some(buffer) = &mut self.buffer {
            buffer.truncate(len);
        }
    }

    /// What was written.
    pub(crate) fn bytes(&self) -> &[u8] {
        self.buffer.as_deref().unwrap_or_default()
    }

    /// What was written, to be sent. The buffer goes back to its pool when it has been.
    pub(crate) fn into_bytes(self) -> Bytes {
        self.buffer.map_or_else(Bytes::new, Bytes::from_owner)
    }

    /// Adds bytes as they are.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> Result<(), PoolError> {
        let buffer = match &mut self.buffer {
            Some(buffer) => buffer,
            None => {
                let room = bytes.len().max(FIRST_BYTES);
                let buffer = self.pool.acquire_empty(room, Lifetime::Episodic)?;
                self.buffer.insert(buffer)
            }
        };
        buffer.extend_from_slice(bytes)
    }

    /// Adds text as it is.
    pub(crate) fn raw(&mut self, text: &str) -> Result<(), PoolError> {
        self.push(text.as_bytes())
    }

    /// Adds text as a JSON string, its quotes included.
    pub(crate) fn quoted(&mut self, text: &str) -> Result<(), PoolError> {
        self.raw("\"")?;
        self.escaped(text)?;
        self.raw("\"")
    }

    /// Adds text as it stands within a JSON string (RFC 8259, section 7).
    pub(crate) fn escaped(&mut self, text: &str) -> Result<(), PoolError> {
        let bytes = text.as_bytes();
        let mut begin = 0;
        for (at, &byte) in bytes.iter().enumerate() {
            let letter = match byte {
                b'"' | b'\\' => byte,
                0x08 => b'b',
                0x0C => b'f',
                b'\n' => b'n',
                b'\r' => b'r',
                b'\t' => b't',
                0x00..0x20 => b'u',
                _ => continue,
            };
            self.push(&bytes[begin..at])?;
            self.push(&[b'\\', letter])?;
            if letter == b'u' {
                let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
                self.push(&[b'0', b'0', digit(byte >> 4), digit(byte & 15)])?;
            }
            begin = at + 1;
        }
        self.push(&bytes[begin..])
    }

    /// Adds a count.
    pub(crate) fn count(&mut self, count: usize) -> Result<(), PoolError> {
        let mut digits = [0; DIGITS_MAX];
        let mut begin = DIGITS_MAX;
        let mut left = count;
        loop {
            begin -= 1;
            digits[begin] = b'0' + (left % 10) as u8;
            left /= 10;
            if left == 0 {
                break;
            }
        }
        self.push(&digits[begin..])
    }

    /// Adds a number as the shortest decimal that reads back as the same; `null` where it is none.
    pub(crate) fn float(&mut self, value: f64) -> Result<(), PoolError> {
        let mut characters = [0; FLOAT_CHARS_MAX];
        let mut left = characters.as_mut_slice();
        serde_json::to_writer(&mut left, &value).expect("a number has at most 24 characters");
        let length = FLOAT_CHARS_MAX - left.len();
        self.push(&characters[..length])
    }

    /// Adds what stands between the items of a list: nothing before the first.
    pub(crate) fn comma(&mut self, index: usize) -> Result<(), PoolError> {
        match index {
            0 => Ok(()),
            _ => self.raw(","),
        }
    }
}

#[cfg(test)]
mod tests {
    use bursar_memory::{Bytes, Ledger, Pools};
    use proptest::prelude::*;
    use serde_json::Value;

    use super::{Out, PoolError};

    fn written(write: impl FnOnce(&mut Out) -> Result<(), PoolError>) -> String {
        let ledger = Ledger::new(Bytes::mib(1));
        let mut out = Out::new(Pools::off(&ledger.root()).buffers());
        write(&mut out).unwrap();
        String::from_utf8(out.bytes().to_vec()).unwrap()
    }

    fn check_text(text: &str) {
        let found = written(|out| out.quoted(text));
        assert_eq!(found, Value::from(text).to_string());
    }

    fn check_number(value: f64) {
        let found = written(|out| out.float(value));
        assert_eq!(found, Value::from(value).to_string());
    }

    #[test]
    fn every_character_of_ascii_and_some_beyond() {
        let ascii: String = (0..=0x7F_u8).map(char::from).collect();
        check_text(&ascii);
        for character in ascii.chars() {
            check_text(&character.to_string());
        }
        check_text("\u{80}\u{2028}\u{FFFD}🙂");
    }

    #[test]
    fn extreme_numbers() {
        for value in [
            0.0,
            -0.0,
            f64::MIN_POSITIVE,
            f64::MAX,
            -f64::MAX,
            5e-324,
            -9999.0,
            f64::NAN,
        ] {
            check_number(value);
        }
        for count in [0, 9, 10, usize::MAX] {
            assert_eq!(written(|out| out.count(count)), count.to_string());
        }
    }

    proptest! {
        #[test]
        fn texts_as_serde_json_writes_them(text in any::<String>(), controls in "[\\x00-\\x22\\\\a🙂]{0,40}") {
            check_text(&text);
            check_text(&controls);
        }

        #[test]
        fn numbers_as_serde_json_writes_them(value in any::<f64>(), single in any::<f32>(), count in any::<usize>()) {
            check_number(value);
            check_number(f64::from(single));
            prop_assert_eq!(written(|out| out.count(count)), count.to_string());
        }
    }

    /// A1
    #[test]
    fn a_refusal_leaves_what_was_there_and_all_goes_back() {
        let ledger = Ledger::new(Bytes::kib(16));
        let pools = Pools::off(&ledger.root());
        let mut out = Out::new(pools.buffers());
        assert_eq!(ledger.granted(), Bytes::ZERO);
        out.raw("whole").unwrap();
        assert!(matches!(
            out.push(&[b'x'; 64 << 10]),
            Err(PoolError::Refused(_))
        ));
        assert_eq!(out.bytes(), b"whole");
        let sent = out.into_bytes();
        assert!(ledger.granted() > Bytes::ZERO);
        drop(sent);
        assert_eq!(ledger.granted(), Bytes::ZERO);
    }
}
