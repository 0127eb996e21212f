//! Weights in memory, in the form the kernels stream.
//!
//! Tensors are read from the file in pieces of at most `PIECE_BYTES_MAX` through a staging buffer
//! that the caller lends, packed, and dropped from the page cache behind: neither a second copy of
//! the file nor a mapping of it ever exists.
//!
//! - `plan`: where each tensor lies.
//! - `stream`: the window that layers pass through where not all stay.
//! - `convert`: held weights into a smaller form, in place.

mod convert;
mod plan;
mod stream;

use bursar_files::{ModelFile, WeightsReader};
use bursar_kernels::panel::{PANEL_ROWS, Panels};
use bursar_kernels::quant::dequantize_row;
use bursar_memory::{Bytes, Mapping};
use bursar_profile::span;
use bursar_workers::Workers;

use crate::ModelError;
use crate::arch::{TensorForm, TensorSpec};
use crate::graph::plan::ALIGN;
use crate::graph::{Stage, TensorId};
use crate::recast::{Recast, WeightsDtype};
pub(crate) use convert::staging_bytes;
pub use plan::Residency;
pub(crate) use plan::WeightsPlan;
use plan::{Place, piece_rows, recast, row_bytes};
use stream::Stream;
pub use stream::StreamFigures;

/// The most that is read from a file at once.
pub const PIECE_BYTES_MAX: usize = 8 << 20;

/// Loaded weights.
pub(crate) struct Weights {
    held: Mapping,
    plan: WeightsPlan,
    tensors: Vec<TensorSpec>,
    /// What was read, whatever form it took.
    read: [u8; 32],
    /// The forms that it took, one after another.
    history: Vec<WeightsDtype>,
    digest: [u8; 32],
    stream: Option<Stream>,
    /// For what is read while the model runs.
    reader: Option<WeightsReader>,
}

/// Bytes that one hash covers while a file is read, so that workers share them whatever their number.
const DIGEST_PART: usize = 1 << 18;

/// The memory of a window.
pub(crate) struct Window {
    /// One for each layer that it holds, of `WeightsPlan::window` bytes.
    pub(crate) slots: Vec<Mapping>,
    /// The reader's own buffer.
    pub(crate) staging: Mapping,
}

