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

/// T3: killed three times at any place, then run to its end: the same bytes as in one go.
#[test]
fn a_killed_run_loses_nothing_and_repeats_nothing() {
    const LINES: usize = 6000;
    let place = Place::new();
    let texts: String = (0..LINES)
        .map(|n| format!("letter {n} of {}\n", n % 97))
        .collect();
    place.write("texts.txt", &texts);
    let model = model("bert-mean");
    let arguments = |output| ["embed", &model, "texts.txt", "--json", "-o", output];
    let whole = place.bursar_with(&[], &arguments("whole.npy")).ok().json();
    assert_eq!(whole["texts_resumed"], 0);

    let partial = place.path("killed.npy.partial");
    let mut rows = 0;
    for part in 1..=3_u64 {
        let enough = place.read("whole.npy").len() as u64 * part / 5;
        let mut command = place.command(PROGRAM);
        command.args(arguments("killed.npy"));
        command.stdout(std::process::Stdio::null());
        command.stderr(std::process::Stdio::null());
        let mut child = command.spawn().expect("the program starts");
        while std::fs::metadata(&partial).map_or(0, |file| file.len()) < enough {
            let ended = child.try_wait().expect("a child of ours");
            assert_eq!(ended, None, "it ended before it could be killed");
            std::thread::yield_now();
        }
        // SIGKILL.
        child.kill().expect("killed");
        child.wait().expect("waited for");
        let found = std::fs::metadata(&partial).expect("rows").len() / (64 * 4);
        assert!(found > rows, "{found} rows after {rows}");
        rows = found;
    }
    let ran = place.bursar_with(&[], &arguments("killed.npy")).ok();
    let resumed = ran.json()["texts_resumed"].as_u64().expect("a count");
    // The header takes half a row.
    assert!(resumed >= rows - 1, "{resumed} of {rows} rows were kept");
    assert_eq!(ran.json()["texts"], LINES);
    assert!(place.read("whole.npy") == place.read("killed.npy"));
}

#[test]
fn the_size_of_batches_changes_no_vector() {
    let place = Place::new();
    place.write("texts.txt", &texts());
    let model = model("bert-mean");
    let embed = |output: &str, more: &[&str]| {
        let arguments = ["embed", &model, "texts.txt", "--json", "-o", output];
        let arguments: Vec<&str> = arguments.iter().chain(more).copied().collect();
        place.bursar_with(&[], &arguments)
    };
    let usual = embed("usual.npy", &[]).ok().json();
    for (name, more) in [
        ("few.npy", ["--max-batch", "3"]),
        ("large.npy", ["--batch-memory", "16MiB"]),
        ("long.npy", ["--batch-tokens", "4096"]),
    ] {
        let figures = embed(name, &more).ok().json();
        assert!(place.read(name) == place.read("usual.npy"), "{name}");
        let passes = |figures: &Value| figures["batches"].as_u64().expect("a count");
        match name {
            "few.npy" => assert_eq!(passes(&figures), TEXTS as u64 / 3),
            _ => assert!(passes(&figures) < passes(&usual), "{figures}"),
        }
    }
    embed("small.npy", &["--batch-memory", "8KiB"])
        .refused(2, &["batch-memory is 8.0 KiB", "one text of", "--context"]);
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

/// T1, T8
#[test]
fn weights_take_the_form_and_the_place_that_are_asked_for() {
    let place = Place::new();
    place.write("texts.txt", &texts());
    let embed = |name: &str, more: &str| {
        let model = model(name);
        let ran = place
            .bursar(&format!("embed {model} texts.txt {more}"))
            .ok();
        (ran.stdout, ran.stderr)
    };
    let (plain, _) = embed("bert-mean", "");
    // Another place gives the same vectors, another form others that are close.
    let (streamed, _) = embed("bert-mean", "--weights-residency streamed");
    assert_eq!(streamed, plain);
    let (smaller, said) = embed("bert-mean", "--weights-dtype q8_0");
    assert!(!said.contains("note:"), "it was asked for: {said}");
    assert_ne!(smaller, plain);
    for (a, b) in rows(&plain).iter().zip(&rows(&smaller)) {
        let (a, b) = (vector(a), vector(b));
        let cosine: f64 = a.iter().zip(&b).map(|(a, b)| a * b).sum();
        assert!(cosine > 0.99, "{cosine}");
    }
    let (same, said) = embed("qwen3-embedding.gguf", "--weights-dtype auto");
    assert_eq!((same, said), embed("qwen3-embedding.gguf", ""), "it fits");

    // A run that is continued makes the same vectors, or is another run.
    assert_ne!(interrupted(&place, "out.jsonl").code, Some(0));
    let bert = model("bert-mean");
    let again = |more: &str| place.bursar(&format!("embed {bert} texts.txt -o out.jsonl {more}"));
    again("--weights-dtype q8_0").refused(2, &["is the beginning of vectors from another model"]);
    again("--weights-residency streamed").ok();
    assert!(
        place
            .read("out.jsonl")
            .starts_with(&plain.as_bytes()[..100])
    );
}
