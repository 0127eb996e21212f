//! Server-sent events: the data of each, as the lines of a stream bring them.

use std::io::{self, BufRead};

use super::{malformed, read_line};

/// Most bytes of an event.
const EVENT_BYTES_MAX: usize = 16 << 20;

/// The data of the next event, or `None` where the stream ends. What is no data (comments, names) is
/// passed over, and so is an event that the end of the stream cuts off.
///
/// # Errors
/// Where the stream cannot be read, or a line or an event of it is too long.
pub(crate) fn next_event(stream: &mut impl BufRead) -> io::Result<Option<String>> {
    let mut line = Vec::new();
    let mut data: Option<String> = None;
    while read_line(stream, &mut line)? {
        if line.is_empty() {
            if data.is_some() {
                return Ok(data);
            }
            continue;
        }
        let Some(rest) = line.strip_prefix(b"data:") else {
            continue;
        };
        let rest = String::from_utf8_lossy(rest.strip_prefix(b" ").unwrap_or(rest));
        match &mut data {
            Some(data) => {
                data.push('\n');
                data.push_str(&rest);
            }
            None => data = Some(rest.into_owned()),
        }
        if data
            .as_ref()
            .is_some_and(|data| data.len() > EVENT_BYTES_MAX)
        {
            return Err(malformed("an event is too long"));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn events_are_told_apart() {
        let text = ": hello\n\nevent: x\ndata: {\"a\":1}\r\n\r\ndata:one\ndata:  two\nid: 3\n\n\n\
                    data: [DONE]\n\ndata: cut off\n";
        let mut stream = Cursor::new(text.as_bytes());
        let mut events = Vec::new();
        while let Some(event) = next_event(&mut stream).expect("a stream") {
            events.push(event);
        }
        assert_eq!(events, ["{\"a\":1}", "one\n two", "[DONE]"]);
        let error = next_event(&mut Cursor::new(b"data: no end of the line"));
        assert!(error.is_err(), "a stream that breaks off within a line");
    }
}
