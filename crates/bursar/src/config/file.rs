//! Configuration files: `bursar.toml` and `bursar.yaml` become flat entries (`kv.dtype`, its text,
//! its line), so that everything after this knows neither format.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Largest file that is read: a configuration of this many bytes is some other file.
const BYTES_MAX: u64 = 1 << 20;

/// One key with its value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// The whole key: `kv.dtype`.
    pub(crate) key: String,
    /// The value as text.
    pub(crate) text: String,
    /// Where it is, counted from 1; 0 where the parser does not say.
    pub(crate) line: usize,
}

/// Why a file gives no entries.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FileError {
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error("{} is {bytes} bytes; a configuration file has at most {BYTES_MAX}", path.display())]
    TooLarge { path: PathBuf, bytes: u64 },
    #[error("{} is not UTF-8 text (byte {offset})", path.display())]
    NotText { path: PathBuf, offset: usize },
    #[error("{} ends in neither .toml nor .yaml", path.display())]
    UnknownFormat { path: PathBuf },
    #[error("{}:{line}: {what}", path.display())]
    Malformed {
        path: PathBuf,
        line: usize,
        what: String,
    },
    #[error("{}:{line}: {key} is {kind}; a setting has one value", path.display())]
    NotAValue {
        path: PathBuf,
        line: usize,
        key: String,
        kind: &'static str,
    },
}

