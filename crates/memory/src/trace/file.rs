//! A trace as data and as JSON: columns of numbers, so that ten thousand events are a hundred kilobytes.
//!
//! ```text
//! { "format": "bursar-trace-1", "lost_events": 0,
//!   "places":  ["crates/server/src/body.rs:41", ...],
//!   "blocks":  { "bytes": [4096, ...], "lifetime": [1, ...], "place": [0, ...] },
//!   "events":  { "after_us": [12, ...], "block": [0, ...] } }
//! ```
//!
//! An event's time is microseconds after the event before it. Of a block, the first event is its take,
//! the second its give; one that was never given has one. Lifetimes are numbered in the order of
//! [`Lifetime::ALL`].

use serde::{Deserialize, Serialize};

use crate::account::Lifetime;

const FORMAT: &str = "bursar-trace-1";

/// What was taken and given back, in the order in which it was.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// Events that came before and were overwritten.
    pub lost_events: u64,
    /// The places in the source that took blocks: `file:line`.
    pub places: Vec<String>,
    /// The blocks, in the order of their takes.
    pub blocks: Vec<TracedBlock>,
    /// Takes and gives. Times never fall.
    pub events: Vec<TraceEvent>,
}

/// A block that was taken.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct TracedBlock {
    /// Bytes asked for.
    pub bytes: u64,
    /// How long it was said to live.
    pub lifetime: Lifetime,
    /// Who took it: a number in [`Trace::places`].
    pub place: u32,
}

/// One take or give.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct TraceEvent {
    /// Microseconds since recording began.
    pub time_us: u64,
    /// A number in [`Trace::blocks`].
    pub block: u32,
    /// Whether it was given back.
    pub gives: bool,
}

/// Why a trace cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// It is not the JSON of a trace.
    #[error("this is no trace: {0}; `bursar serve --pool-record FILE` writes one")]
    Json(#[from] serde_json::Error),
    /// Another format.
    #[error("a trace of format '{0}' cannot be read, only of '{FORMAT}': record it again")]
    Format(String),
    /// Its parts contradict each other.
    #[error("the trace is damaged: {0}; record it again")]
    Damaged(String),
}

#[derive(Serialize, Deserialize)]
struct File {
    format: String,
    lost_events: u64,
    places: Vec<String>,
    blocks: BlockColumns,
    events: EventColumns,
}

#[derive(Default, Serialize, Deserialize)]
struct BlockColumns {
    bytes: Vec<u64>,
    lifetime: Vec<u8>,
    place: Vec<u32>,
}

#[derive(Default, Serialize, Deserialize)]
struct EventColumns {
    after_us: Vec<u64>,
    block: Vec<u32>,
}

impl Trace {
    /// Adds the take of a block, and says its number.
    pub(super) fn take(&mut self, time_us: u64, block: TracedBlock) -> u32 {
        // Fewer blocks than events of a ring, which fits the memory.
        let number = self.blocks.len() as u32;
        self.blocks.push(block);
        self.events.push(TraceEvent {
            time_us,
            block: number,
            gives: false,
        });
        number
    }

    /// Adds the give of a block.
    pub(super) fn give(&mut self, time_us: u64, block: u32) {
        self.events.push(TraceEvent {
            time_us,
            block,
            gives: true,
        });
    }

    /// Microseconds from the first event to the last.
    pub fn duration_us(&self) -> u64 {
        match (self.events.first(), self.events.last()) {
            (Some(first), Some(last)) => last.time_us - first.time_us,
            _ => 0,
        }
    }

    /// The first `events` events, and the blocks in them: what fits where a file must be short.
    pub fn truncate(&mut self, events: usize) {
        self.events.truncate(events);
        let takes = self.events.iter().filter(|event| !event.gives).count();
        self.blocks.truncate(takes);
    }

    /// As JSON, in one line.
    pub fn to_json(&self) -> String {
        let mut events = EventColumns::default();
        let mut before = self.events.first().map_or(0, |event| event.time_us);
        for event in &self.events {
            events.after_us.push(event.time_us - before);
            events.block.push(event.block);
            before = event.time_us;
        }
        let mut blocks = BlockColumns::default();
        for block in &self.blocks {
            blocks.bytes.push(block.bytes);
            blocks.lifetime.push(block.lifetime as u8);
            blocks.place.push(block.place);
        }
        let file = File {
            format: FORMAT.to_owned(),
            lost_events: self.lost_events,
            places: self.places.clone(),
            blocks,
            events,
        };
        serde_json::to_string(&file).expect("numbers and strings can be written as JSON")
    }

