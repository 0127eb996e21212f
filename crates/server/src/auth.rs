//! Who may ask: keys from a file, kept and compared as digests.

use std::path::{Path, PathBuf};

use axum::http::{HeaderMap, header};
use blake3::Hash;
use thiserror::Error;

use crate::error::ApiError;

/// Why keys could not be read.
#[derive(Debug, Error)]
pub enum KeysError {
    /// The file cannot be read.
    #[error("cannot read the API keys in {}: {why}", path.display())]
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
}

/// Shorter keys can be guessed.
const KEY_LEN_MIN: usize = 16;

/// The keys that are accepted; none of them is kept, only what they hash to.
#[derive(Clone, Debug)]
pub struct Keys(Vec<Hash>);

impl Keys {
    /// Reads a file with one key per line; empty lines and lines that start with `#` are skipped.
    ///
    /// # Errors
    /// If the file cannot be read, holds no key, or holds one that is too short.
    pub fn read(path: &Path) -> Result<Keys, KeysError> {
        let text = std::fs::read_to_string(path).map_err(|why| KeysError::Unreadable {
            path: path.to_owned(),
            why,
        })?;
        let mut digests = Vec::new();
        for (line, key) in (1..).zip(text.lines().map(str::trim)) {
            if key.is_empty() || key.starts_with('#') {
                continue;
            }
            if key.len() < KEY_LEN_MIN {
                return Err(KeysError::TooShort {
                    path: path.to_owned(),
                    line,
                    len: key.len(),
                });
            }
            digests.push(blake3::hash(key.as_bytes()));
        }
        match digests.is_empty() {
            true => Err(KeysError::Empty {
                path: path.to_owned(),
            }),
            false => Ok(Keys(digests)),
        }
    }

    /// Whether a request carries one of the keys as its bearer token.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<(), ApiError> {
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
        let known = self
            .0
            .iter()
            .fold(false, |known, key| known | (*key == digest));
        match known {
            true => Ok(()),
            false => Err(ApiError::unauthorized("the API key is not known here")),
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
            keys.check(&headers).is_ok()
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
    fn refuses_files_that_protect_nothing() {
        assert!(matches!(keys("# none\n"), Err(KeysError::Empty { .. })));
        let short = keys("# one\nsecret\n");
        assert!(matches!(short, Err(KeysError::TooShort { line: 2, .. })));
        let missing = Keys::read(Path::new("/no/such/file"));
        assert!(matches!(missing, Err(KeysError::Unreadable { .. })));
    }
}
