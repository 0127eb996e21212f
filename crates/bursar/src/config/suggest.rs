//! What a mistyped name may have meant.

/// The candidate nearest to `typed`, if it is near enough to be worth suggesting: at most a third
/// of its letters away.
pub(crate) fn nearest<'a>(
    typed: &str,
    candidates: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    candidates
        .into_iter()
        .map(|candidate| (distance(typed, candidate), candidate))
        .filter(|(distance, candidate)| *distance <= (candidate.chars().count() / 3).max(1))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Edits (insertion, deletion, replacement, swap of neighbours) from one name to the other,
/// letter case aside: the optimal string alignment distance.
fn distance(a: &str, b: &str) -> usize {
    // A name longer than this is no slip of the finger, and the table below is quadratic.
    const LETTERS_MAX: usize = 100;
    let letters = |name: &str| {
        name.chars()
            .flat_map(char::to_lowercase)
            .collect::<Vec<_>>()
    };
    let (a, b) = (letters(a), letters(b));
    if a.len() > LETTERS_MAX || b.len() > LETTERS_MAX {
        return usize::MAX;
    }
    // rows[i][j]: edits from the first i letters of `a` to the first j letters of `b`.
    let mut rows = vec![vec![0; b.len() + 1]; a.len() + 1];
    for (i, row) in rows.iter_mut().enumerate() {
        row[0] = i;
    }
    rows[0] = (0..=b.len()).collect();
    for i in 1..=a.len() {
        for j in 1..=b.len() {
            let replace = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replace.min(rows[i - 1][j] + 1).min(rows[i][j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            rows[i][j] = best;
        }
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(typed: &str, expected: Option<&str>) {
        let names = ["memory", "context", "kv.dtype", "kv.memory", "isa"];
        assert_eq!(nearest(typed, names), expected, "{typed}");
    }

    #[test]
    fn slips_are_recognised_and_other_words_are_not() {
        check("memroy", Some("memory"));
        check("Memory", Some("memory"));
        check("kv.dtpye", Some("kv.dtype"));
        check("kv_dtype", Some("kv.dtype"));
        check("contxt", Some("context"));
        check("ias", Some("isa"));
        check("temperature", None);
        check("", None);
        check(&"m".repeat(10_000), None);
    }
}
