//! One pass over a text: where lines begin, what each begins with, and where the brackets are that
//! belong to code rather than to comments or strings.

use std::ops::Range;

use crate::language::Language;

/// What a line is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Nothing but white space.
    Blank,
    /// Nothing but comment.
    Comment,
    /// `#[test]`, `@Override`, `[[nodiscard]]`: belongs to what follows.
    Attribute,
    /// A line of the C preprocessor.
    Directive,
    /// Anything else.
    Code,
}

/// One line.
#[derive(Copy, Clone, Debug)]
pub(super) struct Line {
    /// Byte at which it begins.
    pub(super) start: u32,
    /// First of [`Scan::marks`] that is not before it.
    pub(super) mark: u32,
    /// Open brackets of any kind at its beginning.
    pub(super) depth: u32,
    /// What it is; a line that begins within a string is code.
    pub(super) kind: Kind,
    /// Whether it begins within a comment or string.
    pub(super) inside: bool,
    /// Its last character of code; 0 if it has none.
    pub(super) last: u8,
}

/// A character that structures code: a bracket, `;` or `=`.
#[derive(Copy, Clone, Debug)]
pub(super) struct Mark {
    /// Its byte.
    pub(super) at: u32,
    /// Itself.
    pub(super) byte: u8,
}

/// A text with its structure.
pub(super) struct Scan<'a> {
    pub(super) text: &'a str,
    pub(super) lines: Vec<Line>,
    pub(super) marks: Vec<Mark>,
}

/// Where the scanner is.
#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Code,
    /// `//`, `#`.
    LineComment,
    /// `/* */`, so many of them open.
    BlockComment(u32),
    /// Within quotes of one byte; ends with the line if the flag says so.
    Quoted {
        quote: u8,
        one_line: bool,
    },
    /// Within a string without escapes that ends with this text.
    Raw(Vec<u8>),
    /// Within `"""` or `'''`.
    Triple(u8),
    /// Within a template string of JavaScript.
    Template,
}

impl<'a> Scan<'a> {
    /// Scans a text; only brackets of code count, by the rules of `language`.
    pub(super) fn of(text: &'a str, language: Language) -> Scan<'a> {
        let mut scanner = Scanner {
            bytes: text.as_bytes(),
            language,
            at: 0,
            state: State::Code,
            lines: Vec::new(),
            marks: Vec::new(),
            depth: 0,
            templates: Vec::new(),
            branches: Vec::new(),
            before: 0,
        };
        scanner.run();
        Scan {
            text,
            lines: scanner.lines,
            marks: scanner.marks,
        }
    }

    /// Number of lines.
    pub(super) fn len(&self) -> usize {
        self.lines.len()
    }

    /// The bytes of lines.
    pub(super) fn bytes(&self, lines: &Range<usize>) -> Range<usize> {
        let start = |line: usize| match self.lines.get(line) {
            Some(line) => line.start as usize,
            None => self.text.len(),
        };
        start(lines.start)..start(lines.end)
    }

    /// A line's text without its indentation and end.
    pub(super) fn trimmed(&self, line: usize) -> &'a str {
        self.text[self.bytes(&(line..line + 1))].trim()
    }

    /// Bytes of indentation.
    pub(super) fn indent(&self, line: usize) -> usize {
        let text = &self.text[self.bytes(&(line..line + 1))];
        text.len() - text.trim_start_matches([' ', '\t']).len()
    }

    /// The line that holds a byte.
    pub(super) fn line_of(&self, at: u32) -> usize {
        self.lines
            .partition_point(|line| line.start <= at)
            .saturating_sub(1)
    }
}

struct Scanner<'a> {
    bytes: &'a [u8],
    language: Language,
    at: usize,
    state: State,
    lines: Vec<Line>,
    marks: Vec<Mark>,
    depth: u32,
    /// Depths at which `${` of template strings were opened.
    templates: Vec<u32>,
    /// Depths at open `#if`s: each branch begins anew, as only one of them is compiled.
    branches: Vec<u32>,
    /// Last byte of code that is no white space: a `/` after it may begin a regular expression.
    before: u8,
}

