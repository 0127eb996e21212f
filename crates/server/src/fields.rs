//! The fields of a request, read one by one: each refusal names its field and says what is allowed.
//! A field that is `null` counts as absent, because clients send their unset options so. Fields
//! that nobody asks for are ignored.

use std::fmt::Display;

use serde_json::{Map, Value};

use crate::error::ApiError;

/// An object of a request, and where it stands.
#[derive(Debug)]
pub(crate) struct Fields<'a> {
    map: &'a Map<String, Value>,
    place: String,
}

/// Longest text that is quoted in a message.
const QUOTE_MAX: usize = 40;

impl<'a> Fields<'a> {
    /// The request itself.
    pub(crate) fn root(value: &'a Value) -> Result<Fields<'a>, ApiError> {
        Fields::of(value, String::new())
    }

    /// The object at `place`.
    pub(crate) fn of(value: &'a Value, place: String) -> Result<Fields<'a>, ApiError> {
        match value {
            Value::Object(map) => Ok(Fields { map, place }),
            other => Err(wrong(&place, other, "an object")),
        }
    }

    /// All of them.
    pub(crate) fn map(&self) -> &'a Map<String, Value> {
        self.map
    }

    /// Where a field stands: `messages[0].role`.
    pub(crate) fn place(&self, name: &str) -> String {
        match self.place.is_empty() {
            true => name.to_owned(),
            false => format!("{}.{name}", self.place),
        }
    }

    /// A field that is there and not null.
    pub(crate) fn get(&self, name: &str) -> Option<&'a Value> {
        self.map.get(name).filter(|value| !value.is_null())
    }

    /// A field that must be there.
    pub(crate) fn required(&self, name: &str) -> Result<&'a Value, ApiError> {
        self.get(name).ok_or_else(|| {
            ApiError::invalid(self.place(name), "is missing").code("missing_required_parameter")
        })
    }

    /// A truth value.
    pub(crate) fn boolean(&self, name: &str) -> Result<Option<bool>, ApiError> {
        self.get(name)
            .map(|value| match value {
                Value::Bool(value) => Ok(*value),
                other => Err(wrong(&self.place(name), other, "true or false")),
            })
            .transpose()
    }

    /// A text.
    pub(crate) fn text(&self, name: &str) -> Result<Option<&'a str>, ApiError> {
        self.get(name)
            .map(|value| match value {
                Value::String(text) => Ok(text.as_str()),
                other => Err(wrong(&self.place(name), other, "a text")),
            })
            .transpose()
    }

    /// A text that must be there.
    pub(crate) fn required_text(&self, name: &str) -> Result<&'a str, ApiError> {
        self.required(name)?;
        Ok(self.text(name)?.unwrap_or_default())
    }

    /// A list.
    pub(crate) fn list(&self, name: &str) -> Result<Option<&'a [Value]>, ApiError> {
        self.get(name)
            .map(|value| match value {
                Value::Array(list) => Ok(list.as_slice()),
                other => Err(wrong(&self.place(name), other, "a list")),
            })
            .transpose()
    }

    /// An object.
    pub(crate) fn object(&self, name: &str) -> Result<Option<Fields<'a>>, ApiError> {
        self.get(name)
            .map(|value| Fields::of(value, self.place(name)))
            .transpose()
    }

    /// A number from `low` to `high`.
    pub(crate) fn number(&self, name: &str, low: f64, high: f64) -> Result<Option<f64>, ApiError> {
        self.get(name)
            .map(|value| number(value, &self.place(name), low, high))
            .transpose()
    }

    /// A number above `low` and at most `high`.
    pub(crate) fn number_above(
        &self,
        name: &str,
        low: f64,
        high: f64,
    ) -> Result<Option<f64>, ApiError> {
        let got = self.number(name, low, high)?;
        match got {
            // What is not above zero as the f32 that is computed with, is not above it at all.
            Some(value) if value as f32 <= low as f32 => Err(ApiError::invalid(
                self.place(name),
                format!("is {value}; it must be above {low} and at most {high}"),
            )),
            got => Ok(got),
        }
    }

    /// A whole number from `low` to `high`.
    pub(crate) fn integer(&self, name: &str, low: i64, high: i64) -> Result<Option<i64>, ApiError> {
        self.get(name)
            .map(|value| integer(value, &self.place(name), low, high))
            .transpose()
    }

    /// A count from `low` to `high`.
    pub(crate) fn count(
        &self,
        name: &str,
        low: usize,
        high: usize,
    ) -> Result<Option<usize>, ApiError> {
        let signed = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let got = self.integer(name, signed(low), signed(high))?;
        Ok(got.map(|count| usize::try_from(count).unwrap_or(high)))
    }

    /// One of several words.
    pub(crate) fn word<T: Copy>(
        &self,
        name: &str,
        words: &[(&str, T)],
    ) -> Result<Option<T>, ApiError> {
        let Some(got) = self.text(name)? else {
            return Ok(None);
        };
        match words.iter().find(|(word, _)| *word == got) {
            Some((_, meaning)) => Ok(Some(*meaning)),
            None => {
                let words: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
                let what = format!("is {}; it must be {}", quoted(got), words.join(" or "));
                Err(ApiError::invalid(self.place(name), what))
            }
        }
    }
}

