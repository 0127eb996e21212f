//! Writing a preset to a file: pieces of a mebibyte, drawn by a few threads and written in order.
//!
//! Each piece has a random stream of its own, addressed by tensor and piece, so that a file
//! depends on preset, types and seed alone, not on the number of threads. Memory is one piece per
//! thread and the header.

use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use super::header;
use super::preset::Preset;
use super::random::Random;
use super::weights::{Kind, draw_blocks, draw_numbers, kind};
use crate::error::FileError;
use crate::gguf::TensorSpec;

/// Bytes drawn at a time, rounded down to whole blocks.
const PIECE: usize = 1 << 20;
/// Most threads: more would only wait for the disk.
const THREADS_MAX: usize = 8;
/// Models below this many weights are drawn as numbers and quantised.
const SMALL: u64 = 64_000_000;

/// How far writing has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of weights written.
    pub done: u64,
    /// Bytes of weights in all.
    pub total: u64,
}

/// Writes a preset to `path`, replacing what is there once the file is whole.
///
/// `progress` is called some thousand times at most per gigabyte. Returns the file's length in
/// bytes.
///
/// # Errors
/// If the file cannot be written; nothing is left behind then.
pub fn write(
    preset: &Preset,
    seed: u64,
    path: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<u64, FileError> {
    // Written beside it first, so that an interruption leaves no half of a model under its name.
    let mut part = path.as_os_str().to_owned();
    part.push(".part");
    let part = PathBuf::from(part);
    let written = write_new(*preset, seed, &part, progress).and_then(|bytes| {
        std::fs::rename(&part, path)
            .map_err(|e| FileError::io(path, "rename the new file to", e))?;
        Ok(bytes)
    });
    if written.is_err() {
        // The first error is the one to report.
        let _ = std::fs::remove_file(&part);
    }
    written
}

fn write_new(
    preset: Preset,
    seed: u64,
    path: &Path,
    progress: &mut dyn FnMut(Progress),
) -> Result<u64, FileError> {
    let writer = header::build(preset)?;
    let roles = header::roles(preset);
    let weights: u64 = writer
        .tensors()
        .iter()
        .map(|t| t.dims.iter().product::<u64>())
        .sum();
    let total = writer.tensors().iter().map(|t| t.bytes).sum();
    let mut draw = Draw::new(seed, weights < SMALL);
    let mut done = 0;
    let file = File::create(path).map_err(|e| FileError::io(path, "create", e))?;
    let fill = |index: usize, tensor: &TensorSpec, out: &mut dyn Write| {
        let (role, shape) = roles[index];
        match kind(role, shape) {
            Kind::RopeFactors => write_floats(out, &preset.rope_factors())?,
            Kind::Constant(value) => {
                write_floats(
                    out,
                    &vec![value; tensor.dims.iter().product::<u64>() as usize],
                )?;
            }
            Kind::Random(spread) => draw.tensor(index, tensor, spread, out, &mut |bytes| {
                progress(Progress {
                    done: done + bytes,
                    total,
                });
            })?,
        }
        done += tensor.bytes;
        progress(Progress { done, total });
        Ok(())
    };
    writer
        .write(file, fill)
        .map_err(|e| FileError::io(path, "write", e))
}

fn write_floats(out: &mut dyn Write, values: &[f32]) -> io::Result<()> {
    let bytes: Vec<u8> = values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect();
    out.write_all(&bytes)
}

/// The buffers and settings of drawing.
struct Draw {
    seed: u64,
    as_numbers: bool,
    buffers: Vec<Buffer>,
}

#[derive(Default)]
struct Buffer {
    bytes: Vec<u8>,
    numbers: Vec<f32>,
}

impl Draw {
    fn new(seed: u64, as_numbers: bool) -> Draw {
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get().min(THREADS_MAX));
        Draw {
            seed,
            as_numbers,
            buffers: (0..threads).map(|_| Buffer::default()).collect(),
        }
    }

    /// Draws a tensor and writes it; `progress` gets the bytes written of it so far.
    fn tensor(
        &mut self,
        index: usize,
        tensor: &TensorSpec,
        spread: f32,
        out: &mut dyn Write,
        progress: &mut dyn FnMut(u64),
    ) -> io::Result<()> {
        let dtype = tensor.dtype;
        let piece = (PIECE / dtype.block_bytes() * dtype.block_bytes()) as u64;
        let pieces = tensor.bytes.div_ceil(piece);
        let (seed, as_numbers) = (self.seed, self.as_numbers);
        let mut next = 0;
        while next < pieces {
            let count = self.buffers.len().min((pieces - next) as usize);
            let draw = |buffer: &mut Buffer, piece_index: u64| {
                let mut random = Random::new(seed, [index as u64, piece_index]);
                let len = piece.min(tensor.bytes - piece_index * piece);
                buffer.bytes.resize(len as usize, 0);
                let draw = if as_numbers {
                    draw_numbers
                } else {
                    draw_blocks
                };
                draw(
                    &mut random,
                    dtype,
                    spread,
                    &mut buffer.numbers,
                    &mut buffer.bytes,
                );
            };
            let draw = &draw;
            std::thread::scope(|scope| {
                let mut buffers = self.buffers[..count].iter_mut().zip(next..);
                // The last piece is drawn here, the others by threads of their own.
                let own = buffers.next();
                for (buffer, piece_index) in buffers {
                    scope.spawn(move || draw(buffer, piece_index));
                }
                if let Some((buffer, piece_index)) = own {
                    draw(buffer, piece_index);
                }
            });
            for buffer in &self.buffers[..count] {
                out.write_all(&buffer.bytes)?;
            }
            next += count as u64;
            progress((next * piece).min(tensor.bytes));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ModelFile;
    use crate::synth::Mix;

    #[test]
    fn what_is_planned_is_what_is_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("model.gguf");
        for name in [
            "tiny-llama:q4_k_m",
            "tiny-qwen2:q8_0",
            "tiny-qwen3:bf16",
            "tiny-bert:f32",
        ] {
            let preset = Preset::parse(name).unwrap();
            let mut last = Progress { done: 0, total: 0 };
            let bytes = write(&preset, 7, &path, &mut |p| last = p).unwrap();
            assert_eq!(last.done, last.total);
            let (planned, written) = (
                preset.model_file().unwrap(),
                ModelFile::open(&path).unwrap(),
            );
            assert_eq!(planned.file_bytes(), bytes);
            assert_eq!(written.file_bytes(), bytes);
            assert_eq!(std::fs::metadata(&path).unwrap().len(), bytes);
            assert_eq!(planned.config(), written.config());
            assert_eq!(planned.config(), &preset.config(), "{name}");
            assert!(planned.tensors().eq(written.tensors()));
            assert_eq!(
                planned.tokenizer_source().unwrap(),
                written.tokenizer_source().unwrap()
            );
            assert!(!planned.has_data() && written.has_data());
            let tensor = planned.tensors().next().unwrap();
            assert!(planned.read_at(tensor, 0, &mut [0; 4]).is_err());
        }
    }

    #[test]
    fn files_depend_on_the_seed_alone() {
        let directory = tempfile::tempdir().unwrap();
        let file = |name: &str, seed: u64| {
            let path = directory.path().join(name);
            let preset = Preset::parse("tiny-llama").unwrap().with_mix(Mix::Q4KM);
            write(&preset, seed, &path, &mut |_| {}).unwrap();
            std::fs::read(path).unwrap()
        };
        let first = file("a", 1);
        assert_eq!(first, file("b", 1));
        assert_ne!(first, file("c", 2));
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_file_that_cannot_be_written_is_an_error() {
        let preset = Preset::parse("tiny-llama").unwrap();
        let path = Path::new("/nonexistent/model.gguf");
        let error = write(&preset, 1, path, &mut |_| {}).unwrap_err();
        assert!(
            error.to_string().contains("/nonexistent/model.gguf.part"),
            "{error}"
        );
    }
}
