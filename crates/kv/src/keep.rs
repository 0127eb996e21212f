//! Cached blocks on disk, from one run of the program to the next.
//!
//! ```text
//! header   "BURSARKV", version u32, block_bytes u64, blocks u32, fingerprint [32],
//!          BLAKE3 of all that [32]
//! blocks   key [32], BLAKE3 of header's digest, place u32, key and bytes [32], bytes
//! ```
//!
//! Numbers are little-endian. Blocks are in the order in which they would be evicted, last first, so
//! that a smaller cache takes those that are most likely of use. A file is written beside the old one
//! and renamed. A file that is damaged anywhere, longer or shorter, is an error, and nothing of it is
//! kept; one of another fingerprint or layout is foreign.

use std::fs::{File, OpenOptions};
use std::io::{self, BufWriter, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use bursar_memory::Bytes;

use crate::blocks::BlockId;
use crate::cache::KvCache;
use crate::prefix::BlockKey;

const MAGIC: [u8; 8] = *b"BURSARKV";
const VERSION: u32 = 1;
const DIGEST: usize = 32;
/// Bytes of the header before its digest.
const HEADER: usize = 8 + 4 + 8 + 4 + 32;

/// Why kept blocks could not be written or read. None of it is in the way of serving.
#[derive(Debug, thiserror::Error)]
pub enum KeepError {
    /// The system refused.
    #[error("{what} {} failed: {source}; cached prefixes are not kept", path.display())]
    Io {
        /// The step that failed.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file is not as it was written.
    #[error(
        "{} is damaged at byte {offset} and ignored; it is written anew at the end of this run",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the part begins that is not as it was written.
        offset: u64,
    },
    /// The file was written for something else.
    #[error(
        "{} keeps blocks of another {what} and is ignored; it is written anew at the end of this run",
        path.display()
    )]
    Foreign {
        /// The file.
        path: PathBuf,
        /// What differs.
        what: &'static str,
    },
}

/// What was kept.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// Blocks.
    pub blocks: usize,
    /// What they store, in bytes.
    pub bytes: Bytes,
}

fn header(fingerprint: &[u8; 32], block_bytes: usize, blocks: u32) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    let mut rest = &mut bytes[..];
    let block_bytes = (block_bytes as u64).to_le_bytes();
    for part in [
        &MAGIC[..],
        &VERSION.to_le_bytes(),
        &block_bytes,
        &blocks.to_le_bytes(),
        fingerprint,
    ] {
        let (to, others) = rest.split_at_mut(part.len());
        to.copy_from_slice(part);
        rest = others;
    }
    bytes
}

/// The digest of a block at its place in a file with that header.
fn digest(header: &[u8; DIGEST], place: u32, key: &BlockKey, bytes: &[u8]) -> [u8; DIGEST] {
    let mut hasher = blake3::Hasher::new_keyed(header);
    hasher.update(&place.to_le_bytes());
    hasher.update(&key.0);
    hasher.update(bytes);
    *hasher.finalize().as_bytes()
}

/// Writes all cached blocks of `cache` to `path`, in the place of what is there. `fingerprint` stands
/// for everything that the bytes of a block depend on beside its key.
///
/// # Errors
/// When the system refuses; what was there is there still.
pub fn save(path: &Path, fingerprint: &[u8; 32], cache: &KvCache) -> Result<Kept, KeepError> {
    let fail = |what| {
        move |source| KeepError::Io {
            what,
            path: path.to_owned(),
            source,
        }
    };
    let mut beside = path.as_os_str().to_owned();
    beside.push(format!(".{}.new", std::process::id()));
    let beside = PathBuf::from(beside);
    let written = write(&beside, fingerprint, cache).map_err(fail("writing"));
    let renamed = written.and_then(|kept| {
        std::fs::rename(&beside, path).map_err(fail("renaming"))?;
        Ok(kept)
    });
    if renamed.is_err() {
        // It may not be there at all; nothing is lost with it.
        let _ = std::fs::remove_file(&beside);
    }
    renamed
}

