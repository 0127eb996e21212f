//! The safetensors header: a length, a JSON object of tensors, then their bytes without gaps.
//!
//! Read here rather than by the `safetensors` crate, which wants the whole file in memory or
//! mapped. The rules are that crate's: names once, ranges that match shapes, no overlap, no hole,
//! nothing after the last tensor.

use std::fmt;
use std::path::Path;

use bursar_kernels::quant::Dtype;
use serde::de::{self, Deserialize, Deserializer, IgnoredAny, MapAccess, Visitor};

use crate::error::{FileError, quoted};
use crate::source::Source;
use crate::tensor::{TensorIndex, TensorInfo, check_overlap};

/// Longest header; the format's own limit.
const HEADER_MAX: u64 = 100_000_000;
/// Most dimensions of a tensor.
const RANK_MAX: usize = 8;

/// Reads the header of `source`, shard `file` of the model, and adds its tensors.
pub(crate) fn read(
    source: &Source,
    file: usize,
    tensors: &mut TensorIndex,
) -> Result<(), FileError> {
    let path = source.path();
    if source.len() < 8 {
        let got = format!("{} bytes", source.len());
        return Err(FileError::malformed(
            path,
            0,
            "header length",
            got,
            "8 bytes",
        ));
    }
    let mut length = [0; 8];
    source.read_at(0, &mut length)?;
    let length = u64::from_le_bytes(length);
    let most = (source.len() - 8).min(HEADER_MAX);
    if length > most {
        let want = format!("at most {most}");
        return Err(FileError::malformed(path, 0, "header length", length, want));
    }
    let mut header = vec![0; usize::try_from(length).expect("below 100 MB")];
    source.read_at(8, &mut header)?;
    let header: Entries = serde_json::from_slice(&header)
        .map_err(|e| FileError::malformed(path, 8, "header", e, "a JSON object of tensors"))?;

    let data_start = 8 + length;
    let data_len = source.len() - data_start;
    for (name, entry) in &header.0 {
        add(source, file, data_start, data_len, name, entry, tensors)?;
    }
    check_coverage(path, data_start, data_len, &header.0)
}

/// Checks that the tensors' ranges cover the data once: no overlap, no hole, no rest.
fn check_coverage(
    path: &Path,
    data_start: u64,
    data_len: u64,
    entries: &[(String, Entry)],
) -> Result<(), FileError> {
    // `add` has checked every range against the data.
    let mut ranges: Vec<_> = entries
        .iter()
        .map(|(name, e)| (data_start + e.start, e.end - e.start, name.as_str()))
        .collect();
    check_overlap(path, &mut ranges)?;
    let mut end = data_start;
    for (start, bytes, name) in ranges {
        if start != end {
            let what = format!("tensor {}", quoted(name.as_bytes()));
            let got = format!("a gap of {} bytes before it", start - end);
            return Err(FileError::malformed(path, end, what, got, "no gap"));
        }
        end = start + bytes;
    }
    match end == data_start + data_len {
        true => Ok(()),
        false => Err(FileError::malformed(
            path,
            end,
            "end of the last tensor",
            format!("{} bytes after it", data_start + data_len - end),
            "the end of the file",
        )),
    }
}

fn add(
    source: &Source,
    file: usize,
    data_start: u64,
    data_len: u64,
    name: &str,
    entry: &Entry,
    tensors: &mut TensorIndex,
) -> Result<(), FileError> {
    let path = source.path();
    let shown = quoted(name.as_bytes());
    let bad = |what: &str, got: String, want: String| {
        FileError::malformed(path, None, format!("{what} of tensor {shown}"), got, want)
    };
    let (start, end) = (entry.start, entry.end);
    if start > end || end > data_len {
        let want = format!("a range within the {data_len} bytes of data");
        return Err(bad("byte range", format!("{start} to {end}"), want));
    }
    if entry.shape.len() > RANK_MAX {
        let want = format!("at most {RANK_MAX}");
        return Err(bad("rank", entry.shape.len().to_string(), want));
    }
    if entry.shape.contains(&0) {
        return Err(bad("dimension", "0".into(), "at least 1".into()));
    }
    let elements = entry
        .shape
        .iter()
        .try_fold(1u64, |product, dim| product.checked_mul(*dim));
    let size = element_bytes(&entry.dtype);
    if let Some(size) = size {
        let want = elements.and_then(|n| n.checked_mul(size));
        if want != Some(end - start) {
            let want = match want {
                Some(want) => format!("{want} for shape {:?} of {}", entry.shape, entry.dtype),
                None => "a shape that fits 64 bits".into(),
            };
            return Err(bad("length", (end - start).to_string(), want));
        }
    }
    let dtype = match entry.dtype.as_str() {
        "F32" => Dtype::F32,
        "F16" => Dtype::F16,
        "BF16" => Dtype::BF16,
        other => {
            tensors.add_unreadable(name.to_owned(), other.to_owned());
            return Ok(());
        }
    };
    // The contiguous dimension comes last here. The products are below the file's length.
    let (cols, outer) = match entry.shape.split_last() {
        Some((cols, outer)) => (*cols, outer.iter().product()),
        None => (1, 1u64),
    };
    let fits = |n: u64| usize::try_from(n).expect("below the file's length");
    let tensor = TensorInfo {
        name: name.to_owned(),
        dtype,
        rows: fits(outer),
        cols: fits(cols),
        rank: entry.shape.len(),
        file,
        offset: data_start + start,
        bytes: end - start,
    };
    tensors.add(path, tensor)
}

/// Bytes of one element; `None` for types that we do not know, or that are parts of a byte.
fn element_bytes(dtype: &str) -> Option<u64> {
    Some(match dtype {
        "BOOL" | "U8" | "I8" | "F8_E5M2" | "F8_E4M3" | "F8_E8M0" => 1,
        "I16" | "U16" | "F16" | "BF16" => 2,
        "I32" | "U32" | "F32" => 4,
        "I64" | "U64" | "F64" | "C64" => 8,
        _ => return None,
    })
}

/// One tensor as the header has it.
struct Entry {
    dtype: String,
    shape: Vec<u64>,
    start: u64,
    end: u64,
}

/// All tensors in the header's order, names checked to differ.
struct Entries(Vec<(String, Entry)>);

impl<'de> Deserialize<'de> for Entries {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entries, D::Error> {
        struct V;
        impl<'de> Visitor<'de> for V {
            type Value = Entries;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object of tensors")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Entries, A::Error> {
                let mut seen = std::collections::HashSet::new();
                let mut entries = Vec::new();
                while let Some(name) = map.next_key::<String>()? {
                    if !seen.insert(name.clone()) {
                        let shown = quoted(name.as_bytes());
                        return Err(de::Error::custom(format_args!("{shown} twice")));
                    }
                    if name == "__metadata__" {
                        map.next_value::<IgnoredAny>()?;
                    } else {
                        entries.push((name, map.next_value()?));
                    }
                }
                Ok(Entries(entries))
            }
        }
        deserializer.deserialize_map(V)
    }
}

impl<'de> Deserialize<'de> for Entry {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Entry, D::Error> {
        /// As in the file; other members are ignored.
        #[derive(serde::Deserialize)]
        struct Raw {
            dtype: String,
            shape: Vec<u64>,
            data_offsets: [u64; 2],
        }
        let Raw {
            dtype,
            shape,
            data_offsets: [start, end],
        } = Raw::deserialize(deserializer)?;
        Ok(Entry {
            dtype,
            shape,
            start,
            end,
        })
    }
}
