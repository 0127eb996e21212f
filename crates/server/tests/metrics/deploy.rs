//! The dashboard and the rules in `deploy/`: every metric that they name is served, with the labels that
//! they ask for.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::exposition::Family;

fn deploy(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../deploy")
        .join(name)
}

/// Words of an expression that begin as our metrics do.
fn metrics_of(text: &str) -> BTreeSet<&str> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c: char| !word(c));
    words.filter(|word| word.starts_with("bursar_")).collect()
}

/// Whether a metric of that name is served, a histogram's parts included.
fn served(families: &[Family], name: &str) -> bool {
    families.iter().any(|family| {
        let rest = name.strip_prefix(family.name.as_str());
        match (family.kind.as_str(), rest) {
            (_, Some("")) => family.kind != "histogram",
            ("histogram", Some("_bucket" | "_sum" | "_count")) => true,
            ("summary", Some("_sum" | "_count")) => true,
            _ => false,
        }
    })
}

/// Every `expr` of a dashboard's panels, and the query of its variables.
fn expressions(value: &Value, out: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                match value.as_str() {
                    Some(text) if name == "expr" || name == "definition" => {
                        out.push(text.to_owned())
                    }
                    _ => expressions(value, out),
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| expressions(value, out)),
        _ => {}
    }
}

/// Both use only what is there.
pub(crate) fn check(families: &[Family]) {
    let dashboard = std::fs::read_to_string(deploy("grafana/bursar.json")).unwrap();
    let dashboard: Value = serde_json::from_str(&dashboard).unwrap();
    let mut texts = Vec::new();
    expressions(&dashboard, &mut texts);
    assert!(texts.len() > 20, "{} expressions", texts.len());
    let rules = std::fs::read_to_string(deploy("prometheus/rules.yml")).unwrap();
    let alerts = rules.matches("- alert: ").count();
    assert!(alerts >= 8, "{alerts} alerts");
    texts.push(rules);
    for text in &texts {
        let named = metrics_of(text);
        assert!(!named.is_empty(), "{text}");
        for name in named {
            assert!(served(families, name), "{name} is not served: {text}");
        }
    }
    // Panels say what they show, and each has an id of its own.
    let panels = dashboard["panels"].as_array().unwrap();
    let ids: BTreeSet<_> = panels.iter().map(|panel| panel["id"].as_u64()).collect();
    assert_eq!(ids.len(), panels.len());
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(!title.is_empty() && panel["type"].is_string(), "{panel}");
    }
}