    /// Reads what [`Trace::to_json`] wrote; the first event is at time 0 then.
    ///
    /// # Errors
    /// Where it is no trace, or its parts contradict each other.
    pub fn from_json(text: &str) -> Result<Trace, TraceError> {
        let file: File = serde_json::from_str(text)?;
        if file.format != FORMAT {
            return Err(TraceError::Format(file.format));
        }
        let damaged = |what: &str, at: usize| TraceError::Damaged(format!("{what} {at}"));
        let BlockColumns {
            bytes,
            lifetime,
            place,
        } = file.blocks;
        if bytes.len() != lifetime.len() || bytes.len() != place.len() {
            return Err(damaged(
                "columns of blocks have different lengths after row",
                bytes.len().min(lifetime.len()).min(place.len()),
            ));
        }
        let mut trace = Trace {
            lost_events: file.lost_events,
            places: file.places,
            blocks: Vec::with_capacity(bytes.len()),
            events: Vec::with_capacity(file.events.block.len()),
        };
        for (at, ((bytes, lifetime), place)) in
            bytes.into_iter().zip(lifetime).zip(place).enumerate()
        {
            let lifetime = Lifetime::ALL.get(usize::from(lifetime)).copied();
            let known = (place as usize) < trace.places.len();
            trace.blocks.push(TracedBlock {
                bytes,
                lifetime: lifetime.ok_or_else(|| damaged("unknown lifetime of block", at))?,
                place: known
                    .then_some(place)
                    .ok_or_else(|| damaged("unknown place of block", at))?,
            });
        }
        let EventColumns { after_us, block } = file.events;
        if after_us.len() != block.len() {
            return Err(damaged(
                "columns of events have different lengths after row",
                after_us.len().min(block.len()),
            ));
        }
        let mut given: Vec<Option<bool>> = vec![None; trace.blocks.len()];
        let mut time_us = 0_u64;
        let mut taken = 0;
        for (at, (after, block)) in after_us.into_iter().zip(block).enumerate() {
            // The first one's time is where time begins.
            time_us = if at == 0 {
                0
            } else {
                time_us.saturating_add(after)
            };
            let state = given.get_mut(block as usize);
            let state = state.ok_or_else(|| damaged("unknown block in event", at))?;
            let gives = match *state {
                // Blocks are numbered in the order of their takes.
                None if block == taken => false,
                None => return Err(damaged("block taken out of order in event", at)),
                Some(false) => true,
                Some(true) => return Err(damaged("block given back twice in event", at)),
            };
            taken += u32::from(!gives);
            *state = Some(gives);
            trace.events.push(TraceEvent {
                time_us,
                block,
                gives,
            });
        }
        if let Some(never) = given.iter().position(Option::is_none) {
            return Err(damaged("no event takes block", never));
        }
        Ok(trace)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn trace() -> impl Strategy<Value = Trace> {
        let events = prop::collection::vec(
            (
                any::<bool>(),
                0..1_000_000_u64,
                any::<u64>(),
                0..4_usize,
                0..3_u32,
                any::<usize>(),
            ),
            0..60,
        );
        events.prop_map(|events| {
            let mut trace = Trace {
                lost_events: 3,
                places: vec!["a.rs:1".into(), "b \"quoted\".rs:2".into(), "c.rs:3".into()],
                ..Trace::default()
            };
            let mut out = Vec::new();
            let mut time_us = 0;
            for (take, after, bytes, lifetime, place, pick) in events {
                // The first event of a file is its time 0.
                time_us += if trace.events.is_empty() { 0 } else { after };
                if take || out.is_empty() {
                    let lifetime = Lifetime::ALL[lifetime];
                    out.push(trace.take(
                        time_us,
                        TracedBlock {
                            bytes,
                            lifetime,
                            place,
                        },
                    ));
                } else {
                    let block = out.swap_remove(pick % out.len());
                    trace.give(time_us, block);
                }
            }
            trace
        })
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..Default::default() })]

        #[test]
        fn a_trace_is_read_as_it_was_written(trace in trace(), events in 0..60_usize) {
            prop_assert_eq!(&Trace::from_json(&trace.to_json()).unwrap(), &trace);
            let mut shorter = trace;
            shorter.truncate(events);
            prop_assert_eq!(&Trace::from_json(&shorter.to_json()).unwrap(), &shorter);
        }

        #[test]
        fn a_damaged_trace_is_an_error(trace in trace(), at in any::<usize>(), digit in 0..10_u8) {
            let mut text = trace.to_json().into_bytes();
            let at = at % text.len();
            text[at] = b'0' + digit;
            // Whatever it is now, reading it does not panic, and what is read can be written.
            if let Ok(read) = Trace::from_json(&String::from_utf8(text).unwrap()) {
                prop_assert_eq!(&Trace::from_json(&read.to_json()).unwrap(), &read);
            }
        }
    }

    #[test]
    fn what_contradicts_itself_is_named() {
        let check = |blocks: &str, events: &str, says: &str| {
            let text = format!(
                r#"{{"format":"bursar-trace-1","lost_events":0,"places":["a.rs:1"],
                    "blocks":{blocks},"events":{events}}}"#
            );
            let error = Trace::from_json(&text).unwrap_err().to_string();
            assert!(error.contains(says), "{error}");
        };
        let blocks = r#"{"bytes":[1,2],"lifetime":[0,3],"place":[0,0]}"#;
        check(
            blocks,
            r#"{"after_us":[0],"block":[]}"#,
            "events have different",
        );
        check(
            blocks,
            r#"{"after_us":[0],"block":[2]}"#,
            "unknown block in event 0",
        );
        check(
            blocks,
            r#"{"after_us":[0],"block":[1]}"#,
            "out of order in event 0",
        );
        check(
            blocks,
            r#"{"after_us":[0,1,1],"block":[0,0,0]}"#,
            "twice in event 2",
        );
        check(
            blocks,
            r#"{"after_us":[0],"block":[0]}"#,
            "no event takes block 1",
        );
        let blocks = r#"{"bytes":[1],"lifetime":[4],"place":[0]}"#;
        check(
            blocks,
            "{\"after_us\":[],\"block\":[]}",
            "lifetime of block 0",
        );
        let blocks = r#"{"bytes":[1],"lifetime":[0],"place":[1]}"#;
        check(blocks, "{\"after_us\":[],\"block\":[]}", "place of block 0");
        assert!(Trace::from_json("[]").is_err());
        let other = Trace::default().to_json().replace("trace-1", "trace-9");
        assert!(matches!(
            Trace::from_json(&other),
            Err(TraceError::Format(_))
        ));
    }
}
