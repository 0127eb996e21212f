//! Who may ask, and as whom: keys from files, kept and compared as digests.

use std::path::{Path, PathBuf};

use axum::http::{HeaderMap, header};
use blake3::Hash;
use thiserror::Error;

use crate::error::ApiError;

/// Why keys could not be read.
#[derive(Debug, Error)]
pub enum KeysError {
    /// The file cannot be read.
    #[error(
        "cannot read the API keys in {}: {why}; name a file of keys, one per line, that this process \
         may read",
        path.display()
    )]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        why: std::io::Error,
    },
    /// The file holds no key.
    #[error(
        "{} holds no API key; write one per line, lines that start with # are comments",
        path.display()
    )]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// A key that nobody could guess at random is longer.
    #[error(
        "line {line} of {} is a key of {len} characters; use at least {KEY_LEN_MIN}, for example \
         from `openssl rand -hex 24`",
        path.display()
    )]
    TooShort {
        /// The file.
        path: PathBuf,
        /// Its line.
        line: usize,
        /// Characters of the key.
        len: usize,
    },
    /// A line that names no tenant, or more than a tenant and a key.
    #[error(
        "line {line} of {} is not a tenant and its key; write the tenant's name (letters, digits, \
         '.', '-', '_', at most {TENANT_LEN_MAX}), a blank, and the key",
        path.display()
    )]
    NoTenant {
        /// The file.
        path: PathBuf,
        /// Its line.
        line: usize,
    },
    /// One key for two tenants.
    #[error(
        "line {line} of {} has a key that {} has already; give each tenant keys of its own",
        path.display(),
        match .holder.as_str() { "" => "the file of API keys", holder => holder }
    )]
    Shared {
        /// The file.
        path: PathBuf,
        /// Its line.
        line: usize,
        /// The tenant that has it.
        holder: String,
    },
}

/// Shorter keys can be guessed.
const KEY_LEN_MIN: usize = 16;
/// Longest name of a tenant.
const TENANT_LEN_MAX: usize = 64;

/// The keys that are accepted; none of them is kept, only what they hash to.
#[derive(Clone, Debug)]
pub struct Keys(Vec<Key>);

#[derive(Clone, Debug)]
struct Key {
    digest: Hash,
    /// Whose it is; empty for keys that are no tenant's in particular.
    tenant: String,
}

impl Keys {
    /// Reads a file with one key per line; empty lines and lines that start with `#` are skipped.
    /// All of its keys are one tenant's.
    ///
    /// # Errors
    /// If the file cannot be read, holds no key, or holds one that is too short.
    pub fn read(path: &Path) -> Result<Keys, KeysError> {
        let mut keys = Keys(Vec::new());
        keys.add(path, |key| Some(("", key)))?;
        Ok(keys)
    }

    /// Adds the keys of a file with a tenant's name and one of its keys per line, as many lines per
    /// tenant as it has keys; empty lines and lines that start with `#` are skipped.
    ///
    /// # Errors
    /// As for [`Keys::read`], and if a line is not a name and a key, or two tenants have one key.
    pub fn with_tenants(keys: Option<Keys>, path: &Path) -> Result<Keys, KeysError> {
        let mut keys = keys.unwrap_or(Keys(Vec::new()));
        keys.add(path, |line| {
            let (name, key) = line.split_once(char::is_whitespace)?;
            let key = key.trim_start();
            let named = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
            let good = name.len() <= TENANT_LEN_MAX && name.chars().all(named);
            (good && !key.contains(char::is_whitespace)).then_some((name, key))
        })?;
        Ok(keys)
    }

    /// Adds the keys of a file's lines, each of which `read` divides into tenant and key.
    fn add(
        &mut self,
        path: &Path,
        read: fn(&str) -> Option<(&str, &str)>,
    ) -> Result<(), KeysError> {
        let path = || path.to_owned();
        let text = std::fs::read_to_string(path())
            .map_err(|why| KeysError::Unreadable { path: path(), why })?;
        let before = self.0.len();
        for (line, text) in (1..).zip(text.lines().map(str::trim)) {
            if text.is_empty() || text.starts_with('#') {
                continue;
            }
            let (tenant, key) =
                read(text).ok_or_else(|| KeysError::NoTenant { path: path(), line })?;
            if key.len() < KEY_LEN_MIN {
                return Err(KeysError::TooShort {
                    path: path(),
                    line,
                    len: key.len(),
                });
            }
            let digest = blake3::hash(key.as_bytes());
            match self.0.iter().find(|key| key.digest == digest) {
                Some(key) if key.tenant != tenant => {
                    return Err(KeysError::Shared {
                        path: path(),
                        line,
                        holder: key.tenant.clone(),
                    });
                }
                _ => self.0.push(Key {
                    digest,
                    tenant: tenant.to_owned(),
                }),
            }
        }
        match self.0.len() == before {
            true => Err(KeysError::Empty { path: path() }),
            false => Ok(()),
        }
    }