impl Scanner<'_> {
    fn run(&mut self) {
        if self.bytes.is_empty() {
            return;
        }
        self.begin_line();
        while self.at < self.bytes.len() {
            if self.bytes[self.at] == b'\n' {
                self.end_line();
                self.at += 1;
                if self.at < self.bytes.len() {
                    self.begin_line();
                }
            } else {
                self.step();
            }
        }
    }

    fn peek(&self, ahead: usize) -> u8 {
        self.bytes.get(self.at + ahead).copied().unwrap_or(0)
    }

    fn starts_with(&self, text: &[u8]) -> bool {
        self.bytes[self.at..].starts_with(text)
    }

    fn begin_line(&mut self) {
        let inside = self.state != State::Code;
        let rest = &self.bytes[self.at..];
        let end = rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len());
        let line = rest[..end].trim_ascii();
        let kind = self.kind_of(line);
        self.lines.push(Line {
            start: self.at as u32,
            mark: self.marks.len() as u32,
            depth: self.depth,
            kind,
            inside,
            last: 0,
        });
        if kind == Kind::Directive {
            self.directive(line);
        }
    }

    fn kind_of(&self, line: &[u8]) -> Kind {
        if line.is_empty() {
            return Kind::Blank;
        }
        let c_like = matches!(self.language, Language::C | Language::Cpp);
        let continues = c_like
            && self.lines.last().is_some_and(|last| {
                last.kind == Kind::Directive && {
                    let text = &self.bytes[last.start as usize..self.at];
                    text.trim_ascii_end().ends_with(b"\\")
                }
            });
        match &self.state {
            State::Code if continues => Kind::Directive,
            State::Code if c_like && line[0] == b'#' => Kind::Directive,
            State::BlockComment(_) => {
                // Code after the comment's end makes it a line of code.
                match find(line, b"*/") {
                    Some(end) if !line[end + 2..].trim_ascii().is_empty() => Kind::Code,
                    _ => Kind::Comment,
                }
            }
            State::Code if self.begins_comment(line) => Kind::Comment,
            State::Code if self.begins_attribute(line) => Kind::Attribute,
            _ => Kind::Code,
        }
    }

    fn begins_comment(&self, line: &[u8]) -> bool {
        match self.language {
            Language::Python => line[0] == b'#',
            Language::Markdown | Language::Plain => false,
            _ if line.starts_with(b"//") => true,
            _ if line.starts_with(b"/*") => line.ends_with(b"*/") || find(line, b"*/").is_none(),
            _ => false,
        }
    }

    fn begins_attribute(&self, line: &[u8]) -> bool {
        match self.language {
            Language::Rust => line.starts_with(b"#["),
            Language::Python => line[0] == b'@',
            Language::Java => line[0] == b'@' && !line.starts_with(b"@interface"),
            // A decorator; one with its method on the same line is the method's line.
            Language::JavaScript => {
                line[0] == b'@' && (line.ends_with(b")") || !line.contains(&b' '))
            }
            Language::Cpp => {
                (line.starts_with(b"[[") && line.ends_with(b"]]"))
                    || (line.starts_with(b"template") && line.ends_with(b">"))
            }
            _ => false,
        }
    }

    /// Only one branch of `#if` is compiled: brackets are counted as if each were the only one, by
    /// brackets that are put in where a branch ends.
    fn directive(&mut self, line: &[u8]) {
        let word = line[1..].trim_ascii_start();
        if word.starts_with(b"if") {
            self.branches.push(self.depth);
        } else if word.starts_with(b"el") {
            // What the last branch opened is opened again by this one, and so with what it closed.
            let depth = self.branches.last().copied().unwrap_or(self.depth);
            while self.depth > depth {
                self.mark(b'}');
                self.depth -= 1;
            }
            while self.depth < depth {
                self.mark(b'{');
                self.depth += 1;
            }
        } else if word.starts_with(b"endif") {
            self.branches.pop();
        }
        // Its brackets are the macro's.
        while self.at < self.bytes.len() && self.bytes[self.at] != b'\n' {
            self.at += 1;
        }
    }

    fn end_line(&mut self) {
        match &self.state {
            State::LineComment => self.state = State::Code,
            State::Quoted { one_line: true, .. } if self.bytes[self.at - 1] != b'\\' => {
                self.state = State::Code;
            }
            _ => {}
        }
    }

    fn step(&mut self) {
        let byte = self.bytes[self.at];
        if !matches!(
            self.state,
            State::Code | State::LineComment | State::BlockComment(_)
        ) {
            self.saw(b'"');
        }
        match &self.state {
            State::Code => return self.code(byte),
            State::LineComment => {}
            State::BlockComment(open) => {
                let open = *open;
                if self.starts_with(b"*/") {
                    self.at += 1;
                    self.state = match open {
                        1 => State::Code,
                        _ => State::BlockComment(open - 1),
                    };
                } else if self.language == Language::Rust && self.starts_with(b"/*") {
                    self.at += 1;
                    self.state = State::BlockComment(open + 1);
                }
            }
            State::Quoted { quote, .. } => {
                if byte == b'\\' && self.peek(1) != b'\n' {
                    self.at += 1;
                } else if byte == *quote {
                    self.state = State::Code;
                }
            }
            State::Raw(end) => {
                if self.bytes[self.at..].starts_with(end) {
                    self.at += end.len() - 1;
                    self.state = State::Code;
                }
            }
            State::Triple(quote) => {
                let quote = *quote;
                if byte == b'\\' && self.peek(1) != b'\n' {
                    self.at += 1;
                } else if byte == quote && self.peek(1) == quote && self.peek(2) == quote {
                    self.at += 2;
                    self.state = State::Code;
                }
            }
            State::Template => {
                if byte == b'\\' && self.peek(1) != b'\n' {
                    self.at += 1;
                } else if byte == b'`' {
                    self.state = State::Code;
                } else if byte == b'$' && self.peek(1) == b'{' {
                    self.at += 1;
                    self.templates.push(self.depth);
                    self.depth += 1;
                    self.state = State::Code;
                }
            }
        }
        self.at += 1;
    }

    fn code(&mut self, byte: u8) {
        let start = self.at;
        if self.enters(byte) {
            if !matches!(self.state, State::LineComment | State::BlockComment(_)) {
                self.saw(b'"');
            }
            self.at += 1;
            return;
        }
        self.at = start;
        match byte {
            b'{' | b'(' | b'[' => {
                self.mark(byte);
                self.depth += 1;
            }
            b'}' if self
                .templates
                .last()
                .is_some_and(|&at| at + 1 == self.depth) =>
            {
                self.templates.pop();
                self.depth -= 1;
                self.state = State::Template;
            }
            b'}' | b')' | b']' => {
                self.mark(byte);
                self.depth = self.depth.saturating_sub(1);
            }
            b';' => self.mark(byte),
            b'=' => {
                let before = start.checked_sub(1).map_or(0, |at| self.bytes[at]);
                let compares = matches!(before, b'=' | b'<' | b'>' | b'!' | b'+' | b'-' | b'*');
                if !compares && !matches!(self.peek(1), b'=' | b'>') {
                    self.mark(byte);
                }
            }
            _ => {}
        }
        if !byte.is_ascii_whitespace() {
            self.saw(byte);
        }
        self.at += 1;
    }

    /// Notes a byte of code that is no white space; a string stands as its quote.
    fn saw(&mut self, byte: u8) {
        self.before = byte;
        if let Some(line) = self.lines.last_mut() {
            line.last = byte;
        }
    }

    fn mark(&mut self, byte: u8) {
        self.marks.push(Mark {
            at: self.at as u32,
            byte,
        });
    }

    /// Enters a comment or string if one begins here; `at` is then its opening's last byte.
    fn enters(&mut self, byte: u8) -> bool {
        let language = self.language;
        if language == Language::Python {
            return self.enters_python(byte);
        }
        if !language.has_braces() {
            return false;
        }
        let after_word = self.at > 0 && is_word(self.bytes[self.at - 1]);
        let quoted = |one_line| State::Quoted {
            quote: byte,
            one_line,
        };
        let state = match byte {
            b'/' if self.peek(1) == b'/' => State::LineComment,
            b'/' if self.peek(1) == b'*' => {
                self.at += 1;
                State::BlockComment(1)
            }
            b'/' if language == Language::JavaScript && self.may_begin_regex() => {
                return self.pass_regex();
            }
            b'r' if language == Language::Rust && !after_word => match self.rust_raw(1) {
                Some(state) => state,
                None => return false,
            },
            b'b' | b'c' if language == Language::Rust && !after_word && self.peek(1) == b'r' => {
                match self.rust_raw(2) {
                    Some(state) => state,
                    None => return false,
                }
            }
            b'R' if language == Language::Cpp && self.peek(1) == b'"' => {
                let open = &self.bytes[self.at + 2..];
                let open = &open[..open.len().min(17)];
                let paren = open
                    .iter()
                    .position(|&b| b == b'(' || b.is_ascii_whitespace());
                let Some(paren) = paren.filter(|&paren| open[paren] == b'(') else {
                    return false;
                };
                let end = [b")", &open[..paren], b"\""].concat();
                self.at += 2 + paren;
                State::Raw(end)
            }
            b'"' if language == Language::Java && self.starts_with(b"\"\"\"") => {
                self.at += 2;
                State::Triple(b'"')
            }
            b'"' => quoted(!matches!(language, Language::Rust)),
            b'`' if language == Language::Go => State::Raw(b"`".to_vec()),
            b'`' if language == Language::JavaScript => State::Template,
            b'\'' => match language {
                Language::Rust => return self.pass_rust_char(),
                // 1'000'000
                Language::Cpp if after_word && is_word(self.peek(1)) => return false,
                _ => quoted(true),
            },
            _ => return false,
        };
        self.state = state;
        true
    }

    fn enters_python(&mut self, byte: u8) -> bool {
        self.state = match byte {
            b'#' => State::LineComment,
            b'"' | b'\'' if self.peek(1) == byte && self.peek(2) == byte => {
                self.at += 2;
                State::Triple(byte)
            }
            b'"' | b'\'' => State::Quoted {
                quote: byte,
                one_line: true,
            },
            _ => return false,
        };
        true
    }

    /// `r"` or `r##"`, with so many letters before.
    fn rust_raw(&mut self, letters: usize) -> Option<State> {
        let rest = &self.bytes[self.at + letters..];
        let hashes = rest.iter().take_while(|&&b| b == b'#').count();
        if rest.get(hashes) != Some(&b'"') {
            return None;
        }
        self.at += letters + hashes;
        Some(State::Raw([b"\"", &rest[..hashes]].concat()))
    }

    /// Passes over a character; a lone quote begins a lifetime.
    fn pass_rust_char(&mut self) -> bool {
        let rest = &self.bytes[self.at + 1..];
        let rest = &rest[..rest.len().min(12)];
        let end = match rest.first() {
            Some(b'\\') => rest.iter().skip(2).position(|&b| b == b'\'').map(|n| n + 2),
            // One character of up to four bytes.
            Some(b'\'') | None => None,
            Some(first) => {
                let len = match first {
                    0..0x80 => 1,
                    0x80..0xe0 => 2,
                    0xe0..0xf0 => 3,
                    _ => 4,
                };
                (rest.get(len) == Some(&b'\'')).then_some(len)
            }
        };
        match end {
            Some(end) if !rest[..end].contains(&b'\n') => {
                self.at += end + 1;
                true
            }
            _ => false,
        }
    }

    /// After an operand a slash divides.
    fn may_begin_regex(&self) -> bool {
        if is_word(self.before) {
            let before = self.bytes[..self.at].trim_ascii_end();
            return [&b"return"[..], b"typeof", b"case", b"in", b"of"]
                .iter()
                .any(|word| before.ends_with(word));
        }
        !matches!(self.before, b')' | b']' | b'}' | b'"')
    }

    fn pass_regex(&mut self) -> bool {
        let mut class = false;
        let mut at = self.at + 1;
        while let Some(&byte) = self.bytes.get(at) {
            match byte {
                b'\n' => return false,
                // No escape reaches over the end of a line.
                b'\\' if self.bytes.get(at + 1) != Some(&b'\n') => at += 1,
                b'[' => class = true,
                b']' => class = false,
                b'/' if !class => {
                    self.at = at;
                    return true;
                }
                _ => {}
            }
            at += 1;
        }
        false
    }
}

pub(super) fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn find(text: &[u8], what: &[u8]) -> Option<usize> {
    text.windows(what.len()).position(|part| part == what)
}
