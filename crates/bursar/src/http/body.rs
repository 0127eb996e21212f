//! The bytes of an answer, wherever the server says that they end: at a length, after the last chunk, or
//! where the connection is closed.

use std::io::{self, BufRead, BufReader, Read};
use std::net::TcpStream;

use super::{Answer, malformed, read_line};

/// Where an answer ends.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Framing {
    /// After so many bytes.
    Left(u64),
    /// After a chunk of no bytes; `left` of the one that is being read.
    Chunk { left: u64, first: bool },
    /// Where the connection is closed.
    UntilClosed,
}

impl Framing {
    /// Bytes to come before something else is to be read; `None` if nobody knows.
    fn left(self) -> Option<u64> {
        match self {
            Framing::Left(left) | Framing::Chunk { left, .. } => Some(left),
            Framing::UntilClosed => None,
        }
    }

    /// Reads what stands between chunks, until there are bytes to come or none will.
    fn advance(&mut self, stream: &mut impl BufRead) -> io::Result<()> {
        let Framing::Chunk { left: 0, first } = *self else {
            return Ok(());
        };
        let mut line = Vec::new();
        let mut next = |line: &mut Vec<u8>| match read_line(stream, line)? {
            true => Ok(()),
            false => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the answer breaks off",
            )),
        };
        if !first {
            next(&mut line)?;
            if !line.is_empty() {
                return Err(malformed("a chunk is longer than it says"));
            }
        }
        next(&mut line)?;
        let text = String::from_utf8_lossy(&line);
        let digits = text.split(';').next().unwrap_or_default().trim();
        let length = u64::from_str_radix(digits, 16);
        let length = length.map_err(|_| malformed("a chunk's length is no number"))?;
        if length == 0 {
            // Fields may follow, of which none is known here.
            while !line.is_empty() {
                next(&mut line)?;
            }
            *self = Framing::Left(0);
            return Ok(());
        }
        *self = Framing::Chunk {
            left: length,
            first: false,
        };
        Ok(())
    }

    /// Takes off what has been read.
    fn take(&mut self, count: usize) {
        if let Framing::Left(left) | Framing::Chunk { left, .. } = self {
            *left = left.saturating_sub(count as u64);
        }
    }
}

impl Answer<'_> {
    /// All of it as text, if it has no more than `most` bytes.
    pub(crate) fn text(mut self, most: u64) -> io::Result<String> {
        let mut bytes = Vec::new();
        Read::by_ref(&mut self)
            .take(most + 1)
            .read_to_end(&mut bytes)?;
        if bytes.len() as u64 > most {
            return Err(malformed("the answer is too long"));
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    fn parts(&mut self) -> io::Result<(&mut BufReader<TcpStream>, &mut Framing)> {
        match self.stream.as_mut() {
            Some(stream) => Ok((stream, &mut self.framing)),
            None => Err(malformed("the connection is closed")),
        }
    }
}

impl BufRead for Answer<'_> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let (stream, framing) = self.parts()?;
        framing.advance(stream)?;
        let left = framing.left();
        if left == Some(0) {
            return Ok(&[]);
        }
        let bytes = stream.fill_buf()?;
        match left {
            Some(_) if bytes.is_empty() => Err(io::Error::new(
                io::ErrorKind::UnexpectedEof,
                "the answer breaks off",
            )),
            Some(left) => {
                Ok(&bytes[..bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX))])
            }
            None => Ok(bytes),
        }
    }

    fn consume(&mut self, count: usize) {
        if let Ok((stream, framing)) = self.parts() {
            stream.consume(count);
            framing.take(count);
        }
    }
}

impl Read for Answer<'_> {
    fn read(&mut self, into: &mut [u8]) -> io::Result<usize> {
        let bytes = self.fill_buf()?;
        let count = bytes.len().min(into.len());
        into[..count].copy_from_slice(&bytes[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        if !self.kept || self.framing != Framing::Left(0) {
            *self.stream = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::net::TcpListener;
    use std::time::Duration;

    use super::super::{Connection, Site};

    /// A server that answers each request with the next of these, on one connection after another.
    fn served(connections: Vec<Vec<&'static str>>) -> Connection {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            for answers in connections {
                let (mut stream, _) = listener.accept().expect("a client");
                for answer in answers {
                    let mut seen = Vec::new();
                    let mut byte = [0];
                    // A request without a body ends with its head.
                    while !seen.ends_with(b"\r\n\r\n") {
                        std::io::Read::read_exact(&mut stream, &mut byte).expect("a request");
                        seen.push(byte[0]);
                    }
                    stream.write_all(answer.as_bytes()).expect("answered");
                }
            }
        });
        Connection::new(&Site::at(address), None, Duration::from_secs(60))
    }

    #[test]
    fn one_connection_carries_many_answers_and_is_made_again() {
        let mut connection = served(vec![
            vec!["HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\none"],
            // The first connection has been closed meanwhile.
            vec![
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                 3;x=y\r\ntwo\r\nA\r\n and a half\r\n0\r\n\r\n",
            ],
            vec!["HTTP/1.0 200 OK\r\n\r\nthree"],
            vec!["HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nfour"],
        ]);
        let mut ask = |most: u64| connection.send("GET", "/", None)?.text(most);
        assert_eq!(ask(10).expect("an answer"), "one");
        // Ten bytes were said to come, and eleven did.
        let error = ask(64).expect_err("a chunk is longer than it says");
        assert!(error.to_string().contains("longer"), "{error}");
        assert_eq!(ask(10).expect("an answer"), "three");
        let error = ask(10).expect_err("it ends early").to_string();
        assert!(error.contains("breaks off"), "{error}");
    }

    #[test]
    fn chunks_are_put_together() {
        let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
                       3\r\ntwo\r\n4\r\n too\r\n0\r\nx: y\r\n\r\n";
        let whole = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nend";
        let mut connection = served(vec![vec![chunked, whole]]);
        let mut ask = |most: u64| connection.send("GET", "/", None)?.text(most);
        assert_eq!(ask(7).expect("an answer"), "two too");
        assert!(ask(2).is_err(), "longer than allowed");
    }
}
