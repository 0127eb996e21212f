//! The models that come with the program.

use std::path::Path;

use serde_json::Value;

use crate::support::Place;

/// What `tools/pocket/golden.sh` has written beside the models.
fn golden() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models/golden.json");
    let text = std::fs::read_to_string(path).expect("models/golden.json");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn fixed_texts_give_their_golden_tokens_and_vectors() {
    let place = Place::new();
    let golden = golden();
    let text = |name: &str| golden[name].as_str().expect(name);
    let ran = place.bursar_with(
        &[],
        &[
            "run",
            "pocket-chat",
            text("prompt"),
            "--raw",
            "--temperature",
            "0",
            "--max-tokens",
            "24",
            "--json",
        ],
    );
    assert_eq!(ran.ok().json()["text"], golden["text"]);

    let embed = ["embed", "pocket-embed", "-"];
    let ran = place.bursar_fed(text("embedded"), &embed).ok();
    let expected = golden["vector"].as_array().expect("a list");
    let vector = ran.json()["embedding"].clone();
    for (at, value) in expected.iter().enumerate() {
        let (value, found) = (value.as_f64(), vector[at].as_f64());
        let apart = value.zip(found).map(|(a, b)| (a - b).abs());
        assert!(
            apart < Some(1e-5),
            "value {at}: {found:?} instead of {value:?}"
        );
    }
}

/// B1
#[test]
fn without_a_model_the_bundled_ones_answer_within_their_plans() {
    let place = Place::new();
    let within = |found: &Value| {
        let bytes = |name: &str| found[name].as_u64().expect(name);
        // Bytes of the program are read as a file is: counted once, as weights.
        assert!(bytes("rss_peak_bytes") <= bytes("granted_bytes"), "{found}");
    };
    let ran = place.bursar_with(
        &[],
        &[
            "run",
            "What does Vec::push do?",
            "--max-tokens",
            "8",
            "--json",
        ],
    );
    let ran = ran.ok();
    assert!(
        ran.stderr.contains("the small bundled pocket-chat"),
        "{ran:?}"
    );
    assert_ne!(ran.json()["text"], "");
    within(&ran.json());

    place.write(
        "a.rs",
        "/// Opens the door.\npub fn open_door() {\n    let keeper = 1;\n}\n",
    );
    let ran = place
        .bursar_with(&[], &["search", "open a door", "--json"])
        .ok();
    assert!(
        ran.stderr.contains("the small bundled pocket-embed"),
        "{ran:?}"
    );
    assert_eq!(ran.json()["results"][0]["path"], "a.rs");
    within(&ran.json());

    let ran = place
        .bursar_fed("open a door\n", &["embed", "-o", "a.npy", "--json"])
        .ok();
    assert_eq!(ran.json()["texts"], 1);
    within(&ran.json());
}

#[test]
fn bundled_models_have_names() {
    let place = Place::new();
    for name in ["pocket-chat", "pocket-embed"] {
        let shown = place.bursar(&format!("show {name} --json")).ok().json();
        assert_eq!(shown["path"], name);
        place.bursar(&format!("plan {name} --memory 64MiB")).ok();
    }
    // Both at once, with all that serving takes.
    place
        .bursar("serve --memory 24MiB --listen 127.0.0.1:0")
        .refused(3, &["--memory"]);
    place
        .bursar("run pocket-embed Hi")
        .refused(1, &["only makes vectors"]);
}
