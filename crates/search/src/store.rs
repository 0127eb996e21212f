//! Vectors on disk, found again by the digest of what they were made from.
//!
//! One file for each model:
//!
//! ```text
//! magic 8 | version u32 | dimensions u32 | fingerprint 32 | count u64
//! count x ( key 16 | last used u32, days since 1970 | dimensions x f16 )
//! BLAKE3 of all before
//! ```
//!
//! little-endian. A new file is written beside the old one and renamed, so that a reader sees one or
//! the other. What is damaged, of another version or of another model is as good as absent: vectors
//! can be made again.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{BufReader, BufWriter, ErrorKind, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::error::SearchError;
use crate::index::{Index, Key};

const MAGIC: &[u8; 8] = b"BURSARVS";
/// Raise it when the layout changes.
const VERSION: u32 = 1;
const HEADER_BYTES: u64 = 8 + 4 + 4 + 32 + 8;
const DIGEST_BYTES: u64 = 32;
/// Key and day.
const RECORD_HEAD_BYTES: usize = 16 + 4;
/// Longest a file may become, unless a single search needs more: what was used least recently goes.
pub const FILE_BYTES_MAX: u64 = 128 << 20;
/// Files kept in the folder, one for each model; those written least recently go.
const FILES_MAX: usize = 8;
/// A day that is this much older is written anew.
const STALE_DAYS: u32 = 7;

/// Where the vectors of one model are kept.
pub struct VectorStore {
    path: PathBuf,
    fingerprint: [u8; 32],
    /// The file that was read, whole and undamaged. It stays readable when it is replaced.
    old: Option<Old>,
    bytes_max: u64,
}

struct Old {
    file: File,
    count: u64,
    /// Records that the last search did not need, by the day when they last were.
    unused: BTreeMap<u32, u64>,
}

/// What was found on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stored {
    /// Vectors taken from there.
    pub taken: usize,
    /// Why nothing was, though there is a file.
    pub damage: Option<String>,
    /// Whether some were last used so long ago that the file should be written again.
    pub stale: bool,
}

impl VectorStore {
    /// The store of the model with this fingerprint in `folder`, which need not exist.
    pub fn new(folder: &Path, fingerprint: [u8; 32]) -> VectorStore {
        let name: String = fingerprint[..8]
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        VectorStore {
            path: folder.join(format!("{name}.vectors")),
            fingerprint,
            old: None,
            bytes_max: FILE_BYTES_MAX,
        }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Fills the rows of `index` whose vectors are there.
    pub fn load(&mut self, index: &mut Index) -> Stored {
        self.old = None;
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Stored::default(),
            Err(error) => {
                return Stored {
                    damage: Some(error.to_string()),
                    ..Stored::default()
                };
            }
        };
        match self.read(file, index) {
            Ok(stored) => stored,
            Err(damage) => {
                index.clear();
                Stored {
                    damage: Some(damage),
                    ..Stored::default()
                }
            }
        }
    }

    fn read(&mut self, file: File, index: &mut Index) -> Result<Stored, String> {
        let words = |error: std::io::Error| error.to_string();
        let len = file.metadata().map_err(words)?.len();
        let mut reader = Hashing::new(BufReader::with_capacity(64 << 10, &file));
        let count = self.read_header(&mut reader, index.dimensions())?;
        let record = (RECORD_HEAD_BYTES + index.row_bytes()) as u64;
        let expected = count
            .checked_mul(record)
            .and_then(|bytes| bytes.checked_add(HEADER_BYTES + DIGEST_BYTES));
        if expected != Some(len) {
            return Err(format!("it has {len} bytes, but tells of {count} vectors"));
        }
        let today = today();
        let mut stored = Stored::default();
        let mut unused = BTreeMap::new();
        let mut bytes = vec![0; record as usize];
        for _ in 0..count {
            reader.fill(&mut bytes)?;
            let (head, vector) = bytes.split_at(RECORD_HEAD_BYTES);
            let (key, day) = parse(head);
            match index.row_of(&key) {
                Some(row) => {
                    index.fill_bytes(row, vector);
                    stored.taken += 1;
                    stored.stale |= day.saturating_add(STALE_DAYS) <= today;
                }
                None => *unused.entry(day).or_insert(0) += 1,
            }
        }
        let digest = reader.digest();
        let mut there = [0; DIGEST_BYTES as usize];
        reader.fill(&mut there)?;
        if digest != there {
            return Err("its checksum is wrong".to_owned());
        }
        drop(reader);
        self.old = Some(Old {
            file,
            count,
            unused,
        });
        Ok(stored)
    }

    fn read_header(
        &self,
        reader: &mut Hashing<impl Read>,
        dimensions: usize,
    ) -> Result<u64, String> {
        let mut header = [0; HEADER_BYTES as usize];
        reader.fill(&mut header)?;
        let number = |at: usize| {
            let bytes = header[at..at + 4].try_into().expect("four bytes");
            u32::from_le_bytes(bytes)
        };
        if header[..8] != *MAGIC {
            return Err("it is something else".to_owned());
        }
        if number(8) != VERSION {
            return Err(format!("it is of version {}, not {VERSION}", number(8)));
        }
        if header[16..48] != self.fingerprint || number(12) as usize != dimensions {
            return Err("it is of another model".to_owned());
        }
        let count = header[48..56].try_into().expect("eight bytes");
        Ok(u64::from_le_bytes(count))
    }

