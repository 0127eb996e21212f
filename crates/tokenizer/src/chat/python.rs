//! Values as Python prints them: `str()`, `repr()` and `json.dumps`.
//!
//! A prompt must have the very characters that the model saw in training, so `True` is not `true`
//! and JSON has a space after its commas.

use std::fmt::{self, Write};

use minijinja::value::{Kwargs, ValueKind};
use minijinja::{Error, ErrorKind, Output, Value};

/// Values nested deeper than this are not printed.
const DEPTH_MAX: usize = 128;

/// Writes `str(value)`.
pub(super) fn write_str(out: &mut Output<'_>, value: &Value) -> fmt::Result {
    if let Some(text) = value.as_str() {
        return out.write_str(text);
    }
    let mut text = String::new();
    str_of(&mut text, value)?;
    out.write_str(&text)
}

fn str_of(out: &mut String, value: &Value) -> fmt::Result {
    match value.kind() {
        // Jinja's own: what is not there prints as nothing.
        ValueKind::Undefined => Ok(()),
        _ => match value.as_str() {
            Some(text) => out.write_str(text),
            None => repr(out, value, DEPTH_MAX),
        },
    }
}

/// The filter `string`.
pub(super) fn string(value: &Value) -> Result<String, Error> {
    let mut out = String::new();
    str_of(&mut out, value).map_err(Error::from)?;
    Ok(out)
}

/// The filter `join`.
pub(super) fn join(
    value: &Value,
    joiner: Option<&str>,
    attribute: Option<&str>,
    kwargs: Kwargs,
) -> Result<String, Error> {
    let joiner = match joiner {
        Some(joiner) => joiner,
        None => kwargs.get::<Option<&str>>("d")?.unwrap_or(""),
    };
    let attribute = match attribute {
        Some(attribute) => Some(attribute),
        None => kwargs.get::<Option<&str>>("attribute")?,
    };
    kwargs.assert_all_used()?;
    let mut out = String::new();
    for (nth, item) in value.try_iter()?.enumerate() {
        if nth > 0 {
            out.push_str(joiner);
        }
        let item = match attribute {
            Some(attribute) => item.get_attr(attribute)?,
            None => item,
        };
        str_of(&mut out, &item).map_err(Error::from)?;
    }
    Ok(out)
}

/// Writes `repr(value)`.
fn repr(out: &mut String, value: &Value, depth: usize) -> fmt::Result {
    let depth = depth.checked_sub(1).ok_or(fmt::Error)?;
    match value.kind() {
        ValueKind::None => out.write_str("None"),
        ValueKind::Bool => out.write_str(if value.is_true() { "True" } else { "False" }),
        ValueKind::Number => number(out, value, &["nan", "inf", "-inf"]),
        ValueKind::String => repr_str(out, value.as_str().unwrap_or_default()),
        ValueKind::Seq | ValueKind::Iterable => {
            let (open, close) = if value.is_tuple() {
                ("(", ")")
            } else {
                ("[", "]")
            };
            out.write_str(open)?;
            let mut count = 0;
            for item in value.try_iter().map_err(|_| fmt::Error)? {
                if count > 0 {
                    out.write_str(", ")?;
                }
                repr(out, &item, depth)?;
                count += 1;
            }
            if count == 1 && value.is_tuple() {
                out.write_str(",")?;
            }
            out.write_str(close)
        }
        ValueKind::Map => {
            out.write_str("{")?;
            for (nth, key) in value.try_iter().map_err(|_| fmt::Error)?.enumerate() {
                if nth > 0 {
                    out.write_str(", ")?;
                }
                let item = value.get_item(&key).map_err(|_| fmt::Error)?;
                repr(out, &key, depth)?;
                out.write_str(": ")?;
                repr(out, &item, depth)?;
            }
            out.write_str("}")
        }
        _ => write!(out, "{value}"),
    }
}

/// A string in quotes: single ones, unless it has those and no double ones.
fn repr_str(out: &mut String, text: &str) -> fmt::Result {
    let quote = if text.contains('\'') && !text.contains('"') {
        '"'
    } else {
        '\''
    };
    out.push(quote);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c == quote => out.extend(['\\', c]),
            // What Python's `str.isprintable` denies, except the ASCII space.
            c if c != ' ' && !is_printable(c) => match u32::from(c) {
                code @ 0..=0xff => write!(out, "\\x{code:02x}")?,
                code @ 0x100..=0xffff => write!(out, "\\u{code:04x}")?,
                code => write!(out, "\\U{code:08x}")?,
            },
            c => out.push(c),
        }
    }
    out.push(quote);
    Ok(())
}