fn write(path: &Path, fingerprint: &[u8; 32], cache: &KvCache) -> io::Result<Kept> {
    // What a prompt's keys and values are is as private as the prompt.
    let mut options = OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = BufWriter::new(file.open(path)?);
    let block_bytes = cache.layout().block_bytes();
    let blocks: Vec<BlockId> = cache.blocks.cached_newest_first().collect();
    // Fewer than u32::MAX, as all blocks are.
    let header = header(fingerprint, block_bytes, blocks.len() as u32);
    let checked = *blake3::hash(&header).as_bytes();
    file.write_all(&header)?;
    file.write_all(&checked)?;
    for (place, &block) in (0u32..).zip(&blocks) {
        let (key, bytes) = (cache.index.key(block), cache.block_bytes(block));
        file.write_all(&key.0)?;
        file.write_all(&digest(&checked, place, key, bytes))?;
        file.write_all(bytes)?;
    }
    let file = file.into_inner().map_err(io::IntoInnerError::into_error)?;
    file.sync_all()?;
    drop_pages(&file);
    Ok(Kept {
        blocks: blocks.len(),
        bytes: Bytes::from(blocks.len() * block_bytes),
    })
}

/// Reads kept blocks into free blocks of `cache`, as cached ones, as many as there is room for. A file
/// that is not there keeps nothing.
///
/// # Errors
/// When the system refuses, or the file is damaged or foreign; the cache is as it was then.
pub fn load(path: &Path, fingerprint: &[u8; 32], cache: &mut KvCache) -> Result<Kept, KeepError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Kept::default()),
        Err(source) => {
            return Err(KeepError::Io {
                what: "opening",
                path: path.to_owned(),
                source,
            });
        }
    };
    let result = match file.metadata() {
        Ok(metadata) => restore(path, &mut &file, metadata.len(), fingerprint, cache),
        Err(source) => Err(KeepError::Io {
            what: "reading",
            path: path.to_owned(),
            source,
        }),
    };
    drop_pages(&file);
    result
}

/// Reads all of a file of `len` bytes, or leaves the cache as it is.
fn restore(
    path: &Path,
    file: &mut dyn Read,
    len: u64,
    fingerprint: &[u8; 32],
    cache: &mut KvCache,
) -> Result<Kept, KeepError> {
    let mut loaded = Vec::new();
    match read(path, file, len, fingerprint, cache, &mut loaded) {
        Ok(()) => Ok(Kept {
            blocks: loaded.len(),
            bytes: Bytes::from(loaded.len() * cache.layout().block_bytes()),
        }),
        Err(error) => {
            for block in loaded {
                cache.forget(block);
            }
            Err(error)
        }
    }
}

