//! Reading a GGUF header.
//!
//! One pass over the header through a 64 KiB window. Settings are kept, except that arrays and
//! long strings are only walked and remembered by position: a vocabulary is read again, into a
//! packed table, when a tokenizer is built, and nothing holds it for longer.

use std::collections::BTreeMap;
use std::path::Path;

use bursar_kernels::quant::Dtype;

use super::cursor::Cursor;
use super::header::Header;
use super::value::{ArrayRef, Value, ValueType};
use super::{ALIGNMENT_DEFAULT, ALIGNMENT_KEY, MAGIC};
use crate::error::{FileError, quoted};
use crate::source::Source;
use crate::tensor::{TensorIndex, TensorInfo, check_overlap};

/// Longest string that is kept in memory.
const STRING_KEPT_MAX: u64 = 1 << 20;
/// Most bytes of names and strings kept in memory; real files have some 50 KB.
const KEPT_MAX: usize = 64 << 20;
/// Deepest nesting of arrays.
const DEPTH_MAX: usize = 8;
/// Largest alignment.
const ALIGNMENT_MAX: u64 = 1 << 20;
/// Most dimensions of a tensor.
const RANK_MAX: u32 = 4;

const TYPES: &str = "F32, F16, BF16, Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q4_K, Q5_K, Q6_K";

/// Reads and checks the header of `source`, which is shard `file` of the model.
pub(crate) fn read(source: &Source, file: usize) -> Result<(Header, TensorIndex), FileError> {
    let mut cursor = Cursor::new(source);
    let path = source.path();
    let version = read_version(&mut cursor)?;
    let tensor_count = cursor.count("number of tensors", TENSOR_BYTES_MIN)?;
    let setting_count = cursor.count("number of settings", SETTING_BYTES_MIN)?;

    let mut kept = 0;
    let mut keep = |at: u64, bytes: usize| {
        kept += bytes;
        match kept <= KEPT_MAX {
            true => Ok(()),
            false => {
                let want = format!("at most {KEPT_MAX} bytes");
                Err(FileError::malformed(
                    path,
                    at,
                    "names and strings of the header",
                    kept,
                    want,
                ))
            }
        }
    };
    let mut settings = BTreeMap::new();
    for _ in 0..setting_count {
        let at = cursor.pos;
        let key = cursor.name("setting's name")?;
        let value = read_value(&mut cursor, &key)?;
        let text = if let Value::String(text) = &value {
            text.len()
        } else {
            0
        };
        keep(at, key.len() + text)?;
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
        let at = cursor.pos;
        let tensor = read_tensor(&mut cursor, file, alignment)?;
        keep(at, tensor.name.len())?;
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
        Err(FileError::malformed(path, offset, what, got, want).with_remedy(remedy))
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
    if !cols.is_multiple_of(dtype.block_elems()) {
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
                let what = format!("tensor {}", quoted(tensor.name.as_bytes()));
                let got = format!("{} bytes in a file of {}", tensor.bytes, source.len());
                return Err(FileError::malformed(
                    path,
                    start,
                    what,
                    got,
                    "all of it inside the file",
                ));
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