fn is_printable(c: char) -> bool {
    use unicode_general_category::{GeneralCategory as Category, get_general_category};
    !matches!(
        get_general_category(c),
        Category::Control
            | Category::Format
            | Category::Surrogate
            | Category::PrivateUse
            | Category::Unassigned
            | Category::LineSeparator
            | Category::ParagraphSeparator
            | Category::SpaceSeparator
    )
}

/// Writes a number as Python does; `special` spells NaN and the infinities.
fn number(out: &mut String, value: &Value, special: &[&str; 3]) -> fmt::Result {
    if value.is_integer() {
        return write!(out, "{value}");
    }
    let Ok(float) = f64::try_from(value.clone()) else {
        return write!(out, "{value}");
    };
    if float.is_nan() {
        return out.write_str(special[0]);
    }
    if float.is_infinite() {
        return out.write_str(special[if float > 0.0 { 1 } else { 2 }]);
    }
    // Rust and Python both print the shortest digits that read back; they differ in when they
    // change to an exponent: Python below 1e-4 and from 1e16 on.
    let digits = format!("{float:e}");
    let (mantissa, exponent) = digits.split_once('e').unwrap_or((&digits, "0"));
    let exponent: i32 = exponent.parse().map_err(|_| fmt::Error)?;
    if float != 0.0 && !(-4..16).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        return write!(out, "{mantissa}e{sign}{:02}", exponent.abs());
    }
    let plain = format!("{float}");
    out.write_str(&plain)?;
    if !plain.contains('.') {
        out.write_str(".0")?;
    }
    Ok(())
}

/// The filter `tojson`: `json.dumps(value, ensure_ascii=False)` with its arguments.
pub(super) fn tojson(
    value: &Value,
    indent: Option<&Value>,
    kwargs: Kwargs,
) -> Result<Value, Error> {
    let named = kwargs.get::<Option<&Value>>("indent")?;
    let indent = match indent.or(named) {
        None => None,
        Some(value) if value.is_none() || value.is_undefined() => None,
        Some(value) => Some(match value.as_str() {
            Some(text) => text.to_owned(),
            None => " ".repeat(value.as_usize().unwrap_or(0).min(64)),
        }),
    };
    let separators = kwargs
        .get::<Option<&Value>>("separators")?
        .filter(|value| !value.is_none());
    let (comma, colon) = match separators {
        Some(pair) => (
            pair.get_item_by_index(0)?.to_string(),
            pair.get_item_by_index(1)?.to_string(),
        ),
        // With indentation the line break takes the place of the space.
        None if indent.is_some() => (",".to_owned(), ": ".to_owned()),
        None => (", ".to_owned(), ": ".to_owned()),
    };
    let json = Json {
        indent,
        comma,
        colon,
        ascii: kwargs.get::<Option<bool>>("ensure_ascii")?.unwrap_or(false),
        sorted: kwargs.get::<Option<bool>>("sort_keys")?.unwrap_or(false),
    };
    kwargs.assert_all_used()?;
    let mut out = String::new();
    json.write(&mut out, value, 0)?;
    Ok(Value::from_safe_string(out))
}

struct Json {
    indent: Option<String>,
    comma: String,
    colon: String,
    ascii: bool,
    sorted: bool,
}

