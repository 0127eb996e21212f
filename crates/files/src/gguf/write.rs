//! Writing a GGUF file: settings, tensor descriptions, then tensors streamed from a callback, so
//! that a file of any size is written in little memory.

use std::io::{self, Write};

use bursar_kernels::quant::Dtype;

use super::read::{SizeError, tensor_bytes};
use super::value::ValueType;
use super::{ALIGNMENT_DEFAULT, ALIGNMENT_KEY, MAGIC};
use crate::error::FileError;

/// A tensor to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TensorSpec {
    /// Its name.
    pub name: String,
    /// How its elements are stored.
    pub dtype: Dtype,
    /// Dimensions, contiguous one first, 1 to 4 of them, none 0.
    pub dims: Vec<u64>,
    /// Length in bytes.
    pub bytes: u64,
    /// First byte, counted from the start of tensor data.
    pub offset: u64,
}

/// Collects settings and tensor descriptions, then writes the file.
#[derive(Clone, Debug)]
pub struct Writer {
    settings: Vec<u8>,
    setting_count: u64,
    tensors: Vec<TensorSpec>,
    alignment: u64,
    data_bytes: u64,
}

impl Default for Writer {
    fn default() -> Writer {
        Writer::new()
    }
}

impl Writer {
    /// A file with the default alignment of 32 bytes.
    pub fn new() -> Writer {
        Writer {
            settings: Vec::new(),
            setting_count: 0,
            tensors: Vec::new(),
            alignment: ALIGNMENT_DEFAULT,
            data_bytes: 0,
        }
    }

    /// A file whose tensors are aligned to `alignment` bytes, a power of two.
    ///
    /// # Panics
    /// If it is not.
    pub fn with_alignment(alignment: u32) -> Writer {
        assert!(
            alignment.is_power_of_two(),
            "an alignment is a power of two"
        );
        let mut writer = Writer {
            alignment: alignment.into(),
            ..Writer::new()
        };
        writer.u32(ALIGNMENT_KEY, alignment);
        writer
    }

    fn key(&mut self, key: &str, ty: ValueType) {
        self.setting_count += 1;
        self.put_string(key.as_bytes());
        self.settings.extend_from_slice(&(ty as u32).to_le_bytes());
    }

    fn put_string(&mut self, string: &[u8]) {
        self.settings
            .extend_from_slice(&(string.len() as u64).to_le_bytes());
        self.settings.extend_from_slice(string);
    }

    fn array(&mut self, key: &str, element: ValueType, count: usize) {
        self.key(key, ValueType::Array);
        self.settings
            .extend_from_slice(&(element as u32).to_le_bytes());
        self.settings
            .extend_from_slice(&(count as u64).to_le_bytes());
    }

    /// Adds a setting of any type, its value encoded as the format has it (for the types that have
    /// no method of their own).
    pub fn encoded(&mut self, key: &str, ty: ValueType, value: &[u8]) {
        self.key(key, ty);
        self.settings.extend_from_slice(value);
    }

    /// Adds a 32-bit unsigned setting.
    pub fn u32(&mut self, key: &str, value: u32) {
        self.key(key, ValueType::U32);
        self.settings.extend_from_slice(&value.to_le_bytes());
    }

    /// Adds a 64-bit unsigned setting.
    pub fn u64(&mut self, key: &str, value: u64) {
        self.key(key, ValueType::U64);
        self.settings.extend_from_slice(&value.to_le_bytes());
    }

    /// Adds a single-precision setting.
    pub fn f32(&mut self, key: &str, value: f32) {
        self.key(key, ValueType::F32);
        self.settings.extend_from_slice(&value.to_le_bytes());
    }

    /// Adds a truth value.
    pub fn bool(&mut self, key: &str, value: bool) {
        self.key(key, ValueType::Bool);
        self.settings.push(value.into());
    }

    /// Adds a string.
    pub fn string(&mut self, key: &str, value: &str) {
        self.key(key, ValueType::String);
        self.put_string(value.as_bytes());
    }

