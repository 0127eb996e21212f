//! Tenants, and what keeps them apart: a salt that only this server can make.
//!
//! Cached prefixes are found by digests that begin with the salt of whoever asks. Two tenants can
//! therefore never use, or measure by the time an answer takes, what the other has asked before.
//! The salt is a keyed digest of the tenant's name; its key, the secret, lies in a file that nobody
//! else can read, is made once, and never leaves this machine. No field of a request has any part
//! in it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Bytes of a secret.
const SECRET_BYTES: usize = 32;
/// Only the owner may read or write.
const OWNER_ONLY: u32 = 0o600;
/// What stands before a tenant's name, so that no digest made for something else is a salt.
const PURPOSE: &[u8] = b"bursar tenant 1\0";

/// Whose request it is, as the engine is told.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Tenant {
    /// What all digests of its prefixes begin with.
    pub(crate) salt: [u8; 32],
}

/// What tenants' salts are made from.
#[derive(Clone)]
pub struct Secret([u8; SECRET_BYTES]);

/// Why there is no secret.
#[derive(Debug, Error)]
pub enum SecretError {
    /// The system refuses to read or write it.
    #[error("cannot keep a secret in {}: {why}", path.display())]
    System {
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: io::Error,
    },
    /// Others can read it, so it may be known.
    #[error(
        "{} can be read by others (mode {mode:o}), and tenants are kept apart by it; remove it, and \
         a new one is made",
        path.display()
    )]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// It is not what was written there.
    #[error(
        "{} should hold {SECRET_BYTES} bytes; remove it, and a new one is made",
        path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

impl Secret {
    /// The secret in a file, which is made with its folder where there is none.
    ///
    /// # Errors
    /// If the system refuses, or what lies there is exposed or damaged.
    pub fn open(path: &Path) -> Result<Secret, SecretError> {
        let system = |why| SecretError::System {
            path: path.to_owned(),
            why,
        };
        match File::open(path) {
            Ok(file) => read(path, file),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                make(path).map_err(system)?;
                // Whoever was first has made it; all read the same.
                read(path, File::open(path).map_err(system)?)
            }
            Err(error) => Err(system(error)),
        }
    }

    /// One for this process alone: what it keeps cannot be found again by another.
    ///
    /// # Errors
    /// If the system has no randomness to give.
    pub fn unkept() -> io::Result<Secret> {
        let mut bytes = [0; SECRET_BYTES];
        File::open("/dev/urandom")?.read_exact(&mut bytes)?;
        Ok(Secret(bytes))
    }

    /// The salt of those who are no tenant in particular.
    pub fn salt(&self) -> [u8; 32] {
        self.tenant("").salt
    }

    /// The tenant of that name; `""` for those who need none.
    pub(crate) fn tenant(&self, name: &str) -> Tenant {
        let mut hasher = blake3::Hasher::new_keyed(&self.0);
        hasher.update(PURPOSE).update(name.as_bytes());
        Tenant {
            salt: *hasher.finalize().as_bytes(),
        }
    }
}

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secret")
    }
}

fn read(path: &Path, mut file: File) -> Result<Secret, SecretError> {
    let path = || path.to_owned();
    let system = |why| SecretError::System { path: path(), why };
    let metadata = file.metadata().map_err(system)?;
    let mode = metadata.mode() & 0o777;
    if mode & !OWNER_ONLY != 0 {
        return Err(SecretError::Exposed { path: path(), mode });
    }
    let mut bytes = [0; SECRET_BYTES];
    if metadata.len() != SECRET_BYTES as u64 || file.read_exact(&mut bytes).is_err() {
        return Err(SecretError::Damaged { path: path() });
    }
    Ok(Secret(bytes))
}

/// Makes the file whole or not at all; one that another has made meanwhile stays.
fn make(path: &Path) -> io::Result<()> {
    let folder = path.parent().unwrap_or(Path::new("."));
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(folder)?;
    let Secret(bytes) = Secret::unkept()?;
    let mut name = path.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}", std::process::id()));
    let beside = folder.join(name);
    let written = (|| {
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(OWNER_ONLY)
            .open(&beside)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        match fs::hard_link(&beside, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        }
    })();
    let removed = fs::remove_file(&beside);
    written.and(removed)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn a_secret_is_made_once_and_only_for_its_owner() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("state/bursar/secret");
        let first = Secret::open(&path).unwrap();
        let again = Secret::open(&path).unwrap();
        assert_eq!(first.0, again.0);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let beside = fs::read_dir(path.parent().unwrap()).unwrap().count();
        assert_eq!(beside, 1, "nothing is left beside it");
        let other = Secret::open(&folder.path().join("other")).unwrap();
        assert_ne!(first.0, other.0);
        assert_eq!(format!("{first:?}"), "Secret");
    }

    #[test]
    fn tenants_differ_by_name_and_by_secret() {
        let (one, two) = (Secret([1; 32]), Secret([2; 32]));
        assert_eq!(one.tenant("a"), one.tenant("a"));
        assert_ne!(one.tenant("a"), one.tenant("b"));
        assert_ne!(one.tenant("a"), one.tenant(""));
        assert_ne!(one.tenant("a"), two.tenant("a"));
    }

    #[test]
    fn what_is_exposed_or_damaged_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("secret");
        assert!(Secret::open(&path).is_ok());
        fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
        let error = Secret::open(&path).unwrap_err();
        assert!(error.to_string().contains("mode 644"), "{error}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&path, [0; 31]).unwrap();
        let error = Secret::open(&path).unwrap_err();
        assert!(error.to_string().contains("32 bytes"), "{error}");
        let error = Secret::open(Path::new("/proc/none/secret")).unwrap_err();
        assert!(matches!(error, SecretError::System { .. }), "{error}");
    }
}
