//! Blocks on disk, for as long as the process runs: where the keys and values of a sequence wait that
//! had to make room.
//!
//! The file has no name, so that it goes with the process however that ends, and a fixed most size. Each
//! slot's BLAKE3 digest stays in memory: what is read is what was written, or an error. Pages of the
//! file are dropped from the page cache behind each write and read, since memory is what was short.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use bursar_memory::Bytes;
use rustix::fs::{Advice, Mode, OFlags};

use crate::KvError;

/// Slots begin at multiples of so many bytes, a page's: so that dropping one drops no other.
const ALIGN: u64 = 4096;

/// A place in the file. Given back by [`SpillFile::release`]; dropped, it is lost until the file is.
#[derive(Debug, PartialEq, Eq)]
pub struct Slot {
    index: u32,
    len: usize,
}

impl Slot {
    /// Bytes in it.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

/// A file of slots of equal size.
#[derive(Debug)]
pub struct SpillFile {
    file: File,
    dir: PathBuf,
    slot_bytes: usize,
    /// Bytes from one slot's start to the next one's.
    stride: u64,
    /// What each slot that has ever been written stores.
    digests: Vec<[u8; 32]>,
    /// Of those, the ones that store nothing now.
    free: Vec<u32>,
    most: u32,
}

impl SpillFile {
    /// Makes a file in `dir` for at most `capacity` bytes, in slots of `slot_bytes`. It takes room on
    /// the disk as it is written.
    ///
    /// # Errors
    /// When the folder is not there or not to be written.
    pub fn create(dir: &Path, capacity: Bytes, slot_bytes: Bytes) -> Result<Self, KvError> {
        let fail = |source| KvError::Spill {
            what: "making",
            dir: dir.to_owned(),
            source,
        };
        let file = open_nameless(dir).map_err(fail)?;
        let too_large = || fail(io::Error::from(io::ErrorKind::InvalidInput));
        let stride = slot_bytes.checked_round_up(ALIGN).ok_or_else(too_large)?;
        let stride = stride.0.max(ALIGN);
        Ok(Self {
            file,
            dir: dir.to_owned(),
            slot_bytes: slot_bytes.to_usize().ok_or_else(too_large)?,
            stride,
            digests: Vec::new(),
            free: Vec::new(),
            most: u32::try_from(capacity.0 / stride).unwrap_or(u32::MAX),
        })
    }

    /// Slots in all.
    pub fn slots(&self) -> usize {
        self.most as usize
    }

    /// Slots that can be written.
    pub fn slots_free(&self) -> usize {
        self.slots() - self.digests.len() + self.free.len()
    }

    /// Bytes of slots that store something.
    pub fn bytes_used(&self) -> Bytes {
        Bytes(self.stride * (self.slots() - self.slots_free()) as u64)
    }

    /// Writes to a free slot; `None` if there is none.
    ///
    /// # Errors
    /// When the disk refuses; no slot is taken then.
    ///
    /// # Panics
    /// When `bytes` are more than a slot holds.
    pub fn write(&mut self, bytes: &[u8]) -> Result<Option<Slot>, KvError> {
        let (len, most) = (bytes.len(), self.slot_bytes);
        assert!(len <= most, "{len} bytes for a slot of {most}");
        let (index, is_new) = match self.free.last() {
            Some(&index) => (index, false),
            None if self.digests.len() < self.slots() => (self.digests.len() as u32, true),
            None => return Ok(None),
        };
        let offset = self.offset(index);
        let written = self.file.write_all_at(bytes, offset);
        self.drop_pages(offset);
        written.map_err(|source| self.error("writing", source))?;
        let digest = *blake3::hash(bytes).as_bytes();
        match is_new {
            true => self.digests.push(digest),
            false => {
                self.free.pop();
                self.digests[index as usize] = digest;
            }
        }
        Ok(Some(Slot { index, len }))
    }

    /// Reads what a slot stores. It stays there.
    ///
    /// # Errors
    /// When the disk refuses, or gives something else than was written; `to` is undefined then.
    ///
    /// # Panics
    /// When `to` is not as long as what was written.
    pub fn read(&self, slot: &Slot, to: &mut [u8]) -> Result<(), KvError> {
        let (len, given) = (slot.len, to.len());
        assert_eq!(len, given, "bytes to be read");
        let offset = self.offset(slot.index);
        let read = self.file.read_exact_at(to, offset);
        self.drop_pages(offset);
        match read {
            // The file became shorter: something else than was written.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {}
            Err(source) => return Err(self.error("reading", source)),
            Ok(()) if *blake3::hash(to).as_bytes() == self.digests[slot.index as usize] => {
                return Ok(());
            }
            Ok(()) => {}
        }
        Err(KvError::SpillDamaged {
            dir: self.dir.clone(),
            offset,
            bytes: Bytes::from(len),
        })
    }

    /// Gives a slot back.
    pub fn release(&mut self, slot: Slot) {
        self.free.push(slot.index);
    }

