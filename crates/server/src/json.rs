//! Reads a request body as JSON, strictly, and says of everything it refuses *where* it stands:
//! `messages[0].content`, not "line 1 column 57".
//!
//! What is built is charged to the request's reservation as it grows: a short text such as
//! `[0,0,0,...]` becomes forty times its length in memory.

use bursar_memory::Refusal;
use serde_json::{Map, Number, Value};

use crate::charge::Charge;

/// Why a body was refused.
#[derive(Debug)]
pub(crate) enum JsonError {
    /// It is no JSON that is accepted here.
    Invalid {
        /// Where: `messages[0].content`, empty for the whole.
        path: String,
        /// What is wrong with what stands there.
        what: String,
    },
    /// The budget does not hold it.
    Memory(Refusal),
}

/// Longest path that is quoted.
const PATH_MAX: usize = 120;
/// Longest piece of the body that is quoted.
const QUOTE_MAX: usize = 24;

impl JsonError {
    fn invalid(what: impl Into<String>) -> JsonError {
        JsonError::Invalid {
            path: String::new(),
            what: what.into(),
        }
    }

    fn below_key(self, key: &str) -> JsonError {
        let key: String = key.chars().take(PATH_MAX).collect();
        self.below(&key)
    }

    fn below_index(self, index: usize) -> JsonError {
        self.below(&format!("[{index}]"))
    }

    fn below(self, step: &str) -> JsonError {
        match self {
            JsonError::Invalid { path, what } => {
                let dot = match path.as_bytes().first() {
                    None | Some(b'[') => "",
                    Some(_) => ".",
                };
                let mut path = format!("{step}{dot}{path}");
                if path.len() > PATH_MAX {
                    path.truncate(path.floor_char_boundary(PATH_MAX));
                    path.push('…');
                }
                JsonError::Invalid { path, what }
            }
            memory => memory,
        }
    }
}

