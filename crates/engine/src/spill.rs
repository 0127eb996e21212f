//! Keys and values of preempted sequences on disk, and whether that is worth it.

use std::time::Duration;

use bursar_kv::{Slot, SpillFile};
use bursar_memory::Bytes;

use crate::EngineError;
use crate::options::SpillOptions;

/// What has been measured, each `None` before the first time.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub(crate) struct Rates {
    /// Tokens of prompts computed in a second.
    pub(crate) compute: Rate,
    /// Bytes written in a second.
    pub(crate) write: Rate,
    /// Bytes read in a second.
    pub(crate) read: Rate,
}

/// So much of something in a second, as measured lately.
#[derive(Copy, Clone, Debug, Default, PartialEq)]
pub(crate) struct Rate(Option<f64>);

impl Rate {
    /// So much took so long.
    pub(crate) fn observe(&mut self, amount: usize, time: Duration) {
        let now = amount as f64 / time.as_secs_f64().max(1e-9);
        self.0 = Some(match self.0 {
            None => now,
            Some(mean) => (mean * 3.0 + now) / 4.0,
        });
    }

    /// How long so much takes, in seconds; no time at all where nothing has been measured, so that
    /// it will be.
    fn seconds(self, amount: usize) -> f64 {
        self.0.map_or(0.0, |rate| amount as f64 / rate)
    }
}

/// Whether `bytes` are sooner written and read again than their `tokens` computed.
pub(crate) fn worth_spilling(rates: &Rates, bytes: usize, tokens: usize) -> bool {
    let moved = rates.write.seconds(bytes) + rates.read.seconds(bytes);
    let measured = rates.write.0.is_some() && rates.read.0.is_some();
    bytes > 0 && (!measured || moved < rates.compute.seconds(tokens))
}

/// A block of a sequence that is in the file.
#[derive(Debug)]
pub(crate) struct Spilled {
    /// The block's place in the sequence.
    pub(crate) index: usize,
    /// Tokens in it.
    pub(crate) tokens: usize,
    pub(crate) slot: Slot,
}

/// The file, and a block on its way into memory.
pub(crate) struct Spill {
    pub(crate) file: SpillFile,
    pub(crate) block: Vec<u8>,
}

impl Spill {
    /// A file for blocks of so many bytes.
    pub(crate) fn create(options: &SpillOptions, block_bytes: usize) -> Result<Self, EngineError> {
        let file = SpillFile::create(&options.dir, options.bytes, Bytes(block_bytes as u64))?;
        Ok(Self {
            file,
            block: vec![0; block_bytes],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rate(per_second: f64) -> Rate {
        Rate(Some(per_second))
    }

    #[test]
    fn the_cheaper_way_is_taken_once_both_are_known() {
        let second = Duration::from_secs(1);
        let mut rates = Rates::default();
        // Unknown: tried.
        assert!(worth_spilling(&rates, 1000, 1));
        rates.write.observe(1000, second);
        assert!(worth_spilling(&rates, 1000, 1), "reading is unknown");
        rates.read.observe(1000, second);
        rates.compute.observe(10, second);
        // Two seconds on disk for each thousand bytes, a second for ten tokens.
        assert!(worth_spilling(&rates, 1000, 21));
        assert!(!worth_spilling(&rates, 1000, 19));
        assert!(!worth_spilling(&rates, 0, 100), "nothing to write");
        // The mean follows what is measured.
        for _ in 0..50 {
            rates.read.observe(3000, second);
        }
        assert!(worth_spilling(&rates, 1000, 14));
        assert_eq!(rate(4.0).seconds(8), 2.0);
    }
}
