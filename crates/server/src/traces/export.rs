//! The thread that sends spans: in batches, by OTLP over HTTP, to a collector that is near. It speaks plain
//! HTTP; what leads to others in secret is the collector's matter.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use thiserror::Error;

use super::{Counts, Span, otlp};

/// Spans of a batch.
const BATCH: usize = 64;
/// How long a batch is waited for.
const INTERVAL: Duration = Duration::from_secs(1);
/// How long the collector may take for any one thing.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most bytes of its answer that are looked at.
const ANSWER_BYTES: u64 = 4096;

/// Why there is no collector.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{variable} is {given:?}, which is no address of a collector; write http://HOST:PORT, of one that \
     takes OTLP over plain HTTP, usually at port 4318"
)]
pub struct CollectorError {
    variable: &'static str,
    given: String,
}

/// Where spans are sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Collector {
    /// Name and port.
    authority: String,
    path: String,
    service: String,
}

impl Collector {
    /// The one that the variables `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` or `OTEL_EXPORTER_OTLP_ENDPOINT` name, if
    /// one of them is set; `OTEL_SERVICE_NAME` is what the server calls itself.
    ///
    /// # Errors
    /// If it names something else.
    pub fn from_environment<'a>(
        variable: &dyn Fn(&str) -> Option<&'a OsString>,
    ) -> Result<Option<Collector>, CollectorError> {
        let text = |name: &str| variable(name).map(|value| value.to_string_lossy().into_owned());
        let service = text("OTEL_SERVICE_NAME").unwrap_or_else(|| "bursar".to_owned());
        for (name, below) in [
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", ""),
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "/v1/traces"),
        ] {
            if let Some(given) = text(name) {
                let collector = Collector::of(&given, below, &service);
                return collector.map(Some).ok_or(CollectorError {
                    variable: name,
                    given,
                });
            }
        }
        Ok(None)
    }

    /// The one at an address, and what follows that.
    fn of(url: &str, below: &str, service: &str) -> Option<Collector> {
        let plain = |c: char| c.is_ascii_graphic();
        let rest = url
            .strip_prefix("http://")
            .filter(|rest| rest.chars().all(plain))?;
        let (authority, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        let port = authority
            .rsplit_once(':')
            .filter(|(host, _)| !host.is_empty());
        port.and_then(|(_, port)| port.parse::<u16>().ok())?;
        let path = format!("{}{below}", path.trim_end_matches('/'));
        Some(Collector {
            authority: authority.to_owned(),
            path: if path.is_empty() {
                "/".to_owned()
            } else {
                path
            },
            service: service.to_owned(),
        })
    }
}

/// Sends what comes until nothing can come any more.
pub(super) fn run(collector: &Collector, spans: &Receiver<Option<Span>>, counts: &Counts) {
    let mut batch = Vec::with_capacity(BATCH);
    loop {
        let more = gather(spans, &mut batch);
        if !batch.is_empty() {
            let count = match send(collector, &batch) {
                Ok(()) => &counts.sent,
                Err(_) => &counts.dropped,
            };
            count.fetch_add(batch.len() as u64, Ordering::Relaxed);
            batch.clear();
        }
        if !more {
            return;
        }
    }
}

/// Waits for spans until there are enough, or none came for long; false when none will.
fn gather(spans: &Receiver<Option<Span>>, batch: &mut Vec<Span>) -> bool {
    let until = Instant::now() + INTERVAL;
    while batch.len() < BATCH {
        match spans.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Some(span)) => batch.push(span),
            Err(RecvTimeoutError::Timeout) => return true,
            Ok(None) | Err(RecvTimeoutError::Disconnected) => return false,
        }
    }
    true
}

fn send(collector: &Collector, batch: &[Span]) -> io::Result<()> {
    let Collector {
        authority,
        path,
        service,
    } = collector;
    let body = otlp::request(service, batch).to_string();
    let mut addresses = authority.to_socket_addrs()?;
    let address = addresses.next().ok_or(io::ErrorKind::NotFound)?;
    let mut stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let length = body.len();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n"
    );
    stream.write_all(head.as_bytes())?;
    stream.write_all(body.as_bytes())?;
    let mut answer = Vec::new();
    stream.take(ANSWER_BYTES).read_to_end(&mut answer)?;
    match answer.get(..12) {
        Some(b"HTTP/1.1 200" | b"HTTP/1.0 200") => Ok(()),
        _ => Err(io::Error::other("the collector does not take it")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_from_the_environment() {
        let read = |set: &[(&str, &str)]| {
            let set: Vec<_> = set.iter().map(|(n, v)| (*n, OsString::from(v))).collect();
            let variable = |name: &str| {
                let found = set.iter().find(|(other, _)| *other == name);
                found.map(|(_, value)| value)
            };
            Collector::from_environment(&variable)
                .map(|found| found.map(|c| (c.authority, c.path, c.service)))
                .map_err(|error| error.to_string())
        };
        let want = |authority: &str, path: &str, service: &str| {
            Ok(Some((
                authority.to_owned(),
                path.to_owned(),
                service.to_owned(),
            )))
        };
        let (all, traces) = (
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        );
        assert_eq!(read(&[]), Ok(None));
        let found = read(&[(all, "http://127.0.0.1:4318")]);
        assert_eq!(found, want("127.0.0.1:4318", "/v1/traces", "bursar"));
        let found = read(&[
            (all, "http://a:1"),
            (traces, "http://b:2/x/"),
            ("OTEL_SERVICE_NAME", "s"),
        ]);
        assert_eq!(found, want("b:2", "/x", "s"));
        for wrong in [
            "https://a:1",
            "a:1",
            "http://",
            "http://a",
            "http://:1",
            "http://a:b",
            "http://a:1/ b",
        ] {
            let error = read(&[(all, wrong)]).expect_err("no address");
            assert!(
                error.starts_with(all) && error.contains("http://HOST:PORT"),
                "{error}"
            );
        }
    }
}
