//! From paths to pieces, from pieces to vectors: those that are kept are taken, the others made.

use std::time::Instant;

use bursar_engine::{EmbedOptions, Embedder};
use bursar_search::chunk::dedent;
use bursar_search::index::Key;
use bursar_search::{Index, Language, Reader, VectorStore, chunks};

use super::results::Figures;
use crate::failure::Failure;
use crate::progress::{Progress, Unit};

/// Raise it when the same piece would be embedded as another text.
const RECIPE: u32 = 1;
/// Bytes of source code in a token, roughly: pieces are cut so that a model reads them whole.
const TOKEN_BYTES: usize = 4;
/// Pieces may be so long at least, and at most.
const PIECE_BYTES: std::ops::RangeInclusive<usize> = 800..=4000;
/// Pieces embedded together; their texts and tokens stay below what the plan sets aside for the heap.
const BATCH_PIECES: usize = 256;
/// Bytes of pieces embedded together.
const BATCH_BYTES: usize = 256 << 10;
/// After so many new vectors they are written, so that an interruption does not lose them all.
const SAVE_PIECES: usize = 2048;

/// What is searched.
pub(super) struct Corpus {
    pub(super) index: Index,
    pub(super) reader: Reader,
    /// Where vectors are kept.
    pub(super) store: Option<VectorStore>,
    /// Longest piece.
    pub(super) bytes_max: usize,
    pub(super) figures: Figures,
}

/// Longest piece for a model that reads so many tokens.
pub(super) fn piece_bytes(tokens: usize) -> usize {
    let bytes = tokens.saturating_mul(TOKEN_BYTES);
    bytes.clamp(*PIECE_BYTES.start(), *PIECE_BYTES.end())
}

/// Tells apart what makes vectors of equal pieces differ.
pub(super) fn fingerprint(model: &blake3::Hash, tokens: usize) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(model.as_bytes());
    hasher.update(&RECIPE.to_le_bytes());
    hasher.update(&(tokens as u64).to_le_bytes());
    *hasher.finalize().as_bytes()
}

/// A piece's text as it is embedded, with its key.
fn passage(text: &str) -> (String, Key) {
    let passage = dedent(text);
    let digest = blake3::hash(passage.as_bytes());
    let mut key = Key::default();
    let len = key.len();
    key.copy_from_slice(&digest.as_bytes()[..len]);
    (passage, key)
}

impl Corpus {
    /// Reads all files and cuts them into pieces.
    pub(super) fn cut(&mut self, progress: Progress) -> Result<(), Failure> {
        let total = self.index.files().len();
        let mut meter = progress.meter("reading", Unit::Files, total as u64);
        for number in 0..total {
            let path = self.index.files()[number].clone();
            match self.reader.read(&path) {
                Ok(text) => {
                    self.figures.files += 1;
                    for chunk in chunks(text, Language::of(&path), self.bytes_max) {
                        let (_, key) = passage(&text[chunk.bytes.clone()]);
                        self.index.push(number, &chunk, key)?;
                    }
                }
                Err(why) => *self.figures.passed_over.entry(why).or_insert(0) += 1,
            }
            meter.set(number as u64 + 1, String::new);
        }
        meter.finish();
        self.index.seal()?;
        Ok(())
    }

    /// Takes the vectors that are kept, and keeps new ones there from now on.
    pub(super) fn take_kept(&mut self, mut store: VectorStore) {
        let stored = store.load(&mut self.index);
        if let Some(damage) = &stored.damage {
            eprintln!(
                "warning: the kept vectors in {} are not used: {damage}; they are made again",
                store.path().display()
            );
        }
        self.figures.kept = stored.taken;
        if stored.stale {
            self.save(&store);
        }
        self.store = Some(store);
    }

    /// Embeds all pieces that have no vector yet.
    pub(super) fn embed(
        &mut self,
        embedder: &mut Embedder,
        progress: Progress,
    ) -> Result<(), Failure> {
        let begun = Instant::now();
        let missing = self.index.missing();
        let mut meter = progress.meter("embedding", Unit::Texts, missing.len() as u64);
        let (mut done, mut unsaved) = (0, 0);
        let mut batch = Vec::new();
        let mut bytes = 0;
        let of_file = |a: &u32, b: &u32| {
            let file = |piece: u32| self.index.entries()[piece as usize].file;
            file(*a) == file(*b)
        };
        let groups: Vec<&[u32]> = missing.chunk_by(of_file).collect();
        for (number, pieces) in groups.iter().enumerate() {
            let mut rest = *pieces;
            while !rest.is_empty() {
                let taken = self.read(rest, &mut batch, &mut bytes);
                rest = &rest[taken..];
                let last = number + 1 == groups.len() && rest.is_empty();
                if !last && batch.len() < BATCH_PIECES && bytes < BATCH_BYTES {
                    continue;
                }
                let texts: Vec<&str> = batch.iter().map(|(_, text)| text as &str).collect();
                let options = EmbedOptions {
                    normalize: true,
                    ..EmbedOptions::default()
                };
                let index = &mut self.index;
                embedder.embed(&texts, &options, &mut |at, vector| {
                    index.fill(batch[at].0, vector);
                    done += 1;
                    meter.set(done, String::new);
                })?;
                unsaved += texts.len();
                batch.clear();
                bytes = 0;
                if let (Some(store), true) = (&self.store, unsaved >= SAVE_PIECES || last) {
                    self.save(store);
                    unsaved = 0;
                }
            }
        }
        meter.finish();
        self.figures.embedded = done as usize;
        self.figures.embed_seconds = begun.elapsed().as_secs_f64();
        Ok(())
    }

    /// Reads pieces of one file into the batch, as many as it has room for; gives how many were
    /// looked at. One that has changed since it was cut is left out.
    fn read(
        &mut self,
        pieces: &[u32],
        batch: &mut Vec<(usize, String)>,
        bytes: &mut usize,
    ) -> usize {
        let entry = |piece: u32| self.index.entries()[piece as usize];
        let Some(&first) = pieces.first() else {
            return 0;
        };
        let path = &self.index.files()[entry(first).file as usize];
        let Ok(text) = self.reader.read(path) else {
            self.figures.changed += pieces.len();
            return pieces.len();
        };
        for (number, &piece) in pieces.iter().enumerate() {
            if batch.len() >= BATCH_PIECES || *bytes >= BATCH_BYTES {
                return number;
            }
            let entry = entry(piece);
            let start = entry.start as usize;
            let same = text
                .get(start..start + entry.len as usize)
                .map(passage)
                .filter(|(_, key)| *key == entry.key);
            match same {
                Some((passage, _)) => {
                    *bytes += passage.len();
                    batch.push((entry.row as usize, passage));
                }
                None => self.figures.changed += 1,
            }
        }
        pieces.len()
    }

    /// Writes the vectors; that they cannot be kept is no reason not to use them.
    fn save(&self, store: &VectorStore) {
        if let Err(error) = store.save(&self.index) {
            let failure = Failure::from(error);
            eprintln!("warning: {} (--no-cache)", failure.message());
        }
    }
}
