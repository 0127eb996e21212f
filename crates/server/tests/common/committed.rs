//! Pages of the reference that tests write: the committed one says the same, or is written anew.

use std::path::Path;

/// Compares `docs/reference/NAME` with `text`, or writes it where the variable is set; `stale` says how.
pub(crate) fn compare(name: &str, text: &str, variable: &str, stale: &str) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/reference");
    let page = folder.join(name);
    if std::env::var_os(variable).is_some() {
        std::fs::write(&page, text).unwrap();
        return;
    }
    let there = std::fs::read_to_string(&page).unwrap_or_default();
    for (line, (there, now)) in (1..).zip(there.lines().zip(text.lines())) {
        assert_eq!(there, now, "line {line}: {stale}");
    }
    assert_eq!(there.len(), text.len(), "{stale}");
}
