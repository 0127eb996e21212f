//! What begins an item of a language with braces, judged by the first words of a line.

use super::scan::{Scan, is_word};
use crate::language::Language;

/// What begins.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Form {
    /// A function, a type: one piece.
    Item,
    /// Holds items.
    Container,
    /// A constant or variable: ends as a statement does.
    Value,
    /// A function, perhaps without its body.
    Declaration,
}

/// Longest beginning of a function that is looked at.
const HEAD_BYTES_MAX: usize = 2000;

/// What begins on a line of code, if anything; `inner` where the line is in a container.
pub(super) fn form(scan: &Scan<'_>, line: usize, language: Language, inner: bool) -> Option<Form> {
    let text = scan.trimmed(line);
    match language {
        Language::Rust => rust(text),
        Language::Go => go(text),
        Language::JavaScript => javascript(scan, line, text, inner),
        Language::Java => java(scan, line, text, inner),
        Language::C | Language::Cpp => c(scan, line, text, language),
        Language::Python | Language::Markdown | Language::Plain => None,
    }
}

/// The first word, and what follows it.
fn word(text: &str) -> (&str, &str) {
    let text = text.trim_start();
    let end = text.bytes().position(|byte| !is_word(byte));
    text.split_at(end.unwrap_or(text.len()))
}

/// Without the words of `skipped` at its beginning.
fn after<'a>(mut text: &'a str, skipped: &[&str]) -> &'a str {
    loop {
        let (first, rest) = word(text);
        if !skipped.contains(&first) || first.is_empty() {
            return text.trim_start();
        }
        text = rest;
    }
}

fn rust(text: &str) -> Option<Form> {
    let mut text = text;
    if let Some(rest) = text.strip_prefix("pub") {
        text = match rest.trim_start().strip_prefix('(') {
            Some(rest) => rest.split_once(')')?.1,
            None => rest,
        };
    }
    loop {
        let (first, rest) = word(text);
        let next = word(rest).0;
        match first {
            "async" | "default" | "unsafe" | "safe" | "auto" => text = rest,
            "const" if matches!(next, "fn" | "async" | "unsafe" | "extern") => text = rest,
            "extern" => {
                let abi = rest.trim_start();
                let abi = match abi.strip_prefix('"') {
                    Some(abi) => abi.split_once('"')?.1.trim_start(),
                    None => abi,
                };
                if abi.starts_with('{') {
                    return Some(Form::Container);
                }
                if abi.starts_with("crate ") {
                    return None;
                }
                text = abi;
            }
            "fn" | "struct" | "enum" | "macro_rules" => return Some(Form::Item),
            "union" if !next.is_empty() => return Some(Form::Item),
            "trait" | "impl" | "mod" => return Some(Form::Container),
            "const" | "static" | "type" => return Some(Form::Value),
            // A macro that makes items.
            _ if !first.is_empty() && rest.starts_with('!') => return Some(Form::Item),
            _ => return None,
        }
    }
}

fn go(text: &str) -> Option<Form> {
    match word(text).0 {
        "func" | "type" => Some(Form::Item),
        "const" | "var" => Some(Form::Value),
        _ => None,
    }
}

fn javascript(scan: &Scan<'_>, line: usize, text: &str, inner: bool) -> Option<Form> {
    let text = after(text, &["export", "default", "declare", "abstract", "async"]);
    let (first, rest) = word(text);
    match first {
        "function" | "interface" | "enum" => return Some(Form::Item),
        "class" => return Some(Form::Container),
        "namespace" | "module" if rest.starts_with(' ') && rest.ends_with('{') => {
            return Some(Form::Container);
        }
        "type" if !word(rest).0.is_empty() => return Some(Form::Value),
        "const" | "let" | "var" if !inner => return Some(Form::Value),
        _ => {}
    }
    if inner {
        let modifiers = [
            "public",
            "private",
            "protected",
            "static",
            "readonly",
            "get",
            "set",
        ];
        let text = after(text, &modifiers).trim_start_matches(['*', '#', ' ']);
        let (name, rest) = word(text);
        if !name.is_empty() && rest.contains('=') && !is_statement(name) {
            return Some(Form::Value);
        }
        return function(scan, line);
    }
    // module.exports.name = function, Type.prototype.name = (…) =>
    let (target, value) = text.split_once(" = ")?;
    let path = target.contains('.') && target.bytes().all(|byte| is_word(byte) || byte == b'.');
    let makes = value.contains("function") || value.contains("=>") || value.contains("class");
    (path && makes).then_some(Form::Value)
}

