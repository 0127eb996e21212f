//! Rules for the documentation: links lead to files and headings that are there, every page of `docs/` is in
//! the book, and no page of the book leads out of it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path, PathBuf};

/// Documents beside those in `docs/`.
const OTHERS: [&str; 5] = [
    "README.md",
    "ARCHITECTURE.md",
    "CONTRIBUTING.md",
    "CHANGELOG.md",
    "models/README.md",
];

/// Checks all documents under `root`; the error lists each breach on its own line.
pub(crate) fn check(root: &Path) -> Result<(), String> {
    let mut pages = Vec::new();
    collect(&root.join("docs"), &mut pages)?;
    let others = OTHERS.iter().map(|name| root.join(name));
    let mut breaches = Vec::new();
    for file in pages.iter().cloned().chain(others) {
        let text = read(&file)?;
        let book = pages.contains(&file);
        for (line, target) in links(&text) {
            if let Some(what) = broken(&file, target, root, book) {
                let name = file.strip_prefix(root).unwrap_or(&file);
                breaches.push(format!("{}:{line}: {target} {what}", name.display()));
            }
        }
    }
    breaches.extend(missing(&root.join("docs"), &pages)?);
    if breaches.is_empty() {
        eprintln!("{} pages of documentation keep the rules", pages.len());
        return Ok(());
    }
    Err(breaches.join("\n"))
}

/// Pages that the summary does not list.
fn missing(docs: &Path, pages: &[PathBuf]) -> Result<Vec<String>, String> {
    let summary = docs.join("SUMMARY.md");
    let text = read(&summary)?;
    let listed: BTreeSet<PathBuf> = links(&text).map(|(_, target)| docs.join(target)).collect();
    let unlisted = pages
        .iter()
        .filter(|page| **page != summary && !listed.contains(*page));
    Ok(unlisted
        .map(|page| format!("{}: is not in docs/SUMMARY.md", page.display()))
        .collect())
}

fn read(file: &Path) -> Result<String, String> {
    fs::read_to_string(file).map_err(|error| format!("{}: {error}", file.display()))
}

fn collect(folder: &Path, pages: &mut Vec<PathBuf>) -> Result<(), String> {
    let unreadable = |error| format!("{}: {error}", folder.display());
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let path = entry.map_err(unreadable)?.path();
        if path.is_dir() {
            collect(&path, pages)?;
        } else if path.extension().is_some_and(|extension| extension == "md") {
            pages.push(path);
        }
    }
    pages.sort();
    Ok(())
}

/// Lines outside of code, with their numbers.
fn prose(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let mut code = false;
    (1..).zip(text.lines()).filter(move |(_, line)| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

/// Where links and pictures lead, with the number of their line.
fn links(text: &str) -> impl Iterator<Item = (usize, &str)> {
    prose(text).flat_map(|(number, line)| {
        let after = line.split("](").skip(1);
        after.filter_map(move |rest| Some((number, rest.split_once(')')?.0)))
    })
}

/// What is wrong with a link in `file`, if anything is.
fn broken(file: &Path, target: &str, root: &Path, book: bool) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (path, heading) = match target.split_once('#') {
        Some((path, heading)) => (path, Some(heading)),
        None => (target, None),
    };
    let folder = file.parent().unwrap_or(root);
    let to = match path.is_empty() {
        true => file.to_owned(),
        false => plain(&folder.join(path)),
    };
    if !to.exists() {
        return Some("is not there".to_owned());
    }
    if book && !to.starts_with(root.join("docs")) {
        return Some("leads out of the book".to_owned());
    }
    let heading = heading?;
    let text = fs::read_to_string(&to).unwrap_or_default();
    let found = headings(&text).any(|found| found == heading);
    (!found).then(|| "is no heading there".to_owned())
}

/// A path without `..`.
fn plain(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => {
                out.pop();
            }
            other => out.push(other),
        }
    }
    out
}

/// What links to the headings of a page end in, as GitHub and mdBook have it.
fn headings(text: &str) -> impl Iterator<Item = String> {
    let titles = prose(text).filter_map(|(_, line)| {
        let title = line.trim_start_matches('#');
        (title.len() < line.len()).then(|| title.strip_prefix(' '))?
    });
    titles.map(|title| {
        let kept = title
            .trim()
            .chars()
            .filter(|c| c.is_alphanumeric() || " -_".contains(*c));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_headings_are_found() {
        let text = "# A title, `GET /memory`\n[a](b.md#c) and ![p](d.svg)\n```\n# [no](code.md)\n```\n[e](f)";
        let found: Vec<(usize, &str)> = links(text).collect();
        assert_eq!(found, [(2, "b.md#c"), (2, "d.svg"), (6, "f")]);
        let found: Vec<String> = headings(text).collect();
        assert_eq!(found, ["a-title-get-memory"]);
        assert_eq!(plain(Path::new("/a/docs/../b.md")), Path::new("/a/b.md"));
    }

    #[test]
    fn what_leads_nowhere_is_found() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .expect("a parent");
        let from = root.join("docs/README.md");
        let wrong = |target| broken(&from, target, root, true);
        assert_eq!(wrong("kv.md#the-report"), None);
        assert_eq!(wrong("https://example.org/x"), None);
        assert!(wrong("nowhere.md").is_some());
        assert!(wrong("kv.md#nothing").is_some());
        assert!(wrong("../README.md").is_some());
    }
}
