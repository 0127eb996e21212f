//! What the process itself takes beside models: code, stacks, the small heap. Measured, once the
//! tokenizer stands, because nothing else of it is known in advance.

use bursar_memory::Bytes;
use bursar_profile::Probe;

use crate::EngineError;

/// Stack that a worker or the main thread touches at most in a step, measured on 256 KiB stacks
/// and rounded up.
const STACK_BYTES: u64 = 128 << 10;
/// Small heap that grows after the plan: token lists, text, batch tables, output buffers.
const HEAP_GROWTH_BYTES: u64 = 2 << 20;

/// The process's own bytes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ProcessBase {
    /// Anonymous memory now: heap (tokenizer included), stacks, relocated data.
    pub resident: Bytes,
    /// The program and its libraries, every page of them but those that are anonymous by now.
    pub code: Bytes,
    /// What will still come: stacks and small heap.
    pub growth: Bytes,
    /// Bundled models, which are part of the program but no code: read as files are, and counted as
    /// weights when they have been.
    pub bundled: &'static [&'static [u8]],
    /// Bytes that are there already of the arena that all models of an engine share: a plan counts what
    /// it has to grow by. `None` for a model with an arena of its own, through which it is loaded, too.
    pub arena: Option<Bytes>,
}

impl ProcessBase {
    /// Measures this process. Call it after the tokenizer is built and freed memory has been given
    /// back, before anything else is loaded.
    pub fn measure() -> Result<Self, EngineError> {
        Self::read(&Probe::default())
    }

    /// Measures through a probe.
    pub fn read(probe: &Probe) -> Result<Self, EngineError> {
        let missing = |path: &str| EngineError::Probe {
            path: path.to_owned(),
            remedy: "mount /proc; without it no plan can be exact",
        };
        let process = probe
            .process()
            .ok_or_else(|| missing("/proc/self/status"))?;
        let code = probe.code().ok_or_else(|| missing("/proc/self/smaps"))?;
        let anonymous = process
            .rss_anon_bytes
            .unwrap_or_else(|| process.rss_bytes.saturating_sub(code.resident_bytes));
        Ok(Self {
            resident: Bytes(anonymous),
            // A page that has been written is a copy, and counted as such.
            code: Bytes(code.mapped_bytes.saturating_sub(code.written_bytes)),
            growth: Bytes(HEAP_GROWTH_BYTES),
            bundled: &[],
            arena: None,
        })
    }

    /// The same without the pages of models that are bundled with the program.
    pub fn beside(self, bundled: &'static [&'static [u8]]) -> Self {
        let pages = bursar_memory::program::pages_of(bundled);
        Self {
            code: self.code.saturating_sub(pages),
            bundled,
            ..self
        }
    }

    /// The same with the stacks of `threads` threads.
    pub fn with_threads(self, threads: usize) -> Self {
        let stacks = STACK_BYTES.saturating_mul(threads as u64);
        Self {
            growth: Bytes(HEAP_GROWTH_BYTES + stacks),
            ..self
        }
    }

    /// The same beside the shared arena of an engine, of which `bytes` are there.
    pub fn with_arena(self, bytes: Bytes) -> Self {
        Self {
            arena: Some(bytes),
            ..self
        }
    }

    /// The same without `bytes` that are there now but will not be when the model runs.
    pub fn without(self, bytes: Bytes) -> Self {
        Self {
            resident: self.resident.saturating_sub(bytes),
            ..self
        }
    }

    /// All of it.
    pub fn bytes(&self) -> Bytes {
        self.resident
            .saturating_add(self.code)
            .saturating_add(self.growth)
    }

    /// What it is made of, in words.
    pub fn note(&self) -> String {
        format!(
            "code and libraries {}, {} for stacks and small heap to come, the rest measured now",
            self.code, self.growth
        )
    }
}
