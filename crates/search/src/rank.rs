//! The pieces nearest to a question, by the cosine of their vectors: exhaustive, because comparing a
//! hundred thousand takes less time than reading their files.

use std::cmp::Ordering;

use half::f16;
use half::slice::HalfFloatSliceExt;

use crate::index::Index;

/// A piece that was found.
#[derive(Copy, Clone, Debug, PartialEq)]
pub struct Hit {
    /// Index into [`Index::entries`].
    pub entry: usize,
    /// Cosine of the angle between its vector and the question's, -1 to 1.
    pub score: f32,
}

/// The `limit` pieces nearest to `question`, nearest first; of equal ones the earlier first. Pieces
/// without a vector are not found. Vectors need not have length 1.
pub fn best(index: &Index, question: &[f32], limit: usize) -> Vec<Hit> {
    let scores = scores(index, question);
    let mut hits: Vec<Hit> = Vec::with_capacity(limit.saturating_add(1).min(index.entries().len()));
    let nearer = |a: &Hit, b: &Hit| {
        let order = b.score.partial_cmp(&a.score).unwrap_or(Ordering::Equal);
        order.then(a.entry.cmp(&b.entry))
    };
    for (entry, piece) in index.entries().iter().enumerate() {
        let row = piece.row as usize;
        if !index.is_filled(row) {
            continue;
        }
        let hit = Hit {
            entry,
            score: scores[row],
        };
        let at = hits.partition_point(|other| nearer(other, &hit) == Ordering::Less);
        if at < limit {
            hits.insert(at, hit);
            hits.truncate(limit);
        }
    }
    hits
}

/// The cosine for each row.
fn scores(index: &Index, question: &[f32]) -> Vec<f32> {
    let length = |values: &[f32]| values.iter().map(|value| value * value).sum::<f32>().sqrt();
    let asked = length(question).max(f32::MIN_POSITIVE);
    let mut halves = vec![f16::ZERO; index.dimensions()];
    let mut values = vec![0.0f32; index.dimensions()];
    let score = |row: usize| {
        for (half, bytes) in halves.iter_mut().zip(index.row(row).chunks_exact(2)) {
            *half = f16::from_le_bytes([bytes[0], bytes[1]]);
        }
        halves.convert_to_f32_slice(&mut values);
        let product: f32 = values.iter().zip(question).map(|(a, b)| a * b).sum();
        product / (asked * length(&values).max(f32::MIN_POSITIVE))
    };
    (0..index.rows()).map(score).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::index::tests::{index, key};
    use bursar_memory::{Bytes, Ledger};

    #[test]
    fn the_nearest_come_first() {
        let ledger = Ledger::new(Bytes(1 << 20));
        let mut index = index(&["east", "north", "west", "east", "none"], 2, &ledger);
        for (content, vector) in [
            ("east", [2.0, 0.0]),
            ("north", [0.0, 1.0]),
            ("west", [-1.0, 0.0]),
        ] {
            let row = index.row_of(&key(content)).unwrap();
            index.fill(row, &vector);
        }
        let found = |limit| -> Vec<(usize, f32)> {
            let hits = best(&index, &[3.0, 0.1], limit);
            hits.iter().map(|hit| (hit.entry, hit.score)).collect()
        };
        let all = found(10);
        let order: Vec<usize> = all.iter().map(|hit| hit.0).collect();
        assert_eq!(
            order,
            [0, 3, 1, 2],
            "equal ones in their order, none without a vector"
        );
        assert!((all[0].1 - 0.999_445).abs() < 1e-4, "{all:?}");
        assert!((all[3].1 + 0.999_445).abs() < 1e-4, "{all:?}");
        assert_eq!(found(2), all[..2]);
        assert_eq!(found(0), []);
    }
}