    /// Adds an array of strings.
    pub fn strings<'a>(&mut self, key: &str, values: impl ExactSizeIterator<Item = &'a [u8]>) {
        self.array(key, ValueType::String, values.len());
        for value in values {
            self.put_string(value);
        }
    }

    /// Adds an array of 32-bit signed integers.
    pub fn i32s(&mut self, key: &str, values: impl ExactSizeIterator<Item = i32>) {
        self.array(key, ValueType::I32, values.len());
        for value in values {
            self.settings.extend_from_slice(&value.to_le_bytes());
        }
    }

    /// Adds an array of single-precision numbers.
    pub fn f32s(&mut self, key: &str, values: impl ExactSizeIterator<Item = f32>) {
        self.array(key, ValueType::F32, values.len());
        for value in values {
            self.settings.extend_from_slice(&value.to_le_bytes());
        }
    }

    /// Adds a tensor; `dims` has the contiguous dimension first. Returns its index.
    ///
    /// # Errors
    /// If there are no or more than 4 dimensions, if one is 0, if rows are not whole blocks, or if
    /// the size overflows.
    pub fn tensor(&mut self, name: &str, dtype: Dtype, dims: &[u64]) -> Result<usize, FileError> {
        let wrong = |want: String| FileError::Request {
            what: format!("dimensions of tensor {name}"),
            got: format!("{dims:?}"),
            want,
        };
        if dims.is_empty() || dims.len() > 4 || dims.contains(&0) {
            return Err(wrong("1 to 4 dimensions, none 0".into()));
        }
        let too_big = || wrong("a size that fits 62 bits".into());
        let rows = dims[1..]
            .iter()
            .try_fold(1u64, |product, dim| product.checked_mul(*dim));
        let rows = rows
            .and_then(|rows| usize::try_from(rows).ok())
            .ok_or_else(too_big)?;
        let cols = usize::try_from(dims[0]).map_err(|_| too_big())?;
        let bytes = tensor_bytes(dtype, rows, cols).map_err(|cause| match cause {
            SizeError::Overflow => too_big(),
            SizeError::Blocks => wrong(format!(
                "rows of a multiple of {} for {dtype}",
                dtype.block_elems()
            )),
        })?;
        let offset = self.data_bytes;
        let end = offset
            .checked_add(bytes)
            .and_then(|e| e.checked_next_multiple_of(self.alignment));
        self.data_bytes = end.filter(|end| *end < 1 << 62).ok_or_else(too_big)?;
        let dims = dims.to_vec();
        self.tensors.push(TensorSpec {
            name: name.into(),
            dtype,
            dims,
            bytes,
            offset,
        });
        Ok(self.tensors.len() - 1)
    }

    /// The tensors in the order in which they are written.
    pub fn tensors(&self) -> &[TensorSpec] {
        &self.tensors
    }

    /// The bytes before the first tensor, padding included.
    pub fn header(&self) -> Vec<u8> {
        let mut header = Vec::with_capacity(self.settings.len() + 128 * self.tensors.len() + 128);
        header.extend_from_slice(&MAGIC);
        header.extend_from_slice(&3u32.to_le_bytes());
        header.extend_from_slice(&(self.tensors.len() as u64).to_le_bytes());
        header.extend_from_slice(&self.setting_count.to_le_bytes());
        header.extend_from_slice(&self.settings);
        for tensor in &self.tensors {
            header.extend_from_slice(&(tensor.name.len() as u64).to_le_bytes());
            header.extend_from_slice(tensor.name.as_bytes());
            header.extend_from_slice(&(tensor.dims.len() as u32).to_le_bytes());
            for dim in &tensor.dims {
                header.extend_from_slice(&dim.to_le_bytes());
            }
            header.extend_from_slice(&tensor.dtype.ggml_type().to_le_bytes());
            header.extend_from_slice(&tensor.offset.to_le_bytes());
        }
        let padded = header.len().next_multiple_of(self.alignment as usize);
        header.resize(padded, 0);
        header
    }

    /// Length of the whole file for a header of `header_len` bytes.
    pub fn file_bytes(&self, header_len: usize) -> u64 {
        header_len as u64 + self.data_bytes
    }

    /// Writes the file. `fill` is called once per tensor, in order, and writes that tensor's bytes.
    ///
    /// # Errors
    /// Those of `out` and `fill`; and if `fill` writes another number of bytes than the tensor has.
    pub fn write<W: Write>(
        &self,
        out: W,
        mut fill: impl FnMut(usize, &TensorSpec, &mut dyn Write) -> io::Result<()>,
    ) -> io::Result<u64> {
        let mut out = Counted { out, written: 0 };
        out.write_all(&self.header())?;
        for (index, tensor) in self.tensors.iter().enumerate() {
            let start = out.written;
            fill(index, tensor, &mut out)?;
            let got = out.written - start;
            if got != tensor.bytes {
                let name = &tensor.name;
                return Err(io::Error::other(format!(
                    "tensor {name}: got {got} bytes to write, want {}",
                    tensor.bytes
                )));
            }
            let padded = got.next_multiple_of(self.alignment);
            out.write_all(&vec![0; (padded - got) as usize])?;
        }
        out.flush()?;
        Ok(out.written)
    }
}

/// Counts what passes through.
struct Counted<W> {
    out: W,
    written: u64,
}

impl<W: Write> Write for Counted<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.out.write(bytes)?;
        self.written += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
