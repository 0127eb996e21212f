//! A JSON document read with care: every wrong type is an error that names file and key.

use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::error::FileError;
use crate::source::read_small_if_there;

/// Largest configuration document.
const BYTES_MAX: u64 = 16 << 20;

/// A JSON object and where it came from.
pub(crate) struct Settings {
    pub(crate) path: PathBuf,
    /// Prefix of keys for errors, as "rope_scaling.".
    prefix: String,
    map: Map<String, Value>,
}

impl Settings {
    /// Reads the document at `path`; `None` if there is no such file.
    pub(crate) fn read(path: &Path) -> Result<Option<Settings>, FileError> {
        match read_value(path)? {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Settings {
                path: path.to_owned(),
                prefix: String::new(),
                map,
            })),
            Some(other) => Err(FileError::malformed(
                path,
                None,
                "document",
                kind(&other),
                "an object",
            )),
        }
    }

    /// The value of `key`, unless it is absent or null.
    pub(crate) fn get(&self, key: &str) -> Option<&Value> {
        self.map.get(key).filter(|value| !value.is_null())
    }

    pub(crate) fn wrong(&self, key: &str, got: &Value, want: &str) -> FileError {
        let got = match got {
            Value::Array(_) | Value::Object(_) => kind(got).to_owned(),
            scalar => {
                let text = scalar.to_string();
                text.chars().take(96).collect()
            }
        };
        FileError::config(&self.path, format!("{}{key}", self.prefix), got, want)
    }

    pub(crate) fn missing(&self, key: &str, want: &str) -> FileError {
        FileError::config(&self.path, format!("{}{key}", self.prefix), "nothing", want)
    }

    /// A size or count.
    pub(crate) fn size(&self, key: &str) -> Result<Option<usize>, FileError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        let number = value.as_u64().and_then(|n| usize::try_from(n).ok());
        number
            .map(Some)
            .ok_or_else(|| self.wrong(key, value, "an integer, 0 or more"))
    }

    pub(crate) fn must_size(&self, key: &str) -> Result<usize, FileError> {
        self.size(key)?.ok_or_else(|| self.missing(key, "a number"))
    }

    /// A real number.
    pub(crate) fn float(&self, key: &str) -> Result<Option<f32>, FileError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value
            .as_f64()
            .map(|x| Some(x as f32))
            .ok_or_else(|| self.wrong(key, value, "a number"))
    }

    /// A truth value.
    pub(crate) fn truth(&self, key: &str) -> Result<Option<bool>, FileError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value
            .as_bool()
            .map(Some)
            .ok_or_else(|| self.wrong(key, value, "true or false"))
    }

    /// A string.
    pub(crate) fn string(&self, key: &str) -> Result<Option<&str>, FileError> {
        let Some(value) = self.get(key) else {
            return Ok(None);
        };
        value
            .as_str()
            .map(Some)
            .ok_or_else(|| self.wrong(key, value, "a string"))
    }

    /// An object.
    pub(crate) fn object(&self, key: &str) -> Result<Option<Settings>, FileError> {
        match self.get(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(Settings {
                path: self.path.clone(),
                prefix: format!("{}{key}.", self.prefix),
                map: map.clone(),
            })),
            Some(other) => Err(self.wrong(key, other, "an object")),
        }
    }

    /// The members in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &Value)> {
        self.map.iter().map(|(key, value)| (key.as_str(), value))
    }

    /// Token ids under `key`: one, or a list.
    pub(crate) fn token_ids(&self, key: &str) -> Result<Vec<u32>, FileError> {
        let Some(value) = self.get(key) else {
            return Ok(Vec::new());
        };
        let id = |value: &Value| {
            let id = value.as_u64().and_then(|n| u32::try_from(n).ok());
            id.ok_or_else(|| self.wrong(key, value, "a token id, or a list of them"))
        };
        match value {
            Value::Array(list) => list.iter().map(id).collect(),
            one => Ok(vec![id(one)?]),
        }
    }
}

/// Reads any JSON document; `None` if there is no such file. Errors say line and column.
pub(crate) fn read_value(path: &Path) -> Result<Option<Value>, FileError> {
    let Some(bytes) = read_small_if_there(path, BYTES_MAX)? else {
        return Ok(None);
    };
    parse(path, &bytes).map(Some)
}

/// Parses JSON read from `path`.
pub(crate) fn parse<T: serde::de::DeserializeOwned>(
    path: &Path,
    bytes: &[u8],
) -> Result<T, FileError> {
    serde_json::from_slice(bytes)
        .map_err(|e| FileError::malformed(path, None, "JSON document", e, "valid JSON"))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a truth value",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}