/// Reads all of `bytes` as one value, nested at most `depth_max` levels.
pub(crate) fn parse(
    bytes: &[u8],
    depth_max: usize,
    charge: &mut Charge,
) -> Result<Value, JsonError> {
    let mut reader = Reader {
        bytes,
        at: 0,
        left: depth_max,
        depth_max,
        charge,
    };
    reader.skip_space();
    if reader.at == bytes.len() {
        return Err(JsonError::invalid("is empty; send a JSON object"));
    }
    let value = reader.value()?;
    reader.skip_space();
    if reader.at != bytes.len() {
        let found = reader.quote();
        return Err(JsonError::invalid(format!(
            "is no JSON: {found} follows after its end"
        )));
    }
    Ok(value)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    left: usize,
    depth_max: usize,
    charge: &'a mut Charge,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\n' | b'\r' | b'\t')) {
            self.at += 1;
        }
    }

    /// What stands at the present place, to be shown.
    fn quote(&self) -> String {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        if rest.is_empty() {
            return "the end of the body".to_owned();
        }
        let end = rest
            .iter()
            .skip(1)
            .position(|b| b" \t\r\n,]}\":".contains(b))
            .map_or(rest.len(), |n| n + 1)
            .min(QUOTE_MAX);
        let text = String::from_utf8_lossy(&rest[..end]);
        format!("{text:?}")
    }

    fn no_json(&self, want: &str) -> JsonError {
        let at = self.at;
        JsonError::invalid(format!(
            "is no JSON: expected {want} at byte {at}, found {}",
            self.quote()
        ))
    }

    fn charge(&mut self, bytes: usize) -> Result<(), JsonError> {
        self.charge.add(bytes).map_err(JsonError::Memory)
    }

    fn value(&mut self) -> Result<Value, JsonError> {
        // Lists grow by doubling: twice the value covers the one that holds it.
        self.charge(2 * size_of::<Value>())?;
        self.skip_space();
        match self.peek() {
            Some(b'"') => self.string().map(Value::String),
            Some(b'{') => self.nested(Self::object),
            Some(b'[') => self.nested(Self::array),
            Some(b'0'..=b'9') => self.number(),
            Some(b'-') if matches!(self.bytes.get(self.at + 1), Some(b'0'..=b'9')) => self.number(),
            _ => self.word(),
        }
    }

    fn word(&mut self) -> Result<Value, JsonError> {
        let rest = &self.bytes[self.at..];
        let words = [
            ("null", Value::Null),
            ("true", Value::Bool(true)),
            ("false", Value::Bool(false)),
        ];
        for (word, value) in words {
            if rest.starts_with(word.as_bytes()) {
                self.at += word.len();
                return Ok(value);
            }
        }
        for word in ["NaN", "Infinity", "-Infinity", "nan", "inf", "-inf", "-NaN"] {
            if rest.starts_with(word.as_bytes()) {
                return Err(JsonError::invalid(format!(
                    "is {word}, which is no JSON number"
                )));
            }
        }
        Err(self.no_json("a value"))
    }

    fn nested(
        &mut self,
        read: impl FnOnce(&mut Self) -> Result<Value, JsonError>,
    ) -> Result<Value, JsonError> {
        let Some(left) = self.left.checked_sub(1) else {
            return Err(JsonError::invalid(format!(
                "is nested deeper than {} levels; flatten it, or raise limits.json_depth",
                self.depth_max
            )));
        };
        self.left = left;
        self.at += 1;
        let value = read(self);
        self.left += 1;
        value
    }

    fn array(&mut self) -> Result<Value, JsonError> {
        let mut items = Vec::new();
        self.skip_space();
        if self.peek() == Some(b']') {
            self.at += 1;
            return Ok(Value::Array(items));
        }
        loop {
            let index = items.len();
            items.push(self.value().map_err(|e| e.below_index(index))?);
            self.skip_space();
            match self.peek() {
                Some(b',') => self.at += 1,
                Some(b']') => {
                    self.at += 1;
                    return Ok(Value::Array(items));
                }
                _ => return Err(self.no_json("\",\" or \"]\"").below_index(index)),
            }
        }
    }

    fn object(&mut self) -> Result<Value, JsonError> {
        let mut map = Map::new();
        self.skip_space();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(Value::Object(map));
        }
        loop {
            self.skip_space();
            if self.peek() != Some(b'"') {
                return Err(self.no_json("a name in quotes"));
            }
            let key = self.string()?;
            // The name's hash and index beside the value itself.
            self.charge(2 * size_of::<(String, usize, usize)>())?;
            self.skip_space();
            if self.peek() != Some(b':') {
                return Err(self.no_json("\":\"").below_key(&key));
            }
            self.at += 1;
            let value = self.value().map_err(|e| e.below_key(&key))?;
            self.skip_space();
            let more = match self.peek() {
                Some(b',') => true,
                Some(b'}') => false,
                _ => return Err(self.no_json("\",\" or \"}\"").below_key(&key)),
            };
            self.at += 1;
            map.insert(key, value);
            if !more {
                return Ok(Value::Object(map));
            }
        }
    }

    fn number(&mut self) -> Result<Value, JsonError> {
        let start = self.at;
        let digits = |reader: &mut Self| {
            let from = reader.at;
            while matches!(reader.peek(), Some(b'0'..=b'9')) {
                reader.at += 1;
            }
            reader.at - from
        };
        let mut whole = true;
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        let leading_zero = self.peek() == Some(b'0');
        if digits(self) > 1 && leading_zero {
            self.at = start;
            return Err(self.no_json("a number without leading zeros"));
        }
        if self.peek() == Some(b'.') {
            whole = false;
            self.at += 1;
            if digits(self) == 0 {
                return Err(self.no_json("a digit"));
            }
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            whole = false;
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            if digits(self) == 0 {
                return Err(self.no_json("a digit"));
            }
        }
        // Digits, signs and points only: always UTF-8.
        let text = std::str::from_utf8(&self.bytes[start..self.at]).unwrap_or_default();
        if whole {
            if let Ok(number) = text.parse::<u64>() {
                return Ok(Value::Number(number.into()));
            }
            if let Ok(number) = text.parse::<i64>() {
                return Ok(Value::Number(number.into()));
            }
        }
        let number = text.parse::<f64>().ok().and_then(Number::from_f64);
        number.map(Value::Number).ok_or_else(|| {
            let shown: String = text.chars().take(QUOTE_MAX).collect();
            JsonError::invalid(format!(
                "is {shown}, which is larger than any 64-bit number"
            ))
        })
    }

    fn string(&mut self) -> Result<String, JsonError> {
        self.at += 1;
        let start = self.at;
        let end = self.string_end()?;
        self.charge(end - start)?;
        let raw = &self.bytes[start..end];
        let raw = std::str::from_utf8(raw).map_err(|error| {
            let at = start + error.valid_up_to();
            JsonError::invalid(format!("is not valid UTF-8 at byte {at} of the body"))
        })?;
        let text = match raw.contains('\\') {
            true => unescape(raw)?,
            false => raw.to_owned(),
        };
        self.at = end + 1;
        Ok(text)
    }

    /// The place of the closing quote.
    fn string_end(&self) -> Result<usize, JsonError> {
        let mut at = self.at;
        loop {
            match self.bytes.get(at) {
                Some(b'"') => return Ok(at),
                Some(b'\\') => at += 2,
                Some(0..0x20) => {
                    return Err(JsonError::invalid(format!(
                        "has a control character at byte {at} of the body; write it as \\u00xx"
                    )));
                }
                Some(_) => at += 1,
                None => return Err(JsonError::invalid("is a text that never ends")),
            }
        }
    }
}