    /// Writes all vectors of `index`, and of those that were there as many as the file may hold.
    ///
    /// # Errors
    /// When the folder or file cannot be written; what was there before is still there then.
    pub fn save(&self, index: &Index) -> Result<(), SearchError> {
        let folder = self.path.parent().unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(|error| SearchError::io("create", folder, error))?;
        let beside = self
            .path
            .with_extension(format!("{}.tmp", std::process::id()));
        let written = File::create(&beside)
            .and_then(|file| self.write(file, index))
            .and_then(|()| fs::rename(&beside, &self.path));
        if let Err(error) = written {
            let _ = fs::remove_file(&beside);
            return Err(SearchError::io("write", &self.path, error));
        }
        self.prune(folder);
        Ok(())
    }

    fn write(&self, file: File, index: &Index) -> std::io::Result<()> {
        let today = today();
        let record = (RECORD_HEAD_BYTES + index.row_bytes()) as u64;
        let now = index.filled_rows() as u64;
        let room = (self.bytes_max / record).saturating_sub(now);
        let (oldest, kept) = self.old.as_ref().map_or((0, 0), |old| old.keep(room));
        let mut writer = Hashing::new(BufWriter::with_capacity(64 << 10, file));
        writer.put(MAGIC)?;
        writer.put(&VERSION.to_le_bytes())?;
        writer.put(&(index.dimensions() as u32).to_le_bytes())?;
        writer.put(&self.fingerprint)?;
        writer.put(&(now + kept).to_le_bytes())?;
        if let Some(old) = self.old.as_ref().filter(|_| kept > 0) {
            let mut reader = BufReader::with_capacity(64 << 10, &old.file);
            reader.seek(SeekFrom::Start(HEADER_BYTES))?;
            let mut bytes = vec![0; record as usize];
            for _ in 0..old.count {
                reader.read_exact(&mut bytes)?;
                let (key, day) = parse(&bytes);
                if day >= oldest && index.row_of(&key).is_none() {
                    writer.put(&bytes)?;
                }
            }
        }
        for row in (0..index.rows()).filter(|&row| index.is_filled(row)) {
            writer.put(index.key(row))?;
            writer.put(&today.to_le_bytes())?;
            writer.put(index.row(row))?;
        }
        let digest = writer.digest();
        writer.put(&digest)?;
        writer.inner.flush()
    }

    /// Removes what other models and interrupted writes have left over the years.
    fn prune(&self, folder: &Path) {
        let Ok(entries) = fs::read_dir(folder) else {
            return;
        };
        let mut files: Vec<(SystemTime, PathBuf)> = Vec::new();
        for entry in entries.flatten() {
            let (path, meta) = (entry.path(), entry.metadata());
            let Some(time) = meta.ok().and_then(|meta| meta.modified().ok()) else {
                continue;
            };
            match path.extension().and_then(|extension| extension.to_str()) {
                Some("vectors") => files.push((time, path)),
                Some("tmp") if time.elapsed().is_ok_and(|age| age > ABANDONED) => {
                    let _ = fs::remove_file(path);
                }
                _ => {}
            }
        }
        files.sort();
        let surplus = files.len().saturating_sub(FILES_MAX);
        for (_, path) in files
            .into_iter()
            .filter(|(_, path)| *path != self.path)
            .take(surplus)
        {
            let _ = fs::remove_file(path);
        }
    }
}

/// A file that is still being written is younger.
const ABANDONED: Duration = Duration::from_secs(24 * 60 * 60);

impl Old {
    /// From which day on records that are not needed now are kept, and how many that are, so that
    /// there are at most `room`.
    fn keep(&self, room: u64) -> (u32, u64) {
        let mut oldest = u32::MAX;
        let mut kept = 0;
        for (&day, &count) in self.unused.iter().rev() {
            if kept + count > room {
                break;
            }
            (oldest, kept) = (day, kept + count);
        }
        (oldest, kept)
    }
}

fn parse(head: &[u8]) -> (Key, u32) {
    let key = head[..16].try_into().expect("sixteen bytes");
    let day = head[16..20].try_into().expect("four bytes");
    (key, u32::from_le_bytes(day))
}

fn today() -> u32 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.map_or(0, |now| (now.as_secs() / (24 * 60 * 60)) as u32)
}

/// Reads or writes and digests what goes by.
struct Hashing<T> {
    inner: T,
    hasher: blake3::Hasher,
}

impl<T> Hashing<T> {
    fn new(inner: T) -> Hashing<T> {
        Hashing {
            inner,
            hasher: blake3::Hasher::new(),
        }
    }

    fn digest(&self) -> [u8; DIGEST_BYTES as usize] {
        *self.hasher.finalize().as_bytes()
    }
}