fn read(
    path: &Path,
    file: &mut dyn Read,
    len: u64,
    fingerprint: &[u8; 32],
    cache: &mut KvCache,
    loaded: &mut Vec<BlockId>,
) -> Result<(), KeepError> {
    let damaged = |offset| KeepError::Damaged {
        path: path.to_owned(),
        offset,
    };
    let foreign = |what| KeepError::Foreign {
        path: path.to_owned(),
        what,
    };
    // The end of the file before the end of what is read is damage at `offset`.
    let fail = |offset| {
        move |source: io::Error| match source.kind() {
            io::ErrorKind::UnexpectedEof => damaged(offset),
            _ => KeepError::Io {
                what: "reading",
                path: path.to_owned(),
                source,
            },
        }
    };
    let mut head = [0; HEADER];
    let mut checked = [0; DIGEST];
    file.read_exact(&mut head).map_err(fail(0))?;
    file.read_exact(&mut checked).map_err(fail(0))?;
    if checked != *blake3::hash(&head).as_bytes() || head[..8] != MAGIC {
        return Err(damaged(0));
    }
    let block_bytes = cache.layout().block_bytes();
    let blocks = u32::from_le_bytes([head[20], head[21], head[22], head[23]]);
    let own = header(fingerprint, block_bytes, blocks);
    for (part, what) in [
        (8..12, "version"),
        (12..20, "size of blocks"),
        (24..HEADER, "model, or another way to compute it"),
    ] {
        if head[part.clone()] != own[part] {
            return Err(foreign(what));
        }
    }
    let record = (2 * DIGEST + block_bytes) as u64;
    let start = (HEADER + DIGEST) as u64;
    if Some(len)
        != record
            .checked_mul(blocks.into())
            .and_then(|n| n.checked_add(start))
    {
        return Err(damaged(len));
    }
    for place in 0..blocks {
        let offset = start + u64::from(place) * record;
        let mut key = BlockKey([0; 32]);
        let mut expected = [0; DIGEST];
        file.read_exact(&mut key.0).map_err(fail(offset))?;
        file.read_exact(&mut expected).map_err(fail(offset))?;
        if cache.find(&key).is_some() {
            return Err(damaged(offset));
        }
        let Some(block) = cache.take_to_keep() else {
            // The rest is what would be evicted first.
            break;
        };
        let bytes = cache.block_bytes_mut(block);
        let read = file.read_exact(bytes).map_err(fail(offset));
        let right = read.map(|()| digest(&checked, place, &key, bytes) == expected);
        if !matches!(right, Ok(true)) {
            cache.release(block);
            return Err(right.err().unwrap_or_else(|| damaged(offset)));
        }
        cache.shelve(block, &key);
        loaded.push(block);
    }
    Ok(())
}

/// What has been read or written once is not worth memory.
fn drop_pages(file: &File) {
    let _ = rustix::fs::fadvise(file, 0, None, rustix::fs::Advice::DontNeed);
}

#[cfg(test)]
mod tests {
    use bursar_kernels::kv_view::{KvDtype, KvLayout, KvShape};
    use bursar_memory::Ledger;

    use super::*;
    use crate::{BlockTable, KvOptions, KvPlan, PrefixHasher};

    const TOKENS: usize = 16;
    const OURS: [u8; 32] = [3; 32];

    /// 256 bytes to a block.
    fn cache(blocks: usize) -> KvCache {
        let shape = KvShape {
            layers: 1,
            kv_heads: 1,
            head_dim: 4,
            block_tokens: TOKENS,
            dtype_k: KvDtype::F16,
            dtype_v: KvDtype::F16,
        };
        let layout = KvLayout::in_slabs_of(shape, 4096).expect("a layout");
        let plan = KvPlan::for_context(layout, blocks * TOKENS, 1).expect("a plan");
        let ledger = Ledger::new(plan.bytes());
        KvCache::new(plan, &ledger.root(), KvOptions::default()).expect("fits")
    }

    /// The keys of a chain, and what its blocks store.
    fn chain(len: u32) -> Vec<(BlockKey, u8)> {
        let hasher = PrefixHasher::new(&OURS, &[1; 32]);
        let mut keys = vec![hasher.first(&[0])];
        for n in 1..len {
            let last = keys[keys.len() - 1];
            keys.push(hasher.next(&last, &[n]));
        }
        keys.into_iter().zip(100..).collect()
    }

    fn fill(cache: &mut KvCache, chain: &[(BlockKey, u8)]) {
        let mut table = BlockTable::new();
        cache
            .append(&mut table, chain.len() * TOKENS)
            .expect("room");
        for (index, &(key, fill)) in chain.iter().enumerate() {
            cache.block_bytes_mut(table.blocks()[index]).fill(fill);
            cache.publish(&mut table, index, key);
        }
        cache.free(&mut table);
    }

    /// Every block found is right; gives how many there are.
    fn found(cache: &KvCache, chain: &[(BlockKey, u8)]) -> usize {
        let stored = chain
            .iter()
            .filter_map(|(key, fill)| Some((cache.find(key)?, fill)));
        stored
            .inspect(|(block, fill)| assert!(cache.block_bytes(*block).iter().all(|b| b == *fill)))
            .count()
    }

