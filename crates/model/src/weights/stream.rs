//! Layers that pass through a window: a thread reads and packs them ahead while others compute.
//!
//! ```text
//!   reader:  empty slot ──► read and pack layer n ──► filled queue, in the order of the layers,
//!                ▲                                        │        over and over
//!   pass:        └───────── release layer n ◄── compute ◄─┘ fetch layer n
//! ```
//!
//! Slots travel through two channels, so whoever has one is alone with its memory. The reader never
//! has more than the window, and while no pass runs it has filled it with the beginning of the next.
//! After an error it begins again with the first layer, as the next pass will.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use bursar_files::{FileError, TensorInfo, WeightsReader};
use bursar_kernels::panel::PANEL_ROWS;
use bursar_memory::Mapping;
use bursar_profile::span;

use super::Window;
use super::plan::{Place, WeightsPlan, piece_rows, recast, row_bytes};
use crate::ModelError;
use crate::arch::TensorSpec;
use crate::graph::Stage;
use crate::graph::plan::ALIGN;
use crate::recast::Recast;

/// The reader's stack: it calls nothing deep.
const STACK_BYTES: usize = 256 << 10;

/// Memory for one layer.
pub(super) type Slot = Mapping;

/// What streaming has done since the model was loaded.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub struct StreamFigures {
    /// Layers read.
    pub layers: u64,
    /// Bytes of the file read for that.
    pub bytes: u64,
    /// Time the reader spent on reading.
    pub reading: Duration,
    /// Time the reader spent on packing.
    pub packing: Duration,
    /// Time passes waited for layers.
    pub waiting: Duration,
}

#[derive(Default)]
struct Counts {
    layers: AtomicU64,
    bytes: AtomicU64,
    reading_ns: AtomicU64,
    packing_ns: AtomicU64,
}

/// A layer that has been read, or could not be.
struct Filled {
    layer: usize,
    slot: Slot,
    result: Result<(), FileError>,
}

/// The computing side of a window.
pub(super) struct Stream {
    /// Never locked: workers that share the weights do not touch it, and the mutex says so.
    filled: Mutex<Receiver<Filled>>,
    /// Gone once the reader is to end.
    empty: Option<SyncSender<Slot>>,
    thread: Option<JoinHandle<()>>,
    current: Option<Filled>,
    counts: Arc<Counts>,
    waiting: Duration,
}

impl Stream {
    /// Starts the reader, which begins at once.
    pub(super) fn start(
        file: WeightsReader,
        tensors: &[TensorSpec],
        plan: &WeightsPlan,
        window: Window,
    ) -> Result<Self, ModelError> {
        let counts = Arc::new(Counts::default());
        // Room for every slot: sending neither waits nor allocates.
        let slots = window.slots.len();
        let (to_reader, empty) = sync_channel(slots);
        let (to_pass, filled) = sync_channel(slots);
        for slot in window.slots {
            // The reader's end is held below.
            let _ = to_reader.send(slot);
        }
        let reader = Reader {
            file,
            pieces: pieces(tensors, plan)?,
            staging: window.staging,
            counts: Arc::clone(&counts),
        };
        let thread = std::thread::Builder::new()
            .name("weights".to_owned())
            .stack_size(STACK_BYTES)
            .spawn(move || reader.run(&empty, &to_pass))
            .map_err(ModelError::Thread)?;
        Ok(Self {
            filled: Mutex::new(filled),
            empty: Some(to_reader),
            thread: Some(thread),
            current: None,
            counts,
            waiting: Duration::ZERO,
        })
    }

    /// Waits for a layer. Layers are fetched in their order, all of them in a pass.
    pub(super) fn fetch(&mut self, layer: usize) -> Result<(), ModelError> {
        let _span = span!("stream.wait", layer);
        self.release();
        let start = Instant::now();
        loop {
            let queue = self
                .filled
                .get_mut()
                .unwrap_or_else(PoisonError::into_inner);
            let filled = queue.recv().map_err(|_| ModelError::ReaderGone)?;
            let Filled {
                layer: got, result, ..
            } = &filled;
            if *got == layer && result.is_ok() {
                self.waiting += start.elapsed();
                self.current = Some(filled);
                return Ok(());
            }
            let Filled { slot, result, .. } = filled;
            self.give(slot);
            // A layer before this one is left over from a pass that was given up.
            result?;
        }
    }

    /// Gives the layer that was fetched up.
    pub(super) fn release(&mut self) {
        if let Some(Filled { slot, .. }) = self.current.take() {
            self.give(slot);
        }
    }

    fn give(&self, slot: Slot) {
        if let Some(empty) = &self.empty {
            // A reader that has died is reported by the next fetch.
            let _ = empty.send(slot);
        }
    }