impl Json {
    fn write(&self, out: &mut String, value: &Value, depth: usize) -> Result<(), Error> {
        if depth > DEPTH_MAX {
            return Err(Error::new(
                ErrorKind::InvalidOperation,
                "JSON nested too deeply",
            ));
        }
        match value.kind() {
            ValueKind::None => out.push_str("null"),
            ValueKind::Bool => out.push_str(if value.is_true() { "true" } else { "false" }),
            ValueKind::Number => {
                number(out, value, &["NaN", "Infinity", "-Infinity"]).map_err(Error::from)?;
            }
            ValueKind::String => self.string(out, value.as_str().unwrap_or_default()),
            ValueKind::Seq | ValueKind::Iterable => {
                let items: Vec<Value> = value.try_iter()?.collect();
                self.list(out, '[', ']', depth, &items, |json, out, item| {
                    json.write(out, item, depth + 1)
                })?;
            }
            ValueKind::Map => {
                let mut entries = Vec::new();
                for key in value.try_iter()? {
                    let item = value.get_item(&key)?;
                    entries.push((key_text(&key)?, item));
                }
                if self.sorted {
                    entries.sort_by(|a, b| a.0.cmp(&b.0));
                }
                self.list(out, '{', '}', depth, &entries, |json, out, (key, item)| {
                    json.string(out, key);
                    out.push_str(&json.colon);
                    json.write(out, item, depth + 1)
                })?;
            }
            _ => {
                return Err(Error::new(
                    ErrorKind::InvalidOperation,
                    format!("a value of type {} is not JSON", value.kind()),
                ));
            }
        }
        Ok(())
    }

    fn list<T>(
        &self,
        out: &mut String,
        open: char,
        close: char,
        depth: usize,
        items: &[T],
        write: impl Fn(&Json, &mut String, &T) -> Result<(), Error>,
    ) -> Result<(), Error> {
        out.push(open);
        for (nth, item) in items.iter().enumerate() {
            if nth > 0 {
                out.push_str(&self.comma);
            }
            self.line(out, depth + 1);
            write(self, out, item)?;
        }
        if !items.is_empty() {
            self.line(out, depth);
        }
        out.push(close);
        Ok(())
    }

    /// Starts a line, if there are lines.
    fn line(&self, out: &mut String, depth: usize) {
        if let Some(indent) = &self.indent {
            out.push('\n');
            for _ in 0..depth {
                out.push_str(indent);
            }
        }
    }

    fn string(&self, out: &mut String, text: &str) {
        out.push('"');
        for c in text.chars() {
            match c {
                '"' => out.push_str("\\\""),
                '\\' => out.push_str("\\\\"),
                '\n' => out.push_str("\\n"),
                '\r' => out.push_str("\\r"),
                '\t' => out.push_str("\\t"),
                '\u{8}' => out.push_str("\\b"),
                '\u{c}' => out.push_str("\\f"),
                c if c < ' ' || (self.ascii && !(' '..='~').contains(&c)) => {
                    for unit in c.encode_utf16(&mut [0; 2]) {
                        // Writing to a string does not fail.
                        let _ = write!(out, "\\u{unit:04x}");
                    }
                }
                c => out.push(c),
            }
        }
        out.push('"');
    }
}

/// A key as JSON has it.
fn key_text(key: &Value) -> Result<String, Error> {
    match key.kind() {
        ValueKind::String => Ok(key.as_str().unwrap_or_default().to_owned()),
        ValueKind::Bool => Ok(if key.is_true() { "true" } else { "false" }.to_owned()),
        ValueKind::None => Ok("null".to_owned()),
        ValueKind::Number => {
            let mut text = String::new();
            number(&mut text, key, &["NaN", "Infinity", "-Infinity"]).map_err(Error::from)?;
            Ok(text)
        }
        kind => Err(Error::new(
            ErrorKind::InvalidOperation,
            format!("a key of type {kind} is not JSON"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: f64, want: &str) {
        let mut out = String::new();
        number(&mut out, &Value::from(value), &["nan", "inf", "-inf"]).unwrap();
        assert_eq!(out, want);
    }

    #[test]
    fn floats_print_as_pythons() {
        check(1.0, "1.0");
        check(0.1, "0.1");
        check(-0.0, "-0.0");
        check(1e15, "1000000000000000.0");
        check(1e16, "1e+16");
        check(1.5e300, "1.5e+300");
        check(0.0001, "0.0001");
        check(0.00001, "1e-05");
        check(123_456.789, "123456.789");
        check(f64::NAN, "nan");
        check(f64::NEG_INFINITY, "-inf");
    }

    #[test]
    fn strings_quote_as_pythons() {
        let check = |text: &str, want: &str| {
            let mut out = String::new();
            repr_str(&mut out, text).unwrap();
            assert_eq!(out, want);
        };
        check("a", "'a'");
        check("it's", "\"it's\"");
        check("it's \"x\"", "'it\\'s \"x\"'");
        check(
            "\u{0}\u{a0}\u{200b}\u{e000}\u{1f600}",
            "'\\x00\\xa0\\u200b\\ue000\u{1f600}'",
        );
    }
}
