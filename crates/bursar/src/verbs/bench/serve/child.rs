//! A server of this program itself, started for a measurement on a port that is free, and stopped after it.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use rustix::process::{Pid, Signal, kill_process};

use crate::failure::Failure;
use crate::http::Site;

/// Lines of what it said last that are kept, and shown if it ends.
const LINES_KEPT: usize = 20;

/// A server that ends with this value.
#[derive(Debug)]
pub(super) struct Child {
    process: std::process::Child,
    pub(super) site: Site,
    said: Arc<Mutex<VecDeque<String>>>,
}

impl Child {
    /// Starts `bursar serve` with these arguments, and waits until its models are loaded.
    ///
    /// # Errors
    /// Where it ends before: with what it said.
    pub(super) fn start<S: AsRef<OsStr>>(arguments: &[S]) -> Result<Child, Failure> {
        let cannot = |error: std::io::Error| {
            Failure::failed(format!("cannot start a server: {error}"))
                .help("start one with `bursar serve`, and give its address")
        };
        let program = std::env::current_exe().map_err(cannot)?;
        let mut process = Command::new(program)
            .args(["serve", "--listen", "127.0.0.1:0"])
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(cannot)?;
        let said = Arc::new(Mutex::new(VecDeque::new()));
        let mut errors = process.stderr.take().map(BufReader::new);
        while let Some(line) = errors.as_mut().and_then(next_line) {
            let site = serving_at(&line);
            keep(&said, line);
            if let Some(site) = site {
                let site = Site::parse(&site)?;
                let keeping = Arc::clone(&said);
                // What it says must be read, lest it wait for that; it ends with the server.
                std::thread::spawn(move || {
                    while let Some(line) = errors.as_mut().and_then(next_line) {
                        keep(&keeping, line);
                    }
                });
                return Ok(Child {
                    process,
                    site,
                    said,
                });
            }
        }
        let status = process.wait().map_err(cannot)?;
        Err(ended(status, &said))
    }

    /// Its number.
    pub(super) fn id(&self) -> u32 {
        self.process.id()
    }

    /// Nothing, as long as it runs.
    ///
    /// # Errors
    /// Where it has ended: with what it said.
    pub(super) fn runs(&mut self) -> Result<(), Failure> {
        match self.process.try_wait() {
            Ok(Some(status)) => Err(ended(status, &self.said)),
            _ => Ok(()),
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        let id = i32::try_from(self.process.id())
            .ok()
            .and_then(Pid::from_raw);
        if let Some(id) = id
            && matches!(self.process.try_wait(), Ok(None))
            && kill_process(id, Signal::TERM).is_err()
        {
            // It may have ended meanwhile.
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

fn next_line(errors: &mut BufReader<std::process::ChildStderr>) -> Option<String> {
    let mut line = Vec::new();
    let read = errors.read_until(b'\n', &mut line).ok()?;
    (read > 0).then(|| String::from_utf8_lossy(&line).trim_end().to_owned())
}

/// The address that a line tells: `serving NAMES at http://ADDRESS after ...`.
fn serving_at(line: &str) -> Option<String> {
    let (_, rest) = line.strip_prefix("serving ")?.split_once(" at http://")?;
    Some(format!("http://{}", rest.split(' ').next()?))
}

fn keep(said: &Mutex<VecDeque<String>>, line: String) {
    let mut said = said.lock().unwrap_or_else(PoisonError::into_inner);
    if said.len() == LINES_KEPT {
        said.pop_front();
    }
    said.push_back(line);
}

fn ended(status: ExitStatus, said: &Mutex<VecDeque<String>>) -> Failure {
    let said = said.lock().unwrap_or_else(PoisonError::into_inner);
    let lines: Vec<String> = said.iter().map(|line| format!("\n  {line}")).collect();
    let message = format!(
        "the server that was to be measured ended ({status}):{}",
        lines.concat()
    );
    match status.code() {
        Some(3) => Failure::does_not_fit(message),
        Some(2) => Failure::usage(message),
        _ => Failure::failed(message),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_what_the_server_says() {
        let line = "serving a, b at http://127.0.0.1:4711 after 0.1 s, 3 MiB of 4 MiB granted";
        assert_eq!(serving_at(line), Some("http://127.0.0.1:4711".to_owned()));
        assert_eq!(serving_at("listening at http://127.0.0.1:1 soon"), None);
        assert_eq!(serving_at("note: no model given"), None);
    }
}
