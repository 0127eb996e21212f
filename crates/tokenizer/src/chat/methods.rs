//! Methods, tests and filters that templates take from Python and the engine lacks.

use minijinja::value::{Tuple, ValueKind, from_args};
use minijinja::{Error, ErrorKind, State, Value};
use minijinja_contrib::pycompat;

/// Called for a method that a value does not have.
pub(super) fn unknown_method(
    state: &mut State<'_, '_>,
    value: &Value,
    method: &str,
    arguments: &[Value],
) -> Result<Value, Error> {
    let Some(text) = value.as_str() else {
        return pycompat::unknown_method_callback(state, value, method, arguments);
    };
    Ok(match method {
        "removeprefix" => {
            let (prefix,): (&str,) = from_args(arguments)?;
            Value::from(text.strip_prefix(prefix).unwrap_or(text))
        }
        "removesuffix" => {
            let (suffix,): (&str,) = from_args(arguments)?;
            Value::from(text.strip_suffix(suffix).unwrap_or(text))
        }
        "partition" => {
            let (separator,): (&str,) = from_args(arguments)?;
            let parts = text
                .split_once(separator)
                .map(|(head, tail)| [head, separator, tail]);
            tuple(parts.unwrap_or([text, "", ""]))
        }
        "rpartition" => {
            let (separator,): (&str,) = from_args(arguments)?;
            let parts = text
                .rsplit_once(separator)
                .map(|(head, tail)| [head, separator, tail]);
            tuple(parts.unwrap_or(["", "", text]))
        }
        "rsplit" => {
            let (separator, splits): (Option<&str>, Option<i64>) = from_args(arguments)?;
            // A negative count is none, as in Python.
            let splits = splits.and_then(|splits| usize::try_from(splits).ok());
            let parts = splits.map_or(usize::MAX, |splits| splits.saturating_add(1));
            let mut found: Vec<&str> = match separator {
                Some("") => return Err(invalid("empty separator")),
                Some(separator) => text.rsplitn(parts, separator).collect(),
                None if splits.is_none() => text.split_whitespace().rev().collect(),
                None => return Err(invalid("rsplit at white space takes no count")),
            };
            found.reverse();
            found.into_iter().collect()
        }
        "index" => {
            let (part,): (&str,) = from_args(arguments)?;
            let at = text
                .find(part)
                .ok_or_else(|| invalid("substring not found"))?;
            Value::from(text[..at].chars().count())
        }
        _ => return pycompat::unknown_method_callback(state, value, method, arguments),
    })
}

fn invalid(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

fn tuple(parts: [&str; 3]) -> Value {
    Value::from_object(Tuple::new(parts.map(Value::from).into()))
}

/// The filter `length`: what is not there has none.
pub(super) fn length(value: &Value) -> Result<usize, Error> {
    if value.is_undefined() {
        return Ok(0);
    }
    value.len().ok_or_else(|| {
        Error::new(
            ErrorKind::InvalidOperation,
            format!("{} has no len()", value.kind()),
        )
    })
}

/// The test `sequence`: what has a length and items, which strings and maps have too.
pub(super) fn is_sequence(value: &Value) -> bool {
    matches!(
        value.kind(),
        ValueKind::Seq | ValueKind::String | ValueKind::Map
    )
}

/// The test `iterable`: none is not, unlike what is not there.
pub(super) fn is_iterable(value: &Value) -> bool {
    !value.is_none() && value.try_iter().is_ok()
}

/// The test `callable`: functions and macros.
pub(super) fn is_callable(value: &Value) -> bool {
    value.kind() == ValueKind::Plain
}
