//! Where settings come from, and which one holds.

use serde_json::json;

use crate::support::Place;

#[test]
fn flag_beats_environment_beats_file_beats_default() {
    let place = Place::new();
    place.write(
        "bursar.toml",
        "memory = '1GiB'\ncontext = 1024\nparallel = 3\n\n[kv]\ndtype = 'f32'\n",
    );
    let variables = [("BURSAR_MEMORY", "2GiB"), ("BURSAR_CONTEXT", "2048")];
    let ran = place
        .bursar_with(&variables, &["config", "--json", "--memory", "3GiB"])
        .ok();
    let settings = &ran.json()["settings"];
    assert_eq!(
        settings["memory"],
        json!({ "value": 3u64 << 30, "from": "flag", "flag": "--memory" })
    );
    assert_eq!(
        settings["context"],
        json!({ "value": 2048, "from": "environment", "variable": "BURSAR_CONTEXT" })
    );
    assert_eq!(
        settings["kv.dtype"],
        json!({ "value": "f32", "from": "file", "path": "bursar.toml", "line": 6 })
    );
    assert_eq!(settings["kv.block_tokens"]["from"], "default");
    assert_eq!(ran.json()["file"], "bursar.toml");

    let table = place
        .bursar_with(&variables, &["config", "--memory", "3GiB"])
        .ok();
    table.says(&[
        "3.0 GiB",
        "--memory",
        "BURSAR_CONTEXT",
        "bursar.toml:6",
        "default",
    ]);
}

#[test]
fn yaml_does_as_well() {
    let place = Place::new();
    place.write(
        "bursar.yaml",
        "# all of it\nmemory: 50%\nkv:\n  block_tokens: 32\n",
    );
    let settings = place.bursar("config --json").ok().json()["settings"].clone();
    assert_eq!(settings["memory"]["value"], "50%");
    assert_eq!(settings["kv.block_tokens"]["value"], 32);
    assert_eq!(settings["kv.block_tokens"]["line"], 4);
}

#[test]
fn the_file_can_be_named() {
    let place = Place::new();
    place.write("elsewhere/mine.toml", "threads = 3\n");
    for (variables, arguments) in [
        (
            vec![],
            vec!["config", "--json", "--config", "elsewhere/mine.toml"],
        ),
        (
            vec![("BURSAR_CONFIG", "elsewhere/mine.toml")],
            vec!["config", "--json"],
        ),
    ] {
        let ran = place.bursar_with(&variables, &arguments).ok();
        assert_eq!(ran.json()["settings"]["threads"]["value"], 3);
    }
    place
        .bursar("config --config none.toml")
        .refused(2, &["none.toml", "help: "]);
}

#[test]
fn mistakes_are_named_with_their_place_and_remedy() {
    let check = |text: &str, says: &[&str]| {
        let place = Place::new();
        place.write("bursar.toml", text);
        // Any verb that takes settings refuses them alike.
        place.bursar("config").refused(2, says);
        place.bursar("doctor").refused(2, says);
    };
    check(
        "memroy = '1GiB'\n",
        &[
            "bursar.toml:1: there is no setting memroy",
            "did you mean memory?",
        ],
    );
    check(
        "\nkv.dtype = 'f8'\n",
        &[
            "kv.dtype = \"f8\" (bursar.toml:2)",
            "help: write one of f32",
        ],
    );
    check(
        "memory = 'lots'\n",
        &["memory = \"lots\" (bursar.toml:1)", "512MiB"],
    );
    check(
        "context = [1, 2]\n",
        &["bursar.toml:1: context is a list", "write one"],
    );
    check("context = \n", &["bursar.toml:1: "]);

    let place = Place::new();
    let run = |name, value| place.bursar_with(&[(name, value)], &["config"]);
    run("BURSAR_CONTXT", "9").refused(2, &["BURSAR_CONTXT", "did you mean BURSAR_CONTEXT?"]);
    run("BURSAR_CONTEXT", "-1").refused(2, &["context = \"-1\" (BURSAR_CONTEXT)", "whole number"]);
    run("BURSAR_CONTEXT", "").ok();
    run("BURSAR_SERVICE_HOST", "10.0.0.1").ok();
    place
        .bursar("config --isa sse9")
        .refused(2, &["isa = \"sse9\" (--isa)", "scalar"]);
}

/// The reference page is the table, in words: whoever adds a setting writes it down.
#[test]
fn every_setting_is_documented() {
    let page = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../docs/reference/settings.md"
    );
    let page = std::fs::read_to_string(page).expect("the page");
    let place = Place::new();
    let settings = place.bursar("config --json").ok().json()["settings"].clone();
    let help = place.bursar("config --help").ok().stdout;
    for key in settings.as_object().expect("an object").keys() {
        // A flag may leave out the group where its own words say enough.
        let short = key.split_once('.').map_or(key.as_str(), |(_, name)| name);
        let names = [key.as_str(), short].map(|name| {
            let flag = name.replace(['.', '_'], "-");
            let variable = flag.replace('-', "_").to_uppercase();
            [format!("--{flag}"), format!("BURSAR_{variable}")]
        });
        let row = page
            .lines()
            .find(|line| line.starts_with(&format!("| `{key}` |")));
        let row = row.unwrap_or_else(|| panic!("{key} is not in docs/reference/settings.md"));
        let named = |[flag, variable]: &[String; 2]| {
            let row_names = |name: &String| row.contains(&format!("`{name}`"));
            let help_names = |name: &String| help.contains(name.as_str());
            row_names(flag) && row_names(variable) && help_names(flag) && help_names(variable)
        };
        assert!(
            names.iter().any(named),
            "{row} or --help leave out {names:?}"
        );
    }
}
