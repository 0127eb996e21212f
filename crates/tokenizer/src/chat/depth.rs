//! How deep a template's expressions and conditions may go, found out before the engine reads them.
//!
//! The engine bounds how deep brackets and blocks are nested, but not chains: `1+1+1+...`, `not not ...`,
//! `x.a.a...`, `{% elif %}{% elif %}...` become trees as deep as they are long, which it walks and drops
//! by recursion. A hundred thousand links would overflow any stack, and a model file may have them. So the
//! links are counted here, never fewer than there are: every operator, bracket and word that can make a
//! link, of one tag at a time.
//!
//! ```text
//! text {{ ... }} text {% ... %} text {# ... #} {% raw %} text {% endraw %}
//!      ^ a tag, to the first end with all brackets closed, as the engine finds it
//! ```

use super::ChatError;

/// Most operators in one tag: 400 B of stack each. The longest of published templates has some 60.
const OPERATORS_MAX: usize = 300;
/// Most `elif`s in a template: 1.1 KiB of stack each where they belong to one `if`.
const ELIFS_MAX: usize = 100;

/// Words that make a link of a chain.
const LINKS: [&[u8]; 7] = [b"not", b"and", b"or", b"if", b"else", b"is", b"in"];

/// Refuses a template whose chains are too long.
pub(super) fn check(source: &str) -> Result<(), ChatError> {
    let bytes = source.as_bytes();
    let (mut at, mut elifs) = (0, 0);
    while let Some(start) = find(bytes, at, b"{") {
        at = match bytes.get(start + 1) {
            Some(b'#') => find(bytes, start + 2, b"#}").map_or(bytes.len(), |end| end + 2),
            Some(b'{' | b'%') => {
                let tag = tag(bytes, start + 2);
                let too_deep = |what, most| {
                    let line = 1 + bytes[..start].iter().filter(|&&b| b == b'\n').count();
                    Err(ChatError::TooDeep { what, line, most })
                };
                if tag.operators > OPERATORS_MAX {
                    return too_deep("operators in one tag", OPERATORS_MAX);
                }
                elifs += usize::from(tag.first == b"elif");
                if elifs > ELIFS_MAX {
                    return too_deep("elif tags", ELIFS_MAX);
                }
                match tag.first == b"raw" && bytes[start + 1] == b'%' {
                    true => end_of_raw(bytes, tag.end),
                    false => tag.end,
                }
            }
            _ => start + 1,
        };
    }
    Ok(())
}

/// What is between `{{` or `{%` and its end.
struct Tag<'a> {
    first: &'a [u8],
    operators: usize,
    end: usize,
}

fn tag(bytes: &[u8], start: usize) -> Tag<'_> {
    let mut tag = Tag {
        first: &[],
        operators: 0,
        end: bytes.len(),
    };
    let (mut at, mut open) = (start, 0_isize);
    while let Some(&byte) = bytes.get(at) {
        if open == 0 && matches!(bytes.get(at..at + 2), Some(b"}}" | b"%}")) {
            tag.end = at + 2;
            break;
        }
        match byte {
            b'"' | b'\'' => at = end_of_string(bytes, at),
            b'(' | b'[' | b'{' => {
                open += 1;
                tag.operators += 1;
                at += 1;
            }
            b')' | b']' | b'}' => {
                open -= 1;
                at += 1;
            }
            b'+' | b'-' | b'*' | b'/' | b'%' | b'~' | b'.' | b'|' | b'<' | b'>' | b'=' | b'!' => {
                tag.operators += 1;
                at += 1;
            }
            _ if is_word(byte) => {
                let end = bytes[at..].iter().position(|&b| !is_word(b));
                let end = end.map_or(bytes.len(), |len| at + len);
                let word = &bytes[at..end];
                if tag.first.is_empty() {
                    tag.first = word;
                }
                tag.operators += usize::from(LINKS.contains(&word));
                at = end;
            }
            _ => at += 1,
        }
    }
    tag
}

