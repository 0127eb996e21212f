//! When each span was, as Chrome's trace event format has it, which Perfetto reads too
//! (<https://perfetto.dev/docs/getting-started/other-formats>).

use std::io::{self, Write};

use super::ring::Event;

/// The last events of every thread.
#[derive(Clone, Debug, Default)]
pub struct Trace {
    pub(super) lanes: Vec<Lane>,
    pub(super) names: Vec<&'static str>,
}

/// Those of one thread.
#[derive(Clone, Debug)]
pub(super) struct Lane {
    pub(super) thread: String,
    pub(super) events: Vec<Event>,
    pub(super) lost: u64,
}

impl Trace {
    /// Events in it.
    pub fn events(&self) -> usize {
        self.lanes.iter().map(|lane| lane.events.len()).sum()
    }

    /// Older events that were overwritten.
    pub fn lost(&self) -> u64 {
        self.lanes.iter().map(|lane| lane.lost).sum()
    }

    /// Writes it as a JSON object with `traceEvents`; times are microseconds.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        let pid = std::process::id();
        write!(out, "{{\"displayTimeUnit\":\"ms\",\"traceEvents\":[")?;
        let mut between = "";
        for (tid, lane) in (1..).zip(&self.lanes) {
            write!(
                out,
                "{between}\n{{\"ph\":\"M\",\"name\":\"thread_name\",\"pid\":{pid},\"tid\":{tid},\"args\":{{\"name\":"
            )?;
            text(out, &lane.thread)?;
            write!(out, "}}}}")?;
            between = ",";
            for event in &lane.events {
                write!(out, ",\n{{\"pid\":{pid},\"tid\":{tid},\"ts\":")?;
                microseconds(out, event.at)?;
                write!(out, ",\"name\":")?;
                let name = self.names.get(event.series as usize);
                text(out, name.unwrap_or(&"unknown"))?;
                if let Some(took) = event.took {
                    write!(out, ",\"ph\":\"X\",\"dur\":")?;
                    microseconds(out, took)?;
                } else {
                    write!(out, ",\"ph\":\"C\"")?;
                }
                write!(out, ",\"args\":{{\"value\":{}}}}}", event.value)?;
            }
        }
        writeln!(out, "\n]}}")
    }
}

fn microseconds(out: &mut impl Write, nanoseconds: u64) -> io::Result<()> {
    write!(out, "{}.{:03}", nanoseconds / 1000, nanoseconds % 1000)
}

/// A JSON string.
fn text(out: &mut impl Write, text: &str) -> io::Result<()> {
    write!(out, "\"")?;
    for character in text.chars() {
        match character {
            '"' | '\\' => write!(out, "\\{character}")?,
            control if control < ' ' => write!(out, "\\u{:04x}", u32::from(control))?,
            other => write!(out, "{other}")?,
        }
    }
    write!(out, "\"")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_format_is_chromes() {
        let event = |at, took, series, value| Event {
            at,
            took,
            series,
            value,
        };
        let trace = Trace {
            lanes: vec![
                Lane {
                    thread: "a\"\\\n".to_owned(),
                    events: vec![event(1_234_567, Some(1_005), 0, 3), event(5, None, 1, 9)],
                    lost: 2,
                },
                Lane {
                    thread: "b".to_owned(),
                    events: Vec::new(),
                    lost: 0,
                },
            ],
            names: vec!["forward", "resident"],
        };
        assert_eq!((trace.events(), trace.lost()), (2, 2));
        let mut json = Vec::new();
        trace.write(&mut json).expect("memory takes all");
        let pid = std::process::id();
        let json = String::from_utf8(json)
            .expect("text")
            .replace(&pid.to_string(), "P");
        let want = [
            r#"{"displayTimeUnit":"ms","traceEvents":["#,
            r#"{"ph":"M","name":"thread_name","pid":P,"tid":1,"args":{"name":"a\"\\\u000a"}},"#,
            r#"{"pid":P,"tid":1,"ts":1234.567,"name":"forward","ph":"X","dur":1.005,"args":{"value":3}},"#,
            r#"{"pid":P,"tid":1,"ts":0.005,"name":"resident","ph":"C","args":{"value":9}},"#,
            r#"{"ph":"M","name":"thread_name","pid":P,"tid":2,"args":{"name":"b"}}"#,
            "]}\n",
        ];
        assert_eq!(json, want.join("\n"));
    }
}