impl Weights {
    /// Reads and packs every tensor that stays into `held`, which must hold `plan.held_bytes()`;
    /// `staging` must hold `plan.staging_bytes()`. Those that do not stay are read from now on into
    /// `window`. `progress` is told the file bytes read so far.
    #[allow(
        clippy::too_many_arguments,
        reason = "each comes from another owner, and there is one caller"
    )]
    pub(crate) fn load(
        file: &ModelFile,
        tensors: &[TensorSpec],
        dtype: WeightsDtype,
        plan: WeightsPlan,
        mut held: Mapping,
        window: Option<Window>,
        staging: &mut [u8],
        workers: &Workers,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Self, ModelError> {
        let mut done = 0u64;
        let mut digest = blake3::Hasher::new();
        for (tensor, place) in tensors.iter().zip(&plan.places) {
            digest.update(tensor.info.name.as_bytes());
            let Place::Held(range) = place else {
                continue;
            };
            let dst = &mut held.as_mut_slice()[range.clone()];
            let row_bytes = row_bytes(tensor)?;
            let piece = piece_rows(tensor)?;
            let mut row = 0;
            while row < tensor.info.rows {
                let rows = piece.min(tensor.info.rows - row);
                let (src, scratch) =
                    staging.split_at_mut((piece * row_bytes).next_multiple_of(ALIGN));
                let src = &mut src[..rows * row_bytes];
                let offset = row as u64 * row_bytes as u64;
                {
                    let _span = span!("load.read", src.len());
                    file.read_at(&tensor.info, offset, src)?;
                }
                {
                    let _span = span!("load.digest", src.len());
                    digest_parts(workers, src, &mut digest);
                }
                let _span = span!("load.pack", src.len());
                match recast(tensor) {
                    Some(recast) => pack(workers, &recast, row, row_bytes, src, scratch, dst),
                    None => {
                        let cols = tensor.info.cols;
                        let values: &mut [f32] = bytemuck::cast_slice_mut(dst);
                        for (i, line) in src.chunks_exact(row_bytes).enumerate() {
                            let at = (row + i) * cols;
                            dequantize_row(tensor.info.dtype, line, &mut values[at..at + cols]);
                        }
                    }
                }
                done += src.len() as u64;
                progress(done);
                row += rows;
            }
            file.drop_cache(&tensor.info, 0..tensor.info.bytes);
        }
        let by_the_way = plan.places.iter().any(|p| !matches!(p, Place::Held(_)));
        let reader = by_the_way.then(|| file.reader()).transpose()?;
        if let Some(reader) = &reader {
            // Not all has been read: the file's name, length and time stand for the rest.
            digest.update(reader.stamp().as_bytes());
        }
        let stream = match window {
            Some(window) => Some(Stream::start(file.reader()?, tensors, &plan, window)?),
            None => None,
        };
        let changes = |tensor: &TensorSpec| recast(tensor).is_some_and(|recast| recast.changes());
        let history = match tensors.iter().any(changes) {
            true => vec![dtype],
            false => Vec::new(),
        };
        let read = digest.finalize().into();
        Ok(Self {
            held,
            plan,
            tensors: tensors.to_vec(),
            digest: digest_of(&read, &history),
            read,
            history,
            stream,
            reader,
        })
    }

    /// BLAKE3 over all that was read and the forms it took: equal for models that compute the same.
    pub(crate) fn digest(&self) -> &[u8; 32] {
        &self.digest
    }

    /// A packed matrix; of a layer in the window, while it is fetched.
    pub(crate) fn panels(&self, tensor: TensorId) -> Panels<'_> {
        match self.tensors[tensor.0 as usize].form {
            TensorForm::Matrix(layout) => Panels::new(layout, self.bytes_of(tensor)),
            TensorForm::Vector { .. } => unreachable!("tensor {} is a vector", tensor.0),
        }
    }

    /// A vector of f32.
    pub(crate) fn vector(&self, tensor: TensorId) -> &[f32] {
        bytemuck::cast_slice(self.bytes_of(tensor))
    }

    fn bytes_of(&self, tensor: TensorId) -> &[u8] {
        match &self.plan.places[tensor.0 as usize] {
            Place::Held(range) => &self.held.as_slice()[range.clone()],
            Place::Window(range) => {
                let slot = self.stream.as_ref().and_then(Stream::current);
                &slot.expect("fetched before it is used")[range.clone()]
            }
            Place::File => unreachable!("tensor {} is read row by row", tensor.0),
        }
    }

    /// Whether the rows of a matrix are in the file alone.
    pub(crate) fn is_in_file(&self, tensor: TensorId) -> bool {
        matches!(self.plan.places[tensor.0 as usize], Place::File)
    }

    /// Reads rows of a matrix that is in the file alone: row `entries[i]` into row `i` of `out`,
    /// the numbers that a packed one would give.
    pub(crate) fn read_rows(
        &self,
        tensor: TensorId,
        entries: &[u32],
        out: &mut [f32],
    ) -> Result<(), ModelError> {
        let _span = span!("stream.rows", entries.len());
        let tensor = &self.tensors[tensor.0 as usize];
        let (row_bytes, cols) = (row_bytes(tensor)?, tensor.info.cols);
        let (Some(reader), Some(recast)) = (&self.reader, recast(tensor)) else {
            unreachable!("rows are read of matrices that are in the file alone");
        };
        reader.check_unchanged(&tensor.info)?;
        // In the order of the file, each row once.
        let mut order: Vec<usize> = (0..entries.len()).collect();
        order.sort_unstable_by_key(|&i| entries[i]);
        let mut src = vec![0; row_bytes];
        let mut line = Vec::new();
        let mut before: Option<usize> = None;
        for &i in &order {
            let at = i * cols;
            match before {
                Some(same) if entries[same] == entries[i] => {
                    out.copy_within(same * cols..(same + 1) * cols, at);
                }
                _ => {
                    let offset = u64::from(entries[i]) * row_bytes as u64;
                    reader.read_at(&tensor.info, offset, &mut src)?;
                    recast.row(&src, &mut line, &mut out[at..at + cols]);
                }
            }
            before = Some(i);
        }
        reader.drop_cache(&tensor.info, 0..tensor.info.bytes);
        Ok(())
    }

    /// Waits until the weights of a stage can be used.
    pub(crate) fn fetch(&mut self, stage: Stage) -> Result<(), ModelError> {
        match (&mut self.stream, stage) {
            (Some(stream), Stage::Layer(layer)) if self.plan.is_streamed(layer) => {
                stream.fetch(layer)
            }
            _ => Ok(()),
        }
    }

    /// Gives the weights of a stage up: others may be read in their place.
    pub(crate) fn release(&mut self, stage: Stage) {
        if let (Some(stream), Stage::Layer(_)) = (&mut self.stream, stage) {
            stream.release();
        }
    }

    /// What streaming has done and waited for; `None` where nothing is streamed.
    pub(crate) fn figures(&self) -> Option<StreamFigures> {
        self.stream.as_ref().map(Stream::figures)
    }

    /// Bytes of memory that the weights that stay really take.
    pub(crate) fn resident(&self) -> Option<Bytes> {
        self.held.resident().ok()
    }
}