fn java(scan: &Scan<'_>, line: usize, text: &str, inner: bool) -> Option<Form> {
    let modifiers = [
        "public",
        "private",
        "protected",
        "static",
        "final",
        "abstract",
        "sealed",
        "default",
        "synchronized",
        "native",
        "strictfp",
        "non",
    ];
    let mut text = after(text, &modifiers);
    if let Some(rest) = text.strip_prefix("-sealed") {
        text = after(rest, &modifiers);
    }
    match word(text.trim_start_matches('@')).0 {
        "class" | "interface" | "enum" | "record" => Some(Form::Container),
        "import" | "package" => None,
        _ if inner => function(scan, line),
        _ => None,
    }
}

fn c(scan: &Scan<'_>, line: usize, text: &str, language: Language) -> Option<Form> {
    // public:
    if text.ends_with(':') && !text.contains("::") {
        return None;
    }
    if text.starts_with("extern \"") {
        return match text.ends_with('{') {
            true => Some(Form::Container),
            false => function(scan, line),
        };
    }
    let text = after(text, &["typedef", "static", "inline", "const", "export"]);
    let (first, rest) = word(text);
    match first {
        "namespace" => Some(Form::Container),
        "using" | "friend" => None,
        "class" | "struct" | "union" | "enum" => {
            // `struct point *make(int x) {` is a function.
            let head = head(scan, line);
            if head.contains('(') && !head.contains(" final") && language == Language::C {
                return function(scan, line);
            }
            let type_only = !head.contains('(') || rest.contains(':');
            match (type_only, first, language) {
                (false, ..) => function(scan, line),
                (true, "class" | "struct", Language::Cpp) => Some(Form::Container),
                _ => Some(Form::Item),
            }
        }
        _ => function(scan, line),
    }
}

/// The text from a line's beginning to the first brace or semicolon outside brackets.
fn head<'a>(scan: &Scan<'a>, line: usize) -> &'a str {
    let start = scan.lines[line].start as usize;
    let mut depth = 0u32;
    for mark in &scan.marks[scan.lines[line].mark as usize..] {
        let at = mark.at as usize;
        if at - start > HEAD_BYTES_MAX {
            break;
        }
        match mark.byte {
            b'{' | b';' if depth == 0 => return &scan.text[start..at],
            b'{' | b'(' | b'[' => depth += 1,
            b'}' | b')' | b']' if depth == 0 => return &scan.text[start..at],
            b'}' | b')' | b']' => depth -= 1,
            _ => {}
        }
    }
    ""
}

/// A function as C and its children write it: a name, brackets, then a body or a semicolon.
fn function(scan: &Scan<'_>, line: usize) -> Option<Form> {
    let head = head(scan, line);
    let open = head.find('(')?;
    let before = head[..open].trim_end();
    // An initialised variable, but for `operator==` and its like.
    if before.contains('=') && !before.contains("operator") {
        return None;
    }
    let name = before.rfind(|c: char| !c.is_alphanumeric() && !"_$~#".contains(c));
    let name = &before[name.map_or(0, |at| at + 1)..];
    let first = word(head).0;
    let is_name = !name.is_empty() || before.contains("operator") || before.ends_with('>');
    (is_name && !is_statement(name) && !is_statement(first)).then_some(Form::Declaration)
}

/// Words that begin a statement rather than an item.
fn is_statement(word: &str) -> bool {
    matches!(
        word,
        "if" | "else"
            | "for"
            | "while"
            | "do"
            | "switch"
            | "case"
            | "return"
            | "throw"
            | "try"
            | "catch"
            | "new"
            | "delete"
            | "goto"
            | "await"
            | "yield"
            | "sizeof"
            | "assert"
    )
}
