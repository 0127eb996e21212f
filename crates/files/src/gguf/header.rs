//! A checked GGUF header, and its settings by type. Arrays and long strings are read from the file
//! again when they are asked for.

use std::collections::BTreeMap;
use std::path::Path;

use super::cursor::Cursor;
use super::value::{ArrayRef, Value, ValueType};
use crate::error::FileError;
use crate::source::Source;
use crate::strings::StringTable;

/// Longest array that is read into memory; vocabularies have some 10^5 entries.
const ELEMENTS_MAX: u64 = 1 << 24;
/// Longest string that is read into memory; chat templates have some 10 KB.
const LONG_STRING_MAX: u64 = 16 << 20;

/// A GGUF header, checked.
#[derive(Debug)]
pub struct Header {
    /// Version of the format, 2 or 3.
    pub version: u32,
    /// Alignment of tensor data in bytes.
    pub alignment: u64,
    /// Settings by key.
    pub settings: BTreeMap<String, Value>,
    /// First byte of tensor data.
    pub data_start: u64,
}

impl Header {
    /// Reads an array of strings into a packed table.
    pub(crate) fn strings(
        &self,
        source: &Source,
        key: &str,
    ) -> Result<Option<StringTable>, FileError> {
        let Some(array) = self.array(source, key, &[ValueType::String], "an array of strings")?
        else {
            return Ok(None);
        };
        // Exact, and backed by bytes of the file: the walk passed over every one of them.
        let count = usize::try_from(array.count).expect("count was checked against the file");
        let text = array.bytes.saturating_sub(array.count.saturating_mul(8));
        let text = usize::try_from(text).expect("length was checked against the file");
        let mut table = StringTable::with_capacity(count, text);
        let mut cursor = Cursor::at(source, array.offset);
        let mut string = Vec::new();
        for _ in 0..count {
            let at = cursor.pos;
            let len = cursor.length(key)?;
            cursor.bytes(len, key, &mut string)?;
            // Also guards the capacity, should the file have changed since the walk.
            if cursor.pos > array.offset + array.bytes || !table.push(&string) {
                return Err(FileError::malformed(
                    source.path(),
                    at,
                    format!("strings of {key}"),
                    "more bytes than before",
                    "a file that does not change while it is read, with less than 4 GiB of strings",
                ));
            }
        }
        Ok(Some(table))
    }

    /// Reads an array of integers.
    pub(crate) fn integers(
        &self,
        source: &Source,
        key: &str,
    ) -> Result<Option<Vec<i64>>, FileError> {
        use ValueType::*;
        let kinds = [U8, I8, U16, I16, U32, I32, U64, I64];
        let Some(array) = self.array(source, key, &kinds, "an array of integers")? else {
            return Ok(None);
        };
        let mut cursor = Cursor::at(source, array.offset);
        let count = usize::try_from(array.count).expect("count was checked against the file");
        let mut numbers = Vec::with_capacity(count);
        for _ in 0..count {
            numbers.push(match array.element {
                U8 => u8::from_le_bytes(cursor.take(key)?).into(),
                I8 => i8::from_le_bytes(cursor.take(key)?).into(),
                U16 => u16::from_le_bytes(cursor.take(key)?).into(),
                I16 => i16::from_le_bytes(cursor.take(key)?).into(),
                U32 => u32::from_le_bytes(cursor.take(key)?).into(),
                I32 => i32::from_le_bytes(cursor.take(key)?).into(),
                I64 => i64::from_le_bytes(cursor.take(key)?),
                _ => {
                    let number = u64::from_le_bytes(cursor.take(key)?);
                    i64::try_from(number).map_err(|_| {
                        FileError::config(source.path(), key, number, "numbers of 63 bits")
                    })?
                }
            });
        }
        Ok(Some(numbers))
    }

    /// Reads an array of single-precision numbers.
    pub(crate) fn floats(&self, source: &Source, key: &str) -> Result<Option<Vec<f32>>, FileError> {
        let Some(array) = self.array(source, key, &[ValueType::F32], "an array of floats")? else {
            return Ok(None);
        };
        let mut cursor = Cursor::at(source, array.offset);
        let count = usize::try_from(array.count).expect("count was checked against the file");
        let mut numbers = Vec::with_capacity(count);
        for _ in 0..count {
            numbers.push(f32::from_le_bytes(cursor.take(key)?));
        }
        Ok(Some(numbers))
    }

    /// Reads a string, also one that was left in the file.
    pub(crate) fn long_string(
        &self,
        source: &Source,
        key: &str,
    ) -> Result<Option<String>, FileError> {
        match self.settings.get(key) {
            Some(value @ Value::LongString { len, .. }) if *len > LONG_STRING_MAX => {
                let want = format!("at most {LONG_STRING_MAX} bytes");
                Err(FileError::config(
                    source.path(),
                    key,
                    value.describe(),
                    want,
                ))
            }
            Some(Value::LongString { offset, len }) => {
                Cursor::at(source, *offset).text(*len, key).map(Some)
            }
            _ => self
                .string(source.path(), key)
                .map(|s| s.map(str::to_owned)),
        }
    }

    fn array(
        &self,
        source: &Source,
        key: &str,
        kinds: &[ValueType],
        want: &str,
    ) -> Result<Option<ArrayRef>, FileError> {
        match self.settings.get(key) {
            None => Ok(None),
            Some(Value::Array(array)) if array.count > ELEMENTS_MAX => {
                let want = format!("at most {ELEMENTS_MAX} values");
                Err(FileError::config(
                    source.path(),
                    key,
                    format!("{} values", array.count),
                    want,
                ))
            }
            Some(Value::Array(array)) if kinds.contains(&array.element) => Ok(Some(*array)),
            Some(other) => Err(FileError::config(
                source.path(),
                key,
                other.describe(),
                want,
            )),
        }
    }

    /// A string setting.
    pub(crate) fn string(&self, path: &Path, key: &str) -> Result<Option<&str>, FileError> {
        match self.settings.get(key) {
            None => Ok(None),
            Some(Value::String(s)) => Ok(Some(s)),
            Some(other) => Err(FileError::config(path, key, other.describe(), "a string")),
        }
    }

    /// A setting that is a natural number.
    pub(crate) fn natural(&self, path: &Path, key: &str) -> Result<Option<u64>, FileError> {
        match self.settings.get(key) {
            None => Ok(None),
            Some(Value::Unsigned(n)) => Ok(Some(*n)),
            Some(Value::Signed(n)) if *n >= 0 => Ok(Some(n.unsigned_abs())),
            Some(other) => Err(FileError::config(
                path,
                key,
                other.describe(),
                "an integer, 0 or more",
            )),
        }
    }

    /// A setting that is a real number.
    pub(crate) fn float(&self, path: &Path, key: &str) -> Result<Option<f32>, FileError> {
        match self.settings.get(key) {
            None => Ok(None),
            Some(Value::Float(x)) => Ok(Some(*x as f32)),
            Some(other) => Err(FileError::config(path, key, other.describe(), "a float")),
        }
    }

    /// A setting that is a truth value.
    pub(crate) fn truth(&self, path: &Path, key: &str) -> Result<Option<bool>, FileError> {
        match self.settings.get(key) {
            None => Ok(None),
            Some(Value::Bool(b)) => Ok(Some(*b)),
            Some(other) => Err(FileError::config(
                path,
                key,
                other.describe(),
                "true or false",
            )),
        }
    }
}
