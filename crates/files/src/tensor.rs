//! A tensor as the file describes it, and the index by name.

use std::collections::HashMap;
use std::path::Path;

use bursar_kernels::quant::Dtype;

use crate::error::{FileError, quoted};

/// Where a tensor lies and what it is. All numbers have been checked against the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorInfo {
    /// Its name in the file.
    pub name: String,
    /// How its elements are stored.
    pub dtype: Dtype,
    /// Rows: the product of all dimensions but the contiguous one; 1 for a vector.
    pub rows: usize,
    /// Elements per row, the contiguous dimension.
    pub cols: usize,
    /// Number of dimensions in the file, 0 to 4.
    pub rank: usize,
    /// Which of the model's files holds it (index into its shards).
    pub file: usize,
    /// First byte within that file.
    pub offset: u64,
    /// Length in bytes: `rows * dtype.row_bytes(cols)`.
    pub bytes: u64,
}

impl TensorInfo {
    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        // Checked when the header was read.
        self.dtype
            .row_bytes(self.cols)
            .expect("the reader admits whole blocks only")
    }

    /// "rows x cols DTYPE", or "cols DTYPE" for a vector.
    pub fn shape(&self) -> String {
        match self.rank {
            0 | 1 => format!("{} {}", self.cols, self.dtype.name()),
            _ => format!("{} x {} {}", self.rows, self.cols, self.dtype.name()),
        }
    }
}

/// The tensors of a model in the order of the file, findable by name.
#[derive(Debug, Default)]
pub(crate) struct TensorIndex {
    tensors: Vec<TensorInfo>,
    by_name: HashMap<Box<str>, usize>,
    /// Names of tensors whose type no architecture uses (integers in old checkpoints), and the
    /// type: an error only if something asks for them.
    unreadable: Vec<(String, String)>,
}

impl TensorIndex {
    /// Adds a tensor; an error if the name is taken.
    pub(crate) fn add(&mut self, path: &Path, tensor: TensorInfo) -> Result<(), FileError> {
        let index = self.tensors.len();
        if self
            .by_name
            .insert(tensor.name.as_str().into(), index)
            .is_some()
        {
            return Err(FileError::malformed(
                path,
                None,
                "tensor name",
                format!("{} twice", quoted(tensor.name.as_bytes())),
                "each name once",
            ));
        }
        self.tensors.push(tensor);
        Ok(())
    }

    /// Remembers a tensor that cannot be read, for a clear error if it is needed.
    pub(crate) fn add_unreadable(&mut self, name: String, dtype: String) {
        self.unreadable.push((name, dtype));
    }

    pub(crate) fn get(&self, name: &str) -> Option<&TensorInfo> {
        self.by_name.get(name).map(|&index| &self.tensors[index])
    }

    pub(crate) fn unreadable(&self, name: &str) -> Option<&str> {
        self.unreadable
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, dtype)| dtype.as_str())
    }

    pub(crate) fn iter(&self) -> std::slice::Iter<'_, TensorInfo> {
        self.tensors.iter()
    }

    pub(crate) fn iter_mut(&mut self) -> std::slice::IterMut<'_, TensorInfo> {
        self.tensors.iter_mut()
    }

    pub(crate) fn len(&self) -> usize {
        self.tensors.len()
    }
}

/// Checks that the byte ranges of one file's tensors do not overlap. `ranges` is (offset, bytes,
/// name); it is sorted in place.
pub(crate) fn check_overlap(path: &Path, ranges: &mut [(u64, u64, &str)]) -> Result<(), FileError> {
    ranges.sort_unstable();
    for pair in ranges.windows(2) {
        let (start, bytes, name) = pair[0];
        let (next, _, other) = pair[1];
        // Ends were checked against the file's length, so this cannot overflow.
        if start + bytes > next {
            return Err(FileError::malformed(
                path,
                next,
                format!("tensor {}", quoted(other.as_bytes())),
                format!(
                    "bytes shared with {}, which ends at {}",
                    quoted(name.as_bytes()),
                    start + bytes
                ),
                "bytes of its own",
            ));
        }
    }
    Ok(())
}
