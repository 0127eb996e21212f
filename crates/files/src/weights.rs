//! Bytes of tensors by position: what an opened model and a reader that outlives it do alike.

use std::ops::Range;
use std::time::SystemTime;

use crate::error::FileError;
use crate::source::Source;
use crate::tensor::TensorInfo;

/// A model's weights, to be read while the model runs.
#[derive(Debug)]
pub struct WeightsReader {
    shards: Vec<Source>,
    /// When each file was last written to.
    modified: Vec<Option<SystemTime>>,
}

impl WeightsReader {
    pub(crate) fn new(shards: &[Source]) -> Result<Self, FileError> {
        let again = |shard: &Source| {
            shard.again()?.ok_or_else(|| FileError::HeaderOnly {
                name: shard.path().to_string_lossy().into_owned(),
            })
        };
        let shards = shards.iter().map(again).collect::<Result<Vec<_>, _>>()?;
        Ok(Self {
            modified: shards.iter().map(Source::modified).collect(),
            shards,
        })
    }

    /// As [`ModelFile::read_at`](crate::ModelFile::read_at).
    ///
    /// # Errors
    /// As there.
    pub fn read_at(
        &self,
        tensor: &TensorInfo,
        offset: u64,
        buf: &mut [u8],
    ) -> Result<(), FileError> {
        read_at(&self.shards, tensor, offset, buf)
    }

    /// Fails if the file of a tensor has been written to since it was opened: what was read of it
    /// before and what is read now may be of different models.
    ///
    /// # Errors
    /// If so.
    pub fn check_unchanged(&self, tensor: &TensorInfo) -> Result<(), FileError> {
        let shard = self.shards.get(tensor.file);
        let then = self.modified.get(tensor.file);
        match (shard, then) {
            (Some(shard), Some(then)) if shard.modified() != *then => Err(FileError::malformed(
                shard.path(),
                None,
                "model file",
                "written to while the model runs from it",
                "the file that was opened",
            )
            .with_remedy("load the model again")),
            _ => Ok(()),
        }
    }

    /// Files and when they were written, in words: different if any was changed since.
    pub fn stamp(&self) -> String {
        let part = |(shard, at): (&Source, &Option<SystemTime>)| {
            format!("{} {} {at:?}; ", shard.path().display(), shard.len())
        };
        self.shards.iter().zip(&self.modified).map(part).collect()
    }

    /// As [`ModelFile::drop_cache`](crate::ModelFile::drop_cache).
    pub fn drop_cache(&self, tensor: &TensorInfo, range: Range<u64>) {
        drop_cache(&self.shards, tensor, range);
    }

    /// Tells the kernel that a part of a tensor will be read soon. Advice, as for `drop_cache`.
    pub fn read_ahead(&self, tensor: &TensorInfo, range: Range<u64>) {
        let (start, end) = (range.start.min(tensor.bytes), range.end.min(tensor.bytes));
        if let (Some(shard), true) = (self.shards.get(tensor.file), start < end) {
            shard.read_ahead(tensor.offset + start, end - start);
        }
    }
}

pub(crate) fn read_at(
    shards: &[Source],
    tensor: &TensorInfo,
    offset: u64,
    buf: &mut [u8],
) -> Result<(), FileError> {
    let end = offset.checked_add(buf.len() as u64);
    match (end, shards.get(tensor.file)) {
        (Some(end), Some(shard)) if end <= tensor.bytes => {
            shard.read_at(tensor.offset + offset, buf)
        }
        _ => Err(FileError::Request {
            what: format!("bytes to read of tensor {}", tensor.name),
            got: format!("{} from {offset}", buf.len()),
            want: format!("a range within its {} bytes", tensor.bytes),
        }),
    }
}

pub(crate) fn drop_cache(shards: &[Source], tensor: &TensorInfo, range: Range<u64>) {
    let (start, end) = (range.start.min(tensor.bytes), range.end.min(tensor.bytes));
    if let (Some(shard), true) = (shards.get(tensor.file), start < end) {
        shard.drop_cache(tensor.offset + start, end - start);
    }
}