/// Reads a file's entries in their order.
pub(crate) fn read(path: &Path) -> Result<Vec<Entry>, FileError> {
    let unreadable = |source| FileError::Unreadable {
        path: path.to_owned(),
        source,
    };
    let bytes = std::fs::metadata(path).map_err(unreadable)?.len();
    if bytes > BYTES_MAX {
        return Err(FileError::TooLarge {
            path: path.to_owned(),
            bytes,
        });
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    let text = String::from_utf8(bytes).map_err(|error| FileError::NotText {
        path: path.to_owned(),
        offset: error.utf8_error().valid_up_to(),
    })?;
    let root = match path.extension().and_then(|extension| extension.to_str()) {
        Some("toml") => parse_toml(path, &text)?,
        Some("yaml" | "yml") => parse_yaml(path, &text)?,
        _ => {
            return Err(FileError::UnknownFormat {
                path: path.to_owned(),
            });
        }
    };
    let mut entries = Vec::new();
    flatten(path, "", root, &mut entries)?;
    Ok(entries)
}

/// What both formats come down to.
#[derive(Clone, Debug)]
enum Node {
    /// A scalar as text.
    Scalar(String),
    /// Something that is no setting, in words.
    Other(&'static str),
    /// Keys, their lines, their values.
    Table(Vec<(String, usize, Node)>),
}

fn flatten(
    path: &Path,
    prefix: &str,
    node: Node,
    entries: &mut Vec<Entry>,
) -> Result<(), FileError> {
    let Node::Table(table) = node else {
        return Ok(());
    };
    for (key, line, node) in table {
        let key = if prefix.is_empty() {
            key
        } else {
            format!("{prefix}.{key}")
        };
        match node {
            Node::Scalar(text) => entries.push(Entry { key, text, line }),
            Node::Table(_) => flatten(path, &key, node, entries)?,
            Node::Other(kind) => {
                return Err(FileError::NotAValue {
                    path: path.to_owned(),
                    line,
                    key,
                    kind,
                });
            }
        }
    }
    Ok(())
}

/// The line, counted from 1, of a byte of `text`.
fn line_at(text: &str, offset: usize) -> usize {
    let before = &text.as_bytes()[..offset.min(text.len())];
    1 + before.iter().filter(|&&byte| byte == b'\n').count()
}

fn parse_toml(path: &Path, text: &str) -> Result<Node, FileError> {
    let table = toml::de::DeTable::parse(text).map_err(|error| FileError::Malformed {
        path: path.to_owned(),
        line: error.span().map_or(1, |span| line_at(text, span.start)),
        what: error.message().to_owned(),
    })?;
    Ok(toml_table(text, table.get_ref()))
}

fn toml_table(text: &str, table: &toml::de::DeTable<'_>) -> Node {
    let mut rows: Vec<_> = table
        .iter()
        .map(|(key, value)| {
            (
                key.span().start,
                key.get_ref().clone().into_owned(),
                toml_node(text, value.get_ref()),
            )
        })
        .collect();
    // The parser sorts by name; the first mistake to report is the first in the file.
    rows.sort_by_key(|(start, ..)| *start);
    Node::Table(
        rows.into_iter()
            .map(|(start, key, node)| (key, line_at(text, start), node))
            .collect(),
    )
}

fn toml_node(text: &str, value: &toml::de::DeValue<'_>) -> Node {
    use toml::de::DeValue;
    match value {
        DeValue::String(string) => Node::Scalar(string.clone().into_owned()),
        DeValue::Integer(integer) => {
            let plain = i128::from_str_radix(integer.as_str(), integer.radix());
            Node::Scalar(plain.map_or_else(|_| integer.as_str().to_owned(), |n| n.to_string()))
        }
        DeValue::Float(float) => Node::Scalar(float.as_str().to_owned()),
        DeValue::Boolean(boolean) => Node::Scalar(boolean.to_string()),
        DeValue::Datetime(_) => Node::Other("a date"),
        DeValue::Array(_) => Node::Other("a list"),
        DeValue::Table(table) => toml_table(text, table),
    }
}

fn parse_yaml(path: &Path, text: &str) -> Result<Node, FileError> {
    let malformed = |line: u64, what: String| FileError::Malformed {
        path: path.to_owned(),
        line: usize::try_from(line).unwrap_or(usize::MAX),
        what,
    };
    // A file of comments alone is an empty document.
    if text
        .lines()
        .all(|line| line.trim().is_empty() || line.trim_start().starts_with('#'))
    {
        return Ok(Node::Table(Vec::new()));
    }
    let root: YamlNode = serde_saphyr::from_str(text).map_err(|error| {
        let line = error.location().map_or(1, |location| location.line());
        malformed(line, first_line(&error.without_snippet().to_string()))
    })?;
    match root.0 {
        Node::Table(table) => Ok(Node::Table(table)),
        _ => Err(malformed(
            1,
            "the file must be a mapping of keys to values".into(),
        )),
    }
}

fn first_line(text: &str) -> String {
    text.lines().next().unwrap_or_default().to_owned()
}

/// A YAML value, read into a [`Node`].
struct YamlNode(Node);

impl<'de> Deserialize<'de> for YamlNode {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(YamlVisitor).map(YamlNode)
    }
}

struct YamlVisitor;

impl<'de> Visitor<'de> for YamlVisitor {
    type Value = Node;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a setting's value or a mapping of settings")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_i128<E>(self, value: i128) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_u128<E>(self, value: u128) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_string()))
    }

    fn visit_str<E>(self, value: &str) -> Result<Node, E> {
        Ok(Node::Scalar(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Node, E> {
        Ok(Node::Other("empty"))
    }

    fn visit_none<E>(self) -> Result<Node, E> {
        Ok(Node::Other("empty"))
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Node, D::Error> {
        deserializer.deserialize_any(YamlVisitor)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Node, A::Error> {
        while items.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Node::Other("a list"))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Node, A::Error> {
        let mut table = Vec::new();
        while let Some(key) = map.next_key::<serde_saphyr::Spanned<String>>()? {
            let line = usize::try_from(key.defined.line()).unwrap_or(0);
            let YamlNode(node) = map.next_value()?;
            table.push((key.value, line, node));
        }
        Ok(Node::Table(table))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_text(name: &str, text: &str) -> Result<Vec<Entry>, FileError> {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join(name);
        std::fs::write(&path, text).expect("a file is written");
        read(&path)
    }

    #[track_caller]
    fn check(name: &str, text: &str, expected: &[(&str, &str, usize)]) {
        let entries = read_text(name, text).expect(text);
        let entries: Vec<_> = entries
            .iter()
            .map(|e| (e.key.as_str(), e.text.as_str(), e.line))
            .collect();
        assert_eq!(entries, expected);
    }

    #[track_caller]
    fn refused(name: &str, text: &str, part: &str) {
        let error = read_text(name, text).expect_err(text).to_string();
        assert!(error.contains(part), "{error} does not say {part}");
    }

    #[test]
    fn both_formats_give_the_same_entries() {
        check(
            "bursar.toml",
            "# the budget\nmemory = \"2GiB\"\ncontext = 8_192\n\n[kv]\ndtype = 'bf16'\nblock_tokens = 0x20\n",
            &[
                ("memory", "2GiB", 2),
                ("context", "8192", 3),
                ("kv.dtype", "bf16", 6),
                ("kv.block_tokens", "32", 7),
            ],
        );
        check("bursar.toml", "kv.dtype = 'f32'", &[("kv.dtype", "f32", 1)]);
        check(
            "bursar.yaml",
            "# the budget\nmemory: 2GiB\ncontext: 8192\nkv:\n  dtype: bf16\n  block_tokens: 32\n",
            &[
                ("memory", "2GiB", 2),
                ("context", "8192", 3),
                ("kv.dtype", "bf16", 5),
                ("kv.block_tokens", "32", 6),
            ],
        );
        check(
            "bursar.yml",
            "memory: 80%\nkv.dtype: f32\n",
            &[("memory", "80%", 1), ("kv.dtype", "f32", 2)],
        );
    }

    #[test]
    fn empty_files_have_no_entries() {
        check("bursar.toml", "", &[]);
        check("bursar.yaml", "", &[]);
        check("bursar.yaml", "# nothing yet\n\n", &[]);
    }

    #[test]
    fn broken_files_are_named_with_the_line() {
        refused(
            "bursar.toml",
            "memory = 1\ncontext = = 3\n",
            "bursar.toml:2: ",
        );
        refused(
            "bursar.toml",
            "memory = 1\nmemory = 2\n",
            "bursar.toml:2: duplicate",
        );
        refused("bursar.toml", "context = [1]\n", "context is a list");
        refused("bursar.yaml", "memory: 1\ncontext: [1\n", "bursar.yaml:");
        refused("bursar.yaml", "memory: 1\nmemory: 2\n", "bursar.yaml:2: ");
        refused(
            "bursar.yaml",
            "kv:\n  dtype: [f16]\n",
            "bursar.yaml:2: kv.dtype is a list",
        );
        refused("bursar.yaml", "memory:\n", "memory is empty");
        refused("bursar.yaml", "just words\n", "must be a mapping");
        refused("bursar.json", "{}", "neither .toml nor .yaml");
    }
}
