//! Reading a GGUF header.
//!
//! One pass over the header through a 64 KiB window. Settings are kept, except that arrays and
//! long strings are only walked and remembered by position: a vocabulary is read again, into a
//! packed table, when a tokenizer is built, and nothing holds it for longer.

use std::collections::BTreeMap;
use std::path::Path;

use bursar_kernels::quant::Dtype;

use super::value::{ArrayRef, Value, ValueType};
use super::{ALIGNMENT_DEFAULT, ALIGNMENT_KEY, MAGIC};
use crate::error::{DAMAGED, FileError, quoted};
use crate::source::Source;
use crate::strings::StringTable;
use crate::tensor::{TensorIndex, TensorInfo, check_overlap};

/// Longest key or tensor name in bytes. The specification allows 65,535 and 64.
const NAME_MAX: u64 = 65_535;
/// Longest string that is kept in memory.
const STRING_KEPT_MAX: u64 = 1 << 20;
/// Most settings and tensors in a file; real files have a few hundred.
const ENTRIES_MAX: u64 = 1 << 20;
/// Deepest nesting of arrays.
const DEPTH_MAX: usize = 8;
/// Largest alignment.
const ALIGNMENT_MAX: u64 = 1 << 20;
/// Most dimensions of a tensor.
const RANK_MAX: u32 = 4;

const TYPES: &str = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K";

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

/// Reads and checks the header of `source`, which is shard `file` of the model.
pub(crate) fn read(source: &Source, file: usize) -> Result<(Header, TensorIndex), FileError> {
    let mut cursor = Cursor::new(source);
    let path = source.path();
    let version = read_version(&mut cursor)?;
    let tensor_count = cursor.count("number of tensors", TENSOR_BYTES_MIN)?;
    let setting_count = cursor.count("number of settings", SETTING_BYTES_MIN)?;

    let mut settings = BTreeMap::new();
    for _ in 0..setting_count {
        let at = cursor.pos;
        let key = cursor.name("setting's name")?;
        let value = read_value(&mut cursor, &key)?;
        if settings.insert(key.clone(), value).is_some() {
            return Err(FileError::malformed(
                path,
                at,
                "setting",
                format!("{} twice", quoted(key.as_bytes())),
                "each name once",
            ));
        }
    }
    let alignment = read_alignment(path, &settings)?;

    let mut tensors = TensorIndex::default();
    for _ in 0..tensor_count {
        let tensor = read_tensor(&mut cursor, file, alignment)?;
        tensors.add(path, tensor)?;
    }
    let data_start = cursor
        .pos
        .checked_next_multiple_of(alignment)
        .filter(|start| {
            // A file without tensors may end at its header.
            *start <= source.len() || tensors.len() == 0
        });
    let data_start = data_start.ok_or_else(|| {
        FileError::malformed(
            path,
            cursor.pos,
            "start of the weights",
            "the end of the file",
            "weights",
        )
    })?;
    place_tensors(source, data_start, &mut tensors)?;
    Ok((
        Header {
            version,
            alignment,
            settings,
            data_start,
        },
        tensors,
    ))
}

// Smallest encodings: a setting is a key length, one byte of key, a type and one byte; a tensor is
// a name length, one byte of name, a rank, one dimension, a type and an offset.
const SETTING_BYTES_MIN: u64 = 8 + 1 + 4 + 1;
const TENSOR_BYTES_MIN: u64 = 8 + 1 + 4 + 8 + 4 + 8;