/// What tells weights apart.
fn digest_of(read: &[u8; 32], history: &[WeightsDtype]) -> [u8; 32] {
    let mut digest = blake3::Hasher::new();
    digest.update(read);
    for dtype in history {
        digest.update(dtype.name().as_bytes());
    }
    digest.finalize().into()
}

/// Adds the hashes of the parts of `src` to `digest`.
fn digest_parts(workers: &Workers, src: &[u8], digest: &mut blake3::Hasher) {
    let mut parts: Vec<(&[u8], [u8; 32])> = src
        .chunks(DIGEST_PART)
        .map(|part| (part, [0; 32]))
        .collect();
    workers.for_each_mut(&mut parts, |_, (part, hash)| {
        *hash = blake3::hash(part).into();
    });
    for (_, hash) in &parts {
        digest.update(hash);
    }
}

/// Packs `src`, whole rows from `first_row` on, with the workers sharing the panels.
fn pack(
    workers: &Workers,
    recast: &Recast,
    first_row: usize,
    row_bytes: usize,
    src: &[u8],
    scratch: &mut [u8],
    dst: &mut [u8],
) {
    let layout = recast.to;
    let panels = (src.len() / row_bytes).div_ceil(PANEL_ROWS);
    let first = first_row / PANEL_ROWS * layout.panel_bytes();
    let dst = &mut dst[first..first + panels * layout.panel_bytes()];
    let each = recast.scratch_bytes();
    // Several parts per worker, but for conversion: each part has a scratch of its own.
    let parts = match scratch.len().checked_div(each) {
        Some(scratches) => workers.threads().min(scratches),
        None => workers.threads() * 2,
    };
    let share = panels.div_ceil(parts).max(1);
    let mut scratches = scratch.chunks_exact_mut(each.max(1));
    let mut parts: Vec<(&[u8], &mut [u8], &mut [u8])> = src
        .chunks(share * PANEL_ROWS * row_bytes)
        .zip(dst.chunks_mut(share * layout.panel_bytes()))
        .map(|(src, dst)| {
            let scratch = match each {
                0 => None,
                _ => scratches.next(),
            };
            (src, scratch.unwrap_or_default(), dst)
        })
        .collect();
    workers.for_each_mut(&mut parts, |_, (src, scratch, dst)| {
        let panels = dst.chunks_exact_mut(layout.panel_bytes());
        for (src, panel) in src.chunks(PANEL_ROWS * row_bytes).zip(panels) {
            recast.pack_panel(src, scratch, panel);
        }
    });
}
