//! As much of JSON Schema as our own document uses, and stricter: what is not described is wrong too.

use serde_json::Value;

/// What is wrong with a value, by place; nothing if nothing is.
pub(crate) fn check(document: &Value, schema: &Value, value: &Value) -> Vec<String> {
    let mut wrong = Vec::new();
    look(document, schema, value, "$", &mut wrong);
    wrong
}

/// What `{"$ref": ...}` stands for; other things for themselves.
pub(crate) fn resolved<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    match schema["$ref"].as_str() {
        None => schema,
        Some(place) => {
            let place = place.strip_prefix('#').expect("within the document");
            document.pointer(place).expect("what is referred to")
        }
    }
}

fn look(document: &Value, schema: &Value, value: &Value, place: &str, wrong: &mut Vec<String>) {
    let schema = resolved(document, schema);
    for word in schema
        .as_object()
        .into_iter()
        .flatten()
        .map(|(word, _)| word)
    {
        assert!(
            KNOWN.contains(&word.as_str()),
            "{word} is not looked at: {schema}"
        );
    }
    let mut breach = |what: String| wrong.push(format!("{place} {what}"));
    if let Some(any) = schema["oneOf"].as_array() {
        let fits = |schema: &&Value| check(document, schema, value).is_empty();
        let count = any.iter().filter(fits).count();
        if count != 1 {
            let first = any.first().map(|schema| check(document, schema, value));
            breach(format!(
                "fits {count} of {} forms; the first: {first:?}",
                any.len()
            ));
        }
        return;
    }
    let types: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !types.is_empty() && !types.iter().any(|kind| is(kind, value)) {
        return breach(format!("is no {types:?}: {value}"));
    }
    if schema.get("const").is_some_and(|only| only != value) {
        breach(format!("is {value}"));
    }
    if let Some(allowed) = schema["enum"].as_array()
        && !allowed.contains(value)
    {
        breach(format!("is {value}, none of {allowed:?}"));
    }
    if let Some(number) = value.as_f64() {
        let bound = |name: &str| schema[name].as_f64();
        let low = bound("minimum").is_some_and(|least| number < least)
            || bound("exclusiveMinimum").is_some_and(|least| number <= least);
        if low || bound("maximum").is_some_and(|most| number > most) {
            breach(format!("is out of bounds: {number}"));
        }
    }
    let length = match value {
        Value::Array(items) => Some((items.len(), "minItems", "maxItems")),
        Value::String(text) => Some((text.chars().count(), "minLength", "maxLength")),
        _ => None,
    };
    if let Some((length, least, most)) = length {
        let bound = |name: &str| schema[name].as_u64();
        if bound(least).is_some_and(|least| (length as u64) < least)
            || bound(most).is_some_and(|most| length as u64 > most)
        {
            breach(format!("has {length} entries"));
        }
    }
    match value {
        Value::Object(fields) => {
            for name in schema["required"].as_array().into_iter().flatten() {
                let name = name.as_str().expect("a name");
                if !fields.contains_key(name) {
                    breach(format!("has no {name}"));
                }
            }
            for (name, value) in fields {
                let place = format!("{place}.{name}");
                match (&schema["properties"][name], &schema["additionalProperties"]) {
                    (Value::Null, Value::Null)
                        if types == ["object"] && schema.get("properties").is_none() => {}
                    (Value::Null, Value::Null) => {
                        wrong.push(format!("{place} is not described in openapi.json"));
                    }
                    (Value::Null, schema) | (schema, _) => {
                        look(document, schema, value, &place, wrong)
                    }
                }
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                look(
                    document,
                    &schema["items"],
                    item,
                    &format!("{place}[{index}]"),
                    wrong,
                );
            }
        }
        _ => {}
    }
}

/// Words that are looked at, and those that say nothing about a value.
const KNOWN: [&str; 18] = [
    "type",
    "properties",
    "required",
    "additionalProperties",
    "items",
    "enum",
    "const",
    "oneOf",
    "minimum",
    "exclusiveMinimum",
    "maximum",
    "minItems",
    "maxItems",
    "minLength",
    "maxLength",
    "description",
    "title",
    "$ref",
];

fn is(kind: &str, value: &Value) -> bool {
    match kind {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "string" => value.is_string(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        other => panic!("no type: {other}"),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_does_not_fit_is_found() {
        let document = json!({ "s": { "type": "integer", "minimum": 0 } });
        let schema = json!({
            "type": "object",
            "required": ["a"],
            "properties": {
                "a": { "$ref": "#/s" },
                "b": { "oneOf": [{ "type": "string" }, { "type": "array", "items": { "$ref": "#/s" } }] },
                "c": { "type": ["string", "null"], "enum": ["x", null] },
                "d": { "type": "object", "additionalProperties": { "$ref": "#/s" } },
            },
        });
        let wrong = |value: Value| check(&document, &schema, &value).len();
        assert_eq!(
            wrong(json!({ "a": 1, "b": [1, 2], "c": null, "d": { "e": 1 } })),
            0
        );
        assert_eq!(wrong(json!({ "a": -1 })), 1);
        assert_eq!(wrong(json!({ "a": 1.5 })), 1);
        assert_eq!(wrong(json!({ "b": "x" })), 1);
        assert_eq!(wrong(json!({ "a": 1, "b": ["x"] })), 1);
        assert_eq!(wrong(json!({ "a": 1, "c": "y" })), 1);
        assert_eq!(wrong(json!({ "a": 1, "d": { "e": -1 } })), 1);
        assert_eq!(wrong(json!({ "a": 1, "unknown": 1 })), 1);
    }
}
