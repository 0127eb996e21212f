//! How fast weights are read, packed and multiplied here, measured on a piece of the model itself:
//! what a plan that streams layers is judged by.

use std::time::{Duration, Instant};

use bursar_files::ModelFile;
use bursar_kernels::acts::{ActKind, ActLayout, Acts, quantize_acts};
use bursar_kernels::isa::Isa;
use bursar_kernels::mat::{MatMut, MatRef};
use bursar_kernels::matmul::{Mode, matmul};
use bursar_kernels::panel::{PANEL_ROWS, PanelLayout, Panels};

use crate::ModelError;
use crate::arch::{TensorForm, TensorSpec};
use crate::graph::Stage;
use crate::model::ModelPlan;
use crate::weights::PIECE_BYTES_MAX;

/// Most bytes that are read to measure.
const READ_BYTES_MAX: u64 = 64 << 20;
/// How long products are measured.
const PRODUCTS_TIME: Duration = Duration::from_millis(50);
/// Rows of activations that a product is measured with.
const ROWS: usize = 64;
/// Rows of weights that a product is measured with.
const WEIGHT_ROWS: usize = 256;

/// What this machine does with a model's weights, per second.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Rates {
    /// Bytes of the file read, the page cache emptied of them first. What lies beneath (a virtual
    /// machine's host, a disk's own memory) may still cache them.
    pub read_bytes_per_second: f64,
    /// Bytes of the file packed by one thread.
    pub pack_bytes_per_second: f64,
    /// Multiplications and additions of products with many rows, by all threads together.
    pub operations_per_second: f64,
}

impl Rates {
    /// Measures on the largest matrix of the model's layers. Takes some tenths of a second, or as long
    /// as the disk takes for 64 MiB, and 16 MiB of memory besides activations.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn measure(file: &ModelFile, plan: &ModelPlan, isa: Isa) -> Result<Self, ModelError> {
        let layers = |tensor: &&TensorSpec| matches!(tensor.stage, Stage::Layer(_));
        let matrices = plan.tensors().iter().filter(layers);
        let matrix = |tensor: &&TensorSpec| matches!(tensor.form, TensorForm::Matrix(_));
        let tensor = matrices
            .filter(matrix)
            .max_by_key(|tensor| tensor.info.bytes);
        let Some(tensor) = tensor else {
            return Err(ModelError::Unsuited {
                model: file.config().name.clone(),
                what: "be measured: it has no layers",
                remedy: "check the file",
            });
        };
        let info = &tensor.info;
        let row_bytes = info.row_bytes();
        let piece = (PIECE_BYTES_MAX / row_bytes / PANEL_ROWS).max(1) * PANEL_ROWS;
        let piece = piece.min(info.rows);
        let part = layout(tensor, piece)?;
        let mut src = vec![0; piece * row_bytes];
        let mut packed = vec![0; part.bytes()];
        file.drop_cache(info, 0..info.bytes);
        let (mut reading, mut packing, mut bytes) = (Duration::ZERO, Duration::ZERO, 0u64);
        let mut row = 0;
        while row + piece <= info.rows && bytes < READ_BYTES_MAX {
            let start = Instant::now();
            file.read_at(info, row as u64 * row_bytes as u64, &mut src)?;
            let read = Instant::now();
            part.pack(0, &src, &mut packed);
            packing += read.elapsed();
            reading += read - start;
            bytes += src.len() as u64;
            row += piece;
        }
        file.drop_cache(info, 0..info.bytes);
        let per_second = |time: Duration| bytes as f64 / time.as_secs_f64().max(1e-9);
        let few = layout(tensor, piece.min(WEIGHT_ROWS))?;
        let panels = Panels::new(few, &packed[..few.bytes()]);
        Ok(Self {
            read_bytes_per_second: per_second(reading),
            pack_bytes_per_second: per_second(packing),
            operations_per_second: products(isa, panels, plan.options().workers),
        })
    }
}

/// The layout of some rows of a matrix as the file stores it.
fn layout(tensor: &TensorSpec, rows: usize) -> Result<PanelLayout, ModelError> {
    let info = &tensor.info;
    PanelLayout::new(info.dtype, rows, info.cols).ok_or_else(|| ModelError::TooLarge {
        what: info.name.clone(),
    })
}

/// Operations per second of all threads together.
fn products(isa: Isa, weights: Panels<'_>, threads: usize) -> f64 {
    let cols = weights.cols();
    let x: Vec<f32> = (0..ROWS * cols).map(|i| (i % 29) as f32 - 14.0).collect();
    let x = MatRef::dense(&x, ROWS, cols);
    let kind = ActKind::of(weights.dtype());
    let layout = match kind {
        ActKind::F32 => None,
        kind => ActLayout::new(kind, cols),
    };
    let mut quantized = vec![0; layout.map_or(0, |layout| ROWS * layout.row_bytes())];
    let acts = match layout {
        None => Acts::F32(x),
        Some(layout) => {
            quantize_acts(isa, kind, x, &mut quantized);
            Acts::Quantized {
                layout,
                rows: ROWS,
                bytes: &quantized,
            }
        }
    };
    let width = weights.rows().len();
    let work = || {
        let mut out = vec![0.0; ROWS * width];
        let (start, mut count) = (Instant::now(), 0u32);
        while start.elapsed() < PRODUCTS_TIME || count == 0 {
            matmul(
                isa,
                weights,
                acts,
                MatMut::dense(&mut out, ROWS, width),
                Mode::Store,
            );
            count += 1;
        }
        let operations = f64::from(count) * 2.0 * (ROWS * width * cols) as f64;
        operations / start.elapsed().as_secs_f64()
    };
    std::thread::scope(|scope| {
        let others: Vec<_> = (1..threads).map(|_| scope.spawn(work)).collect();
        let own = work();
        let others = others
            .into_iter()
            .map(|thread| thread.join().unwrap_or(0.0));
        own + others.sum::<f64>()
    })
}
