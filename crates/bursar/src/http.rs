//! HTTP/1.1 from the side of who asks: one connection that is kept, one request on it after another,
//! answers read whole or line by line as they come. Plain TCP, because servers here speak no TLS.
//!
//! - `body`: where an answer ends, and its bytes.
//! - `events`: the events of a stream.

mod body;
mod events;

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::time::Duration;

use body::Framing;
pub(crate) use events::next_event;

use crate::failure::Failure;

/// Most bytes of a line of an answer's head, or of an event.
const LINE_BYTES_MAX: u64 = 1 << 20;
/// Most lines of an answer's head.
const HEAD_LINES_MAX: usize = 256;
/// How long a connection may take to come about.
const CONNECT_PATIENCE: Duration = Duration::from_secs(10);

/// Where a server is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Site {
    /// Host and port.
    authority: String,
    /// What stands before every path; empty, or begins with a slash.
    base: String,
}

impl Site {
    /// Reads `http://host:port/base`. A base that ends in `/v1`, as OpenAI's clients want it, is taken
    /// without that.
    ///
    /// # Errors
    /// Where it is no such address, or one that needs TLS.
    pub(crate) fn parse(url: &str) -> Result<Site, Failure> {
        if url.starts_with("https://") {
            let message = format!("{url} cannot be asked: this client speaks plain HTTP only");
            return Err(Failure::usage(message).help(
                "give the server's own address as http://HOST:PORT, behind what ends TLS for it",
            ));
        }
        let (authority, path) = match url.strip_prefix("http://") {
            Some(rest) => rest.split_once('/').unwrap_or((rest, "")),
            None => ("", ""),
        };
        if authority.is_empty() || authority.contains(['@', '?', '#', ' ']) {
            let message = format!("{url} is not the address of a server");
            return Err(Failure::usage(message).help("write it as http://127.0.0.1:8080"));
        }
        let has_port = |port: &str| port.parse::<u16>().is_ok();
        let authority = match authority.rsplit_once(':') {
            Some((_, port)) if has_port(port) => authority.to_owned(),
            _ => format!("{authority}:80"),
        };
        let path = path.trim_end_matches('/');
        let path = path
            .strip_suffix("v1")
            .unwrap_or(path)
            .trim_end_matches('/');
        let base = match path {
            "" => String::new(),
            path => format!("/{path}"),
        };
        Ok(Site { authority, base })
    }

    /// The server at an address.
    pub(crate) fn at(address: SocketAddr) -> Site {
        Site {
            authority: address.to_string(),
            base: String::new(),
        }
    }

    /// As it is typed.
    pub(crate) fn url(&self) -> String {
        format!("http://{}{}", self.authority, self.base)
    }

    fn connect(&self) -> io::Result<TcpStream> {
        let mut refused = io::Error::new(io::ErrorKind::NotFound, "it has no address");
        for address in self.authority.to_socket_addrs()? {
            match TcpStream::connect_timeout(&address, CONNECT_PATIENCE) {
                Ok(stream) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }
}

/// A connection to a server, made when it is first needed and again when it was lost.
#[derive(Debug)]
pub(crate) struct Connection {
    site: Site,
    /// What the server knows this client by.
    key: Option<String>,
    /// How long nothing may come.
    patience: Duration,
    stream: Option<BufReader<TcpStream>>,
}

/// What a server says to a request; dropped before its end, the connection is closed, by which servers
/// see that nobody listens any more.
#[derive(Debug)]
pub(crate) struct Answer<'a> {
    pub(crate) status: u16,
    /// Seconds after which to ask again.
    pub(crate) retry_after: Option<u64>,
    stream: &'a mut Option<BufReader<TcpStream>>,
    framing: Framing,
    /// Whether the connection may be used again.
    kept: bool,
}

#[derive(Debug)]
struct Head {
    status: u16,
    retry_after: Option<u64>,
    framing: Framing,
    kept: bool,
}

impl Connection {
    /// Not made yet.
    pub(crate) fn new(site: &Site, key: Option<&str>, patience: Duration) -> Connection {
        Connection {
            site: site.clone(),
            key: key.map(str::to_owned),
            patience,
            stream: None,
        }
    }

    /// Sends a request, whose body is JSON if there is one, and reads the head of what is answered.
    ///
    /// # Errors
    /// Where the server cannot be reached, goes away, is silent too long, or does not speak HTTP.
    pub(crate) fn send(
        &mut self,
        method: &str,
        path: &str,
        body: Option<&str>,
    ) -> io::Result<Answer<'_>> {
        let request = self.request(method, path, body);
        let used = self.stream.is_some();
        let head = match self.exchange(&request) {
            // A server may close a connection that has been idle.
            Err(error) if used && is_gone(&error) => self.exchange(&request)?,
            exchanged => exchanged?,
        };
        Ok(Answer {
            status: head.status,
            retry_after: head.retry_after,
            stream: &mut self.stream,
            framing: head.framing,
            kept: head.kept,
        })
    }

    fn request(&self, method: &str, path: &str, body: Option<&str>) -> String {
        let Site { authority, base } = &self.site;
        let mut request = format!("{method} {base}{path} HTTP/1.1\r\nHost: {authority}\r\n");
        if let Some(key) = &self.key {
            request.push_str(&format!("Authorization: Bearer {key}\r\n"));
        }
        if let Some(body) = body {
            let length = body.len();
            request.push_str(&format!(
                "Content-Type: application/json\r\nContent-Length: {length}\r\n"
            ));
        }
        request.push_str("\r\n");
        request.push_str(body.unwrap_or_default());
        request
    }