fn read_version(cursor: &mut Cursor<'_>) -> Result<u32, FileError> {
    let path = cursor.source.path();
    let wrong = |offset: u64, what: &str, got: String, want: &str, remedy: &'static str| {
        Err(FileError::Malformed {
            path: path.to_owned(),
            offset: Some(offset),
            what: what.into(),
            got,
            want: want.into(),
            remedy,
        })
    };
    let magic: [u8; 4] = cursor.take("magic number")?;
    if magic != MAGIC {
        let old = matches!(&magic, b"lmgg" | b"fmgg" | b"tjgg" | b"algg");
        let remedy = match old {
            true => "the file predates GGUF: convert it again with a current llama.cpp",
            false => "give a .gguf file, a .safetensors file or a model directory",
        };
        return wrong(0, "magic number", quoted(&magic), "\"GGUF\"", remedy);
    }
    match cursor.u32("version")? {
        version @ (2 | 3) => Ok(version),
        version if version & 0xffff == 0 && version != 0 => wrong(
            4,
            "byte order",
            "big-endian".into(),
            "little-endian",
            "convert the file on, or for, a little-endian machine",
        ),
        version => wrong(
            4,
            "version",
            version.to_string(),
            "2 or 3",
            "convert the model again with a current llama.cpp",
        ),
    }
}

fn read_alignment(path: &Path, settings: &BTreeMap<String, Value>) -> Result<u64, FileError> {
    match settings.get(ALIGNMENT_KEY) {
        None => Ok(ALIGNMENT_DEFAULT),
        Some(Value::Unsigned(n)) if n.is_power_of_two() && (1..=ALIGNMENT_MAX).contains(n) => {
            Ok(*n)
        }
        Some(other) => Err(FileError::config(
            path,
            ALIGNMENT_KEY,
            other.describe(),
            format!("a power of two up to {ALIGNMENT_MAX}"),
        )),
    }
}

fn read_value(cursor: &mut Cursor<'_>, key: &str) -> Result<Value, FileError> {
    let ty = cursor.value_type(key)?;
    Ok(match ty {
        ValueType::U8 => Value::Unsigned(u8::from_le_bytes(cursor.take(key)?).into()),
        ValueType::I8 => Value::Signed(i8::from_le_bytes(cursor.take(key)?).into()),
        ValueType::U16 => Value::Unsigned(u16::from_le_bytes(cursor.take(key)?).into()),
        ValueType::I16 => Value::Signed(i16::from_le_bytes(cursor.take(key)?).into()),
        ValueType::U32 => Value::Unsigned(u32::from_le_bytes(cursor.take(key)?).into()),
        ValueType::I32 => Value::Signed(i32::from_le_bytes(cursor.take(key)?).into()),
        ValueType::U64 => Value::Unsigned(u64::from_le_bytes(cursor.take(key)?)),
        ValueType::I64 => Value::Signed(i64::from_le_bytes(cursor.take(key)?)),
        ValueType::F32 => Value::Float(f32::from_le_bytes(cursor.take(key)?).into()),
        ValueType::F64 => Value::Float(f64::from_le_bytes(cursor.take(key)?)),
        ValueType::Bool => {
            let at = cursor.pos;
            match cursor.take(key)? {
                [0] => Value::Bool(false),
                [1] => Value::Bool(true),
                [other] => {
                    return Err(FileError::malformed(
                        cursor.source.path(),
                        at,
                        format!("setting {key}"),
                        other,
                        "0 or 1 (a truth value)",
                    ));
                }
            }
        }
        ValueType::String => {
            let len = cursor.length(key)?;
            let offset = cursor.pos;
            if len > STRING_KEPT_MAX {
                cursor.skip(len, key)?;
                Value::LongString { offset, len }
            } else {
                Value::String(cursor.text(len, key)?)
            }
        }
        ValueType::Array => Value::Array(walk_array(cursor, key, DEPTH_MAX)?),
    })
}

