//! `docs/reference/endpoints.md`: the document, for people.

use std::fmt::Write;

use serde_json::Value;

use crate::committed;

const STALE: &str = "docs/reference/endpoints.md is out of date; write it anew with \
                     `BURSAR_WRITE_ENDPOINTS=1 cargo test -p bursar-server --test openapi`";

fn write(document: &Value) -> String {
    let mut out = String::from(
        "# Endpoints\n\n\
         What a server can be asked: `GET /openapi.json`, which programs read, for people. Written by\n\
         `BURSAR_WRITE_ENDPOINTS=1 cargo test -p bursar-server --test openapi`; other tests there hold every line of \
         it to a\nrunning server.\n\n",
    );
    let words = document["info"]["description"].as_str().unwrap();
    let _ = writeln!(out, "{words}");
    for tag in document["tags"].as_array().unwrap() {
        let (name, words) = (
            tag["name"].as_str().unwrap(),
            tag["description"].as_str().unwrap(),
        );
        let _ = write!(
            out,
            "\n## {name}\n\n{words}\n\n| address | does | takes | answers |\n|---|---|---|---|\n"
        );
        for (path, operations) in document["paths"].as_object().unwrap() {
            for (method, operation) in operations.as_object().unwrap() {
                if operation["tags"][0] != *name {
                    continue;
                }
                let takes = schemas(&operation["requestBody"]["content"]);
                let answers = schemas(&operation["responses"]["200"]["content"]);
                let summary = operation["summary"].as_str().unwrap();
                let method = method.to_uppercase();
                let _ = writeln!(
                    out,
                    "| `{method} {path}` | {summary} | {takes} | {answers} |"
                );
            }
        }
    }
    out.push_str("\n# What is sent and answered\n");
    for (name, schema) in document["components"]["schemas"].as_object().unwrap() {
        let _ = write!(out, "\n## {name}\n\n");
        if let Some(words) = schema["description"].as_str() {
            let _ = write!(out, "{words}\n\n");
        }
        out.push_str("| field | type | what it is |\n|---|---|---|\n");
        fields(schema, "", &mut out);
    }
    out
}

/// The descriptions that a body may be of, linked.
fn schemas(content: &Value) -> String {
    let kinds = content.as_object().into_iter().flatten();
    let names = kinds.map(|(kind, content)| match content["schema"]["$ref"].as_str() {
        Some(place) => link(place),
        None if kind == "application/json" => "JSON".to_owned(),
        None => format!("`{kind}`"),
    });
    names.collect::<Vec<_>>().join(", ")
}

fn link(place: &str) -> String {
    let name = place.rsplit('/').next().unwrap_or_default();
    format!("[{name}](#{})", name.to_lowercase())
}

/// A row for each field, those within others after them.
fn fields(schema: &Value, place: &str, out: &mut String) {
    let required = schema["required"].as_array();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        let must = required.is_some_and(|names| names.iter().any(|other| other == name));
        let place = format!("{place}{name}");
        let kind = kind(field).replace('|', "\\|");
        let mut words = field["description"].as_str().unwrap_or_default().to_owned();
        if let Some(bounds) = bounds(field) {
            words = format!("{words} {bounds}").trim().to_owned();
        }
        let star = if must { "" } else { " (optional)" };
        let _ = writeln!(out, "| `{place}`{star} | {kind} | {words} |");
        fields(field, &format!("{place}."), out);
        fields(&field["items"], &format!("{place}[]."), out);
    }
}

fn bounds(field: &Value) -> Option<String> {
    let least = field.get("minimum").filter(|least| *least != 0);
    let above = field.get("exclusiveMinimum");
    let most = field.get("maximum");
    match (least, above, most) {
        (None, None, None) => None,
        (_, Some(above), Some(most)) => Some(format!("Above {above}, at most {most}.")),
        (Some(least), None, Some(most)) => Some(format!("{least} to {most}.")),
        (None, None, Some(most)) => Some(format!("0 to {most}.")),
        (Some(least), None, None) => Some(format!("At least {least}.")),
        (_, Some(above), None) => Some(format!("Above {above}.")),
    }
}

fn kind(schema: &Value) -> String {
    if let Some(place) = schema["$ref"].as_str() {
        return link(place);
    }
    if let Some(any) = schema["oneOf"].as_array() {
        let kinds: Vec<String> = any.iter().map(kind).collect();
        return kinds.join(" or ");
    }
    if let Some(only) = schema.get("const") {
        return format!("`{only}`");
    }
    if let Some(words) = schema["enum"].as_array() {
        let words: Vec<String> = words.iter().map(|word| format!("`{word}`")).collect();
        return words.join(" ");
    }
    let names: Vec<&str> = match &schema["type"] {
        Value::String(one) => vec![one],
        Value::Array(several) => several.iter().filter_map(Value::as_str).collect(),
        _ => vec!["anything"],
    };
    let mut words = names.join(" or ");
    if names.contains(&"array") {
        words = words.replacen("array", &format!("list of {}", kind(&schema["items"])), 1);
    }
    words
}

/// The committed page says the same, or is written anew.
pub(crate) fn compare(document: &Value) {
    committed::compare(
        "endpoints.md",
        &write(document),
        "BURSAR_WRITE_ENDPOINTS",
        STALE,
    );
}
