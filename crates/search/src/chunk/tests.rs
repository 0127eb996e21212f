//! Cutting, language by language: each piece is given by its first and last line.

use proptest::prelude::*;

use super::*;

const ALL: [Language; 9] = [
    Language::Rust,
    Language::Go,
    Language::Java,
    Language::C,
    Language::Cpp,
    Language::JavaScript,
    Language::Python,
    Language::Markdown,
    Language::Plain,
];

#[track_caller]
fn check(language: Language, text: &str, expected: &[(&str, &str)]) {
    let pieces = chunks(text, language, 1200);
    let ends = |chunk: &Chunk| {
        let text = &text[chunk.bytes.clone()];
        let mut lines = text.lines();
        let first = lines.next().unwrap_or_default().trim();
        (first, lines.last().map_or(first, str::trim))
    };
    let found: Vec<(&str, &str)> = pieces.iter().map(ends).collect();
    assert_eq!(found, expected);
}

#[test]
fn rust_is_cut_by_item() {
    let text = r##"//! Counts letters and other things.

use std::fmt::{
    Debug,
    Display,
};

const LIMIT: usize = 10;
const OTHER_LIMIT: usize = 20;

/// A documented constant.
const TABLE: [&str; 2] = [
    "{",
    r#"}"{"#,
];

/// What is counted.
#[derive(
    Clone,
    Debug,
)]
pub(crate) struct Counter<'a> {
    text: &'a str,
}

impl<'a> Counter<'a> {
    const QUOTE: char = '{';

    /// Counts the letters.
    pub const fn letters(&self) -> usize {
        // A brace in a comment: {
        let lifetime = |c: &'static str| c.len();
        self.text.len() + lifetime("}}}")
    }

    #[inline]
    async fn words(&self) -> usize
    where
        Self: Sized,
    {
        0
    }
}

/* A block /* nested */ comment { */
extern "C" {
    fn abs_value(x: i32) -> i32;
}

mod elsewhere;

macro_rules! twice {
    ($e:expr) => { $e + $e };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn letters_are_counted() {
        assert_eq!(1, 1);
    }
}
"##;
    check(
        Language::Rust,
        text,
        &[
            (
                "//! Counts letters and other things.",
                "const OTHER_LIMIT: usize = 20;",
            ),
            ("/// A documented constant.", "];"),
            ("/// What is counted.", "}"),
            ("impl<'a> Counter<'a> {", "const QUOTE: char = '{';"),
            ("/// Counts the letters.", "}"),
            ("#[inline]", "}"),
            ("/* A block /* nested */ comment { */", "extern \"C\" {"),
            (
                "fn abs_value(x: i32) -> i32;",
                "fn abs_value(x: i32) -> i32;",
            ),
            ("macro_rules! twice {", "}"),
            ("#[test]", "}"),
        ],
    );
}

#[test]
fn go_is_cut_by_item() {
    let text = r#"// Package count counts.
package count

import (
	"fmt"
)

const limit = 10

// Counter counts letters.
type Counter struct {
	text string
}

// Letters counts the letters, not the { in "strings" or `raw
// } strings`.
func (c *Counter) Letters() (int, error) {
	raw := `}}}`
	return len(c.text) + len(raw), nil
}

func helper(text string,
	other string,
) int {
	return 0
}

var table = map[string]int{
	"one": 1,
	"two": 2,
	"three": 3,
}
"#;
    check(
        Language::Go,
        text,
        &[
            ("// Package count counts.", "const limit = 10"),
            ("// Counter counts letters.", "}"),
            (
                "// Letters counts the letters, not the { in \"strings\" or `raw",
                "}",
            ),
            ("func helper(text string,", "}"),
            ("var table = map[string]int{", "}"),
        ],
    );
}

