//! Pictures as SVG, written by hand: rectangles, lines and words in colours that can be read on a light
//! and on a dark page. What the pictures show is up to the verbs.

use std::fmt::{Display, Write as _};
use std::io::Write as _;
use std::path::Path;

use crate::failure::Failure;

/// Colours by what they say. The names are classes; the dark page has its own set.
const STYLE: &str = "\
text{font:12px sans-serif;fill:#1d2733}\
.page{fill:#ffffff}.title{font-size:15px;font-weight:600}.dim{fill:#5a6673}.on{fill:#ffffff}\
.line{stroke:#d5dbe1}.axis{stroke:#5a6673}\
.good{fill:#1f7a5c}.bad{fill:#bf4f2a}.even{fill:#7a8794}\
.procedural{fill:#5b6f8a}.episodic{fill:#b06a1d}.semantic{fill:#1f6fa8}.emotional{fill:#8a4a94}\
.free{fill:#e3e8ec}.edge{stroke:#ffffff}\
@media (prefers-color-scheme:dark){\
text{fill:#e4e9ee}.page{fill:#14191f}.dim{fill:#9aa6b2}.on{fill:#ffffff}\
.line{stroke:#333c46}.axis{stroke:#9aa6b2}\
.good{fill:#2f9a76}.bad{fill:#d0683f}.even{fill:#6b7783}\
.free{fill:#2a323b}.edge{stroke:#14191f}}";

/// Where words stand to their point.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
}

/// A picture that is being drawn, in user units of about a pixel.
#[derive(Debug)]
pub(crate) struct Picture {
    width: f64,
    height: f64,
    body: String,
}

impl Picture {
    /// An empty page.
    pub(crate) fn new(width: f64, height: f64, title: &str) -> Picture {
        let mut picture = Picture {
            width,
            height,
            body: String::new(),
        };
        // Read aloud, and shown where a pointer rests.
        picture.push(format_args!("<title>{}</title>", escaped(title)));
        picture.push(format_args!("<style>{STYLE}</style>"));
        picture.rectangle("page", (0.0, 0.0), (width, height), "");
        picture
    }

    fn push(&mut self, element: impl Display) {
        // Writing to a String cannot fail.
        let _ = writeln!(self.body, "{element}");
    }

    /// A rectangle from its upper left corner; `hint` is shown where a pointer rests on it.
    pub(crate) fn rectangle(&mut self, class: &str, at: (f64, f64), size: (f64, f64), hint: &str) {
        let ((x, y), (width, height)) = (at, size);
        let hint = match hint {
            "" => String::new(),
            hint => format!("<title>{}</title>", escaped(hint)),
        };
        self.push(format_args!(
            "<rect class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" width=\"{width:.1}\" \
             height=\"{height:.1}\">{hint}</rect>"
        ));
    }

    /// A straight line.
    pub(crate) fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.push(format_args!(
            "<line class=\"{class}\" x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\"/>"
        ));
    }

    /// Words on one line, whose foot is at `at`.
    pub(crate) fn words(&mut self, class: &str, at: (f64, f64), anchor: Anchor, words: &str) {
        let (x, y) = at;
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        self.push(format_args!(
            "<text class=\"{class}\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{}</text>",
            escaped(words)
        ));
    }

    /// The whole file.
    pub(crate) fn finish(&self) -> String {
        let (width, height) = (self.width, self.height);
        format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width:.0} {height:.0}\" \
             width=\"{width:.0}\" height=\"{height:.0}\" role=\"img\">\n{}</svg>\n",
            self.body
        )
    }
}

/// Writes a picture to a file.
pub(crate) fn write(path: &Path, svg: &str) -> Result<(), Failure> {
    std::fs::File::create(path)
        .and_then(|mut file| file.write_all(svg.as_bytes()))
        .map_err(|error| Failure::io("write", path, &error))
}

/// Words of any origin as text of XML: what has a meaning there is written otherwise, and what may not
/// be there at all is left out.
fn escaped(words: &str) -> String {
    let mut text = String::with_capacity(words.len());
    for character in words.chars() {
        match character {
            '&' => text.push_str("&amp;"),
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '"' => text.push_str("&quot;"),
            character if character.is_control() => text.push(' '),
            character => text.push(character),
        }
    }
    text
}

/// Words of at most `letters` letters, cut in the middle where they have more.
pub(crate) fn shortened(words: &str, letters: usize) -> String {
    let all: Vec<char> = words.chars().collect();
    if all.len() <= letters || letters < 3 {
        return all.into_iter().take(letters).collect();
    }
    let front = (letters - 1) / 2;
    let back = letters - 1 - front;
    let tail = &all[all.len() - back..];
    all[..front]
        .iter()
        .chain(['…'].iter())
        .chain(tail)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_of_any_origin_stay_words() {
        let mut picture = Picture::new(10.0, 10.0, "a < b");
        picture.words("", (1.0, 2.0), Anchor::Start, "<script>&\"\u{0}");
        let svg = picture.finish();
        assert!(svg.contains("a &lt; b"));
        assert!(svg.contains("&lt;script&gt;&amp;&quot; </text>"));
        assert!(!svg.contains("<script>") && !svg.contains('\u{0}'));
    }

    #[test]
    fn long_words_lose_their_middle() {
        let check =
            |words, letters, expected: &str| assert_eq!(shortened(words, letters), expected);
        check("short", 5, "short");
        check("0123456789", 7, "012…789");
        check("0123456789", 2, "01");
        check("", 3, "");
    }
}