/// Passes over an array whose type and count come next, checking that every element is there.
fn walk_array(cursor: &mut Cursor<'_>, key: &str, depth: usize) -> Result<ArrayRef, FileError> {
    let at = cursor.pos;
    if depth == 0 {
        return Err(FileError::malformed(
            cursor.source.path(),
            at,
            format!("setting {key}"),
            format!("arrays nested more than {DEPTH_MAX} deep"),
            "fewer",
        ));
    }
    let element = cursor.value_type(key)?;
    let count = cursor.u64(key)?;
    let offset = cursor.pos;
    // An empty array within an array still takes its type and count.
    let least = element
        .fixed_bytes()
        .unwrap_or(if element == ValueType::Array { 12 } else { 8 });
    let bytes_min = count
        .checked_mul(least)
        .filter(|bytes| *bytes <= cursor.left());
    let Some(bytes_min) = bytes_min else {
        return Err(FileError::malformed(
            cursor.source.path(),
            at,
            format!("length of the array {key}"),
            count,
            format!(
                "at most {} (the file has {} bytes left)",
                cursor.left() / least,
                cursor.left()
            ),
        ));
    };
    match element {
        ValueType::String => {
            for _ in 0..count {
                let len = cursor.length(key)?;
                cursor.skip(len, key)?;
            }
        }
        ValueType::Array => {
            for _ in 0..count {
                walk_array(cursor, key, depth - 1)?;
            }
        }
        _ => cursor.skip(bytes_min, key)?,
    }
    Ok(ArrayRef {
        element,
        count,
        offset,
        bytes: cursor.pos - offset,
    })
}

/// Reads one tensor's description. Its offset stays relative until [`place_tensors`].
fn read_tensor(
    cursor: &mut Cursor<'_>,
    file: usize,
    alignment: u64,
) -> Result<TensorInfo, FileError> {
    let path = cursor.source.path();
    let name = cursor.name("tensor's name")?;
    let shown = quoted(name.as_bytes());
    let bad = |at: u64, what: &str, got: String, want: String| {
        FileError::malformed(path, at, format!("{what} of tensor {shown}"), got, want)
    };
    let at = cursor.pos;
    let rank = cursor.u32("a tensor's rank")?;
    if rank > RANK_MAX {
        return Err(bad(
            at,
            "rank",
            rank.to_string(),
            format!("at most {RANK_MAX}"),
        ));
    }
    let mut dims = [1u64; RANK_MAX as usize];
    for dim in dims.iter_mut().take(rank as usize) {
        let at = cursor.pos;
        *dim = cursor.u64("a tensor's dimension")?;
        if *dim == 0 {
            return Err(bad(at, "dimension", "0".into(), "at least 1".into()));
        }
    }
    let at = cursor.pos;
    let number = cursor.u32("a tensor's type")?;
    let Some(dtype) = Dtype::from_ggml_type(number) else {
        return Err(FileError::unsupported(
            path,
            format!("type of tensor {shown} (byte {at})"),
            ggml_type_name(number),
            TYPES,
            "quantise the model again to a supported type",
        ));
    };
    let at = cursor.pos;
    let offset = cursor.u64("a tensor's offset")?;
    if offset % alignment != 0 {
        return Err(bad(
            at,
            "offset",
            offset.to_string(),
            format!("a multiple of {alignment}"),
        ));
    }
    let too_big = || {
        bad(
            at,
            "size",
            format!("{dims:?} elements"),
            "what fits 62 bits".into(),
        )
    };
    let (rows, cols) = rows_and_cols(dims).ok_or_else(too_big)?;
    let bytes = tensor_bytes(dtype, rows, cols).map_err(|cause| match cause {
        SizeError::Blocks => bad(
            at,
            "row length",
            cols.to_string(),
            format!(
                "a multiple of {} ({} blocks)",
                dtype.block_elems(),
                dtype.name()
            ),
        ),
        SizeError::Overflow => too_big(),
    })?;
    Ok(TensorInfo {
        name,
        dtype,
        rows,
        cols,
        rank: rank as usize,
        file,
        offset,
        bytes,
    })
}

/// Splits dimensions, contiguous first, into rows and columns.
fn rows_and_cols(dims: [u64; RANK_MAX as usize]) -> Option<(usize, usize)> {
    let rows = dims[1..]
        .iter()
        .try_fold(1u64, |product, dim| product.checked_mul(*dim))?;
    Some((usize::try_from(rows).ok()?, usize::try_from(dims[0]).ok()?))
}

/// Why a tensor has no size.
pub(crate) enum SizeError {
    /// A row is not a whole number of blocks.
    Blocks,
    /// The product does not fit.
    Overflow,
}