    fn offset(&self, index: u32) -> u64 {
        // At most the capacity.
        u64::from(index) * self.stride
    }

    /// Clean pages of the slot go at once, and dirty ones are begun to be written, so that they go with
    /// the next advice: the slot before is dropped too.
    fn drop_pages(&self, offset: u64) {
        let from = offset.saturating_sub(self.stride);
        let len = std::num::NonZeroU64::new(offset + self.stride - from);
        // Advice only: what stays in the page cache is the kernel's to drop.
        let _ = rustix::fs::fadvise(&self.file, from, len, Advice::DontNeed);
    }

    fn error(&self, what: &'static str, source: io::Error) -> KvError {
        KvError::Spill {
            what,
            dir: self.dir.clone(),
            source,
        }
    }
}

/// A file that no other process finds, and that is gone when it is closed.
fn open_nameless(dir: &Path) -> io::Result<File> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let owner = Mode::RUSR | Mode::WUSR;
    match rustix::fs::open(dir, flags | OFlags::TMPFILE, owner) {
        Ok(file) => return Ok(file.into()),
        // The file system, or a kernel before 3.11, does not know files without a name.
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let unique = std::process::id();
    for attempt in 0..100 {
        let path = dir.join(format!(".bursar-spill-{unique}-{attempt}"));
        match rustix::fs::open(&path, flags | OFlags::CREATE | OFlags::EXCL, owner) {
            Ok(file) => {
                std::fs::remove_file(&path)?;
                return Ok(file.into());
            }
            Err(rustix::io::Errno::EXIST) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    Err(io::Error::from(io::ErrorKind::AlreadyExists))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(capacity: u64) -> (tempfile::TempDir, SpillFile) {
        let dir = tempfile::tempdir().expect("a folder");
        let file = SpillFile::create(dir.path(), Bytes(capacity), Bytes(5000)).expect("a file");
        (dir, file)
    }

    #[test]
    fn slots_store_what_was_written_until_they_are_full() {
        let (dir, mut file) = file(3 * 8192 + 8191);
        assert_eq!((file.slots(), file.slots_free()), (3, 3));
        let names = std::fs::read_dir(dir.path()).expect("a folder").count();
        assert_eq!(names, 0, "the file has no name");
        let mut slots = Vec::new();
        for n in 0..3u8 {
            let bytes = vec![n; 4998 + usize::from(n)];
            slots.push(file.write(&bytes).expect("written").expect("room"));
        }
        assert_eq!(file.write(&[1]).expect("nothing fails"), None);
        assert_eq!(file.bytes_used(), Bytes(3 * 8192));
        for (n, slot) in (0u8..).zip(&slots) {
            let mut bytes = vec![9; slot.len()];
            file.read(slot, &mut bytes).expect("as written");
            assert!(bytes.iter().all(|&byte| byte == n));
        }
        file.release(slots.remove(1));
        assert_eq!((file.slots_free(), file.bytes_used()), (1, Bytes(2 * 8192)));
        let slot = file.write(&[7; 3]).expect("written").expect("room again");
        let mut bytes = [0; 3];
        file.read(&slot, &mut bytes).expect("as written");
        assert_eq!(bytes, [7; 3]);
    }

    #[test]
    fn damage_is_found_wherever_it_is() {
        let (_dir, mut file) = file(1 << 20);
        let bytes: Vec<u8> = (0..600u32).map(|i| (i * 7) as u8).collect();
        let _first = file.write(&[0; 5000]).expect("written").expect("room");
        let slot = file.write(&bytes).expect("written").expect("room");
        let mut read = vec![0; bytes.len()];
        for at in 0..bytes.len() {
            let offset = 8192 + at as u64;
            for bit in [0, 3, 7] {
                let damaged = [bytes[at] ^ (1 << bit)];
                file.file.write_all_at(&damaged, offset).expect("written");
                let error = file.read(&slot, &mut read).expect_err("damaged");
                assert!(
                    matches!(error, KvError::SpillDamaged { offset: 8192, .. }),
                    "{error}"
                );
            }
            file.file
                .write_all_at(&bytes[at..=at], offset)
                .expect("written");
        }
        file.read(&slot, &mut read).expect("repaired");
        for len in (0..8192 + bytes.len() as u64).rev().step_by(97) {
            file.file.set_len(len).expect("shorter");
            let error = file.read(&slot, &mut read).expect_err("truncated");
            assert!(matches!(error, KvError::SpillDamaged { .. }), "{error}");
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_named() {
        let dir = Path::new("/nowhere/to/be/found");
        let error = SpillFile::create(dir, Bytes(1 << 20), Bytes(4096)).expect_err("no folder");
        assert!(
            error.to_string().contains("/nowhere/to/be/found"),
            "{error}"
        );
        let (_dir, mut none) = file(100);
        assert_eq!(
            (none.slots(), none.write(&[1]).expect("no room")),
            (0, None)
        );
    }
}