/// Replaces escapes.
fn unescape(raw: &str) -> Result<String, JsonError> {
    let mut text = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        text.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        let escape = rest.chars().next();
        let plain = match escape {
            Some('"') => '"',
            Some('\\') => '\\',
            Some('/') => '/',
            Some('b') => '\u{8}',
            Some('f') => '\u{c}',
            Some('n') => '\n',
            Some('r') => '\r',
            Some('t') => '\t',
            Some('u') => {
                let (character, used) = unicode(rest)?;
                text.push(character);
                rest = &rest[used..];
                continue;
            }
            other => {
                let other = other.map_or(String::new(), String::from);
                return Err(JsonError::invalid(format!(
                    "has the escape \\{other}, which JSON does not know"
                )));
            }
        };
        text.push(plain);
        rest = &rest[1..];
    }
    text.push_str(rest);
    Ok(text)
}

/// The character of `uXXXX` or `uXXXX\uXXXX` at the start of `text`, and the bytes it takes.
fn unicode(text: &str) -> Result<(char, usize), JsonError> {
    let unit = |from: usize| -> Option<u32> {
        let digits = text.get(from..from + 4)?;
        match digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            true => u32::from_str_radix(digits, 16).ok(),
            false => None,
        }
    };
    let Some(first) = unit(1) else {
        return Err(JsonError::invalid(
            "has a \\u that four hexadecimal digits do not follow",
        ));
    };
    if let Some(character) = char::from_u32(first) {
        return Ok((character, 5));
    }
    let second = match text.get(5..7) {
        Some("\\u") => unit(7),
        _ => None,
    };
    match second {
        Some(second) if first < 0xDC00 && (0xDC00..0xE000).contains(&second) => {
            let code = 0x1_0000 + ((first - 0xD800) << 10) + (second - 0xDC00);
            let character = char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
            Ok((character, 11))
        }
        _ => Err(JsonError::invalid(format!(
            "has the lone surrogate \\u{first:04x}, which is no character"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Result<Value, String> {
        parse(text, 8, &mut Charge::unlimited()).map_err(|error| match error {
            JsonError::Invalid { path, what } => format!("{path} {what}"),
            JsonError::Memory(refusal) => refusal.to_string(),
        })
    }

    #[test]
    fn reads_what_serde_json_reads() {
        let texts = [
            r#"{"a":[1,-2,3.5,1e3,0.25E-2,18446744073709551615,-9223372036854775808]}"#,
            r#" { "b" : "x\n\"\\\/\u00e9\ud83d\ude42é🙂" , "c" : null , "d":[ ] , "e":{ } } "#,
            "[true,false,null]",
            "\"\"",
            "123456789012345678901234567890",
        ];
        for text in texts {
            let want: Value = serde_json::from_str(text).unwrap();
            assert_eq!(read(text.as_bytes()), Ok(want), "{text}");
        }
    }

    #[test]
    fn names_the_place() {
        let cases: &[(&[u8], &str)] = &[
            (br#"{"temperature":NaN}"#, "temperature is NaN"),
            (br#"{"temperature":1e400}"#, "temperature is 1e400"),
            (
                br#"{"a":{"b":[0,{"c":-Infinity}]}}"#,
                "a.b[1].c is -Infinity",
            ),
            (
                br#"{"a":["\ud800"]}"#,
                "a[0] has the lone surrogate \\ud800",
            ),
            (
                br#"{"a":"\udc00\ud800"}"#,
                "a has the lone surrogate \\udc00",
            ),
            (br#"{"a":"\ud800\u0041"}"#, "a has the lone surrogate"),
            (b"{\"a\":\"\xff\"}", "a is not valid UTF-8"),
            (b"{\"a\":\"\n\"}", "a has a control character"),
            (br#"{"a":"\x"}"#, "a has the escape \\x"),
            (br#"{"a":"\u12g4"}"#, "a has a \\u"),
            (br#"{"a":"x"#, "a is a text that never ends"),
            (br#"{"a":"x\"#, "a is a text that never ends"),
            (br#"{"a":01}"#, "a is no JSON"),
            (br#"{"a":1.}"#, "a is no JSON"),
            (br#"{"a":-}"#, "a is no JSON"),
            (br#"{"a":1"#, "a is no JSON"),
            (br#"{"a" 1}"#, "a is no JSON"),
            (
                br#"{"a":[[[[[[[[[1]]]]]]]]]}"#,
                "a[0][0][0][0][0][0][0] is nested deeper",
            ),
            (b"{1:2}", " is no JSON: expected a name"),
            (b"", " is empty"),
            (b"{} x", " is no JSON: \"x\" follows"),
            (b"\xff", " is no JSON"),
        ];
        for (text, want) in cases {
            let error = read(text).expect_err("broken");
            let shown = String::from_utf8_lossy(text);
            assert!(error.starts_with(want), "{shown}: {error}");
        }
    }

    /// M3
    #[test]
    fn a_small_stack_holds_whatever_is_sent() {
        const LEVELS: usize = 100_000;
        // As many levels as `limits.json_depth` may allow.
        let (most, stack) = (128, 256 << 10);
        let read = move || {
            for (open, close) in [("[", "]"), ("{\"a\":", "}"), ("[{\"a\":", "}]")] {
                let per_turn = open.matches(['[', '{']).count();
                let nested = |turns: usize| {
                    [open.repeat(turns), "1".to_owned(), close.repeat(turns)].concat()
                };
                for text in [nested(LEVELS / per_turn), open.repeat(LEVELS / per_turn)] {
                    let error = parse(text.as_bytes(), most, &mut Charge::unlimited())
                        .expect_err("too deep");
                    let JsonError::Invalid { path, what } = error else {
                        panic!("{error:?}");
                    };
                    assert!(what.contains("is nested deeper than 128 levels"), "{what}");
                    assert!(path.len() <= PATH_MAX + '…'.len_utf8());
                }
                let within = nested(most / per_turn);
                let value =
                    parse(within.as_bytes(), most, &mut Charge::unlimited()).expect("deep enough");
                assert_eq!(value.to_string(), within);
            }
        };
        let thread = std::thread::Builder::new().stack_size(stack);
        thread.spawn(read).unwrap().join().unwrap();
    }

    #[test]
    fn every_cut_and_every_changed_byte_is_no_panic() {
        let text = br#"{"a":[1,-2.5e3,"x\ud83d\ude42"],"b":{"c":null,"d":true}}"#;
        for cut in 0..text.len() {
            assert!(read(&text[..cut]).is_err());
        }
        for at in 0..text.len() {
            for byte in [0, b'"', b'\\', b'{', b']', b'9', 0x80, 0xff] {
                let mut broken = text.to_vec();
                broken[at] = byte;
                // As strict as serde_json, to the byte.
                let theirs = serde_json::from_slice::<Value>(&broken);
                assert_eq!(read(&broken).ok(), theirs.ok());
            }
        }
    }
}
