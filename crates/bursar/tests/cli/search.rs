//! Pieces of files, found and kept.

use serde_json::Value;

use crate::support::{Place, Ran, model};

const LIB: &str = "\
/// Opens the door before dawn.
pub fn open_door() {
    let keeper = 1;
}

/// Counts the lamps at the mill.
pub fn count_lamps() -> usize {
    7
}
";

fn place() -> Place {
    let place = Place::new();
    place.write(".gitignore", "ignored.rs\n");
    place.write("src/lib.rs", LIB);
    place.write(
        "src/ignored.rs",
        "fn ignored_by_everyone() { let x = 1; }\n",
    );
    place.write(
        "notes.md",
        "# Letters\n\nThe keeper returned seven letters.\n",
    );
    place.write("data.bin", "\0\0\0\0");
    place
}

fn search(place: &Place, more: &[&str]) -> Ran {
    let model = model("bert-mean");
    let arguments: Vec<&str> = ["search", "--model", &model]
        .iter()
        .chain(more)
        .copied()
        .collect();
    place.bursar_with(&[], &arguments)
}

fn places(found: &Value) -> Vec<String> {
    let results = found["results"].as_array().expect("a list");
    let place = |result: &Value| {
        let path = result["path"].as_str().expect("a path");
        format!("{path}:{}", result["line"])
    };
    results.iter().map(place).collect()
}

#[test]
fn pieces_are_found_with_their_places() {
    let place = place();
    // What is the same word for word is nearest in any model.
    let query = LIB
        .split("\n\n")
        .nth(1)
        .expect("a second function")
        .trim_end();
    let ran = search(&place, &[query, "--json"]).ok();
    let found = ran.json();
    assert_eq!(places(&found)[0], "src/lib.rs:6");
    assert_eq!(found["results"][0]["last_line"], 9);
    assert_eq!(found["results"][0]["language"], "rust");
    assert_eq!(found["results"][0]["text"], query);
    assert!(
        found["results"][0]["score"].as_f64() > Some(0.999),
        "{found}"
    );
    let mut all = places(&found);
    all.sort();
    assert_eq!(all, ["notes.md:1", "src/lib.rs:1", "src/lib.rs:6"]);
    assert_eq!(found["files"], 2);
    assert_eq!(found["files_passed_over"], serde_json::json!({"binary": 1}));

    let ran = search(&place, &[query, "src", "--limit", "1", "--lines", "2"]).ok();
    let expected = "\
src/lib.rs:6  1.000
    /// Counts the lamps at the mill.
    pub fn count_lamps() -> usize {
    ... 2 more lines
";
    assert_eq!(ran.stdout, expected);
    assert!(ran.stderr.contains("2 pieces of 1 files"), "{ran:?}");
    let ran = search(&place, &[query, "src/ignored.rs", "--json"]).ok();
    assert_eq!(places(&ran.json()), ["src/ignored.rs:1"]);
}

#[test]
fn a_second_search_embeds_only_what_changed() {
    let place = place();
    let counts = |more: &[&str]| {
        let arguments: Vec<&str> = ["lamps", "--json"].iter().chain(more).copied().collect();
        let found = search(&place, &arguments).ok().json();
        (
            found["vectors_kept"].as_u64(),
            found["vectors_made"].as_u64(),
        )
    };
    assert_eq!(counts(&["--no-cache"]), (Some(0), Some(3)));
    assert_eq!(counts(&[]), (Some(0), Some(3)));
    assert_eq!(counts(&[]), (Some(3), Some(0)));
    // Moved, but the same.
    place.write("src/lib.rs", &format!("\n\n{}", LIB.replace("7", "8")));
    assert_eq!(counts(&[]), (Some(2), Some(1)));
    place.write("src/lib.rs", LIB);
    assert_eq!(counts(&["src"]), (Some(2), Some(0)));

    let folder = place.path(".cache/bursar/search");
    let kept: Vec<_> = std::fs::read_dir(folder).expect("the cache").collect();
    assert_eq!(kept.len(), 1);
    let path = kept[0].as_ref().expect("an entry").path();
    let mut bytes = std::fs::read(&path).expect("the vectors");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&path, bytes).expect("written");
    let ran = search(&place, &["lamps", "--json"]).ok();
    assert!(ran.stderr.contains("its checksum is wrong"), "{ran:?}");
    assert_eq!(ran.json()["vectors_made"], 3);
    assert_eq!(counts(&[]), (Some(3), Some(0)));
}

/// B1
#[test]
fn searching_stays_within_its_plan() {
    let place = place();
    for number in 0..40 {
        let text = LIB.replace("lamps", &format!("lamps_{number}"));
        place.write(&format!("src/made_{number}.rs"), &text);
    }
    let found = search(&place, &["lamps", "--json", "--no-cache"])
        .ok()
        .json();
    let bytes = |name: &str| found[name].as_u64().expect(name);
    assert!(bytes("vectors_made") > 40);
    assert!(bytes("granted_bytes") <= bytes("budget_bytes"), "{found}");
    assert!(bytes("rss_peak_bytes") <= bytes("granted_bytes"), "{found}");
}

#[test]
fn what_cannot_be_searched_is_said() {
    let place = place();
    search(&place, &["lamps", "nowhere"]).refused(1, &["cannot search nowhere"]);
    search(&place, &["  "]).refused(2, &["nothing to look for"]);
    search(&place, &["lamps", "--memory", "16MiB"]).refused(3, &["--memory"]);
    place
        .bursar("search lamps --model none")
        .refused(1, &["there is no model none"]);
}
