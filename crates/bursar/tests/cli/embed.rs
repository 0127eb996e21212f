//! Vectors, whole and continued.

use serde_json::Value;

use crate::support::{PROGRAM, Place, Ran, model};

const TEXTS: usize = 300;

fn texts() -> String {
    (0..TEXTS)
        .map(|n| format!("the keeper returned {n} letters at the mill\n"))
        .collect()
}

fn rows(text: &str) -> Vec<Value> {
    text.lines()
        .map(|line| serde_json::from_str(line).expect(line))
        .collect()
}

fn vector(row: &Value) -> Vec<f64> {
    let list = row["embedding"].as_array().expect("a list");
    list.iter()
        .map(|value| value.as_f64().expect("a number"))
        .collect()
}

/// T3
#[test]
fn lines_become_rows_in_their_order() {
    let place = Place::new();
    place.write("a.txt", "before dawn\n\nseven lamps\n");
    place.write("b.txt", "before dawn");
    let model = model("bert-mean");
    let ran = place
        .bursar_with(&[], &["embed", &model, "a.txt", "b.txt"])
        .ok();
    let rows = rows(&ran.stdout);
    let places: Vec<_> = rows
        .iter()
        .map(|row| {
            (
                row["index"].as_u64(),
                row["file"].as_str(),
                row["line"].as_u64(),
            )
        })
        .collect();
    let expected = [
        (Some(0), Some("a.txt"), Some(1)),
        (Some(1), Some("a.txt"), Some(3)),
        (Some(2), Some("b.txt"), Some(1)),
    ];
    assert_eq!(places, expected);
    assert_eq!(
        vector(&rows[0]),
        vector(&rows[2]),
        "the same text in another batch"
    );
    assert_ne!(vector(&rows[0]), vector(&rows[1]));

    let fed = place.bursar_fed("before dawn\n", &["embed", &model]).ok();
    assert_eq!(vector(&self::rows(&fed.stdout)[0]), vector(&rows[0]));
    let whole = place
        .bursar_with(&[], &["embed", &model, "--files", "b.txt", "a.txt"])
        .ok();
    let whole = self::rows(&whole.stdout);
    assert_eq!((whole.len(), vector(&whole[0])), (2, vector(&rows[0])));
}

#[test]
fn options_change_the_vectors() {
    let place = Place::new();
    place.write("a.txt", "before dawn\n");
    let model = model("bert-cls");
    let embed = |more: &[&str]| {
        let arguments: Vec<&str> = ["embed", &model, "a.txt"]
            .iter()
            .chain(more)
            .copied()
            .collect();
        place.bursar_with(&[], &arguments)
    };
    let plain = vector(&rows(&embed(&[]).ok().stdout)[0]);
    let query = vector(&rows(&embed(&["--prompt-name", "query"]).ok().stdout)[0]);
    assert_ne!(plain, query);
    let short = vector(&rows(&embed(&["--dimensions", "16"]).ok().stdout)[0]);
    assert_eq!(short.len(), 16);
    let unit = vector(&rows(&embed(&["--normalize"]).ok().stdout)[0]);
    let length: f64 = unit.iter().map(|value| value * value).sum();
    assert!((length - 1.0).abs() < 1e-6, "{length}");
    embed(&["--prompt-name", "poem"]).refused(2, &["\"poem\"", "query"]);
    embed(&["--dimensions", "65"]).refused(2, &["dimensions is 65", "1 to 64"]);
    embed(&["--format", "npy"]).refused(2, &["give -o"]);
}

/// Runs until the file is larger than a few dozen KiB, which the system then ends.
fn interrupted(place: &Place, output: &str) -> Ran {
    let mut command = place.command("/bin/sh");
    command.args([
        "-c",
        "ulimit -c 0; ulimit -f 60; exec \"$0\" \"$@\"",
        PROGRAM,
    ]);
    command.args(["embed", &model("bert-mean"), "texts.txt", "-o", output]);
    Ran::of(command.output().expect("the shell starts"))
}

#[test]
fn an_interrupted_run_is_continued_by_the_same_command() {
    for output in ["vectors.jsonl", "vectors.npy"] {
        let place = Place::new();
        place.write("texts.txt", &texts());
        let model = model("bert-mean");
        let embed = |output: &str, more: &[&str]| {
            let arguments = ["embed", &model, "texts.txt", "--json", "-o", output];
            let arguments: Vec<&str> = arguments.iter().chain(more).copied().collect();
            place.bursar_with(&[], &arguments)
        };
        let ran = interrupted(&place, output);
        assert_ne!(ran.code, Some(0), "{ran:?}");
        let (partial, state) = (format!("{output}.partial"), format!("{output}.state"));
        assert_eq!(
            place.names(),
            ["texts.txt", &partial, &state].map(String::from).as_slice()
        );

        // Other options would make other rows.
        let other = embed(output, &["--normalize"]);
        other.refused(
            2,
            &[
                "is the beginning of vectors from other options",
                "--restart",
            ],
        );

        let figures = embed(output, &[]).ok();
        assert!(figures.stderr.contains("continuing after"), "{figures:?}");
        let figures = figures.json();
        let resumed = figures["texts_resumed"].as_u64().expect("a count");
        assert!((1..TEXTS as u64).contains(&resumed), "{figures}");
        assert_eq!(figures["texts"], TEXTS);
        assert_eq!(
            place.names(),
            ["texts.txt", output].map(String::from).as_slice()
        );

        let whole = format!("whole-{output}");
        embed(&whole, &[]).ok();
        assert!(
            place.read(&whole) == place.read(output),
            "{output} differs from one go"
        );
    }
}

#[test]
fn arrays_are_as_numpy_reads_them() {
    let place = Place::new();
    place.write("a.txt", "before dawn\nseven lamps\n");
    let model = model("bert-mean");
    let ran = place
        .bursar_with(&[], &["embed", &model, "a.txt", "-o", "a.npy"])
        .ok();
    assert!(
        ran.stderr.contains("a.npy: 2 vectors of 64 values"),
        "{ran:?}"
    );
    let bytes = place.read("a.npy");
    assert!(bytes.starts_with(b"\x93NUMPY\x01\x00"));
    assert_eq!(bytes.len(), 128 + 2 * 64 * 4);
    let header = String::from_utf8_lossy(&bytes[10..128]).into_owned();
    assert!(
        header.contains("'<f4'") && header.contains("(2, 64)"),
        "{header}"
    );
    let lines = place.bursar_with(&[], &["embed", &model, "a.txt"]).ok();
    let first = vector(&rows(&lines.stdout)[0])[0] as f32;
    assert_eq!(bytes[128..132], first.to_le_bytes());
}
