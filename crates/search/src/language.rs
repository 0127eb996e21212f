//! What a file is written in, by its name alone.

use std::path::Path;

/// A language that is cut by more than lines, or [`Language::Plain`].
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Language {
    /// Rust.
    Rust,
    /// Go.
    Go,
    /// Java.
    Java,
    /// C, headers included.
    C,
    /// C++.
    Cpp,
    /// JavaScript and TypeScript, with JSX.
    JavaScript,
    /// Python.
    Python,
    /// Markdown.
    Markdown,
    /// Anything else that is text.
    Plain,
}

impl Language {
    /// The language of a file with this name.
    pub fn of(path: &Path) -> Language {
        let extension = path.extension().and_then(|extension| extension.to_str());
        match extension.unwrap_or_default() {
            "rs" => Language::Rust,
            "go" => Language::Go,
            "java" => Language::Java,
            "c" | "h" => Language::C,
            "cc" | "cpp" | "cxx" | "hh" | "hpp" | "hxx" | "ipp" | "cu" | "cuh" => Language::Cpp,
            "js" | "mjs" | "cjs" | "jsx" | "ts" | "mts" | "cts" | "tsx" => Language::JavaScript,
            "py" | "pyi" => Language::Python,
            "md" | "markdown" | "mdx" => Language::Markdown,
            _ => Language::Plain,
        }
    }

    /// Its name, in small letters.
    pub fn name(self) -> &'static str {
        match self {
            Language::Rust => "rust",
            Language::Go => "go",
            Language::Java => "java",
            Language::C => "c",
            Language::Cpp => "c++",
            Language::JavaScript => "javascript",
            Language::Python => "python",
            Language::Markdown => "markdown",
            Language::Plain => "text",
        }
    }

    /// Whether items are delimited by braces.
    pub(crate) fn has_braces(self) -> bool {
        !matches!(
            self,
            Language::Python | Language::Markdown | Language::Plain
        )
    }
}
