//! Rules for source files that neither the compiler nor clippy checks: each opens by saying what
//! lives in it, none grows past what one can read in a sitting, and `unsafe` stays in the few
//! places that the contributing guide names.

use std::fs;
use std::path::{Path, PathBuf};

/// Longest a source file may become, in lines.
const LINES_MAX: usize = 900;

/// Where `unsafe` may be written: a file, or a folder with everything below it.
const UNSAFE_ALLOWED: [&str; 12] = [
    "crates/kernels/src/x86_64",
    "crates/kernels/src/aarch64",
    "crates/kernels/src/quant.rs",
    "crates/kernels/src/mat.rs",
    "crates/memory/src/region.rs",
    "crates/memory/src/counting.rs",
    "crates/memory/src/program.rs",
    "crates/memory/src/span.rs",
    "crates/memory/src/cell.rs",
    // Programs of their own that compare allocators, which are unsafe by nature.
    "crates/memory/benches/allocators",
    "crates/workers/src",
    "crates/workers/tests",
];

/// Checks every Rust file of ours under `root`; the error lists each breach on its own line.
pub(crate) fn check(root: &Path) -> Result<(), String> {
    let mut files = Vec::new();
    for folder in ["crates", "xtask", "tests", "bench", "fuzz"] {
        collect(&root.join(folder), &mut files)?;
    }
    files.sort();
    let mut breaches = Vec::new();
    for file in &files {
        let text =
            fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))?;
        let name = file.strip_prefix(root).unwrap_or(file);
        breaches.extend(breaches_of(name, &text));
    }
    if breaches.is_empty() {
        eprintln!("{} source files keep the rules", files.len());
        return Ok(());
    }
    Err(breaches.join("\n"))
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) -> Result<(), String> {
    if !folder.is_dir() {
        return Ok(());
    }
    let unreadable = |error| format!("{}: {error}", folder.display());
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        let name = path
            .file_name()
            .and_then(|name| name.to_str())
            .unwrap_or_default();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') {
                collect(&path, files)?;
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    Ok(())
}

fn breaches_of(name: &Path, text: &str) -> Vec<String> {
    let mut breaches = Vec::new();
    let mut breach = |line: usize, what: String| {
        breaches.push(format!("{}:{line}: {what}", name.display()));
    };
    if !text.starts_with("//! ") {
        breach(
            1,
            "the first line must be a //! comment saying what lives here and why".into(),
        );
    }
    let lines = text.lines().count();
    if lines > LINES_MAX {
        breach(
            lines,
            format!("{lines} lines; split it (at most {LINES_MAX}, better under 600)"),
        );
    }
    if !UNSAFE_ALLOWED
        .iter()
        .any(|allowed| name.starts_with(allowed))
    {
        for (number, line) in text.lines().enumerate() {
            if is_unsafe(line) {
                breach(number + 1, "unsafe is not allowed in this file".into());
            }
        }
    }
    breaches
}

/// Whether a line of code (not a comment, not an attribute) holds the keyword as a word.
fn is_unsafe(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let keyword = concat!("un", "safe");
    code.match_indices(keyword).any(|(at, _)| {
        let word = |c: char| c.is_alphanumeric() || c == '_' || c == '"';
        let before = code[..at].chars().next_back();
        let after = code[at + keyword.len()..].chars().next();
        !before.is_some_and(word) && !after.is_some_and(word)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(name: &str, text: &str, expected: &[&str]) {
        let breaches = breaches_of(Path::new(name), text);
        assert_eq!(breaches.len(), expected.len(), "{breaches:?}");
        for (breach, part) in breaches.iter().zip(expected) {
            assert!(breach.contains(part), "{breach} does not say {part}");
        }
    }

    #[test]
    fn breaches_are_named_with_their_line() {
        check("crates/kv/src/a.rs", "//! What.\nfn f() {}\n", &[]);
        check(
            "crates/kv/src/a.rs",
            "fn f() {}\n",
            &["a.rs:1: the first line"],
        );
        let danger = concat!("//! What.\n", "un", "safe { f() }\n");
        check("crates/kv/src/a.rs", danger, &["a.rs:2: "]);
        check("crates/workers/src/pool.rs", danger, &[]);
        check(
            "crates/kv/src/a.rs",
            "//! What.\n#![forbid(unsafe_code)] // unsafe\n",
            &[],
        );
        let long = format!("//! What.\n{}", "//\n".repeat(LINES_MAX));
        check("crates/kv/src/a.rs", &long, &["split it"]);
    }
}
