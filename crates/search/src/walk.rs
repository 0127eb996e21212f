//! Which files are searched: everything below the paths given, but for what version control ignores
//! and what is hidden. A file that is named itself is always searched.

use std::path::{Path, PathBuf};

use ignore::WalkBuilder;

use crate::error::SearchError;

/// Which rules hold.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct WalkOptions {
    /// Search hidden files and folders too.
    pub hidden: bool,
    /// Search what `.gitignore` and `.ignore` files leave out too.
    pub ignored: bool,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Walked {
    /// Files in the order of their paths, each once.
    pub files: Vec<PathBuf>,
    /// What could not be looked at, in the system's words.
    pub unreadable: Vec<String>,
}

/// Most failures that are kept as words.
const UNREADABLE_MAX: usize = 20;

/// Lists the files below `paths`. Symbolic links are not followed.
///
/// # Errors
/// When a path that was named does not exist or cannot be looked at.
pub fn walk(paths: &[PathBuf], options: WalkOptions) -> Result<Walked, SearchError> {
    let mut walked = Walked::default();
    for path in paths {
        let failed = |source| SearchError::Path {
            path: path.clone(),
            source,
        };
        let meta = std::fs::metadata(path).map_err(failed)?;
        if !meta.is_dir() {
            walked.files.push(plain(path));
            continue;
        }
        let mut builder = WalkBuilder::new(path);
        builder
            .standard_filters(!options.ignored)
            .hidden(!options.hidden)
            // A tree that was unpacked rather than cloned has the same rules.
            .require_git(false);
        for entry in builder.build() {
            match entry {
                Ok(entry) if entry.file_type().is_some_and(|kind| kind.is_file()) => {
                    walked.files.push(plain(entry.path()));
                }
                // Not even with --hidden: nobody wrote what lies there.
                Ok(_) => {}
                Err(error) if walked.unreadable.len() < UNREADABLE_MAX => {
                    walked.unreadable.push(error.to_string());
                }
                Err(_) => {}
            }
        }
    }
    walked
        .files
        .retain(|path| !path.components().any(|part| part.as_os_str() == ".git"));
    walked.files.sort_unstable();
    walked.files.dedup();
    Ok(walked)
}

/// Without a leading `./`, which nobody wants to read.
fn plain(path: &Path) -> PathBuf {
    path.strip_prefix(".").unwrap_or(path).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(folder: &Path, name: &str, text: &str) {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn names(folder: &Path, paths: &[&str], options: WalkOptions) -> Vec<String> {
        let paths: Vec<PathBuf> = paths.iter().map(|path| folder.join(path)).collect();
        let walked = walk(&paths, options).unwrap();
        assert_eq!(walked.unreadable, Vec::<String>::new());
        let name = |path: &PathBuf| {
            let path = path.strip_prefix(folder).unwrap();
            path.to_string_lossy().into_owned()
        };
        walked.files.iter().map(name).collect()
    }

    #[test]
    fn ignored_and_hidden_files_are_left_out() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        write(root, ".gitignore", "*.log\n/target\n!keep.log\n");
        write(root, "src/.ignore", "made/\n");
        write(root, "src/a.rs", "");
        write(root, "src/made/b.rs", "");
        write(root, "src/x.log", "");
        write(root, "src/keep.log", "");
        write(root, "target/c.rs", "");
        write(root, ".hidden/d.rs", "");
        write(root, ".git/config", "");
        let plain = WalkOptions::default();
        assert_eq!(names(root, &[""], plain), ["src/a.rs", "src/keep.log"]);
        assert_eq!(
            names(root, &["src/a.rs", "src", "src/x.log"], plain),
            ["src/a.rs", "src/keep.log", "src/x.log"],
            "what is named is searched, and nothing twice"
        );
        let hidden = WalkOptions {
            hidden: true,
            ..plain
        };
        assert_eq!(
            names(root, &[""], hidden),
            [
                ".gitignore",
                ".hidden/d.rs",
                "src/.ignore",
                "src/a.rs",
                "src/keep.log"
            ]
        );
        let ignored = WalkOptions {
            ignored: true,
            ..plain
        };
        assert_eq!(
            names(root, &[""], ignored),
            [
                "src/a.rs",
                "src/keep.log",
                "src/made/b.rs",
                "src/x.log",
                "target/c.rs"
            ]
        );
        assert!(walk(&[root.join("none")], plain).is_err());
    }
}
