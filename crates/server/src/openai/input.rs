//! Texts or token ids, one or many, as `prompt` and `input` hold them.

use serde_json::Value;

use crate::error::ApiError;
use crate::fields::{token_ids, wrong};

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Input<'a> {
    /// A text.
    Text(&'a str),
    /// Ids below the vocabulary.
    Ids(Vec<u32>),
}

/// Reads a text, a list of texts, a list of ids, or a list of lists of ids: at least one, at most
/// `count_max`, none of them empty.
pub(crate) fn read<'a>(
    value: &'a Value,
    place: &str,
    count_max: usize,
    vocab: usize,
) -> Result<Vec<Input<'a>>, ApiError> {
    let list = match value {
        Value::String(text) => return Ok(vec![self::text(text, place)?]),
        Value::Array(list) => list,
        other => {
            return Err(wrong(
                place,
                other,
                "a text, token ids, or a list of either",
            ));
        }
    };
    match list.first() {
        None => Err(ApiError::invalid(place, "is empty; give at least one")),
        Some(Value::Number(_)) => Ok(vec![Input::Ids(token_ids(list, place, vocab)?)]),
        Some(_) if list.len() > count_max => Err(ApiError::invalid(
            place,
            format!("has {} entries; it may have {count_max}", list.len()),
        )),
        Some(_) => list
            .iter()
            .enumerate()
            .map(|(index, value)| {
                let place = format!("{place}[{index}]");
                match value {
                    Value::String(text) => self::text(text, &place),
                    Value::Array(ids) if ids.is_empty() => Err(ApiError::invalid(
                        place,
                        "is empty; give at least one token",
                    )),
                    Value::Array(ids) => Ok(Input::Ids(token_ids(ids, &place, vocab)?)),
                    other => Err(wrong(&place, other, "a text or a list of token ids")),
                }
            })
            .collect(),
    }
}

fn text<'a>(text: &'a str, place: &str) -> Result<Input<'a>, ApiError> {
    match text.is_empty() {
        true => Err(ApiError::invalid(place, "is an empty text")),
        false => Ok(Input::Text(text)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn reads_every_shape() {
        let read = |value: Value| {
            super::read(&value, "input", 3, 10)
                .map(|inputs| format!("{inputs:?}"))
                .map_err(|error| error.to_string())
        };
        assert_eq!(read(json!("a")).unwrap(), r#"[Text("a")]"#);
        assert_eq!(
            read(json!(["a", [1, 2], "b"])).unwrap(),
            r#"[Text("a"), Ids([1, 2]), Text("b")]"#
        );
        assert_eq!(read(json!([1, 2, 3, 4])).unwrap(), "[Ids([1, 2, 3, 4])]");
        let cases = [
            (json!(""), "input is an empty"),
            (json!([]), "input is empty"),
            (json!([[]]), "input[0] is empty"),
            (json!(["a", ""]), "input[1] is an empty"),
            (json!(["a", 1]), "input[1] is the number 1"),
            (json!([1, "a"]), "input[1] is the text"),
            (json!([1, 10]), "input[1] is 10"),
            (json!([[1], [-1]]), "input[1][0] is -1"),
            (json!([{}]), "input[0] is an object"),
            (json!({}), "input is an object"),
            (json!(true), "input is true"),
            (json!(["a", "b", "c", "d"]), "input has 4 entries"),
        ];
        for (value, want) in cases {
            let error = read(value).expect_err("broken");
            assert!(error.starts_with(want), "{error}");
        }
    }
}