/// A number from `low` to `high`, at `place`.
pub(crate) fn number(value: &Value, place: &str, low: f64, high: f64) -> Result<f64, ApiError> {
    let Some(got) = value.as_f64() else {
        return Err(wrong(place, value, "a number"));
    };
    match got >= low && got <= high {
        true => Ok(got),
        false => Err(out_of_range(place, got, low, high)),
    }
}

/// A whole number from `low` to `high`, at `place`; `2.0` is one.
pub(crate) fn integer(value: &Value, place: &str, low: i64, high: i64) -> Result<i64, ApiError> {
    let Value::Number(number) = value else {
        return Err(wrong(place, value, "a whole number"));
    };
    let got = match number.as_i64() {
        Some(got) => got,
        None => {
            let float = number.as_f64().unwrap_or(f64::NAN);
            if float.fract() != 0.0 {
                let what = format!("is {number}; it must be a whole number");
                return Err(ApiError::invalid(place, what));
            }
            // Beyond i64 the bounds are passed too, but for a bound that is i64's own.
            if float >= i64::MAX as f64 || float < i64::MIN as f64 {
                return Err(out_of_range(place, number, low, high));
            }
            float as i64
        }
    };
    match got >= low && got <= high {
        true => Ok(got),
        false => Err(out_of_range(place, got, low, high)),
    }
}

/// A list of token ids below `vocab`.
pub(crate) fn token_ids(list: &[Value], place: &str, vocab: usize) -> Result<Vec<u32>, ApiError> {
    let last = i64::try_from(vocab).unwrap_or(i64::MAX) - 1;
    let id = |(index, value): (usize, &Value)| {
        let id = integer(value, &format!("{place}[{index}]"), 0, last)?;
        Ok(u32::try_from(id).unwrap_or(u32::MAX))
    };
    // The place is only spelled out where an id is broken: lists of ids are long.
    match list
        .iter()
        .map(|value| Some(u32::try_from(value.as_u64()?).ok()?).filter(|&id| (id as usize) < vocab))
        .collect()
    {
        Some(ids) => Ok(ids),
        None => list.iter().enumerate().map(id).collect(),
    }
}

fn out_of_range(place: &str, got: impl Display, low: impl Display, high: impl Display) -> ApiError {
    ApiError::invalid(
        place,
        format!("is {got}; it must be between {low} and {high}"),
    )
}

/// Something of another type than was wanted.
pub(crate) fn wrong(place: &str, got: &Value, want: &str) -> ApiError {
    let got = match got {
        Value::Null => "null".to_owned(),
        Value::Bool(value) => value.to_string(),
        Value::Number(number) => format!("the number {number}"),
        Value::String(text) => format!("the text {}", quoted(text)),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
    };
    ApiError::invalid(place, format!("is {got}; it must be {want}"))
}

/// A text to be shown, shortened.
pub(crate) fn quoted(text: &str) -> String {
    match text.char_indices().nth(QUOTE_MAX) {
        Some((at, _)) => format!("{:?}…", &text[..at]),
        None => format!("{text:?}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn message<T: std::fmt::Debug>(result: Result<T, ApiError>) -> String {
        result.expect_err("broken").to_string()
    }

    #[test]
    fn whole_numbers_may_be_written_as_floats_but_not_broken() {
        let value = json!({ "a": 3.0, "b": 3.5, "c": 1e30, "d": u64::MAX, "e": -1, "f": null });
        let fields = Fields::root(&value).unwrap();
        assert_eq!(fields.count("a", 1, 5).unwrap(), Some(3));
        assert_eq!(fields.count("f", 1, 5).unwrap(), None);
        assert_eq!(fields.count("g", 1, 5).unwrap(), None);
        assert!(message(fields.count("b", 1, 5)).starts_with("b is 3.5; it must be a whole"));
        assert!(message(fields.count("c", 1, 5)).contains("between 1 and 5"));
        assert!(message(fields.integer("d", i64::MIN, i64::MAX)).starts_with("d is 18446744"));
        assert!(message(fields.count("e", 0, 5)).contains("between 0 and 5"));
    }

    #[test]
    fn ids_name_the_first_that_is_none() {
        let list = [json!(1), json!(2.0), json!(9)];
        assert_eq!(token_ids(&list[..2], "prompt", 9).unwrap(), [1, 2]);
        assert!(message(token_ids(&list, "prompt", 9)).starts_with("prompt[2] is 9"));
        let list = [json!("1")];
        assert!(message(token_ids(&list, "prompt", 9)).starts_with("prompt[0] is the text"));
    }

    #[test]
    fn too_small_to_be_told_from_zero_is_zero() {
        let value = json!({ "top_p": 1e-300 });
        let fields = Fields::root(&value).unwrap();
        assert!(message(fields.number_above("top_p", 0.0, 1.0)).contains("above 0"));
    }
}