/// Letters of any alphabet, and digits.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii()
}

fn end_of_string(bytes: &[u8], start: usize) -> usize {
    let mut at = start + 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            b'\\' => at += 2,
            byte if byte == bytes[start] => return at + 1,
            _ => at += 1,
        }
    }
    bytes.len()
}

/// Behind the tag that ends raw text.
fn end_of_raw(bytes: &[u8], start: usize) -> usize {
    let mut at = start;
    while let Some(found) = find(bytes, at, b"{%") {
        let end = tag(bytes, found + 2);
        if end.first == b"endraw" {
            return end.end;
        }
        at = found + 2;
    }
    bytes.len()
}

fn find(bytes: &[u8], from: usize, what: &[u8]) -> Option<usize> {
    let rest = bytes.get(from..)?;
    let found = rest.windows(what.len()).position(|window| window == what);
    found.map(|at| from + at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chat::{ChatTemplate, ChatTokens};

    fn operators(source: &str) -> usize {
        tag(source.as_bytes(), 2).operators
    }

    #[test]
    fn operators_are_counted_to_the_end_of_the_tag() {
        for (source, count) in [
            ("{{ x }}", 0),
            ("{{ a + b.c|d }} + + +", 3),
            ("{{ 'a + b }} %} \\' -' ~ \"'+'\" }}", 1),
            ("{{ {'a': {}} + 1 }} + ", 3),
            ("{%- if not a and b is c -%}", 6),
            ("{{ notify.android }}", 1),
            ("{{ x", 0),
            ("{{ 'x", 0),
        ] {
            assert_eq!(operators(source), count, "{source}");
        }
    }

    /// M3: on a small stack, as many links as may be are read, and more are refused with their line.
    #[test]
    fn chains_are_bounded_whatever_they_are_made_of() {
        let chain = |start: &str, link: &str, end: &str, count: usize| {
            format!("first line\n{{# {{{{ #}}{start}{}{end}", link.repeat(count))
        };
        let chains = [
            ("{{ ", "not ", "1 }}", 1),
            ("{{ ", "-", "1 }}", 1),
            ("{{ 1", "+1", " }}", 1),
            ("{{ 1", "~'}}'", " }}", 1),
            ("{{ 1", "**1", " }}", 2),
            ("{{ 'a'", "|trim", " }}", 1),
            ("{{ x", ".a", " }}", 1),
            ("{{ x", "[0]", " }}", 1),
            ("{{ x", "()", " }}", 1),
            ("{{ 1", " and 1", " }}", 1),
            ("{{ 1", " if 1 else 1", " }}", 2),
            ("{{ 1", " is defined", " }}", 1),
            ("{% raw %}{{ ' {% x %}{%- endraw %}{{ 1", "+1", " }}", 1),
            ("{{ {}}} {{ {'a': {}}['a']", "|string", " }}", 1),
        ];
        let run = move || {
            let new = |source: &str| ChatTemplate::new(source, ChatTokens::default());
            for (start, link, end, operators) in chains {
                let most = (OPERATORS_MAX - 8) / operators;
                let source = chain(start, link, end, most);
                assert!(new(&source).is_ok(), "{most} times {link}");
                for count in [OPERATORS_MAX + 1, 80_000] {
                    let error = new(&chain(start, link, end, count)).map(|_| ());
                    let error = error.expect_err(link).to_string();
                    assert!(error.contains("more than 300 operators"), "{error}");
                    assert!(error.contains("line 2"), "{error}");
                }
            }
            let ifs = |count| chain("{% if 0 %}", "{% elif 0 %}", "{% endif %}", count);
            assert!(new(&ifs(ELIFS_MAX)).is_ok());
            let error = new(&ifs(80_000)).map(|_| ()).expect_err("too many");
            assert!(error.to_string().contains("more than 100 elif"), "{error}");
        };
        let thread = std::thread::Builder::new().stack_size(256 << 10).spawn(run);
        thread.expect("a thread").join().expect("no overflow");
    }
}