#[test]
fn javascript_and_typescript_are_cut_by_item() {
    let text = r#"import { a } from './a';

/** Counts letters: { */
export function letters(text) {
  const template = `${text.map((t) => `${t}{`)} } {`;
  return template.replace(/[{/]"/g, '').length / 2;
}

/**
 * An arrow.
 */
export const words = async (text) =>
  text
    .split(' ')
    .filter((word) => word.length > 0);

export interface Options {
  limit: number;
}

type Either = { left: string } | { right: string };

@Injectable()
export class Counter extends Base {
  private limit = 10;

  constructor(private readonly options: Options) {
    super();
  }

  /** Counts. */
  async count(text: string): Promise<number> {
    if (text) {
      return 1;
    }
    return 0;
  }

  handle = (event) => {
    this.count(event);
    event.done();
    event.stop();
  };
}

module.exports.other = function (a, b) {
  return a + b
}
"#;
    check(
        Language::JavaScript,
        text,
        &[
            ("/** Counts letters: { */", "}"),
            ("/**", ".filter((word) => word.length > 0);"),
            ("export interface Options {", "}"),
            (
                "type Either = { left: string } | { right: string };",
                "type Either = { left: string } | { right: string };",
            ),
            ("@Injectable()", "private limit = 10;"),
            ("constructor(private readonly options: Options) {", "}"),
            ("/** Counts. */", "}"),
            ("handle = (event) => {", "};"),
            ("module.exports.other = function (a, b) {", "}"),
        ],
    );
}

#[test]
fn c_is_cut_by_item() {
    let text = r#"/* Licence of this file. */

#include <stdio.h>
#define OPEN(x) do { \
    begin(x)

/* A point. */
struct point {
    int x, y;
};

/* Documented: adds points. */
struct point add(struct point a, struct point b);

int undocumented_prototype(int x);

static const char *names[] = {
    "{", "one",
    "two",
    "three",
};

/* Adds
 * points. */
struct point
add(struct point a, struct point b)
{
#ifdef FAST
    if (a.x) {
#else
    if (b.x) {
#endif
        a.x += b.x;
    }
    return a;
}

int main(void) { return '{'; }
"#;
    check(
        Language::C,
        text,
        &[
            ("/* Licence of this file. */", "begin(x)"),
            ("/* A point. */", "};"),
            (
                "/* Documented: adds points. */",
                "struct point add(struct point a, struct point b);",
            ),
            ("int undocumented_prototype(int x);", "};"),
            ("/* Adds", "}"),
            (
                "int main(void) { return '{'; }",
                "int main(void) { return '{'; }",
            ),
        ],
    );
}

#[test]
fn cpp_is_cut_by_item() {
    let text = r#"#pragma once

namespace shapes {
namespace detail {

/// A circle.
template <typename T = double>
class Circle : public Shape<T> {
public:
    explicit Circle(T radius) : radius_{radius}, big_{1'000'000} {
        check(R"x(}{)x");
    }

    bool operator==(const Circle& other) const {
        return radius_ == other.radius_;
    }

private:
    T radius_;
    T big_;
};

}  // namespace detail

template <typename T>
T Circle<T>::area() const noexcept {
    return radius_ * radius_ * 3;
}

enum class Color { Red, Green };

}  // namespace shapes
"#;
    check(
        Language::Cpp,
        text,
        &[
            ("/// A circle.", "public:"),
            (
                "explicit Circle(T radius) : radius_{radius}, big_{1'000'000} {",
                "}",
            ),
            ("bool operator==(const Circle& other) const {", "}"),
            ("private:", "};"),
            ("template <typename T>", "}"),
            (
                "enum class Color { Red, Green };",
                "enum class Color { Red, Green };",
            ),
        ],
    );
}

#[test]
fn java_is_cut_by_item() {
    let text = r#"package com.example;

import java.util.List;

/**
 * Counts letters.
 */
@Service
public final class Counter extends Base implements Counts {
    private final int limit = 10;

    public Counter(int limit) {
        this.limit = limit;
    }

    /** Counts { them. */
    @Override
    @SuppressWarnings({"unchecked", "rawtypes"})
    public <T extends List<String>> int count(T texts) throws IOException {
        String block = """
            { " {
            """;
        return texts.size();
    }

    interface Visitor {
        void visitEverything(String text);
    }

    enum Color { RED_COLOR, GREEN_COLOR }
}
"#;
    check(
        Language::Java,
        text,
        &[
            ("/**", "private final int limit = 10;"),
            ("public Counter(int limit) {", "}"),
            ("/** Counts { them. */", "}"),
            ("interface Visitor {", "}"),
            (
                "enum Color { RED_COLOR, GREEN_COLOR }",
                "enum Color { RED_COLOR, GREEN_COLOR }",
            ),
        ],
    );
}

#[test]
fn python_is_cut_by_item() {
    let text = r#""""Counts letters.

def not_a_function(): this is text
"""

import os

LIMIT = 10


# Counts words.
@cache
def words(
    text,
    limit=LIMIT,
):
    """Counts words.

Not indented, still inside.
    """

    def inner():
        return 1

    return inner()


class Counter(Base):
    """Counts."""

    limit = 10

    def letters(self):
        return len("{")

    async def more(self):
        return """
nothing
"""


if __name__ == "__main__":
    print(words("some text"))
"#;
    check(
        Language::Python,
        text,
        &[
            ("\"\"\"Counts letters.", "LIMIT = 10"),
            ("# Counts words.", "return inner()"),
            ("class Counter(Base):", "limit = 10"),
            ("def letters(self):", "return len(\"{\")"),
            ("async def more(self):", "\"\"\""),
            (
                "if __name__ == \"__main__\":",
                "print(words(\"some text\"))",
            ),
        ],
    );
}

#[test]
fn markdown_is_cut_by_section() {
    let text = "\
---
title: A page
---
Some words before the first heading.

# Title

Text of it.

```sh
# not a heading
```

## Section

More text of it.

Underlined heading
------------------

| a | b |
|---|---|
";
    check(
        Language::Markdown,
        text,
        &[
            ("---", "Some words before the first heading."),
            ("# Title", "```"),
            ("## Section", "More text of it."),
            ("Underlined heading", "|---|---|"),
        ],
    );
}

#[test]
fn plain_text_is_cut_by_lines() {
    let paragraph = |name: &str| format!("{name}\n").repeat(25) + "\n";
    let text = ["first paragraph", "second paragraph", "third paragraph"]
        .map(paragraph)
        .concat();
    check(
        Language::Plain,
        &text,
        &[
            ("first paragraph", "first paragraph"),
            ("second paragraph", "second paragraph"),
            ("third paragraph", "third paragraph"),
        ],
    );
}

#[test]
fn long_items_are_cut_and_nothing_of_them_is_lost() {
    let body: String = (0..200)
        .map(|n| format!("    let value_{n} = {n};\n"))
        .collect();
    let text = format!("/// Long.\nfn long() {{\n{body}}}\n");
    let pieces = chunks(&text, Language::Rust, 1000);
    assert!(pieces.len() > 3);
    assert!(pieces.iter().all(|piece| piece.bytes.len() <= 1000));
    for pair in pieces.windows(2) {
        assert_eq!(pair[0].lines.end, pair[1].lines.start);
    }
}

#[test]
fn pieces_lose_the_indentation_they_share() {
    assert_eq!(dedent("    a\n\n      b  \n    c\n\n"), "a\n\n  b\nc");
    assert_eq!(dedent("\ta\n\t\tb"), "a\n\tb");
    assert_eq!(dedent(""), "");
}

#[track_caller]
fn whole_lines(text: &str) {
    for language in ALL {
        let mut line = 0;
        for piece in chunks(text, language, 40) {
            assert!(piece.lines.start >= line && piece.lines.start < piece.lines.end);
            line = piece.lines.end;
            let before = &text[..piece.bytes.start];
            assert!(before.is_empty() || before.ends_with('\n'));
            assert_eq!(before.matches('\n').count(), piece.lines.start);
            let inner = &text[piece.bytes.clone()];
            assert_eq!(inner.lines().count(), piece.lines.len(), "{language:?}");
            dedent(inner);
        }
    }
}

/// What begins like a regular expression or a raw string, and whose line ends in the middle.
#[test]
fn nothing_reaches_over_a_line_that_cannot() {
    whole_lines("fn f(fn f(*/\\\n/*fn f(impl A");
    whole_lines("let some_name = R\"a\nb(some_name some_name\n");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever a file holds, pieces are whole lines, in order, apart, within bounds.
    #[test]
    fn any_text_is_cut_into_whole_lines(
        parts in prop::collection::vec(
            prop::sample::select(vec![
                "fn f(", ")", "{", "}", "(", "[", "]", ";", "=", "\n", "\n\n", "    ", "\t", "class A",
                "def a():", "\"", "'", "'a", "`", "${", "r#\"", "\"#", "/*", "*/", "//", "#", "# head",
                "#if", "#else", "#endif", "\\", "\"\"\"", "R\"x(", ")x\"", "impl A", "some_name", "é", "=>",
                "template <", "@A", "struct s", "---", "```",
            ]),
            0..60,
        ),
    ) {
        whole_lines(&parts.concat());
    }
}