    fn exchange(&mut self, request: &str) -> io::Result<Head> {
        let mut stream = match self.stream.take() {
            Some(stream) => stream,
            None => {
                let stream = self.site.connect()?;
                stream.set_read_timeout(Some(self.patience))?;
                stream.set_write_timeout(Some(self.patience))?;
                BufReader::new(stream)
            }
        };
        let written = stream.get_mut().write_all(request.as_bytes());
        // A server that refuses before it has read everything has answered nevertheless.
        let head = read_head(&mut stream).map_err(|error| written.err().unwrap_or(error))?;
        self.stream = Some(stream);
        Ok(head)
    }
}

/// Whether the other side has closed the connection.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::UnexpectedEof
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::BrokenPipe
    )
}

fn malformed(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// A line without its end, into `line`; whether there was one.
fn read_line(stream: &mut impl BufRead, line: &mut Vec<u8>) -> io::Result<bool> {
    line.clear();
    let mut limited = Read::take(&mut *stream, LINE_BYTES_MAX);
    if limited.read_until(b'\n', line)? == 0 {
        return Ok(false);
    }
    if line.pop() != Some(b'\n') {
        return Err(match line.len() as u64 + 1 < LINE_BYTES_MAX {
            true => io::Error::new(io::ErrorKind::UnexpectedEof, "the answer breaks off"),
            false => malformed("a line of the answer is too long"),
        });
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(true)
}

fn read_head(stream: &mut impl BufRead) -> io::Result<Head> {
    let mut line = Vec::new();
    loop {
        if !read_line(stream, &mut line)? {
            let gone = "the server closed the connection without an answer";
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, gone));
        }
        let first = String::from_utf8_lossy(&line).into_owned();
        let mut words = first.split(' ');
        let version = words.next().unwrap_or_default();
        let status = words.next().and_then(|word| word.parse::<u16>().ok());
        let (true, Some(status)) = (version.starts_with("HTTP/1."), status) else {
            return Err(malformed("what listens there does not speak HTTP/1.1"));
        };
        let mut head = Head {
            status,
            retry_after: None,
            framing: Framing::UntilClosed,
            kept: version == "HTTP/1.1",
        };
        read_fields(stream, &mut line, &mut head)?;
        // 1xx only says that the answer is on its way.
        if !(100..200).contains(&status) {
            if matches!(status, 204 | 304) {
                head.framing = Framing::Left(0);
            }
            head.kept &= head.framing != Framing::UntilClosed;
            return Ok(head);
        }
    }
}

fn read_fields(stream: &mut impl BufRead, line: &mut Vec<u8>, head: &mut Head) -> io::Result<()> {
    for _ in 0..HEAD_LINES_MAX {
        if !read_line(stream, line)? {
            return Err(malformed("the head of the answer breaks off"));
        }
        if line.is_empty() {
            return Ok(());
        }
        let text = String::from_utf8_lossy(line);
        let Some((name, value)) = text.split_once(':') else {
            return Err(malformed("the head of the answer is malformed"));
        };
        let value = value.trim();
        match name.to_ascii_lowercase().as_str() {
            // What is chunked says so in place of a length.
            "content-length" if head.framing == Framing::UntilClosed => {
                let length = value.parse();
                let length = length.map_err(|_| malformed("the answer's length is no number"))?;
                head.framing = Framing::Left(length);
            }
            "transfer-encoding" if value.eq_ignore_ascii_case("chunked") => {
                head.framing = Framing::Chunk {
                    left: 0,
                    first: true,
                };
            }
            "connection" if value.eq_ignore_ascii_case("close") => head.kept = false,
            "retry-after" => head.retry_after = value.parse().ok(),
            _ => {}
        }
    }
    Err(malformed("the head of the answer is too long"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    #[test]
    fn addresses_are_read() {
        let check = |url: &str, expected: &str| {
            assert_eq!(Site::parse(url).expect(url).url(), expected, "{url}");
        };
        check("http://127.0.0.1:8080", "http://127.0.0.1:8080");
        check("http://host/", "http://host:80");
        check("http://host:1/v1/", "http://host:1");
        check("http://[::1]:9/api/v1", "http://[::1]:9/api");
        check("http://[::1]", "http://[::1]:80");
        let refused = |url: &str, why: &str| {
            let failure = Site::parse(url).expect_err(url);
            assert!(failure.message().contains(why), "{}", failure.message());
        };
        refused("https://host", "plain HTTP only");
        refused("host:80", "not the address");
        refused("http://", "not the address");
        refused("http://a@b", "not the address");
    }

    #[test]
    fn heads_say_where_answers_end() {
        let head = |text: &str| read_head(&mut Cursor::new(text.as_bytes().to_vec()));
        let ok = head("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n").expect("a head");
        assert_eq!(
            (ok.status, ok.framing, ok.kept),
            (200, Framing::Left(5), true)
        );
        let refused = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 429 No\r\nretry-after: 7\r\n\
                       Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n";
        let refused = head(refused).expect("a head");
        assert_eq!((refused.status, refused.retry_after), (429, Some(7)));
        assert!(!refused.kept);
        assert_eq!(
            refused.framing,
            Framing::Chunk {
                left: 0,
                first: true
            }
        );
        let old = head("HTTP/1.0 200 OK\r\n\r\n").expect("a head");
        assert_eq!((old.framing, old.kept), (Framing::UntilClosed, false));
        for (text, why) in [
            ("", "without an answer"),
            ("SSH-2.0\r\n\r\n", "does not speak"),
            ("HTTP/1.1 200 OK\r\nno colon\r\n\r\n", "malformed"),
            ("HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n", "no number"),
            ("HTTP/1.1 200 OK\r\n", "breaks off"),
        ] {
            let error = head(text).expect_err(text).to_string();
            assert!(error.contains(why), "{error}");
        }
    }
}