/// Bytes of `rows` rows of `cols` elements; always below 2^62.
pub(crate) fn tensor_bytes(dtype: Dtype, rows: usize, cols: usize) -> Result<u64, SizeError> {
    if cols % dtype.block_elems() != 0 {
        return Err(SizeError::Blocks);
    }
    let blocks = cols / dtype.block_elems();
    let bytes = blocks
        .checked_mul(dtype.block_bytes())
        .and_then(|row| row.checked_mul(rows));
    let bytes = bytes.and_then(|bytes| u64::try_from(bytes).ok());
    bytes
        .filter(|bytes| *bytes < 1 << 62)
        .ok_or(SizeError::Overflow)
}

/// Makes offsets absolute and checks that the tensors lie within the file and apart.
fn place_tensors(
    source: &Source,
    data_start: u64,
    tensors: &mut TensorIndex,
) -> Result<(), FileError> {
    let path = source.path();
    for tensor in tensors.iter_mut() {
        let start = data_start.checked_add(tensor.offset);
        let end = start.and_then(|start| start.checked_add(tensor.bytes));
        match (start, end) {
            (Some(start), Some(end)) if end <= source.len() => tensor.offset = start,
            _ => {
                return Err(FileError::Malformed {
                    path: path.to_owned(),
                    offset: start,
                    what: format!("tensor {}", quoted(tensor.name.as_bytes())),
                    got: format!("{} bytes in a file of {}", tensor.bytes, source.len()),
                    want: "all of it inside the file".into(),
                    remedy: DAMAGED,
                });
            }
        }
    }
    let mut ranges: Vec<_> = tensors
        .iter()
        .map(|t| (t.offset, t.bytes, t.name.as_str()))
        .collect();
    check_overlap(path, &mut ranges)
}