impl<T: Read> Hashing<T> {
    fn fill(&mut self, bytes: &mut [u8]) -> Result<(), String> {
        self.inner
            .read_exact(bytes)
            .map_err(|error| match error.kind() {
                ErrorKind::UnexpectedEof => "it ends early".to_owned(),
                _ => error.to_string(),
            })?;
        self.hasher.update(bytes);
        Ok(())
    }
}

impl<T: Write> Hashing<T> {
    fn put(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.hasher.update(bytes);
        self.inner.write_all(bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::tests::{index, key};
    use bursar_memory::{Bytes, Ledger};

    const MODEL: [u8; 32] = [7; 32];

    fn ledger() -> Ledger {
        Ledger::new(Bytes(1 << 20))
    }

    /// An index whose vectors tell their contents' lengths.
    fn full(contents: &[&str], ledger: &Ledger) -> Index {
        let mut index = index(contents, 2, ledger);
        for content in contents {
            let row = index.row_of(&key(content)).unwrap();
            index.fill(row, &[content.len() as f32, 0.0]);
        }
        index
    }

    fn load(folder: &Path, contents: &[&str]) -> (Stored, Vec<bool>) {
        let ledger = ledger();
        let mut index = index(contents, 2, &ledger);
        let stored = VectorStore::new(folder, MODEL).load(&mut index);
        let there = contents.iter().map(|content| {
            let row = index.row_of(&key(content)).unwrap();
            let expected = half::f16::from_f32(content.len() as f32).to_le_bytes();
            assert!(!index.is_filled(row) || index.row(row)[..2] == expected);
            index.is_filled(row)
        });
        let there = there.collect();
        (stored, there)
    }

    #[test]
    fn what_was_saved_is_found_by_what_it_was_made_from() {
        let folder = tempfile::tempdir().unwrap();
        let folder = &folder.path().join("not/there/yet");
        assert_eq!(
            load(folder, &["a", "bb"]),
            (Stored::default(), vec![false; 2])
        );
        let ledger = ledger();
        VectorStore::new(folder, MODEL)
            .save(&full(&["a", "bb"], &ledger))
            .unwrap();
        let (stored, there) = load(folder, &["bb", "ccc"]);
        assert_eq!(
            (stored.taken, stored.damage, stored.stale),
            (1, None, false)
        );
        assert_eq!(there, [true, false]);

        // What this search did not need stays.
        let mut store = VectorStore::new(folder, MODEL);
        let mut index = index(&["bb", "ccc"], 2, &ledger);
        assert_eq!(store.load(&mut index).taken, 1);
        let row = index.row_of(&key("ccc")).unwrap();
        index.fill(row, &[3.0, 0.0]);
        store.save(&index).unwrap();
        assert_eq!(load(folder, &["a", "bb", "ccc"]).1, [true; 3]);

        // Unless the file may not hold it.
        store.bytes_max = 2 * (RECORD_HEAD_BYTES as u64 + 4);
        store.load(&mut index);
        store.save(&index).unwrap();
        assert_eq!(load(folder, &["a", "bb", "ccc"]).1, [false, true, true]);
        assert_eq!(fs::read_dir(folder).unwrap().count(), 1);
    }

    #[test]
    fn the_least_recently_used_go_first() {
        let old = Old {
            file: tempfile::tempfile().unwrap(),
            count: 10,
            unused: [(1, 3), (5, 2), (9, 4)].into(),
        };
        assert_eq!(old.keep(9), (1, 9));
        assert_eq!(old.keep(8), (5, 6));
        assert_eq!(old.keep(5), (9, 4));
        assert_eq!(old.keep(3), (u32::MAX, 0));
    }

    #[test]
    fn every_damage_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        let ledger = ledger();
        let store = VectorStore::new(folder, MODEL);
        store.save(&full(&["a", "bb"], &ledger)).unwrap();
        let whole = fs::read(store.path()).unwrap();
        for at in 0..whole.len() {
            let mut bytes = whole.clone();
            bytes[at] ^= 0x10;
            fs::write(store.path(), &bytes).unwrap();
            let (stored, there) = load(folder, &["a", "bb"]);
            assert!(stored.damage.is_some(), "a flipped bit in byte {at}");
            assert_eq!(there, [false; 2]);
            fs::write(store.path(), &whole[..at]).unwrap();
            let (stored, there) = load(folder, &["a", "bb"]);
            assert!(stored.damage.is_some(), "cut at {at}");
            assert_eq!(there, [false; 2]);
        }
        // Damage is replaced.
        let mut store = VectorStore::new(folder, MODEL);
        let mut index = full(&["a"], &ledger);
        store.load(&mut index);
        let index = full(&["a"], &ledger);
        store.save(&index).unwrap();
        assert_eq!(load(folder, &["a", "bb"]).1, [true, false]);
        let other = VectorStore::new(folder, [8; 32]);
        assert_ne!(other.path(), store.path());
    }

    #[test]
    fn only_some_models_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = ledger();
        for model in 0..FILES_MAX as u8 + 3 {
            let store = VectorStore::new(folder.path(), [model; 32]);
            store.save(&full(&["a"], &ledger)).unwrap();
            assert!(store.path().exists());
        }
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), FILES_MAX);
    }
}