    /// The tenant whose key a request carries as its bearer token.
    pub(crate) fn tenant(&self, headers: &HeaderMap) -> Result<&str, ApiError> {
        let Some(value) = headers.get(header::AUTHORIZATION) else {
            return Err(ApiError::unauthorized(
                "an API key is needed: Authorization: Bearer KEY",
            ));
        };
        let value = value.as_bytes();
        let token = match value.get(..7) {
            Some(scheme) if scheme.eq_ignore_ascii_case(b"bearer ") => value[7..].trim_ascii(),
            _ => {
                return Err(ApiError::unauthorized(
                    "the header Authorization must read: Bearer KEY",
                ));
            }
        };
        // Digests compare in constant time, and all of them are compared: neither how much of a
        // key is right nor which key it is can be told from the time taken.
        let digest = blake3::hash(token);
        let known = (1..).zip(&self.0).fold(0, |known: usize, (place, key)| {
            known.max(place * usize::from(key.digest == digest))
        });
        match known.checked_sub(1) {
            Some(place) => Ok(&self.0[place].tenant),
            None => Err(ApiError::unauthorized("the API key is not known here")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn keys(text: &str) -> Result<Keys, KeysError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("keys");
        std::fs::write(&path, text).unwrap();
        Keys::read(&path)
    }

    #[test]
    fn knows_its_keys_only() {
        let keys = keys("# ours\nsk-0123456789abcdef\n\n sk-fedcba9876543210 \n").unwrap();
        let check = |value: Option<&'static str>| {
            let mut headers = HeaderMap::new();
            if let Some(value) = value {
                headers.insert(header::AUTHORIZATION, HeaderValue::from_static(value));
            }
            keys.tenant(&headers).is_ok()
        };
        assert!(check(Some("Bearer sk-0123456789abcdef")));
        assert!(check(Some("bearer sk-fedcba9876543210")));
        for wrong in [
            "Bearer sk-0123456789abcde",
            "Bearer # ours",
            "Bearer ",
            "Bearer",
            "Basic sk-0123456789abcdef",
            "sk-0123456789abcdef",
        ] {
            assert!(!check(Some(wrong)), "{wrong}");
        }
        assert!(!check(None));
    }

    #[test]
    fn a_key_tells_its_tenant() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let plain = Keys::read(&write("plain", "plain-0123456789ab\n")).unwrap();
        let tenants = write(
            "tenants",
            "# two\nred red-0123456789abcdef\nblue  blue-0123456789abcde\nred red-fedcba9876543210\n",
        );
        let keys = Keys::with_tenants(Some(plain.clone()), &tenants).unwrap();
        let tenant = |key: &str| {
            let mut headers = HeaderMap::new();
            let value = HeaderValue::from_str(&format!("Bearer {key}")).unwrap();
            headers.insert(header::AUTHORIZATION, value);
            keys.tenant(&headers).map(str::to_owned).ok()
        };
        assert_eq!(tenant("red-0123456789abcdef").as_deref(), Some("red"));
        assert_eq!(tenant("red-fedcba9876543210").as_deref(), Some("red"));
        assert_eq!(tenant("blue-0123456789abcde").as_deref(), Some("blue"));
        assert_eq!(tenant("plain-0123456789ab").as_deref(), Some(""));
        assert_eq!(tenant("red"), None);

        let refused = |text: &str| {
            let error = Keys::with_tenants(Some(plain.clone()), &write("wrong", text));
            error.unwrap_err().to_string()
        };
        assert!(refused("red-0123456789abcdef\n").contains("line 1"));
        assert!(refused("a/b red-0123456789abcdef\n").contains("not a tenant"));
        assert!(refused("red a-0123456789abcdef b\n").contains("not a tenant"));
        assert!(refused("red short\n").contains("16"));
        assert!(refused("# none\n").contains("no API key"));
        let twice = "red x-0123456789abcdef\nblue x-0123456789abcdef\n";
        assert!(refused(twice).contains("line 2") && refused(twice).contains("red has"));
        assert!(refused("red plain-0123456789ab\n").contains("the file of API keys has"));
    }

    #[test]
    fn refuses_files_that_protect_nothing() {
        assert!(matches!(keys("# none\n"), Err(KeysError::Empty { .. })));
        let short = keys("# one\nsecret\n");
        assert!(matches!(short, Err(KeysError::TooShort { line: 2, .. })));
        let missing = Keys::read(Path::new("/no/such/file"));
        assert!(matches!(missing, Err(KeysError::Unreadable { .. })));
    }
}