    #[test]
    fn what_is_kept_is_found_again_most_useful_first() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("kept");
        let chain = chain(6);
        let mut one = cache(8);
        assert_eq!(
            load(&path, &OURS, &mut one).expect("no file"),
            Kept::default()
        );
        fill(&mut one, &chain);
        let kept = save(&path, &OURS, &one).expect("saved");
        assert_eq!(kept.blocks, 6);
        assert_eq!(kept.bytes.0 as usize, 6 * one.layout().block_bytes());
        // Again, over the old one; nothing is left beside it.
        assert_eq!(save(&path, &OURS, &one).expect("saved"), kept);
        assert_eq!(std::fs::read_dir(dir.path()).expect("a folder").count(), 1);

        let mut two = cache(8);
        assert_eq!(load(&path, &OURS, &mut two).expect("loaded"), kept);
        assert_eq!(found(&two, &chain), 6);
        assert_eq!(
            (two.report().blocks_used, two.report().blocks_cached),
            (0, 6)
        );
        // The order of eviction is the same: the end of the chain goes first.
        two.drop_cached(2);
        assert_eq!(found(&two, &chain[..4]), 4);
        let keys: Vec<_> = chain.iter().map(|(key, _)| *key).collect();
        let mut table = BlockTable::new();
        assert_eq!(two.adopt(&mut table, &keys), 4 * TOKENS);
        two.free(&mut table);

        let mut small = cache(3);
        assert_eq!(load(&path, &OURS, &mut small).expect("loaded").blocks, 3);
        assert_eq!(found(&small, &chain[..3]), 3);
    }

    #[test]
    fn damage_anywhere_keeps_nothing() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("kept");
        let chain = chain(2);
        let mut one = cache(4);
        fill(&mut one, &chain);
        save(&path, &OURS, &one).expect("saved");
        let whole = std::fs::read(&path).expect("saved");
        let mut two = cache(4);
        let mut refused = |bytes: &[u8], what: &str| {
            let (file, len) = (&mut &*bytes, bytes.len() as u64);
            let error = restore(&path, file, len, &OURS, &mut two).expect_err(what);
            assert!(
                matches!(error, KeepError::Damaged { .. }),
                "{what}: {error}"
            );
            assert!(
                error.to_string().contains("kept is damaged at byte"),
                "{error}"
            );
            let report = two.report();
            assert_eq!((report.blocks_cached, report.blocks_used), (0, 0), "{what}");
            assert_eq!(found(&two, &chain), 0, "{what}");
        };
        for len in 0..whole.len() {
            refused(&whole[..len], "truncated");
        }
        for at in 0..whole.len() {
            let mut flipped = whole.clone();
            flipped[at] ^= 1 << (at % 8);
            refused(&flipped, "flipped");
        }
        let mut longer = whole.clone();
        longer.push(0);
        refused(&longer, "longer");
        let record = (whole.len() - HEADER - DIGEST) / 2;
        let mut swapped = whole.clone();
        swapped[HEADER + DIGEST..].rotate_left(record);
        refused(&swapped, "swapped");
        // Shorter than it said it was.
        let error = restore(
            &path,
            &mut &whole[..700],
            whole.len() as u64,
            &OURS,
            &mut two,
        );
        assert!(matches!(error, Err(KeepError::Damaged { .. })), "{error:?}");
        assert_eq!(load(&path, &OURS, &mut two).expect("whole again").blocks, 2);
    }

    #[test]
    fn what_others_kept_is_foreign() {
        let dir = tempfile::tempdir().expect("a folder");
        let path = dir.path().join("kept");
        let mut one = cache(4);
        fill(&mut one, &chain(2));
        save(&path, &OURS, &one).expect("saved");
        let mut two = cache(4);
        let error = load(&path, &[4; 32], &mut two).expect_err("another model");
        assert!(matches!(error, KeepError::Foreign { .. }), "{error}");
        let unwritable = dir.path().join("no/such/folder");
        let error = save(&unwritable, &OURS, &one).expect_err("no folder");
        assert!(error.to_string().contains("no/such/folder"), "{error}");
    }
}
