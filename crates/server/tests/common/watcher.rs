//! Somebody who watches `GET /memory/events`.

use std::io::Read;
use std::net::{SocketAddr, TcpStream};

use serde_json::Value;

use super::client::send;

/// Somebody who watches: reads events one by one.
pub(crate) struct Watcher {
    stream: TcpStream,
    text: String,
}

impl Watcher {
    /// Begins to watch, with more headers perhaps.
    pub(crate) fn new(address: SocketAddr, extra: &str) -> Watcher {
        let head = format!("GET /memory/events HTTP/1.1\r\nHost: test\r\n{extra}\r\n");
        let mut watcher = Watcher {
            stream: send(address, &head, b""),
            text: String::new(),
        };
        watcher.until("\r\n\r\n");
        watcher
    }

    /// What comes up to and with a mark; `None` where the stream ends before.
    pub(crate) fn next(&mut self, mark: &str) -> Option<String> {
        let mut buffer = [0; 16 << 10];
        loop {
            if let Some(at) = self.text.find(mark) {
                let rest = self.text.split_off(at + mark.len());
                return Some(std::mem::replace(&mut self.text, rest));
            }
            match self.stream.read(&mut buffer).unwrap() {
                0 => return None,
                count => self
                    .text
                    .push_str(&String::from_utf8_lossy(&buffer[..count])),
            }
        }
    }

    /// The same; the stream does not end before.
    pub(crate) fn until(&mut self, mark: &str) -> String {
        self.next(mark)
            .unwrap_or_else(|| panic!("ended before {mark}: {}", self.text))
    }

    /// The data of the next event of a kind.
    pub(crate) fn event(&mut self, kind: &str) -> Value {
        self.until(&format!("event: {kind}\ndata: "));
        let data = self.until("\n\n");
        // Chunks begin and end with events.
        serde_json::from_str(data.trim()).unwrap()
    }
}
