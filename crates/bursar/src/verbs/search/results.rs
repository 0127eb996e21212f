//! What a search prints: pieces with their places, as text or as JSON.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use bursar_engine::Embedder;
use bursar_memory::{Bytes, Ledger};
use bursar_profile::Probe;
use bursar_search::chunk::dedent;
use bursar_search::{Hit, Index, Language, Reader, Unread};
use serde_json::{Value, json};

use crate::failure::Failure;
use crate::output::{Out, grouped};
use crate::progress::duration;

/// What a search came to.
#[derive(Debug, Default)]
pub(super) struct Figures {
    /// Files searched.
    pub(super) files: usize,
    /// Files not searched, by reason.
    pub(super) passed_over: BTreeMap<Unread, usize>,
    /// Vectors found on disk.
    pub(super) kept: usize,
    /// Vectors made.
    pub(super) embedded: usize,
    /// Pieces that changed while they were searched.
    pub(super) changed: usize,
    /// Time that making vectors took.
    pub(super) embed_seconds: f64,
    seconds: f64,
    plan: Bytes,
    budget: Bytes,
    granted: Bytes,
}

impl Figures {
    /// Adds what is known at the end.
    pub(super) fn finish(
        &mut self,
        begun: Instant,
        embedder: &Embedder,
        index: &Index,
        ledger: &Ledger,
    ) {
        self.seconds = begun.elapsed().as_secs_f64();
        self.plan = embedder.plan().total().saturating_add(index.granted());
        self.budget = ledger.budget();
        self.granted = ledger.granted();
    }

    /// In one line: what was searched, what of it was new.
    fn summary(&self, pieces: usize) -> String {
        let mut line = format!(
            "{} pieces of {} files, {} from the cache, {} embedded in {}",
            grouped(pieces as u64),
            grouped(self.files as u64),
            grouped(self.kept as u64),
            grouped(self.embedded as u64),
            duration(self.embed_seconds),
        );
        if !self.passed_over.is_empty() {
            let words = |(why, count): (&Unread, &usize)| format!("{count} {}", why.name());
            let words: Vec<String> = self.passed_over.iter().map(words).collect();
            line.push_str(&format!("; passed over: {}", words.join(", ")));
        }
        if self.changed > 0 {
            line.push_str(&format!(
                "; {} changed meanwhile",
                grouped(self.changed as u64)
            ));
        }
        line
    }
}

/// What is shown of what was found.
pub(super) struct Shown<'a> {
    pub(super) index: &'a Index,
    /// Most lines of a piece.
    pub(super) lines: usize,
    pub(super) query: &'a str,
    pub(super) model: &'a Path,
}

/// A piece as it is shown.
struct Piece<'a> {
    path: &'a Path,
    /// Counted from 1, both included.
    line: u32,
    last: u32,
    score: f32,
    text: String,
}

impl Shown<'_> {
    fn piece(&self, hit: &Hit, reader: &mut Reader) -> Piece<'_> {
        let entry = &self.index.entries()[hit.entry];
        let path = &self.index.files()[entry.file as usize];
        let start = entry.start as usize;
        let read = reader.read(path).ok();
        let text = read.and_then(|text| text.get(start..start + entry.len as usize));
        Piece {
            path,
            line: entry.line + 1,
            last: entry.line + entry.lines,
            score: hit.score,
            text: text.map(dedent).unwrap_or_default(),
        }
    }

    /// Prints places and beginnings; what was searched goes to stderr.
    pub(super) fn text(
        &self,
        hits: &[Hit],
        reader: &mut Reader,
        figures: &Figures,
    ) -> Result<(), Failure> {
        let mut out = Out::new();
        for (number, hit) in hits.iter().enumerate() {
            let piece = self.piece(hit, reader);
            if number > 0 {
                out.line("")?;
            }
            let path = piece.path.display();
            out.line(format!("{path}:{}  {:.3}", piece.line, piece.score))?;
            for line in piece.text.lines().take(self.lines) {
                out.line(format!("    {line}").trim_end())?;
            }
            let more = piece.text.lines().count().saturating_sub(self.lines);
            if more > 0 && self.lines > 0 {
                out.line(format!("    ... {more} more lines"))?;
            }
        }
        out.flush()?;
        eprintln!("{}", figures.summary(self.index.entries().len()));
        Ok(())
    }

    /// Prints everything as one object.
    pub(super) fn json(
        &self,
        hits: &[Hit],
        reader: &mut Reader,
        figures: &Figures,
    ) -> Result<(), Failure> {
        let result = |hit: &Hit| {
            let piece = self.piece(hit, reader);
            json!({
                "path": piece.path.to_string_lossy(),
                "line": piece.line,
                "last_line": piece.last,
                "language": Language::of(piece.path).name(),
                "score": f64::from(piece.score),
                "text": piece.text,
            })
        };
        let results: Vec<Value> = hits.iter().map(result).collect();
        let passed_over: serde_json::Map<String, Value> = figures
            .passed_over
            .iter()
            .map(|(why, count)| (why.name().to_owned(), json!(count)))
            .collect();
        let process = Probe::default().process();
        let mut out = Out::new();
        out.json(&json!({
            "query": self.query,
            "model": self.model.to_string_lossy(),
            "results": results,
            "files": figures.files,
            "files_passed_over": passed_over,
            "pieces": self.index.entries().len(),
            "vectors_kept": figures.kept,
            "vectors_made": figures.embedded,
            "embed_seconds": figures.embed_seconds,
            "seconds": figures.seconds,
            "plan_bytes": figures.plan.get(),
            "budget_bytes": figures.budget.get(),
            "granted_bytes": figures.granted.get(),
            "rss_peak_bytes": process.and_then(|process| process.hwm_bytes),
        }))?;
        out.flush()
    }
}