/// The name of a type that is not supported, for the error.
fn ggml_type_name(number: u32) -> String {
    let name = match number {
        9 => "Q8_1",
        10 => "Q2_K",
        11 => "Q3_K",
        15 => "Q8_K",
        16 => "IQ2_XXS",
        17 => "IQ2_XS",
        18 => "IQ3_XXS",
        19 => "IQ1_S",
        20 => "IQ4_NL",
        21 => "IQ3_S",
        22 => "IQ2_S",
        23 => "IQ4_XS",
        24 => "I8",
        25 => "I16",
        26 => "I32",
        27 => "I64",
        28 => "F64",
        29 => "IQ1_M",
        34 => "TQ1_0",
        35 => "TQ2_0",
        39 => "MXFP4",
        _ => return format!("number {number}"),
    };
    name.into()
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

    /// Reads a string however long it is.
    pub(crate) fn long_string(
        &self,
        source: &Source,
        key: &str,
    ) -> Result<Option<String>, FileError> {
        match self.settings.get(key) {
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

/// A position in the file, with a window of bytes around it.
struct Cursor<'a> {
    source: &'a Source,
    /// The next byte.
    pos: u64,
    window: Vec<u8>,
    /// Position of the window's first byte.
    window_start: u64,
}

impl<'a> Cursor<'a> {
    const WINDOW: usize = 64 << 10;

    fn new(source: &'a Source) -> Cursor<'a> {
        Cursor::at(source, 0)
    }

    fn at(source: &'a Source, pos: u64) -> Cursor<'a> {
        Cursor {
            source,
            pos,
            window: Vec::new(),
            window_start: pos,
        }
    }

    /// Bytes between here and the end of the file.
    fn left(&self) -> u64 {
        self.source.len().saturating_sub(self.pos)
    }

    fn ends(&self, want: u64, what: &str) -> FileError {
        FileError::malformed(
            self.source.path(),
            self.pos,
            what,
            format!("the end of the file after {} bytes", self.left()),
            format!("{want} bytes"),
        )
    }

    fn skip(&mut self, bytes: u64, what: &str) -> Result<(), FileError> {
        if bytes > self.left() {
            return Err(self.ends(bytes, what));
        }
        self.pos += bytes;
        Ok(())
    }

    /// The next `N` bytes.
    fn take<const N: usize>(&mut self, what: &str) -> Result<[u8; N], FileError> {
        if N as u64 > self.left() {
            return Err(self.ends(N as u64, what));
        }
        let in_window = |cursor: &Cursor<'_>| {
            let start = cursor.pos.checked_sub(cursor.window_start)?;
            let start = usize::try_from(start).ok()?;
            cursor
                .window
                .get(start..start.checked_add(N)?)?
                .try_into()
                .ok()
        };
        if let Some(bytes) = in_window(self) {
            self.pos += N as u64;
            return Ok(bytes);
        }
        // A header in memory ends before its weights: ask for no more than is held, but for N.
        let held = self.source.held().saturating_sub(self.pos);
        let len = held.min(Self::WINDOW as u64).max(N as u64) as usize;
        self.window.resize(len, 0);
        self.window_start = self.pos;
        if let Err(e) = self.source.read_at(self.pos, &mut self.window) {
            self.window.clear();
            return Err(e);
        }
        let bytes = in_window(self).expect("the window was filled from here");
        self.pos += N as u64;
        Ok(bytes)
    }

    /// The next `len` bytes, into `out`.
    fn bytes(&mut self, len: u64, what: &str, out: &mut Vec<u8>) -> Result<(), FileError> {
        if len > self.left() {
            return Err(self.ends(len, what));
        }
        let len = usize::try_from(len).expect("at most the file's length");
        out.clear();
        out.resize(len, 0);
        let start = self
            .pos
            .checked_sub(self.window_start)
            .and_then(|s| usize::try_from(s).ok());
        let held = start.and_then(|s| self.window.get(s..s.checked_add(len)?));
        match held {
            Some(held) => out.copy_from_slice(held),
            None => self.source.read_at(self.pos, out)?,
        }
        self.pos += len as u64;
        Ok(())
    }

    fn u32(&mut self, what: &str) -> Result<u32, FileError> {
        Ok(u32::from_le_bytes(self.take(what)?))
    }

    fn u64(&mut self, what: &str) -> Result<u64, FileError> {
        Ok(u64::from_le_bytes(self.take(what)?))
    }

    /// A count of things that take at least `each` bytes of what is left.
    fn count(&mut self, what: &str, each: u64) -> Result<u64, FileError> {
        let at = self.pos;
        let count = self.u64(what)?;
        let most = (self.left() / each).min(ENTRIES_MAX);
        if count > most {
            let path = self.source.path();
            return Err(FileError::malformed(
                path,
                at,
                what,
                count,
                format!("at most {most}"),
            ));
        }
        Ok(count)
    }

    /// The length of a string, checked against what is left.
    fn length(&mut self, what: &str) -> Result<u64, FileError> {
        let at = self.pos;
        let len = self.u64(what)?;
        if len > self.left() {
            return Err(FileError::malformed(
                self.source.path(),
                at,
                format!("length of a string of {what}"),
                len,
                format!("at most {} (what is left of the file)", self.left()),
            ));
        }
        Ok(len)
    }

    /// The next `len` bytes as text.
    fn text(&mut self, len: u64, what: &str) -> Result<String, FileError> {
        let at = self.pos;
        let mut bytes = Vec::new();
        self.bytes(len, what, &mut bytes)?;
        String::from_utf8(bytes).map_err(|e| {
            let got = format!("a bad byte {} in", e.utf8_error().valid_up_to());
            FileError::malformed(self.source.path(), at, what, got, "UTF-8 text")
        })
    }

    /// A key or a tensor's name.
    fn name(&mut self, what: &str) -> Result<String, FileError> {
        let at = self.pos;
        let len = self.length(what)?;
        if !(1..=NAME_MAX).contains(&len) {
            let want = format!("1 to {NAME_MAX} bytes");
            return Err(FileError::malformed(
                self.source.path(),
                at,
                what,
                len,
                want,
            ));
        }
        self.text(len, what)
    }

    fn value_type(&mut self, key: &str) -> Result<ValueType, FileError> {
        let at = self.pos;
        let number = self.u32(key)?;
        ValueType::from_number(number).ok_or_else(|| {
            let what = format!("type of setting {}", quoted(key.as_bytes()));
            FileError::malformed(self.source.path(), at, what, number, "0 to 12")
        })
    }
}