    /// The bytes of the layer that was fetched.
    pub(super) fn current(&self) -> Option<&[u8]> {
        self.current.as_ref().map(|filled| filled.slot.as_slice())
    }

    /// What was done and waited for.
    pub(super) fn figures(&self) -> StreamFigures {
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        StreamFigures {
            layers: load(&self.counts.layers),
            bytes: load(&self.counts.bytes),
            reading: Duration::from_nanos(load(&self.counts.reading_ns)),
            packing: Duration::from_nanos(load(&self.counts.packing_ns)),
            waiting: self.waiting,
        }
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.empty = None;
        self.current = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the reader has been reported where it happened.
            let _ = thread.join();
        }
    }
}

/// Rows of one tensor that are read at once.
struct Piece {
    layer: usize,
    info: TensorInfo,
    recast: Recast,
    /// Bytes of the tensor in the file.
    from: std::ops::Range<u64>,
    row_bytes: usize,
    /// Bytes of the slot that they are packed into.
    to: std::ops::Range<usize>,
}

/// All pieces of a pass, in the order of the layers.
fn pieces(tensors: &[TensorSpec], plan: &WeightsPlan) -> Result<Vec<Piece>, ModelError> {
    let mut pieces = Vec::new();
    for (tensor, place) in tensors.iter().zip(&plan.places) {
        let (Place::Window(range), Stage::Layer(layer), Some(recast)) =
            (place, tensor.stage, recast(tensor))
        else {
            continue;
        };
        let (rows_at_once, row_bytes) = (piece_rows(tensor)?, row_bytes(tensor)?);
        let panel_bytes = recast.to.panel_bytes();
        let mut row = 0;
        while row < tensor.info.rows {
            let rows = rows_at_once.min(tensor.info.rows - row);
            let at = |row: usize| range.start + row.div_ceil(PANEL_ROWS) * panel_bytes;
            let byte = |row: usize| row as u64 * row_bytes as u64;
            pieces.push(Piece {
                layer,
                info: tensor.info.clone(),
                recast,
                from: byte(row)..byte(row + rows),
                row_bytes,
                to: at(row)..at(row + rows),
            });
            row += rows;
        }
    }
    Ok(pieces)
}

/// The reading side of a window.
struct Reader {
    file: WeightsReader,
    pieces: Vec<Piece>,
    staging: Mapping,
    counts: Arc<Counts>,
}

impl Reader {
    /// Fills empty slots, layer after layer, until there will be no more.
    fn run(mut self, empty: &Receiver<Slot>, filled: &SyncSender<Filled>) {
        let mut next = 0;
        while let Ok(mut slot) = empty.recv() {
            let layer = self.pieces[next].layer;
            let behind = self.pieces[next..].partition_point(|piece| piece.layer == layer) + next;
            let mut result = Ok(());
            for index in next..behind {
                result = self.fill(index, slot.as_mut_slice());
                if result.is_err() {
                    break;
                }
            }
            self.counts.layers.fetch_add(1, Ordering::Relaxed);
            next = match &result {
                Ok(()) if behind < self.pieces.len() => behind,
                _ => 0,
            };
            let sent = filled.send(Filled {
                layer,
                slot,
                result,
            });
            if sent.is_err() {
                return;
            }
        }
    }

    /// Reads and packs one piece, while the kernel reads the one behind it.
    fn fill(&mut self, index: usize, slot: &mut [u8]) -> Result<(), FileError> {
        let piece = &self.pieces[index];
        let start = Instant::now();
        self.file.check_unchanged(&piece.info)?;
        let len = (piece.from.end - piece.from.start) as usize;
        let (src, scratch) =
            (self.staging.as_mut_slice()).split_at_mut(len.next_multiple_of(ALIGN));
        let src = &mut src[..len];
        {
            let _span = span!("stream.read", len);
            self.file.read_ahead(&piece.info, piece.from.clone());
            let next = &self.pieces[(index + 1) % self.pieces.len()];
            self.file.read_ahead(&next.info, next.from.clone());
            self.file.read_at(&piece.info, piece.from.start, src)?;
        }
        let read = Instant::now();
        let _span = span!("stream.pack", len);
        let panels = slot[piece.to.clone()].chunks_exact_mut(piece.recast.to.panel_bytes());
        for (src, panel) in src.chunks(PANEL_ROWS * piece.row_bytes).zip(panels) {
            piece.recast.pack_panel(src, scratch, panel);
        }
        self.file.drop_cache(&piece.info, piece.from.clone());
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let counts = &self.counts;
        counts.bytes.fetch_add(len as u64, Ordering::Relaxed);
        let reading = nanos(read - start);
        counts.reading_ns.fetch_add(reading, Ordering::Relaxed);
        let packing = nanos(read.elapsed());
        counts.packing_ns.fetch_add(packing, Ordering::Relaxed);
        Ok(())
    }
}
